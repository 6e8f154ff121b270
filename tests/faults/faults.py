"""The faults, each a function that lets something break while a job is under way; `FAULTS` is the table.

`FAULTS_OF_BUCKET` is that of jobs which write into a bucket: those that have a meaning there, and its own.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from jobs.errors import JobError
from jobs.ledger.ledger import Ledger
from producer.job_queue import JobQueue
from producer.submit.retry import retry_job
from tests.faults.arming import Order
from tests.faults.connections import cut, forgotten
from tests.faults.damage import clock_steps, job_lost, key_damaged
from tests.faults.fault import Fault
from tests.faults.field import LEASE, Field
from tests.faults.finishing import frozen_while_finishing, killed_while_finishing
from tests.faults.forged_jobs import bomb, other_wire, size_beyond_all_bounds
from tests.faults.hung import hung
from tests.faults.messages import (
    HOSTILE,
    doubled,
    dropped,
    garbage,
    hostile,
    old_protocol,
    one_dropped,
    other_arguments,
    unknown_task,
)
from tests.faults.mirror import committed
from tests.faults.oracle import Verdict
from tests.faults.store_faults import STORE_FAULTS
from tests.waiting import LONGEST

HOURS = 8 * 3600
"""More than Celery's visibility timeout."""


# Workers.


def killed_at(field: Field, at: str, matching: str = "*", most: int = 2) -> None:
    """A process kills itself where it stands."""
    field.gone(field.order(Order(at, "kill", matching=matching, nth=field.random.randint(1, most))).pid)


def killed(field: Field) -> None:
    """A process is killed wherever it is."""
    time.sleep(field.random.random() / 2)
    pid = field.some_pid()
    field.hit()
    field.kill(pid)


def all_killed(field: Field) -> None:
    pids = [pid for name in field.names if (pid := field.pid(name)) is not None]
    field.hit()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    for pid in pids:
        field.gone(pid)


def frozen(field: Field) -> None:
    """A process stands still until others have what it held, and comes back as if nothing had been."""
    name = field.any_name()
    field.wait(lambda: field.attempts(name), f"{name} holds something")
    field.hit()
    with field.frozen(field.pid_of(name)):
        field.taken_from(name)


def frozen_at(field: Field, at: str) -> None:
    """The same, at the very place where it does the most harm."""
    met = field.order(Order(at, "freeze", nth=field.random.randint(1, 2)))
    name = next(name for name in field.names if field.pid(name) == met.pid)
    with field.frozen(met.pid):
        field.taken_from(name)


def frozen_idle(field: Field) -> None:
    """A process freezes with nothing to do: what it takes off the queue in its sleep is lost on others."""
    assert field.leg is not None
    job_id, name = field.leg.job_id, field.any_name()
    field.hit()
    field.ledger.control(job_id, "pause")
    field.wait(lambda: not field.attempts(name), f"{name} has nothing to do")
    with field.frozen(field.pid_of(name)):
        field.ledger.control(job_id, "resume")
        field.goes_on()


def told_to_leave(field: Field, clock: int = 0) -> None:
    """SIGTERM; then the worker is started again, its clock perhaps another."""
    name = field.any_name()
    field.hit()
    assert field.end_worker(name) == 0, field.log(name)[-2000:]
    field.start_worker(name, "--clock", str(clock))


def raised(field: Field, error: str) -> None:
    """The device raises."""
    field.order(Order("rendered", "raise", error=error, nth=field.random.randint(1, 2)))


def broken_device(field: Field) -> None:
    field.gone(field.order(Order("rendered", "raise", error="BrokenDevice")).pid)


def stalled_keeper(field: Field) -> None:
    """Nobody renews a worker's leases for longer than they last; it works on."""
    pause = LEASE + 1
    met = field.order(Order("renewing", "sleep", pause=pause))
    field.wait(lambda: time.monotonic() > met.at + pause, "the heartbeat is back")


def no_reaper(field: Field) -> None:
    """All keepers stall, nothing is claimed, and a worker dies: its lease runs out and lies there."""
    assert field.leg is not None
    for name in field.names:
        field.order(Order("renewing", "sleep", name=name, pause=LEASE + 3))
    job_id, name = field.leg.job_id, field.any_name()
    held: dict[tuple[str, str], str] = {}
    while not held:
        field.ledger.control(job_id, "resume")
        field.wait(lambda: field.attempts(name), f"{name} holds something")
        field.ledger.control(job_id, "pause")
        held = field.attempts(name)
    field.hit()
    # A worker that is started in its place would reap.
    with field.frozen(field.workers[name].pid):
        os.kill(field.pid_of(name), signal.SIGKILL)
        began = time.monotonic()
        field.wait(lambda: time.monotonic() > began + LEASE, "a lease has passed")
        lying = field.attempts(name).items() & held.items()
    field.ledger.control(job_id, "resume")
    assert lying, "somebody reaped"


def many_reapers(field: Field) -> None:
    """A worker dies, and four others at once put back what it held."""
    until = time.monotonic() + LEASE + 0.5

    def reap() -> None:
        ledger = Ledger(field.server.url)
        while time.monotonic() < until:
            ledger.reap()

    reapers = [threading.Thread(target=reap) for _ in range(4)]
    killed(field)
    for reaper in reapers:
        reaper.start()
    for reaper in reapers:
        reaper.join()


def wrong_clock(field: Field) -> None:
    told_to_leave(field, clock=field.random.choice([-HOURS, HOURS]))


# Redis.


def redis_ended(field: Field, signal_number: int) -> None:
    field.hit()
    field.redis.kill(signal_number)
    field.redis.start()


def redis_cut_short(field: Field) -> None:
    """Killed, and the last commands that it took are not in its file."""
    field.hit()
    field.redis.kill(between=lambda: field.redis.cut_tail(field.random.randint(1, 4000)))
    field.redis.start()


def redis_frozen(field: Field) -> None:
    field.hit()
    with field.frozen(field.redis.pid):
        time.sleep(LEASE + 0.5)


def redis_drops_clients(field: Field) -> None:
    field.hit()
    for kind in ("normal", "pubsub"):
        field.client.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")


def redis_full(field: Field) -> None:
    field.hit()
    refused = _refused_for_memory(field)
    field.client.config_set("maxmemory", "1mb")
    try:
        time.sleep(1.5)
        field.wait(lambda: _refused_for_memory(field) > refused, "something is refused")
    finally:
        field.client.config_set("maxmemory", "0")


def _refused_for_memory(field: Field) -> int:
    """Commands that Redis answered with OOM."""
    found = field.client.info("errorstats").get("errorstat_OOM", {"count": 0})
    return int(found["count"])


def redis_wiped(field: Field) -> None:
    """Everything is gone; the manifest is submitted again."""
    assert field.leg is not None
    before = committed(field.leg.output)
    field.hit()
    field.client.flushall()
    field.submit_again(field.leg)
    after = committed(field.leg.output)
    assert {file: after.get(file) for file in before} == before, "a committed shard was overwritten"


# Disks.


def disk(field: Field, error: int) -> None:
    """A worker's every write fails for a while."""
    field.lasting(Order("before write", "raise", name=field.any_name(), error=error, lasting=1.2))


def disk_slow(field: Field) -> None:
    field.lasting(Order("before write", "sleep", name=field.any_name(), pause=0.1, lasting=1.5))


def spooled_image_spoilt(field: Field, spoil: Callable[[Path], None]) -> None:
    """A worker dies, and an image that it had finished is no more what it was, before anybody adopts it."""
    met = field.order(Order("after rename", "kill", matching="*/spool/*/metadata/*.json", nth=3))
    image = met.path.parents[1] / "images" / json.loads(met.path.read_text())["file_name"]
    spoil(image)
    field.gone(met.pid)


def truncate(image: Path) -> None:
    """In a new file of that name: the old one may be linked to elsewhere."""
    data = image.read_bytes()
    image.unlink()
    image.write_bytes(data[: len(data) // 2])


# Submitting and steering.


def submit_killed(field: Field) -> Verdict:
    """A submission dies between two chunks, and is resumed."""
    with field.side(80, shard_size=1) as leg:
        producer = field.armed_submit(leg.name)
        field.order(Order("chunk stored", "kill", name="producer"))
        assert producer.wait(LONGEST) == -signal.SIGKILL
        field.submit_again(leg)
        return field.finish(leg)


def submitted_twice(field: Field) -> Verdict:
    """Two submissions of one manifest at once."""
    with field.side(80, shard_size=1) as leg:
        # So slow that the job is not over before the third looks at it.
        field.pace(0.5)
        both = [field.armed_submit(leg.name) for _ in range(2)]
        field.hit()
        assert [producer.wait(LONGEST) for producer in both] == [0, 0], field.log("producer")[-2000:]
        field.submit_again(leg)
        field.pace(0)
        return field.finish(leg)


def paused_and_resumed(field: Field) -> None:
    assert field.leg is not None
    field.hit()
    for _ in range(3):
        field.ledger.control(field.leg.job_id, "pause")
        time.sleep(field.random.random() / 3)
        field.ledger.control(field.leg.job_id, "resume")


def cancelled_and_retried(field: Field) -> Verdict:
    """A job is cancelled in mid-work; then two people send it back at once."""
    with field.side(48, shard_size=8) as leg:
        # So slow that all of it is not done before the cancelling.
        field.pace(0.1)
        field.submit_again(leg)
        field.wait(lambda: field.ledger.status(leg.job_id).done > 4, f"{leg.job_id} is under way")
        field.hit()
        field.ledger.control(leg.job_id, "cancel")
        field.wait(lambda: field.ledger.status(leg.job_id).state == "finished", "it ended")
        found: list[int] = []

        def send_back() -> None:
            try:
                found.append(retry_job(leg.job_id, JobQueue.at(field.server.url)))
            except JobError:
                found.append(0)

        assert field.ledger.status(leg.job_id).left > 0, "all was done already"
        people = [threading.Thread(target=send_back) for _ in range(2)]
        for one in people:
            one.start()
        for one in people:
            one.join()
        assert sorted(map(bool, found)) == [False, True], found
        return field.finish(leg)


_AT = ("claimed", "rendered", "before commit", "after commit", "before complete", "before acknowledge")
_FILES = {
    "an image": "*/images/*.png",
    "its metadata": "*/spool/*/metadata/*.json",
    "a shard's table": "*/metadata.jsonl|*.tar",
}
FAULTS: tuple[Fault, ...] = (
    *(Fault(f"killed: {at}", partial(killed_at, at=at)) for at in _AT),
    *(
        Fault(f"killed: {at} of {what}", partial(killed_at, at=at, matching=matching))
        for at in ("before write", "before rename", "after rename")
        for what, matching in _FILES.items()
    ),
    Fault("killed: before finish", partial(killed_while_finishing, at="before finish"), images=8),
    Fault(
        "killed: before rename of the report", partial(killed_while_finishing, at="before rename"), images=8
    ),
    Fault("killed: after rename of the report", partial(killed_while_finishing, at="after rename"), images=8),
    Fault("killed: after finish", partial(killed_while_finishing, at="after finish"), images=8),
    Fault("killed", killed),
    Fault("all killed", all_killed),
    Fault("frozen", frozen),
    *(
        Fault(f"frozen: {at}", partial(frozen_at, at=at))
        for at in ("claimed", "before commit", "before complete")
    ),
    Fault("frozen: before rename", partial(frozen_at, at="before rename")),
    Fault("frozen: before finish", partial(frozen_while_finishing, at="before finish"), images=16),
    Fault(
        "frozen: before rename of the report", partial(frozen_while_finishing, at="before rename"), images=16
    ),
    Fault("frozen idle", frozen_idle),
    Fault("told to leave", told_to_leave),
    Fault("out of memory", partial(raised, error="OutOfMemory"), refuses=True),
    Fault("device broken", broken_device),
    Fault("exception while rendering", partial(raised, error="RuntimeError")),
    Fault("heartbeat stalled", stalled_keeper),
    Fault("no reaper", no_reaper),
    Fault("many reapers", many_reapers),
    Fault("clock wrong", wrong_clock),
    *(
        Fault(f"hung {what}: {how}", partial(hung, at=at, for_good=for_good))
        for what, at in (("load", "loading"), ("forward", "rendering"))
        for how, for_good in (("goes on", False), ("ends its process", True))
    ),
    Fault("Redis restarted", partial(redis_ended, signal_number=signal.SIGTERM)),
    Fault("Redis killed", partial(redis_ended, signal_number=signal.SIGKILL)),
    Fault("Redis cut short", redis_cut_short),
    Fault("Redis frozen", redis_frozen),
    Fault("Redis drops clients", redis_drops_clients),
    Fault("half-open: idle", partial(forgotten, idle=True)),
    Fault("half-open: rendering", partial(forgotten, idle=False)),
    Fault("connections cut", cut),
    Fault("Redis full", redis_full),
    Fault("Redis wiped", redis_wiped),
    *(
        Fault(f"keys {how}", partial(key_damaged, how=how))
        for how in ("evicted", "of another kind", "rubbish")
    ),
    Fault("job evicted", partial(job_lost, part=None), images=24),
    *(Fault(f"{part} evicted", partial(job_lost, part=part), images=24) for part in ("spec", "shards")),
    Fault("Redis' clock steps back", partial(clock_steps, seconds=-HOURS)),
    Fault("Redis' clock steps forward", partial(clock_steps, seconds=HOURS)),
    Fault("disk full", partial(disk, error=errno.ENOSPC)),
    Fault("disk read-only", partial(disk, error=errno.EROFS), refuses=True),
    Fault("disk slow", disk_slow),
    Fault("spooled image truncated", partial(spooled_image_spoilt, spoil=truncate)),
    Fault("spooled image gone", partial(spooled_image_spoilt, spoil=Path.unlink)),
    Fault("wake-ups doubled", doubled),
    Fault("wake-ups dropped", dropped),
    Fault("one wake-up dropped", one_dropped),
    Fault("message of an unknown task", unknown_task),
    Fault("message with other arguments", other_arguments),
    Fault("message of an old protocol", old_protocol),
    Fault("message that is no JSON", garbage),
    *(Fault(f"forged: {what}", partial(hostile, what=what)) for what in HOSTILE),
    Fault("forged: job of another version", other_wire),
    Fault("forged: job that asks for terabytes", size_beyond_all_bounds),
    Fault("forged: shard that unpacks to 101 MiB", bomb),
    Fault("submission killed", submit_killed, images=80),
    Fault("submitted twice at once", submitted_twice, images=80),
    Fault("paused and resumed", paused_and_resumed),
    Fault("cancelled, and retried twice at once", cancelled_and_retried, images=48),
)

USUAL = {
    # Killed while it renders, while it writes, between the shard on disk and in the ledger, as it finishes.
    "killed: rendered", "killed: before rename of an image", "killed: after commit", "killed: before finish",
    "all killed", "frozen: before commit", "frozen: before finish", "told to leave", "device broken",
    "no reaper", "many reapers", "clock wrong",
    "Redis killed", "Redis cut short", "Redis full", "Redis wiped", "keys evicted", "Redis' clock steps back",
    "connections cut", "disk full", "disk slow", "spooled image truncated",
    "wake-ups dropped", "message that is no JSON", "forged: callbacks", "forged: job of another version",
    "submission killed", "cancelled, and retried twice at once",
}  # fmt: skip
"""Names: one of each family, for every run of the tests. A soak has them all."""
_BY_RENAMES = {
    f"{what}: {when} rename of the report"
    for what, when in (("killed", "before"), ("killed", "after"), ("frozen", "before"))
}
"""In a bucket a report is uploaded: `STORE_FAULTS` has what may happen to it."""
FAULTS_OF_BUCKET = (*(fault for fault in FAULTS if fault.name not in _BY_RENAMES), *STORE_FAULTS)
