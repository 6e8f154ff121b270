"""`syntax: dynamic` draws prompts from templates in manifests and in every prompt file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from jobs.entry import Entry
from jobs.errors import ManifestError
from jobs.models.models import resolve_model
from producer.manifest.manifest import Manifest, load_manifest
from producer.prompt_files.reading import Reading
from tests.expanded import expand

MODEL = resolve_model("shapes-random")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "wildcards").mkdir()
    (tmp_path / "wildcards/pet.txt").write_text("cat\ndog\n")
    return tmp_path


def _load(folder: Path, more: str) -> Manifest:
    file = folder / "m.yaml"
    file.write_text(f"name: pets\nmodel: shapes-random\nsyntax: dynamic\n{more}", "utf-8")
    return load_manifest(file)


def _entries(folder: Path, more: str, reading: Reading | None = None) -> Iterator[Entry]:
    return expand(_load(folder, more), MODEL, reading=reading)


def _prompts(folder: Path, more: str) -> list[str]:
    return [entry.request.prompt for entry in _entries(folder, more)]


FILES = {
    "p.txt": "a __pet__ --s 7\n",
    "p.jsonl": '{"prompt": "a __pet__", "num_inference_steps": 7}\n',
    "p.json": '[{"prompt": "a __pet__", "num_inference_steps": 7}]',
    "p.csv": "prompt,num_inference_steps\na __pet__,7\n",
    "p.parquet": "",
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("large", [0, 1 << 30])
def test_templates_are_drawn_from_in_every_format(
    folder: Path, name: str, large: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("producer.prompt_files.sources.LARGE", large)
    (folder / name).write_text(FILES[name])
    if name == "p.parquet":
        table = pyarrow.table({"prompt": ["a __pet__"], "num_inference_steps": [7]})
        pyarrow.parquet.write_table(table, folder / name)
    reading = Reading()
    entries = list(_entries(folder, f"prompts_from: {name}\n", reading))
    assert [entry.request.prompt for entry in entries] == ["a cat", "a dog"]
    assert [entry.request.num_inference_steps for entry in entries] == [7, 7]
    assert [entry.columns for entry in entries] == [{"prompt_template": "a __pet__"}] * 2
    wildcard = folder / "wildcards/pet.txt"
    assert reading.sha256[str(wildcard)] == hashlib.sha256(wildcard.read_bytes()).hexdigest()


def test_seeds_ids_columns_and_the_sweep_are_those_of_every_draw(folder: Path) -> None:
    line = "{prompt: '{a|b}', seeds: [1, 2], id: x, columns: {kind: test}}"
    entries = list(_entries(folder, f"prompts: [{line}, plain]\nsweep: {{guidance_scale: [1, 3]}}\n"))
    drawn = [(one.request.prompt, one.request.guidance_scale, one.request.seed) for one in entries[:8]]
    assert drawn == [(text, scale, seed) for text in "ab" for scale in (1, 3) for seed in (1, 2)]
    assert {(one.id, one.columns["kind"], one.columns["prompt_template"]) for one in entries[:8]} == {
        ("x", "test", "{a|b}")
    }
    assert [(one.request.prompt, one.columns) for one in entries[8:]] == [("plain", {})] * 2


def test_sample_draws_so_many_of_each_line_and_pictures_of_each_draw(folder: Path) -> None:
    more = "sample: 5\nsettings: {images_per_prompt: 2}\nprompts: ['a __pet__ {1|2|3|4|5|6|7|8|9}', plain]\n"
    entries = list(_entries(folder, more))
    assert len(entries) == 12
    assert [one.request.prompt for one in entries[0:10:2]] == [one.request.prompt for one in entries[1:10:2]]
    assert len({one.request.image_id for one in entries}) == 12


def test_an_option_that_is_added_to_a_file_gives_new_images_to_the_draws_that_take_it_alone(
    folder: Path,
) -> None:
    more = (
        "sample: 200\nprompts: ['a __pet__ in {fog|rain}', {prompt: 'two {2$$ and $$__pet__}s', seed: 5}]\n"
    )
    before = {one.request.image_id: one.request.prompt for one in _entries(folder, more)}
    (folder / "wildcards/pet.txt").write_text("cat\nowl\ndog\n")
    after = {one.request.image_id: one.request.prompt for one in _entries(folder, more)}
    new = [prompt for image_id, prompt in after.items() if image_id not in before]
    assert new and all("owl" in prompt for prompt in new)
    assert len(new) == sum("owl" in prompt for prompt in after.values())


def test_negative_prompts_are_drawn_with_their_prompts(folder: Path) -> None:
    more = (
        "settings: {negative_prompt: 'no {x|y}'}\n"
        "prompts: ['a __pet__', {prompt: c, negative_prompt: 'a {1|2}'}, {prompt: d, negative_prompt: e}]\n"
    )
    entries = list(_entries(folder, more))
    assert [(one.request.prompt, one.request.negative_prompt) for one in entries] == [
        ("a cat", "no x"), ("a cat", "no y"), ("a dog", "no x"), ("a dog", "no y"),
        ("c", "a 1"), ("c", "a 2"), ("d", "e"),
    ]  # fmt: skip
    assert entries[0].columns == {"prompt_template": "a __pet__", "negative_prompt_template": "no {x|y}"}


def test_what_is_wrong_is_named_with_its_line(folder: Path) -> None:
    (folder / "p.jsonl").write_text('{"prompt": "ok"}\n{"prompt": "a __pat__"}\n{"prompt": "{a|"}\n')
    with pytest.raises(ManifestError) as caught:
        _prompts(folder, "prompts_from: p.jsonl\n")
    assert str(caught.value).split("\n") == [
        f"{folder}/p.jsonl:2: __pat__: no such wildcard in {folder}/wildcards: did you mean __pet__?",
        f"{folder}/p.jsonl:3: column 1: cannot be read from {{a| on: close {{…}} or __…__ there, or write it "
        "without these marks",
    ]
    assert _prompts(folder, "on_bad_row: skip\nprompts_from: p.jsonl\n") == ["ok"]
    with pytest.raises(ManifestError) as caught:
        _prompts(
            folder, "prompts:\n- ok\n- prompt: __pat__\n- '{a|'\nsweep: {negative_prompt: ['', '{a|b}']}\n"
        )
    assert str(caught.value).split("\n") == [
        f"{folder}/m.yaml:8:31: sweep.negative_prompt[1]: nothing is drawn for a swept text: write it out",
        f"{folder}/m.yaml:6:11: prompts[1].prompt: __pat__: no such wildcard in {folder}/wildcards: did you "
        "mean __pet__?",
        f"{folder}/m.yaml:7:3: prompts[2]: column 1: cannot be read from {{a| on: close {{…}} or __…__ "
        "there, or write it without these marks",
    ]


def _with_weights(folder: Path, more: str) -> list[str]:
    file = folder / "m.yaml"
    file.write_text(f"name: pets\nmodel: shapes-random\nsyntax: [dynamic, a1111]\n{more}", "utf-8")
    return [entry.request.prompt for entry in expand(load_manifest(file), MODEL)]


@pytest.mark.parametrize("skip", ["", "on_bad_row: skip\n"])
@pytest.mark.parametrize("large", [0, 1 << 30])
def test_with_weights_a_drawn_text_that_is_not_rendered_is_named_with_its_line(
    folder: Path, skip: str, large: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("producer.prompt_files.sources.LARGE", large)
    (folder / "wildcards/pet.txt").write_text("cat\ndog <lora:fur:1>\n")
    (folder / "p.jsonl").write_text('{"prompt": "a {red|blue}"}\n{"prompt": "a (big:1.2) __pet__"}\n')
    with pytest.raises(ManifestError) as caught:
        _with_weights(folder, f"{skip}prompts: [ok, 'a [c|d] {{e|f}}']\nprompts_from: p.jsonl\n")
    assert str(caught.value).split("\n") == [
        f"{folder}/m.yaml:{5 if skip else 4}:15: prompts[1]: prompt drawn as a [c|d] e: [c|d] alternates "
        "between texts from step to step, which is not rendered: write one text; brackets that are text are "
        r"\[ and \]",
        f"{folder}/p.jsonl:2: prompt drawn as a (big:1.2) dog <lora:fur:1>: <lora:fur:1> names a LoRA, which "
        "a prompt loads under `syntax: a1111` with `lora_folder: FOLDER`, and a negative prompt never: add "
        "these to the manifest, or remove it",
    ]


def test_with_weights_no_template_is_read_as_a_text(folder: Path) -> None:
    (folder / "p.jsonl").write_text('{"prompt": "[{a|b}]"}\n{"prompt": "{(c:1.2)|(d:1.3)}"}\n')
    more = "settings: {negative_prompt: '[{x|y}]'}\nprompts: ['[{e|f}]']\nprompts_from: p.jsonl\n"
    drawn = ["[e]", "[f]", "[a]", "[b]", "(c:1.2)", "(d:1.3)"]
    assert _with_weights(folder, more) == [text for text in drawn for _ in "xy"]


def test_with_weights_of_its_own_a_line_is_checked_once_it_is_drawn(folder: Path) -> None:
    (folder / "p.jsonl").write_text('{"prompt": "[{a|b}] AND", "syntax": "a1111"}\n')
    with pytest.raises(ManifestError, match=r"p\.jsonl:1: prompt drawn as \[a\] AND: .*AND composes several"):
        _prompts(folder, "prompts: ['a AND b']\nprompts_from: p.jsonl\n")


def test_a_drawn_text_that_no_jpeg_holds_is_named_with_its_line(folder: Path) -> None:
    (folder / "wildcards/long.txt").write_text("a\n" + "🦊" * 19_000 + "\n")
    (folder / "p.jsonl").write_text('{"prompt": "ok"}\n{"prompt": "__long__"}\n')
    with pytest.raises(ManifestError, match=r"p\.jsonl:2: .*JPEG"):
        _prompts(folder, "image_format: jpeg\nprompts_from: p.jsonl\n")


def test_the_folder_of_wildcards_can_be_named(folder: Path) -> None:
    (folder / "words").mkdir()
    (folder / "words/pet.txt").write_text("owl\n")
    assert _prompts(folder, "wildcards: words\nprompts: [__pet__]\n") == ["owl"]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (
            "wildcards: words\nprompts: [a]\n",
            "m.yaml:3:1: wildcards: needs `syntax: dynamic`: add it, or remove",
        ),
        ("sample: 3\nprompts: [a]\n", "m.yaml:3:1: sample: needs `syntax: dynamic`: add it, or remove this"),
        ("sample_seed: 3\nprompts: [a]\n", "m.yaml:3:1: sample_seed: needs `syntax: dynamic`"),
        ("syntax: jinja\nprompts: [a]\n", "m.yaml:3:9: syntax = jinja: must be plain or dynamic"),
        (
            "syntax: [dynamic, plain]\nprompts: [a]\n",
            "m.yaml:3:1: syntax: takes one of plain, dynamic, a1111 and compel, or [dynamic, a1111] "
            "or [dynamic, compel]",
        ),
        (
            "syntax: dynamic\nprompts: [{prompt: '{x}', variables: {x: [a]}}]\n",
            "m.yaml:4:27: prompts[0].variables: and `syntax: dynamic` exclude each other",
        ),
        (
            "syntax: dynamic\nprompts: [{prompt: a, columns: {prompt_template: b}}]\n",
            "m.yaml:4:33: prompts[0].columns.prompt_template: is what `syntax: dynamic` writes",
        ),
        (
            "syntax: dynamic\nprompts_from: {file: p.csv, columns: [prompt_template]}\n",
            "m.yaml:4:1: prompts_from: keeps a column prompt_template, which `syntax: dynamic` writes",
        ),
    ],
)
def test_keys_that_do_not_fit_are_refused(folder: Path, text: str, what: str) -> None:
    file = folder / "m.yaml"
    file.write_text(f"name: pets\nmodel: shapes-random\n{text}")
    with pytest.raises(ManifestError) as caught:
        load_manifest(file)
    assert what in str(caught.value)


def test_a_manifest_without_these_keys_is_kept_without_them(folder: Path) -> None:
    file = folder / "m.yaml"
    file.write_text("name: pets\nmodel: shapes-random\nprompts: [a]\nsyntax: plain\n")
    assert not {"syntax", "wildcards", "sample", "sample_seed"} & load_manifest(file).to_json().keys()
    manifest = _load(folder, "sample: 3\nprompts: ['{a|b}']\n")
    assert manifest.to_json()["wildcards"] == str(folder / "wildcards")
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert manifest.column_names() == ("prompt_template", "negative_prompt_template")
