"""Ctrl-C and SIGTERM raise one error, and only one."""

from __future__ import annotations

import os
import signal

import pytest

from producer.stops import stops_raise

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
