"""Every Redis key of imagemill: its name, type, writer, reader and lifetime. Keys are built only here.

`jobs.ledger.lua_functions` gives the names in capitals to the Lua scripts. What leads out if a key is lost or
damaged: docs/faults.md.

key                       type    written by               read by         lifetime
imagemill:numbers         hash    create, recover          create          none: numbers are never used again
imagemill:jobs            zset    create; pruned by reap   status, list    none: one entry a retained job
imagemill:active          zset    create, retry, finish    claim, status   none: one entry an unfinished job
imagemill:claimable       hash    every script             claim, waiting  none: one entry a set
imagemill:claimable:SET   zset    every script             claim, waiting  gone when empty: one entry a job
imagemill:swept           hash    reap                     reap            none: two numbers
imagemill:leases          zset    claim, renew, reap …     reap            none: one entry a claimed shard
imagemill:reaped          string  reap, claim              reap, claim     none: one number
imagemill:output:HASH     string  create, retry            create, submit  none: until the job finishes
imagemill:events          stream  finish                   anyone          none: capped at about 1,000
imagemill:workers         zset    heartbeat                status          none: one entry a worker, pruned
imagemill:worker:NAME     hash    heartbeat                status, waiters 60 s, renewed
imagemill:rows            hash    settle_slots             settle_slots    none: one a device, model, size
imagemill:rates           hash    add_work                 rates           30 days after the last shard
imagemill:counted         hash    reap, claim, refuse      metrics         none: two numbers
imagemill:confirmed       string  submit, control … *      nobody          60 s
imagemill:ledger          string  submit, worker           both            none: one word
imagemill:job:ID          hash    every script             every script    retention after it finished
imagemill:job:ID:spec     string  create                   claim           retention after it finished
imagemill:job:ID:shards   hash    add, retry               claim, retry    retention after it finished
imagemill:job:ID:ready    list    add, retry, put_back     claim           gone when empty, else with the job
imagemill:job:ID:leased   hash    claim, renew, complete … fence, status   gone when empty, else with the job
imagemill:job:ID:done     string  record, complete         status, retry   retention after it finished
imagemill:job:ID:failures hash    record, complete, retry  status, retry   retention after it finished
imagemill:job:ID:flagged  string  record, complete         retry           retention after it finished
imagemill:job:ID:refusals hash    refuse                   claim, status   retention after it finished
imagemill:job:ID:workers  set     claim                    finish          retention after it finished
imagemill:job:ID:rows     hash    settle_slots, cap_slots  settle_slots    retention after it finished
imagemill:job:ID:expiries hash    reap, claim; record …    claim           retention after it finished
imagemill:job:ID:deaths   hash    reap, claim; retry       claim           retention after it finished
imagemill:job:ID:broken   hash    set_aside; retry         status          retention after it finished

`recover` writes what `create`, `add` and `record` write. The shards that `recover` and `retry` take are
stored before under a random word instead of a job's id, for at most 10 minutes
(`jobs.ledger.ledger.STAGED`).

`deploy/redis_acl.sh` lets a worker write every part of a job except those that begin with s: another such
part that workers write must be named there.

* with Sentinels alone: a write that a replica is waited for with (`jobs.ledger.replicas`).

An unfinished job has no TTL on purpose: losing its keys would lose work. Celery has keys of its own: the
queue list `imagemill`, `_kombu*` and `unacked*`.

claimable       set -> its model; "whole" says that all unfinished jobs have been looked at. A set is a
                `JobSpec.pipeline`, "finish", or "doubted": jobs that workers died of finishing
claimable:SET   jobs that may be claimed, in the order of claims (`places.lua`); follows from the jobs' own
                keys, and is made from them again where it is lost
swept           when places were looked after last, ms since 1970, and which unfinished job is next
ledger          a random word by which buckets tell this Redis from others: jobs.output.writer
reaped          when leases were looked at last, ms since 1970: a long time without a look does not count
job:ID          fields: see `jobs.ledger.job.JobStatus`; besides those `wire` (`WIRE`), `digest` (what was
                submitted), `cursor` (manifest lines in the ledger), `epoch` (claims so far), `requeued` (how
                often a run's shards were looked at again because a key was lost), `requeued_left` and
                `requeued_epoch` (`left` and `epoch` when that was last), `place` (its set and member in
                claimable:SET; none if nothing of it may be claimed) and `window_at, window_count,
                window_rate` (the rate of the last half minute)
job:ID:spec     JSON of `jobs.ledger.job.JobSpec`, the manifest in it: read once by a worker
job:ID:shards   shard number -> zstd-compressed requests, `jobs.ledger.shard`
job:ID:ready    shard numbers that wait; the head is claimed next, and what comes back becomes the head
job:ID:leased   shard number (or `finish`) -> JSON {"a": attempt, "w": worker, "t": ms since 1970, "l": ms
                that the lease lasts, "rows": the images in its slots or not written yet, "alone": the image
                that has the slots to itself, "excused": another shard of the worker had images in them when
                its lease ran out}
job:ID:done     one bit an image, by its index in the job
job:ID:failures index -> JSON {"shard", "position", "image_id", "reason"}
job:ID:flagged  one bit an image that is kept but doubted
job:ID:refusals worker -> JSON {"until": ms since 1970, "reason"}: why it does not take the job until then
job:ID:workers  every worker that claimed a shard
job:ID:rows     kind of device and size of picture -> slots of a forward, the same for all the job's workers
job:ID:expiries shard number (or `finish`) -> JSON {"count", "images"}: how often in a row its lease ran out
                without a new picture or failure, and which images were in the slots each time
job:ID:deaths   index -> how many workers died while they rendered this image alone
job:ID:broken   shard number -> why it cannot be read
counted         lease_expiries, refusals: how often a lease ran out, and a worker refused a job, since the
                first time
rows            device, model, size -> slots, as measured last; if memory runs out, only the job's are lowered
rates           device, model, size -> JSON [slot evaluations, seconds]; older work counts for less
"""

from __future__ import annotations

import hashlib

PREFIX = "imagemill:"
QUEUE = "imagemill"

JOB = PREFIX + "job:"
OUTPUT = PREFIX + "output:"
NUMBERS = PREFIX + "numbers"
JOBS = PREFIX + "jobs"
ACTIVE = PREFIX + "active"
CLAIMABLE = PREFIX + "claimable"
SWEPT = PREFIX + "swept"
LEASES = PREFIX + "leases"
REAPED = PREFIX + "reaped"
EVENTS = PREFIX + "events"
WORKERS = PREFIX + "workers"
COUNTED = PREFIX + "counted"
SLOTS = PREFIX + "rows"
RATES = PREFIX + "rates"
WORKER = PREFIX + "worker:"
NOTHING = JOB + ":nothing"
"""No key has this name: LPUSHX to it fails if writes fail, and changes nothing."""
CONFIRMED = PREFIX + "confirmed"
LEDGER = PREFIX + "ledger"

WIRE = 1
"""What a job's hash and spec are like; one more wherever an earlier version would misread them. A job without
it is of a version before there was one."""
WORKER_TTL = 60
"""Seconds that a worker is listed after its last heartbeat."""

KINDS = {
    "spec": "string",
    "shards": "hash",
    "ready": "list",
    "leased": "hash",
    "done": "string",
    "failures": "hash",
    "flagged": "string",
    "refusals": "hash",
    "workers": "set",
    "rows": "hash",
    "expiries": "hash",
    "deaths": "hash",
    "broken": "hash",
}
"""The kind of each part of a job."""
JOB_PARTS = tuple(KINDS)
SHARED = {
    NUMBERS: "hash",
    JOBS: "zset",
    ACTIVE: "zset",
    CLAIMABLE: "hash",
    SWEPT: "hash",
    LEASES: "zset",
    REAPED: "string",
    LEDGER: "string",
    EVENTS: "stream",
    WORKERS: "zset",
    COUNTED: "hash",
    SLOTS: "hash",
    RATES: "hash",
}
"""The kind of each key that all jobs share."""
COUNTS = ("shards", "left", "done", "failed", "flagged", "held", "epoch", "run", "window_count")
"""The fields of a job's hash that scripts count in."""
DAMAGE = ("WRONGTYPE", "not an integer", "attempt to", "bad argument")
"""Words of errors, of Redis and of Lua, that a damaged key causes."""


def job(job_id: str, part: str | None = None) -> str:
    """The key of a job's hash, or of one of the `JOB_PARTS`."""
    return JOB + job_id if part is None else f"{JOB}{job_id}:{part}"


def output(path: str) -> str:
    """The key that holds the active job that owns an output folder."""
    return f"{OUTPUT}{hashlib.sha256(path.encode()).hexdigest()[:16]}"


def worker(name: str) -> str:
    """The key of a worker's heartbeat."""
    return WORKER + name
