"""How many pictures a shard gets: the manifest's number, or for `shard_size: auto` what makes good files.

A file of a data set is read whole, and copied whole: it should hold 1,000 pictures, or 300 MB where these
are large. Shards are of one size of picture, so each size has a number of its own. How many bytes a picture
takes is measured on the output's own; before there are some it is estimated.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from jobs.output.output import Output

_BYTES_A_PIXEL: Final[dict[str, float]] = {"png": 1.6, "jpeg": 0.5, "webp": 0.4}
"""Of pictures that look like photographs, at the default quality; drawings take less."""
_BESIDE: Final = 4_000
"""Bytes of a picture's metadata: in it, next to it, and in the parquet."""
_WEIGHED: Final = 32
"""Shards of the output that are weighed."""


@dataclass(frozen=True, slots=True)
class ShardSize:
    """How many pictures a shard gets."""

    pictures: int
    """At most."""
    bytes: int = 0
    """At most, by estimate; 0: any number."""
    bytes_a_pixel: float = 0.0

    def of_size(self, height: int, width: int) -> int:
        """As many as a shard of pictures of this size gets."""
        if not self.bytes:
            return self.pictures
        each = _BESIDE + height * width * self.bytes_a_pixel
        return max(1, min(self.pictures, int(self.bytes / each)))


def shard_size(
    output: Output, most: tuple[int, int], image_format: str, below: int | None = None
) -> ShardSize:
    """What a job's shards get. `most`: pictures, and bytes or 0.

    `below`: only shards of the output with lower numbers are weighed, so that a submission which is resumed
    finds the same. Raises OutputError where one cannot be read.
    """
    pictures, size = most
    if not size:
        return ShardSize(pictures)
    shards = [shard for shard in output.shards() if below is None or shard < below]
    measured = _weighed(output, shards[:_WEIGHED], image_format)
    return ShardSize(pictures, size, _BYTES_A_PIXEL[image_format] if measured is None else measured)


def _weighed(output: Output, shards: Iterable[int], image_format: str) -> float | None:
    """Bytes a pixel of the shards whose pictures are all in the format; None without any."""
    size = pixels = 0
    for shard in shards:
        stored = output.stored(shard)
        shapes = [
            record["height"] * record["width"] if record.get("image_format") == image_format else 0
            for record in stored.records()
        ]
        # Others' bytes cannot be told apart.
        if shapes and all(shapes):
            size += max(0, stored.size() - len(shapes) * _BESIDE)
            pixels += sum(shapes)
    return size / pixels if pixels else None
