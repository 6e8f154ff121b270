import json

import pytest

from jobs.errors import OutputError
from jobs.output import bucket_client
from jobs.output.bucket_client import Patience
from jobs.output.job_files import JobFiles, next_job_number
from jobs.output.output import Output
from jobs.output.store import Unreachable
from tests.object_store.fault import Action, Fault, Kind


def test_job_numbers_go_on_from_the_report_and_from_the_kept_manifests(tmp_path):
    output = Output(tmp_path)
    output.prepare()
    (tmp_path / "job.json").write_text('{"job_id": "sunsets-4"}')
    assert next_job_number(output, "sunsets") == 5
    JobFiles(output, "sunsets-11").write_manifest({"name": "sunsets"})
    assert next_job_number(output, "sunsets") == 12
    assert next_job_number(output, "sun") == 1
    assert next_job_number(output, "sunsets-11") == 1
    assert json.loads((output.jobs / "sunsets-11.json").read_text()) == {"name": "sunsets"}


def test_a_job_report_that_cannot_be_read_is_not_taken_for_a_damaged_one(tmp_path):
    (tmp_path / "job.json").mkdir()
    with pytest.raises(OutputError, match=r"job\.json cannot be read .*: make it a file"):
        next_job_number(Output(tmp_path), "a")


@pytest.mark.parametrize("kind", [Kind.LIST, Kind.GET])
def test_what_a_store_refuses_is_said_to_be_refused(object_store, bucket, tmp_path, monkeypatch, kind):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    output = Output.at(f"s3://{bucket}/out")
    output.store.replace("job.json", b'{"job_id": "sunsets-4"}')
    object_store.order(Fault(Action.ANSWER, frozenset({kind}), status=403))
    with pytest.raises(OutputError, match=rf"{output.label}/\S* cannot be read \(the store refuses it"):
        next_job_number(output, "sunsets")


def test_a_job_report_that_is_no_json_is_an_output_error(tmp_path):
    (tmp_path / "job.json").write_text("{")
    with pytest.raises(OutputError, match=r"job\.json:1"):
        next_job_number(Output(tmp_path), "a")


@pytest.mark.parametrize(
    "job_id", ["../../../x-1", "/x-1", "", "..", "cats", "a/b-1", "cats-1\0", "cats-1\n"]
)
def test_a_job_id_that_would_lead_elsewhere_is_refused(tmp_path, job_id):
    output = Output(tmp_path / "a" / "b" / "out")
    output.prepare()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OutputError, match="no job's id"):
        JobFiles(output, job_id).write_manifest({})
    assert sorted(tmp_path.rglob("*")) == before


def test_a_store_that_gives_no_answer_is_not_taken_for_a_damaged_report(
    object_store, bucket, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(bucket_client, "PATIENCE", Patience(request=2, repeated=1, pauses=(0.05,)))
    output = Output.at(f"s3://{bucket}/out")
    output.store.replace("job.json", b'{"job_id": "sunsets-4"}')
    assert next_job_number(output, "sunsets") == 5
    object_store.order(Fault(Action.ANSWER, frozenset({Kind.GET}), "job.json"))
    with pytest.raises(Unreachable, match="503"):
        next_job_number(output, "sunsets")
