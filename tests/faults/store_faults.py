"""Faults of a bucket and of the way to it; `STORE_FAULTS` is the table.

An order to the way (`tests.object_store.fault`) is counted, so that each of them is known to have hit.
"""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

from tests.faults.arming import Meeting, Order
from tests.faults.fault import Fault
from tests.faults.field import LEASE, Field
from tests.faults.finishing import frozen_while_finishing, killed_while_finishing
from tests.faults.mirror import clear, committed
from tests.faults.oracle import Verdict
from tests.object_store.fault import OBJECTS, WRITES, Action, Kind
from tests.object_store.fault import Fault as OfWay
from tests.waiting import LONGEST

FOR_A_TIME = 1.5
"""Seconds from the first request that is hit."""
TOO_LONG = 14.0
"""More seconds than a worker gives a request (`jobs.output.bucket_client.REQUEST_SECONDS`)."""
LARGE, TEXTS = 4, 1 << 20
"""Images of a job whose shard is uploaded in parts, and the characters of each prompt."""
_STAGED, _SHARD = "/uploads/.*[.]tar$", r"^\w+/[0-9]+[.]tar$"
_REPORT, _TABLE = r"^\w+/job[.]json$", "[.]parquet$"
"""Keys: of what lies in a stage, of a shard in its place, of a job's report, of a shard's table."""


# The way, while shards are rendered.


def disturbed(field: Field, faults: Sequence[OfWay]) -> None:
    """The way does something: so many times, or for a time from the first request on."""
    numbers = [field.store.order(fault) for fault in faults]
    _hit(field, numbers, faults[0].count)
    field.store.withdraw()


def taken_and_left(field: Field, fault: OfWay) -> None:
    """A request is held up for long; the others go on meanwhile, and so does the next fault."""
    number = field.store.order(fault)
    field.wait(lambda: field.store.taken(number) > 0, f"{fault.action} takes a request")
    field.hit()
    field.store.withdraw()


def _hit(field: Field, numbers: list[int], count: int | None) -> None:
    least = 1 if count is None else count
    field.wait(lambda: field.store.taken(numbers[0]) >= least, "requests are hit")
    field.hit()
    if count is None:
        time.sleep(FOR_A_TIME)
    field.wait(lambda: all(field.store.taken(number) for number in numbers), "the way obeys all orders")


def refused(field: Field) -> None:
    """Nobody can connect, for longer than a lease."""
    field.hit()
    field.store.refuse(LEASE + 0.5)
    time.sleep(LEASE + 0.5)


# The way, at a job's end and beginning.


def disturbed_while_finishing(field: Field, fault: OfWay) -> Verdict:
    """The same, as the files that describe a job are read together and written."""
    with field.side(8, shard_size=8) as leg:
        number = field.store.order(fault)
        field.submit_again(leg)
        _hit(field, [number], fault.count)
        field.store.withdraw()
        return field.finish(leg)


def disturbed_while_submitting(field: Field, fault: OfWay, exact: bool) -> Verdict:
    """A submission that is disturbed waits, or says what is wrong and is made again."""
    with field.side(8, shard_size=8) as leg:
        number = field.store.order(fault)
        producer = field.armed_submit(leg.name)
        _hit(field, [number], fault.count)
        if exact:
            field.store.withdraw()
        status = producer.wait(LONGEST)
        field.store.withdraw()
        assert (status == 0) == exact, field.log("producer")[-2000:]
        field.submit_again(leg)
        return field.finish(leg)


# Uploads in parts.


def large(field: Field, fault: OfWay, then: Callable[[Field], None] = lambda field: None) -> Verdict:
    """The way does something to the parts of a large shard."""
    drawn = random.Random(field.hits)
    texts = field.folder / f"large{field.hits}.txt"
    texts.write_text("".join(f"{drawn.randbytes(TEXTS // 2).hex()}\n" for _ in range(LARGE)))
    with field.side(None, shard_size=LARGE, prompts_from=str(texts)) as leg:
        leg.images = LARGE
        number = field.store.order(fault)
        field.submit_again(leg)
        _hit(field, [number], fault.count)
        then(field)
        field.store.withdraw()
        return field.finish(leg)


def kill_who_uploads(field: Field) -> None:
    holders = [name for name in field.names if field.attempts(name)]
    for name in holders:
        field.kill(field.pid_of(name))


# Workers, where they give a shard its name.


def frozen_beside_another(field: Field, at: str) -> None:
    """A process stands still until another has committed its shard, and comes back."""
    assert field.leg is not None
    met, name = _frozen(field, at)
    output = field.leg.output
    with field.frozen(met.pid):
        field.taken_from(name)
        field.wait(lambda: met.path.name in committed(output), "another attempt commits the shard")


def frozen_over_a_wipe(field: Field, at: str) -> None:
    """A process stands still, Redis loses everything, and the job is submitted again and goes on.

    What comes back then must add nothing to what the new job writes.
    """
    assert field.leg is not None
    met, name = _frozen(field, at)
    said = field.log(name).count("leaving it")
    with field.frozen(met.pid):
        before = committed(field.leg.output)
        field.client.flushall()
        field.submit_again(field.leg)
        field.goes_on()
    field.wait(lambda: field.log(name).count("leaving it") > said, "who slept has seen that it lost")
    after = committed(field.leg.output)
    assert {file: after.get(file) for file in before} == before, "a committed shard was overwritten"


def stage_cleared(field: Field) -> None:
    """What a process uploaded is taken away before it has its name."""
    assert field.leg is not None
    met, _ = _frozen(field, "after upload")
    with field.frozen(met.pid):
        clear(field.leg.output, ".imagemill/uploads")


def spool_gone(field: Field) -> None:
    """What workers have finished on their machines is taken away while they work."""
    assert field.leg is not None
    output = field.leg.output
    field.wait(lambda: field.spools(output), "something is in a spool")
    field.hit()
    for spool in field.spools(output):
        shutil.rmtree(spool, ignore_errors=True)


def killed_at_name(field: Field, at: str) -> None:
    field.gone(field.order(Order(at, "kill", matching="*.tar", nth=field.random.randint(1, 2))).pid)


def _frozen(field: Field, at: str) -> tuple[Meeting, str]:
    met = field.order(Order(at, "freeze", matching="*.tar", nth=field.random.randint(1, 2)))
    return met, next(name for name in field.names if field.pid(name) == met.pid)


def _way(action: Action, kinds: Collection[Kind], keys: str = "", **more: Any) -> OfWay:
    return OfWay(action, frozenset(kinds), keys, **more)


def _shards(name: str, *faults: OfWay, refuses: bool = False) -> Fault:
    return Fault(f"store: {name}", partial(disturbed, faults=faults), refuses=refuses)


def _held_up(name: str, fault: OfWay) -> Fault:
    return Fault(f"store: {name}", partial(taken_and_left, fault=fault))


def _finishing(name: str, fault: OfWay) -> Fault:
    return Fault(f"store: {name}", partial(disturbed_while_finishing, fault=fault), images=8)


def _submitting(name: str, fault: OfWay, *, exact: bool = True) -> Fault:
    strike = partial(disturbed_while_submitting, fault=fault, exact=exact)
    return Fault(f"store: {name}", strike, images=8)


def _large(name: str, fault: OfWay, then: Callable[[Field], None] = lambda field: None) -> Fault:
    return Fault(f"store: {name}", partial(large, fault=fault, then=then), images=LARGE)


_AT = ("before upload", "after upload", "confirmed")
_BUSY = {500: "500", 503: "503, slow down", 429: "429"}
_ENDS = {True: "reset", False: "closed"}
_COPY = [Kind.COPY, Kind.COMPLETE_UPLOAD]
"""What gives a shard its name, in one request or, of the first worker, in parts."""
_LOST = {
    "an upload": ([Kind.PUT], _STAGED),
    "a shard's copy": (_COPY, _SHARD),
    "a copy's beginning": ([Kind.CREATE_UPLOAD], _SHARD),
    "a copy's part": ([Kind.COPY_PART], _SHARD),
    "a deletion": ([Kind.DELETE], ""),
    "a table": ([Kind.PUT], _TABLE),
}
"""Of what an answer may be lost: it has happened all the same."""
_STRICT = {412: "is taken", 404: "is unknown"}
"""What a strict store may answer to a copy that is asked for again, and is there by then."""
_PARTS, _COMPLETE = [Kind.UPLOAD_PART], [Kind.COMPLETE_UPLOAD]
STORE_FAULTS: tuple[Fault, ...] = (
    *(_shards(f"{say} to writes", _way(Action.ANSWER, WRITES, status=n)) for n, say in _BUSY.items()),
    *(_shards(f"{say} to looks", _way(Action.ANSWER, [Kind.HEAD], status=n)) for n, say in _BUSY.items()),
    *(
        _finishing(f"{say} to reads", _way(Action.ANSWER, [Kind.GET], status=n, count=3))
        for n, say in _BUSY.items()
    ),
    *(
        _finishing(f"{say} to lists", _way(Action.ANSWER, [Kind.LIST], status=n, count=3))
        for n, say in _BUSY.items()
    ),
    _shards("503 to deletions", _way(Action.ANSWER, [Kind.DELETE])),
    _shards("503 to every third request", _way(Action.ANSWER, OBJECTS, share=0.33)),
    _shards("an error in place of a copy", _way(Action.ERROR_IN_200, _COPY, _SHARD, count=2)),
    _finishing("an error in place of a report", _way(Action.ERROR_IN_200, [Kind.COPY], _REPORT, count=2)),
    _shards("403 to writes", _way(Action.ANSWER, WRITES, status=403), refuses=True),
    _shards("403 to looks", _way(Action.ANSWER, [Kind.HEAD], status=403), refuses=True),
    _submitting("503 to a submission", _way(Action.ANSWER, OBJECTS, count=4)),
    _submitting("403 to a submission", _way(Action.ANSWER, OBJECTS, status=403), exact=False),
    Fault("store: connections refused", refused),
    *(
        _shards(f"{what}, {end}", _way(action, kinds, resets=resets, count=2))
        for what, action, kinds in (
            ("cut before a request", Action.CUT_BEFORE, OBJECTS),
            ("cut in a request's body", Action.CUT_REQUEST, [Kind.PUT]),
        )
        for resets, end in _ENDS.items()
    ),
    *(
        _finishing(f"cut in an answer, {end}", _way(Action.CUT_RESPONSE, [Kind.GET], resets=resets, count=2))
        for resets, end in _ENDS.items()
    ),
    _finishing("cut in a list", _way(Action.CUT_RESPONSE, [Kind.LIST], count=2)),
    *(
        _shards(f"answer lost to {what}, {end}", _way(Action.LOSE_ANSWER, *which, resets=resets, count=1))
        for what, which in _LOST.items()
        for resets, end in _ENDS.items()
    ),
    _shards("answers lost to all writes", _way(Action.LOSE_ANSWER, WRITES)),
    *(
        _shards(
            f"answer lost to a shard's copy, which {say} then",
            _way(Action.LOSE_ANSWER, _COMPLETE, _SHARD, count=1),
            _way(Action.ANSWER, _COMPLETE, _SHARD, status=status, count=1),
        )
        for status, say in _STRICT.items()
    ),
    _finishing("answer lost to a report's copy", _way(Action.LOSE_ANSWER, [Kind.COPY], _REPORT, count=1)),
    _submitting("answer lost to a submission", _way(Action.LOSE_ANSWER, [Kind.PUT], count=1)),
    _shards("slow uploads", _way(Action.TRICKLE, [Kind.PUT], rate=16_000)),
    _finishing("slow answers", _way(Action.TRICKLE, [Kind.GET], rate=16_000, count=3)),
    _held_up("upload too slow", _way(Action.TRICKLE, [Kind.PUT], _STAGED, rate=1_000, count=1)),
    _held_up("upload hangs", _way(Action.HANG, [Kind.PUT], _STAGED, seconds=TOO_LONG, count=1)),
    _held_up("copy hangs", _way(Action.HANG, _COPY, _SHARD, seconds=TOO_LONG, count=1)),
    _held_up("look hangs", _way(Action.HANG, [Kind.HEAD], seconds=TOO_LONG, count=1)),
    _held_up("upload comes late", _way(Action.DELAY, [Kind.PUT], _STAGED, seconds=TOO_LONG, count=1)),
    _held_up("copy comes late", _way(Action.DELAY, _COPY, _SHARD, seconds=TOO_LONG, count=1)),
    _large("503 to a part", _way(Action.ANSWER, _PARTS, count=2)),
    _large("cut in a part", _way(Action.CUT_REQUEST, _PARTS, count=2)),
    _large("answer lost to a part", _way(Action.LOSE_ANSWER, _PARTS, count=1)),
    *(
        _large(
            f"answer lost to the last of the parts, {end}",
            _way(Action.LOSE_ANSWER, _COMPLETE, _STAGED, resets=resets, count=1),
        )
        for resets, end in _ENDS.items()
    ),
    _large(
        "upload in parts done, and denied",
        _way(Action.CUT_RESPONSE, _COMPLETE, _STAGED, count=1),
    ),
    _large("killed between parts", _way(Action.DELAY, _PARTS, seconds=3, count=1), kill_who_uploads),
    *(Fault(f"killed: {at}", partial(killed_at_name, at=at)) for at in _AT),
    *(Fault(f"frozen: {at}", partial(frozen_beside_another, at=at)) for at in _AT),
    *(Fault(f"frozen over a wipe: {at}", partial(frozen_over_a_wipe, at=at)) for at in _AT),
    *(Fault(f"killed: {at} of the report", partial(killed_while_finishing, at=at), images=8) for at in _AT),
    *(Fault(f"frozen: {at} of the report", partial(frozen_while_finishing, at=at), images=16) for at in _AT),
    Fault("store: stage cleared", stage_cleared),
    Fault("store: spools gone", spool_gone),
)
USUAL_OF_STORE = {
    "store: 503, slow down to writes", "store: 403 to writes", "store: connections refused",
    "store: cut in a request's body, reset", "store: cut in an answer, closed",
    "store: answer lost to an upload, reset", "store: answer lost to a shard's copy, which is taken then",
    "store: upload hangs", "store: answer lost to the last of the parts, reset", "store: stage cleared",
    "killed: confirmed", "frozen: after upload", "frozen over a wipe: confirmed",
    "frozen: confirmed of the report",
}  # fmt: skip
"""Names: one of each family, as `tests.faults.faults.USUAL`."""
