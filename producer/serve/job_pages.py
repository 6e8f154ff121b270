"""The pages of all jobs and of one; each gives what changes alone, too, which a browser asks for again."""

from __future__ import annotations

from typing import Any

from anyio import to_thread
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from jobs.ledger.job import JobStatus, UnreadableJob
from producer.serve.failure_list import FailureList
from producer.serve.ledger_watch import Snapshot
from producer.serve.site import Site
from producer.serve.worker_view import worker_views
from producer.why_waiting import why_it_waits

_OFTEN, _SELDOM = 2, 10
"""Seconds from one look to the next while something runs, and while nothing does."""
_MOST = 50
"""Jobs on a page."""


def routes(site: Site) -> list[Route]:
    """The pages of jobs."""
    failures = FailureList(site.watch, site.outputs)

    async def all_jobs(request: Request) -> Response:
        now = await to_thread.run_sync(site.watch.now)
        labels = await to_thread.run_sync(site.outputs.labels)
        shown = {job.output for job in now.readable}
        jobs = sorted(now.jobs, key=lambda job: isinstance(job, JobStatus) and job.state == "finished")
        first = _first(request, len(jobs))
        context = {
            "now": now,
            "every": _every(now),
            "jobs": [_job(job, now) for job in jobs[first : first + _MOST]],
            "first": first,
            "before": max(0, first - _MOST) if first else None,
            "after": first + _MOST if first + _MOST < len(jobs) else None,
            "count": len(jobs),
            "workers": worker_views(now.alive),
            "outputs": [label for label in labels if label not in shown],
        }
        return site.pages.answer(request, _part(request, "jobs"), context)

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
        context = {
            "now": now,
            "every": _every(now),
            "one": _job(found, now),
            "workers": worker_views(workers),
            "failures": await failures.of(found),
        }
        return site.pages.answer(request, _part(request, "job"), context)

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


def _job(job: JobStatus | UnreadableJob, now: Snapshot) -> dict[str, Any]:
    if isinstance(job, UnreadableJob):
        return {"job_id": job.job_id, "unreadable": job.reason, "job": None, "wait": None}
    return {
        "job_id": job.job_id,
        "unreadable": None,
        "job": job,
        "wait": why_it_waits(job, now.alive, full=now.full),
    }
