"""Which GPUs this process may use. torch is not imported: it would take a part of each."""

from __future__ import annotations

import importlib
import logging
import os
import re
import shutil
import subprocess
from dataclasses import dataclass

from jobs.errors import SettingsError

_log = logging.getLogger(__name__)
_LIST_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU: its number in nvidia-smi's order, and the UUID that names it in any order."""

    index: int
    uuid: str


def list_gpus() -> tuple[Gpu, ...]:
    """The NVIDIA GPUs that this process may use, by nvidia-ml-py where it is installed, else nvidia-smi.

    A CUDA_VISIBLE_DEVICES that is set already (by Slurm, say) narrows the list; MIG slices are listed only
    when it names them. Its numbers are nvidia-smi's, as CUDA's own are with CUDA_DEVICE_ORDER=PCI_BUS_ID. A
    driver that does not answer counts as no GPU, with a warning, and so does one GPU that does not.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = _list_by_nvml()
    if gpus is None:
        gpus = _list_by_nvidia_smi()
    if visible is None:
        return gpus
    chosen: list[Gpu] = []
    for position, token in enumerate(part.strip() for part in visible.split(",")):
        if token.startswith("MIG-"):
            chosen.append(Gpu(position, token))
            continue
        match = [
            gpu
            for gpu in gpus
            if token == str(gpu.index) or (token.startswith("GPU-") and gpu.uuid.startswith(token))
        ]
        if not match:  # as CUDA does: the first one that is not there ends the list
            break
        chosen += match
    return tuple(chosen)


def _list_by_nvml() -> tuple[Gpu, ...] | None:
    """The GPUs by the driver's library; None when the package or the library is not there."""
    try:
        pynvml = importlib.import_module("pynvml")
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    gpus = []
    try:
        for index in range(pynvml.nvmlDeviceGetCount()):
            try:
                handle = pynvml.nvmlDeviceGetHandleByIndex(index)
                gpus.append(Gpu(index, str(pynvml.nvmlDeviceGetUUID(handle))))
            except pynvml.NVMLError as error:  # one that has fallen off the bus
                _log.warning("GPU %d does not answer, so it is left alone: %s", index, error)
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()
    return tuple(gpus)


def _list_by_nvidia_smi() -> tuple[Gpu, ...]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    try:
        listing = subprocess.run(
            [program, "--query-gpu=index,uuid", "--format=csv,noheader"],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_LIST_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        _log.warning("nvidia-smi gave no answer within %d s: its GPUs are left alone", _LIST_SECONDS)
        return ()
    if listing.returncode != 0:
        said = (listing.stdout + listing.stderr).strip() or f"exit status {listing.returncode}"
        _log.warning("nvidia-smi failed, so no GPU is used: %s", said)
        return ()
    gpus = []
    for line in listing.stdout.splitlines():
        index, _, uuid = (part.strip() for part in line.partition(","))
        if not index.isdecimal() or not re.fullmatch(r"GPU-[0-9a-fA-F-]+", uuid):
            raise SettingsError(f"nvidia-smi: cannot read its line {line!r}: use --gpus none for the CPU")
        gpus.append(Gpu(int(index), uuid))
    return tuple(gpus)
