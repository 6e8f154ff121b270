"""What an output calls its shards: one form, fixed when the output begins.

    OUT/00003/    OUT/00003.tar       flat: five digits
    OUT/149/421/  OUT/149/421.tar     nested by thousand: the same shard's number in 6 digits (or 7: 0149/421)

Numeric order is the order of the names. No folder gets more than 10,000 entries, which is what the Hugging
Face hub takes, and what file systems and listings bear: flat names are for outputs that stay below that. Of
nested ones webdataset reads `{000..148}/{000..999}.tar` and `149/{000..421}.tar`: braces multiply, so no
digits of the folder are said again in the name. A key has all digits, and is unique in the output.
The two forms have no name in common: a folder of a thousand has three or four digits, a flat name more.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, NamedTuple

SHARD_LIMIT = 10_000
"""Images in one shard at most: a key has four digits for the place in it."""
HUB_ENTRIES: Final = 10_000
"""Entries that the Hugging Face hub takes in a folder.
Source: https://huggingface.co/docs/hub/repositories-recommendations"""
FOLDER_LIMIT: Final = HUB_ENTRIES - 1
"""Images in one shard of `layout: files`: metadata.jsonl is one entry more. A tar's members are none."""
OTHER_ENTRIES: Final = 100
"""Entries that are left for README.md, job.json and their like, and for shards of what is sent back."""

_FLAT_DIGITS: Final = 5
_INNER: Final = 3
"""Digits of a shard in its folder of a thousand."""
_MOST_DIGITS: Final = 7
_FLAT: Final = re.compile(r"[0-9]{5,}")
_ENDINGS: Final = frozenset({"", ".tar", ".parquet"})
_FILE: Final = re.compile(r"([0-9]{9,})\.[a-z]+")


class Part(NamedTuple):
    """A part of the path of what lies in an output: a shard's name, and the ending after it."""

    shard: int
    ending: str
    """tar, parquet, or nothing."""


@dataclass(frozen=True, slots=True)
class ShardNames:
    """One form of names."""

    digits: int = _FLAT_DIGITS
    """5: flat; 6 or 7: nested."""
    bounded: bool = True
    """False: an output that was begun without a bound on entries, which has six digits from 100000 on."""

    def __post_init__(self) -> None:
        if not _FLAT_DIGITS <= self.digits <= _MOST_DIGITS or (self.nested and not self.bounded):
            raise ValueError(f"shard names of {self.digits} digits: must be 5, 6 or 7")

    @classmethod
    def for_shards(cls, shards: int, each: int, *, room: int = 1) -> ShardNames:
        """The shortest form that holds `room` times so many shards, of `each` entries in their folder.

        The longest where none does: `most` says what that holds.
        """
        forms = (cls(digits) for digits in range(_FLAT_DIGITS, _MOST_DIGITS))
        return next((names for names in forms if room * shards <= names.most(each)), cls(_MOST_DIGITS))

    @property
    def nested(self) -> bool:
        return self.digits > _FLAT_DIGITS

    def most(self, each: int) -> int:
        """Shards that find a place, where each takes `each` entries of its folder."""
        folders = HUB_ENTRIES - OTHER_ENTRIES
        return min(10**self.digits, folders * 10**_INNER) if self.nested else folders // each

    def name(self, shard: int) -> str:
        """`00003`, or `149/421`."""
        if not self.nested:
            return f"{shard:05d}"
        thousand, rest = divmod(shard, 10**_INNER)
        return f"{thousand:0{self.digits - _INNER}d}/{rest:0{_INNER}d}"

    def number(self, name: str) -> int | None:
        """The shard that is called so; None for any other name."""
        if not self.nested:
            return int(name) if _FLAT.fullmatch(name) and name == f"{int(name):05d}" else None
        folder, _, rest = name.partition("/")
        sound = self.is_folder(folder) and len(rest) == _INNER and rest.isascii() and rest.isdecimal()
        return int(folder + rest) if sound else None

    def is_folder(self, name: str) -> bool:
        """Whether a folder of a thousand shards is called so."""
        digits = self.digits - _INNER
        return self.nested and len(name) == digits and name.isascii() and name.isdecimal()

    def part(self, path: str) -> Part | None:
        """The shard to which a path in the output belongs, `00003.tar` or `149/421/metadata.jsonl`; None for
        what belongs to none."""
        folder, *below = path.split("/")
        if not self.nested:
            return self.part_in("", folder)
        return self.part_in(folder, below[0]) if below and self.is_folder(folder) else None

    def part_in(self, folder: str, name: str) -> Part | None:
        """The same of an entry of a folder of a thousand shards, or of the output where names are flat.

        A listing asks for each of hundreds of thousands.
        """
        stem, dot, ending = name.partition(".")
        if dot + ending not in _ENDINGS:
            return None
        if not self.nested:
            shard = self.number(stem)
        else:
            inner = len(stem) == _INNER and stem.isascii() and stem.isdecimal()
            shard = int(folder) * 10**_INNER + int(stem) if inner else None
        return None if shard is None else Part(shard, ending)

    def key(self, shard: int, position: int) -> str:
        """`000030012`: the shard's digits and four for the place in it, from 0.

        Raises ValueError outside 0 .. SHARD_LIMIT - 1.
        """
        if not 0 <= position < SHARD_LIMIT:
            raise ValueError(f"position {position} in a shard: must be 0 .. {SHARD_LIMIT - 1}")
        return f"{shard:0{self.digits}d}{position:04d}"

    def position(self, shard: int, file_name: object) -> int | None:
        """The place in this shard that a file of this name has; None for any other name."""
        found = _FILE.fullmatch(file_name) if isinstance(file_name, str) else None
        if found is None or found[1][:-4] != f"{shard:0{self.digits}d}":
            return None
        return int(found[1][-4:])

    @property
    def pattern(self) -> str:
        """What matches the names of all shards, as `datasets` and shells read patterns."""
        return "[0-9]*/[0-9]*" if self.nested else "[0-9]*"

    def braces(self, first: int, last: int) -> str:
        """The tars of these shards and all between, as webdataset reads them: braces, joined by `::`."""
        if not self.nested:
            return f"{{{first:05d}..{last:05d}}}.tar"
        per, parts = 10**_INNER, []
        while first <= last:
            thousand = first // per
            # Whole thousands are one pattern, others one each.
            whole = first % per == 0 and last >= first + per - 1
            end = (last + 1) // per if whole else thousand + 1
            until = min(last, end * per - 1)
            folder, final = f"{thousand:0{self.digits - _INNER}d}", f"{end - 1:0{self.digits - _INNER}d}"
            folders = folder if folder == final else f"{{{folder}..{final}}}"
            parts.append(f"{folders}/{{{first % per:0{_INNER}d}..{until % per:0{_INNER}d}}}.tar")
            first = until + 1
        return "::".join(parts)


FLAT: Final = ShardNames()
"""Also the names of folders in the spool of every output."""
UNBOUNDED: Final = ShardNames(bounded=False)
"""An output that an earlier version began."""
