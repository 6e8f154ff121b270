import json
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import worker.render
from jobs.errors import ImagemillError, LatentsError, OutputError, RenderError
from jobs.latents import write_input
from jobs.request import ImageRequest
from jobs.settings import Settings
from worker.cli import command
from worker.encode import read_request
from worker.render import parse_request, render, reproducing_command

REQUEST = ImageRequest(
    prompt='it\'s $HOME `ls` "x"\n狐', seed=0, model="instant", revision="instant-1", height=64, width=64
)


def test_the_command_of_a_failure_is_one_shell_command_that_holds_the_request(tmp_path: Path) -> None:
    told = reproducing_command(REQUEST, "instant", tmp_path, 8)
    echoed = subprocess.run(
        ["sh", "-c", told.replace("imagemill-worker --rows 8 render --request", "printf %s", 1)],
        capture_output=True,
        check=True,
    )
    assert ImageRequest.from_mapping(json.loads(echoed.stdout)) == REQUEST


def test_the_command_names_the_models_folder_and_the_latents(tmp_path: Path) -> None:
    request = ImageRequest(prompt="", seed=0, model="mine", revision="sha256:0", init_latents="f" * 64)
    words = shlex.split(reproducing_command(request, "/models/mine", tmp_path, 8))
    assert words[6:] == ["--model", "/models/mine", "--inputs", str(tmp_path)]


def test_the_command_of_a_failure_writes_the_image(tmp_path: Path) -> None:
    words = shlex.split(reproducing_command(REQUEST, "instant", tmp_path, 8))
    out = tmp_path / "again.png"
    binary = Path(sys.executable).parent / words[0]
    done = subprocess.run([binary, *words[1:], "--out", out], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert read_request(out) == REQUEST
    assert out.read_bytes() == render(REQUEST, None, None, Settings())


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"height": "64"}, 'height = "64": must be a whole number, without quotes'),
        ({"height": 70}, "height = 70: must be a multiple of 8 (64 or 72)"),
        ({"width": 8200}, "width = 8200: must be at most 8192"),
        ({"seed": -1}, "seed = -1: must be at least 0"),
        ({"seed": True}, "seed = true: must be a whole number"),
        ({"seed": None}, "seed = null: must be a whole number"),
        ({"num_inference_steps": 0}, "num_inference_steps = 0: must be at least 1"),
        ({"guidance_scale": float("nan")}, "guidance_scale = NaN: must be finite"),
        ({"image_format": "gif"}, 'image_format = "gif": must be png, jpeg or webp'),
        ({"image_quality": 0}, "image_quality = 0: must be at least 1"),
        ({"precision": "fp8"}, 'precision = "fp8": must be auto, bf16, fp16, amp or fp32'),
        ({"scheduler": "fast"}, "no scheduler is called 'fast'"),
        ({"prompt": "\ud800"}, "holds half of a surrogate pair"),
        ({"revision": ""}, 'revision = "": must not be empty'),
        ({"init_latents": "../a"}, 'init_latents = "../a": must be the SHA-256 of the latents'),
        ({"cfg": 7}, "cfg: no such key: did you mean guidance_scale?"),
    ],
)
def test_a_request_that_is_wrong_is_told_by_field_value_and_remedy(
    changes: dict[str, object], told: str
) -> None:
    with pytest.raises(RenderError) as caught:
        parse_request(json.dumps(json.loads(REQUEST.to_json()) | changes))
    assert str(caught.value).startswith("--request: ")
    assert told in str(caught.value)


@pytest.mark.parametrize(
    "text", ["nonsense", "[1]", "1", "null", "[" * 100_000, '{"seed": 1' + "0" * 5000 + "}"]
)
def test_what_is_no_request_at_all_is_refused(text: str) -> None:
    with pytest.raises(RenderError, match=r"--request: .*as failures.jsonl holds it"):
        parse_request(text)


def test_every_lacking_field_is_named_at_once() -> None:
    with pytest.raises(RenderError) as caught:
        parse_request("{}")
    assert str(caught.value).splitlines() == [
        f"--request: {field}: is missing: add it" for field in ("model", "prompt", "revision", "seed")
    ]


def test_a_request_has_a_manifests_fields_and_defaults_and_its_samplers_other_names() -> None:
    assert parse_request(REQUEST.to_json()) == REQUEST
    least = {"prompt": "x", "seed": 1, "model": "my model", "revision": "sha256:0"}
    assert parse_request(json.dumps(least)) == ImageRequest(**least)
    assert parse_request(json.dumps(least | {"scheduler": "k_euler_a"})).scheduler == "Euler a"


def invoke(*arguments: object) -> str:
    """`imagemill-worker ARGUMENTS`: its output; an error of ours is raised."""
    done = CliRunner().invoke(command, [str(argument) for argument in arguments])
    if isinstance(done.exception, ImagemillError):
        raise done.exception
    return done.output


def test_a_picture_that_cannot_be_written_is_told_before_it_is_rendered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker.render, "render", lambda *_: b"picture")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"there is no folder .*: make it"):
        invoke("render", "--request", REQUEST.to_json(), "--out", tmp_path / "none" / "x.png")
    with pytest.raises(OutputError, match="there is no folder"):
        invoke("render", "--request", REQUEST.to_json(), "--out", tmp_path / "file" / "x.png")
    with pytest.raises(OutputError, match=r"cannot be written \(.*\): name a file"):
        invoke("render", "--request", REQUEST.to_json(), "--out", tmp_path / ("x" * 300))
    with pytest.raises(RenderError, match="seed"):
        invoke("render", "--request", "{}", "--out", tmp_path / "x.png")
    assert [file.name for file in tmp_path.iterdir() if file.suffix == ".png"] == []


def test_the_rows_before_render_are_its_rows_and_other_options_there_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []

    def seen(_request: ImageRequest, _model: str | None, _inputs: Path | None, settings: Settings) -> bytes:
        rows.append(settings.rows)
        return b"picture"

    monkeypatch.setattr(worker.render, "render", seen)
    asked = ("render", "--request", REQUEST.to_json(), "--out", tmp_path / "x.png")
    invoke("--rows", 3, *asked)
    monkeypatch.setenv("IMAGEMILL_ROWS", "5")
    invoke(*asked)
    assert rows == [3, 5]
    assert "--slots says nothing to `render`" in invoke("--slots", 3, *asked)
    assert rows == [3, 5]


def test_latents_are_looked_up_by_their_hash(tmp_path: Path) -> None:
    sha = write_input(tmp_path, np.zeros((4, 16, 16), np.float32))
    request = ImageRequest(
        prompt="", seed=0, model="instant", revision="instant-1", height=64, width=64, init_latents=sha
    )
    assert render(request, None, tmp_path, Settings())
    with pytest.raises(RenderError, match="--inputs"):
        render(request, None, None, Settings())
    with pytest.raises(LatentsError):
        render(request, None, tmp_path / "elsewhere", Settings())


def test_a_picture_that_is_none_is_an_error() -> None:
    request = ImageRequest(prompt="!nan", seed=0, model="instant", revision="instant-1", height=64, width=64)
    with pytest.raises(RenderError, match="non-finite"):
        render(request, None, None, Settings())
