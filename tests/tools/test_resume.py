from __future__ import annotations

import multiprocessing
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest
import torch

from tools.shapes.grammar import words
from tools.shapes.networks import build_vae
from tools.shapes.progress import load_checkpoint, read_log
from tools.shapes.tokenizer import build_tokenizer
from tools.shapes.train_unet import make_lessons, train_unet
from tools.shapes.train_vae import train_vae

Training = Callable[..., None]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """One torch thread here and in processes to kill: sums depend on how many threads share them."""
    before = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("OMP_NUM_THREADS", "1")
        torch.set_num_threads(1)
        # It imports torch while the first training runs here.
        multiprocessing.set_forkserver_preload(["tools.shapes.train_unet"])
        forkserver.ensure_running()
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=["vae", "unet"])
def name(request: pytest.FixtureRequest) -> str:
    """The training's checkpoint, and its log."""
    return str(request.param)


@pytest.fixture(scope="module")
def train(name: str, tmp_path_factory: pytest.TempPathFactory) -> Training:
    """Small batches, a checkpoint every 3 steps."""
    settings: dict[str, Any] = {"device": torch.device("cpu"), "batch": 2, "save_every": 3}
    if name == "vae":
        return partial(train_vae, **settings)
    vae = build_vae().eval().requires_grad_(False)
    lessons = make_lessons(vae, tmp_path_factory.mktemp("lessons"), 24, 8)
    return partial(train_unet, vae=vae, tokenizer=build_tokenizer(words()), lessons=lessons, **settings)


def test_a_training_killed_and_then_short_of_room_for_a_checkpoint_ends_in_the_same_weights_bit_for_bit(
    name: str, train: Training, tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    whole.mkdir()
    train(folder=whole, steps=12)

    stopped.mkdir()
    checkpoint = stopped / f"{name}.pt"
    run = {"folder": stopped, "steps": 12}
    process = multiprocessing.get_context("forkserver").Process(target=train, kwargs=run)
    process.start()
    wait_until(checkpoint.exists, "its first checkpoint")
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL, "it was to be killed, and had ended"

    before = checkpoint.read_bytes()
    step = torch.load(checkpoint)["step"]
    assert step in (3, 6, 9)
    with files_of_at_most(len(before) // 2), pytest.raises(OSError, match="File too large"):
        train(**run)
    assert checkpoint.read_bytes() == before
    assert read_log(stopped, name)[-1]["step"] == step + 3, "logged, and then not saved"

    train(**run)
    assert bits(load_checkpoint(checkpoint)) == bits(load_checkpoint(whole / checkpoint.name))
    assert without_times(read_log(stopped, name)) == without_times(read_log(whole, name))
    assert sorted(file.name for file in stopped.iterdir()) == sorted(file.name for file in whole.iterdir())


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """What writes a larger file is told so by the system half-way, as by a full disk."""
    before, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, hard))


def without_times(lines: list[dict[str, float]]) -> list[dict[str, float]]:
    """A log's lines without what differs from run to run."""
    return [{key: line[key] for key in line if key not in ("time", "per_s")} for line in lines]


def bits(state: Any, path: str = "") -> dict[str, Any]:
    """A checkpoint's values by their paths, tensors as bytes."""
    if isinstance(state, dict | list | tuple):
        items = state.items() if isinstance(state, dict) else enumerate(state)
        return {key: value for part, below in items for key, value in bits(below, f"{path}/{part}").items()}
    return {path: state.numpy().tobytes() if isinstance(state, torch.Tensor) else state}
