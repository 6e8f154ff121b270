"""Where `imagemill-worker render` finds the files of a request, and what its command says of them."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from jobs.adapters import CONTROLNETS, IP_ADAPTERS, LORAS
from jobs.errors import RenderError
from jobs.inputs.inputs import kept_path
from jobs.inputs.latents import write_input
from jobs.output.output import Output
from jobs.render_command import options
from jobs.request import ImageRequest
from worker.engine.renderer import FurtherModel
from worker.render_inputs import further_of, inputs_of, output_of

PHOTO, LORA = b"a photo", b"a lora"
PHOTO_SHA, LORA_SHA = (sha256(contents).hexdigest() for contents in (PHOTO, LORA))
REQUEST = ImageRequest(
    prompt="a",
    seed=1,
    model="m",
    revision="1",
    image=PHOTO_SHA,
    loras=LORAS.of_text(f'[{{"name":"striped","sha256":"{LORA_SHA}"}}]'),
)
PLAIN = ImageRequest(prompt="a", seed=1, model="m", revision="1")


def kept(folder: Path) -> Path:
    for contents in (PHOTO, LORA):
        path = kept_path(folder / ".imagemill" / "inputs", sha256(contents).hexdigest())
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents)
    return folder


def test_an_output_or_the_folder_where_it_keeps_files_has_them_by_their_hash(tmp_path: Path) -> None:
    for folder in (kept(tmp_path), tmp_path / ".imagemill" / "inputs"):
        found = inputs_of(REQUEST, [folder])
        assert found.contents(PHOTO_SHA) == PHOTO
        with found.private_copy(LORA_SHA) as copy:
            assert copy.read_bytes() == LORA
        assert not found.referenced


def test_any_folder_has_them_at_any_depth_under_any_name(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "holiday.jpg").write_bytes(PHOTO)
    (tmp_path / "striped.safetensors").write_bytes(LORA)
    found = inputs_of(REQUEST, [tmp_path])
    assert found.contents(PHOTO_SHA) == PHOTO
    assert found.path(LORA_SHA) == tmp_path / "striped.safetensors"


def test_what_no_file_has_is_named(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(PHOTO)
    with pytest.raises(RenderError, match=rf"no file there has the contents of loras \({LORA_SHA}\): name"):
        inputs_of(REQUEST, [tmp_path])
    with pytest.raises(RenderError, match="the request has image, loras: say with --inputs"):
        inputs_of(REQUEST, ())
    assert inputs_of(PLAIN, ()).referenced == {}


def test_the_output_of_a_picture_is_the_nearest_folder_that_keeps_inputs(tmp_path: Path) -> None:
    shard = kept(tmp_path / "out") / "shard-00000"
    assert output_of(shard / "x.png") == tmp_path / "out"
    assert output_of(tmp_path / "x.png") is None


def controlled(*revisions: str) -> ImageRequest:
    listed = [{"name": f"edges {number}", "revision": one} for number, one in enumerate(revisions)]
    return ImageRequest(
        prompt="a",
        seed=1,
        model="m",
        revision="1",
        image=PHOTO_SHA,
        controlnet=str(CONTROLNETS.plain(listed)),
    )


def test_controlnets_that_are_folders_are_named_in_their_order(tmp_path: Path) -> None:
    request = controlled("sha256:1", "0" * 40, "sha256:2")
    found = further_of(request, [str(tmp_path / "one"), str(tmp_path / "two")])
    assert [(one.model, one.revision) for one in found] == [
        (str(tmp_path / "one"), "sha256:1"),
        ("edges 1", "0" * 40),
        (str(tmp_path / "two"), "sha256:2"),
    ]
    with pytest.raises(
        RenderError, match=r"2 ControlNets that are folders \(edges 0, edges 2\): give --controlnet"
    ):
        further_of(request, [])
    assert further_of(PLAIN, []) == ()


def followed(revision: str) -> ImageRequest:
    named = {"name": "ip", "sha256": PHOTO_SHA, "image_encoder": "org/clip", "revision": revision}
    return replace(PLAIN, ip_adapter=str(IP_ADAPTERS.plain([named])), ip_adapter_image=PHOTO_SHA)


def test_an_image_encoder_that_is_a_folder_is_named_and_one_of_the_hub_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    of_hub = f"{'0' * 40}:models/image_encoder"
    assert further_of(followed(of_hub), []) == (FurtherModel("image_encoder", "org/clip", of_hub),)
    for given in (str(tmp_path / "clip"), "clip", "./clip"):
        [found] = further_of(followed("sha256:1"), [], given)
        assert (found.model, found.revision) == (str(tmp_path / "clip"), "sha256:1")
    with pytest.raises(RenderError, match=r"a folder \(org/clip\): give --image-encoder PATH"):
        further_of(followed("sha256:1"), [])
    for request in (PLAIN, followed(of_hub)):
        with pytest.raises(RenderError, match="leave --image-encoder out"):
            further_of(request, [], str(tmp_path))
    assert options(followed("sha256:1"), "PATH/TO/", ()) == [
        "--image-encoder", "PATH/TO/clip", "--inputs", ".imagemill/inputs",
    ]  # fmt: skip
    assert options(followed(of_hub), "PATH/TO/", ()) == ["--inputs", ".imagemill/inputs"]


def test_the_command_says_where_files_and_controlnets_are() -> None:
    assert options(PLAIN, "PATH/TO/", ()) == []
    assert options(controlled("sha256:1", "0" * 40), "PATH/TO/", ()) == [
        "--controlnet", "PATH/TO/edges 0", "--inputs", ".imagemill/inputs",
    ]  # fmt: skip


def test_the_command_says_which_files_an_output_does_not_keep() -> None:
    elsewhere = ["--inputs", "PATH/TO/INPUTS"]
    assert options(REQUEST, "PATH/TO/", {PHOTO_SHA, LORA_SHA}) == elsewhere
    for other in (replace(REQUEST, init_latents="1" * 64), REQUEST):
        away = {PHOTO_SHA, LORA_SHA} if other.init_latents else {PHOTO_SHA}
        assert options(other, "PATH/TO/", away) == ["--inputs", ".imagemill/inputs", *elsewhere]


def test_files_may_lie_in_several_folders(tmp_path: Path) -> None:
    latents, away, output = np.ones((4, 2, 2), "float32"), tmp_path / "away", tmp_path / "out"
    away.mkdir()
    (away / "holiday.jpg").write_bytes(PHOTO)
    request = replace(REQUEST, init_latents=write_input(output / ".imagemill" / "inputs", latents))
    (away / "striped.safetensors").write_bytes(LORA)
    for folders in ([away, output], [output, away]):
        found = inputs_of(request, folders)
        assert found.contents(PHOTO_SHA) == PHOTO
        assert found.path(LORA_SHA) == away / "striped.safetensors"
        assert np.array_equal(found.latents(request.init_latents), latents)
    kept(output)
    assert inputs_of(request, [away, output]).referenced == {}


def test_an_output_in_a_bucket_has_what_it_keeps_and_folders_beside_it_the_rest(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    output = Output.at(f"s3://{bucket}/out")
    output.store.replace(f".imagemill/inputs/{PHOTO_SHA[:2]}/{PHOTO_SHA}", PHOTO)
    (tmp_path / "mine.safetensors").write_bytes(LORA)
    with pytest.raises(RenderError, match=rf"--inputs {output.label}: no file there .*loras \({LORA_SHA}\)"):
        inputs_of(REQUEST, [output.label])
    found = inputs_of(REQUEST, [output.label, tmp_path])
    assert found.contents(PHOTO_SHA) == PHOTO
    with found.private_copy(LORA_SHA) as copy:
        assert copy.read_bytes() == LORA
    with pytest.raises(RenderError, match="name one output in a bucket, and no other"):
        inputs_of(REQUEST, [output.label, "s3://another/out"])
