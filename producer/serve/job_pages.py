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


def routes(site: Site) -> list[Route]:
    """The pages of jobs."""
    failures = FailureList(site.watch)

    async def all_jobs(request: Request) -> Response:
        now = await to_thread.run_sync(site.watch.now)
        named = await to_thread.run_sync(site.outputs.labels)
        context = {
            "now": now,
            "every": _every(now),
            "jobs": [_job(job, now) for job in now.jobs],
            "workers": worker_views(now.alive),
            "outputs": named,
        }
        return site.pages.answer(request, _part(request, "jobs"), context)

    async def one_job(request: Request) -> Response:
        now = await to_thread.run_sync(site.watch.now)
        found = now.job(request.path_params["job_id"])
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
            "failures": await to_thread.run_sync(failures.of, found),
        }
        return site.pages.answer(request, _part(request, "job"), context)

    return [Route("/", all_jobs), Route("/jobs/{job_id:path}", one_job)]


def _part(request: Request, page: str) -> str:
    return f"{page}_live.html" if request.query_params.get("part") == "live" else f"{page}.html"


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
