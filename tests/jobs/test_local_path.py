"""A place in a bucket is refused in a line where a command takes a path of this machine."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from jobs.local_path import LocalPath


@pytest.mark.parametrize("place", ["s3://bucket/set", "gs://bucket/a.yaml", "ftp://host/file"])
def test_what_is_in_a_bucket_is_refused_before_it_is_looked_for(place: str) -> None:
    with pytest.raises(click.BadParameter) as refused:
        LocalPath("a folder").convert(place, None, None)
    assert refused.value.message == f"'{place}' is in a bucket: name a folder of this machine"


def test_a_path_is_as_it_was(tmp_path: Path) -> None:
    assert LocalPath("a folder", file_okay=False).convert(str(tmp_path), None, None) == tmp_path
    assert LocalPath("a file", exists=False, dir_okay=False).convert("new.yaml", None, None) == Path(
        "new.yaml"
    )
    with pytest.raises(click.BadParameter, match="does not exist"):
        LocalPath("a file").convert(str(tmp_path / "gone"), None, None)
