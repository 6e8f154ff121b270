"""The finishing of one job, under a lease: its files, then its end in the ledger."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from jobs.failpoints import failpoint
from jobs.ledger.job import JobSpec
from jobs.output.output import Output
from jobs.output.output_root import check_output_within
from worker.finish.add_lines import LinesOf
from worker.finish.finish import finish_output
from worker.finish.job_report import job_report
from worker.lease.disk_space import DiskSpace
from worker.lease.lease import Lease

Result = TypeVar("Result")
log = logging.getLogger(__name__)


class FinishRun:
    """Finishes one job that has nothing left to render."""

    def __init__(self, lease: Lease, spec: JobSpec, *, root: str, space: DiskSpace) -> None:
        self._lease, self._spec, self._root, self._space = lease, spec, root, space

    def run(self) -> str:
        """Writes what describes the output as a whole, ends the job and returns "finished"."""
        claim, ledger = self._lease.claim, self._lease.ledger
        output = Output.at(self._spec.output)
        check_output_within(output, self._root)
        self._patiently(output, self._lease.begin)
        report = job_report(ledger, claim.job_id, output, self._spec)
        # The report is a few kB and frees the spool: it need not wait for the watermark.
        write = partial(
            finish_output,
            output,
            report,
            attempt=claim.attempt,
            check=self._lease.confirm,
            preview=not claim.all_suspect,
            lines=LinesOf(claim.job_id, self._spec.layout, self._spec.shard_size, self._spec.column_names),
        )
        if claim.all_suspect:
            log.warning("workers died while they finished %s: no preview.jpg is made of it", claim.job_id)
        cut = self._patiently(output, write)
        failpoint("before finish")
        ledger.finish(claim, cut)
        failpoint("after finish")
        self._lease.writing.end()
        return "finished"

    def _patiently(self, output: Output, write: Callable[[], Result]) -> Result:
        """Writes once there is any space, and the bucket answers."""
        try:
            return self._space.write(output, write, self._lease.check, watermark=False)
        except OSError as error:
            raise output.cannot_use(error) from None

    def report(self, ended: str) -> dict[str, Any]:
        """What was done, as the task's result shows it."""
        return {"job": self._lease.claim.job_id, "ended": ended}
