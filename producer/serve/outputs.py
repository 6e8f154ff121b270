"""Which outputs may be seen: those of the ledger's jobs, and those that the command line names.

A URL has an output's key, never a path, so nothing else can be asked for.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Final

from anyio import CapacityLimiter

from jobs.errors import OutputError
from jobs.output.output import Output
from jobs.output.output_root import check_output_within
from jobs.wording import printable
from producer.serve.ledger_watch import LedgerWatch, Snapshot

_AT_A_TIME: Final = 2
"""Requests that read one output at a time: each holds what it reads."""
_BOUNDED: Final = 64
"""Outputs whose threads are counted."""


def key_of(label: str) -> str:
    """What URLs call the output of this label: 16 hex digits."""
    return hashlib.sha256(label.encode("utf-8", "surrogateescape")).hexdigest()[:16]


class Outputs:
    """The outputs that may be seen."""

    def __init__(self, named: Sequence[Output], watch: LedgerWatch, root: str | None = None) -> None:
        """`named`: those that are shown whatever the ledger says. `root`: a folder or a place in a bucket,
        which confines the others; None: nothing does."""
        self._named = {key_of(output.label): output for output in named}
        self._watch, self._root = watch, root
        self._keys: tuple[Snapshot | None, Mapping[str, str]] = (None, {})
        self._threads: OrderedDict[str, CapacityLimiter] = OrderedDict()

    def threads(self, key: str) -> CapacityLimiter:
        """The bound of the threads that read the output of this key; for the thread of the event loop alone.

        Each output has its own: one whose store hangs keeps those waiting who look at it, and nobody else.
        """
        if key not in self._threads:
            self._threads[key] = CapacityLimiter(_AT_A_TIME)
        self._threads.move_to_end(key)
        if len(self._threads) > _BOUNDED:
            self._threads.popitem(last=False)
        return self._threads[key]

    def find(self, key: str) -> Output | None:
        """The output of this key; None if there is none.

        Raises OutputError where a job names one that may not be seen, or that can be none here.
        """
        if key in self._named:
            return self._named[key]
        label = self._labels_of_jobs().get(key)
        if label is None:
            return None
        try:
            return self.of_job(label)
        except ValueError as error:  # what is in the ledger may be anything
            raise OutputError(f"output {printable(label)}: {error}") from None

    def of_job(self, label: str) -> Output:
        """The output that a job in the ledger names, where anyone may have written anything.

        Raises OutputError for one outside of the root, OutputError or ValueError for what can be none here.
        """
        output = Output.at(label)
        if self._root is not None and key_of(label) not in self._named:
            check_output_within(output, self._root)
        return output

    def labels(self) -> list[str]:
        """All outputs that may be seen, as the ledger and messages call them: first those that were named."""
        named = [output.label for output in self._named.values()]
        return list(dict.fromkeys([*named, *(job.output for job in self._watch.now().readable)]))

    def _labels_of_jobs(self) -> Mapping[str, str]:
        """Key -> label of the jobs' outputs; a page of pictures asks for it once for each."""
        now = self._watch.now()
        of, keys = self._keys
        if of is not now:
            keys = {key_of(job.output): job.output for job in now.readable}
            self._keys = (now, keys)
        return keys
