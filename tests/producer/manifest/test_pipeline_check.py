"""What a model's class does not take is refused at its place, before anything is queued."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import ManifestError, ModelError
from jobs.request import ImageRequest
from jobs.settings import Settings
from producer.requests.prepared import Prepared, prepare
from tests.checkpoint_files import XL, checkpoint, configuration

CONFIGS = {
    "FluxPipeline": {
        "vae": {"block_out_channels": [1, 2, 3, 4]},
        "scheduler": {"use_dynamic_shifting": True},
    },
    "StableDiffusion3Pipeline": {
        "vae": {"block_out_channels": [1, 2, 3, 4]},
        "transformer": {"sample_size": 64},
        "scheduler": {"use_dynamic_shifting": False},
    },
    "PixArtSigmaPipeline": {"vae": {"block_out_channels": [1, 2, 3, 4]}},
    "StableDiffusionUpscalePipeline": {},
}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for name, parts in CONFIGS.items():
        folder = tmp_path / name
        folder.mkdir()
        index = {"_class_name": name} | {part: ["diffusers", "X"] for part in parts}
        (folder / "model_index.json").write_text(json.dumps(index))
        for part, config in parts.items():
            (folder / part).mkdir()
            file = "scheduler_config.json" if part == "scheduler" else "config.json"
            (folder / part / file).write_text(json.dumps(config))


def prepared(text: str) -> Prepared:
    Path("m.yaml").write_text(text)
    return prepare(Path("m.yaml"), Settings())


def refusal(text: str) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        list(prepared(text).entries())
    return str(caught.value).splitlines()


def requests(text: str) -> list[ImageRequest]:
    return [entry.request for _image_id, entry in prepared(text).entries()]


def test_what_a_manifest_leaves_open_is_the_classs_own() -> None:
    [flux] = requests("{name: f, model: ./FluxPipeline, prompts: [a]}")
    assert (flux.height, flux.width, flux.num_inference_steps) == (1024, 1024, 28)
    assert (flux.guidance_scale, flux.scheduler, flux.arguments) == (3.5, "default", "{}")
    [sd3] = requests("{name: f, model: ./StableDiffusion3Pipeline, prompts: [a]}")
    assert (sd3.height, sd3.width, sd3.num_inference_steps, sd3.guidance_scale) == (512, 512, 28, 7.0)
    [shapes] = requests("{name: f, model: shapes, prompts: [a]}")
    assert (shapes.height, shapes.num_inference_steps, shapes.scheduler) == (64, 20, "DDIM")


def test_arguments_come_from_settings_prompts_rows_and_a_sweep() -> None:
    Path("rows.jsonl").write_text('{"prompt": "c", "arguments": {"true_cfg_scale": 3}}\n{"prompt": "d"}\n')
    Path("rows.csv").write_text('prompt,arguments\ne,"{""true_cfg_scale"": 5.0}"\n')
    found = requests(
        """
name: f
model: ./FluxPipeline
settings: {arguments: {max_sequence_length: 256}, seed: 1}
prompts: [a, {prompt: b, arguments: {true_cfg_scale: 2.0, prompt_2: "x"}}]
prompts_from: [rows.jsonl, rows.csv]
"""
    )
    assert [(request.prompt, request.arguments) for request in found] == [
        ("a", '{"max_sequence_length":256}'),
        ("b", '{"prompt_2":"x","true_cfg_scale":2}'),
        ("c", '{"true_cfg_scale":3}'),
        ("d", '{"max_sequence_length":256}'),
        ("e", '{"true_cfg_scale":5}'),
    ]
    swept = requests(
        "{name: f, model: ./FluxPipeline, settings: {seed: 1}, prompts: [a],"
        " sweep: {arguments: [{true_cfg_scale: 1}, {true_cfg_scale: 4}]}}"
    )
    assert [request.arguments for request in swept] == ['{"true_cfg_scale":1}', '{"true_cfg_scale":4}']
    assert len({request.image_id for request in swept}) == 2


@pytest.mark.parametrize(
    ("model", "rest", "told"),
    [
        (
            "FluxPipeline",
            "settings: {height: 1000}",
            "m.yaml:3:20: settings.height = 1000: must be a multiple of 16 (992 or 1008)",
        ),
        (
            "FluxPipeline",
            "settings: {scheduler: Euler}",
            "m.yaml:3:23: settings.scheduler = Euler: FluxPipeline does not take it: use default,"
            " Flow Euler or"
            " Flow UniPC",
        ),
        (
            "FluxPipeline",
            "settings: {arguments: {max_sequence_lenght: 3}}",
            "m.yaml:3:45: settings.arguments.max_sequence_lenght = 3: FluxPipeline has no such"
            " argument: did you"
            " mean max_sequence_length?",
        ),
        (
            "FluxPipeline",
            "sweep: {arguments: [{}, {true_cfg_scale: a}]}",
            "m.yaml:3:42: sweep.arguments[1].true_cfg_scale = a: must be a number",
        ),
        (
            "FluxPipeline",
            "sweep: {scheduler: [default, LMS]}",
            "m.yaml:3:30: sweep.scheduler[1] = LMS: FluxPipeline does not take it: use default,"
            " Flow Euler or",
        ),
        (
            "shapes",
            "settings: {guidance_scale: 0.5}",
            "m.yaml:3:28: settings.guidance_scale = 0.5: must be at least 1",
        ),
        (
            "shapes",
            "settings: {scheduler: Flow Euler}",
            "m.yaml:3:23: settings.scheduler = Flow Euler: StableDiffusionPipeline does not take"
            " it: use LMS,",
        ),
        (
            "shapes",
            "settings: {arguments: {eta: 1}}",
            "m.yaml:3:29: settings.arguments.eta = 1: cannot be given: this version's own sampler of",
        ),
        (
            "PixArtSigmaPipeline",
            "settings: {width: 512}",
            "settings.height: PixArtSigmaPipeline names no size of its own that is at hand: give"
            " height and width,"
            " each a multiple of 16",
        ),
    ],
)
def test_a_wrong_setting_is_told_with_place_value_and_what_is_possible(
    model: str, rest: str, told: str
) -> None:
    model = model if model == "shapes" else f"./{model}"
    [line] = refusal(f"name: f\nmodel: {model}\n{rest}\nprompts: [a]\n")
    assert line.startswith(told)


def test_every_wrong_line_and_row_is_told() -> None:
    Path("rows.jsonl").write_text(
        '{"prompt": "c", "width": 1000}\n{"prompt": "d", "arguments": {"eta": 1}}\n'
    )
    head = "name: f\nmodel: ./FluxPipeline\n"
    lines = "prompts:\n- {prompt: a, guidance_scale: 1, width: 520}\n- a\n- {prompt: b, width: 520}\n"
    assert refusal(head + lines) == [
        "m.yaml:4:41: prompts[0].width = 520: must be a multiple of 16 (512 or 528)",
        "m.yaml:6:22: prompts[2].width = 520: must be a multiple of 16 (512 or 528)",
    ]
    rows = refusal(head + "prompts_from: rows.jsonl\n")
    assert [line.split("rows.jsonl:")[1][:60] for line in rows] == [
        "1: width = 1000: must be a multiple of 16 (992 or 1008)",
        "2: arguments.eta = 1: FluxPipeline has no such argument: use",
    ]


def test_no_more_than_twenty_are_told() -> None:
    prompts = "".join(f"- {{prompt: a, width: {8 + 16 * n}}}\n" for n in range(30))
    told = refusal(f"name: f\nmodel: ./FluxPipeline\nprompts:\n{prompts}")
    assert len(told) == 21
    assert told[-1] == "and more"


def test_a_class_that_is_not_rendered_is_refused_with_what_is() -> None:
    with pytest.raises(ModelError) as caught:
        prepared("name: f\nmodel: ./StableDiffusionUpscalePipeline\nprompts: [a]\n")
    told = str(caught.value)
    assert told.startswith("m.yaml:2:8: model = ")
    assert "is a StableDiffusionUpscalePipeline, which is not rendered: it" in told
    assert "needs a picture to begin with" in told
    assert "StableDiffusionXLPipeline" in told


def test_a_manifest_that_is_kept_says_arguments_only_where_they_are_given() -> None:
    def kept(rest: str) -> dict[str, Any]:
        settings = prepared(f"name: f\nmodel: ./FluxPipeline\n{rest}prompts: [a]\n").pinned.to_json()[
            "settings"
        ]
        assert isinstance(settings, dict)
        return settings

    assert "arguments" not in kept("")
    assert kept("settings: {arguments: {true_cfg_scale: 4.0}}\n")["arguments"] == '{"true_cfg_scale":4}'


def test_a_plan_counts_slots_as_the_class_guides() -> None:
    from producer.plan.plan import plan_submission

    def slots(rest: str) -> int:
        found = prepared(f"name: f\nmodel: ./FluxPipeline\n{rest}prompts: [a]\n")
        return plan_submission(found, Settings()).row_evaluations

    assert slots("") == 28
    assert slots("settings: {arguments: {true_cfg_scale: 4}}\n") == 56


def test_a_single_file_is_checked_as_a_folder_of_its_class_is(tmp_path: Path) -> None:
    checkpoint(tmp_path / "models" / "juggernaut.safetensors", XL)
    text = (
        "name: a\nmodel: models/juggernaut.safetensors\nsettings: {scheduler: Flow Euler}\nprompts: [a cat]\n"
    )
    with pytest.raises(
        ModelError, match=r"m\.yaml:2:8: model = .*juggernaut\.safetensors: is a checkpoint of St"
    ):
        prepared(text)
    folder = tmp_path / "models" / "juggernaut.config"
    configuration(folder, "StableDiffusionXLPipeline", unet={"sample_size": 128})
    assert refusal(text)[0].startswith("m.yaml:3:23: settings.scheduler = Flow Euler: ")
    [request] = requests(text.replace("Flow Euler", "DDIM"))
    assert (request.model, request.height, request.width) == ("juggernaut.safetensors", 1024, 1024)
    assert (request.guidance_scale, request.num_inference_steps) == (5.0, 50)


def test_a_link_to_a_single_file_has_a_configuration_by_its_own_name(tmp_path: Path) -> None:
    checkpoint(tmp_path / "cache" / "blob.safetensors", XL)
    folder = tmp_path / "models"
    configuration(folder / "mine.config", "StableDiffusionXLPipeline", unet={"sample_size": 128})
    (folder / "mine.safetensors").symlink_to(tmp_path / "cache" / "blob.safetensors")
    for model in ("models/mine.safetensors", f"../{tmp_path.name}/models/mine.safetensors"):
        [request] = requests(f"name: a\nmodel: {model}\nprompts: [a cat]\n")
        assert request.model == "mine.safetensors"


WEIGHTS = "name: w\nmodel: shapes\nsettings: {syntax: a1111}\n"


def test_what_a_syntax_does_not_render_is_named_at_each_text() -> None:
    lines = refusal(
        WEIGHTS
        + "prompts:\n  - a (red:1.2) moth, <lora:moth:0.8>\n  - {prompt: a fox, negative_prompt: '[a|b]'}\n"
        + "  - {prompt: 'a {x}', variables: {x: [cat, dog AND cow]}}\n"
        + "  - {prompt: 'a [b|c]', syntax: plain}\n"
    )
    assert [line.split(" = ")[0] for line in lines] == [
        "m.yaml:5:5: prompts[0]",
        "m.yaml:6:38: prompts[1].negative_prompt",
        "m.yaml:7:14: prompts[2].prompt",
    ]
    assert "<lora:moth:0.8> names a LoRA, which a prompt loads under" in lines[0]


def test_rows_of_a_file_too() -> None:
    Path("p.txt").write_text("a (red:1.2) fox\na barn BREAK a field\nembedding:easyneg, tree\na [cat|dog]\n")
    lines = refusal(WEIGHTS + "prompts_from: p.txt\n")
    assert [line.partition(": prompt = ")[0].rpartition("/")[2] for line in lines] == ["p.txt:3", "p.txt:4"]
    Path("p.csv").write_text("prompt,syntax\na [cat|dog],plain\na [cat|dog],a1111\n")
    [line] = refusal("name: w\nmodel: shapes\nprompts_from: p.csv\n")
    assert "p.csv:3: prompt = " in line


def test_a_swept_syntax_reads_every_text() -> None:
    text = "name: w\nmodel: shapes\nprompts: ['a [cat|dog]']\nsweep: {syntax: [plain, a1111]}\n"
    [line] = refusal(text)
    assert line.startswith("m.yaml:3:11: prompts[0] = ")
    assert [one.syntax for one in requests(text.replace("[cat|dog]", "(cat:1.2)"))] == ["plain", "a1111"]


@pytest.mark.parametrize("given", ["syntax: a1111", "syntax: compel", "long_prompts: chunk"])
def test_only_pipelines_of_clip_encoders_take_weights_and_chunks(given: str) -> None:
    [line] = refusal(f"name: w\nmodel: ./FluxPipeline\nprompts: [a fox]\nsettings: {{{given}}}\n")
    assert (
        line.startswith("m.yaml:4:") and "only StableDiffusionPipeline or StableDiffusionXLPipeline" in line
    )
