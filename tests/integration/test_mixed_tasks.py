"""Text, pictures, masks and LoRAs in one job: bytes follow from the request alone."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from jobs.models.models import BUILT_IN
from jobs.settings import Settings
from tests.ip_adapter_files import save_image_encoder, save_ip_adapter
from tests.lora_files import random_lora
from tests.mill import Mill
from tests.waiting import WaitUntil
from tests.warm_python import warm_painter
from worker.render import render, reproduction_of
from worker.renderers.pipelines import load_pipeline

SLOTS = 16
COLOURS = ("red", "blue", "green", "yellow")
CONTROLNET = Path(__file__).parents[2] / "jobs/examples/controlnets/edges"
SEEDS = 3
FOLLOWED = 2
"""Of each colour, images that follow a picture by an IP-Adapter."""
IMAGES = len(COLOURS) * (5 * SEEDS + FOLLOWED)
SHARD = 12


def keys(folder: Path) -> dict[str, Any]:
    """What is said of the whole job."""
    return {
        "shard_size": SHARD,
        "settings": {"num_inference_steps": 3},
        "controlnet": str(CONTROLNET),
        "ip_adapter": {"file": str(folder / "ip.safetensors"), "image_encoder": str(folder / "encoder")},
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pictures, a mask, edges, two LoRAs, an IP-Adapter and its image encoder."""
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
    save_image_encoder(made / "encoder")
    unet = load_pipeline("shapes", BUILT_IN["shapes"].revision, "fp32", "cpu").unet
    save_ip_adapter(made / "ip.safetensors", unet)
    return made


def lines(folder: Path) -> list[dict[str, Any]]:
    """IMAGES: 12 each of text, image-to-image, inpainting, a ControlNet, and one of two LoRAs; 8 with an
    IP-Adapter, by itself and beside image-to-image."""
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
            if seed < FOLLOWED:
                follows = {"ip_adapter_image": pictures[1], "ip_adapter_scale": 0.5 + number / 10}
                made.append(line | follows | ({"image": pictures[0]} if seed else {}))
    return made


def begin(farm: Any, name: str) -> None:
    """Starts a worker with 16 slots and leases of 2 seconds."""
    farm.start_worker(name, "--concurrency", "1", batch_size=SLOTS, lease=2, device="cpu")


@pytest.fixture(scope="module")
def mill(shared_farm: Any) -> Mill:
    """One worker: what it learns of the tasks is there for the second."""
    shared_farm.python = warm_painter
    begin(shared_farm, "w1")
    return Mill(shared_farm)


@pytest.fixture(scope="module")
def calm(mill: Mill, folder: Path) -> dict[str, str]:
    """The files of the job when one worker renders it and nothing disturbs it."""
    job_id = mill.start("calm", lines(folder), **keys(folder))
    status = mill.wait(job_id)
    assert (status.outcome, status.done, status.failed) == ("complete", IMAGES, 0)
    hashes = mill.hashes("calm")
    assert len(hashes) == len(set(hashes.values())) == IMAGES
    return hashes


def test_a_worker_that_is_killed_in_the_middle_changes_no_byte(
    mill: Mill, calm: dict[str, str], folder: Path, wait_until: WaitUntil
) -> None:
    begin(mill.farm, "w2")
    shuffled = lines(folder)
    shuffled = [shuffled[index * 7 % IMAGES] for index in range(IMAGES)]
    job_id = mill.start("killed", shuffled, **keys(folder))
    wait_until(lambda: mill.farm.status(job_id).done >= SHARD, "a shard is done")
    holder = mill.farm.status(job_id).workers[0]
    os.kill(mill.farm.celery_pid(holder.partition("@")[2]), signal.SIGKILL)
    status = mill.wait(job_id)
    assert (status.outcome, status.done, status.failed) == ("complete", IMAGES, 0)
    assert mill.hashes("killed") == calm


def test_each_task_is_rendered_again_from_its_file_with_inputs_found_by_hash(
    mill: Mill, calm: dict[str, str], folder: Path
) -> None:
    chosen = {}
    for file, record in mill.records("calm"):
        task = tuple(
            name
            for name in ("image", "mask_image", "control_image", "loras", "ip_adapter_image")
            if record.get(name) not in (None, "[]")
        )
        chosen.setdefault(task, file)
    assert len(chosen) == 7
    for file in chosen.values():
        again = reproduction_of(file, None)
        assert again.remarks == ()
        settings = Settings(torch_threads=1, device="cpu")
        controlnets = [str(CONTROLNET)] if again.request.control_image else []
        encoder = str(folder / "encoder") if again.request.ip_adapter_image else None
        rendered = render(
            again, None, [mill.folder("calm")], settings, controlnets=controlnets, image_encoder=encoder
        )
        assert rendered == file.read_bytes(), again.request


def test_verify_renders_an_image_of_each_task_again_through_the_queue(
    mill: Mill, calm: dict[str, str]
) -> None:
    done = mill.farm.command("verify", mill.folder("calm"), "--sample", "12", "--seed", "5", "--json")
    found = json.loads(done.stdout)
    assert (done.returncode, found["not_compared"], found["differing"]) == (0, [], []), done.stderr
    assert found["equal_bytes"] == found["drawn"] == 12
