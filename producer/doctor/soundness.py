"""What makes a record, a picture and a failure sound in any layout, and what is said when they are not."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from jobs.columns import MAX_DEPTH, deeper_than
from jobs.location import CHECK_BUCKET, names_bucket
from jobs.output.metadata import Failure, request_of_record
from jobs.output.picture_file import read_picture
from jobs.output.shard_names import SHARD_LIMIT
from jobs.request import ImageRequest
from jobs.strict_json import strict_json
from producer.doctor.findings import Problem

RENDER_AGAIN = "`--repair` sets it aside, then submit the manifest again"
TAKE_OUT = "`--repair` sets it aside"
FILL_GAP = "submit the manifest again; `--repair` notes the gap"

_CHANGED = "bytes were changed: its SHA-256 is not that of its line"


class Gaps(NamedTuple):
    """Places in a shard with neither picture nor failure."""

    places: tuple[int, ...]
    what: str


def file_problem(path: str, file: str, error: OSError) -> Problem:
    """The problem that the system does not let us read `path`, which is `file` in the output."""
    return Problem(
        kind="unreadable",
        file=file,
        what=f"cannot be read ({error.strerror})",
        remedy=f"make it readable for this user, or check the disk: {path}"
        if not names_bucket(path)
        else f"{CHECK_BUCKET}, and run the same command again: {path}",
    )


def json_object(text: bytes) -> dict[str, Any] | None:
    """The object that the JSON text is; None for anything else."""
    try:
        record = strict_json(text)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _is_place(position: object) -> bool:
    return isinstance(position, int) and 0 <= position < SHARD_LIMIT


def request_in(record: Mapping[str, Any]) -> ImageRequest | str:
    """The request of a metadata record, or what is wrong with the record."""
    if deeper_than(MAX_DEPTH + 1, record):
        return f"is nested deeper than {MAX_DEPTH}"
    if not isinstance(record.get("sha256"), str):
        return "names no SHA-256"
    try:
        request = request_of_record(record)
        image_id = request.image_id
    except (KeyError, TypeError, ValueError) as error:
        return f"its settings make no request ({error})"
    if image_id != record.get("image_id"):
        return f"its settings give image_id {image_id}, not {record.get('image_id')}: the line was changed"
    return request


def failure_in(text: bytes, shard: int, rendered: Collection[int]) -> Failure | str:
    """The failure in a line of a shard, whose places `rendered` have pictures; or what is wrong with it."""
    record = json_object(text) or {}
    if deeper_than(MAX_DEPTH + 2, record):
        return f"is no failure: nested deeper than {MAX_DEPTH}"
    try:
        failure = Failure.from_mapping(record)
        image_id = failure.image_id
    except (KeyError, TypeError, ValueError) as error:
        return f"is not a failure ({error})"
    if failure.shard != shard or not _is_place(failure.position):
        return f"is of place {failure.position} of shard {failure.shard}, not of this one"
    if image_id != record.get("image_id"):
        return f"its settings give image_id {image_id}: the line was changed"
    if failure.position in rendered:
        return f"place {failure.position} has a picture and a failure"
    return failure


def repaired_places(lines: Iterable[bytes]) -> Iterator[int]:
    """The places that a repair emptied."""
    for text in lines:
        record = json_object(text)
        if record is not None and _is_place(record.get("position")):
            yield record["position"]


def gaps_between(filled: Collection[int], reported: Collection[int] = ()) -> Gaps | None:
    """The places below the last one that are neither filled nor `reported` already; None without any."""
    gaps = sorted(set(range(max(filled, default=-1))) - set(filled) - set(reported))
    if not gaps:
        return None
    noun, verb = ("place", "is") if len(gaps) == 1 else ("places", "are")
    return Gaps(tuple(gaps), f"{noun} {_ranges(gaps)} {verb} neither a picture nor a failure")


def lines_of(data: bytes) -> list[bytes]:
    """The lines of a file."""
    lines = data.split(b"\n")
    return lines if lines[-1] else lines[:-1]


def picture_trouble(data: bytes, wanted: ImageRequest, sha256: str) -> str | None:
    """What is wrong with the picture of a sound record; None when nothing is.

    Its SHA-256 says that it is wrong; the request in it may say how.
    """
    if not data:
        return "is empty"
    unchanged = hashlib.sha256(data).hexdigest() == sha256
    try:
        picture = read_picture(data)
        held = None if picture.request is None else picture.request.image_id
    except ValueError as error:
        return str(error) if unchanged else _CHANGED
    if held is not None and held != wanted.image_id:
        return f"is another picture: it holds {held}, its line names {wanted.image_id}"
    if not unchanged:
        return _CHANGED
    if held is None:
        return "holds no request: another program wrote it"
    found, asked = (
        f"{form} of {width}x{height}"
        for form, width, height in (
            (picture.image_format, picture.width, picture.height),
            (wanted.image_format, wanted.width, wanted.height),
        )
    )
    return None if found == asked else f"is a {found}, its line says {asked}"


def _ranges(numbers: Sequence[int]) -> str:
    """`3, 5–7` of ascending numbers."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1][1:] = [number]
        else:
            parts.append([number])
    return ", ".join("–".join(map(str, part)) for part in parts)
