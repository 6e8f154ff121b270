"""A host with two GPUs, and the Redis of its tests."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from producer.embedded_redis import EmbeddedRedis
from tests.processes import runs
from tests.worker.host.host import ROOT, A, B, Host


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., None]) -> Iterator[Host]:
    """A host with two GPUs."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "nvidia-smi").write_text(f'#!/bin/sh\necho "0, {A}"; echo "1, {B}"\n')
    (programs / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (tmp_path / "host").mkdir()
    started = Host(tmp_path / "host", wait_until)
    yield started
    if started.process is not None:
        started.look()
        if started.process.poll() is None:
            started.process.kill()
            started.process.wait()
        for process in started.family:
            if runs(process):
                process.kill()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with EmbeddedRedis() as server:
        yield server.url


@pytest.fixture
def fake_nvml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes a driver's library whose functions are given; before that, none is installed."""
    folder = tmp_path / "library"
    folder.mkdir()
    (folder / "pynvml.py").write_text("raise ImportError")
    monkeypatch.setenv("PYTHONPATH", f"{folder}:{ROOT}")

    def write(body: str) -> None:
        (folder / "pynvml.py").write_text(f"class NVMLError(Exception): pass\n{body}")

    return write


@pytest.fixture
def fake_smi(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake_nvml: Callable[[str], None]
) -> Callable[[str], None]:
    """Makes an nvidia-smi whose body is given; the machine's own, and its library, are out of reach."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    for variable in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
        monkeypatch.delenv(variable, raising=False)

    def write(body: str) -> None:
        (programs / "nvidia-smi").write_text(f"#!/bin/sh\n{body}\n")
        (programs / "nvidia-smi").chmod(0o755)

    return write
