"""How a job went, from the ledger's figures, for job.json."""

from __future__ import annotations

from datetime import UTC, datetime

from jobs.job import JobSpec
from jobs.ledger import Ledger
from worker.finish import JobReport


def job_report(ledger: Ledger, job_id: str, spec: JobSpec) -> JobReport:
    """The report of a job that has nothing left to render."""
    status = ledger.status(job_id)
    outcome = status.ending if status.ending != "" else "failures" if status.failed else "complete"
    return JobReport(
        job_id=job_id,
        manifest=spec.manifest,
        outcome=outcome,
        reason=status.reason if status.reason != "" else None,
        images=status.total,
        done=status.done,
        failed=status.failed,
        submitted_at=_iso(status.created),
        started_at=_iso(status.started) if status.started else None,
        finished_at=_iso(status.ended),
        workers=sorted(ledger.workers()),
    )


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
