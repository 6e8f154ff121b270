"""A packed file gives what was packed, or says that it cannot; no end is taken for granted."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from jobs.errors import ManifestError
from producer.manifest.unpacked import unpacked

TEXT = b"".join(b"a fox number %d\n" % number for number in range(20_000))
PACK: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".zst": zstandard.ZstdCompressor(write_checksum=True).compress,
}
SKIPPED = b"\x5a\x2a\x4d\x18\x03\x00\x00\x00abc"
"""A frame of .zst that holds nothing."""


def _read(file: Path, contents: bytes) -> bytes:
    file.write_bytes(contents)
    with unpacked(file) as stream:
        return stream.read()


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".GZ", ".Zst"])
def test_a_file_of_any_number_of_parts_is_unpacked_whole(tmp_path: Path, suffix: str) -> None:
    pack = PACK[suffix.lower()]
    file = tmp_path / f"p.txt{suffix}"
    assert _read(file, pack(TEXT)) == TEXT
    assert _read(file, pack(TEXT) + pack(b"") + pack(b"the end")) == TEXT + b"the end"
    assert _read(file, b"") == b""
    if suffix == ".zst":
        assert _read(file, SKIPPED + pack(TEXT) + SKIPPED) == TEXT


@pytest.mark.parametrize("suffix", PACK)
@pytest.mark.parametrize("lacking", [1, 5, 100])
def test_a_file_that_is_cut_off_is_refused(tmp_path: Path, suffix: str, lacking: int) -> None:
    file = tmp_path / f"p.txt{suffix}"
    with pytest.raises(ManifestError) as caught:
        _read(file, PACK[suffix](TEXT)[:-lacking])
    assert str(caught.value) == (f"{file}: is cut off, the packed data has no end: copy or download it again")


@pytest.mark.parametrize("suffix", PACK)
def test_what_follows_the_packed_data_and_damage_in_it_are_refused(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"p.txt{suffix}"
    packed = PACK[suffix](TEXT)
    for contents in (packed + b"and more text", packed[:200] + b"\x00\xff" * 20 + packed[240:]):
        with pytest.raises(ManifestError) as caught:
            _read(file, contents)
        assert str(caught.value).startswith(f"{file}: cannot be unpacked to its end (")
        assert str(caught.value).isprintable()


@pytest.mark.parametrize("suffix", PACK)
def test_a_file_that_was_unpacked_under_its_name_says_so(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"p.txt{suffix}"
    with pytest.raises(ManifestError) as caught:
        _read(file, TEXT)
    assert str(caught.value) == f"{file}: is not packed as {suffix}: rename it to p.txt"


def test_a_file_that_is_not_there_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path, what in [(tmp_path / "p.txt", "there is no such file"), (tmp_path, "not a plain file")]:
        with pytest.raises(ManifestError, match=what), unpacked(path):
            pass
