"""Whatever lies where a manifest or a file that it names should: one message, at once, by its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.errors import ImagemillError, InputError, ManifestError
from jobs.inputs.input_picture import read_header
from jobs.inputs.inputs import KeptInputs, kept_path
from jobs.models.models import BUILT_IN, resolve_model
from producer.importing.picture_texts import read_texts
from producer.importing.recipe import Untold
from producer.manifest.adapter_files import AdapterFiles
from producer.manifest.embedding_files import EmbeddingFiles
from producer.manifest.lora_files import LoraFiles
from producer.manifest.manifest import Manifest, load_manifest
from producer.manifest.written_embeddings import WrittenEmbedding, embeddings_text
from producer.manifest.written_loras import WrittenLora, loras_text
from producer.prompt_files.sources import lines
from producer.wildcards.folder import WildcardFolder
from tests.faults.bounds import bounded
from tests.odd_files import DEEP, ODD, cheap, put

_DOUBLED = "x{0}: &x{0} {{a: *x{1}, b: *x{1}}}\n"
PIPES = [kind for kind in ODD if kind != "sparse"]


def _one_line(error: BaseException, path: Path) -> None:
    message = str(error)
    assert str(path) in message and message.isprintable(), message


@pytest.mark.parametrize("kind", ODD)
def test_a_manifest_that_is_no_file_is_refused(tmp_path: Path, kind: str) -> None:
    put(tmp_path / "m.yaml", kind)
    with cheap(tmp_path, 256 << 20), pytest.raises(ManifestError) as caught:
        load_manifest(tmp_path / "m.yaml")
    _one_line(caught.value, tmp_path / "m.yaml")


@pytest.mark.parametrize("kind", PIPES)
@pytest.mark.parametrize(
    "name", ["p.txt", "p.jsonl", "p.json", "p.csv", "p.tsv", "p.parquet", "p.jsonl.gz", "p.txt.zst"]
)
def test_a_prompt_file_that_is_none_is_refused(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / name
    put(path, kind)
    for one_per_file in (False, True) if name == "p.txt" else (False,):
        source = {"file": str(path), "one_per_file": one_per_file}
        manifest = Manifest.from_json({"name": "cats", "model": "instant", "prompts_from": [source]})
        with cheap(tmp_path), pytest.raises(ManifestError) as caught:
            list(lines(manifest))
        _one_line(caught.value, path)


@pytest.mark.parametrize("name", ["p.jsonl", "p.json"])
@pytest.mark.parametrize(
    "text", [DEEP, b'{"prompt": "a", "height": 1e999}', b'{"prompt": "a", "seed": -1e999}', b'{"x":' * 90_000]
)
def test_values_that_no_program_writes_are_refused(tmp_path: Path, name: str, text: bytes) -> None:
    (tmp_path / name).write_bytes(text)
    written = {"name": "cats", "model": "instant", "prompts_from": [str(tmp_path / name)]}
    manifest = Manifest.from_json(written)
    with bounded(tmp_path), pytest.raises(ManifestError) as caught:
        list(lines(manifest))
    _one_line(caught.value, tmp_path / name)


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("name", ["a.txt", "a.yaml", "a.json"])
def test_a_wildcard_that_is_no_file_is_refused(tmp_path: Path, name: str, kind: str) -> None:
    put(tmp_path / name, kind)
    with cheap(tmp_path), pytest.raises(ManifestError) as caught:
        WildcardFolder(tmp_path).options("a")
    _one_line(caught.value, tmp_path / name)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", DEEP.decode()),
        ("a.json", f'{{"a": [{{"text": "x", "weight": 1{"0" * 400}}}]}}'),
        ("a.json", '{"a": [{"text": "x", "weight": 1e999}]}'),
        ("a.yaml", "[" * 5_000),
        ("a.yaml", "a: &a [*a]"),
        ("a.yaml", "a: &a {b: *a}"),
        ("a.yaml", "x0: &x0 {a: [b], c: [d]}\n" + "".join(map(_DOUBLED.format, range(1, 18), range(17)))),
    ],
    ids=["deep", "10^400", "1e999", "brackets", "list in itself", "mapping in itself", "aliases"],
)  # fmt: skip
def test_a_wildcard_that_no_program_writes_is_refused(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with cheap(tmp_path), pytest.raises(ManifestError) as caught:
        WildcardFolder(tmp_path).options("a")
    _one_line(caught.value, tmp_path / name)


@pytest.mark.parametrize("kind", ODD)
def test_a_picture_an_adapter_and_what_an_output_keeps_of_them_are_plain_files(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture, kept = tmp_path / "a.png", kept_path(tmp_path, "0" * 64)
    kept.parent.mkdir()
    put(picture, kind)
    put(kept, kind)
    with cheap(tmp_path), pytest.raises(InputError):
        read_header(picture)
    with cheap(tmp_path), pytest.raises(Untold):
        read_texts(picture)
    with cheap(tmp_path), pytest.raises(ImagemillError) as caught:
        KeptInputs(tmp_path).contents("0" * 64)
    _one_line(caught.value, kept)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    if kind != "sparse":  # an adapter may have any size
        copy = KeptInputs(tmp_path).private_copy("0" * 64)
        with cheap(tmp_path), pytest.raises(ImagemillError) as caught, copy:
            pass
        _one_line(caught.value, kept)


@pytest.mark.parametrize("kind", ODD)
def test_an_adapter_that_is_no_file_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.safetensors"
    put(path, kind)
    model = resolve_model("shapes-random")
    assert model == BUILT_IN["shapes-random"]
    with cheap(tmp_path):
        loras = LoraFiles(model, None, AdapterFiles(tmp_path))
        trouble = loras.trouble(loras_text((WrittenLora(file=str(path)),)))
    assert trouble is not None and "a.safetensors: " in trouble and trouble.isprintable()
    listed = embeddings_text((WrittenEmbedding(file=str(path), token="<x>"),))
    with cheap(tmp_path):
        trouble = EmbeddingFiles(model, AdapterFiles(tmp_path)).trouble(listed)
    assert trouble is not None and "a.safetensors: " in trouble and trouble.isprintable()
