"""The checks of pictures and adapters, how each is taken out, and the test that is red then."""

from __future__ import annotations

from tests.faults.mutated.mutation import Mutation

EMBEDDING_FILE_PY = "jobs/adapter_files/embedding_file.py"
INPUTS_PY = "jobs/inputs/inputs.py"

EMBEDDING_FILE = "tests/jobs/adapter_files/test_embedding_file.py::"
INPUTS = "tests/jobs/inputs/test_inputs.py::"
KEEP_INPUTS = "tests/producer/submit/test_keep_inputs.py::"
LORAS = "tests/worker/diffusion/test_loras.py::"
PICTURES = "tests/worker/renderers/test_pictures.py::"
PIPELINE_TASK = "tests/jobs/pipelines/test_pipeline_task.py::"
RENDER = "tests/worker/test_render.py::"
SHARD_ENDS = "tests/worker/shard/test_shard_ends.py::"

CHECKS = [
    Mutation(
        "an adapter is the file that was submitted",
        "not compared",
        INPUTS_PY,
        "if _copied(path, copy) != sha256:",
        "if _copied(path, copy) == '':",
        INPUTS + "test_what_is_another_file_than_was_submitted_is_not_copied",
    ),
    Mutation(
        "a picture is the file that was submitted",
        "not compared",
        INPUTS_PY,
        "if hashlib.sha256(found).hexdigest() != sha256:",
        "if False:",
        INPUTS + "test_what_is_another_file_than_was_submitted_is_not_copied",
    ),
    Mutation(
        "an adapter is loaded from the bytes that were hashed",
        "from its file",
        INPUTS_PY,
        "yield copy",
        "yield path",
        INPUTS + "test_a_copy_keeps_the_verified_bytes_when_its_file_is_written_again_or_removed",
    ),
    Mutation(
        "no input is a pipe or a device",
        "opened as a file",
        "jobs/plain_file.py",
        "if not stat.S_ISREG(os.fstat(descriptor).st_mode):",
        "if False:",
        INPUTS + "test_a_pipe_or_a_missing_file_is_refused_with_its_path",
    ),
    Mutation(
        "what is black in a mask is the original's",
        "what the autoencoder makes of it",
        "worker/diffusion/given_pictures.py",
        "if mask is None or original is None:",
        "if True:",
        PICTURES + "test_what_a_mask_keeps_is_the_originals_to_the_bit",
    ),
    Mutation(
        "a picture that changed since it was hashed is not kept",
        "kept",
        "producer/submit/output_writes.py",
        "if digest.hexdigest() != file.sha256:",
        "if False:",
        KEEP_INPUTS + "test_a_picture_that_changed_since_it_was_hashed_is_not_kept",
    ),
    Mutation(
        "a LoRA's layers have the sizes of the model's",
        "diffusers decides",
        "worker/diffusion/lora_fit.py",
        "if (up[:1], down[1:]) != (outputs, inputs) or any(shape[:1] != outputs for shape in alone):",
        "if False:",
        LORAS + "test_the_layers_themselves_are_compared_as_well_before_diffusers_could_widen_one",
    ),
    Mutation(
        "an embedding has the width of the model's text encoders",
        "not compared",
        EMBEDDING_FILE_PY,
        "if self.widths == tuple(widths):",
        "if True:",
        EMBEDDING_FILE + "test_a_model_of_other_widths_does_not_take_it",
    ),
    Mutation(
        "a token is no word of the model's",
        "not looked up",
        EMBEDDING_FILE_PY,
        'if token in vocabulary or word in vocabulary or f"{word}</w>" in vocabulary:',
        "if False:",
        EMBEDDING_FILE + "test_a_word_of_the_model_is_no_token",
    ),
    Mutation(
        "a request is painted with the ControlNets that it names",
        "with those that are loaded",
        "worker/diffusion/painters.py",
        "if wanted != self._controlnets.revisions:",
        "if False:",
        PICTURES + "test_other_controlnets_than_are_loaded_are_refused",
    ),
    Mutation(
        "a model beside a job's own is of a kind that this version knows",
        "cast",
        "worker/shard/buckets.py",
        "case [role, str(model), str(revision)] if role in roles:",
        "case [role, str(model), str(revision), *_]:",
        SHARD_ENDS + "test_a_job_with_a_further_model_of_another_version_is_refused_with_the_reason",
    ),
    Mutation(
        "what means nothing to a request alone is refused",
        "painted without it",
        "worker/render.py",
        "raise _wrong(where, in_vain)",
        "pass",
        RENDER + "test_a_request_that_is_wrong_is_reported_by_field_value_and_remedy",
    ),
    Mutation(
        "a class gets no strength that it does not take",
        "left out unsaid",
        "jobs/pipelines/pipeline_task.py",
        'if values["strength"] is not None:',
        "if False:",
        PIPELINE_TASK + "test_a_request_that_says_what_its_class_does_not_take_is_refused",
    ),
]
