"""The outputs in buckets that this process's claims write to, held for its ledger: `jobs.output.writer`.

Each has a thread that renews it, since a store may keep that waiting for longer than a lease lasts. What
gives a name asks for itself whether the output is still this ledger's (`Writing.confirm`).
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from jobs.errors import ImagemillError, OutputError
from jobs.ledger.job import Claim
from jobs.ledger.ledger import Ledger
from jobs.location import names_bucket
from jobs.output.output import Output
from jobs.output.writer import LEASES, OutputWriter, Watch, Writer
from worker.lease.repeated import Repeated

log = logging.getLogger(__name__)


class Writing(Protocol):
    """What a claim asks of who may write its output."""

    def begin(self) -> None:
        """Makes sure that it may be written for this claim; raises OutputError where it may not."""

    def check(self) -> None:
        """Raises OutputError where another ledger was found to have taken it over."""

    def confirm(self) -> None:
        """The same, by what the bucket says now: this process may have been paused since it last asked."""

    def end(self) -> None:
        """Lets it go, for other ledgers too, because its job has ended."""


class InFolder:
    """What a claim asks of an output that is a folder: nothing."""

    def begin(self) -> None:
        """Does nothing, as the others do."""

    check = confirm = end = begin


@dataclass(slots=True)
class _Held:
    """An output of a job that claims of this process write to, or did until lately."""

    writer: OutputWriter
    claims: set[Claim] = field(default_factory=set)
    held_at: float | None = None
    """When it was last seen to be this ledger's."""


class Writers:
    """All of one process."""

    def __init__(self, ledger: Ledger, *, lease: float) -> None:
        """`lease`: seconds of a shard's; an output is renewed as often."""
        self._ledger, self._lease = ledger, lease
        self._held: dict[tuple[str, str], _Held] = {}
        self._watches: dict[str, Watch] = {}
        self._lock = threading.Lock()
        self._repeated = Repeated()

    def of(self, claim: Claim, output: str) -> Writing:
        """What a claim asks; it is renewed from `begin` on until it is dropped."""
        return InBucket(self, claim, output) if names_bucket(output) else InFolder()

    def drop(self, claim: Claim) -> None:
        """Stops renewing for a claim."""
        with self._lock:
            for held in self._held.values():
                held.claims.discard(claim)

    def hold(self, claim: Claim, output: str) -> _Held:
        """Renews for a claim from now on."""
        with self._lock:
            key = (output, claim.incarnation)
            if key not in self._held:
                me = Writer(job=claim.job_id, incarnation=claim.incarnation, lease=LEASES * self._lease)
                held = _Held(OutputWriter(Output.at(output), me, self._ledger.word))
                threading.Thread(
                    target=self._renew_while_held, args=(key, held), name="writer", daemon=True
                ).start()
                self._held[key] = held
            self._held[key].claims.add(claim)
            return self._held[key]

    def watch(self, output: str) -> Watch:
        """What was seen here of another ledger's writer of an output."""
        with self._lock:
            return self._watches.setdefault(output, Watch(gaps=True))

    def is_fresh(self, held: _Held) -> bool:
        """Whether an output was this ledger's within the time of a renewal."""
        return held.held_at is not None and time.monotonic() - held.held_at < self._lease

    def _renew_while_held(self, key: tuple[str, str], held: _Held) -> None:
        output, _ = key
        while True:
            time.sleep(self._lease)
            with self._lock:
                if not held.claims:
                    del self._held[key]
                    return
            self._renew(output, held)

    def _renew(self, output: str, held: _Held) -> None:
        try:
            began = time.monotonic()
            held.writer.renew()
            if not held.writer.trouble:
                held.held_at = began
            self._repeated.over(output)
        except (ImagemillError, OSError) as error:
            if (count := self._repeated.to_say(output, error)) is not None:
                log.warning("%s; trying again%s", error, count)
        except Exception as error:
            # A thread that dies would let another ledger take every output.
            if (count := self._repeated.to_say(output, error)) is not None:
                log.exception("renewing %s failed; trying again%s", output, count)


class InBucket:
    """What a claim asks of an output in a bucket."""

    def __init__(self, writers: Writers, claim: Claim, output: str) -> None:
        self._writers, self._claim, self._output = writers, claim, output
        self._held: _Held | None = None

    def begin(self) -> None:
        """As of Writing. A finishing also takes what another ledger left: it renders nothing."""
        self._held = held = self._writers.hold(self._claim, self._output)
        if self._claim.kind == "finish":
            self._ask(held, self._writers.watch(self._output))
        elif held.writer.trouble or not self._writers.is_fresh(held):
            self._ask(held)

    def check(self) -> None:
        if self._held is not None and self._held.writer.trouble:
            raise OutputError(self._held.writer.trouble)

    def confirm(self) -> None:
        if self._held is not None:
            self._ask(self._held)

    def end(self) -> None:
        if self._held is not None:
            with suppress(ImagemillError, OSError):
                self._held.writer.free()

    def _ask(self, held: _Held, watch: Watch | None = None) -> None:
        began = time.monotonic()
        held.writer.hold(watch)
        held.writer.trouble, held.held_at = "", began
