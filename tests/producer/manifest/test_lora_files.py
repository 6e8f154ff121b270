"""LoRAs of manifests and rows: found, checked against the model, hashed, and refused at their place."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import HfApi

from jobs.adapters import Lora, loras_of
from jobs.errors import ManifestError
from jobs.request import ImageRequest
from jobs.settings import Settings
from producer.prompt_files.reading import Reading
from producer.requests.prepared import Prepared, prepare
from tests.lora_headers import TO_Q, layer, lora, lora_of, stable_diffusion

HEAD = "name: a\nmodel: ./sd\nsettings: {height: 64, width: 64}\n"
TAGS = "syntax: a1111\nlora_folder: loras\n"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    stable_diffusion(tmp_path / "sd")
    lora_of(tmp_path / "loras/ink.safetensors")
    lora_of(tmp_path / "loras/grain.safetensors", "conv_out", 4, 32)
    lora(tmp_path / "loras/grain.safetensors", layer("unet.conv_in", 32, 4, kernel=(3, 3)))


def prepared(text: str, head: str = HEAD) -> Prepared:
    Path("m.yaml").write_text(head + text)
    return prepare(Path("m.yaml"), Settings())


def requests(text: str, head: str = HEAD) -> list[ImageRequest]:
    return [entry.request for _image_id, entry in prepared(text, head).entries()]


def asked(text: str, head: str = HEAD) -> list[list[tuple[str, float]]]:
    """The names and scales of each request's LoRAs."""
    return [[(one.name, one.scale) for one in loras_of(request.loras)] for request in requests(text, head)]


def refusal(text: str, head: str = HEAD) -> str:
    with pytest.raises(ManifestError) as caught:
        list(prepared(text, head).entries())
    return str(caught.value)


def sha256(name: str) -> str:
    return hashlib.sha256(Path(name).read_bytes()).hexdigest()


def test_a_request_holds_each_files_name_hash_and_scale() -> None:
    [request] = requests("prompts: [{prompt: a fox, loras: [{file: loras/ink.safetensors, scale: 0.8}]}]")
    assert loras_of(request.loras) == (Lora("ink", sha256("loras/ink.safetensors"), 0.8),)


def test_a_list_may_stand_in_settings_a_prompt_the_sweep_and_a_row() -> None:
    ink = "[{file: loras/ink.safetensors}]"
    usual = f"name: a\nmodel: ./sd\nsettings: {{height: 64, width: 64, loras: {ink}}}\n"
    assert asked("prompts: [a, {prompt: b, loras: []}]", usual) == [[("ink", 1.0)], []]
    assert asked(f"prompts: [a]\nsweep: {{loras: [[], {ink}]}}") == [[], [("ink", 1.0)]]
    rows = [{"prompt": "a", "loras": [{"file": "loras/ink.safetensors", "scale": 0.5}]}, {"prompt": "b"}]
    Path("p.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert asked("prompts_from: p.jsonl") == [[("ink", 0.5)], []]


def test_cells_of_tables_name_loras_of_the_folder() -> None:
    Path("p.csv").write_text('prompt,loras\na,"ink:0.8, grain:0.5"\nb,\n')
    assert asked("lora_folder: loras\nprompts_from: p.csv") == [[("ink", 0.8), ("grain", 0.5)], []]


def test_image_ids_follow_from_contents_and_scales_and_not_from_names_or_paths() -> None:
    Path("other.safetensors").write_bytes(Path("loras/ink.safetensors").read_bytes())

    def image_id(file: str, scale: float) -> str:
        prompt = f"{{prompt: a, seed: 1, loras: [{{file: {file}, scale: {scale}}}]}}"
        [request] = requests(f"prompts: [{prompt}]")
        return request.image_id

    [plain] = requests("prompts: [{prompt: a, seed: 1}]")
    same = {image_id("loras/ink.safetensors", 1), image_id("other.safetensors", 1.0)}
    others = {plain.image_id, image_id("loras/ink.safetensors", 0), image_id("loras/grain.safetensors", 1)}
    assert (len(same), len(same | others)) == (1, 4)


def test_tags_are_taken_out_of_prompts_and_join_the_lines_own_list() -> None:
    text = TAGS + "prompts: ['a fox <lora:ink:0.8>, sharp', {prompt: '<lora:ink> b', loras: [grain]}]"
    assert [request.prompt for request in requests(text)] == ["a fox, sharp", "b"]
    assert asked(text) == [[("ink", 0.8)], [("grain", 1.0), ("ink", 1.0)]]


def test_tags_stay_words_where_the_syntax_is_plain() -> None:
    [request] = requests("lora_folder: loras\nprompts: ['a <lora:ink:0.8> fox']")
    assert (request.prompt, request.loras) == ("a <lora:ink:0.8> fox", "[]")


def test_tags_are_read_in_rows_in_what_is_drawn_and_in_variables() -> None:
    Path("p.txt").write_text("a <lora:ink:0.8>\nb <lora:nib:1>\nc\n")
    text = TAGS + "on_bad_row: skip\nprompts_from: p.txt"
    assert asked(text) == [[("ink", 0.8)], []]
    drawn = "syntax: [dynamic, a1111]\nlora_folder: loras\nprompts: ['a <lora:{ink|grain}:0.8>']"
    assert asked(drawn) == [[("ink", 0.8)], [("grain", 0.8)]]
    filled = TAGS + "prompts: [{prompt: 'a <lora:{x}:1>', variables: {x: [ink, grain]}}]"
    assert asked(filled) == [[("ink", 1.0)], [("grain", 1.0)]]


def test_a_bad_row_is_told_with_its_line() -> None:
    Path("p.txt").write_text("a\nb <lora:nib:1>\n")
    assert refusal(TAGS + "prompts_from: p.txt").endswith(
        "p.txt:2: prompt = b <lora:nib:1>: nib: there is no such file in "
        f"{Path.cwd()}/loras (there are grain, ink)"
    )
    Path("p.jsonl").write_text('{"prompt": "a", "loras": "nib:0.8"}\n{"prompt": "a", "loras": 3}\n')
    first, second = refusal("prompts_from: p.jsonl").splitlines()
    assert "p.jsonl:1: loras" in first
    assert "names of LoRAs need `lora_folder: FOLDER` in the manifest" in first
    assert "p.jsonl:2: loras = 3: must be a list of LoRAs" in second


@pytest.mark.parametrize(
    ("loras", "says"),
    [
        ("[{file: x.bin}]", "x.bin: is a pickle, which runs code when it is loaded"),
        ("[{file: x.safetensors}]", "x.safetensors: there is no such file: correct it"),
        ("[ink]", "ink: names of LoRAs need `lora_folder: FOLDER`"),
        ("['loras/ink.safetensors', 'loras/ink.safetensors:2']", "ink.safetensors: is in the list twice"),
        ("[{file: bare.safetensors}]", "bare.safetensors: its layers are named without a component"),
        ("[{file: wide.safetensors}]", "wide.safetensors: is a LoRA of another model"),
        ("[{model: ./loras, weight_name: ../x.safetensors}]", "must lie in its model"),
        ("[{model: ./loras, weight_name: x.pt}]", "x.pt: is a pickle"),
        ("[{model: ./m, weight_name: a.safetensors, revision: main}]", "in a folder, which has no revision"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_at_its_place(loras: str, says: str) -> None:
    lora(Path("bare.safetensors"), layer(TO_Q))
    lora_of(Path("wide.safetensors"), TO_Q, 64, 64)
    found = refusal(f"prompts:\n  - {{prompt: a, loras: {loras}}}\n")
    assert found.startswith("m.yaml:5:24: prompts[0].loras: ")
    assert says in found
    at_all = refusal("prompts: [a]", f"name: a\nmodel: ./sd\nsettings: {{height: 64, loras: {loras}}}\n")
    assert at_all.startswith("m.yaml:3:31: settings.loras: ")
    swept = refusal(f"prompts: [a]\nsweep:\n  loras:\n    - []\n    - {loras}\n")
    assert swept.startswith("m.yaml:8:7: sweep.loras[1]: ")


def test_a_scale_of_nothing_is_taken_and_one_that_is_too_large_is_not() -> None:
    assert asked("prompts: [{prompt: a, loras: ['loras/ink.safetensors:0']}]") == [[("ink", 0.0)]]
    assert "m.yaml:4:30: prompts[0].loras = a list of 1: number 1 has scale = 12" in refusal(
        "prompts: [{prompt: a, loras: [{file: loras/ink.safetensors, scale: 12}]}]"
    )


def test_a_class_that_takes_no_loras_says_so() -> None:
    head = "name: a\nmodel: ./pixart\n"
    index = {"_class_name": "PixArtSigmaPipeline", "vae": ["diffusers", "X"]}
    Path("pixart/vae").mkdir(parents=True)
    Path("pixart/model_index.json").write_text(json.dumps(index))
    Path("pixart/vae/config.json").write_text('{"block_out_channels": [1, 2, 3, 4]}')
    found = refusal("settings: {height: 64, width: 64, loras: ['loras/ink.safetensors']}\nprompts: [a]", head)
    assert "settings.loras: diffusers loads no LoRA into a PixArtSigmaPipeline" in found


def test_a_file_that_fits_in_part_is_used_and_told() -> None:
    lora(Path("part.safetensors"), layer(f"unet.{TO_Q}"), layer("unet.nowhere"))
    reading = Reading()
    text = "prompts: [{prompt: a, loras: [part.safetensors]}]"
    assert len(list(prepared(text).entries(reading=reading))) == 1
    assert list(reading.told()) == [
        "part.safetensors: 1 of its 2 layers (unet.nowhere, …) are none that diffusers loads into this "
        "model, and are left out"
    ]


def test_a_folder_in_which_no_line_names_a_lora_is_told() -> None:
    def told(text: str) -> list[str]:
        reading = Reading()
        list(prepared(text).entries(reading=reading))
        return [line for line in reading.told() if "does nothing" in line]

    assert told(TAGS + "prompts: [a]") == [
        "m.yaml:5:14: lora_folder: does nothing: no line names a LoRA in it: write <lora:NAME:1> under "
        "`syntax: a1111`, or NAME:1 in `loras`"
    ]
    assert told(TAGS + "prompts: ['a <lora:ink:1>']") == []
    Path("p.csv").write_text("prompt,loras\na,ink:0.8\n")
    assert told("lora_folder: loras\nprompts_from: p.csv") == []


def test_a_file_of_a_folder_or_of_the_hubs_cache_is_taken() -> None:
    commit = "1" * 40
    lora_of(Path("hub/models--org--name/snapshots") / commit / "styles/nib.safetensors")
    of_hub = f"{{model: org/name, weight_name: styles/nib.safetensors, revision: '{commit}', scale: 0.5}}"
    of_folder = "{model: ./loras, weight_name: grain.safetensors}"
    found = asked(f"prompts: [{{prompt: a, loras: [{of_hub}, {of_folder}]}}]")
    assert found == [[("nib", 0.5), ("grain", 1.0)]]


def test_an_output_keeps_the_commit_of_each_lora_of_the_hub_which_is_asked_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    commit, asked_for = "3" * 40, list[tuple[str, str | None]]()
    lora_of(Path("hub/models--org--name/snapshots") / commit / "nib.safetensors")

    def info(_api: HfApi, name: str, *, revision: str | None, timeout: float) -> SimpleNamespace:
        asked_for.append((name, revision))
        return SimpleNamespace(sha=commit)

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", info)
    nib = "{model: org/name, weight_name: nib.safetensors, scale: %s}"
    text = f"""
prompts: [{{prompt: a, loras: [{nib % 0.5}]}}, {{prompt: b, loras: [{nib % 0.6}, grain]}}]
sweep: {{textual_inversions: [[]]}}
lora_folder: loras
"""
    found = prepared(text)
    assert asked_for == [("org/name", None)]
    kept = [json.loads(line["loras"]) for line in found.pinned.to_json()["prompts"]]
    assert [one[0]["revision"] for one in kept] == [commit, commit]
    assert kept[1][1] == {"name": "grain", "scale": 1.0}
    assert len(list(found.entries())) == 2
    assert asked_for == [("org/name", None)]
    swept = prepared(f"prompts: [a]\nsweep: {{loras: [[], [{nib % 1}]]}}").pinned.to_json()["sweep"]["loras"]
    assert [commit in one for one in swept] == [False, True]
    rows = [{"prompt": "a", "loras": [{"model": "org/name", "weight_name": "nib.safetensors"}]}] * 2
    Path("p.jsonl").write_text("\n".join(map(json.dumps, rows)))
    asked_for.clear()
    assert asked("prompts_from: p.jsonl") == [[("nib", 1.0)]] * 2
    assert len(asked_for) <= 2  # once as rows are read, and once as requests are made


def test_a_lora_that_the_hub_does_not_give_is_asked_for_once_however_many_rows_name_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked_for = []

    def unreachable(url: str, timeout: float) -> None:
        asked_for.append((url, timeout))
        raise OSError("no route")

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", unreachable)
    one = {"model": "org/name", "weight_name": "nib.safetensors", "revision": "4" * 40}
    rows = [{"prompt": "a", "loras": [one | {"scale": number / 10}]} for number in range(9)]
    Path("p.jsonl").write_text("\n".join(map(json.dumps, [*rows, {"prompt": "b"}])))
    assert asked("on_bad_row: skip\nprompts_from: p.jsonl") == [[]]
    assert len(asked_for) == 1


def test_a_file_that_the_hub_does_not_give_is_refused_at_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(url: str, timeout: float) -> None:
        raise OSError(f"no route to {url} in {timeout:g} s")

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", unreachable)
    commit = "2" * 40
    of_hub = f"{{model: org/name, weight_name: nib.safetensors, revision: '{commit}'}}"
    assert refusal(f"prompts: [{{prompt: a, loras: [{of_hub}]}}]") == (
        "m.yaml:4:30: prompts[0].loras: org/name/nib.safetensors: is not in the hub's cache, and cannot be "
        f"fetched (no route to https://huggingface.co/org/name/resolve/{commit}/nib.safetensors in 5 s): "
        "correct it, or name a file"
    )


def test_a_swept_syntax_excludes_the_folder() -> None:
    found = refusal("lora_folder: loras\nprompts: [a]\nsweep: {syntax: [plain, a1111]}")
    assert "m.yaml:6:9: sweep.syntax: excludes `lora_folder`" in found


def test_a_submitted_manifest_names_no_folder_of_its_author() -> None:
    from producer.manifest.manifest import Manifest
    from producer.manifest.path_names import PathNames, with_paths

    text = TAGS + "prompts: [{prompt: a, loras: [loras/ink.safetensors]}]\nsweep: {seed: [1]}"
    manifest = prepared(text).manifest
    names = PathNames(Path.cwd())
    kept = names.of_manifest(manifest.to_json())
    assert str(Path.cwd()) not in json.dumps(kept)
    located = with_paths(kept, lambda name: names.known.get(name, name))
    assert Manifest.from_json(located | {"output": manifest.output}).prompts == manifest.prompts
