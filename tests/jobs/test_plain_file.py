"""A plain file is read, and what is none is refused at once, whatever it would give."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.file_hash import file_sha256
from jobs.plain_file import open_plain, read_config, read_json, read_plain
from tests.odd_files import DEEP, ODD, cheap, put


@pytest.mark.parametrize("kind", [kind for kind in ODD if kind != "sparse"])
def test_what_is_no_plain_file_is_not_opened_and_not_waited_for(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x"
    put(path, kind)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for read in (open_plain, read_plain, read_json, read_config, file_sha256):
        with cheap(tmp_path), pytest.raises(OSError) as caught:
            read(path)
        assert (caught.value.strerror, caught.value.filename) in {
            ("not a plain file", str(path)),
            ("No such device or address", str(path)),
        }
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_folder_is_none_and_a_link_to_a_file_is_that_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="not a plain file"):
        open_plain(tmp_path)
    (tmp_path / "x").write_bytes(b"contents")
    (tmp_path / "link").symlink_to("x")
    assert read_plain(tmp_path / "link") == b"contents"
    with pytest.raises(FileNotFoundError):
        read_plain(tmp_path / "y")


def test_a_file_of_more_bytes_than_it_may_have_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"12345")
    assert read_plain(path, 5) == b"12345"
    with pytest.raises(OSError, match="larger than 4 bytes"):
        read_plain(path, 4)
    put(path, "sparse")
    for read in (read_plain, read_json, read_config):
        with cheap(tmp_path), pytest.raises(OSError, match=r"larger than \d+ MiB"):
            read(path)
    # Of these the system says that they are empty.
    with pytest.raises(OSError, match="larger than 10 bytes"):
        read_plain(Path("/proc/self/status"), 10)


def test_json_that_no_program_writes_is_a_value_error(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    for text in (DEEP, b"{", b"\xff\xfe\xfa", b"1" * 5000):
        path.write_bytes(text)
        with cheap(tmp_path), pytest.raises(ValueError):
            read_json(path)
