"""A picture compared with the one that was rendered again: by its bytes where they are promised, else by its
pixels."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from jobs.columns import RENDERED_PREFIX
from jobs.wording import counted, shortened
from producer.verify.not_comparable import NotComparable

_CHANNELS: Final = ("red", "green", "blue")
_CALLED: Final = {"rows": "slots"}
"""What people call a column of how a picture was rendered, where that is not its name."""


class StoredPicture(NamedTuple):
    """A picture's file with its record."""

    record: Mapping[str, Any]
    data: bytes


@dataclass(frozen=True, slots=True)
class Largest:
    """The largest difference between two pictures, and its first place."""

    difference: int
    """Of 255."""
    x: int
    y: int
    channel: str
    """red, green or blue."""

    def __str__(self) -> str:
        return f"{self.difference} of 255 at x={self.x}, y={self.y} ({self.channel})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How a picture compares with itself, rendered again."""

    place: str
    image_id: str
    by: Literal["bytes", "pixels"]
    because: tuple[str, ...] = ()
    """Why bytes are not compared; empty where they are."""
    equal: bool
    largest: Largest | None = None
    """None where all pixels are equal, or the sizes are not."""
    differing_pixels: int = 0
    what: str = ""
    """What else is to be said of it."""

    def __str__(self) -> str:
        said = [] if self.largest is None else [f"largest difference {self.largest}"]
        if self.differing_pixels:
            said.append(f"{counted(self.differing_pixels, 'pixel')} of it differ")
        return "; ".join([*said, *([self.what] if self.what else [])])


def compare(place: str, then: StoredPicture, now: StoredPicture, tolerance: int = 0) -> Comparison:
    """Compares two files of one image.

    By bytes where both records say the same of what rendered them, and the mode promises bytes. `tolerance`:
    the largest difference, 0 to 255, that counts as equal where pixels are compared. Raises
    NotComparable for a file that is no picture.
    """
    because = tuple(_reasons(then.record, now.record))
    found = Comparison(
        place=place,
        image_id=str(then.record["image_id"]),
        by="pixels" if because else "bytes",
        because=because,
        equal=then.data == now.data,
    )
    if found.equal:
        return found
    before, after = _pixels(then.data), _pixels(now.data)
    said = []
    if before.shape != after.shape:
        said.append(f"sizes {' and '.join(f'{one.shape[1]}x{one.shape[0]}' for one in (before, after))}")
    else:
        difference = np.abs(before.astype(np.int16) - after)
        largest = _largest(difference)
        if largest is None and not because:
            said.append("all pixels are equal, other bytes of the file are not")
        found = replace(
            found,
            equal=bool(because) and (largest is None or largest.difference <= tolerance),
            largest=largest,
            differing_pixels=int(np.count_nonzero(difference.any(axis=2))),
        )
    if hashlib.sha256(then.data).hexdigest() != then.record.get("sha256"):
        said.append("its file is not as it was written, its SHA-256 is another one: see `imagemill doctor`")
    return replace(found, what="; ".join(said))


def _largest(difference: NDArray[np.int16]) -> Largest | None:
    """The largest of these, [H,W,3], and where it is first; None where all are 0."""
    y, x, channel = (int(at) for at in np.unravel_index(int(difference.argmax()), difference.shape))
    most = int(difference[y, x, channel])
    return Largest(most, x, y, _CHANNELS[channel]) if most else None


def _pixels(data: bytes) -> NDArray[np.uint8]:
    """uint8 [H,W,3]. Raises NotComparable."""
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as picture:
            return np.asarray(picture.convert("RGB"), np.uint8)
    # Pillow's readers raise many kinds of errors for damaged files, and refuse very large ones.
    except Exception as error:
        raise NotComparable(
            f"its file cannot be read as a picture ({shortened(str(error), 120)}): see `imagemill doctor`"
        ) from None


def _reasons(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Why two files of equal requests need not have equal bytes."""
    names = sorted({name for record in (then, now) for name in record if name.startswith(RENDERED_PREFIX)})
    if not names:
        yield "nothing says how it was rendered"
    for name in names:
        called = name.removeprefix(RENDERED_PREFIX)
        before, after = then.get(name), now.get(name)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from (
                _differs(part, before.get(part), after.get(part))
                for part in sorted({*before, *after})
                if before.get(part) != after.get(part)
            )
        elif before != after:
            yield _differs(_CALLED.get(called, called), before, after)
    if then.get(f"{RENDERED_PREFIX}mode") == "fast" == now.get(f"{RENDERED_PREFIX}mode"):
        yield "mode fast promises no bytes"


def _differs(name: str, before: object, after: object) -> str:
    told = ["not told" if one is None else shortened(str(one), 120) for one in (before, after)]
    return f"{name}: {told[0]} then, {told[1]} now"
