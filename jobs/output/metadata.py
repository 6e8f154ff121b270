"""What is written about an image: its metadata record, its A1111 text, and the record of a failure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import NoneType
from typing import Any

from jobs.columns import INDEX, RENDERED_PREFIX, column_problem
from jobs.entry import Entry
from jobs.request import IMAGE_SETTINGS, ImageRequest
from jobs.schedulers import find_scheduler
from jobs.wording import without_folders

_SETTINGS = tuple(name for name in IMAGE_SETTINGS if name != "prompt")
_COLUMN_TYPES: dict[str, tuple[type, ...]] = {"string": (str,), "int64": (int,), "float64": (int, float)}
_TYPES: dict[str, tuple[type, ...]] = {
    name: (*_COLUMN_TYPES[setting.values.column], *((NoneType,) if setting.default is None else ()))
    for name, setting in IMAGE_SETTINGS.items()
} | {"text": (str,)}
"""What JSON has for each field of a request, and for a record's caption."""


@cache
def imagemill_version() -> str:
    """The installed version; "0.0" when imagemill runs from a folder that was never installed."""
    from importlib.metadata import PackageNotFoundError, version  # 20 ms that `imagemill status` need not pay

    try:
        return version("imagemill")
    except PackageNotFoundError:
        return "0.0"


def metadata_record(
    entry: Entry,
    *,
    file_name: str,
    sha256: str,
    job_id: str,
    rendered: Mapping[str, Any],
    flagged: str | None = None,
    prompt_cut: str | None = None,
    column_names: Sequence[str],
    index: int | None = None,
) -> dict[str, Any]:
    """One line of metadata.jsonl, in a fixed order: what it is, every setting, the user's own columns, how
    it was rendered.

    The prompt is `text`, as imagefolder calls a caption. A setting that was added later is left out while it
    is at its default, so that an output which was begun before keeps its columns. `column_names` are the
    columns of the whole job: null where a line lacks one. `index`: the line's place in what the job asks for;
    the records of a job of an earlier version have none. `rendered` (JSON values) becomes
    `rendered_…` columns, next to the requested settings; `flagged` says what is odd about the picture.
    `prompt_cut`, the end of the prompt that the model did not get, is a column only where there is one.
    Raises ValueError for a column name that `column_problem` refuses or that `column_names` lacks.
    """
    problems = [problem for name in column_names if (problem := column_problem(name)) is not None]
    unknown = [name for name in entry.columns if name not in column_names]
    if problems or unknown:
        raise ValueError("; ".join([*problems, *(f"{name!r} is not among the columns" for name in unknown)]))
    request = entry.request.written()
    return {
        "file_name": file_name,
        "text": entry.request.prompt,
        "image_id": entry.request.image_id,
        **({} if index is None else {INDEX: index}),
        **{name: request[name] for name in _SETTINGS if name in request},
        "id": entry.id,
        **{name: entry.columns.get(name) for name in column_names},
        "job_id": job_id,
        **{f"{RENDERED_PREFIX}{name}": value for name, value in rendered.items()},
        "flagged": flagged,
        **({} if prompt_cut is None else {"prompt_cut": prompt_cut}),
        "sha256": sha256,
    }


def setting_trouble(values: Mapping[str, Any]) -> str | None:
    """The field in `values` that no imagemill would have written so; None when all are possible."""
    for name, kind in _TYPES.items():
        if name in values and (not isinstance(values[name], kind) or isinstance(values[name], bool)):
            return f"{name} is of another type"
    return None


def request_of_record(record: Mapping[str, Any]) -> ImageRequest:
    """The request of a metadata record. Raises KeyError or TypeError for anything else."""
    return _request({**record, "prompt": record["text"]})


def _request(values: Mapping[str, Any]) -> ImageRequest:
    trouble = setting_trouble(values)
    if trouble is not None:
        raise TypeError(trouble)
    return ImageRequest.from_mapping(values)


def parameters_text(request: ImageRequest) -> str:
    """The request in A1111's form: the prompt, `Negative prompt:` when there is one, the settings.

    Source: AUTOMATIC1111's `infotext_utils`, whose reader splits the last line at commas and takes a value
    in double quotes as JSON.
    """
    scheduler = find_scheduler(request.scheduler)
    sampler = scheduler.name.removesuffix(f" {scheduler.schedule_type}")
    settings = {
        "Steps": request.num_inference_steps,
        "Sampler": sampler,
        "Schedule type": scheduler.schedule_type,
        "CFG scale": float(request.guidance_scale),
        "Seed": request.seed,
        "Size": f"{request.width}x{request.height}",
        "Model hash": _short_hash(request.revision),
        "Model": request.model,
        "RNG": "CPU",
        "Version": "imagemill-" + ".".join(imagemill_version().split(".")[:2]),
    }
    lines = [request.prompt]
    if request.negative_prompt != "":
        lines.append(f"Negative prompt: {request.negative_prompt}")
    lines.append(", ".join(f"{name}: {_quoted(value)}" for name, value in settings.items() if value != ""))
    return "\n".join(lines)


def _short_hash(revision: str) -> str:
    """The first 10 hex digits of a commit or a content hash; nothing for a built-in model's version."""
    digits = revision.removeprefix("sha256:")
    return digits[:10] if re.fullmatch(r"[0-9a-f]{40,}", digits) else ""


def _quoted(value: object) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if any(mark in text for mark in ",:\n") else text


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One image that could not be rendered, and all that is needed to try it again."""

    shard: int
    position: int
    """The image's place in the shard, from 0."""
    entry: Entry
    reason: str
    job_id: str
    command: str
    """The shell command that renders this one image again."""

    @property
    def image_id(self) -> str:
        return self.entry.request.image_id

    def in_ledger(self) -> dict[str, object]:
        """What the ledger keeps of it."""
        return {
            "shard": self.shard,
            "position": self.position,
            "image_id": self.image_id,
            "reason": self.reason,
        }

    def to_json(self) -> str:
        """One line of a failures file, without the newline; its reason names no folders."""
        record = {
            "shard": self.shard,
            "position": self.position,
            "image_id": self.image_id,
            "reason": without_folders(self.reason),
            "job_id": self.job_id,
            "id": self.entry.id,
            "columns": dict(self.entry.columns),
            "request": self.entry.request.written(),
            "command": self.command,
        }
        return json.dumps(record, ensure_ascii=False)

    @classmethod
    def from_mapping(cls, record: Mapping[str, Any]) -> Failure:
        """The failure that `to_json` wrote. Raises KeyError or TypeError for anything else."""
        for name, kind in _RECORD.items():
            if not isinstance(record[name], kind) or isinstance(record[name], bool):
                raise TypeError(f"{name} = {str(record[name])[:40]!r}")
        return cls(
            shard=record["shard"],
            position=record["position"],
            entry=Entry.of(_request(record["request"]), id=record["id"], columns=record["columns"]),
            reason=record["reason"],
            job_id=record["job_id"],
            command=record["command"],
        )


_RECORD: dict[str, type | tuple[type, ...]] = {
    "shard": int, "position": int, "reason": str, "job_id": str, "id": (str, NoneType), "columns": dict,
    "request": dict, "command": str,
}  # fmt: skip
"""What a failure's line holds, and as which type."""
