"""A model's name in a manifest resolved to the exact weights a worker must load. No torch, no diffusers."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from jobs.errors import ModelError
from jobs.model_folder import check_harmless, default_size, folder_revision, latent_form
from jobs.request import IMAGE_SETTINGS

HUB_TIMEOUT: Final = 5.0
"""Seconds to wait for the Hugging Face hub."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class ModelDefaults:
    """What a manifest gets for the settings that it leaves open; by default Stable Diffusion 1.x's."""

    height: int = IMAGE_SETTINGS["height"].default
    width: int = IMAGE_SETTINGS["width"].default
    num_inference_steps: int = IMAGE_SETTINGS["num_inference_steps"].default
    guidance_scale: float = IMAGE_SETTINGS["guidance_scale"].default
    scheduler: str = IMAGE_SETTINGS["scheduler"].default

    @classmethod
    def of_folder(cls, folder: Path) -> ModelDefaults:
        """The defaults of a pipeline folder: its own size, if its configs name one that an image may have."""
        size = default_size(folder)
        if size is None or not all(IMAGE_SETTINGS["height"].is_right(side) for side in size):
            return cls()
        return cls(height=size[0], width=size[1])


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A model and the revision of its weights."""

    model: str
    """What a worker loads: a hub id, a built-in name or an absolute folder."""
    label: str
    """What people see: the hub id, the built-in name or the folder's own name."""
    revision: str
    """A hub commit, "sha256:…" of a folder's contents, or a built-in's own."""
    latent_channels: int | None
    latent_scale: int | None
    """Pixels per latent, each way; None (and channels None) where the configs are not at hand."""
    remark: str = ""
    """What people should know before they look at its pictures."""
    defaults: ModelDefaults = ModelDefaults()
    """What a manifest gets for the settings that it leaves open."""
    trained_size: tuple[int, int] | None = None
    """Height and width that the configs name where `defaults` has others; None where they agree."""


BUILT_IN: Final = {
    "shapes": ModelRef(
        "shapes",
        "shapes",
        # The hash of the files in worker/models/shapes, which a worker checks again before it loads them.
        "sha256:f53d86a7435e0696aa4fbe8f95870f9a1b1f18de8f2d3080d55e3b4fcd6bc0bc",
        8,
        8,
        # How it was trained: larger pictures, other guidance or samplers show less.
        defaults=ModelDefaults(64, 64, 20, 3.0, "DDIM"),
    ),
    "shapes-random": ModelRef(
        "shapes-random",
        "shapes-random",
        "shapes-random-1",
        4,
        4,
        "its weights are random: the pictures are noise",
    ),
    "instant": ModelRef(
        "instant", "instant", "instant-1", None, None, "a stand-in: its pictures are blocks of colour"
    ),
}


def is_folder_name(model: str) -> bool:
    """Whether a manifest's `model` means a folder: it begins with /, ./, ../ or ~."""
    return model.startswith(("/", "./", "../", "~")) or model in (".", "..")


def name_trouble(model: str) -> str | None:
    """What is wrong with the form of a manifest's `model`, with the remedy; None when it may stand."""
    if is_folder_name(model) or model in BUILT_IN:
        return None
    if _HUB_ID.fullmatch(model) and not re.search(r"--|\.\.|[.-](/|$)", model):
        return None
    return (
        f"is no model: use a built-in one ({', '.join(sorted(BUILT_IN))}), a Hugging Face id (org/name),"
        f" or a folder, which begins with ./ ../ ~ or /"
    )


def resolve_model(model: str, revision: str | None = None) -> ModelRef:
    """The exact weights that `model` means: a built-in's, a folder's or a hub repository's.

    A hub `revision` of 40 hex digits is taken as it is, without the network; a branch or tag (None: main) is
    asked of the hub, or of the local cache when the hub is out of reach. Raises ModelError.
    """
    trouble = name_trouble(model)
    if trouble is not None:
        raise ModelError(f"model = {model}: {trouble}")
    if model in BUILT_IN:
        found = BUILT_IN[model]
    elif is_folder_name(model):
        folder = Path(os.path.expanduser(model)).resolve()  # noqa: PTH111 - raises nothing for an unknown user
        check_harmless(folder)
        channels, scale = latent_form(folder)
        defaults = ModelDefaults.of_folder(folder)
        found = ModelRef(
            str(folder), folder.name, folder_revision(folder), channels, scale, defaults=defaults
        )
    else:
        commit = revision if revision and _COMMIT.fullmatch(revision) else _hub_commit(model, revision)
        snapshot = _cached_repository(model) / "snapshots" / commit
        # Its default size is not the one in the cached configs: what a manifest asks for would depend on what
        # this machine has downloaded, and so would its image_ids.
        own = ModelDefaults.of_folder(snapshot)
        trained = None if own == ModelDefaults() else (own.height, own.width)
        return ModelRef(model, model, commit, *latent_form(snapshot), trained_size=trained)
    if revision is not None and revision != found.revision:
        raise ModelError(
            f"model = {model}: holds revision {found.revision}, not {revision}:"
            " remove `revision`, or name the model that was meant"
        )
    return found


def _cached_repository(model: str) -> Path:
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE) / ("models--" + model.replace("/", "--"))


def _hub_commit(model: str, revision: str | None) -> str:
    """The commit that a branch or tag of a hub repository stands at."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    named = "main" if revision is None else revision
    try:
        commit = HfApi().model_info(model, revision=revision, timeout=HUB_TIMEOUT).sha
    except GatedRepoError:
        raise ModelError(
            f"model = {model}: is gated: accept its terms on huggingface.co and set HF_TOKEN"
        ) from None
    except RepositoryNotFoundError:
        raise ModelError(
            f"model = {model}: the hub knows no such repository: check the name, or set HF_TOKEN"
            " if it is private"
        ) from None
    except RevisionNotFoundError:
        raise ModelError(f"revision = {revision}: {model} has none of that name on the hub") from None
    except Exception as error:
        # Each release of the hub's client raises its HTTP library's own errors (requests', httpx', …).
        if not isinstance(error, (HfHubHTTPError, OSError)) and "http" not in type(error).__module__:
            raise
        return _cached_commit(model, named, error)
    if commit is None:
        raise ModelError(f"model = {model}: the hub names no commit: give `revision: <commit>`")
    return str(commit)


def _cached_commit(model: str, named: str, error: Exception) -> str:
    """The commit that the local hub cache last saw at `named`, because the hub could not be asked."""
    refs = _cached_repository(model) / "refs"
    ref = refs / named
    if ref.resolve().is_relative_to(refs.resolve()) and ref.is_file():
        commit = ref.read_text("utf-8").strip()
        if _COMMIT.fullmatch(commit):
            return commit
    why = str(error).splitlines()[0] if str(error) else type(error).__name__
    raise ModelError(
        f"model = {model}: the hub cannot be asked which commit {named} is ({why}) and the local cache"
        " does not know: give `revision: <commit>` (40 hex digits), or name a folder"
    )
