"""The checks of outputs in buckets, how each is taken out, and the test that is red then."""

from __future__ import annotations

from tests.faults.mutated.mutation import Mutation

BUCKET_STORE_PY = "jobs/output/bucket_store.py"
FINISH_PY = "worker/finish/finish.py"
OLD_SPOOLS_PY = "worker/lease/old_spools.py"

FINISH = "tests/worker/finish/test_finish_in_bucket.py::"
SHARD = "tests/worker/shard/test_shard_bucket.py::"
STORE = "tests/jobs/output/test_bucket_store.py::"
OLD_SPOOLS = "tests/worker/lease/test_old_spools.py::"

CHECKS = [
    Mutation("what is uploaded gets its name only while its lease holds", "the lease is not confirmed",
        BUCKET_STORE_PY,
        '            stage.confirm()\n            failpoint("confirmed", place)', "            pass",
        FINISH + "test_a_finisher_that_slept_until_another_ended_the_job_adds_nothing"),
    Mutation("a job that begins takes all uploads away", "none",
        BUCKET_STORE_PY,
        "uploads = [*self._entries_below(UPLOADS)]", "uploads: list[ObjectMeta] = []",
        FINISH + "test_what_goes_through_a_stage_that_was_closed_is_not_there"),
    Mutation("an upload that arrives late is copied by nobody", "each try has the same name",
        BUCKET_STORE_PY,
        "{folder}/{secrets.token_hex(4)}/{base}", "{folder}/{base}",
        STORE + "test_what_arrives_late_under_a_name_of_an_upload_is_not_what_is_copied"),
    Mutation("a copy whose answer was lost counts", "it is not looked for",
        BUCKET_STORE_PY,
        "            if self.exists(name):", "            if False:",
        STORE + "test_a_copy_that_happened_and_is_denied_when_it_is_asked_for_again_counts"),
    Mutation("an upload that is not whole gets no name", "it does",
        BUCKET_STORE_PY,
        "if there != size:", "if False:",
        STORE + "test_an_upload_that_is_not_whole_gets_no_name"),
    Mutation("a bucket that gives no file for a while refuses no job", "it does",
        "worker/shard/shard_run.py",
        "if isinstance(one.error, InputsAway):", "if False:",
        SHARD + "test_a_bucket_that_gives_no_answer_for_a_while_fails_no_image_and_refuses_no_job"),
    Mutation("a finishing takes away what dead attempts had uploaded", "it stays",
        FINISH_PY,
        "        output.store.close_stages()\n", "        pass\n",
        FINISH + "test_a_job_that_ends_leaves_nothing_of_what_dead_attempts_had_uploaded"),
    Mutation("a spool that a job may go on from stays", "it goes",
        OLD_SPOOLS_PY,
        "if attempt.parents[3] not in in_work:", "if True:",
        OLD_SPOOLS + "test_what_a_job_may_go_on_from_stays"),
    Mutation("a spool that was written a moment ago stays", "it goes",
        OLD_SPOOLS_PY,
        " if time.time() - _written(attempt) > KEPT]", "]",
        OLD_SPOOLS + "test_what_was_written_a_moment_ago_stays_for_redis_may_have_lost_its_job"),
]  # fmt: skip
