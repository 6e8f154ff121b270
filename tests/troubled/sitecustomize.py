"""Python imports this at the start of a process whose PYTHONPATH has this folder: models have trouble there.

Workers are started as a user starts them, with `tests.trouble.TROUBLED` in their environment.
"""

from __future__ import annotations

import worker.renderers.load_renderer
from tests.trouble import Troubled

_load = worker.renderers.load_renderer.load_renderer
worker.renderers.load_renderer.load_renderer = lambda *given: Troubled(_load(*given))
