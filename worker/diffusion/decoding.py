"""What decoding takes, added to the process's seconds: by the clock of the device that decodes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from worker.stage_seconds import SPENT

_running: deque[tuple[Any, Any]] = deque()
"""Begin and end, torch.cuda.Event, of what a GPU has been told to decode; one thread touches the model."""


@contextmanager
def timed_decoding(device: torch.device) -> Iterator[None]:
    """Adds what the block decodes to `SPENT`.

    A GPU is only told to decode here, and waiting for it would leave it idle. So it notes when it began and
    ended, and that is added as soon as a later block finds it done.
    """
    if device.type != "cuda":
        with SPENT.timed("decode"):
            yield
        return
    while _running and _running[0][1].query():
        began, ended = _running.popleft()
        SPENT.add("decode", began.elapsed_time(ended) / 1000)
    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    with torch.cuda.device(device):
        began.record()
        try:
            yield
        finally:
            ended.record()
            _running.append((began, ended))
