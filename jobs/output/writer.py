"""Who writes an output in a bucket: the jobs of one ledger at a time.

    sets/sunsets/.imagemill/writer.json    {"ledger": "5f3a9c1e0b7d2a46", "job": "sunsets-1", …}

Two Redis servers know nothing of each other. What both see is the bucket: the object says whose jobs write
there. It is written only where it is as it was last read (`tagged_object`), so that of two that take an
output one fails. Who works there changes it now and then. Who finds another's looks at it for as long as that
one's lease says, by its own clock alone: an object that changes meanwhile is of jobs that are under way, one
that does not is taken over. A side that lost it so, asleep or cut off, finds that out before the next name
that it gives (`hold`), and its uploads are taken away by the job that begins (`OutputStore.close_stages`).

The object stays, marked free, when a job has ended: a deletion has no condition.
"""

from __future__ import annotations

import json
import secrets
import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from jobs.errors import JobError, OutputError
from jobs.location import BucketPlace
from jobs.output.output import Output
from jobs.output.store import Unreachable
from jobs.strict_json import strict_json
from jobs.wording import shortened

if TYPE_CHECKING:
    from jobs.output.tagged_object import Tag, TaggedObject

WRITER: Final = ".imagemill/writer.json"
LEASES: Final = 3
"""Leases of a shard after whose time without a sign of its writer an output may become another's."""
_LEAST, _MOST = 1.0, LEASES * 3600.0
"""Seconds that the lease of a writer may last, whatever its object says."""
_USUAL: Final = LEASES * 30.0
_SLACK: Final = 1.1
"""By how much longer than that a silent writer is looked at."""
_LOOKS: Final = 20
"""Looks at a writer within its lease, at least."""
_SLOW: Final = 12.0
"""Seconds that a look may take, and a pause is none: else a short lease would never end over a slow link."""


@dataclass(frozen=True, slots=True)
class Writer:
    """Whose jobs write an output, as its object says. No word of it leads to the ledger itself."""

    ledger: str = ""
    """The ledger's random word."""
    job: str = ""
    """The job's id, or its name while it has none: for people."""
    incarnation: str = ""
    """The job's, once it is known."""
    host: str = ""
    """Where the object was written, until the job has ended."""
    lease: float = _USUAL
    """Seconds without a change after which it may be taken over."""
    lock: str = ""
    """The lock of the `imagemill run` whose ledger it is: `jobs.lock.lock_name`."""
    free: bool = False
    """Whether its job has ended."""
    beat: str = field(default_factory=lambda: secrets.token_hex(8))
    """Random, so that no two contents are equal."""

    @classmethod
    def parse(cls, data: bytes) -> Writer:
        """What an object says; of one that cannot be read nothing is known but that it is there."""
        try:
            said = strict_json(data)
        except ValueError:
            said = None
        if not isinstance(said, dict):
            return _NOBODY
        kept = {one.name: said.get(one.name) for one in fields(cls)}
        sound: dict[str, Any] = {
            name: value for name, value in kept.items() if type(value) is type(getattr(_NOBODY, name))
        }
        found = replace(_NOBODY, **sound)
        lease = found.lease if _LEAST <= found.lease <= _MOST else _USUAL
        return replace(found, lease=lease, job=shortened(found.job), host=shortened(found.host))

    def to_json(self) -> bytes:
        """The object."""
        return f"{json.dumps(asdict(self))}\n".encode()

    def is_like(self, other: Writer) -> bool:
        """Whether both are of one ledger, or of one job whose ledger lost its word."""
        same_job = self.incarnation != "" and self.incarnation == other.incarnation
        return self.ledger == other.ledger or same_job

    def __str__(self) -> str:
        job = self.job if self.job else "a job"
        return f"{job} of another Redis{f' (on {self.host})' if self.host else ''}"


_NOBODY = Writer(beat="")


class Seen(NamedTuple):
    """An object as it was read."""

    writer: Writer
    tag: Tag


class Watch:
    """Tells of a writer, from looks at its object, whether it is silent: by a clock of this machine."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, gaps: bool = False) -> None:
        """`clock`: seconds. `gaps`: whether looks may lie far apart."""
        self._clock, self._gaps = clock, gaps
        self._tag: Tag | None = None
        self._since = self._looked = 0.0

    def changed(self, seen: Seen) -> bool:
        """Takes what a look found; whether it is other than at the look before."""
        now, before = self._clock(), self._tag
        # If looks failed for long, its writer may have found no answer either.
        is_gap = not self._gaps and now - self._looked > max(_SLOW, seen.writer.lease / 2)
        if before != seen.tag or is_gap:
            self._since = now
        self._tag, self._looked = seen.tag, now
        return before not in (None, seen.tag)

    def left(self, writer: Writer) -> float:
        """Seconds until it has been silent for long enough."""
        return self._since + _SLACK * writer.lease - self._clock()


class OutputWriter:
    """One side's view of who writes an output in a bucket."""

    def __init__(self, output: Output, me: Writer, ledger: Callable[[], str]) -> None:
        """`ledger` gives the ledger's word each time, which a damage of Redis may change."""
        from jobs.output.tagged_object import TaggedObject  # an extra, and slow to import

        self.label = output.label
        self._object: TaggedObject = TaggedObject(BucketPlace.parse(output.label), WRITER)
        self._me, self._ledger = replace(me, host=socket.gethostname()), ledger
        self._beat = ""
        self._own_beats: deque[str] = deque(maxlen=4)
        self.trouble = ""
        """Who took the output over, as the last `renew` found."""

    # For commands, which wait.

    def take(self, told: Callable[[str], None], *, begun: str = "") -> None:
        """Takes the output, from a ledger whose writer is silent after looking at it for its lease.

        `told` gets a line where that takes its time. `begun`: a job of this ledger that has shards, which it
        chose by what the output lacked. Raises JobError where another ledger's job is under way, or has
        written since that one was begun; OutputError, LedgerError, OSError.
        """
        self._object.check()
        watch, waits = Watch(), False
        while True:
            me, seen = self._now(), self._look()
            if seen is not None and not seen.writer.is_like(me):
                if begun:
                    raise JobError(self._overtaken(seen.writer, begun))
                left = self._may_be_had_in(seen, me, watch, waits)
                if left > 0:
                    if not waits:
                        told(
                            f"output {self.label}: {seen.writer} writes there, or was cut off: "
                            f"waiting for at most {_SLACK * seen.writer.lease:.0f} s to see which"
                        )
                    waits = True
                    time.sleep(min(left, 1.0, seen.writer.lease / _LOOKS))
                    continue
            if self._put(seen, me):
                return

    def _may_be_had_in(self, seen: Seen, me: Writer, watch: Watch, waits: bool) -> float:
        """Seconds, at most. Raises JobError where the writer is at work."""
        writer = seen.writer
        # The kernel lets go of a lock when the last process of that run has ended, its Redis with it.
        if writer.free or (me.lock and writer.lock == me.lock):
            return 0.0
        if watch.changed(seen) and waits:
            raise JobError(
                f"output {self.label}: {writer} is writing there: give both one Redis (IMAGEMILL_REDIS_URL), "
                "or wait until it has ended and run the same command again"
            )
        return watch.left(writer)

    def bind(self, job_id: str, incarnation: str) -> None:
        """Says which job writes. Raises JobError where the output was taken over."""
        self._me = replace(self._me, job=job_id, incarnation=incarnation)
        while True:
            me, seen = self._now(), self._look()
            if seen is not None and not seen.writer.is_like(me):
                raise JobError(
                    f"output {self.label}: {seen.writer} took it over, since nothing was heard of this "
                    "command: run it again once that one has ended"
                )
            if self._put(seen, me):
                return

    # For workers, which do not.

    def hold(self, watch: Watch | None = None) -> None:
        """Makes sure that the output is this side's, at some time within the call; one request where it is.

        `watch`: from a ledger that is silent, or has ended, it may be taken. Raises OutputError where it is
        another's, LedgerError, OSError.
        """
        while True:
            me, seen = self._now(), self._look()
            if seen is None or not seen.writer.is_like(me):
                self._object.check()
                if seen is not None and (watch is None or not self._is_left(seen, watch)):
                    raise OutputError(self._overtaken(seen.writer, me.job))
            elif (
                not seen.writer.free
                and seen.writer.incarnation == me.incarnation
                # Until this side's first renewal another ledger waits for as long as the object says.
                and seen.writer.lease >= me.lease
            ):
                return
            if self._put(seen, me):
                return

    def _is_left(self, seen: Seen, watch: Watch) -> bool:
        watch.changed(seen)
        return seen.writer.free or watch.left(seen.writer) <= 0

    def renew(self) -> None:
        """Changes the object where nobody has since this was last called. Raises LedgerError, OSError."""
        me, seen = self._now(), self._look()
        if seen is None:
            return
        if not seen.writer.is_like(me):
            self.trouble = self._overtaken(seen.writer, me.job)
        elif not seen.writer.free and seen.writer.beat == self._beat:
            self._put(seen, me)
        else:
            self._beat = seen.writer.beat

    # For all.

    def free(self, whose: Callable[[Writer], bool] | None = None) -> None:
        """Marks the output free where the writer is of this side's job, or one of which `whose` is true."""
        while (seen := self._look()) is not None and not seen.writer.free:
            mine = seen.writer.incarnation == self._me.incarnation
            if not (mine if whose is None else whose(seen.writer)):
                return
            # A renewal of this side's may come in between.
            if self._put(seen, replace(seen.writer, free=True, host="", lock="", beat=secrets.token_hex(8))):
                return

    def is_as_left(self, writer: Writer) -> bool:
        """Whether nobody has written since this side did."""
        return writer.beat in self._own_beats

    def _now(self) -> Writer:
        return replace(self._me, ledger=self._ledger(), beat=secrets.token_hex(8))

    def _look(self) -> Seen | None:
        found = self._object.read()
        return None if found is None else Seen(Writer.parse(found[0]), found[1])

    def _put(self, seen: Seen | None, writer: Writer) -> bool:
        """False where the object is no longer as it was seen."""
        if seen is not None and not writer.lock and seen.writer.ledger == writer.ledger and not writer.free:
            writer = replace(writer, lock=seen.writer.lock)
        if seen is not None and writer.incarnation and seen.writer.incarnation == writer.incarnation:
            # Workers may lease for longer than the command does, and each other.
            writer = replace(writer, lease=max(writer.lease, seen.writer.lease))
        self._own_beats.append(writer.beat)  # the answer may be lost, or another thread end meanwhile
        try:
            self._object.put(writer.to_json(), None if seen is None else seen.tag)
        except (FileExistsError, Unreachable) as error:
            # Maybe the answer to this very write was lost.
            now = self._look()
            if now is None or now.writer.beat != writer.beat:
                if isinstance(error, Unreachable):
                    raise
                return False
        self._beat = writer.beat
        return True

    def _overtaken(self, writer: Writer, job: str) -> str:
        return (
            f"output {self.label}: {writer} has had it since {job} was begun, which may ask for what is "
            f"there by now: `imagemill cancel {job}`, and submit again once that one has ended; or give both "
            "one Redis (IMAGEMILL_REDIS_URL)"
        )
