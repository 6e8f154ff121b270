"""The servers on which tests of what they do differently run: each kind that this machine has."""

from __future__ import annotations

import shutil
from pathlib import Path

from producer.embedded_redis import bundled_binary

_FOUND = {
    "redis": shutil.which("redis-server"),
    "valkey": shutil.which("valkey-server") or bundled_binary(),
}
SERVERS = [Path(found).absolute() for found in _FOUND.values() if found is not None]
"""Redis and Valkey, where both can be had."""
