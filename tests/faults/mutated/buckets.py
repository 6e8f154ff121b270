"""The checks of outputs in buckets, how each is taken out, and the test that is red then."""

from __future__ import annotations

from tests.faults.mutated.mutation import Mutation

BUCKET_STORE_PY = "jobs/output/bucket_store.py"
FINISH_PY = "worker/finish/finish.py"
PACE_PY = "jobs/output/upload_pace.py"
OLD_SPOOLS_PY = "worker/lease/old_spools.py"
WRITER_PY = "jobs/output/writer.py"

FINISH = "tests/worker/finish/test_finish_in_bucket.py::"
SHARD = "tests/worker/shard/test_shard_bucket.py::"
STORE = "tests/jobs/output/test_bucket_store.py::"
PACE = "tests/jobs/output/test_upload_pace.py::"
OLD_SPOOLS = "tests/worker/lease/test_old_spools.py::"
WRITER = "tests/jobs/output/test_writer.py::"
WRITERS = "tests/worker/lease/test_writers.py::"
IN_BUCKET = "tests/producer/submit/test_in_bucket.py::"

CHECKS = [
    Mutation("what is uploaded gets its name only while its lease holds", "the lease is not confirmed",
        BUCKET_STORE_PY,
        '            stage.confirm()\n            failpoint("confirmed", place)', "            pass",
        FINISH + "test_a_finisher_that_slept_until_another_ended_the_job_adds_nothing"),
    Mutation("a job that begins takes all uploads away", "none",
        BUCKET_STORE_PY,
        "uploads = dict(self.sizes_below(UPLOADS))", "uploads: dict[str, int] = {}",
        FINISH + "test_what_goes_through_a_stage_that_was_closed_is_not_there"),
    Mutation("an upload that arrives late is copied by nobody", "each try has the same name",
        "jobs/output/object_upload.py",
        "{folder}-{secrets.token_hex(4)}/{name}", "{folder}-00000000/{name}",
        STORE + "test_what_arrives_late_under_a_name_of_an_upload_is_not_what_is_copied"),
    Mutation("a copy whose answer was lost counts", "it is not looked for",
        BUCKET_STORE_PY,
        "            if self.exists(name):", "            if False:",
        STORE + "test_a_copy_that_happened_and_is_denied_when_it_is_asked_for_again_counts"),
    Mutation("an upload that is not whole gets no name", "it does",
        BUCKET_STORE_PY,
        "if there != size:", "if False:",
        STORE + "test_an_upload_that_is_not_whole_gets_no_name"),
    Mutation("a removal hits no file that a newer job wrote", "it is a deletion",
        BUCKET_STORE_PY,
        '            self.replace(name, b"", stage)',
        "            stage.confirm()\n            self.remove(name)",
        STORE + "test_a_late_removal_hits_no_file_of_a_newer_job"),
    Mutation("a wait for copies that was cut short is made up for", "it is not told",
        BUCKET_STORE_PY,
        '            self.replace(closing, b"")', "            pass",
        STORE + "test_who_closes_the_stages_after_one_that_was_stopped_waits_in_its_place"),
    Mutation("an uplink that is not known takes one part at a time", "four large ones",
        PACE_PY,
        "if self._most >= self.full.bytes:", "if True:",
        PACE + "test_a_large_shard_gets_through_a_slow_uplink_from_a_new_process"),
    Mutation("uploads take turns over an uplink that is slow", "all at once",
        PACE_PY,
        "return not self._under_way or", "return True or",
        PACE + "test_shards_that_share_a_slow_uplink_go_one_after_the_other"),
    Mutation("a bucket that gives no file for a while refuses no job", "it does",
        "worker/shard/shard_run.py",
        "if isinstance(one.error, InputsAway):", "if False:",
        SHARD + "test_a_bucket_that_gives_no_answer_for_a_while_fails_no_image_and_refuses_no_job"),
    Mutation("a finishing takes away what dead attempts had uploaded", "it stays",
        FINISH_PY,
        "        output.store.close_stages(partial(_wait, output, check))\n", "        pass\n",
        FINISH + "test_a_job_that_ends_leaves_nothing_of_what_dead_attempts_had_uploaded"),
    Mutation("a finisher that waits for copies asks for its lease", "not",
        FINISH_PY,
        "        time.sleep(min(left, 1.0))\n        check()", "        time.sleep(min(left, 1.0))",
        FINISH + "test_a_finisher_that_waits_for_the_copy_of_an_upload_asks_whether_it_still_holds_the_job"),
    Mutation("a spool that a job may go on from stays", "it goes",
        OLD_SPOOLS_PY,
        "if attempt.parents[3] not in in_work:", "if True:",
        OLD_SPOOLS + "test_what_a_job_may_go_on_from_stays"),
    Mutation("a spool that was written a moment ago stays", "it goes",
        OLD_SPOOLS_PY,
        " if time.time() - _written(attempt) > KEPT]", "]",
        OLD_SPOOLS + "test_what_was_written_a_moment_ago_stays_for_redis_may_have_lost_its_job"),
    Mutation("a name is given only while the output is its ledger's", "nobody asks",
        "worker/lease/lease.py",
        "        self.patiently(self.writing.confirm)", "        pass",
        WRITERS + "test_a_name_is_given_only_while_the_output_is_this_ledgers"),
    Mutation("a store that gives no answer for an output delays no other's renewal", "one after the other",
        "worker/lease/writers.py",
        "            self._renew(output, held)\n",
        "            with self._lock:\n                self._renew(output, held)\n",
        WRITERS + "test_a_store_that_gives_no_answer_for_one_output_keeps_no_other_from_being_renewed"),
    Mutation("a cancel that ends a job lets its output in a bucket go", "it is kept",
        "producer/submit/writing.py",
        'if came_to != "ok" and names_bucket(output) and incarnation:', "if False:",
        IN_BUCKET + "test_cancelling_a_job_that_no_worker_ends_leaves_its_output_to_other_ledgers"),
    Mutation("a cancel leaves an output that another ledger has taken over", "marked free, whose it may be",
        "producer/submit/writing.py",
        "ledger.word).free()\n", "ledger.word).free(lambda _writer: True)\n",
        IN_BUCKET + "test_cancelling_a_job_leaves_an_output_that_another_ledger_has_taken_over"),
    Mutation("an output is not taken from a job that is at work", "it is",
        WRITER_PY,
        "                if left > 0:", "                if False:",
        WRITER + "test_an_output_is_refused_while_another_ledgers_job_is_at_work"),
    Mutation("a writer's object is replaced only as it was seen", "however it is",
        "jobs/output/tagged_object.py",
        'mode = "create" if tag is None else _version(tag)', 'mode: Literal["overwrite"] = "overwrite"',
        WRITER + "test_a_silent_writer_is_taken_over_and_finds_it_out_before_it_gives_a_name"),
    Mutation("what a job asks for was chosen since another ledger wrote", "not looked at",
        WRITER_PY,
        "                if begun:", "                if False:",
        WRITER + "test_a_job_that_has_shards_does_not_come_back_after_another_ledgers"),
    Mutation("a writer's object says the longest lease of its job", "the command's",
        WRITER_PY,
        "and seen.writer.lease >= me.lease", "and True",
        WRITER + "test_the_object_has_the_longest_lease_of_those_who_renew_it"),
    Mutation("a silent writer is waited for as long as it was seen", "since the first look",
        WRITER_PY,
        "if before != seen.tag or is_gap:", "if before != seen.tag:",
        WRITER + "test_time_in_which_nothing_was_seen_does_not_count_and_a_clock_alone_is_asked"),
]  # fmt: skip
