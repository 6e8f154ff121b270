"""How tests push: to one repository, without waits between tries."""

from __future__ import annotations

from producer.push.push import Options
from producer.push.retries import Retries

REPOSITORY = "org/foxes"


def options(**given: object) -> Options:
    """How to push; what fails is tried again three times, at once."""
    return Options(retries=Retries((0, 0, 0)), **given)  # type: ignore[arg-type]
