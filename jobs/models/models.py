"""A model's name in a manifest resolved to the exact weights a worker must load. No torch, no diffusers."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from jobs.adapters import CONTROLNETS, IP_ADAPTERS, NONE
from jobs.errors import ModelError
from jobs.model_files.hub import HubFiles, cached_repository, hub_commit, is_commit
from jobs.model_files.model_folder import (
    PICKLES,
    check_harmless,
    default_size,
    folder_revision,
    latent_form,
    pipeline_class,
)
from jobs.model_files.pipeline_folder import folder_of, painted_multiple, read_in
from jobs.model_files.safetensors_header import SUFFIX
from jobs.model_files.single_file import file_trouble, find_single_file, is_single_file
from jobs.pipelines.pipeline_class import NOT_AT_HAND, STABLE_DIFFUSION, Folder, PipelineClass
from jobs.pipelines.pipelines import find_pipeline, refusal
from jobs.request import IMAGE_SETTINGS

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")


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

    @classmethod
    def of_class(cls, pipeline: PipelineClass, size: tuple[int, int] | None) -> ModelDefaults:
        """The defaults of a class other than StableDiffusionPipeline, whose folder says `size`."""
        steps, scale, scheduler = pipeline.num_inference_steps, pipeline.guidance_scale, pipeline.scheduler
        unsized = cls(num_inference_steps=steps, guidance_scale=scale, scheduler=scheduler)
        return unsized if size is None else replace(unsized, height=size[0], width=size[1])


@dataclass(frozen=True, slots=True)
class FurtherRef:
    """A model that works beside another, and the revision of its weights."""

    model: str
    """What a worker loads: a hub id or an absolute folder."""
    label: str
    """What people see: the hub id, or the folder's own name."""
    revision: str
    """A hub commit, `COMMIT:FOLDER` of a folder in a repository, or "sha256:…" of a folder's contents."""
    scale: float = 1.0
    """Of a ControlNet's part beside others."""


@dataclass(frozen=True, slots=True)
class PartOf:
    """A file or a folder: by its own path, or in a repository."""

    model: str
    """A path, or a hub id."""
    part: str = ""
    """Its name in that folder or repository; empty: `model` itself."""
    revision: str | None = None
    """A commit, branch or tag of the repository; of a folder's contents "sha256:…"."""

    def __str__(self) -> str:
        name = Path(self.model).name if is_path(self.model) else self.model
        return f"{name}/{self.part}" if self.part else name


@dataclass(frozen=True, slots=True)
class IpAdapterRef:
    """An IP-Adapter's file, and the model that it sees pictures by."""

    file: str
    """Its absolute path on the machine that submits; empty where that is not known."""
    label: str
    """What people see: the file's own name without its suffix."""
    sha256: str
    """Of the file's bytes."""
    revision: str | None
    """The hub commit that the file is of; None where it is of none."""
    image_encoder: FurtherRef
    """That model."""


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A model and the revision of its weights."""

    model: str
    """What a worker loads: a hub id, a built-in name, an absolute folder or an absolute single file."""
    label: str
    """What people see: the hub id, the built-in name, or the own name of the folder or the file."""
    revision: str
    """A hub commit, "sha256:…" of a folder's or a single file's contents, or a built-in's own."""
    latent_channels: int | None
    latent_scale: int | None
    """Pixels per latent, each way; None (and channels None) where the configs are not at hand."""
    remark: str = ""
    """What people should know before they look at its pictures."""
    defaults: ModelDefaults = ModelDefaults()
    """What a manifest gets for the settings that it leaves open."""
    trained_size: tuple[int, int] | None = None
    """Height and width that the configs name where `defaults` has others; None where they agree."""
    pipeline: str | None = None
    """diffusers' class; None where model_index.json is not at hand, and only a worker finds out."""
    folder: Folder = NOT_AT_HAND
    """What its configurations say."""
    unsized: bool = False
    """Whether the configurations name no size that a picture may have: a manifest has to."""
    least_guidance: float | None = None
    """What its class takes at least, for one who is told this and not the class."""
    controlnets: tuple[FurtherRef, ...] = ()
    """What the manifest gives it beside, in its order."""
    ip_adapter_ref: IpAdapterRef | None = None
    """The same."""

    @property
    def pipeline_class(self) -> PipelineClass | None:
        """What is known of its class; None where the class is not known."""
        return None if self.pipeline is None else find_pipeline(self.pipeline)

    @property
    def controlnet(self) -> str:
        """Its ControlNets as the canonical text that requests have."""
        told = [{"name": one.label, "revision": one.revision, "scale": one.scale} for one in self.controlnets]
        text = CONTROLNETS.plain(told)
        return NONE if text is None else text

    @property
    def ip_adapter(self) -> str:
        """Its IP-Adapter as the canonical text that requests have which follow a picture."""
        one = self.ip_adapter_ref
        if one is None:
            return NONE
        encoder = {"image_encoder": one.image_encoder.label, "revision": one.image_encoder.revision}
        text = IP_ADAPTERS.plain([{"name": one.label, "sha256": one.sha256, **encoder}])
        return NONE if text is None else text

    @property
    def ip_adapter_file(self) -> dict[str, str]:
        """The SHA-256 of its IP-Adapter -> the path; empty where it has none, or it is not known where."""
        one = self.ip_adapter_ref
        return {} if one is None or not one.file else {one.sha256: one.file}

    @property
    def further(self) -> tuple[tuple[str, str, str], ...]:
        """Role, model and revision of what a worker loads beside it: `JobSpec.further_models`."""
        beside = [("controlnet", one.model, one.revision) for one in self.controlnets]
        if self.ip_adapter_ref is not None:
            encoder = self.ip_adapter_ref.image_encoder
            beside.append(("image_encoder", encoder.model, encoder.revision))
        return tuple(beside)


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
        pipeline=STABLE_DIFFUSION,
    ),
    "shapes-random": ModelRef(
        "shapes-random",
        "shapes-random",
        "shapes-random-1",
        4,
        4,
        "its weights are random: the pictures are noise",
        pipeline=STABLE_DIFFUSION,
    ),
    "instant": ModelRef(
        "instant",
        "instant",
        "instant-1",
        None,
        None,
        "a stand-in: its pictures are blocks of colour",
        pipeline=STABLE_DIFFUSION,
    ),
}


def is_path(model: str) -> bool:
    """Whether a manifest's `model` means a folder or a file: it begins with /, ./, ../ or ~, or ends in
    .safetensors."""
    return model.startswith(("/", "./", "../", "~")) or model in (".", "..") or model.endswith(SUFFIX)


def name_trouble(model: str) -> str | None:
    """What is wrong with the form of a manifest's `model`, with the remedy; None when it may stand."""
    if is_path(model) or model in BUILT_IN:
        return None
    if Path(model).suffix.lower() in PICKLES:
        return file_trouble(Path(model))
    if _HUB_ID.fullmatch(model) and not re.search(r"--|\.\.|[.-](/|$)", model):
        return None
    return (
        f"is no model: use a built-in one ({', '.join(sorted(BUILT_IN))}), a Hugging Face id (org/name),"
        f" a folder, which begins with ./ ../ ~ or /, or a single file, which ends in {SUFFIX}"
    )


def resolve_model(model: str, revision: str | None = None) -> ModelRef:
    """The exact weights that `model` means: a built-in's, a folder's, a single file's or a hub repository's.

    A hub `revision` of 40 hex digits is taken as it is, without the network; a branch or tag (None: main) is
    asked of the hub, or of the local cache when the hub is out of reach. Raises ModelError.
    """
    trouble = name_trouble(model)
    if trouble is not None:
        raise ModelError(f"model = {model}: {trouble}")
    if model in BUILT_IN:
        found = BUILT_IN[model]
    elif is_path(model):
        # Path.expanduser raises for an unknown user.
        found = _on_disk(model, Path(os.path.expanduser(model)))  # noqa: PTH111
    else:
        commit = revision if revision is not None and is_commit(revision) else hub_commit(model, revision)
        return _on_the_hub(model, commit)
    if revision is not None and revision != found.revision:
        raise ModelError(
            f"model = {model}: holds revision {found.revision}, not {revision}:"
            " remove `revision`, or name the model that was meant"
        )
    return found


def _on_disk(model: str, path: Path) -> ModelRef:
    if is_single_file(path):
        # The configuration is found by the file's name: a link to it has its own.
        single = find_single_file(path.parent.resolve() / path.name)
        return _configured(model, single.file, single.folder, single.revision())
    trouble = None if path.is_dir() else file_trouble(path)
    if trouble is not None:
        raise ModelError(f"model = {path}: {trouble}")
    folder = path.resolve()
    check_harmless(folder)
    return _configured(model, folder, folder, folder_revision(folder))


def _configured(model: str, path: Path, folder: Path, revision: str) -> ModelRef:
    """The model at `path`, whose configurations are in `folder`."""
    name = _admitted(model, pipeline_class(folder))
    if name == STABLE_DIFFUSION:
        channels, scale = latent_form(folder)
        return ModelRef(
            str(path),
            path.name,
            revision,
            channels,
            scale,
            defaults=ModelDefaults.of_folder(folder),
            pipeline=name,
        )
    return _of_class(str(path), path.name, revision, find_pipeline(name), read_in(folder))


def _on_the_hub(model: str, commit: str) -> ModelRef:
    """A hub repository at a commit. Its class is that of its model_index.json, in the cache or on the hub."""
    snapshot = cached_repository(model) / "snapshots" / commit
    files = HubFiles(model, commit)
    try:
        name = files("model_index.json")["_class_name"]
    except (KeyError, TypeError):
        name = None
    if name is not None and _admitted(model, name) != STABLE_DIFFUSION:
        return _of_class(model, model, commit, find_pipeline(name), files)
    # Its default size is not the one in the cached configs: what a manifest asks for would depend on what
    # this machine has downloaded, and so would its image_ids.
    own = ModelDefaults.of_folder(snapshot)
    trained = None if own == ModelDefaults() else (own.height, own.width)
    remark = f"what {model} is, a worker finds out: its model_index.json is not at hand ({files.why})"
    return ModelRef(
        model,
        model,
        commit,
        *latent_form(snapshot),
        "" if name is not None else remark,
        trained_size=trained,
        pipeline=name,
    )


def _admitted(model: str, name: object) -> str:
    """The name of a class that is rendered. Raises ModelError."""
    if not isinstance(name, str):
        raise ModelError(f"model = {model}: its model_index.json names no _class_name: save the model again")
    why = refusal(name)
    if why is not None:
        raise ModelError(f"model = {model}: {why}")
    return name


def _of_class(model: str, label: str, revision: str, pipeline: PipelineClass, read: Any) -> ModelRef:
    """A model of a class other than StableDiffusionPipeline."""
    folder = folder_of(pipeline, read)
    size = painted_multiple(pipeline, folder)
    return ModelRef(
        model,
        label,
        revision,
        None,
        None,
        defaults=ModelDefaults.of_class(pipeline, size),
        pipeline=pipeline.name,
        folder=folder,
        unsized=size is None,
    )
