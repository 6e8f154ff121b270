"""Pictures compared: bytes where one hardware promises them, else pixels, with the largest difference."""

from __future__ import annotations

import hashlib
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from producer.verify.comparison import Comparison, Largest, StoredPicture, compare
from producer.verify.not_comparable import NotComparable

AS_THEN = {
    "rendered_precision": "fp32",
    "rendered_rows": 16,
    "rendered_device": "cpu",
    "rendered_versions": {"torch": "2.13.0", "imagemill": "0.1.0"},
    "rendered_mode": "exact",
}


def saved(pixels: np.ndarray, form: str = "png", **rendered: Any) -> StoredPicture:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form)
    sha256 = hashlib.sha256(file.getvalue()).hexdigest()
    return StoredPicture({"image_id": "0" * 16, "sha256": sha256} | AS_THEN | rendered, file.getvalue())


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 200, (48, 64, 3), np.uint8)


def changed(pixels: np.ndarray, by: int) -> np.ndarray:
    other = pixels.copy()
    other[7, 5, 1] += 1
    other[40, 12, 2] += by
    return other


def against(then: StoredPicture, now: StoredPicture, tolerance: int = 0) -> Comparison:
    return compare("00000/000000000.png", then, now, tolerance)


def test_equal_files_of_one_hardware_are_equal_by_bytes(pixels: np.ndarray) -> None:
    found = against(saved(pixels), saved(pixels))
    assert (found.by, found.equal, found.largest, found.because) == ("bytes", True, None, ())


@pytest.mark.parametrize("form", ["png", "webp"])
def test_one_level_of_one_channel_is_told_with_its_place(pixels: np.ndarray, form: str) -> None:
    other = changed(pixels, 3)
    lossless = {"lossless": True} if form == "webp" else {}

    def file(values: np.ndarray) -> StoredPicture:
        data = io.BytesIO()
        Image.fromarray(values).save(data, form, **lossless)
        return StoredPicture(saved(values).record, data.getvalue())

    found = against(file(pixels), file(other), tolerance=255)
    assert not found.equal, "a tolerance does not count where bytes are promised"
    assert found.largest == Largest(3, 12, 40, "blue")
    assert found.differing_pixels == 2
    assert "largest difference 3 of 255 at x=12, y=40 (blue); 2 pixels" in str(found)


@pytest.mark.parametrize(
    ("other", "because"),
    [
        ({"rendered_device": "NVIDIA H200"}, "device: cpu then, NVIDIA H200 now"),
        ({"rendered_rows": 8}, "slots: 16 then, 8 now"),
        ({"rendered_precision": "bf16"}, "precision: fp32 then, bf16 now"),
        ({"rendered_versions": {"torch": "2.14.0", "imagemill": "0.1.0"}}, "torch: 2.13.0 then, 2.14.0 now"),
        ({"rendered_mode": "fast"}, "mode: exact then, fast now"),
        ({"rendered_mode": None}, "mode: exact then, not told now"),
    ],
)
def test_on_other_hardware_pixels_are_compared(
    pixels: np.ndarray, other: dict[str, Any], because: str
) -> None:
    then, now = saved(pixels), saved(changed(pixels, 3), **other)
    found = against(then, now)
    assert (found.by, found.because, found.equal) == ("pixels", (because,), False)
    assert against(then, now, tolerance=2).equal is False
    assert against(then, now, tolerance=3).equal is True
    assert against(then, saved(pixels, **other)).equal is True


def test_mode_fast_promises_no_bytes(pixels: np.ndarray) -> None:
    fast = {"rendered_mode": "fast"}
    found = against(saved(pixels, **fast), saved(changed(pixels, 1), **fast), tolerance=1)
    assert (found.by, found.because, found.equal) == ("pixels", ("mode fast promises no bytes",), True)


def test_a_record_that_says_nothing_of_its_hardware_promises_nothing(pixels: np.ndarray) -> None:
    bare = {"image_id": "0" * 16, "sha256": ""}
    found = against(
        StoredPicture(bare, saved(pixels).data), StoredPicture(bare, saved(changed(pixels, 1)).data)
    )
    assert (found.by, found.because) == ("pixels", ("nothing says how it was rendered",))


def test_other_bytes_with_equal_pixels_differ_where_bytes_are_promised(pixels: np.ndarray) -> None:
    then, now = saved(pixels), saved(pixels)
    with_text = StoredPicture(
        then.record, now.data[:-12] + b"\x00\x00\x00\x00tEXt\x1c\xdf\xa7\xdb" + now.data[-12:]
    )
    found = against(then, with_text)
    assert (found.equal, found.largest) == (False, None)
    assert "all pixels are equal" in str(found)


def test_a_file_that_was_changed_since_it_was_written_is_said_to_be(pixels: np.ndarray) -> None:
    then = StoredPicture(saved(pixels).record, saved(changed(pixels, 9)).data)
    assert "its file is not as it was written" in str(against(then, saved(pixels)))


def test_another_size_differs_and_a_damaged_file_is_not_compared(pixels: np.ndarray) -> None:
    found = against(saved(pixels), saved(pixels[:40]))
    assert (found.equal, found.what) == (False, "sizes 64x48 and 64x40")
    with pytest.raises(NotComparable, match="cannot be read as a picture"):
        against(StoredPicture(saved(pixels).record, b"no picture"), saved(pixels))
