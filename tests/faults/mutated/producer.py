"""The checks of producer, how each is taken out, and the test that is red then."""

from __future__ import annotations

from tests.faults.mutated.mutation import Mutation

EMBEDDED_REDIS_PY = "producer/embedded_redis.py"
MANIFEST_TEXT_PY = "producer/importing/manifest_text.py"
PICTURE_TEXTS_PY = "producer/importing/picture_texts.py"
OWN_WORKER_PY = "producer/own_worker.py"
RUN_PY = "producer/run.py"
COMPARISON_PY = "producer/verify/comparison.py"
BUCKET_TARGET_PY = "producer/export/bucket_target.py"
SCRATCH_PY = "producer/verify/scratch.py"
RERENDERER_PY = "producer/verify/rerenderer.py"

RUN = "tests/integration/test_run_command.py::"
VERIFY = "tests/integration/test_verify_command.py::"
CLI = "tests/producer/test_cli.py::"
EMBEDDED = "tests/producer/test_embedded_redis.py::"
IMPORTING = "tests/producer/importing/"
RECOVERING = "tests/producer/submit/recover/test_recover_races.py::"
SHOW = "tests/producer/test_show.py::"
SUBMIT = "tests/producer/submit/test_submit.py::"
RESUMED = "tests/producer/submit/test_submit_resumed.py::"
RETRY = "tests/producer/submit/test_retry.py::"
EXPORTING = "tests/producer/export/"
NAMES = "tests/producer/submit/test_shard_names.py::"
VERIFYING = "tests/producer/verify/"
COMPARING = VERIFYING + "test_comparison.py::"

CHECKS = [
    Mutation("the form of names is kept before a shard is", "not called", "producer/submit/submit.py",
        "output.settle_names(packed.room().names)", "pass",
        NAMES + "test_the_form_is_there_before_a_shard_is_and_stays_when_the_submission_is_resumed"),
    Mutation("a job that its output has no place for", "stored", "producer/submit/submit.py",
        "if room.refusal and packed.below is None:", "if False:",
        NAMES + "test_a_job_that_does_not_fit_is_refused_before_anything_is_stored"),
    Mutation("a submission closes attempts", "not called", "producer/submit/submit.py",
        "                output.close_attempts(said_wait(output, reporter))\n", "                pass\n",
        RESUMED + "test_an_attempt_that_was_frozen_before_a_wipe_can_commit_no_more_once_a_job_begins_there"),
    Mutation("a retry closes attempts", "not called", "producer/submit/retry.py",
        "output.close_attempts(said_wait(output, reporter))", "pass",
        RETRY + "test_an_attempt_that_was_frozen_before_its_job_was_cancelled_can_commit_no_more_"
        "once_it_is_retried"),
    Mutation("a recovery closes attempts", "not called", "producer/submit/recover.py",
        "        output.close_attempts(said_wait(output, reporter))\n", "",
        RECOVERING + "test_a_frozen_attempt_of_the_lost_job_can_commit_no_more"),
    Mutation("set aside: shown by status", "left out", "producer/show.py",
        '        say(f"  set aside shard {shard}: {reason}")', "        pass",
        SHOW + "test_a_shard_that_was_set_aside_is_reported_by_status_and_at_the_end"),
    Mutation("the embedded Redis listens on loopback", "everywhere", EMBEDDED_REDIS_PY,
        r'f"bind 127.0.0.1\nport {port}', r'f"bind 0.0.0.0\nport {port}',
        EMBEDDED + "test_it_is_configured_for_a_ledger"),
    Mutation("the embedded Redis has a password", "none", EMBEDDED_REDIS_PY,
        r"\nrequirepass {password}\n", r"\n",
        EMBEDDED + "test_its_password_is_required_and_stands_in_no_command_line"),
    Mutation("the embedded Redis' password is random", "always the same", EMBEDDED_REDIS_PY,
        "secrets.token_urlsafe(32)", '"x" * 43',
        EMBEDDED + "test_a_given_folder_is_kept_and_its_data_served_again"),
    Mutation("the embedded Redis' password is in no command line", "as an argument",
        EMBEDDED_REDIS_PY,
        '[str(binary), "redis.conf"],', '[str(binary), "redis.conf", "--requirepass", password],',
        EMBEDDED + "test_its_password_is_required_and_stands_in_no_command_line"),
    Mutation("the embedded Redis' folder is closed to others", "open ones, too", EMBEDDED_REDIS_PY,
        "if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:", "if False:",
        EMBEDDED + "test_a_folder_open_to_others_is_refused"),
    Mutation("the embedded Redis' folder is this user's", "taken", EMBEDDED_REDIS_PY,
        "if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:",
        "if stat.S_IMODE(status.st_mode) & 0o077:",
        EMBEDDED + "test_a_folder_of_another_users_is_refused"),
    Mutation("commands ask for a safe URL", "taken as it is", "producer/job_queue.py",
        "url = redis_url(settings, reporter.line)",
        "url = settings.redis_url.get_secret_value() if settings.redis_url else redis_url(settings)",
        CLI + "test_a_redis_that_strangers_could_use_is_refused_by_commands_that_come_to_it_in_"
        "their_own_ways[retry cats-1]"),
    Mutation("`run` asks for a safe URL", "taken as it is", RUN_PY,
        "url = redis_url(settings)", "url = settings.redis_url.get_secret_value()",
        CLI + "test_a_redis_that_strangers_could_use_is_refused_by_commands_that_come_to_it_in_"
        "their_own_ways[run FILE]"),
    Mutation("submit and run look at the root", "not called", "producer/requests/prepared.py",
        "if settings.output_root is not None:", "if False:",
        SUBMIT + "test_an_output_outside_the_root_writes_nothing_anywhere"),
    Mutation("the root of `run`'s worker is its output", "below the current folder", OWN_WORKER_PY,
        '        chosen["output_root"] = output if root is None else root\n', "        pass\n",
        RUN + "test_the_runs_own_worker_writes_below_its_output_alone"),
    Mutation("the log of `run`'s worker is no link", "followed", OWN_WORKER_PY,
        'os.fdopen(open_or_make(log, os.O_WRONLY | os.O_APPEND), "ab")', 'log.open("ab")',
        RUN + "test_a_link_in_the_place_of_the_workers_log_is_not_followed"),
    Mutation("verify: a tolerance does not count for bytes", "counts", COMPARISON_PY,
        "equal=bool(because) and (", "equal=bool(because or tolerance) and (",
        COMPARING + "test_one_level_of_one_channel_is_told_with_its_place[png]"),
    Mutation("verify: how both pictures were rendered is compared", "not looked at", COMPARISON_PY,
        "because = tuple(_reasons(then.record, now.record))", "because = ()",
        COMPARING + "test_on_other_hardware_pixels_are_compared[other0-device: cpu then, NVIDIA H200 now]"),
    Mutation("verify: a record's settings give its image_id", "not looked at", "producer/verify/asked.py",
        'if image_id != record["image_id"]:', "if False:",
        VERIFYING + "test_asked.py::test_a_changed_setting_is_named_by_the_request_in_the_picture"),
    Mutation("verify: slots are those of the records", "measured", SCRATCH_PY,
        "write_slots(output, part.slots)", "pass",
        VERIFY + "test_slots_are_those_of_the_records_and_not_what_another_job_measured"),
    Mutation("verify: what was rendered again is removed", "stays", SCRATCH_PY,
        "        _remove(made)\n", "        pass\n",
        VERIFY + "test_an_output_is_equal_to_itself_and_is_only_read[files]"),
    Mutation("verify: its jobs end with it", "go on", RERENDERER_PY,
        "stack.callback(rerenderer.end)", "pass",
        VERIFY + "test_ctrl_c_leaves_neither_files_nor_a_job"),
    Mutation("export: another export does not go on with one in a bucket", "goes on", BUCKET_TARGET_PY,
        "if store.read(MARK) == mark:", "if store.read(MARK):",
        EXPORTING + "test_buckets.py::test_an_export_that_is_cut_short_is_known_goes_on_and_ends_as_another"),
    Mutation("export: a source whose store refuses it costs nothing of what was exported", "removed",
        BUCKET_TARGET_PY, "except OutputRefused:", "except KeyError:",
        EXPORTING + "test_buckets.py::"
        "test_a_source_that_is_refused_in_the_middle_leaves_what_the_same_command_goes_on_with"),
    Mutation("export: a shard that is there already is the export's own", "taken as it is",
        "producer/export/shards.py", "if [*stored.records()] != [*records]:", "if False:",
        EXPORTING + "test_buckets.py::test_a_tar_of_another_in_an_exports_place_is_not_taken_for_its_own"),
    Mutation("import: a text is bounded while it is unpacked", "unpacked whole", PICTURE_TEXTS_PY,
        "return _bounded(unpacking.decompress(value, MAX_TEXT + 1))",
        "return unpacking.decompress(value)",
        IMPORTING + "test_picture_texts.py::test_a_text_that_unpacks_to_gigabytes_is_refused"),
    Mutation("import: all texts of a file are bounded", "each alone", PICTURE_TEXTS_PY,
        "if sum(map(len, texts.values())) > MAX_TEXT:", "if False:",
        IMPORTING + "test_picture_texts.py::test_many_texts_are_bounded_together"),
    Mutation("import: entities of XMP are not unfolded", "unfolded", "producer/importing/json_settings.py",
        'if "UserComment" not in xmp or "<!DOCTYPE" in xmp:', 'if "UserComment" not in xmp:',
        IMPORTING + "test_other_programs.py::test_an_xmp_with_a_document_type_is_not_read"),
    Mutation("import: comments hold printable characters", "as they are", MANIFEST_TEXT_PY,
        "printable(text), _COMMENT", "text, _COMMENT",
        IMPORTING + "test_imported.py::test_messages_obey_no_terminal"),
    Mutation("import: ends of lines are escaped", "as they are", MANIFEST_TEXT_PY,
        "for one in _ENDS_OF_LINES + _TURNS):", "for one in _TURNS):",
        IMPORTING + "test_own.py::test_each_setting_of_a_request_comes_back[png]"),
    Mutation("import: marks that turn a text around are escaped", "as they are", MANIFEST_TEXT_PY,
        "for one in _ENDS_OF_LINES + _TURNS):", "for one in _ENDS_OF_LINES):",
        IMPORTING + "test_imported.py::test_marks_that_turn_a_text_around_are_escaped_in_a_manifest"),
]  # fmt: skip
