"""Prompt files read by a process of their own: one core parses while another hashes."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from jobs.errors import ManifestError

if TYPE_CHECKING:
    from producer.manifest.manifest import Manifest
    from producer.prompt_files.sources import Rows


def rows_ahead(manifest: Manifest) -> Iterator[Rows]:
    """What `producer.prompt_files.sources.source_rows` yields; a pipe's length is read ahead.

    The process ends with the iteration, and with this process. Raises ManifestError as that does, and when
    the process dies.
    """
    # Not forked: who submits may have threads.
    context = multiprocessing.get_context("spawn")
    rows, to_us = context.Pipe(duplex=False)
    process = context.Process(target=_read, args=(manifest, to_us), daemon=True)
    process.start()
    to_us.close()
    try:
        while True:
            try:
                some = rows.recv()
            except (EOFError, OSError):
                process.join()
                raise ManifestError(
                    f"prompts_from: the process that read the files ended with {process.exitcode} before its "
                    "end (was there no memory left?): run the same command again"
                ) from None
            if some is None:
                return
            if isinstance(some, ManifestError):
                raise some
            yield some
    finally:
        rows.close()
        process.terminate()
        process.join()


def _read(manifest: Manifest, to_them: Connection) -> None:
    from producer.prompt_files.sources import source_rows

    # Ctrl-C is for who reads the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        for some in source_rows(manifest):
            to_them.send(some)
        to_them.send(None)
    except ManifestError as error:
        to_them.send(error)
    except BrokenPipeError:
        return
