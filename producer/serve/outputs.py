"""Which outputs may be seen: those of the ledger's jobs, and those that the command line names.

A URL has an output's key, never a path, so nothing else can be asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from jobs.errors import OutputError
from jobs.output.output import Output
from producer.serve.ledger_watch import LedgerWatch


def key_of(label: str) -> str:
    """What URLs call the output of this label: 16 hex digits."""
    return hashlib.sha256(label.encode("utf-8", "surrogateescape")).hexdigest()[:16]


class Outputs:
    """The outputs that may be seen."""

    def __init__(self, named: Sequence[Output], watch: LedgerWatch) -> None:
        """`named`: those that are shown whatever the ledger says."""
        self._named = {key_of(output.label): output for output in named}
        self._watch = watch

    def find(self, key: str) -> Output | None:
        """The output of this key; None if there is none that may be seen, or none that can be one here."""
        if key in self._named:
            return self._named[key]
        for label in self.labels():
            if key_of(label) == key:
                try:
                    return Output.at(label)
                except (OutputError, ValueError):  # what is in the ledger may be anything
                    return None
        return None

    def labels(self) -> list[str]:
        """All outputs that may be seen, as the ledger and messages call them: first those that were named."""
        named = [output.label for output in self._named.values()]
        return list(dict.fromkeys([*named, *(job.output for job in self._watch.now().readable)]))
