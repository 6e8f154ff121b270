"""A host's GPUs, as the driver's library or nvidia-smi lists them."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.errors import SettingsError
from tests.waiting import WaitUntil
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
        ("NoDevFiles", []),
        ("MIG-1,MIG-2", [Gpu(0, "MIG-1"), Gpu(1, "MIG-2")]),
    ],
)
def test_cuda_visible_devices_narrows_the_list(
    visible: str,
    expected: list[Gpu],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert list(list_gpus()) == expected
    assert not caplog.records


@pytest.mark.usefixtures("three_gpus")
@pytest.mark.parametrize(
    ("visible", "expected", "said"),
    [
        ("1,7,0", [Gpu(1, B)], "7 names no GPU here"),
        (f"{B},GPU-0000000,0", [Gpu(1, B)], "GPU-0000000 names more than one GPU here"),
    ],
)
def test_a_name_of_no_gpu_or_of_several_ends_the_list_as_in_cuda_and_is_told(
    visible: str,
    expected: list[Gpu],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert list(list_gpus()) == expected
    assert said in caplog.text


@pytest.mark.usefixtures("three_gpus")
def test_a_slice_and_a_whole_gpu_have_numbers_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", f"MIG-1,{A}")
    assert list_gpus() == (Gpu(0, "MIG-1"), Gpu(1, A))


@pytest.mark.usefixtures("three_gpus")
def test_numbers_in_an_order_that_only_cuda_knows_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    with pytest.raises(SettingsError, match="name GPUs by UUID"):
        list_gpus()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", B)
    assert list_gpus() == (Gpu(1, B),)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    assert list_gpus() == (Gpu(0, A),)


def test_the_drivers_library_is_asked_where_its_package_is_installed(
    fake_smi: Callable[[str], None], fake_nvml: Callable[[str], None]
) -> None:
    fake_smi("exit 1")
    fake_nvml(
        "def nvmlInit(): pass\n"
        "def nvmlDeviceGetCount(): return 2\n"
        "def nvmlDeviceGetHandleByIndex(i): return i\n"
        f"def nvmlDeviceGetUUID(handle): return [{A!r}, {B!r}][handle]\n"
    )
    assert list_gpus() == (Gpu(0, A), Gpu(1, B))


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
    fake_nvml: Callable[[str], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    fake_smi(f'echo "0, {C}"')
    fake_nvml(
        "def nvmlInit(): pass\n"
        f"def nvmlDeviceGetCount(): {count}\n"
        "def nvmlDeviceGetHandleByIndex(i):\n"
        "    if i == 1: raise NVMLError('GPU is lost')\n"
        "    return i\n"
        f"def nvmlDeviceGetUUID(handle): return {{0: {A!r}, 2: {B!r}}}[handle]\n"
    )
    assert list(list_gpus()) == listed
    assert said in caplog.text


@pytest.mark.parametrize("dies", [True, False])
def test_a_driver_that_hangs_counts_as_no_gpu_even_if_who_asks_it_cannot_be_killed(
    dies: bool,
    fake_smi: Callable[[str], None],
    fake_nvml: Callable[[str], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    wait_until: WaitUntil,
) -> None:
    fake_smi("exit 1")
    fake_nvml(
        "import os, pathlib, time\n"
        "def nvmlInit():\n"
        f"    pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid()))\n"
        "    time.sleep(1000)\n"
    )
    if not dies:  # as while it is stuck in the kernel
        monkeypatch.setattr(subprocess.Popen, "kill", lambda _: None)
    assert list_gpus(patience=2) == ()
    assert "the NVIDIA driver gave no answer within 2 s: its GPUs are left alone" in caplog.text
    if not dies:
        wait_until((tmp_path / "pid").exists, "the library is asked")
        wait_until(lambda: bool((tmp_path / "pid").read_text()), "it says who asks")
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


def test_an_nvidia_smi_that_hangs_counts_as_no_gpu(
    fake_smi: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    fake_smi("exec /bin/sleep 1000")
    assert list_gpus(patience=0.5) == ()
    assert "gave no answer within 0.5 s" in caplog.text
