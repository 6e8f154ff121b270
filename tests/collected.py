"""The processes of a whole run of the tests begin as copies of one that has imported what all of them test.

Each process of pytest-xdist imports torch, diffusers and every file of tests for itself, however few of these
it runs.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.warm_python import WarmPython

_ROOT = Path(__file__).parents[1]


def collect() -> None:
    """Imports every file of tests. One that cannot be imported is told by each process."""
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        pytest.main(["--collect-only", "-qq", "--capture=no", "-p", "no:xdist", "-p", "no:cacheprovider"])


@contextlib.contextmanager
def copied_processes() -> Iterator[None]:
    """What starts `python -u -c CODE` meanwhile gets a copy."""
    paths = [str(_ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    python = WarmPython(
        "tests.collected_modules",
        bare=True,
        PYTHONPATH=os.pathsep.join(paths),
        # Without it torch looks for a GPU in a way that no copy could use one afterwards.
        PYTORCH_NVML_BASED_CUDA_CHECK="1",
    )
    ordinary = subprocess.Popen

    def popen(args: list[str], **options: Any) -> subprocess.Popen[Any]:
        # execnet flushes what it writes.
        return python.popen([word for word in args if word != "-u"], **options)

    subprocess.Popen = popen  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        subprocess.Popen = ordinary  # type: ignore[misc]


def imports_everything(config: pytest.Config) -> bool:
    """Whether several processes are about to run every test."""
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    return whole and sys.platform == "linux" and config.pluginmanager.hasplugin("dsession")
