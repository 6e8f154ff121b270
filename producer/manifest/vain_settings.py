"""What a manifest says about pictures for all its lines, and what means nothing to any of them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final

from jobs.pipelines.pipeline_task import NEEDS, TASK_PICTURES
from producer.manifest.document import Location
from producer.manifest.manifest import Manifest

LORA_FOLDER: Final = "lora_folder"


def vain_settings(manifest: Manifest, used: Collection[str]) -> Iterator[tuple[Location, str]]:
    """Each value that means nothing to any line: where it stands, and what is wrong with it.

    used: what means something to a line, as `jobs.pipelines.pipeline_task.meant` says, of all lines together;
    and LORA_FOLDER where a line names a LoRA in it.
    """
    swept = manifest.sweep.swept()
    for name in ("fit", *NEEDS):
        if name in used:
            continue
        what = f"does nothing: {_why(name, used)}, or remove it"
        if name in manifest.settings.model_fields_set:
            yield ("settings", name), what
        if name in swept:
            yield ("sweep", name, 0), what
    if manifest.controlnet and "controlnet" not in used:
        yield ("controlnet", 0), "does nothing: no line has a control_image: give control_image, or remove it"
    if manifest.ip_adapter is not None and "ip_adapter" not in used:
        what = "does nothing: no line has an ip_adapter_image: give ip_adapter_image, or remove it"
        yield ("ip_adapter",), what
    if manifest.lora_folder is not None and LORA_FOLDER not in used:
        what = (
            "does nothing: no line names a LoRA in it: write <lora:NAME:1> under `syntax: a1111`, or NAME:1"
        )
        yield (LORA_FOLDER,), f"{what} in `loras`"


def _why(name: str, used: Collection[str]) -> str:
    """Why a setting means nothing, and what would change that."""
    picture = NEEDS.get(name)
    if picture is None:
        return f"no line has a picture: give {', '.join(TASK_PICTURES[:-1])} or {TASK_PICTURES[-1]}"
    if picture not in used:
        return f"no line has {_a(picture)}: give {picture}"
    if name == "strength":
        return "what paints from these pictures takes none: use a model of another class"
    beside = "ip_adapter" if name == "ip_adapter_scale" else "controlnet"
    return f"there is no {'IP-Adapter' if beside == 'ip_adapter' else 'ControlNet'}: give {beside}"


def _a(name: str) -> str:
    return f"an {name}" if name[0] in "aeio" else f"a {name}"
