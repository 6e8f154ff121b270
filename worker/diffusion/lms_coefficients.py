"""LMS' coefficients, integrated once for all images of the same noise levels."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from diffusers import LMSDiscreteScheduler

_MOST = 10_000


class LmsCoefficients:
    """Coefficients that LMS schedulers have computed.

    diffusers integrates each of a step's four numerically on the host: 10 ms an image-step, in which a GPU
    waits. They follow from a few noise levels alone, so that the numbers are the same ones.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[int, int, bytes], float] = {}

    def remembered_by(self, scheduler: Any) -> None:
        """Makes an LMS scheduler look up here what another one computed; does nothing to others."""
        if not isinstance(scheduler, LMSDiscreteScheduler):
            return
        # The scheduler is to hold this function and not the other way round: it would live until gc.
        integrate = type(scheduler).get_lms_coefficient
        calling: Callable[[], Any] = weakref.ref(scheduler)

        def coefficient(order: int, t: int, current_order: int) -> float:
            own = calling()
            levels = own.sigmas[t - order + 1 : t + 2].cpu().numpy().tobytes()
            key = (order, current_order, levels)
            if key not in self._known:
                if len(self._known) >= _MOST:
                    self._known.clear()
                self._known[key] = integrate(own, order, t, current_order)
            return self._known[key]

        scheduler.get_lms_coefficient = coefficient
