"""What a push knows of an output: everything that its records say, read in one pass."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from jobs.errors import OutputError, OutputRefused
from jobs.output.column_kinds import Kind
from jobs.output.contents import Contents
from jobs.output.line_order import last_job
from jobs.output.metadata import Failure
from jobs.output.output import JOBS, Output
from jobs.output.stored_shard import LayoutName
from jobs.output.webdataset import TarShard
from producer.push.form import unsound
from producer.push.parquets import Outline
from producer.reporter import Reporter


@dataclass(slots=True)
class Gathered:
    """An output's contents."""

    found: Contents = field(default_factory=Contents)
    outlines: dict[int, Outline] = field(default_factory=dict)
    """By the numbers of the shards, ascending."""
    failures: list[Failure] = field(default_factory=list)

    @property
    def all_tars(self) -> bool:
        """Whether every picture is in a tar."""
        return set(self.found.endings) == {"webdataset"}


def gather(output: Output, reporter: Reporter) -> Gathered:
    """Read the records of all committed shards; `reporter` counts them.

    Raises OutputError where one cannot be read, and where there is no picture.
    """
    gathered = Gathered()
    alike: dict[str, dict[str, Kind]] = {}
    try:
        for shard, stored in output.in_turn():
            gathered.found.images[shard] = 0
            layout: LayoutName = "webdataset" if isinstance(stored, TarShard) else "files"
            outline = gathered.outlines[shard] = Outline()
            for record in stored.records():
                gathered.found.add_stored(shard, layout, record)
                outline.add(record)
            # Shards have the same columns as a rule, and there may be very many.
            outline.kinds = alike.setdefault(json.dumps(outline.kinds), outline.kinds)
            reporter.count(gathered.found.total)
        gathered.failures = output.failures()
    except OutputRefused:
        raise
    except OutputError as error:
        raise unsound(output, str(error)) from None
    if not gathered.found.total:
        raise OutputError(f"{output.label}: holds no picture to push: name an output with pictures")
    return gathered


def unfinished_job(output: Output) -> str | None:
    """The job that was submitted last, where job.json is not yet its own."""
    store = output.store
    files = [f"{JOBS}/{one.name}" for one in store.list(JOBS) if one.is_file and one.name.endswith(".json")]
    newest = max((Path(file).stem for file in sorted(files, key=store.modified)[-1:]), default=None)
    return None if newest == last_job(output) else newest
