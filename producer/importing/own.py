"""Pictures of imagemill: the whole request is in the file, and comes back exactly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from jobs.adapters import (
    IpAdapter,
    Lora,
    TextualInversion,
    ip_adapter_of,
    loras_of,
    textual_inversions_of,
)
from jobs.arguments import arguments_of
from jobs.inputs.inputs import kept_path
from jobs.model_files.hub import is_commit
from jobs.models.further_models import commit_and_folder
from jobs.models.models import BUILT_IN, is_path, name_trouble
from jobs.request import IMAGE_SETTINGS, PICTURES, ImageRequest, settings_in
from producer.importing.recipe import Draft, NamedModel, Untold
from producer.manifest.written_pictures import escaped

_OF_JOB: Final = tuple(name for name in settings_in("manifest") if name not in ("model", "revision"))

_OF_FILES: Final = frozenset({"prompt", "init_latents", *PICTURES, "loras", "textual_inversions"})
"""What is taken otherwise than as the request says it."""


def read_request(request: ImageRequest, file: Path) -> Draft:
    """The request as a manifest says it. Raises Untold where a value is one that no request has."""
    values = request.to_mapping()
    for name, setting in IMAGE_SETTINGS.items():
        if not setting.is_right(values[name]):
            raise Untold(f"its request says {name} = {str(values[name])[:60]!r}: must be {setting.words}")
    draft = Draft("imagemill", request.prompt)
    for name in settings_in("prompt"):
        setting = IMAGE_SETTINGS[name]
        if name not in _OF_FILES and not setting.left_out(values[name]):
            draft.settings[name] = arguments_of(values[name]) if name == "arguments" else values[name]
    draft.of_job = {name: values[name] for name in _OF_JOB if values[name] != IMAGE_SETTINGS[name].default}
    if request.init_latents is not None:
        _take_latents(draft, request.init_latents, file)
    adapter = ip_adapter_of(request.ip_adapter)
    for name in PICTURES:
        if values[name] is not None and (name != "ip_adapter_image" or adapter is None):
            _take_picture(draft, name, values[name], file)
    _take_loras(draft, loras_of(request.loras), file)
    _take_embeddings(draft, textual_inversions_of(request.textual_inversions), file)
    if adapter is not None:
        _lose_ip_adapter(draft, adapter, request, file)
    draft.model = NamedModel(request.model, "", _model(request), request.revision)
    return draft


def _model(request: ImageRequest) -> str:
    """What a manifest names: a hub id and a built-in model as they are, a folder or file by its own
    name."""
    label = request.model
    of_hub = is_commit(request.revision) and not is_path(label) and name_trouble(label) is None
    if label in BUILT_IN or of_hub:
        return label
    return f"./{Path(label).name}"


def _take_latents(draft: Draft, sha256: str, file: Path) -> None:
    """The initial latents, where the picture still lies in the output that holds them."""
    for folder in _inputs(file):
        for latents in sorted(folder.glob(f"{sha256}.*")):
            draft.settings["init_latents"] = str(latents)
            return
    draft.lose(
        f"init_latents with SHA-256 {sha256}",
        "the picture does not hold them: write `init_latents: FILE` beside the prompt",
    )


def _take_picture(draft: Draft, name: str, sha256: str, file: Path) -> None:
    """A picture that was painted from, where this one still lies in the output that holds it."""
    for folder in _inputs(file):
        kept = kept_path(folder, sha256)
        if kept.is_file():
            draft.settings[name] = escaped(str(kept))
            return
    draft.lose(
        f"{name} with SHA-256 {sha256}",
        f"the picture does not hold it: write `{name}: FILE` beside the prompt",
    )


def _take_loras(draft: Draft, loras: Sequence[Lora], file: Path) -> None:
    """The LoRAs, where the picture still lies in the output that holds them."""
    listed = []
    for one in loras:
        kept = [path for folder in _inputs(file) if (path := kept_path(folder, one.sha256)).is_file()]
        if not kept:
            draft.lose(
                f"LoRA {one.name} with SHA-256 {one.sha256}",
                f"the picture does not hold it: write `loras: [{{file: FILE, scale: {one.scale:g}}}]` beside "
                "the prompt, with all that it had",
            )
            return
        listed.append({"file": str(kept[0]), "scale": one.scale})
    if listed:
        draft.settings["loras"] = listed


def _take_embeddings(draft: Draft, embeddings: Sequence[TextualInversion], file: Path) -> None:
    """The textual inversions, where the picture still lies in the output that holds them."""
    listed = []
    for one in embeddings:
        kept = [path for folder in _inputs(file) if (path := kept_path(folder, one.sha256)).is_file()]
        if not kept:
            draft.lose(
                f"textual inversion {one.name} with SHA-256 {one.sha256}",
                "the picture does not hold it: write `textual_inversions: [{file: FILE, token: "
                f"{one.token}}}]` beside the prompt, with all that it had",
            )
            return
        listed.append({"file": str(kept[0]), "token": one.token})
    if listed:
        draft.settings["textual_inversions"] = listed


def _lose_ip_adapter(draft: Draft, adapter: IpAdapter, request: ImageRequest, file: Path) -> None:
    """Leaves the IP-Adapter and its picture out: a manifest names one for all its lines."""
    draft.settings.pop("ip_adapter_scale", None)

    def kept(sha256: str) -> str:
        found = [path for folder in _inputs(file) if (path := kept_path(folder, sha256)).is_file()]
        return str(found[0]) if found else "FILE"

    named = f"{{file: {kept(adapter.sha256)}, image_encoder: {_image_encoder(adapter)}}}"
    draft.lose(
        f"IP-Adapter {adapter.name} with SHA-256 {adapter.sha256}, and its picture with "
        f"{request.ip_adapter_image}",
        f"a manifest has one for all its lines: write `ip_adapter: {named}` at its top, and "
        f"`ip_adapter_image: {escaped(kept(str(request.ip_adapter_image)))}`, `ip_adapter_scale: "
        f"{request.ip_adapter_scale:g}` beside the prompt",
    )


def _image_encoder(adapter: IpAdapter) -> str:
    """What a manifest writes of the image encoder; of a folder only its own name is known."""
    if adapter.revision.startswith("sha256:"):
        return f"./{adapter.image_encoder}"
    commit, folder = commit_and_folder(adapter.revision)
    subfolder = f", subfolder: {folder}" if folder else ""
    return f"{{model: {adapter.image_encoder}{subfolder}, revision: {commit}}}"


def _inputs(file: Path) -> Iterator[Path]:
    """Where the output of a picture may keep the files of its request."""
    return (folder / ".imagemill" / "inputs" for folder in file.resolve().parents[:4])
