"""How tests push: to one repository, without waits between tries."""

from __future__ import annotations

from producer.push.patience import Patience
from producer.push.push import Options

REPOSITORY = "org/foxes"


def options(**given: object) -> Options:
    """How to push; what fails is tried again three times, at once."""
    return Options(patience=Patience((0, 0, 0)), **given)  # type: ignore[arg-type]
