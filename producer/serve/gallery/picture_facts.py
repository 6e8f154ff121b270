"""One picture: all that its record says, and what to copy to have it again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from jobs.adapters import controlnets_of
from jobs.columns import INDEX, RENDERED_PREFIX
from jobs.errors import ManifestError
from jobs.models.models import BUILT_IN
from jobs.output.lines import columns_of
from jobs.output.metadata import Failure, request_of_record
from jobs.output.output import Output
from jobs.render_command import OF_A_FOLDER, reproducing_command
from jobs.request import IMAGE_SETTINGS, ImageRequest
from producer.export.grid_layout import label
from producer.serve.gallery.line import values_of_failure

_FIRST: Final = ("image_id", INDEX, "id")


@dataclass(frozen=True, slots=True)
class Facts:
    """A part of what is known of a picture."""

    heading: str
    values: Sequence[tuple[str, str]]
    """Names and values as texts, in their order."""
    usual: Sequence[tuple[str, str]] = ()
    """The same of settings that are at their defaults."""


def facts_of(record: Mapping[str, Any]) -> list[Facts]:
    """What a record says: what the picture is, every setting in their own order, the user's columns, how it
    was rendered. A setting that the record leaves out is at its default.

    Settings that are at a default which no model changes stand apart. The prompt is the page's heading.
    """
    own = columns_of(record)
    settings = {
        name: record.get(name, setting.default)
        for name, setting in IMAGE_SETTINGS.items()
        if name != "prompt" and (name in record or setting.default is not ...)
    }
    rendered = {
        name.removeprefix(RENDERED_PREFIX): value
        for name, value in record.items()
        if name.startswith(RENDERED_PREFIX)
    }
    known = {"text", *_FIRST, *own, *settings, *(f"{RENDERED_PREFIX}{name}" for name in rendered)}
    rest = {name: value for name, value in record.items() if name not in known}
    parts = {
        "Picture": {name: record[name] for name in _FIRST if name in record},
        "Settings": settings,
        "Columns": own,
        "Rendered": rendered,
        "File": rest,
    }
    return [
        Facts(
            heading,
            [(name, _shown(value)) for name, value in values.items() if not _is_usual(heading, name, value)],
            [(name, _shown(value)) for name, value in values.items() if _is_usual(heading, name, value)],
        )
        for heading, values in parts.items()
        if values
    ]


def facts_of_failure(failure: Failure) -> list[Facts]:
    """The same of an image that failed."""
    return facts_of({"image_id": failure.image_id, **values_of_failure(failure)})


def manifest_of(record: Mapping[str, Any], output: Output, stored_as: str) -> str:
    """A manifest that asks for the picture again, as `imagemill import` prints it for its file.

    `stored_as`: what the file is called in the output. Raises ManifestError where its record says what no
    manifest can.
    """
    from producer.importing.imported import Imported
    from producer.importing.manifest_text import manifest_text
    from producer.importing.own import read_request
    from producer.importing.recipe import Untold

    try:
        request = request_of_record(record)
        recipe = read_request(request, output.path / stored_as).recipe(
            stored_as, (request.width, request.height)
        )
    except (Untold, KeyError, TypeError, ValueError) as error:
        raise ManifestError(f"its record is not one that a manifest can say: {error}") from None
    return manifest_text(Imported([recipe], [], recipe.model, dict(recipe.of_job)), "again")


def command_of(record: Mapping[str, Any], output: Output, stored_as: str | None) -> str:
    """The shell command that renders the picture again, by itself, in the output's folder.

    `stored_as`: what its file is called there; None where it lies in a tar, or in a bucket: then the command
    has the whole request. PATH/TO/ stands for a folder that the output does not tell. Raises ManifestError
    where its record says no request.
    """
    try:
        request = request_of_record(record)
        if stored_as is not None and not _names_folders(request):
            return shlex.join(["imagemill-worker", "render", "--from", stored_as])
        rows = record.get(f"{RENDERED_PREFIX}rows")
        model = f"/{request.model}" if _is_folder(request) else request.model
        return reproducing_command(
            request,
            model,
            rows if type(rows) is int else 1,
            bucket=output.label if output.in_bucket else None,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ManifestError(f"its record is not one that a command can say: {error}") from None


def slots_of(record: Mapping[str, Any]) -> int | None:
    """The slots of a forward that the picture's bytes follow from; None where they follow from none."""
    rows = record.get(f"{RENDERED_PREFIX}rows")
    return rows if type(rows) is int and record.get(f"{RENDERED_PREFIX}mode") != "alone" else None


def _is_folder(request: ImageRequest) -> bool:
    """Whether the model is a folder or a file, of which the request tells its own name only."""
    return request.model not in BUILT_IN and request.revision.startswith(OF_A_FOLDER)


def _names_folders(request: ImageRequest) -> bool:
    """Whether a command must say where models are."""
    return _is_folder(request) or any(
        one.revision.startswith(OF_A_FOLDER) for one in controlnets_of(request.controlnet)
    )


def _is_usual(heading: str, name: str, value: Any) -> bool:
    if heading != "Settings":
        return False
    setting = IMAGE_SETTINGS[name]
    return not setting.required and not setting.by_model and bool(value == setting.default)


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (list, dict)) else label(value)
