"""Every family of metrics: its name, kind, labels and meaning. docs/monitor.md shows this table.

Names follow Prometheus: base units, `_total` for what only grows. A job's label is `job_id`, because `job` is
Prometheus' own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal


@dataclass(frozen=True, slots=True)
class Family:
    """A family of metrics."""

    name: str
    kind: Literal["gauge", "counter"]
    meaning: str
    labels: tuple[str, ...] = ()


JOBS: Final = Family(
    "imagemill_jobs",
    "gauge",
    "Jobs in Redis: open (being submitted), sealed, finishing, finished.",
    ("state",),
)
UNREADABLE: Final = Family("imagemill_unreadable_jobs", "gauge", "Jobs that cannot be read in Redis.")
IMAGES: Final = Family(
    "imagemill_images",
    "gauge",
    "A job's images: done, failed, left; flagged ones are among those done.",
    ("job_id", "state"),
)
RATE: Final = Family(
    "imagemill_images_per_second", "gauge", "How fast an unfinished job is rendered now.", ("job_id",)
)
SHARDS: Final = Family(
    "imagemill_shards",
    "gauge",
    "An unfinished job's shards: waiting, leased, paused, refused (by all), ending. Finishing counts as one.",
    ("job_id", "model", "state"),
)
REFUSING: Final = Family(
    "imagemill_refusing_workers", "gauge", "Workers that refuse an unfinished job now.", ("job_id",)
)
OLDEST_WAIT: Final = Family(
    "imagemill_oldest_wait_seconds",
    "gauge",
    "How long the job has waited that waits longest for this reason; 0 for none.",
    ("why",),
)
EXPIRIES: Final = Family(
    "imagemill_lease_expiries_total", "counter", "Leases that ran out: workers died, or were cut off."
)
REFUSALS: Final = Family(
    "imagemill_refusals_total", "counter", "Jobs that a worker gave back because it cannot render them."
)
WORKERS: Final = Family(
    "imagemill_workers",
    "gauge",
    "Workers with a heartbeat: busy, idle, loading, waiting (for room or a bucket), stuck.",
    ("device", "model", "state"),
)
STAGES: Final = Family(
    "imagemill_worker_stage_seconds_total",
    "counter",
    "Seconds that a worker's threads spent: load, sample, decode, encode, write.",
    ("worker", "stage"),
)
RENDERED: Final = Family(
    "imagemill_worker_images_total",
    "counter",
    "Pictures that a worker has rendered since it started.",
    ("worker",),
)
GPU_USED: Final = Family(
    "imagemill_worker_gpu_memory_used_bytes", "gauge", "Memory in use on a worker's GPU.", ("worker",)
)
GPU_SIZE: Final = Family(
    "imagemill_worker_gpu_memory_size_bytes", "gauge", "Memory that a worker's GPU has.", ("worker",)
)
GPU_BUSY: Final = Family(
    "imagemill_worker_gpu_utilisation_ratio", "gauge", "How busy a worker's GPU is, from 0 to 1.", ("worker",)
)
REDIS_UP: Final = Family(
    "imagemill_redis_up", "gauge", "1 if the ledger in Redis can be read, else 0 and no figures of it."
)
REDIS_USED: Final = Family("imagemill_redis_memory_used_bytes", "gauge", "Memory that Redis uses.")
REDIS_MOST: Final = Family(
    "imagemill_redis_memory_max_bytes", "gauge", "Memory that Redis may use; 0 where nothing bounds it."
)
REDIS_POLICY: Final = Family(
    "imagemill_redis_eviction_policy",
    "gauge",
    "1 for Redis' maxmemory-policy; any but noeviction drops jobs.",
    ("policy",),
)
UNLISTED: Final = Family(
    "imagemill_unlisted",
    "gauge",
    "Jobs and workers without series of their own, because there are too many.",
    ("of",),
)
SCRAPE_ERRORS: Final = Family(
    "imagemill_scrape_errors_total",
    "counter",
    "Scrapes, of this server, for which the ledger could not be read.",
)
SCRAPE_SECONDS: Final = Family(
    "imagemill_scrape_seconds", "gauge", "How long it took to read the ledger for this scrape."
)

FAMILIES: Final = (
    JOBS, UNREADABLE, IMAGES, RATE, SHARDS, REFUSING, OLDEST_WAIT, EXPIRIES, REFUSALS, WORKERS, STAGES,
    RENDERED, GPU_USED, GPU_SIZE, GPU_BUSY, REDIS_UP, REDIS_USED, REDIS_MOST, REDIS_POLICY, UNLISTED,
    SCRAPE_ERRORS, SCRAPE_SECONDS,
)  # fmt: skip
