"""Loads a model by its name: built in, a folder, or a Hugging Face id at a commit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import diffusers
import transformers
from huggingface_hub import hf_hub_download

from jobs.errors import ModelError
from jobs.model_folder import check_harmless, folder_revision
from jobs.models import BUILT_IN
from jobs.strict_json import strict_json
from worker.diffusion.build_scheduler import build_scheduler
from worker.diffusion.precision import resolve_device, resolve_precision
from worker.image_diffusion_model import ImageDiffusionModel

_SHAPES = Path(__file__).parents[1] / "models" / "shapes"
_COMMIT = re.compile(r"[0-9a-f]{40}")


def load_model(
    model: str,
    revision: str,
    precision: str,
    device: str,
    *,
    compiled: bool = False,
    channels_last: bool = False,
) -> ImageDiffusionModel:
    """The model of this name and revision, on `device`, ready to paint.

    model: "shapes", "shapes-random", a folder in diffusers' layout (absolute), or a Hugging Face id.
    revision: the built-in's own, "sha256:…" of a folder, a commit's 40 digits of an id.
    precision: auto, bf16, fp16, amp, fp32. device: auto (CUDA where there is one), cpu, cuda, cuda:1 …
    compiled, channels_last: as for `ImageDiffusionModel`.

    Weights come from safetensors alone (a pickle runs code), and no code of the model's is run. The safety
    checker is left out: it paints pictures black without a note in their metadata, and a data set cannot use
    such pictures. Anyone who shows pictures to strangers must check them there.

    Raises ModelError when the model is not there, is no StableDiffusionPipeline, or is at another revision;
    SettingsError for a device that is not there.
    """
    if model == "instant":
        raise ModelError("model = instant: the stand-in has no weights to load; use shapes")
    target = resolve_device(device)
    # Their bars do not belong in a worker's log, nor do remarks about torchvision, which nothing here uses.
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    if model in BUILT_IN and revision != BUILT_IN[model].revision:
        raise _other_revision(model, revision, BUILT_IN[model].revision)
    if model == "shapes-random":
        from worker.renderers.shapes_random import build

        pipeline = build()
    else:
        files = str(_SHAPES) if model == "shapes" else model
        pipeline = _from_files(files, revision, resolve_precision(precision, target).weights)
    config = pipeline.scheduler.config
    return ImageDiffusionModel(
        vae=pipeline.vae,
        tokenizer=pipeline.tokenizer,
        text_encoder=pipeline.text_encoder,
        unet=pipeline.unet,
        scheduler_LMS=build_scheduler("LMS", config),
        scheduler_DDIM=build_scheduler("DDIM", config),
        device=target,
        precision=precision,
        compiled=compiled,
        channels_last=channels_last,
    )


def _from_files(model: str, revision: str, dtype: Any) -> Any:
    """StableDiffusionPipeline of a folder or a hub id, its weights converted to `dtype`."""
    # The safety checker is not loaded, so it need not be fetched.
    harmless: dict[str, Any] = {"use_safetensors": True, "trust_remote_code": False, "safety_checker": None}
    if Path(model).is_absolute():
        index = Path(model, "model_index.json")
        if not index.is_file():
            raise ModelError(
                f"model = {model}: this worker finds no model_index.json there: name a folder in diffusers' "
                "layout, under the same path on every worker"
            )
        found = folder_revision(Path(model))
        if found != revision:
            raise _other_revision(model, revision, found)
    else:
        if not _COMMIT.fullmatch(revision):
            raise ModelError(
                f"model = {model}: revision = {revision!r} is no commit; submit the manifest again"
            )
        try:
            index = Path(hf_hub_download(model, "model_index.json", revision=revision))
        except Exception as error:
            raise _not_there(model, revision, error) from error
    try:
        kind = strict_json(index.read_bytes()).get("_class_name")
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"{index}: cannot be read as JSON ({error}); fetch the model again") from error
    if kind != "StableDiffusionPipeline":
        raise ModelError(f"model = {model}: it is a {kind}; only StableDiffusionPipeline can be rendered")
    try:
        if not Path(model).is_absolute():
            diffusers.StableDiffusionPipeline.download(model, revision=revision, **harmless)
        check_harmless(index.parent)
        return diffusers.StableDiffusionPipeline.from_pretrained(
            index.parent, dtype=dtype, requires_safety_checker=False, **harmless
        )
    except ModelError:
        raise
    except Exception as error:
        # For files that are missing, cut off or laid out otherwise, the libraries raise various errors.
        raise _not_there(model, revision, error) from error


def _other_revision(model: str, wanted: str, found: str) -> ModelError:
    return ModelError(
        f"model = {model}: the job asks for revision {wanted}, this worker holds {found}; "
        "give every worker the same files, or submit the manifest again"
    )


def _not_there(model: str, revision: str, error: Exception) -> ModelError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    remedy = "check the name, the network and HF_TOKEN, or fetch it before; weights must be .safetensors"
    if Path(model).is_absolute():
        remedy = "check its files: a diffusers folder, whole, with .safetensors weights"
        if Path(model) == _SHAPES:
            remedy = "its files came with imagemill: install it again"
    return ModelError(f"model = {model} at {revision}: cannot be loaded: {reason}\n{remedy}")
