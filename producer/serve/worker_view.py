"""A worker as a page shows it: what its heartbeat tells, read. What it does not tell stays empty."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jobs.ledger.job_reading import is_figure
from producer.why_waiting import Facts, claims_of, loaded_model, models_of


@dataclass(frozen=True, slots=True)
class WorkerView:
    """A worker that is heard of."""

    name: str
    host: str
    device: str
    model: str
    """What it has loaded, or is about to load."""
    takes: str
    """The models that it takes; empty where it does not tell."""
    holds: tuple[tuple[str, str], ...]
    """The job and the shard of each of its claims."""
    most_shards: str
    """Shards that it may hold at a time."""
    batch: str
    """Slots of its forwards; empty before the first, and where it does not tell."""
    images: str
    """Images that it has rendered since it was started."""
    memory: str
    """How much of its GPU's memory is in use; without a GPU, how much it holds of the machine's. Empty where
    it does not tell."""
    use: str
    """How busy its GPU is; empty where it does not tell."""
    says: tuple[str, ...]
    """What it loads or waits for, and what is wrong with it."""


def worker_views(workers: Mapping[str, Facts]) -> list[WorkerView]:
    """All workers, by their names."""
    return [_view(name, facts) for name, facts in sorted(workers.items())]


def _view(name: str, facts: Facts) -> WorkerView:
    models = models_of(facts)
    said = (facts.get("loading", ""), facts.get("notice", ""), facts.get("twin", ""))
    return WorkerView(
        name=name,
        host=facts.get("host", ""),
        device=facts.get("device", ""),
        model=loaded_model(facts),
        takes="" if models is None else ", ".join(models) if models else "any model",
        holds=tuple((job_id, shard) for job_id, shard, _priority in claims_of(facts)),
        most_shards=facts.get("slots", ""),
        batch=batch if is_figure(batch := facts.get("batch_size", "")) and int(batch) else "",
        images=facts.get("images", ""),
        memory=_memory(facts),
        use=_use(facts),
        says=tuple(filter(None, said)),
    )


def _memory(facts: Facts) -> str:
    used, whole = facts.get("gpu_memory_used", ""), facts.get("gpu_memory_total", "")
    if is_figure(used) and is_figure(whole):
        return f"{_gigabytes(used)} of {_gigabytes(whole)} GB"
    held = facts.get("memory_used", "")
    return f"{_gigabytes(held)} GB of the machine's" if is_figure(held) else ""


def _gigabytes(told: str) -> str:
    return f"{int(told) / 1e9:.1f}"


def _use(facts: Facts) -> str:
    try:
        part = float(facts.get("gpu_utilisation", ""))
    except ValueError:
        return ""
    return f"{part:.0%}" if 0 <= part <= 1 else ""
