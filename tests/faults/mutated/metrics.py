"""The checks of what Prometheus is told, how each is taken out, and the test that is red then."""

from __future__ import annotations

from tests.faults.mutated.mutation import Mutation

COLLECTOR_PY = "producer/metrics/collector.py"
PRELUDE_LUA = "jobs/ledger/lua/prelude.lua"
TIMED_STEPS_PY = "worker/engine/timed_steps.py"

COLLECTOR = "tests/producer/metrics/test_collector.py::"
OVERVIEW = "tests/jobs/ledger/test_overview.py::"
STAGES = "tests/worker/test_stage_seconds.py::"

CHECKS = [
    Mutation("metrics: a count that is refused stops no script", "it does", PRELUDE_LUA,
        "redis.pcall('HINCRBY', COUNTED, event, 1)", "redis.call('HINCRBY', COUNTED, event, 1)",
        OVERVIEW + "test_a_user_without_a_right_to_the_counts_works_on"),
    Mutation("metrics: no more jobs than the bound have series", "all", COLLECTOR_PY,
        "job.job_id if place < MOST_JOBS else OTHERS", "job.job_id",
        COLLECTOR + "test_series_are_bounded"),
    Mutation("metrics: what a worker tells is a figure that there can be", "any", COLLECTOR_PY,
        'return figure if 0 <= figure < float("inf") else None', "return figure",
        COLLECTOR + "test_what_a_worker_does_not_tell_is_not_told[told1]"),
    Mutation("metrics: a job of a free worker that takes nothing waits, too", "it does not", COLLECTOR_PY,
        "why = STARTING", "continue",
        COLLECTOR + "test_why_the_longest_waiting_jobs_wait"),
    Mutation("metrics: no sum of seconds shrinks", "it does", TIMED_STEPS_PY,
        "sampled = max(0.0, took - owed)", "sampled = took - owed",
        STAGES + "test_the_time_of_steps_is_sampling_without_what_they_decode"),
]  # fmt: skip
