"""Loads a model by its name: built in, a folder, a single file, or a Hugging Face id at a commit."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from jobs.errors import ModelError
from jobs.model_files.model_folder import check_harmless, components
from jobs.model_files.single_file import SingleFile, is_single_file
from jobs.models.models import BUILT_IN
from jobs.pipelines.pipeline_class import STABLE_DIFFUSION
from jobs.pipelines.pipelines import refusal
from jobs.plain_file import read_config
from worker.diffusion.build_scheduler import build_scheduler
from worker.diffusion.precision import Precision, overflow_warning, resolve_device, resolve_precision
from worker.image_diffusion_model import ImageDiffusionModel
from worker.renderers.loading import Loading
from worker.renderers.memory import check_fits, free_memory, weight_bytes
from worker.renderers.missing_weights import missing_weights, without_values
from worker.renderers.model_files import checked_folder, fetch, hub_index, local_weights, other_revision
from worker.renderers.single_file import checked_single_file, held_bytes, weights_beside, with_checkpoint
from worker.renderers.vision import check_vision
from worker.renderers.weight_files import WeightFiles

log = logging.getLogger(__name__)
_SHAPES = Path(__file__).parents[1] / "models" / "shapes"

Free = Callable[[torch.device], int | None]
"""Gives the bytes that are free on a device."""


def load_model(
    model: str,
    revision: str,
    precision: str,
    device: str,
    *,
    compiled: bool = False,
    channels_last: bool = False,
) -> ImageDiffusionModel:
    """The StableDiffusionPipeline of this name and revision, on `device`, ready to paint.

    Arguments and errors are those of `load_pipeline`; ModelError for another class too.
    compiled, channels_last: as for `ImageDiffusionModel`.
    """
    pipeline = load_pipeline(model, revision, precision, device)
    if type(pipeline) is not diffusers.StableDiffusionPipeline:
        raise ModelError(
            f"model = {model}: it is a {type(pipeline).__name__}; only {STABLE_DIFFUSION} has an "
            "ImageDiffusionModel: use load_pipeline"
        )
    return image_diffusion_model(pipeline, precision, device, compiled=compiled, channels_last=channels_last)


def image_diffusion_model(
    pipeline: diffusers.StableDiffusionPipeline,
    precision: str,
    device: str,
    *,
    compiled: bool = False,
    channels_last: bool = False,
) -> ImageDiffusionModel:
    """A loaded pipeline's parts as an ImageDiffusionModel, with both schedulers that this takes."""
    config = pipeline.scheduler.config
    return ImageDiffusionModel(
        vae=pipeline.vae,
        tokenizer=pipeline.tokenizer,
        text_encoder=pipeline.text_encoder,
        unet=pipeline.unet,
        scheduler_LMS=build_scheduler("LMS", config),
        scheduler_DDIM=build_scheduler("DDIM", config),
        device=resolve_device(device),
        precision=precision,
        compiled=compiled,
        channels_last=channels_last,
    )


def load_pipeline(
    model: str,
    revision: str,
    precision: str,
    device: str,
    *,
    loading: Loading | None = None,
    free: Free = free_memory,
) -> diffusers.DiffusionPipeline:
    """diffusers' pipeline of this name and revision; on `device`, unless it is a StableDiffusionPipeline.

    model: "shapes", "shapes-random", a folder in diffusers' layout or a single file (both absolute), or a
    Hugging Face id.
    revision: the built-in's own, "sha256:…" of a folder or a file, a commit's 40 digits of an id.
    precision: auto, bf16, fp16, amp, fp32. device: auto (CUDA where there is one), cpu, cuda, cuda:1 …
    loading: counts what is done. free: how much memory a device has left for weights.

    Weights come from safetensors alone (a pickle runs code), and no code of the model's is run. They are in
    the precision's format, except for those that diffusers and transformers keep in float32. Weights of the
    variant that has the precision's name are taken where they are whole. The safety checker is left out: it
    paints pictures black without a note in their metadata, and a data set cannot use such pictures. Anyone
    who shows pictures to strangers must check them there. So is SDXL's watermark, which is painted only where
    a certain package is installed.

    Raises ModelError when the model is not there, is of no class of diffusers', is at another revision, or
    has no room on the device; SettingsError for a device that is not there.
    """
    if model == "instant":
        raise ModelError("model = instant: the stand-in has no weights to load; use shapes")
    target = resolve_device(device)
    # Their bars do not belong in a worker's log, nor do remarks about torchvision, which nothing here uses.
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    if model in BUILT_IN and revision != BUILT_IN[model].revision:
        raise other_revision(model, revision, BUILT_IN[model].revision)
    if model == "shapes-random":
        from worker.renderers.shapes_random import build

        return build()
    files = str(_SHAPES) if model == "shapes" else model
    chosen = resolve_precision(precision, target)
    progress = Loading() if loading is None else loading
    try:
        found = _find(files, revision, chosen, progress)
        needed = weight_bytes((found.folder / name for name in found.weights.tensors), chosen.weights)
        needed += 0 if found.single is None else held_bytes(found.single, chosen.weights)
        check_fits(model, needed, free(target), dtype=chosen.weights, device=target)
        with progress.stage("loading", model, size=needed):
            pipeline = _load(found, chosen)
            if found.kind.__name__ != STABLE_DIFFUSION:
                # Never torch's own `to`: it would convert what the model keeps in float32.
                pipeline.to(target)
            return pipeline
    except ModelError:
        raise
    except Exception as error:
        # For files that are missing, cut off or laid out otherwise, the libraries raise various errors.
        raise _not_there(files, revision, error) from error


@dataclass(frozen=True, slots=True)
class _Found:
    """A model's files on this machine, whole and checked."""

    folder: Path
    kind: type[diffusers.DiffusionPipeline]
    weights: WeightFiles
    """Those in the folder."""
    single: SingleFile | None = None
    """The checkpoint that has the others, if there is one: the folder is its configuration then."""


def _find(model: str, revision: str, precision: Precision, loading: Loading) -> _Found:
    """The files of a folder, a single file or a hub id, which are downloaded where they are missing."""
    single = None
    is_local = Path(model).is_absolute()
    if is_local and is_single_file(Path(model)):
        single = checked_single_file(Path(model), revision, loading)
        folder = single.folder
    elif is_local:
        folder = checked_folder(Path(model), revision, loading)
    else:
        folder = hub_index(model, revision, loading)
    kind, parts = _read_index(model, folder / "model_index.json")
    # The first class has always had the plain weights: others would give other bytes to equal requests.
    variant = None if kind.__name__ == STABLE_DIFFUSION else precision.name
    if single is not None:
        weights = weights_beside(single, variant)
    elif is_local:
        weights = local_weights(folder, variant)
    else:
        weights = fetch(model, revision, folder, variant=variant, loading=loading)
    check_harmless(folder, frozenset() if single is None else single.held)
    if getattr(kind, "_load_connected_pipes", False) and (folder / "README.md").is_file():
        raise ModelError(
            f"{folder / 'README.md'}: diffusers would load the pipelines that it names, at no commit: remove "
            "it, in a folder that holds every component (save_pretrained writes such a folder)"
        )
    if weights.variant is not None:
        _refuse_undotted(folder, weights.variant)
    for remark in (weights.remark, overflow_warning(precision, parts)):
        if remark:
            log.warning("model = %s: %s", model, remark)
    return _Found(folder, kind, weights, single)


def _refuse_undotted(folder: Path, variant: str) -> None:
    """Raises ModelError for a name in a component's folder at which diffusers' search for a variant ends."""
    for component, _library in components(folder):
        for path in sorted((folder / component).glob("*")):
            if "." not in path.name:
                raise ModelError(
                    f"{path}: diffusers finds no variant beside a name without a dot, and the weights of "
                    f"variant {variant} are wanted: remove it, or use another precision"
                )


def _read_index(model: str, index: Path) -> tuple[type[diffusers.DiffusionPipeline], list[str]]:
    """The pipeline's class that model_index.json names, and the classes of its components."""
    try:
        named = read_config(index)
        name = named.get("_class_name")
        parts = [part[1] for part in named.values() if isinstance(part, list) and len(part) == 2]
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"{index}: cannot be read as JSON ({error}); fetch the model again") from error
    if not isinstance(name, str):
        raise ModelError(f"{index}: names no _class_name, but {name!r}: fetch the model again")
    why = refusal(name)
    if why is not None:
        raise ModelError(f"model = {model}: {why}")
    kind = getattr(diffusers, name, None)
    if not (isinstance(kind, type) and issubclass(kind, diffusers.DiffusionPipeline)):
        raise ModelError(
            f"model = {model}: diffusers {diffusers.__version__}, which is here, has no {name}, or lacks a "
            "package for it: install imagemill[worker] again"
        )
    classes = [part for part in parts if isinstance(part, str)]
    check_vision(model, name, classes)
    return kind, classes


def _load(found: _Found, precision: Precision) -> diffusers.DiffusionPipeline:
    """The pipeline of checked files, on the CPU, its weights in the precision's format."""
    harmless: dict[str, Any] = {"use_safetensors": True, "trust_remote_code": False}
    left_out = {"safety_checker": None, "requires_safety_checker": False, "add_watermarker": False}
    taken = inspect.signature(found.kind.__init__).parameters
    held: dict[str, Any] = {} if found.single is None else dict.fromkeys(found.single.held)
    options = {name: value for name, value in left_out.items() if name in taken}
    with missing_weights() as missing:
        pipeline = found.kind.from_pretrained(
            found.folder,
            dtype=precision.weights,
            variant=found.weights.variant,
            **harmless,
            **options,
            **held,
        )
        if found.single is not None:
            pipeline = with_checkpoint(pipeline, found.single, precision.weights, options)
    lacking = missing + without_values(pipeline)
    if lacking:
        named = found.folder if found.single is None else found.single.file
        raise ModelError(
            f"model = {named}: its files lack {len(lacking)} of its weights, {lacking[0]} among them: "
            "fetch the model again, or save it whole"
        )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _not_there(model: str, revision: str, error: Exception) -> ModelError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    remedy = "check the name, the network and HF_TOKEN, or fetch it before; weights must be .safetensors"
    if Path(model).is_absolute():
        remedy = "check its files: a diffusers folder, whole, with .safetensors weights"
        if is_single_file(Path(model)):
            remedy = "check that the file is whole, and its configuration that of the same model"
        if Path(model) == _SHAPES:
            remedy = "its files came with imagemill: install it again"
    return ModelError(f"model = {model} at {revision}: cannot be loaded: {reason}\n{remedy}")
