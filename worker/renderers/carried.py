"""Images of a bucket that its model is made to carry adapters for."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.adapters import Adapters
from jobs.errors import ImagemillError
from worker.diffusion.adapters import AdapterSwitch
from worker.engine.renderer import AskedT, Painted


def carried(
    switch: AdapterSwitch, adapters: Adapters, asked: Sequence[AskedT]
) -> tuple[list[AskedT], list[Painted[AskedT]]]:
    """The images that are painted with these adapters, which the model now carries; the errors of the rest.

    Images of two jobs may know two places of the same file, and it may be missing in one of them.
    """
    ready: list[AskedT] = []
    failed: list[Painted[AskedT]] = []
    for one in asked:
        try:
            switch.switch(adapters, one.inputs)
        except ImagemillError as error:
            failed.append((one, error))
        else:
            ready.append(one)
    return ready, failed
