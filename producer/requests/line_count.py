"""How many lines a manifest has for how many pictures, in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from jobs.wording import counted, some


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """What was counted of the lines of a manifest that share pictures, or ids."""

    pictures: int
    """Different ones that are asked for."""
    equal: int
    """Further lines that ask for one of them, with another id or other columns."""
    added: int
    """Lines that the output lacks, of pictures that it has."""
    reused_ids: int
    """Lines whose id another prompt has, too."""
    first_reused_ids: Sequence[str]

    def remarks(self) -> Iterator[str]:
        """What to say of them; nothing where each line has a picture and an id of its own."""
        if self.equal:
            verb = "shares" if self.equal == 1 else "share"
            yield (
                f"{self.pictures + self.equal:,} lines, {counted(self.pictures, 'picture')}: "
                f"{counted(self.equal, 'line')} {verb} a picture with an equal one"
            )
        if self.added:
            yield (
                f"{counted(self.added, 'line')} of pictures that are there with another id or other columns: "
                "added without a rendering, next to the lines that are there"
            )
        if self.reused_ids:
            has = "has" if self.reused_ids == 1 else "have"
            names = some([*self.first_reused_ids])
            yield f"{counted(self.reused_ids, 'line')} {has} the id of another prompt: {names}"
