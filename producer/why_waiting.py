"""Why a job waits: decided from its status and from what the workers tell of themselves in their heartbeats.

Workers of earlier versions tell less. What they do not tell is not guessed: such a worker may take any model,
and no job is named as the one that it renders.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from jobs.ledger.job import JobStatus

Kind = Literal[
    "paused",
    "no worker",
    "ending",
    "Redis full",
    "model",
    "refused",
    "behind",
    "loading",
    "stuck",
    "disk",
    "lost",
]
"""paused: by a person. no worker: none is alive. ending: the same, and the job was ended early. model: none
that is alive takes the model. refused: all that take it refuse the job. behind: they render other jobs.
loading: its workers load the model. stuck: what they load or render has not moved for long. disk: it has
no room. lost: its workers are no longer heard of."""

Facts = Mapping[str, str]
"""What a worker tells of itself: fact -> text."""

_NAMED = 3
"""Workers or jobs that a reason names, at most."""


@dataclass(frozen=True, slots=True)
class Wait:
    """What a job waits for."""

    kind: Kind
    text: str
    """The reason for a person, with the remedy where there is one."""


def why_it_waits(job: JobStatus, workers: Mapping[str, Facts], *, full: bool = False) -> Wait | None:
    """Why no image of the job is rendered now; None while some are, and where a worker is about to begin.

    `workers`: all that are alive, with what they tell; `full`: whether Redis has no room.
    """
    if job.state == "finished":
        return None
    if job.workers:
        return _of_its_workers(job, workers)
    if job.paused and not job.ending:
        return Wait("paused", f"it is paused: `imagemill resume {job.job_id}` continues it")
    if not workers and job.ending:
        return Wait(
            "ending",
            "no worker is alive to write its report: start one with `imagemill-worker`, or "
            f"`imagemill cancel {job.job_id}` ends it without a report",
        )
    if not workers:
        why, remedy = "no worker is alive", "start one with `imagemill-worker`"
        if has_been_refused(job, workers):
            why += f", and the last ones refused it: {_reasons(job.refused_by)}"
            remedy = f"fix that, then `imagemill resume {job.job_id}`, and {remedy}"
        return Wait("no worker", f"{why}: {remedy}")
    if job.state == "finishing" and all(name in job.refusals for name in workers):
        reasons = _reasons({name: job.refusals[name] for name in workers})
        remedy = (
            f"fix that, then `imagemill resume {job.job_id}`; or `imagemill cancel {job.job_id}` ends it "
            "without its report"
        )
        return Wait("refused", f"every worker refuses to finish it: {reasons}: {remedy}")
    if job.ending or job.shards_ready == 0:
        return None  # nothing of it is stored yet, or nothing is left to render: any worker ends it
    if full:
        return Wait("Redis full", "Redis is full: no shard is given out until it has room (raise maxmemory)")
    told = {name: _told(facts) for name, facts in workers.items()}
    able = [name for name, one in told.items() if not one.models or job.model in one.models]
    if not able:
        others = _listed(
            [f"{name} takes {', '.join(models_of(facts) or ())}" for name, facts in workers.items()]
        )
        remedy = f"start one with `imagemill-worker --model {job.model}`"
        return Wait("model", f"no worker that is alive takes {job.model} ({others}): {remedy}")
    willing = [name for name in able if name not in job.refusals]
    if not willing:
        reasons = _reasons({name: job.refusals[name] for name in able})
        remedy = f"fix that, then `imagemill resume {job.job_id}`"
        return Wait("refused", f"every worker that takes the model refuses it: {reasons}: {remedy}")
    if any(told[name].free for name in willing):
        return None
    stuck = [f"{name}: {workers[name]['stuck']}" for name in willing if workers[name].get("stuck")]
    if len(stuck) == len(willing):
        return Wait("stuck", _listed(stuck))
    return _behind(job, [claim for name in willing for claim in told[name].claims])


def has_been_refused(job: JobStatus, workers: Mapping[str, Facts]) -> bool:
    """Whether some workers have refused the job, and so has each that is alive and takes its model.

    One that tries again counts as well, until it has rendered something. So do those that are gone: who comes
    in their place would refuse it, too.
    """
    finishes = job.state == "finishing"
    if not job.refused_by or job.state == "finished" or (job.ending and not finishes):
        return False
    able = (name for name, facts in workers.items() if finishes or _takes(facts, job.model))
    return all(name in job.refused_by for name in able)


def _takes(facts: Facts, model: str) -> bool:
    models = models_of(facts)
    return not models or model in models


def _reasons(refusals: Mapping[str, str]) -> str:
    return _listed(sorted(set(refusals.values())))


@dataclass(frozen=True, slots=True)
class _Told:
    """What a worker tells, read."""

    models: tuple[str, ...] | None
    """() for any; None where it does not tell."""
    claims: tuple[tuple[str, str, int], ...]
    """Job, shard and priority."""
    free: bool
    """Whether it holds nothing: it then takes what there is for it, also of another model."""


def models_of(facts: Facts) -> tuple[str, ...] | None:
    """The models that a worker takes, () for any; None where it does not tell."""
    return _told(facts).models


def claims_of(facts: Facts) -> tuple[tuple[str, str, int], ...]:
    """Job, shard and priority of what a worker holds."""
    return _told(facts).claims


def loaded_model(facts: Facts) -> str:
    """The model that a worker has loaded, or is about to load; empty for none."""
    pipeline = _json_list(facts.get("pipeline", "")) or []
    return str(pipeline[0]) if pipeline else ""


def in_words(name: str, facts: Facts) -> str:
    """What a worker takes, has loaded and does, on one line; empty for one that does not tell."""
    models = models_of(facts)
    if models is None:
        return ""
    parts = [f"takes {', '.join(models)}" if models else "takes any model"]
    if loaded := loaded_model(facts):
        parts.append(f"last took up {loaded}")
    doing = [f"{job_id} ({shard})" for job_id, shard, _priority in _told(facts).claims]
    parts.append(f"works on {_listed(doing)}" if doing else "is free")
    parts += [told for told in (facts.get("loading", ""), facts.get("notice", "")) if told]
    return f"{name} {', '.join(parts)}"


def twins(workers: Mapping[str, Facts]) -> list[str]:
    """What is wrong with the names of workers: several processes that share one."""
    return [f"{name}: {facts['twin']}" for name, facts in workers.items() if facts.get("twin")]


def _of_its_workers(job: JobStatus, workers: Mapping[str, Facts]) -> Wait | None:
    """What all workers that hold a part of the job wait for."""
    waits = [_of_worker(job, name, workers.get(name)) for name in job.workers]
    told = [wait for wait in waits if wait is not None]
    if len(told) < len(waits):
        return None
    return Wait(told[0].kind, _listed([wait.text for wait in told]))


def _of_worker(job: JobStatus, name: str, facts: Facts | None) -> Wait | None:
    if facts is None:
        return Wait("lost", f"{name} is no longer heard of: its shards go to others when its lease runs out")
    if stuck := facts.get("stuck", ""):
        return Wait("stuck", f"{name}: {stuck}")
    if notice := job.notices.get(name, ""):
        return Wait("disk", f"{name}: {notice}")
    if loading := job.loading.get(name, ""):
        return Wait("loading", f"{name}: {loading}")
    return None


def _behind(job: JobStatus, claims: Sequence[tuple[str, str, int]]) -> Wait:
    """That the workers that would take the job hold these claims."""
    priorities = {other: priority for other, _, priority in claims if other != job.job_id}
    if not priorities:
        return Wait("behind", "every worker that takes it is busy")
    others = [
        f"{other}, whose priority {priority} goes before {job.priority}" if priority < job.priority else other
        for other, priority in sorted(priorities.items(), key=lambda pair: (pair[1], pair[0]))
    ]
    return Wait("behind", f"it is behind {_listed(others)}, which every worker that takes it renders now")


def _listed(texts: Sequence[str]) -> str:
    more = f"; and {len(texts) - _NAMED} more" if len(texts) > _NAMED else ""
    return "; ".join(texts[:_NAMED]) + more


def _told(facts: Facts) -> _Told:
    get = facts.get
    return _read(get("models", ""), get("claims", ""), get("busy", ""), get("stuck", ""))


@lru_cache(1024)  # many jobs are compared with the same workers
def _read(models: str, claims: str, busy: str, stuck: str) -> _Told:
    named, held = _json_list(models), []
    for claim in _json_list(claims) or []:
        match claim:
            case [str(job_id), str(shard), int(priority)]:
                held.append((job_id, shard, priority))
    free = busy in ("", "0") and not held and not stuck
    return _Told(None if named is None else tuple(map(str, named)), tuple(held), free)


def _json_list(text: str) -> list[object] | None:
    """A list written as JSON; None for anything else: a worker of another version may tell it otherwise."""
    try:
        found = json.loads(text) if text else None
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, list) else None
