"""A user who asks for a GPU gets nothing rendered on the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from producer.embedded_redis import EmbeddedRedis

ROOT = Path(__file__).parents[3]
_CODE = """
import sys
from jobs.settings import load_settings
from worker.host.imagemill_worker import run_worker
from worker.host.supervisor import Pace

script = f"echo ${{IMAGEMILL_DEVICE-unset}} > {sys.argv[2]}; exit 2"
pace = Pace(first_pause=0, longest_pause=0)
run_worker(load_settings(), gpu_choice=sys.argv[1], argv=lambda *_: ["/bin/sh", "-c", script], pace=pace)
"""


@pytest.mark.parametrize(
    ("gpus", "set_to", "device"),
    [("any", None, "cuda"), ("0", None, "cuda"), ("auto", None, "unset"), ("none", None, "unset"),
     ("any", "cpu", "cpu")],
)  # fmt: skip
def test_worker_processes_use_cuda_where_a_gpu_was_asked_for(
    redis_server: EmbeddedRedis, tmp_path: Path, gpus: str, set_to: str | None, device: str
) -> None:
    smi = tmp_path / "bin" / "nvidia-smi"
    smi.parent.mkdir()
    smi.write_text("#!/bin/sh\necho '0, GPU-0000000a-aaaa-bbbb-cccc-dddddddddddd'\n")
    smi.chmod(0o755)
    (smi.parent / "pynvml.py").write_text("raise ImportError")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CUDA_")} | {
        "IMAGEMILL_REDIS_URL": redis_server.url,
        "PYTHONPATH": f"{smi.parent}:{ROOT}",
        "PATH": str(smi.parent),
    }
    if set_to is not None:
        environment["IMAGEMILL_DEVICE"] = set_to
    told = tmp_path / "told"
    argv = [sys.executable, "-c", _CODE, gpus, str(told)]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert told.read_text().strip() == device, done.stderr
