"""The exit statuses of `imagemill-worker`, for what started it: docs/deploy.md explains each."""

from __future__ import annotations

import os

ORDERLY = 0
"""Stopped when told to, or nothing was left: every worker process has given back what it held."""
KILLED = 1
"""A worker process had to be killed: what it held goes back when its lease ends."""
REFUSED = 2
"""Settings, a model or Redis are wrong: a restart does not help. Worker processes leave with it, too."""
ALL_REFUSED = 3
"""Nothing is left but unfinished jobs that every worker process here has refused."""
NO_REDIS = os.EX_TEMPFAIL
"""Redis gave no answer for too long: start the worker again later."""


def of_signal(number: int) -> int:
    """Stopped in good order by a signal although something may be left: 143 for SIGTERM, as shells say."""
    return 128 + number
