"""The checks of settings, models and outputs, how each is taken out, and the test that is red then."""

from __future__ import annotations

from tests.faults.mutated.mutation import Mutation

CONNECTION_PY = "jobs/connection.py"
MODEL_FOLDER_PY = "jobs/model_files/model_folder.py"
LOCAL_PY = "jobs/output/local_store.py"
OUTPUT_ROOT_PY = "jobs/output/output_root.py"
REDIS_URL_PY = "jobs/redis_url.py"
SINGLE_FILE_PY = "jobs/model_files/single_file.py"

CONNECTION = "tests/jobs/test_connection.py::"
LATENTS = "tests/jobs/inputs/test_latents.py::"
PLAIN = "tests/jobs/test_plain_file.py::"
SINGLE_FILE = "tests/jobs/model_files/test_single_file.py::"
MODELS = "tests/jobs/models/test_models.py::"
OUTPUT = "tests/jobs/output/test_output.py::"
OUTPUT_ROOT = "tests/jobs/output/test_output_root.py::"
REDIS_URL = "tests/jobs/test_redis_url.py::"
SHARD_ENDS = "tests/worker/shard/test_shard_ends.py::"
STORE = "tests/worker/shard/test_store.py::"
STORE_TAR = "tests/worker/shard/test_store_tar.py::"

CHECKS = [
    Mutation("a closed attempt can commit no more", "its folder is not renamed", LOCAL_PY,
        "attempt.rename(attempt.with_name(attempt.name + _CLOSED))", "pass",
        SHARD_ENDS + "test_an_attempt_frozen_before_its_commit_adds_nothing_to_a_later_job"),
    Mutation("a shard's rename never overwrites", "the folder in the way removed before",
        "jobs/output/files.py",
        "            images.rename(self.path)",
        "            __import__('shutil').rmtree(self.path, ignore_errors=True)\n"
        "            images.rename(self.path)",
        STORE + "test_a_strangers_folder_in_a_shards_place_is_named_and_kept"),
    Mutation("a tar's link never overwrites", "`os.replace`", LOCAL_PY,
        "os.link(file, target)", "os.replace(file, target)",
        STORE_TAR + "test_a_late_tar_that_slipped_past_the_check_touches_neither_tar_nor_parquet"),
    Mutation("fsync before a rename", "not called", "jobs/output/durable.py",
        "os.fsync(file.fileno())", "pass",
        OUTPUT + "test_a_file_is_synced_before_it_is_renamed_and_its_folder_after"),
    Mutation("the connection file is closed to others", "0644", CONNECTION_PY,
        "os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)", "os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)",
        CONNECTION + "test_a_published_connection_is_found_until_its_block_ends"),
    Mutation("a connection file that others may read", "believed", CONNECTION_PY,
        "if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:", "if False:",
        CONNECTION + "test_a_file_that_others_may_read_is_not_believed"),
    Mutation("a connection file of another user's", "believed", CONNECTION_PY,
        "if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:",
        "if stat.S_IMODE(status.st_mode) & 0o077:",
        CONNECTION + "test_a_file_of_another_users_is_not_believed"),
    Mutation("a connection file that is a link", "followed", CONNECTION_PY,
        "os.O_RDONLY | os.O_NOFOLLOW", "os.O_RDONLY",
        CONNECTION + "test_a_link_to_a_file_of_this_users_is_not_believed"),
    Mutation("a runtime folder that is open", "taken", CONNECTION_PY,
        "return mine and not stat.S_IMODE(status.st_mode) & 0o077", "return mine",
        CONNECTION + "test_a_temporary_folder_that_is_open_to_others_is_refused"),
    Mutation("a runtime folder of another user's", "taken", CONNECTION_PY,
        "mine = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()",
        "mine = stat.S_ISDIR(status.st_mode)",
        CONNECTION + "test_a_temporary_folder_of_another_users_is_refused"),
    Mutation("a runtime folder that is a link", "followed", CONNECTION_PY,
        "status = folder.lstat()", "status = folder.stat()",
        CONNECTION + "test_a_link_in_place_of_the_temporary_folder_is_refused"),
    Mutation("a Redis beyond this machine: password or TLS", "neither", CONNECTION_PY,
        'if address.kind == "redis" and not address.password:', "if False:",
        CONNECTION + "test_a_redis_that_strangers_could_use_or_play_is_refused_unless_insecure"),
    Mutation("a Sentinel beyond this machine: password or TLS", "neither", CONNECTION_PY,
        "not (with_tls or (address.password and address.sentinel_password)):", "False:",
        CONNECTION + "test_a_redis_that_strangers_could_use_or_play_is_refused_unless_insecure"),
    Mutation("loopback by its address", "by how the name begins", CONNECTION_PY,
        'return host == "localhost" or ipaddress.ip_address(host).is_loopback',
        'return host.startswith(("localhost", "127."))',
        CONNECTION + "test_a_redis_that_strangers_could_use_or_play_is_refused_unless_insecure"),
    Mutation("a URL's options are those of ledger and broker", "any", REDIS_URL_PY,
        "if name not in allowed:", "if False:",
        REDIS_URL + "test_what_both_cannot_take_is_refused_in_one_line_without_a_password"),
    Mutation("a URL names one server", "several", REDIS_URL_PY,
        'if ";" in url:', "if False:",
        REDIS_URL + "test_what_both_cannot_take_is_refused_in_one_line_without_a_password"),
    Mutation("`rediss://` verifies the certificate", "whatever the URL says", CONNECTION_PY,
        "if value not in _VERIFYING.get(option, (value,)):", "if False:",
        CONNECTION + "test_a_redis_that_strangers_could_use_or_play_is_refused_unless_insecure"),
    Mutation("no password in an error", "shown", CONNECTION_PY,
        '    rest = f"***@{place}" if credentials or at else rest\n', "",
        CONNECTION + "test_messages_show_a_url_without_its_password"),
    Mutation("an output is below the root", "not compared", OUTPUT_ROOT_PY,
        "if real != real_root and real_root not in real.parents:", "if False:",
        OUTPUT_ROOT + "test_an_output_outside_the_root_is_refused_through_dots_and_links_too"),
    Mutation("`..` and links are resolved", "neither is", OUTPUT_ROOT_PY,
        "real, real_root = path.resolve(), root.resolve()",
        "real, real_root = path.absolute(), root.resolve()",
        OUTPUT_ROOT + "test_an_output_outside_the_root_is_refused_through_dots_and_links_too"),
    Mutation("links in `.imagemill`", "not looked at", OUTPUT_ROOT_PY,
        "check_path_within(link, Path(root))", "pass",
        OUTPUT_ROOT + "test_a_link_inside_the_output_that_leads_out_of_the_root_is_refused"),
    Mutation("links in the spool", "not looked at", OUTPUT_ROOT_PY,
        "for folder in (output.private, output.spool):", "for folder in (output.private,):",
        OUTPUT_ROOT + "test_a_shards_spool_that_leads_out_of_the_root_is_refused"),
    Mutation("attempts are closed where no link leads", "links are followed", LOCAL_PY,
        "if shard.is_symlink():", "if False:",
        OUTPUT + "test_attempts_are_closed_in_the_output_and_not_where_a_link_leads"),
    Mutation("files that are appended to are no links", "followed", "jobs/plain_file.py",
        "flags | os.O_CREAT | os.O_NOFOLLOW", "flags | os.O_CREAT",
        "tests/jobs/output/test_output_lock.py::"
        "test_a_link_in_the_place_of_the_lock_is_not_followed"),
    Mutation("a job's id is no path", "any id", "jobs/output/job_files.py",
        r'if not re.fullmatch(r"[\w.-]+-\d+", self.job_id, re.ASCII):', "if False:",
        "tests/jobs/output/test_job_files.py::"
        "test_a_job_id_that_would_lead_elsewhere_is_refused"),
    Mutation("latents are named by a hash", "any name", "jobs/inputs/latents.py",
        "if not _DIGEST.fullmatch(sha):", "if False:",
        LATENTS + "test_a_hash_that_is_a_path_is_refused"),
    Mutation("files of others are plain", "any file", "jobs/plain_file.py",
        "if not stat.S_ISREG(os.fstat(descriptor).st_mode):", "if False:",
        PLAIN + "test_what_is_no_plain_file_is_not_opened_and_not_waited_for"),
    Mutation("no pipe is waited for", "waited for", "jobs/plain_file.py",
        "os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY", "os.O_RDONLY | os.O_NOCTTY",
        PLAIN + "test_what_is_no_plain_file_is_not_opened_and_not_waited_for"),
    Mutation("files of others have a size that such files have", "any size", "jobs/plain_file.py",
        "    if size > most:\n", "    if False:\n",
        PLAIN + "test_a_file_of_more_bytes_than_it_may_have_is_not_read"),
    Mutation("a committed picture has a plain name", "any name", "jobs/output/stored_shard.py",
        'if not _FILE_NAME.fullmatch(record["file_name"]):', "if False:",
        OUTPUT + "test_a_record_that_imagemill_cannot_have_written_is_named"),
    Mutation("no pickles in the place of weights", "not looked for", MODEL_FOLDER_PY,
        'if is_read and suffixes & PICKLES and ".safetensors" not in suffixes:',
        "if False:",
        MODELS + "test_a_model_whose_loading_could_run_its_code_is_refused_with_the_file"),
    Mutation("no Python files", "not looked for", MODEL_FOLDER_PY,
        'file.suffix == ".py" or ', "",
        MODELS + "test_a_model_whose_loading_could_run_its_code_is_refused_with_the_file"),
    Mutation("no `auto_map`", "not looked for", MODEL_FOLDER_PY,
        'return isinstance(config, dict) and "auto_map" in config', "return False",
        MODELS + "test_a_model_whose_loading_could_run_its_code_is_refused_with_the_file"),
    Mutation("no other library's classes", "any", MODEL_FOLDER_PY,
        "if str(library) not in _LIBRARIES:", "if False:",
        MODELS + "test_a_model_whose_loading_could_run_its_code_is_refused_with_the_file"),
    Mutation("no code in a single file's configuration", "not looked for", SINGLE_FILE_PY,
        "check_harmless(found.folder, held)", "pass",
        SINGLE_FILE + "test_code_in_the_configuration_is_refused"),
    Mutation("no quantised weights in a single file", "not looked for", SINGLE_FILE_PY,
        "if scaled is not None:", "if False:",
        SINGLE_FILE + "test_quantised_weights_are_refused"),
    Mutation("a single file is whole", "cut off", "jobs/model_files/safetensors_header.py",
        "if size < end:", "if False:",
        SINGLE_FILE + "test_a_file_that_is_cut_off_or_damaged_is_refused"),
]  # fmt: skip
