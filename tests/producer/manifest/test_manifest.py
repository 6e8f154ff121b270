from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from jobs.errors import ManifestError, ModelError
from producer.manifest.manifest import Manifest, json_schema, load_manifest
from producer.manifest.parts import PromptLine

HEAD = "name: cats\nmodel: shapes-random\n"


def _load(folder: Path, text: str) -> Manifest:
    path = folder / "m.yaml"
    path.write_text(text, "utf-8")
    return load_manifest(path)


def _errors(folder: Path, text: str) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        _load(folder, text)
    prefix = f"{folder / 'm.yaml'}:"
    return [line.removeprefix(prefix) for line in str(caught.value).split("\n")]


def test_a_short_manifest_gets_the_documented_defaults(tmp_path: Path) -> None:
    manifest = _load(tmp_path, HEAD + "prompts: [a cat]\n")
    assert manifest.to_json() == {
        "name": "cats",
        "model": "shapes-random",
        "revision": None,
        "output": str(Path.cwd() / "out" / "cats"),
        "layout": "files",
        "image_format": "png",
        "image_quality": 95,
        "precision": "auto",
        "mode": "exact",
        "shard_size": 64,
        "priority": 5,
        # The model's own: height, width, num_inference_steps, guidance_scale and scheduler.
        "settings": {"negative_prompt": "", "seed": None, "images_per_prompt": 1},
        "max_failures": None,
        "retention": 604800,
        "on_bad_row": "stop",
        "prompts": ["a cat"],
    }


def test_every_setting_is_kept(tmp_path: Path) -> None:
    manifest = _load(
        tmp_path,
        HEAD
        + """
revision: shapes-random-1
output: /data/cats
image_format: webp
image_quality: 100
precision: amp
mode: fast
shard_size: 9999
priority: 0
max_failures: 3
retention: 12h
settings: {scheduler: k_euler_a, guidance_scale: 7, seed: 0, images_per_prompt: 2}
prompts:
  - prompt: ""
    negative_prompt: ""
    height: 8
    width: 8192
    num_inference_steps: 1000
    guidance_scale: 1
    scheduler: DDIMScheduler
    seeds: [0, 9223372036854775807]
    id: "7"
    columns: {split: train, weights: [1, {a: null}], ok: true}
    init_latents: noise.npy
""",
    )
    assert manifest.settings.scheduler == "Euler a"
    assert isinstance(manifest.settings.guidance_scale, float)
    assert manifest.settings.seed == 0
    assert manifest.retention == 12 * 3600
    assert manifest.mode == "fast"
    (line,) = manifest.prompts
    assert isinstance(line, PromptLine)
    assert line.scheduler == "DDIM"
    assert line.seeds == (0, 2**63 - 1)
    assert line.columns == {"split": "train", "weights": [1, {"a": None}], "ok": True}
    assert manifest.column_names() == ("split", "weights", "ok")


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("width: 500", "4:12: prompts[0].width = 500: must be a multiple of 8 (496 or 504)"),
        ("width: 4", "4:12: prompts[0].width = 4: must be a multiple of 8 (8)"),
        ("height: 8200", "4:13: prompts[0].height = 8200: must be at most 8192"),
        ('height: "512"', '4:13: prompts[0].height = "512": must be a whole number, without quotes'),
        ("height: 512.0", "4:13: prompts[0].height = 512.0: must be a whole number, without a point"),
        ("height: true", "4:13: prompts[0].height = true: must be a whole number, without a point"),
        ("num_inference_steps: 0", "4:26: prompts[0].num_inference_steps = 0: must be at least 1"),
        ("guidance_scale: -0.5", "4:21: prompts[0].guidance_scale = -0.5: must be at least 0"),
        ("arguments: [1]", "4:16: prompts[0].arguments = a list of 1: must be a mapping of the pipeline's"),
        ("arguments: {eta: .inf}", "4:16: prompts[0].arguments = a mapping: eta: must be finite"),
        ("arguments: '{'", '4:16: prompts[0].arguments = "{": must be a mapping, as YAML or as JSON'),
        ("guidance_scale: .nan", "4:21: prompts[0].guidance_scale = .nan: must be finite"),
        ("guidance_scale: true", "4:21: prompts[0].guidance_scale = true: must be a number, without quotes"),
        ("seed: -1", "4:11: prompts[0].seed = -1: must be at least 0"),
        ("seed: 9223372036854775808", "4:11: prompts[0].seed = 9223372036854775808: must be at most 2**63-1"),
        ("seeds: []", "4:12: prompts[0].seeds = a list of 0: must not be empty"),
        ("seeds: 3", "4:12: prompts[0].seeds = 3: must be a list"),
        ("seeds: [1, a]", "4:16: prompts[0].seeds[1] = a: must be a whole number, without quotes"),
        ("images_per_prompt: 0", "4:24: prompts[0].images_per_prompt = 0: must be at least 1"),
        ("hieght: 8", "4:5: prompts[0].hieght: no such key: did you mean height?"),
        ("cfg_scale: 8", "4:5: prompts[0].cfg_scale: no such key: did you mean guidance_scale?"),
        (
            "ip_adapter: a.safetensors",
            "4:5: prompts[0].ip_adapter: is of the whole job: write it at the manifest's top",
        ),
        ("id: 7", "4:9: prompts[0].id = 7: must be text: write it in quotes"),
        ("height:", "4:12: prompts[0].height: has no value: remove the key, and `settings` counts"),
        ("columns: {text: a}", "4:15: prompts[0].columns.text: 'text' is a name of imagemill's own metadata"),
        ("columns: {seed: a}", "4:15: prompts[0].columns.seed: 'seed' is a name of imagemill's own metadata"),
        ("columns: {a: {b: .inf}}", "4:15: prompts[0].columns.a: must be finite: JSON has no inf or nan"),
        ("columns: {a: 9223372036854775808}", "4:15: prompts[0].columns.a: must fit in 64 bits"),
        ("columns: [a]", "4:14: prompts[0].columns = a list of 1: must be a mapping"),
        ("init_latents: x.pt", "4:19: prompts[0].init_latents = x.pt: must name a .npy or .safetensors file"),
        (
            "scheduler: LMSS",
            "4:16: prompts[0].scheduler = LMSS: no scheduler is called 'LMSS' (the nearest is LMS): use ",
        ),
        ('id: "a\\0b"', '4:9: prompts[0].id = "a\\u0000b": holds the character NUL: remove it'),
    ],
)
def test_a_wrong_line_is_reported_with_place_field_value_and_remedy(
    tmp_path: Path, line: str, error: str
) -> None:
    (found,) = _errors(tmp_path, HEAD + f"prompts:\n  - {line}\n    prompt: a cat\n")
    assert found.startswith(error)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("name: Cats", "1:7: name = Cats: must be 1 to 64 of a-z"),
        ("name: cats.", "1:7: name = cats.: must be 1 to 64 of a-z"),
        ("name: .cats", "1:7: name = .cats: must be 1 to 64 of a-z"),
        (f"name: {'a' * 65}", "1:7: name = aaaaaaaaaaaaaaa"),
        ("model: gpt2", "1:8: model = gpt2: is no model: use a built-in one"),
        ("model: a/b/c", "1:8: model = a/b/c: is no model"),
        ("layout: tar", "1:9: layout = tar: must be files or webdataset"),
        ("image_format: gif", "1:15: image_format = gif: must be png, jpeg or webp"),
        ("image_quality: 101", "1:16: image_quality = 101: must be at most 100"),
        ("precision: int8", "1:12: precision = int8: must be auto, bf16, fp16, amp or fp32"),
        ("mode: quick", "1:7: mode = quick: must be exact or fast"),
        ("shard_size: 10001", "1:13: shard_size = 10001: must be at most 10000"),
        ("priority: 10", "1:11: priority = 10: must be at most 9"),
        ("max_failures: 0", "1:15: max_failures = 0: must be at least 1"),
        ("retention: soon", '1:12: retention = soon: must be like "7d", "12h" or a number of seconds'),
        ("retention: 99999w", "1:12: retention = 99999w: must be at most 315360000"),
        ("settings: 7", "1:11: settings = 7: must be a mapping"),
        ("settings: {steps: 7}", "1:12: settings.steps: no such key: did you mean num_inference_steps?"),
        ("steps: 7", "1:1: steps: no such key: did you mean settings.num_inference_steps?"),
        ("output: ''", '1:9: output = "": must not be empty'),
        ("prompts: []", "1:10: prompts = a list of 0: must not be empty"),
        ("prompts: a cat", "1:10: prompts = a cat: must be a list"),
    ],
)
def test_a_wrong_top_level_key_is_reported_likewise(tmp_path: Path, line: str, error: str) -> None:
    rest = {"name": "name: cats", "model": "model: shapes-random", "prompts": "prompts: [a cat]"}
    rest.pop(line.partition(":")[0], None)
    (found,) = _errors(tmp_path, "\n".join([line, *rest.values()]))
    assert found.startswith(error)


def test_a_key_that_is_missing_is_meant_rather_than_another_that_is_as_near(tmp_path: Path) -> None:
    missing, unknown = _errors(tmp_path, "name: cats\nmodle: shapes\nprompts: [a cat]\n")
    assert missing == "1:1: model: is missing: add it"
    assert unknown == "2:1: modle: no such key: did you mean model?"  # and not mode


def test_the_keys_that_may_stand_there_are_told_of_one_that_is_like_none(tmp_path: Path) -> None:
    (found,) = _errors(tmp_path, HEAD + "zzz: 3\nprompts: [a cat]\n")
    assert found.startswith("3:1: zzz: no such key: use one of name, model, revision, ")
    assert found.endswith(", sweep; settings of images stand below settings")
    assert "height" not in found


def test_a_webdataset_is_refused_where_its_parquet_could_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = HEAD + "layout: webdataset\nprompts: [a cat]\n"
    assert _load(tmp_path, text).layout == "webdataset"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (found,) = _errors(tmp_path, text)
    assert found.startswith("3:9: layout = webdataset: needs pyarrow")
    assert "pip install 'imagemill[parquet]'" in found


@pytest.mark.parametrize(
    ("prompt", "error"),
    [
        ("yes", '3:11: prompts[0] = yes: YAML reads it as true: write "yes" in quotes, or true'),
        (
            "2024-01-01",
            '3:11: prompts[0] = 2024-01-01: YAML reads it as a date: write "2024-01-01" in quotes',
        ),
        ("7", "3:11: prompts[0] = 7: must be text: write it in quotes"),
        ("true", "3:11: prompts[0] = true: must be text: write it in quotes"),
        ("~", '3:11: prompts[0] = ~: must be text: write "" for an empty one'),
        ("[a]", "3:11: prompts[0] = a list of 1: must be text"),
        ("{prompt: 7}", "3:20: prompts[0].prompt = 7: must be text: write it in quotes"),
        ("{width: 64}", "3:11: prompts[0].prompt: is missing: add it"),
    ],
)
def test_a_prompt_that_is_no_text_is_refused(tmp_path: Path, prompt: str, error: str) -> None:
    assert _errors(tmp_path, HEAD + f"prompts: [{prompt}]\n") == [error]


def test_all_that_is_wrong_is_reported_together_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = (
        "name: Cats\nmodel: shapes-random\nname: x\nprompts:\n  - no\n  - {prompt: a, width: 12, seed: x}\n"
    )
    assert [error.split(" ")[0] for error in _errors(tmp_path, text)] == [
        "1:7:",
        "3:1:",
        "5:5:",
        "6:24:",
        "6:34:",
    ]


def test_beyond_twenty_errors_only_their_number_is_reported(tmp_path: Path) -> None:
    errors = _errors(tmp_path, HEAD + "prompts:\n" + "  - {prompt: a, width: 3}\n" * 50)
    assert len(errors) == 21
    assert errors[-1].endswith(" and 30 more")


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ("sweep: {guidance: [3]}", "2:9: sweep.guidance: no such key: did you mean guidance_scale?"),
        ("settings: {width: }", "2:19: settings.width = (nothing): has no value: remove the key"),
        ("sweep: {guidance_scale: 3}", "2:25: sweep.guidance_scale = 3: must be a list"),
        ("sweep: {width: [9]}", "2:17: sweep.width[0] = 9: must be a multiple of 8 (8 or 16)"),
        ("sweep: {width: []}", "2:16: sweep.width = a list of 0: must not be empty"),
        ("sweep: {width: }", "2:16: sweep.width: has no value: remove the key"),
        ("sweep: {guidance_scale: [3, 3.0]}", "2:25: sweep.guidance_scale = a list of 2: holds 3.0 twice"),
        ("sweep: {seed: [1]}\nprompts: [{prompt: a, seed: 1}]", "3:23: prompts[0].seed: is in `sweep`"),
        (
            f"sweep: {{seed: [1, {2**63 - 1}]}}\nsettings: {{images_per_prompt: 2}}",
            "2:19: sweep.seed[1] = 9223",
        ),
        (
            "sweep: {seed: [1]}\nprompts: [{prompt: a, seeds: [1]}]",
            "3:23: prompts[0].seeds: is in `sweep`",
        ),
        (f"sweep: {{seed: [{2**63 - 1}]}}\nprompts: [{{prompt: a, images_per_prompt: 2}}]", "3:"),
        ("prompts_from: none.csv", "2:15: prompts_from = "),
        ('prompts_from: ["*.csv"]', "2:16: prompts_from[0] = "),
        ("prompts_from: {file: .}", "2:22: prompts_from.file = "),
        ("prompts_from: m.yaml", "2:15: prompts_from = "),
        ("prompts_from: {fil: a}", "2:15: prompts_from.file: is missing: add it"),
        ("prompts_from: {file: 7}", "2:22: prompts_from.file = 7: must be text: write it in quotes"),
        ("prompts_from: [7]", "2:16: prompts_from[0] = 7: must be a mapping"),
        ("prompts_from: {file: p.txt, columns: [a]}", "2:22: prompts_from.file = "),
        (
            "prompts_from: {file: p.txt, columns: [seed]}",
            "2:38: prompts_from.columns = a list of 1: 'seed' is",
        ),
        ("prompts_from: {file: p.txt, fields: {promt: a}}", "2:38: prompts_from.fields.promt: no such field"),
    ],
)
def test_a_wrong_sweep_or_file_is_reported_with_its_place(tmp_path: Path, more: str, error: str) -> None:
    (tmp_path / "p.txt").write_text("a\n")
    rest = "" if "prompts" in more else "\nprompts: [a]"
    assert _errors(tmp_path, f"name: cats\n{more}{rest}\nmodel: instant\n")[0].startswith(error)


def test_a_manifest_without_prompts_is_refused_with_what_to_add(tmp_path: Path) -> None:
    assert _errors(tmp_path, HEAD) == ["1:1: prompts: is missing: add it, or prompts_from"]


@pytest.mark.parametrize("other", ["seed", "images_per_prompt"])
def test_seeds_exclude_seed_and_images_per_prompt_beside_them(tmp_path: Path, other: str) -> None:
    (error,) = _errors(tmp_path, HEAD + f"prompts: [{{prompt: a, seeds: [1], {other}: 2}}]\n")
    assert error == f"3:30: prompts[0].seeds = a list of 1: excludes {other}: remove one of them"


def test_seeds_that_would_run_past_the_largest_are_refused(tmp_path: Path) -> None:
    text = HEAD + f"settings: {{images_per_prompt: 2}}\nprompts: [{{prompt: a, seed: {2**63 - 1}}}]\n"
    (error,) = _errors(tmp_path, text)
    assert "the last of 2 seeds is above 2**63-1" in error


@pytest.mark.parametrize(("first", "second"), [("1", "x"), ("1", "0.5"), ("true", "1"), ("[1]", "{a: 1}")])
def test_a_column_of_two_kinds_is_refused_because_no_table_holds_it(
    tmp_path: Path, first: str, second: str
) -> None:
    lines = [f"  - {{prompt: a, columns: {{score: {value}}}}}\n" for value in (first, "null", second)]
    (error,) = _errors(tmp_path, HEAD + "prompts:\n" + "".join(lines))
    assert error.startswith("6:34: prompts[2].columns.score: is ")
    assert "on line 4" in error


def test_what_is_read_is_relative_to_the_manifest_and_what_is_written_to_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there, home = tmp_path / "here", tmp_path / "there", tmp_path / "home"
    for folder in (here, there, home):
        folder.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(home))
    prompts = "prompts: [{prompt: a, init_latents: l/a.npy}, {prompt: b, init_latents: ~/b.npy}]\n"
    (there / "m.yaml").write_text(f"name: cats\nmodel: ../models/sd\noutput: pictures\n{prompts}")
    manifest = load_manifest(Path("../there/m.yaml"))
    assert manifest.output == str(here / "pictures")
    assert manifest.model == str(tmp_path / "models" / "sd")
    lines = [line for line in manifest.prompts if isinstance(line, PromptLine)]
    assert [line.init_latents for line in lines] == [str(there / "l" / "a.npy"), str(home / "b.npy")]


def test_a_hub_id_and_a_built_in_name_are_no_paths(tmp_path: Path) -> None:
    text = "name: cats\nmodel: CompVis/stable-diffusion-v1-4\nprompts: [a]\n"
    assert _load(tmp_path, text).model == "CompVis/stable-diffusion-v1-4"


def test_a_model_that_is_not_there_is_reported_with_the_manifests_line(tmp_path: Path) -> None:
    manifest = _load(tmp_path, "name: cats\nmodel: ./none\nprompts: [a]\n")
    with pytest.raises(ModelError) as caught:
        manifest.resolve_model()
    place = f"{tmp_path / 'm.yaml'}:2:8: model = {tmp_path / 'none'}"
    assert str(caught.value) == f"{place}: there is no such folder"


def test_a_manifest_that_is_not_there_or_no_mapping_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="there is no such file"):
        load_manifest(tmp_path / "none.yaml")
    with pytest.raises(ManifestError, match="cannot be read: not a plain file"):
        load_manifest(tmp_path)
    assert _errors(tmp_path, "- a\n") == ["1:1: must be a mapping with at least name, model and prompts"]


_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
_LINE = st.fixed_dictionaries(
    {"prompt": _TEXT},
    optional={
        "negative_prompt": _TEXT,
        "width": st.integers(1, 1024).map(lambda eighths: eighths * 8),
        "guidance_scale": st.integers(1, 100) | st.floats(1, 100),
        "scheduler": st.sampled_from(["LMS", "k_euler_a", "ddim", "UniPCMultistepScheduler"]),
        "seed": st.none() | st.integers(0, 2**63 - 1),
        "id": _TEXT,
        "columns": st.dictionaries(
            st.sampled_from(["split", "score"]), st.lists(st.none() | st.booleans() | _TEXT)
        ),
    },
)


@settings(max_examples=50, deadline=None)
@given(st.lists(_TEXT | _LINE, min_size=1, max_size=5))
def test_to_json_and_from_json_are_inverse(prompts: list[Any]) -> None:
    manifest = Manifest.from_json({"name": "x", "model": "shapes-random", "prompts": prompts})
    assert Manifest.from_json(json.loads(json.dumps(manifest.to_json()))) == manifest
    for line, again in zip(manifest.prompts, Manifest.from_json(manifest.to_json()).prompts, strict=True):
        if isinstance(line, PromptLine) and isinstance(again, PromptLine):
            assert line.model_fields_set == again.model_fields_set


def test_from_json_refuses_what_to_json_never_wrote() -> None:
    with pytest.raises(ManifestError, match=r"manifest: prompts\[0\].width = 9: must be a multiple of 8"):
        Manifest.from_json({"name": "x", "model": "instant", "prompts": [{"prompt": "a", "width": 9}]})
    with pytest.raises(ManifestError, match="half of a surrogate pair"):
        Manifest.from_json({"name": "x", "model": "instant", "prompts": ["\ud800"]})


def test_the_schema_is_valid_and_describes_every_key_and_default() -> None:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    parts = [schema, schema["$defs"]["DefaultSettings"], schema["$defs"]["PromptLine"]]
    for part in [*parts, schema["$defs"]["Sweep"], schema["$defs"]["PromptSource"]]:
        assert part["additionalProperties"] is False
        for name, described in part["properties"].items():
            assert described.get("description"), name
    assert schema["properties"]["shard_size"]["default"] == 64
    settings = schema["$defs"]["DefaultSettings"]["properties"]
    assert settings["images_per_prompt"]["default"] == 1
    guidance = "Guidance; 1 switches it off (0 for some pipelines). When left out, the model's own: 7.5 for"
    guidance += " Stable Diffusion 1.x."
    assert settings["guidance_scale"] == {
        "type": "number", "minimum": 0, "maximum": 100, "description": guidance, "title": "Guidance Scale",
    }  # fmt: skip
    assert all("default" not in described for described in parts[2]["properties"].values())


@pytest.mark.parametrize(
    "text",
    [
        "model: shapes-random\nprompts: [a]",
        "name: Bad\nmodel: instant\nprompts: [a]",
        HEAD + "prompts: []",
        HEAD + "prompts: [7]",
        HEAD + "prompts: [a]\nsteps: 7",
        HEAD + "prompts: [a]\nsettings: {width: 500}",
        HEAD + "prompts: [a]\nretention: soon",
        HEAD + "prompts: [{prompt: a, width: null}]",
        HEAD + "prompts: [{prompt: a, width: '64'}]",
        HEAD + "prompts: [{prompt: a, seeds: [1], seed: 2}]",
        HEAD + "prompts: [{prompt: a, hieght: 64}]",
        HEAD + "prompts: [{prompt: a, sample: 3}]",
        HEAD + "prompts: [{prompt: '{a}', variables: {a: []}}]",
        HEAD + "prompts: [a]\nsweep: {width: [9]}",
        HEAD + "prompts: [a]\nsweep: {width: null}",
        HEAD + "prompts: [a]\nprompts_from: []",
        HEAD + "prompts_from: {fields: {}}",
        HEAD + "prompts_from: 7",
    ],
)
def test_the_schema_and_the_loader_refuse_the_same_mistakes(tmp_path: Path, text: str) -> None:
    assert _errors(tmp_path, text)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(text), json_schema())


def test_an_output_has_one_name_however_it_is_spelled(tmp_path: Path) -> None:
    """Two names of a folder would be two outputs to the ledger, and two jobs would write into one."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    outputs = []
    for spelled in ("real/out", "link/out", "link/../real/./out"):
        file = tmp_path / "m.yaml"
        file.write_text(f"name: x\nmodel: instant\noutput: {tmp_path}/{spelled}\nprompts: [a]\n")
        outputs.append(load_manifest(file).output)
    assert outputs == [str(tmp_path.resolve() / "real/out")] * 3


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ('prompts: [a]\n"un\\nkn\\e[31m": 1\n', "4:1: un\\nkn\\x1b[31m: ", "no such key"),
        (f'prompts: [a]\n"{"x" * 300}": 1\n', "4:1: " + "x" * 59 + "…: ", "no such key"),
        ('prompts: [{prompt: "{a}", variables: {a: "x\\0y"}}]\n', "3:42: ", "null byte"),
        (f"prompts_from: {'a' * 300}.txt\n", "3:15: ", "cannot be read: File name too long"),
    ],
)
def test_what_no_terminal_and_no_disk_can_hold_is_reported_on_one_line(
    tmp_path: Path, text: str, place: str, message: str
) -> None:
    (error,) = _errors(tmp_path, HEAD + text)
    assert error.startswith(place)
    assert message in error
    assert error.isprintable()


def test_ten_thousand_values_of_a_sweep_are_checked_at_once(tmp_path: Path) -> None:
    seeds = list(range(10_000))
    start = time.process_time()
    (error,) = _errors(tmp_path, HEAD + f"prompts: [a]\nsweep: {{seed: {[*seeds, 7]}}}\n")
    assert error.endswith("holds 7 twice: remove one")
    assert time.process_time() - start < 2  # comparing each with each takes 1 s for 10,000


@pytest.mark.parametrize(("depth", "right"), [(50, True), (51, False), (100_000, False)])
def test_a_columns_value_is_nested_50_deep_at_most(depth: int, right: bool) -> None:
    value: Any = []
    for _ in range(depth - 1):
        value = [value]
    line = {"prompt": "a", "columns": {"tags": value}}
    if right:
        assert PromptLine.model_validate(line).columns == {"tags": value}
        return
    with pytest.raises(ValidationError, match="is nested deeper than 50: flatten it"):
        PromptLine.model_validate(line)


def test_a_sweep_of_more_combinations_than_can_be_held_is_refused(tmp_path: Path) -> None:
    text = HEAD + "prompts: [a]\nsweep:\n"
    sweep = [f"  {name}: {list(range(8, 8 + 8 * 100, 8))}\n" for name in ("height", "width")]
    assert _load(tmp_path, text + "".join(sweep)).sweep.height is not None
    (error,) = _errors(tmp_path, text + "".join(sweep) + f"  seed: {list(range(11))}\n")
    assert (
        error
        == "4:1: sweep: gives each prompt 110,000 combinations, and 100,000 is the most: sweep fewer values"
    )
