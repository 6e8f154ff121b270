"""Every check that the promises depend on, by the room it is in.

`mutations.py` takes each out; `docs/faults.md` shows them as a table.
"""

from __future__ import annotations

from tests.faults.mutated import (
    buckets,
    deployment,
    gallery,
    hangs,
    inputs,
    jobs,
    ledger,
    metrics,
    producer,
    serve,
    worker,
)

PARTS = {
    "Ledger": ledger.CHECKS,
    "Settings, models and outputs": jobs.CHECKS,
    "Outputs in buckets": buckets.CHECKS,
    "Pictures and adapters": inputs.CHECKS,
    "Producer": producer.CHECKS,
    "Pages": serve.CHECKS,
    "Pages of pictures": gallery.CHECKS,
    "Metrics": metrics.CHECKS,
    "Worker": worker.CHECKS,
    "Workers that hang": hangs.CHECKS,
    "Containers and documents": deployment.CHECKS,
}
