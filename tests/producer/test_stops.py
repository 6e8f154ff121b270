"""Ctrl-C and SIGTERM raise one error, and only one."""

from __future__ import annotations

import os
import signal

import pytest

from jobs.errors import Interrupted
from producer.stops import interruptible, stops_raise

STOPS = (signal.SIGINT, signal.SIGTERM)


@pytest.mark.parametrize("number", STOPS)
def test_a_stop_raises_once_and_what_was_before_comes_back(number: signal.Signals) -> None:
    before = [signal.getsignal(each) for each in STOPS]
    cleaned_up = []
    with pytest.raises(KeyboardInterrupt, match=number.name), stops_raise(KeyboardInterrupt):
        try:
            os.kill(os.getpid(), number)
        finally:
            for each in STOPS:
                os.kill(os.getpid(), each)
            cleaned_up.append(True)
    assert cleaned_up == [True]
    assert [signal.getsignal(each) for each in STOPS] == before


def test_ctrl_c_in_a_block_or_a_function_says_what_was_left() -> None:
    @interruptible("stopped; nothing was changed")
    def stopped(at: int) -> int:
        if at == 3:
            raise KeyboardInterrupt
        return at

    assert [stopped(1), stopped(2)] == [1, 2]
    for _ in range(2):
        with pytest.raises(Interrupted, match="stopped; nothing was changed"):
            stopped(3)
    with pytest.raises(Interrupted, match="cats-1 is as it was"), interruptible("cats-1 is as it was"):
        raise KeyboardInterrupt
    with pytest.raises(ValueError, match="another"), interruptible("cats-1 is as it was"):
        raise ValueError("another")
