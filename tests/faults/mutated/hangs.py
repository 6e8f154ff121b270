"""The checks of workers that hang or share a name, how each is taken out, and the test that is red then."""

from __future__ import annotations

from tests.faults.mutated.mutation import Mutation

CONSUMER_WATCH_PY = "worker/lease/consumer_watch.py"
LEASE_PY = "worker/lease/lease.py"
RUNTIME_PY = "worker/runtime.py"
STALL_WATCH_PY = "worker/engine/stall_watch.py"
TWIN_PY = "worker/lease/twin.py"

CONSUMER = "tests/worker/lease/test_consumer_watch.py::"
LEASE = "tests/worker/lease/test_lease.py::"
STALLS = "tests/worker/engine/test_stall_watch.py::"
STUCK = "tests/integration/test_stuck_workers.py::"
TWIN = "tests/worker/lease/test_twin.py::"

CHECKS = [
    Mutation(
        "a process whose engine is stuck ends",
        "never",
        STALL_WATCH_PY,
        "if stall.silent >= self._bounds.limit:",
        "if stall.silent < 0:",
        STALLS + "test_what_does_not_move_is_told_after_a_minute_and_ends_the_process_after_the_limit",
    ),
    Mutation(
        "a process that is stuck for nobody ends sooner",
        "at the limit",
        STALL_WATCH_PY,
        "        elif self._unwanted_since is None:\n            self._unwanted_since = now\n",
        "",
        STALLS + "test_what_nobody_wants_any_more_ends_sooner_but_not_at_once",
    ),
    Mutation(
        "a worker that is stuck claims nothing",
        "it claims",
        RUNTIME_PY,
        "if self._stop.is_set() or self._stalls.stall is not None:",
        "if self._stop.is_set():",
        STUCK + "test_a_load_that_hangs_is_told_holds_nothing_else_and_ends_its_process",
    ),
    Mutation(
        "what waits behind a stuck load is given back",
        "held",
        LEASE_PY,
        "if self._stop.is_set() or self._held_up():",
        "if self._stop.is_set():",
        LEASE + "test_what_waits_behind_something_that_is_stuck_is_given_back",
    ),
    Mutation(
        "a consumer that stopped is seen",
        "never",
        CONSUMER_WATCH_PY,
        "return now - self._since >= LIMIT",
        "return False",
        CONSUMER + "test_only_wake_ups_that_are_not_taken_for_long_tell_of_a_consumer_that_stopped",
    ),
    Mutation(
        "a name's twin is heard twice before it is told",
        "once",
        TWIN_PY,
        "_ENOUGH = 2\n",
        "_ENOUGH = 1\n",
        TWIN + "test_a_process_that_was_replaced_may_be_heard_once_more",
    ),
]
