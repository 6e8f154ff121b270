"""Named places at which a test makes a process die, stall or fail; in the product they do nothing.

No setting, file or message arms them. Only code in the same process can, and a test checks that no code of
the product does.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

Failpoint = Literal[
    "chunk stored",  # a part of a submission is in Redis
    "claimed",  # a worker has a shard or a finishing
    "rendered",  # pictures left the slots
    "before write",  # of a file that must be whole (`jobs.output.durable`), as the next two
    "before rename",
    "after rename",
    "before upload",  # of a file that goes to a bucket through a stage
    "after upload",
    "confirmed",  # the lease still holds, and what was uploaded gets its name
    "before commit",  # the one step that commits a shard
    "after commit",
    "before complete",  # the ledger does not know yet that a shard is committed
    "before finish",  # a job's files are written, and the ledger does not know yet
    "after finish",
    "before acknowledge",  # everything is done, and Celery does not know yet
]

Hook = Callable[[Failpoint, Path | None], None]


def _pass(name: Failpoint, path: Path | None) -> None:
    """What an unarmed failpoint does: nothing."""


_hook: list[Hook] = [_pass]


def arm(hook: Hook) -> Hook:
    """Calls `hook` at every failpoint of this process from now on; its exceptions are raised there.

    Returns the hook before it.
    """
    before = _hook[0]
    _hook[0] = hook
    return before


def failpoint(name: Failpoint, path: Path | None = None) -> None:
    """Marks a place where a crash or an error must do no harm. `path`: the file or shard in question."""
    _hook[0](name, path)
