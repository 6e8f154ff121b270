"""How a pipeline's modules run on the device: through torch.compile, and in the channels-last format."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any, cast

import torch

from jobs.errors import SettingsError


def require_compiler() -> None:
    """Raises SettingsError where torch.compile finds no compiler, or no headers of Python, for its code.

    Without them every image would fail: its code includes Python.h, for the CPU and for a GPU.
    """
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise SettingsError(
            f"IMAGEMILL_TORCH_COMPILE = 1: there is no compiler {compiler} on this machine: install it, name "
            "another one in CXX, or set IMAGEMILL_TORCH_COMPILE=0"
        )
    headers = sysconfig.get_path("include")
    probe = [compiler, "-fsyntax-only", "-I", headers, "-include", "Python.h", "-x", "c++", os.devnull]
    # A framework's Python on macOS has them elsewhere, where torch looks, too.
    if sys.platform != "darwin" and subprocess.run(probe, capture_output=True, check=False).returncode != 0:
        raise SettingsError(
            f"IMAGEMILL_TORCH_COMPILE = 1: {compiler} finds no Python.h in {headers}: install the headers of "
            "this Python (Debian: python3-dev), or set IMAGEMILL_TORCH_COMPILE=0"
        )


def graph_for_each_shape() -> None:
    """Makes torch.compile build a graph for every shape that comes, however many, with kernels by rule.

    Beyond its limits of graphs torch runs the rest uncompiled: other kernels, so other bytes. Where it times
    kernels that sum in another order and takes the fastest, two workers may take two.
    """
    # Slow to import.
    from torch._dynamo import config as dynamo
    from torch._inductor import config as inductor

    dynamo.recompile_limit = max(_MOST_GRAPHS, dynamo.recompile_limit)
    dynamo.accumulated_recompile_limit = max(_MOST_GRAPHS, dynamo.accumulated_recompile_limit)
    inductor.deterministic = True


_MOST_GRAPHS = 1 << 20


def compile_denoisers(denoisers: Iterable[Any]) -> None:
    """Makes calls of these modules run compiled, in place; each is compiled when a shape is first called.

    Of a model that names its repeated blocks, those alone are compiled: once for all of a kind, which takes a
    fraction of the time. Calls inside `uncompiled` run as before.
    """
    graph_for_each_shape()
    for denoiser in denoisers:
        names = getattr(denoiser, "_repeated_blocks", None) or ()
        blocks = [part for part in denoiser.modules() if type(part).__name__ in names]
        for part in blocks or [denoiser]:
            part.compile(dynamic=False)


def uncompiled() -> AbstractContextManager[object]:
    """Everything inside runs uncompiled and compiles nothing: shapes that come once are not worth minutes."""
    return cast(AbstractContextManager[object], torch.compiler.set_stance("force_eager"))


def to_channels_last(modules: Iterable[torch.nn.Module]) -> bool:
    """Puts the weights of modules that convolve pictures into the channels-last memory format, in place.

    Their activations follow. Says whether there was any: a convolution that only cuts a picture into patches
    is none.
    """
    convolving = [module for module in modules if any(map(_convolves, module.modules()))]
    for module in convolving:
        for part in module.modules():
            if isinstance(part, torch.nn.Conv2d):
                part.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return bool(convolving)


def _convolves(part: torch.nn.Module) -> bool:
    return isinstance(part, torch.nn.Conv2d) and max(part.kernel_size) > max(part.stride)
