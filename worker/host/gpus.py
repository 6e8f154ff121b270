"""Which GPU each worker process of this host may use: `--gpus`, and one lock file per GPU.

A worker that uses a GPU holds an exclusive flock on `locks/UUID` in the runtime folder; the kernel lets go of
it when the last process that holds it dies. Workers that are to share a host's GPUs must see the same
folder: containers mount one volume and set IMAGEMILL_RUNTIME_DIR to it. It must be a local file system.

torch is not imported here: a GPU is pinned by CUDA_VISIBLE_DEVICES before torch is loaded.
"""

from __future__ import annotations

import logging
import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.connection import runtime_folder
from jobs.errors import SettingsError
from jobs.lock import try_lock
from worker.host.gpu_list import Gpu, list_gpus

if TYPE_CHECKING:
    from jobs.settings import Settings

_log = logging.getLogger(__name__)
_POLL = 0.1


@dataclass(frozen=True, slots=True)
class Device:
    """A place for one worker process, held by a lock: a GPU, or the CPU when `gpu` is None."""

    name: str
    """gpu0 or cpu0; with @ and the worker's name it is unique on the host."""
    gpu: Gpu | None
    lock: int
    """The locked file's descriptor: hand it to the child, so that the lock lasts as long as either lives."""

    @property
    def cuda_visible_devices(self) -> str:
        """What the process on this device may see of CUDA; empty hides every GPU."""
        return "" if self.gpu is None else self.gpu.uuid

    def give_up(self) -> None:
        """Let go of this process's hold on the lock."""
        os.close(self.lock)


class GpusClaimed(SettingsError):
    """The GPUs asked for are there, but other workers hold them."""


def claim(gpus: str, name: str, settings: Settings, patience: float = 0.0) -> list[Device]:
    """Lock the devices that `gpus` asks for, for the worker called `name` (its host's name by default).

    `gpus`: "auto" for all GPUs that are free, or one device on the CPU where there is no GPU; "all" that are
    free, and "any" one of them; "none" for the CPU; or numbers as nvidia-smi shows them: "0,1". Raises
    SettingsError, holding nothing, when a GPU is asked for and not there; GpusClaimed when one named, or
    every GPU, stays claimed for `patience` seconds.
    """
    wanted = _parse(gpus)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise SettingsError(f"--name {name}: use letters, digits, '.', '_' and '-' only")
    locks = runtime_folder(settings) / "locks"
    present = () if wanted == "none" else list_gpus()
    if not present and isinstance(wanted, str):
        if wanted in ("all", "any"):
            # A job keeps the kind of device that it began on: a CPU would turn all GPUs away from it.
            raise SettingsError(
                f"--gpus {wanted}: no NVIDIA GPU is here (nvidia-smi shows what is; a container needs the "
                "NVIDIA container toolkit): use --gpus none for the CPU, or auto for a GPU where there is one"
            )
        if wanted == "auto":
            _log.warning("no NVIDIA GPU is here: rendering on the CPU")
        _sweep(locks)
        return [_claim_cpu(name, locks)]
    deadline = time.monotonic() + patience
    while True:
        try:
            if isinstance(wanted, str):
                return _claim_free(present, locks, only_one=wanted == "any")
            return _claim_these(wanted, present, locks)
        except GpusClaimed:
            if time.monotonic() >= deadline:
                raise
        time.sleep(_POLL)


def _claim_free(present: tuple[Gpu, ...], locks: Path, only_one: bool) -> list[Device]:
    devices = []
    for gpu in present:
        lock = _lock(locks / gpu.uuid)
        if lock is not None:
            devices.append(Device(f"gpu{gpu.index}", gpu, lock))
            if only_one:
                break
    if not devices:
        numbers = ", ".join(str(gpu.index) for gpu in present)
        raise GpusClaimed(
            f"--gpus: every GPU of this host ({numbers}) is claimed by another worker (locks in {locks}): "
            "stop one, or use --gpus none for the CPU"
        )
    _log.info("claimed %s, of %d GPUs", ", ".join(device.name for device in devices), len(present))
    return devices


def _parse(gpus: str) -> str | tuple[int, ...]:
    if gpus in ("auto", "all", "any", "none"):
        return gpus
    if not re.fullmatch(r"[0-9]+(,[0-9]+)*", gpus):
        raise SettingsError(f"--gpus {gpus}: must be auto, all, any, none, or numbers such as 0,1")
    numbers = tuple(int(number) for number in gpus.split(","))
    if len(set(numbers)) < len(numbers):
        raise SettingsError(f"--gpus {gpus}: names a GPU twice")
    return numbers


def _claim_these(numbers: tuple[int, ...], present: tuple[Gpu, ...], locks: Path) -> list[Device]:
    by_index = {gpu.index: gpu for gpu in present}
    devices: list[Device] = []
    try:
        for number in numbers:
            if number not in by_index:
                there = ", ".join(str(index) for index in by_index) or "none"
                raise SettingsError(f"--gpus: there is no GPU {number} (there are: {there}); see nvidia-smi")
            gpu = by_index[number]
            lock = _lock(locks / gpu.uuid)
            if lock is None:
                raise GpusClaimed(
                    f"--gpus: GPU {number} is claimed by another worker (lock {locks / gpu.uuid}): "
                    "stop that one, or use --gpus any for a free one"
                )
            devices.append(Device(f"gpu{number}", gpu, lock))
    except SettingsError:
        for device in devices:
            device.give_up()
        raise
    return devices


def _claim_cpu(name: str, locks: Path) -> Device:
    """The first free cpu0, cpu1, …: any number of workers may share the CPU, but not a node name."""
    number = 0
    while (lock := _lock(locks / f"cpu{number}@{name}")) is None:
        number += 1
    return Device(f"cpu{number}", None, lock)


def _sweep(locks: Path) -> None:
    """Remove what workers on the CPU left: each container has a name of its own, and so a file here."""
    found: list[Path] = []
    with suppress(OSError):  # a folder of another user: `_lock` says so
        found += locks.glob("cpu*@*")
    for file in found:
        with suppress(OSError):
            fd = os.open(file, os.O_RDONLY)
            try:
                if try_lock(fd):
                    file.unlink()
            finally:
                os.close(fd)


def _lock(file: Path) -> int | None:
    """The descriptor of `file`, locked; None when another process holds the lock.

    Opened for reading, so that users who share the folder need no right to write each other's files.
    """
    while True:
        try:
            file.parent.mkdir(exist_ok=True)
            fd = os.open(file, os.O_RDONLY | os.O_CREAT, 0o644)
        except OSError as error:
            raise SettingsError(
                f"{file}: cannot be opened as a lock ({error.strerror}): {_remedy(file.parent)}"
            ) from None
        if not try_lock(fd):
            os.close(fd)
            return None
        # Another worker may have swept it since it was opened: a lock on what has no name keeps nobody out.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(fd), file.stat()):
                return fd
        os.close(fd)


def _remedy(folder: Path) -> str:
    """What to do about a folder that cannot be written: a volume keeps the owner that it was made with."""
    with suppress(OSError):
        there = folder if os.access(folder, os.F_OK) else folder.parent
        owner, mine = there.stat().st_uid, os.geteuid()
        if owner != mine:
            return (
                f"{there} belongs to user {owner}, and this process is user {mine}. If it is a volume, which "
                f"keeps its owner when RUN_AS_UID changes: `chown -R {mine}:{os.getegid()}` it as root, "
                "and the volumes of outputs and cache (docs/deploy.md, Containers, has the command). "
                "Otherwise set IMAGEMILL_RUNTIME_DIR to a folder of yours"
            )
    return "set IMAGEMILL_RUNTIME_DIR to a folder of yours"
