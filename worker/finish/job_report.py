"""How a job went, from the ledger's figures, for job.json."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from jobs.errors import OutputError
from jobs.ledger.job import JobSpec
from jobs.ledger.ledger_view import LedgerView
from jobs.output.job_files import JobFiles
from jobs.output.output import Output
from worker.finish.finish import JobReport


def job_report(ledger: LedgerView, job_id: str, output: Output, spec: JobSpec) -> JobReport:
    """The report of a job that has nothing left to render."""
    status = ledger.status(job_id)
    return JobReport(
        job_id=job_id,
        manifest=_manifest(output, job_id, spec),
        outcome=status.outcome,
        reason=status.reason if status.reason != "" else None,
        images=status.total,
        done=status.done,
        failed=status.failed,
        flagged=status.flagged,
        submitted_at=_iso(status.created),
        started_at=_iso(status.started) if status.started else None,
        finished_at=_iso(status.ended),
        workers=ledger.workers_of(job_id),
        broken=status.broken,
    )


def _manifest(output: Output, job_id: str, spec: JobSpec) -> Mapping[str, Any]:
    """The manifest as the submitter left it in the output; without its prompts when that file is gone."""
    try:
        return dict(output.read_json(JobFiles(output, job_id).manifest))
    except (OSError, ValueError, OutputError):
        return spec.manifest


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
