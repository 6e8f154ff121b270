"""A job's status from what its keys hold: damaged keys, and jobs of other versions, must not hide the others.

A figure that is not there has its default. A job that cannot be read is a JobUnreadable with the way out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from jobs.errors import JobUnreadable
from jobs.ledger import redis_keys
from jobs.ledger.job import JobStatus

_COUNTS = ("priority", "run", "total", "left", "done", "failed", "shards", "held", "flagged", "cut")
_TIMES = ("created", "started", "ended", "finished")
_MOVES = ("created", "waiting_since", "last_claim", "last_image")
_MOST_DIGITS = 18
_TRUSTED_AFTER = 15.0
"""Seconds from a job's first picture until its rate is told."""
_STATES = ("open", "sealed", "finishing", "finished")


@dataclass(frozen=True, slots=True)
class StoredJob:
    """What Redis holds of a job: a hash as a mapping, None for what is not there, and a text, the error's,
    for a key of another kind."""

    fields: Any
    ready: Any
    leased: Any
    refusals: Any
    broken: Any
    active: Any
    """Its place among the active jobs; None if it is not one."""

    @property
    def hash(self) -> Mapping[str, str]:
        """The job's own fields; none if they are lost or of another kind."""
        return _table(self.fields)

    @property
    def workers(self) -> list[str]:
        """The workers that hold one of its shards."""
        leases = [_json_table(lease) for lease in _table(self.leased).values()]
        return sorted({lease["w"] for lease in leases if isinstance(lease.get("w"), str)})


def read_job(job_id: str, stored: StoredJob, facts: Mapping[str, Mapping[str, str]], now: float) -> JobStatus:
    """The job's status at `now`; `facts`: worker -> what its heartbeat says.

    Raises JobUnreadable.
    """
    job = stored.hash
    for name in ("state", "incarnation", "output", "model"):
        if name not in job:
            raise unreadable(job_id, f"it lacks {name!r}" if job else "its main key is lost")
    if job["state"] not in _STATES:
        raise unreadable(job_id, f"state = {job['state']!r}")
    figures: dict[str, Any] = {name: _figure(job_id, job, name) for name in _COUNTS}
    figures |= {name: _figure(job_id, job, name) / 1000 for name in _TIMES}
    broken = _table(stored.broken)
    ready = stored.ready if isinstance(stored.ready, int) else 0
    workers = stored.workers
    return JobStatus(
        job_id=job_id,
        state=cast(Any, job["state"]),
        outcome=job.get("outcome", ""),
        ending=job.get("ending", ""),
        reason=job.get("reason", ""),
        paused=job.get("paused") == "1",
        shards_ready=ready,
        shards_leased=len(_table(stored.leased)),
        last_moved=max(_number(job.get(name, "")) for name in _MOVES) / 1000,
        images_per_second=_rate(job_id, job, now),
        output=job["output"],
        model=job["model"],
        refusals=_reasons(stored.refusals, now),
        refused_by=_reasons(stored.refusals, 0.0),
        workers=workers,
        notices=_said("notice", workers, facts),
        loading=_said("loading", workers, facts),
        broken={int(shard): reason for shard, reason in sorted(broken.items()) if is_figure(shard)},
        trouble=_trouble(job_id, job, stored),
        **figures,
    )


def _said(fact: str, workers: Sequence[str], facts: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """What these workers say of one thing, where they say something."""
    said = {name: facts.get(name, {}).get(fact, "") for name in workers}
    return {name: text for name, text in said.items() if text}


def unreadable(job_id: str, why: str) -> JobUnreadable:
    """The error for a job that cannot be read, with the way out."""
    return JobUnreadable(
        f"{job_id} cannot be read in Redis ({why}): its keys were damaged, evicted or deleted, or another "
        f"version of imagemill wrote them. `imagemill cancel {job_id}` removes it; its output keeps what was "
        "rendered, and submitting the manifest again renders the rest"
    )


def is_figure(text: str) -> bool:
    """Whether a text is a number in decimal digits that Redis can count with."""
    # int() also reads digits of other scripts, and refuses thousands of them; isdigit() takes ² for one.
    return text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS


def read_figure(job_id: str, text: str, name: str = "a figure") -> int:
    """A whole number. Raises JobUnreadable for anything else."""
    try:
        return int(text)
    except ValueError:
        raise unreadable(job_id, f"{name} = {text!r}") from None


def read_failures(stored: Mapping[bytes, bytes]) -> dict[int, dict[str, Any]]:
    """Failures by their index in the job, ascending: shard, position, image_id and reason; the latter says so
    if one cannot be read. A field that is no index is left out."""
    lost = {"shard": -1, "position": -1, "image_id": "?", "reason": "what Redis held of it cannot be read"}
    indices = {index: text_of(index) for index in stored}
    found = {
        int(text): lost | _json_table(stored[index]) for index, text in indices.items() if is_figure(text)
    }
    return dict(sorted(found.items()))


def _trouble(job_id: str, job: Mapping[str, str], stored: StoredJob) -> str:
    """What is wrong with keys beside the job's own, and the command that puts them in order."""
    found = [
        name
        for name, held in (("leased", stored.leased), ("ready", stored.ready), ("refusals", stored.refusals))
        if isinstance(held, str)
    ]
    if found:
        return f"its keys {', '.join(found)} are damaged: `imagemill resume {job_id}` drops them"
    if job["state"] != "finished" and stored.active is None:
        return f"no worker sees it, a key was lost: `imagemill resume {job_id}` puts it back"
    idle = not stored.ready and not _table(stored.leased)
    if job["state"] == "sealed" and idle and job.get("paused") != "1" and _number(job.get("left", "")) > 0:
        return f"what waited of it was lost: the next worker, or `imagemill resume {job_id}`, puts it back"
    wire = _number(job.get("wire", ""))
    if wire > redis_keys.WIRE:
        return f"a later version of imagemill wrote it (wire version {wire:g}): only its workers render it"
    return ""


def text_of(stored: bytes) -> str:
    """A text that Redis holds. Any hand may have written there: what is no UTF-8 is replaced."""
    return stored.decode(errors="replace")


def _figure(job_id: str, job: Mapping[str, str], name: str) -> int:
    return read_figure(job_id, job.get(name, "0"), name)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _table(held: Any) -> Mapping[str, str]:
    return held if isinstance(held, Mapping) else {}


def _json_table(text: str | bytes) -> dict[str, Any]:
    try:
        read = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return read if isinstance(read, dict) else {}


def _reasons(refusals: Any, now: float) -> dict[str, str]:
    """The refusals that hold at a time: worker -> reason."""
    reasons = {}
    for name, text in _table(refusals).items():
        refusal = _json_table(text)
        until, reason = refusal.get("until"), refusal.get("reason")
        if isinstance(until, int | float) and until > now * 1000:
            reasons[name] = str(reason)
    return reasons


def _rate(job_id: str, job: Mapping[str, str], now: float) -> float:
    """Images per second: of the last half minute while a run lasts, of the whole run once it has finished.

    0.0 in the first seconds after the first picture, when a few pictures would stand for the whole job.
    """
    if job["state"] == "finished":
        started = _figure(job_id, job, "started")
        taken = (_figure(job_id, job, "last_image") - started) / 1000
        first = job.get("run") == "1"
        return _figure(job_id, job, "done") / taken if taken > 0 and started and first else 0.0
    window_at, rate = _number(job.get("window_at", "")), _number(job.get("window_rate", ""))
    since = now - window_at / 1000
    if window_at == 0 or since < (0.0 if rate > 0 else _TRUSTED_AFTER):
        return 0.0
    if rate == 0 or since > 10:
        return _number(job.get("window_count", "")) / max(since, 0.001)
    return rate
