"""Which columns an output's images have: a condition on any other is refused instead of finding nothing.

Asked only for columns of users: the settings' and imagemill's own are known without the output. The shards at
both ends tell most; the manifests that the output keeps tell the columns of every job.
"""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from threading import Lock
from typing import Final

from jobs.columns import column_problem
from jobs.errors import ImagemillError
from jobs.output.column_kinds import Kind, kind_of, merged
from jobs.output.lines import columns_of
from jobs.output.output import JOBS, Output
from jobs.output.store import Unreachable
from jobs.output.webdataset import TarShard
from jobs.request import IMAGE_SETTINGS
from producer.manifest.submitted import SubmittedManifest
from producer.serve.gallery.damage import Damage
from producer.serve.gallery.filter import OF_RECORDS, Filter, WrongFilter, unlike
from producer.serve.gallery.record_lines import RecordLines
from producer.serve.gallery.shard_list import ShardList
from producer.serve.gallery.table_lines import table_kinds

_KEPT: Final = 10.0
"""Seconds for which the ends of an output are taken for as they were: a job may add columns."""
_RECORDS: Final = 100
"""Records of a shard that are looked at, where it has no table."""
_MOST_MANIFEST: Final = 2 << 20
"""Bytes of a manifest that is read for its columns: a larger one has its prompts in it."""
_BUDGET: Final = 0.2
"""Seconds for reading manifests; what is left is read the next time."""
_SETTINGS: Final = tuple(IMAGE_SETTINGS)


class KnownColumns:
    """The columns of one output; threads may share it."""

    def __init__(
        self,
        output: Output,
        shards: ShardList,
        records: RecordLines,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._output, self._shards, self._records, self._clock = output, shards, records, clock
        self._ends: Mapping[str, Kind] = {}
        self._whole = True
        """Whether they could be read whole."""
        self._until = float("-inf")
        self._manifests: dict[str, tuple[str, ...] | None] = {}
        """The columns of each manifest that the output keeps; None for one that does not tell."""
        self._lock = Lock()

    def check(self, taken: Filter) -> str:
        """What may be wrong with a filter's column or value; empty as a rule.

        Raises WrongFilter for a column that no image has, and what the output raises.
        """
        name = taken.column
        if not name or name in IMAGE_SETTINGS or name in OF_RECORDS:
            return ""
        with self._lock:
            if self._clock() >= self._until:
                self._ends, self._until = self._at_the_ends(), self._clock() + _KEPT
            if name in self._ends:
                words = unlike(self._ends[name], taken.value)
                where = "in the first shard and in the last one"
                return f"{name} = {taken.value}: {name} is {words} {where}" if words else ""
            whole = self._read_manifests() and self._whole
            named = {column for columns in self._manifests.values() for column in columns or ()}
        if name in named:
            return ""
        own = [column for column in (*self._ends, *sorted(named)) if _is_users(column)]
        near = difflib.get_close_matches(name, [*own, *IMAGE_SETTINGS, *OF_RECORDS], 1)
        like = f" (the nearest is {near[0]})" if near else ""
        there = ", ".join([*dict.fromkeys(own), *_SETTINGS, *OF_RECORDS])
        if whole:
            raise WrongFilter(f"column = {name}: no image here has it{like}; there are {there}")
        return f"column = {name}: no image at either end of the output has it{like}; there are {there}"

    def _at_the_ends(self) -> dict[str, Kind]:
        """What the columns of the first shard and of the last one hold."""
        listed = self._shards.listed()
        self._whole = True
        kinds: dict[str, Kind] = {}
        for shard in dict.fromkeys((listed[0], listed[-1])) if listed else ():
            for name, kind in self._of_shard(shard):
                kinds[name] = merged(kinds[name], kind) if name in kinds else kind
        return kinds

    def _of_shard(self, shard: int) -> Iterator[tuple[str, Kind]]:
        stored = self._output.stored(shard)
        table = table_kinds(stored) if isinstance(stored, TarShard) else None
        if table is not None:
            yield from table.items()
            return
        nothing, damage = True, Damage(self._output)
        for _, record in islice(self._records.records(stored, shard, 0, damage), _RECORDS):
            nothing = False
            yield from ((name, kind_of(value)) for name, value in columns_of(record).items())
        if nothing:  # all of it failed
            for failure in islice(self._records.failures(stored, damage), _RECORDS):
                yield from ((name, kind_of(value)) for name, value in failure.entry.columns.items())
        self._whole = self._whole and not damage.told

    def _read_manifests(self) -> bool:
        """Reads those that were not read yet; returns whether all tell their columns."""
        ends = self._clock() + _BUDGET
        with self._output.reading():
            names = [one.name for one in self._output.store.list(JOBS) if one.name.endswith(".json")]
        for name in names:
            if name in self._manifests:
                continue
            if self._clock() > ends:
                return False
            try:
                text = self._output.store.read(f"{JOBS}/{name.rpartition('/')[2]}", _MOST_MANIFEST)
                self._manifests[name] = SubmittedManifest.parse(text).manifest.column_names()
            except Unreachable:
                raise
            except (ImagemillError, OSError):
                self._manifests[name] = None
        return None not in self._manifests.values()


def _is_users(column: str) -> bool:
    return column not in OF_RECORDS and column_problem(column) is None
