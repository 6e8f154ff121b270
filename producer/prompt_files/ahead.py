"""Reads prompt files in a process of its own: one core parses while another hashes."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import TypeVar

from jobs.errors import ManifestError
from jobs.lifeline import watch

_Argument = TypeVar("_Argument")
_Item = TypeVar("_Item")


def read_ahead(items: Callable[[_Argument], Iterator[_Item]], argument: _Argument) -> Iterator[_Item]:
    """What `items(argument)` yields, made by another process, which reads ahead as much as a pipe holds.

    `items` is a function of a module, and no item is None. The process ends with the iteration, and with this
    process. Raises ManifestError as `items` does, and when the process dies.
    """
    # A forked process would inherit the locks of this one's threads.
    context = multiprocessing.get_context("spawn")
    pipe, to_us = context.Pipe(duplex=False)
    process = context.Process(target=_send_all, args=(items, argument, to_us), daemon=True)
    process.start()
    to_us.close()
    try:
        while True:
            try:
                item = pipe.recv()
            except (EOFError, OSError):
                process.join()
                raise ManifestError(
                    f"prompts_from: the process that read the files ended with {process.exitcode} before its "
                    "end (was there no memory left?): run the same command again"
                ) from None
            if item is None:
                return
            if isinstance(item, ManifestError):
                raise item
            yield item
    finally:
        pipe.close()
        process.terminate()
        process.join()


def _send_all(
    items: Callable[[_Argument], Iterator[_Item]], argument: _Argument, to_them: Connection
) -> None:
    # Ctrl-C is for the process that reads the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        # A file that gives nothing (a FIFO, a network drive that is away) would keep this process for minutes
        # after the other was killed: it would only notice when it sends.
        watch(parent.sentinel, lambda: os._exit(1))
    try:
        for item in items(argument):
            to_them.send(item)
        to_them.send(None)
    except ManifestError as error:
        to_them.send(error)
    except BrokenPipeError:
        return
