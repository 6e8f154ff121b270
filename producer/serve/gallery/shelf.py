"""The outputs that are looked at, each with what is known of it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Final, TypeVar

from anyio import to_thread
from starlette.exceptions import HTTPException
from starlette.requests import Request

from jobs.errors import OutputError
from jobs.output.store import Unreachable
from producer.serve.gallery.gallery_output import GalleryOutput
from producer.serve.gallery.shard_indices import ShardIndices
from producer.serve.site import Site

_HELD: Final = 32
"""Outputs of which something is remembered."""
T = TypeVar("T")


class Shelf:
    """The outputs that may be seen, as galleries."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._indices = ShardIndices()
        self._held: OrderedDict[str, GalleryOutput] = OrderedDict()
        self._lock = Lock()

    async def read(self, request: Request, work: Callable[[GalleryOutput], T]) -> T:
        """What `work` gives of the output that an address names, in a thread of that output's.

        Raises HTTPException where none may be seen. What the output says against it becomes a page that
        tells it.
        """
        key = request.path_params["key"]
        try:
            return await to_thread.run_sync(
                lambda: work(self._find(key)), limiter=self._site.outputs.threads(key)
            )
        except Unreachable as error:
            raise HTTPException(503, f"the store of this output gives no answer now: {error}") from None
        except OutputError as error:  # it names the output
            raise HTTPException(502, str(error)) from None
        except OSError as error:
            raise HTTPException(502, f"this output cannot be read: {error}") from None

    def _find(self, key: str) -> GalleryOutput:
        with self._lock:
            held = self._held.get(key)
            if held is not None:
                self._held.move_to_end(key)
        # Asked each time: an output may be seen as long as the ledger or the command line names it.
        try:
            output = self._site.outputs.find(key)
        except OutputError as error:
            raise HTTPException(
                404,
                f"a job writes this output, and it is not shown: {error}; or name it to `imagemill serve`",
            ) from None
        if output is None:
            raise HTTPException(
                404,
                "there is no such output: no job in Redis writes it, and `imagemill serve` was not given it",
            )
        if held is not None:
            return held
        found = GalleryOutput(output, self._indices)
        with self._lock:
            self._held[key] = found
            while len(self._held) > _HELD:
                self._held.popitem(last=False)
        return found

    def job_of(self, output: GalleryOutput) -> str | None:
        """The id of the newest job that writes into it, as far as the ledger tells; None without one."""
        label = output.output.label
        return next((job.job_id for job in self._site.watch.now().readable if job.output == label), None)

    def known_job(self, job_id: object) -> str | None:
        """The id of a job that a record names, if the ledger has that job."""
        if not isinstance(job_id, str) or self._site.watch.now().job(job_id) is None:
            return None
        return job_id

    def is_live(self, output: GalleryOutput) -> bool:
        """Whether a job writes into it now, as far as the ledger tells."""
        label = output.output.label
        return any(job.output == label and job.state != "finished" for job in self._site.watch.now().readable)
