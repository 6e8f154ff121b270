"""Named places at which a test lets a process die, stall or meet an error; in the product they do nothing.

No setting, file or message arms them: only code that runs in the same process can, and none of the product's
does (a test holds that).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

Failpoint = Literal[
    "chunk stored",  # part of a submission
    "claimed",  # the ledger gave a shard or a finishing
    "rendered",  # pictures left the slots
    "before write",  # of any file that must be whole (`jobs.output.durable`); so are the next two
    "before rename",
    "after rename",
    "before commit",  # of a shard: its one step
    "after commit",
    "before complete",  # a committed shard, in the ledger
    "before finish",  # a job's files are written, the ledger does not know
    "after finish",
    "before acknowledge",  # all is done but for Celery
]

Hook = Callable[[Failpoint, Path | None], None]


def _pass(name: Failpoint, path: Path | None) -> None:
    """What an unarmed failpoint does."""


_hook: list[Hook] = [_pass]


def arm(hook: Hook) -> None:
    """Calls `hook` at every failpoint of this process from now on; what it raises is raised there."""
    _hook[:] = [hook]


def failpoint(name: Failpoint, path: Path | None = None) -> None:
    """Marks a place where a crash or an error must do no harm. `path`: the file or shard it is about."""
    _hook[0](name, path)
