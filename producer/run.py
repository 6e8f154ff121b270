"""`imagemill run`: a Redis, a worker, a submission and its progress, in one command that cleans up."""

from __future__ import annotations

from contextlib import ExitStack

import click

from jobs.connection import publish, redis_url
from jobs.errors import Interrupted, LedgerError
from jobs.ledger.job import JobStatus
from jobs.lock import lock_name
from jobs.output.output_lock import locked
from jobs.settings import Settings
from producer.embedded_redis import EmbeddedRedis
from producer.follow import follow_job
from producer.job_queue import JobQueue
from producer.own_worker import own_worker
from producer.progress import counting, show_progress
from producer.reporter import StandardError
from producer.requests.prepared import Prepared
from producer.serve.beside_run import pages_of
from producer.stops import stops_raise
from producer.submit.report import print_submitted
from producer.submit.submit import submit_manifest
from producer.submit.writing import freed_at_the_end


def run_job(prepared: Prepared, settings: Settings, *, gpus: str, keep: bool, serve: bool) -> JobStatus:
    """Submits and renders a manifest on this machine; returns how its job ended.

    Uses IMAGEMILL_REDIS_URL when it is set, else a Redis of its own that ends with this call (`keep` leaves
    its data). `gpus`: as of `imagemill-worker --gpus`. `serve`: whether a browser may look on, where the
    extra is installed. Raises Interrupted after a clean stop; a second run then renders the rest.
    """
    output = prepared.output
    with ExitStack() as stack:
        stack.enter_context(stops_raise(_interrupted))
        server = lock = None
        ended_with_it = ""
        if settings.redis_url is None:
            server = stack.enter_context(EmbeddedRedis(keep=keep))
            url = server.url
            output.prepare()
            # Another run has a Redis of its own: the output folder is all that both share.
            lock = stack.enter_context(locked(output))
            ended_with_it = lock_name(lock)
            stack.enter_context(publish(settings, url, output.label))
            if keep:
                click.echo(f"Redis' data: {server.folder}")
        else:
            url = redis_url(settings)
        queue = JobQueue.at(url, settings, lock=ended_with_it)
        if server is not None:
            stack.enter_context(freed_at_the_end(output, queue))
        with counting("images submitted") as reporter:
            submitted = submit_manifest(prepared, queue, reporter)
        print_submitted(submitted)
        worker = stack.enter_context(own_worker(url, settings, output.label, gpus, lock))
        if serve:
            # The worker has begun to start: what the pages import keeps nothing waiting.
            stack.enter_context(pages_of(url, output, submitted.job_id, StandardError()))

        def check() -> None:
            if server is not None and not server.alive:
                raise LedgerError(
                    "the Redis of this run ended; what was rendered is kept: run the same command to continue"
                )
            worker.check()

        statuses = follow_job(queue.ledger, submitted.job_id, StandardError(), check=check, own_worker=True)
        return show_progress(statuses)


def _interrupted(signal_name: str) -> Interrupted:
    return Interrupted(
        f"stopped by {signal_name}; what was rendered is kept: run the same command to continue"
    )
