"""A host's GPUs, as the driver's library or nvidia-smi lists them."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.errors import SettingsError
from worker.host.gpu_list import Gpu, list_gpus

A, B, C = (f"GPU-0000000{digit}-aaaa-bbbb-cccc-dddddddddddd" for digit in "abc")


@pytest.fixture
def three_gpus(fake_smi: Callable[[str], None]) -> None:
    fake_smi(f'echo "0, {A}"; echo "1, {B}"; echo "2, {C}"')


@pytest.mark.parametrize("body", ["echo 'no driver' >&2; exit 9", "echo 'no driver'; exit 6"])
def test_a_driver_that_does_not_answer_counts_as_no_gpu_and_is_shown(
    body: str, fake_smi: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    fake_smi(body)
    assert list_gpus() == ()
    assert [(r.levelno, r.getMessage()) for r in caplog.records] == [
        (logging.WARNING, "nvidia-smi failed, so no GPU is used: no driver")
    ]


def test_a_listing_that_cannot_be_read_is_refused(fake_smi: Callable[[str], None]) -> None:
    fake_smi("echo '0, [N/A]'")
    with pytest.raises(SettingsError, match=r"cannot read its line '0, \[N/A\]'"):
        list_gpus()


@pytest.mark.usefixtures("three_gpus")
@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        ("2,0", [Gpu(2, C), Gpu(0, A)]),
        (B, [Gpu(1, B)]),
        (B[:12], [Gpu(1, B)]),
        ("", []),
        ("-1", []),
        ("1,7,0", [Gpu(1, B)]),
        ("MIG-1,MIG-2", [Gpu(0, "MIG-1"), Gpu(1, "MIG-2")]),
    ],
)
def test_cuda_visible_devices_narrows_the_list(
    visible: str, expected: list[Gpu], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert list(list_gpus()) == expected


def test_the_drivers_library_is_asked_where_its_package_is_installed(
    fake_smi: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_smi("exit 1")
    (tmp_path / "pynvml.py").write_text(
        "class NVMLError(Exception): pass\n"
        "def nvmlInit(): pass\n"
        "def nvmlShutdown(): pass\n"
        "def nvmlDeviceGetCount(): return 2\n"
        "def nvmlDeviceGetHandleByIndex(i): return i\n"
        f"def nvmlDeviceGetUUID(handle): return [{A!r}, {B!r}][handle]\n"
    )
    monkeypatch.delitem(sys.modules, "pynvml")
    monkeypatch.syspath_prepend(tmp_path)
    assert list_gpus() == (Gpu(0, A), Gpu(1, B))
    del sys.modules["pynvml"]


@pytest.mark.parametrize(
    ("count", "listed", "said"),
    [
        ("return 3", [Gpu(0, A), Gpu(2, B)], "GPU 1 does not answer, so it is left alone: GPU is lost"),
        ("raise NVMLError('unknown')", [Gpu(0, C)], ""),
    ],
)
def test_a_gpu_that_is_lost_and_a_library_that_fails_hide_no_other_gpu(
    count: str,
    listed: list[Gpu],
    said: str,
    fake_smi: Callable[[str], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    fake_smi(f'echo "0, {C}"')
    (tmp_path / "pynvml.py").write_text(
        "class NVMLError(Exception): pass\n"
        "def nvmlInit(): pass\n"
        "def nvmlShutdown(): pass\n"
        f"def nvmlDeviceGetCount(): {count}\n"
        "def nvmlDeviceGetHandleByIndex(i):\n"
        "    if i == 1: raise NVMLError('GPU is lost')\n"
        "    return i\n"
        f"def nvmlDeviceGetUUID(handle): return {{0: {A!r}, 2: {B!r}}}[handle]\n"
    )
    monkeypatch.delitem(sys.modules, "pynvml")
    monkeypatch.syspath_prepend(tmp_path)
    assert list(list_gpus()) == listed
    assert said in caplog.text
    del sys.modules["pynvml"]
