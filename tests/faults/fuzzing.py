"""Properties of whatever strangers' input holds: how many cases they get, and what all of them ask.

FUZZ_CASES says how many cases all properties have together (500; a soak has 10,000 and more), FUZZ_SEED makes
the cases of a soak again.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping
from math import prod
from typing import Any

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from jobs.errors import ImagemillError

SLICE = 500
CASES = int(os.environ.get("FUZZ_CASES", SLICE))
SEED = int(os.environ.get("FUZZ_SEED", 6 if CASES <= SLICE else secrets.randbits(32)))

Test = Callable[..., None]


def fuzz(cases: int, **strategies: st.SearchStrategy[Any]) -> Callable[[Test], Test]:
    """Runs a property on so many cases of every 500."""

    def decorate(test: Test) -> Test:
        chosen = settings(
            max_examples=max(1, CASES * cases // SLICE),
            deadline=None,
            database=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        )
        return seed(SEED)(chosen(given(**strategies)(test)))

    return decorate


def check_message(error: ImagemillError, place: str) -> None:
    """The message is a line for each problem, each of which begins with its place and shows on a terminal."""
    message = str(error)
    assert message, error
    for line in message.split("\n"):
        assert line.startswith(place), message
        assert line.isprintable(), ascii(message)
        assert len(line) < 2000, message


def images_asked(manifest: Mapping[str, Any]) -> int:
    """How many images the prompts of a manifest ask for, those that are the same counted each."""
    usual = manifest["settings"]["images_per_prompt"]
    swept = prod(len(values) for values in manifest.get("sweep", {}).values())
    total = 0
    for line in manifest.get("prompts", ()):
        asked = {} if isinstance(line, str) else line
        texts = asked.get("sample") or prod(len(values) for values in asked.get("variables", {}).values())
        total += texts * swept * (len(asked.get("seeds", ())) or asked.get("images_per_prompt", usual))
    return total
