"""Text, pictures, masks and LoRAs in one job of two workers: bytes follow from the request alone."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from jobs.settings import Settings
from tests.lora_files import random_lora
from tests.mill import Mill
from tests.waiting import WaitUntil
from tests.warm_python import warm_painter
from worker.render import render, reproduction_of

SLOTS = 16
COLOURS = ("red", "blue", "green", "yellow")
CONTROLNET = Path(__file__).parents[2] / "jobs/examples/controlnets/edges"
SEEDS = 10
KEYS: dict[str, Any] = {
    "shard_size": 40,
    "settings": {"num_inference_steps": 3},
    "controlnet": str(CONTROLNET),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pictures, a mask, edges and two LoRAs."""
    made = tmp_path_factory.mktemp("inputs")
    for name, side in (("square", 64), ("wide", 96)):
        picture = Image.new("RGB", (side, 64), "white")
        ImageDraw.Draw(picture).rectangle((16, 16, 44, 44), fill="red")
        picture.save(made / f"{name}.png")
    mask = Image.new("L", (64, 64))
    ImageDraw.Draw(mask).rectangle((0, 0, 31, 63), fill=255)
    mask.save(made / "mask.png")
    edges = Image.new("RGB", (64, 64))
    ImageDraw.Draw(edges).ellipse((18, 18, 46, 46), outline="white")
    edges.save(made / "edges.png")
    for seed, name in enumerate(("striped", "dotted")):
        random_lora(made / f"{name}.safetensors", seed)
    return made


def lines(folder: Path) -> list[dict[str, Any]]:
    """200 images: 40 each of text, image-to-image, inpainting, a ControlNet, and one of two LoRAs."""
    pictures = [str(folder / f"{name}.png") for name in ("square", "wide")]
    loras = [[{"file": str(folder / f"{name}.safetensors"), "scale": 0.8}] for name in ("striped", "dotted")]
    made = []
    for number, colour in enumerate(COLOURS):
        for seed in range(SEEDS):
            line = {"prompt": f"a {colour} circle", "seed": seed}
            other = (number + seed) % 2
            made += [
                line,
                line | {"image": pictures[other], "strength": 0.7},
                line | {"image": pictures[0], "mask_image": str(folder / "mask.png")},
                line | {"control_image": str(folder / "edges.png")},
                line | {"loras": loras[other]},
            ]
    return made


@pytest.fixture(scope="module")
def mill(shared_farm: Any) -> Mill:
    """Two workers with 16 slots and leases of 2 seconds."""
    shared_farm.python = warm_painter
    for name in ("w1", "w2"):
        shared_farm.start_worker(name, "--concurrency", "1", batch_size=SLOTS, lease=2, device="cpu")
    return Mill(shared_farm)


@pytest.fixture(scope="module")
def calm(mill: Mill, folder: Path) -> dict[str, str]:
    """The files of the job when nothing disturbs it."""
    job_id = mill.start(
        "calm", lines(folder), shard_size=40, settings={"num_inference_steps": 3}, controlnet=str(CONTROLNET)
    )
    status = mill.wait(job_id)
    assert (status.outcome, status.done, status.failed) == ("complete", 200, 0)
    hashes = mill.hashes("calm")
    assert len(hashes) == len(set(hashes.values())) == 200
    return hashes


def test_a_worker_that_is_killed_in_the_middle_changes_no_byte(
    mill: Mill, calm: dict[str, str], folder: Path, wait_until: WaitUntil
) -> None:
    shuffled = lines(folder)
    shuffled = [shuffled[index * 7 % 200] for index in range(200)]
    job_id = mill.start(
        "killed", shuffled, shard_size=40, settings={"num_inference_steps": 3}, controlnet=str(CONTROLNET)
    )
    wait_until(lambda: mill.farm.status(job_id).done >= 40, "some shards are done")
    holder = mill.farm.status(job_id).workers[0]
    os.kill(mill.farm.celery_pid(holder.partition("@")[2]), signal.SIGKILL)
    status = mill.wait(job_id)
    assert (status.outcome, status.done, status.failed) == ("complete", 200, 0)
    assert mill.hashes("killed") == calm


def test_each_task_is_rendered_again_from_its_file_with_inputs_found_by_hash(
    mill: Mill, calm: dict[str, str]
) -> None:
    chosen = {}
    for file, record in mill.records("calm"):
        task = tuple(
            name
            for name in ("image", "mask_image", "control_image", "loras")
            if record.get(name) not in (None, "[]")
        )
        chosen.setdefault(task, file)
    assert len(chosen) == 5
    for file in chosen.values():
        again = reproduction_of(file, None)
        assert again.remarks == ()
        settings = Settings(torch_threads=1, device="cpu")
        controlnets = [str(CONTROLNET)] if again.request.control_image else []
        rendered = render(again, None, [mill.folder("calm")], settings, controlnets=controlnets)
        assert rendered == file.read_bytes(), again.request
