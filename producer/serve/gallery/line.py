"""What a gallery's page says of an image, and where in an output an image is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from jobs.output.metadata import Failure


class Cursor(NamedTuple):
    """A place in an output: images follow each other by these two numbers."""

    shard: int
    position: int
    """In the shard, from 0."""

    @property
    def next(self) -> Cursor:
        """The place that follows."""
        return Cursor(self.shard, self.position + 1)


START = Cursor(0, 0)


class Line(NamedTuple):
    """An image on a page: one that is there, or one that failed."""

    place: Cursor
    image_id: str
    text: str
    """The prompt."""
    width: int | None
    height: int | None
    seed: int | None
    flagged: str | None = None
    """What is odd about the picture."""
    reason: str | None = None
    """Why it failed; None for a picture that is there."""
    command: str | None = None
    """What renders a failed one again."""

    @property
    def failed(self) -> bool:
        """Whether there is no picture."""
        return self.reason is not None


def line_of_record(place: Cursor, record: Mapping[str, Any]) -> Line:
    """The line of a metadata record."""
    return Line(
        place,
        record["image_id"],
        record.get("text", ""),
        record.get("width"),
        record.get("height"),
        record.get("seed"),
        record.get("flagged"),
    )


def line_of_failure(failure: Failure) -> Line:
    """The line of what failed."""
    request = failure.entry.request
    return Line(
        Cursor(failure.shard, failure.position),
        failure.image_id,
        request.prompt,
        request.width,
        request.height,
        request.seed,
        None,
        failure.reason,
        failure.command,
    )


def values_of_failure(failure: Failure) -> dict[str, Any]:
    """What a record would say of it: its settings and the user's columns."""
    request = failure.entry.request.written()
    return {
        **failure.entry.columns,
        "text": request.pop("prompt"),
        "image_id": failure.image_id,
        **request,
        "id": failure.entry.id,
        "job_id": failure.job_id,
    }
