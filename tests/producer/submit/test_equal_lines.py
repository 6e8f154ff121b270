"""Lines that share a picture are rendered once, and each keeps its place."""

from __future__ import annotations

import json

import numpy as np
import pytest

from jobs.output.equal_lines import noted_lines
from jobs.output.job_files import JobFiles
from jobs.output.lines import line_key
from producer.submit.report import print_submitted
from tests.producer.submit.desk import Desk


def noted(desk: Desk, job_id: str) -> list[tuple[int, str | None]]:
    """Place and id of the lines that share a picture, as the job's finishing finds them."""
    return [(one.index, one.id) for one in noted_lines(desk.output, job_id)]


def test_lines_of_one_picture_are_rendered_once_and_noted_with_their_places(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    cat = {"prompt": "a cat", "seed": 7}
    done = desk.submit([cat | {"id": "1"}, "a dog", cat | {"id": "2"}, cat | {"id": "1"}, "a bird", cat])
    assert (done.images, done.equal_lines, done.added_lines, done.duplicates) == (3, 2, 0, 1)
    assert sorted(desk.stored("cats-1")) == [0, 1, 3]
    assert noted(desk, "cats-1") == [(2, "2"), (4, None)]
    print_submitted(done)
    said = "cats-1: 5 lines, 3 pictures: 2 lines share a picture with an equal one"
    assert said in capsys.readouterr().out.splitlines()


def test_a_line_whose_picture_is_there_under_another_id_is_noted_and_submitting_again_notes_nothing(
    desk: Desk,
) -> None:
    def lines(*ids: str) -> list[dict[str, object]]:
        return [{"prompt": f"a {id[0]}", "seed": 7, "id": id} for id in ids]

    desk.write(lines("a1", "b1", "c1"))
    desk.put_in_output(0, desk.asked())
    metadata = desk.output.metadata_file(0)
    records = [json.loads(text) for text in metadata.read_text().splitlines()]
    for record, id in zip(records, ("a1", "b1", "c1"), strict=True):
        record["id"] = id
    metadata.write_text("".join(json.dumps(record) + "\n" for record in records))
    done = desk.submit(lines("a1", "b1", "c1"))
    assert (done.images, done.held, done.added_lines) == (0, 3, 0)
    assert not desk.output.store.exists(JobFiles(desk.output, "cats-1").equal_lines)
    desk.finish()
    done = desk.submit(lines("c1", "b2", "d1", "a1"))
    assert (done.images, done.held, done.added_lines) == (1, 3, 1)
    assert noted(desk, "cats-2") == [(1, "b2")]
    # What is there says the places of its own job: the order is kept beside it.
    assert desk.output.store.size(JobFiles(desk.output, "cats-2").line_order) == 4 * 8
    assert not desk.output.store.exists(JobFiles(desk.output, "cats-3").line_order)


def test_the_order_of_many_lines_is_kept_whole(desk: Desk) -> None:
    desk.write(9_000, shard_size=3_000)
    first, *_ = asked = desk.asked()
    desk.put_in_output(0, [first])
    assert desk.submit(9_000, shard_size=3_000).held == 1
    kept = desk.output.store.read(JobFiles(desk.output, "cats-1").line_order)
    keys = [line_key(one.request.image_id, one.id, one.columns) for one in asked]
    assert np.frombuffer(kept, "<u8").tolist() == keys
