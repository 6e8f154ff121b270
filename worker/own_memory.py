"""How much of the machine's memory this process holds, where the system tells it cheaply."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_STATM: Final = Path("/proc/self/statm")


def memory_facts() -> Mapping[str, int]:
    """memory_used in bytes, for the heartbeat; nothing where there is no /proc, as on macOS."""
    try:
        pages = int(_STATM.read_text("ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return {}
    return {"memory_used": pages * os.sysconf("SC_PAGE_SIZE")}
