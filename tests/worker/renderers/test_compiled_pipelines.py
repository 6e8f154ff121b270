"""Pipelines whose shared forwards run through torch.compile, or in the channels-last memory format."""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jobs.errors import SettingsError
from jobs.inputs.inputs import NO_INPUTS
from jobs.model_files.model_folder import folder_revision
from jobs.settings import Settings
from tests.tiny.families import FAMILIES
from tests.worker.renderers.intercepted import BUCKET, CPU, MIX, paint, render, wanted
from worker.diffusion.precision import resolve_precision
from worker.engine.renderer import Picture, Pipeline
from worker.renderers.load_renderer import load_renderer
from worker.renderers.pipeline_renderer import PipelineRenderer

XL = "StableDiffusionXLPipeline"


@pytest.fixture(autouse=True)
def _one_thread_and_a_cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
    torch._dynamo.reset()


@pytest.fixture
def _traced() -> Iterator[None]:
    """torch traces and specialises as ever, and runs its graphs without making C++ of them."""
    with torch.compiler.set_stance("default", force_backend="eager"):
        yield


def new_renderer(family: str = XL, **options: bool) -> PipelineRenderer:
    return PipelineRenderer(
        FAMILIES[family].build(),
        precision=resolve_precision("fp32", CPU),
        device=CPU,
        model="tiny",
        revision="1",
        **options,
    )


def graphs() -> int:
    """Graphs that torch has compiled so far in this process."""
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


def furthest(one: PipelineRenderer, other: PipelineRenderer, images: Any = MIX) -> int:
    """By how many of 256 steps the two's pictures differ at most."""
    ours, theirs = render(one, images), render(other, images)
    assert all(isinstance(picture, Picture) for picture in [*ours.values(), *theirs.values()])
    return max(
        int(np.abs(ours[seed].pixels.astype(int) - theirs[seed].pixels.astype(int)).max())  # type: ignore[union-attr]
        for seed in ours
    )


def same_in_any_company(renderer: PipelineRenderer, images: Any = MIX) -> bool:
    together = paint(renderer, images)
    alone = {seed: pixels for one in images for seed, pixels in paint(renderer, [one]).items()}
    return together == alone == paint(renderer, images[::-1])


FEW = MIX[:3]
FLUX_MIX = [replace(one, request=replace(one.request, scheduler="default")) for one in MIX]


@pytest.mark.soak
@pytest.mark.parametrize(("family", "images"), [(XL, MIX), ("FluxPipeline", FLUX_MIX)])
def test_compiled_code_paints_the_same_pictures_and_bytes_follow_from_the_request(
    family: str, images: Any
) -> None:
    compiled = new_renderer(family, compiled=True)
    assert compiled.batching == "exact"
    assert furthest(compiled, new_renderer(family), images) <= 1
    assert same_in_any_company(compiled, images)


@pytest.mark.usefixtures("_traced")
@pytest.mark.parametrize(
    ("family", "images", "kinds"),
    # FLUX has blocks of two kinds, tiny SDXL of one.
    [(XL, FEW, 1), ("FluxPipeline", FLUX_MIX[:3], 2)],
)
def test_each_kind_of_block_has_one_graph_a_shape_however_many_steps_images_and_texts(
    family: str, images: Any, kinds: int
) -> None:
    before = graphs()
    renderer = new_renderer(family, compiled=True)
    assert graphs() - before == kinds, "the proof's forwards are all of one shape"
    paint(renderer, images)
    assert graphs() - before == 2 * kinds
    assert same_in_any_company(renderer, images)
    paint(renderer, [wanted(8, num_inference_steps=11, prompt="another text, and a longer one")])
    assert graphs() - before == 2 * kinds
    paint(renderer, images[:1], replace(BUCKET, slots=6))
    assert graphs() - before == 3 * kinds


@pytest.mark.usefixtures("_traced")
def test_a_denoiser_without_repeated_blocks_is_compiled_as_a_whole() -> None:
    before = graphs()
    renderer = new_renderer("StableDiffusion3Pipeline", compiled=True)
    assert same_in_any_company(renderer, FLUX_MIX[:3])
    assert graphs() - before == 2


@pytest.mark.usefixtures("_traced")
def test_nothing_is_compiled_for_an_image_by_itself_or_for_pictures_of_the_proof() -> None:
    new_renderer(compiled=True)
    learned_before = new_renderer(compiled=True)
    before = graphs()
    assert learned_before.render_alone(MIX[0].request, NO_INPUTS, bool).finite
    assert graphs() == before


@pytest.mark.usefixtures("_traced")
def test_compiled_forwards_are_full_in_mode_fast_too() -> None:
    renderer = new_renderer(compiled=True)
    exact, before = paint(renderer, MIX), graphs()
    assert paint(renderer, MIX[:3], replace(BUCKET, mode="fast")) == {seed: exact[seed] for seed in range(3)}
    assert graphs() == before


@pytest.mark.usefixtures("_traced")
def test_slots_are_measured_on_compiled_forwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.engine.slot_count.MOST", 4)
    renderer, before = new_renderer(compiled=True), graphs()
    assert renderer.measure_slots(64, 64) in (2, 4)
    assert graphs() - before in (1, 2)


@pytest.mark.usefixtures("_traced")
def test_the_device_and_what_was_learned_tell_compiled_forwards_from_others(tmp_path: Path) -> None:
    plain, compiled = new_renderer(), new_renderer(compiled=True)
    assert compiled.device == f"{plain.device}, compiled"
    assert len(list((tmp_path / "cache" / "imagemill" / "batching").iterdir())) == 2
    both = new_renderer(compiled=True, channels_last=True)
    assert both.device == f"{plain.device}, compiled, channels last"


def test_where_no_images_share_forwards_nothing_is_compiled_and_that_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = graphs()
    renderer = new_renderer("StableDiffusionPAGPipeline", compiled=True)
    assert "torch_compile has no effect" in caplog.text
    assert paint(renderer, [wanted(1)])
    assert graphs() == before
    assert renderer.device == new_renderer("StableDiffusionPAGPipeline").device


def formats(module: torch.nn.Module) -> set[bool]:
    """Whether convolutions' weights are in the channels-last format."""
    return {
        part.weight.is_contiguous(memory_format=torch.channels_last)
        for part in module.modules()
        if isinstance(part, torch.nn.Conv2d) and part.weight.shape[1] > 1 and part.kernel_size != (1, 1)
    }


def test_channels_last_moves_what_convolves_and_paints_the_same_pictures() -> None:
    renderer, plain = new_renderer(channels_last=True), new_renderer()
    assert renderer.device == f"{plain.device}, channels last"
    assert formats(renderer.pipeline.unet) == formats(renderer.pipeline.vae) == {True}
    assert furthest(renderer, plain, FEW) <= 1
    assert same_in_any_company(renderer, FEW)


def test_channels_last_leaves_a_transformer_as_it_is() -> None:
    renderer = new_renderer("StableDiffusion3Pipeline", channels_last=True)
    patches = renderer.pipeline.transformer.pos_embed.proj.weight
    assert not patches.is_contiguous(memory_format=torch.channels_last)
    assert formats(renderer.pipeline.vae) == {True}


def test_a_picture_in_float32_leaves_the_format_as_it_was() -> None:
    pipeline = FAMILIES[XL].build().to(torch.bfloat16)
    half = PipelineRenderer(
        pipeline,
        precision=resolve_precision("bf16", CPU),
        device=CPU,
        model="tiny",
        revision="1",
        channels_last=True,
    )
    half.render_alone(MIX[0].request, NO_INPUTS, bool)
    assert formats(pipeline.unet) == {True}


@pytest.mark.usefixtures("_traced")
def test_a_worker_s_settings_are_those_of_the_pipeline_that_it_loads(tmp_path: Path) -> None:
    FAMILIES["FluxPipeline"].build().save_pretrained(tmp_path / "flux")
    folder = Pipeline(str(tmp_path / "flux"), folder_revision(tmp_path / "flux"), "fp32")
    settings = Settings(device="cpu", torch_compile=True, channels_last=True)
    assert load_renderer(folder, settings).device.endswith(", compiled, channels last")


def test_without_a_compiler_the_setting_is_refused_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    nowhere = Pipeline(str(tmp_path / "none"), "sha256:0", "fp32")
    with pytest.raises(SettingsError, match=r"no compiler g\+\+ .* install it, name another one in CXX"):
        load_renderer(nowhere, Settings(device="cpu", torch_compile=True))


def test_without_pythons_headers_the_setting_is_refused_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that torch.compile writes includes them: every image failed, after a minute."""
    monkeypatch.setattr(sysconfig, "get_path", lambda _name: str(tmp_path))
    for variable in ("CXX", "CPATH", "CPLUS_INCLUDE_PATH"):
        monkeypatch.delenv(variable, raising=False)
    nowhere = Pipeline(str(tmp_path / "none"), "sha256:0", "fp32")
    with pytest.raises(
        SettingsError, match=r"g\+\+ finds no Python.h in .*: install the headers of this Python"
    ):
        load_renderer(nowhere, Settings(device="cpu", torch_compile=True))
