"""What a class of pipelines does not take, told with the setting and the remedy."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing that a class of pipelines does not take."""

    path: tuple[str, ...]
    """The setting, and in `arguments` the argument."""
    value: object
    what: str
    """What is wrong, and what is possible instead."""

    def __str__(self) -> str:
        return f"{'.'.join(self.path)} = {json.dumps(self.value, ensure_ascii=False)}: {self.what}"


def either(names: Iterable[str]) -> str:
    """Names as people list what they may choose from."""
    several = list(names)
    return several[0] if len(several) == 1 else f"{', '.join(several[:-1])} or {several[-1]}"
