"""What a verification found, for people and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import click

from jobs.wording import counted, on_one_line
from producer.verify.comparison import Comparison
from producer.verify.sample import SampleCounts


@dataclass(frozen=True, slots=True)
class NotCompared:
    """An image that was drawn and could not be compared."""

    place: str
    image_id: str
    why: str


@dataclass(slots=True)
class Verification:
    """What became of the images that were drawn."""

    output: str
    seed: int
    every: bool
    """Whether all images were drawn."""
    tolerance: int
    counts: SampleCounts = field(default_factory=SampleCounts)
    equal_bytes: int = 0
    """Equal to the last byte."""
    equal_pixels: int = 0
    """Equal, or within the tolerance, where bytes are not promised."""
    largest_tolerated: int = 0
    """The largest difference among these, of 255."""
    differing: list[Comparison] = field(default_factory=list)
    not_compared: list[NotCompared] = field(default_factory=list)
    why_pixels: Counter[tuple[str, ...]] = field(default_factory=Counter)
    """Why bytes were not compared -> how many images."""

    @property
    def exit_code(self) -> int:
        """0 all are equal, 1 one is not, 2 one could not be compared."""
        if self.differing:
            return 1
        return 2 if self.not_compared else 0

    def take(self, one: Comparison) -> None:
        """Adds an image that was compared."""
        if one.because:
            self.why_pixels[one.because] += 1
        if not one.equal:
            self.differing.append(one)
        elif one.by == "bytes":
            self.equal_bytes += 1
        else:
            self.equal_pixels += 1
            most = 0 if one.largest is None else one.largest.difference
            self.largest_tolerated = max(self.largest_tolerated, most)


def report(found: Verification) -> None:
    """Prints a line for each image that differs or was not compared, and what all came to."""
    for one in found.differing:
        how = "its bytes should be equal" if one.by == "bytes" else "compared by pixels"
        _say(f"{one.place}: {one.image_id}: differs: {one} ({how})")
    for reason, places in _by_reason(found.not_compared):
        more = "" if len(places) == 1 else f" and {len(places) - 1:,} more"
        _say(f"{places[0]}{more}: not compared: {reason}")
    for because, count in found.why_pixels.most_common():
        _say(f"note: bytes of {counted(count, 'image')} need not be equal: {'; '.join(because)}")
    counts = found.counts
    if counts.looked_at < counts.shards:
        _say(f"note: drawn from {counts.looked_at:,} of {counted(counts.shards, 'shard')}")
    if counts.failed:
        _say(f"note: {counted(counts.failed, 'failed image')} left out: there is no picture to compare")
    drawn = f"{counts.drawn:,} of {counted(counts.images, 'image')}"
    how = "" if found.every else f" (--seed {found.seed})"
    told = [f"{found.equal_bytes:,} equal in every byte"] if found.equal_bytes else []
    if found.equal_pixels:
        most = found.largest_tolerated
        within = (
            "equal in every pixel" if most == 0 else f"equal within {found.tolerance} of 255 (largest {most})"
        )
        told.append(f"{found.equal_pixels:,} {within}")
    told += [f"{len(found.differing):,} differ"] if found.differing else []
    told += [f"{len(found.not_compared):,} not compared"] if found.not_compared else []
    _say(f"{found.output}: {drawn} rendered again{how}: {', '.join(told)}")


def _by_reason(found: Sequence[NotCompared]) -> list[tuple[str, list[str]]]:
    places: dict[str, list[str]] = {}
    for one in found:
        places.setdefault(one.why, []).append(f"{one.place}: {one.image_id}")
    return list(places.items())


def _say(text: str) -> None:
    click.echo(on_one_line(text))


def to_json(found: Verification) -> dict[str, Any]:
    """The same as JSON values."""
    counts = found.counts
    return {
        "output": found.output,
        "seed": None if found.every else found.seed,
        "shards": counts.shards,
        "shards_looked_at": counts.looked_at,
        "images_looked_at": counts.images,
        "failed_left_out": counts.failed,
        "drawn": counts.drawn,
        "tolerance": found.tolerance,
        "equal_bytes": found.equal_bytes,
        "equal_pixels": found.equal_pixels,
        "largest_tolerated": found.largest_tolerated,
        "differing": [_comparison(one) for one in found.differing],
        "not_compared": [
            {"file": one.place, "image_id": one.image_id, "why": one.why} for one in found.not_compared
        ],
        "bytes_not_promised": [
            {"because": list(because), "images": count} for because, count in found.why_pixels.most_common()
        ],
    }


def _comparison(one: Comparison) -> dict[str, Any]:
    largest = one.largest
    return {
        "file": one.place,
        "image_id": one.image_id,
        "by": one.by,
        "because": list(one.because),
        "largest": None
        if largest is None
        else {"difference": largest.difference, "x": largest.x, "y": largest.y, "channel": largest.channel},
        "differing_pixels": one.differing_pixels,
        "what": one.what,
    }
