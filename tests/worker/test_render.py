import io
import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import worker.render
from jobs.errors import ImagemillError, LatentsError, OutputError, RenderError
from jobs.inputs.inputs import NO_INPUTS, Inputs
from jobs.inputs.latents import write_input
from jobs.render_command import reproducing_command
from jobs.request import ImageRequest
from jobs.settings import Settings
from tests.trouble import Troubled
from worker.cli import command
from worker.encode import SUFFIXES, encode, read_request
from worker.engine.renderer import AskedT, Batching, Bucket, OutOfMemory, Painted, Picture, Pipeline, Source
from worker.render import (
    Reproduction,
    parse_request,
    render,
    reproduction_as_asked,
    reproduction_of,
)
from worker.renderers.instant import InstantRenderer
from worker.renderers.load_renderer import load_renderer

REQUEST = ImageRequest(
    prompt='it\'s $HOME `ls` "x"\n狐', seed=0, model="instant", revision="instant-1", height=64, width=64
)


def test_the_command_of_a_failure_is_one_shell_command_that_holds_the_request() -> None:
    command = reproducing_command(REQUEST, "instant", 8)
    echoed = subprocess.run(
        ["sh", "-c", command.replace("imagemill-worker --batch-size 8 render --request", "printf %s", 1)],
        capture_output=True,
        check=True,
    )
    assert ImageRequest.from_mapping(json.loads(echoed.stdout)) == REQUEST


def test_the_command_names_the_models_own_folder_and_the_latents_but_not_where_they_lie() -> None:
    request = ImageRequest(prompt="", seed=0, model="mine", revision="sha256:0", init_latents="f" * 64)
    words = shlex.split(reproducing_command(request, "/home/anna/models/mine", 8))
    assert words[6:] == ["--model", "PATH/TO/mine", "--inputs", ".imagemill/inputs"]


def test_the_command_of_a_failure_writes_the_image(tmp_path: Path) -> None:
    words = shlex.split(reproducing_command(REQUEST, "instant", 8))
    out = tmp_path / "again.png"
    binary = Path(sys.executable).parent / words[0]
    done = subprocess.run([binary, *words[1:], "--out", out], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert read_request(out) == REQUEST
    assert out.read_bytes() == render(reproduction_as_asked(REQUEST, 8), None, (), Settings())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"height": "64"}, 'height = "64": must be a whole number, 8 to 8192, a multiple of 8'),
        ({"height": 70}, "height = 70: must be a multiple of 8 (64 or 72)"),
        ({"height": 4}, "height = 4: must be a whole number, 8 to 8192, a multiple of 8"),
        ({"width": 8200}, "width = 8200: must be a whole number, 8 to 8192"),
        ({"seed": -1}, "seed = -1: must be a whole number, 0 to 2**63-1"),
        ({"seed": True}, "seed = true: must be a whole number"),
        ({"seed": None}, "seed = null: must be a whole number"),
        ({"num_inference_steps": 0}, "num_inference_steps = 0: must be a whole number, 1 to 1000"),
        ({"guidance_scale": float("nan")}, "guidance_scale = NaN: must be a number, 0 to 100"),
        ({"image_format": "gif"}, 'image_format = "gif": must be png, jpeg or webp'),
        ({"image_quality": 0}, "image_quality = 0: must be a whole number, 1 to 100"),
        ({"precision": "fp8"}, 'precision = "fp8": must be auto, bf16, fp16, amp or fp32'),
        ({"scheduler": "fast"}, 'scheduler = "fast": must be one of LMS, '),
        ({"prompt": "\ud800"}, r'prompt = "\ud800": must be text (UTF-8, without NUL)'),
        ({"prompt": "\0"}, r'prompt = "\u0000": must be text (UTF-8, without NUL)'),
        ({"revision": ""}, 'revision = "": must be text that is not empty (UTF-8, without NUL)'),
        ({"init_latents": "../a"}, "must be the SHA-256 of a file's contents, 64 hex digits, or null"),
        ({"guidance": 7}, "guidance: no such setting: use guidance_scale"),
        ({"strength": 0.5}, "strength = 0.5: does nothing without image: give image, or remove it"),
        ({"fit": "pad"}, 'fit = "pad": does nothing without a picture: give image,'),
        (
            {"image": "0" * 64, "controlnet_conditioning_scale": 0.5},
            "controlnet_conditioning_scale = 0.5: does nothing without control_image: give control_image, or",
        ),
        (
            {"controlnet": '[{"name":"edges","revision":"1","scale":1.0}]'},
            "does nothing without control_image: give control_image, or remove it",
        ),
    ],
)
def test_a_request_that_is_wrong_is_reported_by_field_value_and_remedy(
    changes: dict[str, object], message: str
) -> None:
    with pytest.raises(RenderError) as caught:
        parse_request(json.dumps(json.loads(REQUEST.to_json()) | changes))
    assert str(caught.value).startswith("--request: ")
    assert message in str(caught.value)


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
    # What is at its default says nothing.
    assert parse_request(json.dumps(REQUEST.to_mapping())) == REQUEST
    least = {"prompt": "x", "seed": 1, "model": "my model", "revision": "sha256:0"}
    assert parse_request(json.dumps(least)) == ImageRequest(**least)
    assert parse_request(json.dumps(least | {"scheduler": "k_euler_a"})).scheduler == "Euler a"


def invoke(*arguments: object) -> str:
    """`imagemill-worker ARGUMENTS`: its output; an error of ours is raised."""
    done = CliRunner().invoke(command, [str(argument) for argument in arguments])
    if isinstance(done.exception, ImagemillError):
        raise done.exception
    return done.output


def test_a_picture_that_cannot_be_written_is_reported_before_it_is_rendered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker.render, "render", lambda *_, **__: b"picture")
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


def test_the_slots_before_render_are_its_slots_and_other_options_there_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slots: list[int | None] = []

    def seen(again: Reproduction, *_: object, **__: object) -> bytes:
        slots.append(again.slots)
        return b"picture"

    monkeypatch.setattr(worker.render, "render", seen)
    asked = ("render", "--request", REQUEST.to_json(), "--out", tmp_path / "x.png")
    invoke("--batch-size", 3, *asked)
    monkeypatch.setenv("IMAGEMILL_BATCH_SIZE", "5")
    invoke(*asked)
    monkeypatch.delenv("IMAGEMILL_BATCH_SIZE")
    assert "note: no --batch-size: in a job, which has more slots, bytes may differ" in invoke(*asked)
    assert slots == [3, 5, None]
    assert "--concurrency has no effect on `render`" in invoke("--concurrency", 3, *asked)
    assert slots == [3, 5, None]


def test_latents_are_looked_up_by_their_hash(tmp_path: Path) -> None:
    sha = write_input(tmp_path, np.zeros((4, 16, 16), np.float32))
    request = ImageRequest(
        prompt="", seed=0, model="instant", revision="instant-1", height=64, width=64, init_latents=sha
    )
    again = reproduction_as_asked(request, 8)
    assert render(again, None, [tmp_path], Settings())
    with pytest.raises(RenderError, match="--inputs"):
        render(again, None, (), Settings())
    with pytest.raises(LatentsError):
        render(again, None, [tmp_path / "elsewhere"], Settings())


def test_a_picture_that_is_none_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    load = worker.render.load_renderer
    monkeypatch.setattr(worker.render, "load_renderer", lambda *given: Troubled(load(*given)))
    request = ImageRequest(prompt="!nan", seed=0, model="instant", revision="instant-1", height=64, width=64)
    with pytest.raises(RenderError, match="non-finite"):
        render(reproduction_as_asked(request, 8), None, (), Settings())


def written(
    folder: Path, request: ImageRequest, pixels: np.ndarray | None = None, **rendered: object
) -> Path:
    """An image file of a request as a job leaves it, with the metadata of others and its own beside it."""
    blank = np.zeros((request.height, request.width, 3), np.uint8)
    file = folder / f"000000007{SUFFIXES[request.image_format]}"
    file.write_bytes(encode(blank if pixels is None else pixels, request))
    if rendered:
        how = {f"rendered_{name}": value for name, value in rendered.items()}
        others = [
            {"file_name": f"00000000{n}.png", "image_id": f"{n:016x}", "rendered_rows": n} for n in (5, 6)
        ]
        slots = [*others, {"file_name": file.name, "image_id": request.image_id, **how}]
        (folder / "metadata.jsonl").write_text("".join(json.dumps(slot) + "\n" for slot in slots))
    return file


HOW = {"rows": 16, "precision": "amp", "mode": "exact"}


@pytest.mark.parametrize("image_format", ["png", "jpeg", "webp"])
def test_a_file_is_rendered_again_as_its_metadata_says(tmp_path: Path, image_format: str) -> None:
    request = replace(REQUEST, image_format=image_format)
    file = written(tmp_path, request, **HOW)
    assert reproduction_of(file, None) == Reproduction(request=request, slots=16, precision="amp")
    out = tmp_path / "again"
    assert invoke("render", "--from", file, "--out", out) == f"{out}\n"
    assert out.read_bytes() == render(
        Reproduction(request=request, slots=16, precision="amp"), None, (), Settings()
    )
    assert read_request(out) == request


def test_a_file_of_an_early_version_is_rendered_again_to_its_very_bytes(tmp_path: Path) -> None:
    """Its file says nothing of an algorithm, and so says the new one."""
    picture = render(Reproduction(request=REQUEST, slots=16, precision="amp"), None, (), Settings())
    with Image.open(io.BytesIO(picture)) as image:
        early = encode(np.asarray(image), REQUEST, says_source=False)
    assert early != picture
    written(tmp_path, REQUEST, **HOW).write_bytes(early)
    out = tmp_path / "again.png"
    invoke("render", "--from", tmp_path / "000000007.png", "--out", out)
    assert out.read_bytes() == early


def test_a_files_own_slots_stand_above_the_environments_and_below_those_that_are_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(tmp_path, REQUEST, **HOW)
    seen: list[Reproduction] = []
    monkeypatch.setattr(worker.render, "render", lambda again, *_, **__: seen.append(again) or b"picture")
    monkeypatch.setenv("IMAGEMILL_BATCH_SIZE", "5")
    assert "note" not in invoke("render", "--from", file, "--out", tmp_path / "x.png")
    assert "note: it was rendered with 16 slots: with 3, bytes may differ" in invoke(
        "--batch-size", 3, "render", "--from", file, "--out", tmp_path / "x.png"
    )
    assert [again.slots for again in seen] == [16, 3]


def test_a_file_that_was_moved_within_its_folder_keeps_its_metadata(tmp_path: Path) -> None:
    file = written(tmp_path, REQUEST, **HOW)
    assert reproduction_of(file.rename(tmp_path / "000000005.png"), None).slots == 16


@pytest.mark.parametrize("metadata", [None, "nonsense", "[1]", '{"image_id": 1}', "own slot without slots"])
def test_without_metadata_the_request_alone_counts_and_a_note_says_so(
    tmp_path: Path, metadata: str | None
) -> None:
    file = written(tmp_path, REQUEST)
    if metadata is not None:
        own = json.dumps({"image_id": REQUEST.image_id, "file_name": file.name})
        (tmp_path / "metadata.jsonl").write_text(own if metadata.startswith("own") else metadata)
    again = reproduction_of(file, None)
    assert (again.request, again.slots, again.precision) == (REQUEST, None, "auto")
    done = invoke("render", "--from", file, "--out", tmp_path / "x.png")
    assert f"note: no metadata.jsonl next to {file} says how it was rendered" in done
    assert "note: no --batch-size" in done


def test_a_file_of_mode_fast_is_rendered_again_with_a_note(tmp_path: Path) -> None:
    file = written(tmp_path, REQUEST, **HOW | {"mode": "fast"})
    assert reproduction_of(file, None).remarks == ("it was rendered in mode fast: bytes may differ",)


def test_a_file_that_imagemill_did_not_write_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"no picture")
    with pytest.raises(OutputError, match=r"x\.png: is no PNG, JPEG or WebP: name a file"):
        invoke("render", "--from", tmp_path / "x.png")
    strange = replace(REQUEST, height=8, num_inference_steps=0)
    with pytest.raises(
        RenderError, match=r"000000007\.png: num_inference_steps = 0: must be a whole number, 1 to 1000"
    ):
        invoke("render", "--from", written(tmp_path, strange))


@pytest.mark.parametrize(("guidance_scale", "slots"), [(7.5, 2), (1.0, 1)])
def test_a_picture_that_was_rendered_alone_in_fp32_gets_its_bytes_from_raised_weights(
    tmp_path: Path, guidance_scale: float, slots: int
) -> None:
    request = ImageRequest(
        prompt="a fox",
        seed=1,
        height=64,
        width=64,
        num_inference_steps=3,
        guidance_scale=guidance_scale,
        model="shapes-random",
        revision="shapes-random-1",
        precision="bf16",
    )
    settings = Settings(device="cpu")
    renderer = load_renderer(Pipeline("shapes-random", "shapes-random-1", "bf16"), settings)
    picture = renderer.render_alone(request, NO_INPUTS, lambda: False)
    file = written(tmp_path, request, picture.pixels, rows=slots, precision="fp32", mode="exact")
    assert render(reproduction_of(file, None), None, (), settings) == file.read_bytes()


class Loads:
    """Stands for `load_renderer`: its renderers batch as is said, and take `auto` for a precision."""

    def __init__(self, batching: Batching, auto: str = "fp32") -> None:
        self.batching, self.auto = batching, auto
        self.loaded: list[str] = []
        """What each renderer was asked for."""
        self.rendered: list[tuple[int, str] | str] = []
        """Slots and mode of each bucket, or "alone"."""

    def __call__(self, pipeline: Pipeline, _settings: Settings) -> InstantRenderer:
        self.loaded.append(pipeline.precision)
        return NotingRenderer(self, self.auto if pipeline.precision == "auto" else pipeline.precision)


class NotingRenderer(InstantRenderer):
    """A stand-in that notes how it is asked."""

    def __init__(self, loads: Loads, precision: str) -> None:
        super().__init__(0.0)
        self._loads, self.batching, self.precision = loads, loads.batching, precision

    def render(
        self, bucket: Bucket, source: Source[AskedT], stop: Callable[[], bool]
    ) -> Iterator[list[Painted[AskedT]]]:
        self._loads.rendered.append((bucket.slots, bucket.mode))
        yield from super().render(bucket, source, stop)

    def render_alone(self, request: ImageRequest, inputs: Inputs, stop: Callable[[], bool]) -> Picture:
        self._loads.rendered.append("alone")
        return super().render_alone(request, inputs, stop)


@pytest.mark.parametrize(
    ("batching", "auto", "how", "loaded", "rendered"),
    [
        ("exact", "bf16", {"rows": 16, "precision": "bf16"}, ["bf16"], (16, "exact")),
        ("exact", "bf16", {"rows": 2, "precision": "fp32"}, ["auto"], "alone"),
        ("exact", "fp32", {"rows": 2, "precision": "fp32"}, ["auto"], "alone"),
        ("exact", "fp32", {"rows": 16, "precision": "fp32"}, ["auto"], (16, "exact")),
        ("exact", "bf16", {"rows": 16, "precision": "fp32"}, ["auto", "fp32"], (16, "exact")),
        ("fast", "bf16", {"rows": 16, "precision": "bf16", "mode": "fast"}, ["bf16"], (16, "fast")),
        ("fast", "bf16", {"rows": 2, "precision": "fp32"}, ["auto"], "alone"),
        ("alone", "bf16", {"rows": 2, "precision": "bf16", "mode": "alone"}, ["bf16"], (2, "exact")),
        ("alone", "bf16", {"rows": 2, "precision": "fp32", "mode": "alone"}, ["auto"], "alone"),
        ("alone", "fp32", {"rows": 2, "precision": "fp32", "mode": "alone"}, ["auto"], (2, "exact")),
    ],
)
def test_a_file_is_rendered_again_in_its_slots_and_the_way_that_it_was(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    batching: Batching,
    auto: str,
    how: dict[str, object],
    loaded: list[str],
    rendered: object,
) -> None:
    """An image that was alone in fp32 is told from others by its slots, which only its loaded model knows."""
    loads = Loads(batching, auto)
    monkeypatch.setattr(worker.render, "load_renderer", loads)
    pixels = InstantRenderer(0.0).render_alone(REQUEST, NO_INPUTS, bool).pixels
    file = written(tmp_path, REQUEST, pixels, **HOW | how)
    assert render(reproduction_of(file, None), None, (), Settings()) == file.read_bytes()
    assert (loads.loaded, loads.rendered) == (loaded, [rendered])


@pytest.mark.parametrize(("guidance_scale", "slots"), [(7.5, 2), (1.0, 1)])
def test_a_request_gets_as_few_slots_as_it_takes_and_never_fewer(
    monkeypatch: pytest.MonkeyPatch, guidance_scale: float, slots: int
) -> None:
    loads = Loads("exact")
    monkeypatch.setattr(worker.render, "load_renderer", loads)
    request = replace(REQUEST, guidance_scale=guidance_scale)
    for asked in (None, 1, 5):
        render(reproduction_as_asked(request, asked), None, (), Settings())
    assert loads.rendered == [(slots, "exact"), (slots, "exact"), (5, "exact")]


def test_a_model_whose_bytes_follow_the_neighbours_is_said_to_be_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker.render, "load_renderer", Loads("fast"))
    asked = ("--out", tmp_path / "x.png")
    done = invoke("render", "--request", REQUEST.to_json(), *asked)
    assert "note: pictures of instant depend on what is rendered with them: bytes may differ" in done
    alone = written(tmp_path, REQUEST, **HOW | {"rows": 2, "precision": "fp32"})
    assert "note" not in invoke("render", "--from", alone, *asked)


def test_other_slots_do_nothing_to_a_picture_that_had_its_forwards_to_itself(tmp_path: Path) -> None:
    file = written(tmp_path, REQUEST, **HOW | {"rows": 2, "mode": "alone"})
    again = reproduction_of(file, 16)
    assert again.slots == 2
    assert again.remarks == ("it was rendered with one image a forward: --batch-size 16 has no effect",)
    assert reproduction_of(file, None).remarks == ()


def test_another_device_or_version_than_the_pictures_own_is_said(tmp_path: Path) -> None:
    settings = Settings(device="cpu", batch_size=16)
    instant = load_renderer(Pipeline("instant", REQUEST.revision, "auto"), settings)
    how = HOW | {"device": "NVIDIA H200", "versions": instant.versions}
    request = replace(REQUEST, model="instant")
    said: list[str] = []
    render(reproduction_of(written(tmp_path, request, **how), None), None, (), settings, said.append)
    assert said == ["its device: NVIDIA H200; here: cpu: bytes may differ"]


def test_memory_that_runs_out_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OutOfMemory("tried to allocate 80 GiB")

    monkeypatch.setattr(InstantRenderer, "render", fail)
    again = reproduction_as_asked(replace(REQUEST, model="instant"), 2)
    with pytest.raises(RenderError, match="the device cannot render it: tried to allocate 80 GiB"):
        render(again, None, (), Settings(device="cpu"))
