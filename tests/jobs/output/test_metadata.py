import json
import subprocess
import sys

import pytest

from jobs.columns import column_problem
from jobs.entry import Entry
from jobs.output.metadata import Failure, metadata_record, parameters_text, request_of_record
from jobs.request import ImageRequest

REQUEST = ImageRequest(
    prompt="a red fox",
    negative_prompt="blurry",
    height=768,
    width=512,
    num_inference_steps=30,
    guidance_scale=7.0,
    scheduler="DPM++ 2M Karras",
    seed=42,
    model="v1-5",
    revision="6ce0161689b3853acaa03779ec93eafe75a02f4c",
)


def a_record(entry, **changes):
    rendered = {"precision": "fp32", "rows": 16, "versions": {"torch": "2.13.0"}}
    options = {"file_name": "000000000.png", "sha256": "ab" * 32, "job_id": "foxes-1", "rendered": rendered}
    return metadata_record(entry, **{**options, "column_names": [], **changes})


def test_parameters_are_in_a1111_form():
    lines = parameters_text(REQUEST).split("\n")
    assert lines[:2] == ["a red fox", "Negative prompt: blurry"]
    assert lines[2].startswith(
        "Steps: 30, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7.0, Seed: 42, Size: 512x768, "
        "Model hash: 6ce0161689, Model: v1-5, RNG: CPU, Version: imagemill-"
    )
    assert len(lines) == 3


def test_parameters_have_no_negative_line_and_no_schedule_type_where_there_is_none():
    request = ImageRequest(
        prompt="x", seed=1, model="m", revision="sha256:" + "0123456789abcdef" * 4, scheduler="DDIM"
    )
    text = parameters_text(request)
    assert text.startswith("x\nSteps: 50, Sampler: DDIM, CFG scale: 7.5,")
    assert "Model hash: 0123456789," in text


def test_parameter_values_with_commas_colons_or_newlines_are_quoted():
    request = ImageRequest(prompt="x", seed=1, model='Übung, "a": b\n', revision="r")
    quoted = parameters_text(request).split("Model: ")[1].split(", RNG")[0]
    assert quoted == '"Übung, \\"a\\": b\\n"'
    assert json.loads(quoted) == 'Übung, "a": b\n'


def test_a_record_has_the_caption_first_and_gives_the_request_back():
    record = a_record(Entry.of(request=REQUEST, id="fox-1"), flagged="one flat colour")
    assert list(record)[:4] == ["file_name", "text", "image_id", "negative_prompt"]
    assert record["text"] == "a red fox"
    assert record["rendered_precision"] == "fp32"
    assert record["precision"] == "auto"
    assert record["flagged"] == "one flat colour"
    assert "prompt" not in record
    again = request_of_record(json.loads(json.dumps(record)))
    assert again == REQUEST
    assert again.image_id == record["image_id"]


def test_records_have_equal_keys_in_equal_order_whatever_columns_a_line_has():
    names = ["split", "tags"]
    one = a_record(Entry.of(request=REQUEST, columns={"tags": ["a"]}), column_names=names)
    other = a_record(Entry.of(request=REQUEST, id="x", columns={"split": "test"}), column_names=names)
    assert list(one) == list(other)
    assert one["tags"] == ["a"]
    assert other["tags"] is None


@pytest.mark.parametrize(
    "name", ["prompt", "text", "seed", "file_name", "sha256", "image", "mask_file_name", "rendered_rows"]
)
def test_a_column_that_means_something_else_is_refused(name):
    assert name in column_problem(name)
    with pytest.raises(ValueError, match=name):
        a_record(Entry.of(request=REQUEST, columns={name: 1}), column_names=[name])


def test_a_column_of_the_users_own_is_no_problem():
    assert column_problem("split") is None


def test_a_column_that_the_job_does_not_name_is_never_dropped():
    with pytest.raises(ValueError, match="'tags' is not among the columns"):
        a_record(Entry.of(request=REQUEST, columns={"tags": 1}))


def test_a_failure_survives_its_line_of_json():
    entry = Entry.of(request=REQUEST, id="fox-1", columns={"split": "test"})
    failure = Failure(shard=3, position=7, entry=entry, reason="black", job_id="foxes-1", command="render it")
    record = json.loads(failure.to_json())
    assert Failure.from_mapping(record) == failure
    assert record["image_id"] == REQUEST.image_id
    assert record["request"]["prompt"] == "a red fox"


def test_names_and_metadata_need_neither_torch_nor_pillow():
    code = (
        "import jobs.output.output, sys; sys.exit(any(m in sys.modules for m in ('torch', 'PIL', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
