"""Python imports this at the start of a process whose PYTHONPATH has this folder: models have trouble there.

Workers are started as a user starts them, with `tests.trouble.TROUBLED` in their environment.
"""

from __future__ import annotations

from typing import Any

import worker.renderers.load_renderer
from tests.trouble import HANGING_LOAD, Troubled, hang_while_asked

_load = worker.renderers.load_renderer.load_renderer


def _troubled(*given: Any) -> Troubled:
    hang_while_asked(HANGING_LOAD)
    return Troubled(_load(*given))


worker.renderers.load_renderer.load_renderer = _troubled
