"""The pages of all jobs and of one; each gives what changes alone, too, which a browser asks for again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from anyio import to_thread
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from jobs.ledger.job import JobStatus, UnreadableJob
from producer.serve.failure_list import FailureList, Failures
from producer.serve.ledger_watch import Snapshot
from producer.serve.site import Site
from producer.serve.worker_view import WorkerView, worker_views
from producer.why_waiting import Wait, why_it_waits

_OFTEN, _SELDOM = 2, 10
"""Seconds from one look to the next while something runs, and while nothing does."""
_MOST = 50
"""Jobs on a page."""


@dataclass(frozen=True, slots=True)
class _Job:
    """A job as its pages show it."""

    job_id: str
    job: JobStatus | None = None
    """None for one that cannot be read."""
    unreadable: str = ""
    """Why it cannot be read."""
    wait: Wait | None = None
    """What it waits for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _LedgerPage:
    """A page of what the ledger says."""

    now: Snapshot
    every: int
    """Seconds to the next look."""
    workers: Sequence[WorkerView]


@dataclass(frozen=True, slots=True, kw_only=True)
class _JobsPage(_LedgerPage):
    """Some of all jobs."""

    jobs: Sequence[_Job]
    first: int
    """Which of all jobs it begins with, from 0."""
    before: int | None
    after: int | None
    """Which the pages before and after begin with; None without one."""
    count: int
    """Of all jobs."""
    outputs: Sequence[str]
    """Outputs that no job writes into."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _JobPage(_LedgerPage):
    """One job."""

    one: _Job
    failures: Failures


def routes(site: Site) -> list[Route]:
    """The pages of jobs."""
    failures = FailureList(site.watch, site.outputs)

    async def all_jobs(request: Request) -> Response:
        now = await to_thread.run_sync(site.watch.now)
        labels = await to_thread.run_sync(site.outputs.labels)
        shown = {job.output for job in now.readable}
        jobs = sorted(now.jobs, key=lambda job: isinstance(job, JobStatus) and job.state == "finished")
        first = _first(request, len(jobs))
        page = _JobsPage(
            now=now,
            every=_every(now),
            workers=worker_views(now.alive),
            jobs=[_job(job, now) for job in jobs[first : first + _MOST]],
            first=first,
            before=max(0, first - _MOST) if first else None,
            after=first + _MOST if first + _MOST < len(jobs) else None,
            count=len(jobs),
            outputs=[label for label in labels if label not in shown],
        )
        return site.pages.answer(request, _part(request, "jobs"), page)

    async def one_job(request: Request) -> Response:
        now = await to_thread.run_sync(site.watch.now)
        found = now.job(request.path_params["job_id"])
        if found is None and now.away is not None:
            raise HTTPException(503, f"Redis cannot be read: {now.away.reason}")
        if found is None:
            raise HTTPException(404, "there is no such job in this Redis")
        workers = {
            name: facts
            for name, facts in now.alive.items()
            if isinstance(found, JobStatus) and name in found.workers
        }
        page = _JobPage(
            now=now,
            every=_every(now),
            workers=worker_views(workers),
            one=_job(found, now),
            failures=await failures.of(found),
        )
        return site.pages.answer(request, _part(request, "job"), page)

    return [Route("/", all_jobs), Route("/jobs/{job_id:path}", one_job)]


def _part(request: Request, page: str) -> str:
    return f"{page}_live.html" if request.query_params.get("part") == "live" else f"{page}.html"


def _first(request: Request, jobs: int) -> int:
    """Which job a page begins with; the first for what is no place among them."""
    asked = request.query_params.get("from", "0")
    return (
        int(asked) if asked.isascii() and asked.isdecimal() and len(asked) < 10 and int(asked) < jobs else 0
    )


def _every(now: Snapshot) -> int:
    return _OFTEN if now.away or any(job.state != "finished" for job in now.readable) else _SELDOM


def _job(job: JobStatus | UnreadableJob, now: Snapshot) -> _Job:
    if isinstance(job, UnreadableJob):
        return _Job(job.job_id, unreadable=job.reason)
    return _Job(job.job_id, job=job, wait=why_it_waits(job, now.alive, full=now.full))
