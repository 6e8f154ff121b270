"""An output in a bucket has the pages that it has in a folder."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from jobs.output.output import Output
from jobs.output.webdataset import TarShard
from producer.serve.gallery.filter import Filter, WrongFilter
from producer.serve.gallery.gallery_output import GalleryOutput
from producer.serve.gallery.line import Cursor, Line

Rendered = Callable[..., Output]
Look = Callable[[Output], GalleryOutput]


def told(lines: list[Line]) -> list[tuple[object, ...]]:
    """What is on a page, without how it is spelled."""
    return [(*line.place, line.text, line.seed, line.reason) for line in lines]


def test_a_bucket_has_the_same_pages_pictures_and_records(
    rendered: Rendered, gallery: Look, bucket: str
) -> None:
    here = gallery(rendered(8, failed=(2,), layout="webdataset"))
    there = gallery(rendered(8, failed=(2,), layout="webdataset", place=f"s3://{bucket}/foxes"))
    for taken in (Filter(), Filter(text="fox 5"), Filter(failed=True), Filter(seed=1)):
        one, other = (looked.page(taken=taken, budget=60).lines for looked in (here, there))
        assert told([*one]) == told([*other])
    for place in (Cursor(0, 0), Cursor(0, 2), Cursor(1, 3), Cursor(5, 0)):
        assert here.picture(place) == there.picture(place)
        assert here.record(place) == there.record(place)
    for taken in (Filter(), Filter(text="fox 1"), Filter(failed=True)):
        one, other = (looked.before(Cursor(1, 2), taken, 4).lines for looked in (here, there))
        assert told([*one]) == told([*other])
    assert there.known.check(Filter(column="seed", value="1")) == ""
    with pytest.raises(WrongFilter, match="column = zzz: no image here has it; there are prompt"):
        there.known.check(Filter(column="zzz", value="x"))
    assert there.extent() == here.extent()


def test_places_in_a_tar_are_those_of_its_files_in_a_bucket_too(rendered: Rendered, bucket: str) -> None:
    for place in (None, f"s3://{bucket}/foxes"):
        output = rendered(4, failed=(0,), layout="webdataset", place=place)
        tar = TarShard(output.store, 0, output.names)
        places = [*tar.places()]
        assert [one.file_name for one in places] == [one["file_name"] for one in output.records(0)]
        pictures = dict(output.pictures(0, {one.file_name for one in places}))
        assert [*tar.read_at(one.picture for one in places)] == [*pictures.values()]
        assert [tar.record_at(one.json) for one in places] == [*output.records(0)]
