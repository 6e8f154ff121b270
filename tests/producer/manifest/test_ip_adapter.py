"""`ip_adapter` of a manifest: what may be written, what requests and workers get of it, what is kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from jobs.adapters import ip_adapter_of
from jobs.errors import ManifestError, ModelError
from jobs.model_files.hub import HubFiles
from jobs.models import ip_adapter as resolving
from jobs.models.further_models import further_revision
from jobs.settings import Settings
from producer.manifest.manifest import Manifest, load_manifest
from producer.manifest.submitted import SubmittedManifest
from producer.prompt_files.reading import Reading
from producer.requests.prepared import Prepared, prepare
from producer.submit.job_spec import file_hashes, job_spec
from tests.checkpoint_files import Shapes, checkpoint, configuration

TO_K = "down_blocks.0.attentions.0.transformer_blocks.{}.attn2.to_k.weight"
FITTING: Shapes = {
    "image_proj.proj.weight": [64, 8],
    **{f"ip_adapter.{number}.to_{part}_ip.weight": [32, 16] for number in (1, 3) for part in "kv"},
}
LINES = """
prompts:
  - {prompt: a fox, ip_adapter_image: "{id}.png", id: p}
  - {prompt: a fox, ip_adapter_image: p.png, ip_adapter_scale: 0.4}
  - a fox
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8)).save("p.png")
    for name, kind in (("sd", "StableDiffusionPipeline"), ("flux", "FluxPipeline")):
        configuration(Path(name), kind)
    config = json.loads(Path("sd/unet/config.json").read_text())
    Path("sd/unet/config.json").write_text(json.dumps(config | {"cross_attention_dim": 16}))
    checkpoint(
        Path("sd/unet/diffusion_pytorch_model.safetensors"), {TO_K.format(n): [32, 16] for n in (0, 1)}
    )
    checkpoint(Path("adapters/ip.safetensors"), FITTING)
    encoder(Path("adapters/image_encoder"))
    yield


def encoder(folder: Path, **config: object) -> None:
    folder.mkdir(parents=True)
    usual = {"model_type": "clip_vision_model", "projection_dim": 8, "hidden_size": 16}
    (folder / "config.json").write_text(json.dumps(usual | config))
    checkpoint(folder / "model.safetensors", {"a": [1]})


def written(ip_adapter: str, lines: str = LINES, model: str = "./sd") -> Path:
    path = Path("m.yaml")
    settings = "settings: {height: 64, width: 64}"
    path.write_text(f"name: m\nmodel: {model}\nip_adapter: {ip_adapter}\n{settings}{lines}")
    return path


def prepared(ip_adapter: str, lines: str = LINES, model: str = "./sd") -> Prepared:
    return prepare(written(ip_adapter, lines, model), Settings())


def digest(file: str) -> str:
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()


@pytest.mark.parametrize(
    "ip_adapter",
    [
        "adapters/ip.safetensors",
        "{file: adapters/ip.safetensors, image_encoder: ./adapters/image_encoder}",
        "{file: adapters/ip.safetensors, image_encoder_folder: image_encoder}",
        "{model: ./adapters, weight_name: ip.safetensors}",
        "{model: ., subfolder: adapters, weight_name: ip.safetensors, image_encoder_folder: image_encoder}",
        "{model: ., subfolder: adapters, weight_name: ip.safetensors, "
        "image_encoder_folder: adapters/image_encoder}",
    ],
)
def test_it_is_named_by_its_file_or_as_for_load_ip_adapter(ip_adapter: str, tmp_path: Path) -> None:
    found = prepared(ip_adapter)
    (_, first), (_, second), (_, plain) = found.entries()
    folder = tmp_path / "adapters/image_encoder"
    adapter = ip_adapter_of(first.request.ip_adapter)
    assert adapter is not None
    assert (adapter.name, adapter.sha256) == ("ip", digest("adapters/ip.safetensors"))
    assert (adapter.image_encoder, adapter.revision) == ("image_encoder", further_revision(folder))
    assert (first.request.ip_adapter_image, first.request.ip_adapter_scale) == (digest("p.png"), 1.0)
    assert second.request.ip_adapter_scale == 0.4
    assert first.request.adapters != second.request.adapters != plain.request.adapters
    assert plain.request.ip_adapter == "[]"
    assert list(first.inputs) == [digest("p.png"), adapter.sha256] and list(plain.inputs) == []
    assert job_spec(found).further_models == (("image_encoder", str(folder), adapter.revision),)


def test_of_the_hub_file_and_image_encoder_are_of_one_commit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    commit = "a" * 40
    asked: list[str] = []

    def hub_file(model: str, name: str, revision: str) -> Path:
        asked.append(f"{model} {name} {revision}")
        return tmp_path / "adapters/ip.safetensors"

    monkeypatch.setattr(resolving, "hub_commit", lambda model, revision: commit)
    monkeypatch.setattr(resolving, "hub_file", hub_file)
    config = json.loads(Path("adapters/image_encoder/config.json").read_text())
    monkeypatch.setattr(HubFiles, "__call__", lambda files, name: asked.append(name) or config)
    found = prepared("{model: h94/IP-Adapter, subfolder: models, weight_name: ip.safetensors}")
    [(_, entry), *_] = found.entries()
    adapter = ip_adapter_of(entry.request.ip_adapter)
    assert asked == [f"h94/IP-Adapter models/ip.safetensors {commit}", "models/image_encoder/config.json"]
    assert adapter is not None
    assert (adapter.image_encoder, adapter.revision) == ("h94/IP-Adapter", f"{commit}:models/image_encoder")
    assert job_spec(found).further_models == (("image_encoder", "h94/IP-Adapter", adapter.revision),)
    pinned = found.pinned.to_json()["ip_adapter"]
    encoder = {"model": "h94/IP-Adapter", "subfolder": "models/image_encoder", "revision": commit}
    assert (pinned["revision"], pinned["image_encoder"]) == (commit, encoder)


def test_the_kept_manifest_says_what_images_follow_from_and_where_nothing_lies(tmp_path: Path) -> None:
    found = prepared("adapters/ip.safetensors")
    reading = Reading()
    entries = list(found.entries(reading=reading))
    files = file_hashes(found, reading)
    assert files[str(tmp_path / "adapters/ip.safetensors")] == digest("adapters/ip.safetensors")
    kept = SubmittedManifest(found.pinned, "", files, "StableDiffusionPipeline")
    assert SubmittedManifest.from_json(kept.to_json()) == kept
    assert Manifest.from_json(found.pinned.to_json()) == found.pinned
    told = job_spec(found).manifest["ip_adapter"]
    assert told["file"] == "adapters/ip.safetensors"
    assert told["image_encoder"]["model"] == "./adapters/image_encoder"
    assert str(tmp_path) not in json.dumps(told)
    assert found.referenced(entry for _, entry in entries) == {}
    assert {file.sha256 for file in found.inputs.wanted()} == {*entries[0][1].inputs}
    adapter = found.pinned.ip_adapter
    assert adapter is not None and (ref := adapter.kept(files)) is not None
    assert ref.sha256 == digest("adapters/ip.safetensors")
    request = entries[0][1].request
    assert ip_adapter_of(request.ip_adapter).revision == ref.image_encoder.revision  # type: ignore[union-attr]


def test_scales_and_pictures_are_swept_and_stand_in_rows() -> None:
    Path("p.csv").write_text("prompt,ip_adapter_image,ip_adapter_scale\na,p.png,0.2\nb,,\n")
    lines = "\nprompts_from: p.csv\nsweep: {seed: [1, 2]}"
    entries = [entry.request for _, entry in prepared("adapters/ip.safetensors", lines).entries()]
    assert [one.ip_adapter_scale for one in entries] == [0.2, 0.2, 1.0, 1.0]
    assert [one.ip_adapter_image is None for one in entries] == [False, False, True, True]
    lines = "\nprompts: [a]\nsweep: {ip_adapter_image: [p.png], ip_adapter_scale: [0, 0.5]}"
    reading = Reading()
    found = prepared("adapters/ip.safetensors", lines).entries(reading=reading)
    assert [entry.request.ip_adapter_scale for _, entry in found] == [0.0, 0.5]
    assert list(reading.told()) == []  # the picture is not brought to the size that is painted


@pytest.mark.parametrize(
    ("ip_adapter", "words"),
    [
        (
            "{file: a.safetensors, model: ./a}",
            "3:13: ip_adapter: needs `file`, or `model` with `weight_name`",
        ),
        ("{model: ./a}", "3:14: ip_adapter.model: needs `weight_name`, the file in it: add it"),
        ("{file: a.safetensors, subfolder: b}", "3:35: ip_adapter.subfolder: needs `model` in place of"),
        ("{model: ./a, weight_name: ../b.safetensors}", "3:26: ip_adapter.weight_name: must lie in `model`"),
        (
            "{model: ./a, weight_name: b.safetensors, revision: main}",
            "3:54: ip_adapter.revision: is of a hub repository, and `model` is a folder: remove it",
        ),
        ("{file: a.safetensors, weights: b}", "3:35: ip_adapter.weights: no such key"),
        ("{file: a.safetensors, image_encoder: {modle: b}}", "3:51: ip_adapter.image_encoder.modle: no such"),
    ],
)
def test_what_is_written_wrongly_is_refused_at_its_place(ip_adapter: str, words: str) -> None:
    with pytest.raises(ManifestError) as raised:
        load_manifest(written(ip_adapter))
    assert f"m.yaml:{words}" in str(raised.value)


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        (
            {"image_proj.proj.weight": [64, 9]},
            "takes pictures of an image encoder of width 9, and the one gi",
        ),
        (
            {"ip_adapter.5.to_k_ip.weight": [32, 16], "ip_adapter.5.to_v_ip.weight": [32, 16]},
            "the model has 2",
        ),
        (
            {f"ip_adapter.{n}.to_{part}_ip.weight": [32, 24] for n in (1, 3) for part in "kv"},
            "for texts of width 24, and the model's texts are 16 wide: name an IP-Adapter for this model",
        ),
        ({"ip_adapter.0.to_q_lora.down.weight": [1, 1]}, "is an IP-Adapter FaceID, which is not painted"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tensors: Shapes, words: str) -> None:
    checkpoint(Path("adapters/ip.safetensors"), FITTING | tensors)
    with pytest.raises(ModelError, match=words) as raised:
        prepared("adapters/ip.safetensors")
    assert str(raised.value).startswith("m.yaml:3:13: ip_adapter")


def test_other_files_models_and_image_encoders_are_refused() -> None:
    Path("adapters/ip.bin").write_bytes(b"x")
    whole = Path("adapters/ip.safetensors").read_bytes()
    Path("cut.safetensors").write_bytes(whole[:-1])
    encoder(Path("clip"), model_type="clip")
    for ip_adapter, model, words in (
        ("adapters/ip.bin", "./sd", "is a pickle, which runs code when it is loaded"),
        ("nowhere.safetensors", "./sd", "there is no such file: correct it, or put the file there"),
        ("cut.safetensors", "./sd", "is cut off"),
        ("p.png", "./sd", "must end in .safetensors"),
        (
            "{file: adapters/ip.safetensors, sha256: " + "f" * 64 + "}",
            "./sd",
            "not sha256 = fff",
        ),
        ("adapters/ip.safetensors", "./flux", "is a FluxPipeline, which takes none here, only StableDiff"),
        (
            "{file: adapters/ip.safetensors, image_encoder: ./none}",
            "./sd",
            "image_encoder = .*none: there is no such folder: correct it, or put an image encoder there",
        ),
        (
            "{file: adapters/ip.safetensors, image_encoder: ./clip}",
            "./sd",
            "says model_type 'clip', not 'clip_vision_model': name the folder of a CLIPVisionModelWithProj",
        ),
    ):
        with pytest.raises(ModelError, match=words) as raised:
            prepared(ip_adapter, model=model)
        assert str(raised.value).startswith("m.yaml:3:13: "), raised.value


@pytest.mark.parametrize(
    ("top", "lines", "words"),
    [
        (
            "ip_adapter: adapters/ip.safetensors",
            "prompts: [a]",
            "m.yaml:3:13: ip_adapter: does nothing: no line has an ip_adapter_image",
        ),
        (
            "mode: exact",
            "prompts: [{prompt: a, ip_adapter_image: p.png}]",
            "prompts[0].ip_adapter_image: needs an IP-Adapter: give `ip_adapter` at the manifest's top",
        ),
        (
            "ip_adapter: adapters/ip.safetensors",
            "prompts: [{prompt: a, ip_adapter_scale: 0.5}, {prompt: b, ip_adapter_image: p.png}]",
            "prompts[0].ip_adapter_scale = 0.5: does nothing without ip_adapter_image",
        ),
        (
            "ip_adapter: adapters/ip.safetensors",
            "prompts: [{prompt: a, ip_adapter_image: q.png}]",
            "q.png: there is no such file: correct it, or put the file there",
        ),
        (
            "ip_adapter: adapters/ip.safetensors",
            "prompts: [{prompt: a, ip_adapter_image: p.png, ip_adapter_scale: 11}]",
            "prompts[0].ip_adapter_scale = 11: must be",
        ),
    ],
)
def test_what_a_line_says_in_vain_or_wrongly_is_refused_at_its_place(
    top: str, lines: str, words: str
) -> None:
    Path("m.yaml").write_text(f"name: m\nmodel: ./sd\n{top}\nsettings: {{height: 64, width: 64}}\n{lines}\n")
    with pytest.raises(ManifestError) as raised:
        prepare(Path("m.yaml"), Settings())
    assert words in str(raised.value)
