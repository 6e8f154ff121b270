from __future__ import annotations

import errno
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from safetensors.numpy import save_file

from jobs.errors import LatentsError, OutputError
from jobs.inputs.latents import check_latents, latents_sha256, read_input, read_latents, write_input
from jobs.models.models import ModelRef
from tests.odd_files import ODD, cheap, put

MODEL = ModelRef("shapes-random", "shapes-random", "shapes-random-1", 4, 4)
VALUES = np.random.default_rng(0).standard_normal((4, 16, 16)).astype(np.float32)


def _npy(folder: Path, array: np.ndarray) -> Path:
    np.save(folder / "a.npy", array)
    return folder / "a.npy"


def test_the_same_values_have_one_hash_whatever_the_file(tmp_path: Path) -> None:
    sha = latents_sha256(VALUES)
    for array in (
        VALUES,
        VALUES[None],
        VALUES.astype(">f4"),
        VALUES.astype(np.float64),
        np.asfortranarray(VALUES),
    ):
        assert latents_sha256(read_latents(_npy(tmp_path, array))) == sha
    save_file({"x": VALUES}, tmp_path / "a.safetensors")
    assert latents_sha256(read_latents(tmp_path / "a.safetensors")) == sha
    save_file({"latents": VALUES[None], "other": VALUES * 2}, tmp_path / "a.safetensors")
    assert latents_sha256(read_latents(tmp_path / "a.safetensors")) == sha


def test_other_values_or_another_shape_have_another_hash() -> None:
    sha = latents_sha256(VALUES)
    assert latents_sha256(VALUES.reshape(4, 8, 32)) != sha
    assert latents_sha256(VALUES + np.float32(1e-3)) != sha


def test_half_precision_files_are_read(tmp_path: Path) -> None:
    halves = VALUES.astype(np.float16)
    assert (read_latents(_npy(tmp_path, halves)) == halves.astype(np.float32)).all()
    upper = (VALUES.view(np.uint32) >> 16).astype(np.uint16)
    tensor = {"dtype": "BF16", "shape": VALUES.shape, "data_offsets": [0, upper.nbytes]}
    header = json.dumps({"x": tensor}).encode()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + upper.tobytes())
    expected = (VALUES.view(np.uint32) & 0xFFFF0000).view(np.float32)
    assert (read_latents(tmp_path / "a.safetensors") == expected).all()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 16, 16), np.int64), "holds int64: save it as float32"),
        (np.zeros((4, 16, 16), np.complex64), "holds complex64"),
        (np.zeros((2, 4, 16, 16), np.float32), r"has shape \[2, 4, 16, 16\]: save one image's latents"),
        (np.zeros((16, 16), np.float32), r"has shape \[16, 16\]"),
        (np.zeros((0, 16, 16), np.float32), r"has shape \[0, 16, 16\]"),
        (np.full((4, 16, 16), np.nan, np.float32), "not finite"),
        (np.full((4, 16, 16), 1e300), "not finite in float32"),
        (np.array({"a": 1}, dtype=object), "cannot be read as .npy"),
    ],
)
def test_an_array_that_is_no_latents_is_refused(tmp_path: Path, array: np.ndarray, message: str) -> None:
    with pytest.raises(LatentsError, match=message):
        read_latents(_npy(tmp_path, array))


@pytest.mark.parametrize(
    ("name", "contents", "message"),
    [
        ("a.npy", b"", "is not a .npy file"),
        ("a.npy", b"PK\x03\x04", "is not a .npy file"),
        ("a.npy", b"\x93NUMPY\x01\x00\x10", "cannot be read as .npy"),
        ("a.safetensors", b"nonsense", "is not a .safetensors file"),
        ("a.pt", b"", "must end in .npy or .safetensors"),
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path: Path, name: str, contents: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(contents)
    with pytest.raises(LatentsError, match=message):
        read_latents(tmp_path / name)


def test_a_cut_off_npy_is_refused(tmp_path: Path) -> None:
    path = _npy(tmp_path, VALUES)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(LatentsError, match=r"cannot be read as \.npy"):
        read_latents(path)


def test_a_file_that_is_not_there_and_one_with_two_tensors_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LatentsError, match="there is no such file"):
        read_latents(tmp_path / "none.npy")
    save_file({"a": VALUES, "b": VALUES}, tmp_path / "a.safetensors")
    with pytest.raises(LatentsError, match='holds 2 tensors: save one, or name it "latents"'):
        read_latents(tmp_path / "a.safetensors")


def test_a_shape_that_does_not_fit_names_both_and_the_remedy() -> None:
    check_latents(Path("a.npy"), VALUES, MODEL, 64, 64)
    with pytest.raises(LatentsError) as caught:
        check_latents(Path("a.npy"), VALUES, MODEL, height=64, width=128)
    assert str(caught.value) == (
        "a.npy: has shape [4, 16, 16], but shapes-random at 128x64 takes [4, 16, 32]:"
        " save latents of that shape, or set width 64 and height 64"
    )


def test_a_wrong_number_of_channels_is_not_blamed_on_the_size() -> None:
    with pytest.raises(LatentsError) as caught:
        check_latents(Path("a.npy"), VALUES[:3], MODEL, 64, 64)
    assert str(caught.value).endswith("takes [4, 16, 16]: save latents of that shape")


def test_a_model_of_unknown_form_takes_any_shape() -> None:
    check_latents(Path("a.npy"), VALUES, ModelRef("instant", "instant", "instant-1", None, None), 512, 512)


@settings(max_examples=25, deadline=None)
@given(
    npst.arrays(np.float32, st.tuples(*[st.integers(1, 4)] * 3), elements=st.floats(-1024, 1024, width=32))
)
def test_what_is_kept_by_hash_is_read_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory,
    array: np.ndarray,
) -> None:
    folder = tmp_path_factory.mktemp("inputs")
    sha = write_input(folder, array)
    assert read_input(folder, sha).tobytes() == array.tobytes()
    assert [file.name for file in folder.iterdir()] == [f"{sha}.npy"]


def test_keeping_the_same_latents_again_mends_a_damaged_copy(tmp_path: Path) -> None:
    sha = write_input(tmp_path / "inputs", VALUES)
    np.save(tmp_path / "inputs" / f"{sha}.npy", VALUES * 2)
    with pytest.raises(LatentsError, match="does not hold what its name says"):
        read_input(tmp_path / "inputs", sha)
    assert write_input(tmp_path / "inputs", VALUES) == sha
    assert (read_input(tmp_path / "inputs", sha) == VALUES).all()


def test_a_hash_that_is_a_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LatentsError, match="is not a SHA-256"):
        read_input(tmp_path, "../a")


def test_latents_that_the_system_does_not_let_us_read_are_the_outputs_trouble_not_the_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha = write_input(tmp_path, VALUES)

    def unreadable(_path: Path, _most: int) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("jobs.inputs.latents.read_plain", unreadable)
    with pytest.raises(OutputError, match=rf"{sha}.npy: cannot be read \(Input/output error\): make"):
        read_input(tmp_path, sha)
    with pytest.raises(LatentsError, match="cannot be read: Input/output error"):
        read_latents(tmp_path / f"{sha}.npy")
    monkeypatch.undo()
    with pytest.raises(LatentsError, match="there is no such file"):
        read_input(tmp_path, "0" * 64)


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("suffix", [".npy", ".safetensors"])
def test_what_is_no_file_of_latents_is_not_waited_for_or_read_without_end(
    tmp_path: Path, suffix: str, kind: str
) -> None:
    path = tmp_path / f"a{suffix}"
    put(path, kind)
    with cheap(tmp_path), pytest.raises(LatentsError) as caught:
        read_latents(path)
    assert str(caught.value).startswith(f"{path}: ")
    kept = tmp_path / f"{'0' * 64}.npy"
    put(kept, kind)
    with cheap(tmp_path), pytest.raises((LatentsError, OutputError)):
        read_input(tmp_path, "0" * 64)


def _npy_of(header: bytes, version: bytes = b"\1\0") -> bytes:
    size = len(header).to_bytes(2 if version == b"\1\0" else 4, "little")
    return b"\x93NUMPY" + version + size + header + bytes(64)


@pytest.mark.parametrize("version", [b"\1\0", b"\2\0", b"\3\0", b"\xff\xff"])
@pytest.mark.parametrize(
    "header",
    [
        b"(" * 9_000, b"((((", b"[" * 200, b"'", b"\0", b"{" * 500, b"-" * 9_000 + b"1", b"\xff", b"",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999, 9999999999)}",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (4, 262144, 262144)}",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (-4, -1, 1)}",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (True, 1, 1)}",
        b"{'descr': '|V0', 'fortran_order': False, 'shape': (9999999999, 9999999999)}",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (" + b"1, " * 100 + b")}",
        b"{'descr': '|O', 'fortran_order': False, 'shape': (1, 1, 1)}",
        b"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1, 1, 1)}",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (1e999,)}",
        b"{'descr': 'x', 'fortran_order': False, 'shape': (1,)}",
    ],
    ids=lambda header: header[-30:].decode("ascii", "replace"),
)  # fmt: skip
def test_a_header_that_numpy_never_wrote_is_refused_and_takes_no_memory(
    tmp_path: Path, header: bytes, version: bytes
) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(_npy_of(header, version))
    with cheap(tmp_path), pytest.raises(LatentsError) as caught:
        read_latents(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert len(message) < 500 and message.isprintable()
