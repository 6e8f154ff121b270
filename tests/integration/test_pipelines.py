"""Folders of diffusers' pipelines, from a manifest to pictures: as its own call paints, also after a kill."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from diffusers import DDIMScheduler, DiffusionPipeline, UniPCMultistepScheduler
from PIL import Image

from jobs.settings import Settings
from producer.embedded_redis import EmbeddedRedis
from producer.job_queue import JobQueue
from producer.requests.prepared import prepare
from producer.submit.submit import submit_manifest
from tests.farm import Farm
from tests.faults.arming import FOLDER, Order, OrderBook
from tests.tiny.families import FAMILIES
from tests.trouble import TROUBLED
from tests.warm_python import warm_painter
from worker.cli import command

ROOT = Path(__file__).parents[2]
SLOTS = 8
PROMPTS = ("a cat", "two dogs on the moon, an oil painting in the manner of a child", "x", "a red house")


def mix(schedulers: Sequence[str], variants: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every variant with every scheduler, with other prompts, steps and seeds."""
    return [
        {"prompt": prompt, "scheduler": scheduler, "num_inference_steps": 2 + seed % 4, "seed": seed}
        | variant
        for seed, ((scheduler, variant), prompt) in enumerate(
            zip(itertools.product(schedulers, variants), itertools.cycle(PROMPTS), strict=False)
        )
    ]


@dataclass(frozen=True, slots=True)
class Tiny:
    """A family of tiny pipelines, and a job of it."""

    class_name: str
    lines: list[dict[str, Any]]
    plain: Mapping[int, dict[str, Any]]
    """What diffusers' own call is given besides prompt, size, steps and seed, for two of the lines."""


_SHORT = {"max_sequence_length": 64}
_OFF = {"clip_sample": False}
"""Latents are never confined to [-1, 1], as DDIM does by default."""
_FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
TINY = {
    "sdxl": Tiny(
        "StableDiffusionXLPipeline",
        mix(
            ("default", "DDIM", "Euler a"),
            (
                {"guidance_scale": 7.5, "negative_prompt": "blurry"},
                {"guidance_scale": 1.0},
                {"guidance_scale": 4.0, "arguments": {"guidance_rescale": 0.7, "original_size": [48, 32]}},
            ),
        ),
        {
            2: {"guidance_scale": 4.0, "guidance_rescale": 0.7, "original_size": (48, 32)},
            3: {"guidance_scale": 7.5, "negative_prompt": "blurry", "scheduler": (DDIMScheduler, _OFF)},
        },
    ),
    "flux": Tiny(
        "FluxPipeline",
        mix(
            ("default", "Flow Euler", "Flow UniPC"),
            (
                {"guidance_scale": 3.5, "arguments": _SHORT},
                {"guidance_scale": 1.0, "arguments": _SHORT},
                {"arguments": _SHORT | {"true_cfg_scale": 3.0}, "negative_prompt": "blurry"},
            ),
        ),
        {
            2: _SHORT | {"guidance_scale": 3.5, "true_cfg_scale": 3.0, "negative_prompt": "blurry"},
            7: _SHORT | {"guidance_scale": 1.0, "scheduler": (UniPCMultistepScheduler, _FLOW)},
        },
    ),
    "qwen": Tiny(
        "QwenImagePipeline",
        mix(
            ("default", "Flow Euler", "Flow UniPC"),
            (
                {"guidance_scale": 4.0, "negative_prompt": "blurry, ugly, and of many colours"},
                {"guidance_scale": 1.0},
                {"guidance_scale": 2.0, "negative_prompt": "grey", "arguments": _SHORT},
            ),
        ),
        {
            0: {"true_cfg_scale": 4.0, "negative_prompt": "blurry, ugly, and of many colours"},
            2: _SHORT | {"true_cfg_scale": 2.0, "negative_prompt": "grey"},
        },
    ),
    "pag": Tiny(
        "StableDiffusionPAGPipeline",
        mix(("default", "DDIM"), ({"guidance_scale": 3.0}, {"arguments": {"pag_scale": 2.0}})),
        {0: {"guidance_scale": 3.0}},
    ),
}


FAMILIES_HERE = ["flux", *(pytest.param(name, marks=pytest.mark.soak) for name in ("sdxl", "qwen"))]
"""What no family is treated apart in is tried with one of them; `make soak` tries all."""


class Mill(Farm):
    """One worker that obeys orders, and jobs of the tiny pipelines, each to a folder of its name."""

    worker_command = (sys.executable, "-m", "tests.faults.armed_worker")
    python = staticmethod(warm_painter)

    def __init__(self, folder: Path, server: EmbeddedRedis) -> None:
        super().__init__(folder, server)
        self._calm: dict[str, dict[str, str]] = {}
        self.book = OrderBook(folder / "orders")
        for name, tiny in TINY.items():
            FAMILIES[tiny.class_name].build().save_pretrained(self.model(name))

    def model(self, family: str) -> Path:
        """A family's folder."""
        return self.folder / "models" / family

    def environment(self, **settings: object) -> dict[str, str]:
        own = super().environment(lease=1.0, batch_size=SLOTS, **settings)
        paths = [path for path in (os.environ.get("PYTHONPATH"), str(ROOT)) if path]
        return own | {"PYTHONPATH": os.pathsep.join(paths), FOLDER: str(self.book.folder)}

    def job(self, family: str, name: str, **keys: Any) -> Path:
        """The manifest of a family's job."""
        lines = keys.pop("lines", TINY[family].lines)
        return self.manifest(
            lines, name=name, model=str(self.model(family)), output=str(self.folder / name),
            shard_size=64, **keys,
        )  # fmt: skip

    def run(self, family: str, name: str) -> str:
        """`imagemill run` of a family's job, on a Redis of its own; returns the last line that it said."""
        own = self.environment()
        del own["IMAGEMILL_REDIS_URL"]
        done = self.run_in(own, "run", self.job(family, name), "--gpus", "none")
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()[-1]

    def render(self, family: str, name: str, order: Order | None = None) -> str:
        """The same by the one worker, which obeys an order meanwhile; returns the job's id."""
        met = None if order is None else self.book.give(order)
        if not self.workers:
            self.begin("w1")
        job_id = self.send(self.job(family, name))
        status = self.finished(job_id)
        lines = len(TINY[family].lines)
        assert (status.outcome, status.done) == ("complete", lines), self.log("w1")[-3000:]
        if met is not None:
            assert self.book.meeting(met) is not None, "the order was carried out"
        return job_id

    def begin(self, name: str) -> None:
        """Starts a worker that obeys orders."""
        self.start_worker(name, "--clock", "0")

    def end(self) -> None:
        """Ends every worker; the next job has another."""
        self.stop()
        self.workers.clear()

    def send(self, manifest: Path) -> str:
        """Submits a manifest; returns the job's id."""
        return submit_manifest(prepare(manifest, Settings()), JobQueue.at(self.server.url)).job_id

    def calm(self, family: str) -> dict[str, str]:
        """The files of a family's job as they are without misfortune; see `hashes`."""
        if family not in self._calm:
            self.render(family, f"calm-{family}")
            self._calm[family] = self.hashes(f"calm-{family}")
        return self._calm[family]

    def pictures(self, name: str) -> list[tuple[Path, dict[str, Any]]]:
        """Each picture's file and metadata, in the manifest's order."""
        shards = sorted((self.folder / name).glob("[0-9]*/metadata.jsonl"))
        return [
            (shard.parent / record["file_name"], record)
            for shard in shards
            for record in map(json.loads, shard.read_text().splitlines())
        ]

    def hashes(self, name: str) -> dict[str, str]:
        """image_id -> SHA-256 of the file; nothing else lies in the shards."""
        pictures = self.pictures(name)
        files = {file for file in (self.folder / name).glob("[0-9]*/[!.]*") if file.name != "metadata.jsonl"}
        assert {file for file, _record in pictures} == files
        hashes = {
            record["image_id"]: hashlib.sha256(file.read_bytes()).hexdigest() for file, record in pictures
        }
        assert len(hashes) == len(files)
        return hashes


@pytest.fixture(scope="module")
def mill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mill]:
    folder = tmp_path_factory.mktemp("mill")
    with (
        EmbeddedRedis(folder=folder / "redis") as server,
        pytest.MonkeyPatch.context() as environment,
    ):
        environment.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        mill = Mill(folder, server)
        yield mill
        mill.stop()


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def check_metadata(mill: Mill, family: str, name: str, mode: str = "exact") -> None:
    """Every record says what the manifest's line does."""
    records = [record for _file, record in mill.pictures(name)]
    for line, record in zip(TINY[family].lines, records, strict=True):
        arguments = json.loads(record.get("arguments", "{}"))
        expected = {"negative_prompt": "", "arguments": {}} | line
        asked = record | {"prompt": record["text"], "arguments": arguments}
        assert {key: asked[key] for key in expected} == expected
        assert record["rendered_mode"] == mode
        assert record["rendered_precision"] == "fp32"
        assert mode == "alone" or record["rendered_rows"] == SLOTS
    assert {record["model"] for record in records} == {family}


def check_plain(mill: Mill, family: str, name: str) -> None:
    """Two pictures are those of diffusers' own call, to one step of 256."""
    pictures = mill.pictures(name)
    for index, arguments in TINY[family].plain.items():
        pipeline = DiffusionPipeline.from_pretrained(mill.model(family))
        pipeline.set_progress_bar_config(disable=True)
        given = dict(arguments)
        if "scheduler" in given:
            scheduler, options = given.pop("scheduler")
            pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config, **options)
        line = TINY[family].lines[index]
        plain = pipeline(
            prompt=line["prompt"], height=64, width=64, num_inference_steps=line["num_inference_steps"],
            generator=torch.Generator().manual_seed(line["seed"]), **given,
        ).images[0]  # fmt: skip
        ours = Image.open(pictures[index][0])
        difference = np.asarray(ours, dtype=int) - np.asarray(plain, dtype=int)
        assert np.abs(difference).max() <= 1, (family, index)


def check_rendered_again(mill: Mill, family: str, file: Path) -> None:
    """`imagemill-worker render --from FILE` gives the same bytes."""
    again = mill.folder / "again.png"
    asked = ["render", "--from", str(file), "--model", str(mill.model(family)), "--out", str(again)]
    done = CliRunner().invoke(command, asked, env={"IMAGEMILL_TORCH_THREADS": "1"})
    assert done.exit_code == 0, done.output
    assert "bytes may differ" not in done.output
    assert again.read_bytes() == file.read_bytes()


@pytest.mark.parametrize("family", FAMILIES_HERE)
def test_one_command_renders_a_folder_and_the_next_one_renders_nothing(mill: Mill, family: str) -> None:
    name = f"run-{family}"
    count = len(TINY[family].lines)
    assert mill.run(family, name).startswith(f"finished: {count} images")
    check_metadata(mill, family, name)
    check_plain(mill, family, name)
    before = mill.hashes(name)
    assert f"0 images in {mill.folder / name}; {count} were already there" in mill.run(family, name)
    assert mill.hashes(name) == before


@pytest.mark.parametrize("family", FAMILIES_HERE)
def test_a_worker_killed_in_the_middle_changes_no_byte(mill: Mill, family: str) -> None:
    name = f"killed-{family}"
    metadata = f"*/{name}/.imagemill/spool/*/metadata/*.json"
    mill.render(family, name, Order("after rename", "kill", matching=metadata, nth=3))
    assert re.search(rf"job={name}\S* .* [1-9]\d* adopted", mill.log("w1"))
    calm = mill.calm(family)
    assert len({*calm.values()}) == len(TINY[family].lines)
    assert mill.hashes(name) == calm
    for job in (name, f"calm-{family}"):
        check_metadata(mill, family, job)
    check_plain(mill, family, name)
    check_rendered_again(mill, family, mill.pictures(name)[1][0])


def test_a_pipeline_that_cannot_be_batched_renders_one_image_a_forward(mill: Mill) -> None:
    mill.render("pag", "alone")
    check_metadata(mill, "pag", "alone", mode="alone")
    check_plain(mill, "pag", "alone")
    check_rendered_again(mill, "pag", mill.pictures("alone")[0][0])
    assert "one image a forward (the pipeline replaces the attention of unet" in mill.log("w1")


def test_an_error_between_two_forwards_costs_no_byte_and_out_of_memory_half_of_the_slots(mill: Mill) -> None:
    calm = mill.calm("flux")
    mill.render("flux", "raised", Order("rendered", "raise", error="RuntimeError", nth=2))
    assert mill.hashes("raised") == calm
    mill.render("flux", "out-of-memory", Order("rendered", "raise", error="OutOfMemory", nth=2))
    halved = [one for one in mill.pictures("out-of-memory") if one[1]["rendered_rows"] == SLOTS // 2]
    assert {record["rendered_mode"] for _file, record in halved} == {"exact"}
    check_rendered_again(mill, "flux", halved[-1][0])


@pytest.mark.soak
def test_an_image_that_kills_every_worker_is_found_among_its_neighbours(
    mill: Mill, monkeypatch: pytest.MonkeyPatch
) -> None:
    calm = mill.calm("flux")
    mill.end()
    for name, value in TROUBLED.items():
        monkeypatch.setenv(name, value)
    mill.begin("w2")
    lines = [*TINY["flux"].lines]
    lines.insert(4, {"prompt": "!die", "seed": 5, "arguments": _SHORT})
    status = mill.finished(mill.send(mill.job("flux", "deadly", lines=lines)))
    assert (status.outcome, status.done, status.failed) == ("failures", len(lines) - 1, 1)
    assert "workers died over this shard: rendering" in mill.log("w2")
    assert mill.hashes("deadly") == calm
    mill.end()


def test_verify_finds_a_model_where_its_manifest_had_it_or_where_it_is_named(mill: Mill) -> None:
    mill.calm("flux")
    output, moved = mill.folder / "calm-flux", mill.folder / "moved" / "flux"
    told = ("verify", output, "--sample", "3", "--seed", "1")
    # In every byte; in every pixel from a worker that ran out of memory above: it keeps to half of the slots.
    done = mill.command(*told)
    assert (done.returncode, "3 equal in every" in done.stdout) == (0, True), done.stdout + done.stderr
    moved.parent.mkdir()
    mill.model("flux").rename(moved)
    try:
        done = mill.command(*told)
        assert done.returncode == 2
        [line] = [line for line in done.stdout.splitlines() if "not compared: " in line]
        assert "its model, flux at sha256:" in line
        assert line.endswith("is not found: name its folder or file with --model PATH")
        done = mill.command(*told, "--model", moved)
        assert (done.returncode, "3 equal in every" in done.stdout) == (0, True), done.stdout
    finally:
        moved.rename(mill.model("flux"))
