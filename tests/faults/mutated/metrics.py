"""The checks of what Prometheus is told, how each is taken out, and the test that is red then."""

from __future__ import annotations

from tests.faults.mutated.mutation import Mutation

COLLECTOR_PY = "producer/metrics/collector.py"
PRELUDE_LUA = "jobs/ledger/lua/prelude.lua"
TIMED_STEPS_PY = "worker/engine/timed_steps.py"

COLLECTOR = "tests/producer/metrics/test_collector.py::"
OVERVIEW = "tests/jobs/ledger/test_overview.py::"
STEERING = "tests/jobs/ledger/test_steering.py::"
STAGES = "tests/worker/test_stage_seconds.py::"

CHECKS = [
    Mutation("metrics: a count that is refused stops no script", "it does", PRELUDE_LUA,
        "redis.pcall('HINCRBY', COUNTED, event, 1)", "redis.call('HINCRBY', COUNTED, event, 1)",
        OVERVIEW + "test_a_user_without_a_right_to_the_counts_works_on"),
    Mutation("metrics: no more jobs than the bound have series", "all", COLLECTOR_PY,
        "        if place >= MOST_JOBS:\n", "        if place >= 1_000_000:\n",
        COLLECTOR + "test_series_are_bounded"),
    Mutation("metrics: shards of jobs without series of their own keep their model", "it is lost",
        COLLECTOR_PY,
        "model = model if model in models or len(models) < MOST_MODELS else OTHERS", "model = OTHERS",
        COLLECTOR + "test_shards_keep_their_model_where_their_job_has_no_series_of_its_own"),
    Mutation("metrics: their models are bounded", "all are told", COLLECTOR_PY,
        "model = model if model in models or len(models) < MOST_MODELS else OTHERS", "pass",
        COLLECTOR + "test_shards_keep_their_model_where_their_job_has_no_series_of_its_own"),
    Mutation("metrics: what a worker tells is a figure that there can be", "any", COLLECTOR_PY,
        'return figure if 0 <= figure < float("inf") else None', "return figure",
        COLLECTOR + "test_what_a_worker_does_not_tell_is_not_told[told1]"),
    Mutation("metrics: a job of a free worker that takes nothing waits, too", "it does not", COLLECTOR_PY,
        "why = STARTING", "continue",
        COLLECTOR + "test_why_the_longest_waiting_jobs_wait"),
    Mutation("metrics: a Redis that refuses counts as away", "as there", COLLECTOR_PY,
        "            samples.set(told.REDIS_UP, 0)\n", "            samples.set(told.REDIS_UP, 1)\n",
        COLLECTOR + "test_a_ledger_that_cannot_be_read_is_said_to_be_away"),
    Mutation("metrics: what every worker has refused asks for no worker", "it does", COLLECTOR_PY,
        "    if has_been_refused(job, workers):\n        return", "    if False:\n        return",
        COLLECTOR + "test_shards_that_every_worker_has_refused_do_not_wait_for_one"),
    Mutation("metrics: what has only to be finished asks for a worker", "it does not", COLLECTOR_PY,
        "job.shards_ready + (finishes and job.shards_leased == 0)", "job.shards_ready",
        COLLECTOR + "test_a_job_that_has_only_to_be_finished_asks_for_a_worker"),
    Mutation("a refusal is over when its worker renders the job", "it is kept", PRELUDE_LUA,
        "    redis.call('HDEL', key(job_id, 'refusals'), lease.w)\n", "",
        STEERING + "test_who_refused_a_job_is_known_until_it_renders_some_of_it"),
    Mutation("a refusal that holds is kept", "a picture lifts it", PRELUDE_LUA,
        "if refusal and (tonumber(refusal['until']) or 0) <= clock() then", "if refusal then",
        STEERING + "test_a_refusal_that_holds_is_not_lifted_by_another_shard_of_its_worker"),
    Mutation("metrics: no sum of seconds shrinks", "it does", TIMED_STEPS_PY,
        "sampled = max(0.0, took - owed)", "sampled = took - owed",
        STAGES + "test_the_time_of_steps_is_sampling_without_what_they_decode"),
]  # fmt: skip
