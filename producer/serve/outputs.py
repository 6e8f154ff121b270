"""Which outputs may be seen: those of the ledger's jobs, and those that the command line names.

A URL has an output's key, never a path, so nothing else can be asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from jobs.errors import OutputError
from jobs.output.output import Output
from jobs.output.output_root import check_output_within
from producer.serve.ledger_watch import LedgerWatch


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

    def find(self, key: str) -> Output | None:
        """The output of this key; None if there is none that may be seen, or none that can be one here."""
        if key in self._named:
            return self._named[key]
        for label in self.labels():
            if key_of(label) == key:
                try:
                    return self.of_job(label)
                except (OutputError, ValueError):  # what is in the ledger may be anything
                    return None
        return None

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
