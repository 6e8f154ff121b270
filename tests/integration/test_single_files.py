"""A single-file checkpoint from a manifest to pictures: those of the folder that it was made from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from jobs.models.models import resolve_model
from producer.embedded_redis import EmbeddedRedis
from tests.farm import Farm
from tests.tiny.families import FAMILIES
from tests.tiny.single_files import save_weights, stable_diffusion_weights, stable_diffusion_xl_weights
from tests.warm_python import warm_painter
from worker.cli import command
from worker.encode import read_request

SLOTS = 4
LINES: list[dict[str, Any]] = [
    {"prompt": "a cat", "num_inference_steps": 2, "seed": 1},
    {"prompt": "two dogs on the moon", "num_inference_steps": 4, "guidance_scale": 3.0, "seed": 2},
    {"prompt": "a red house", "num_inference_steps": 3, "seed": 3, "negative_prompt": "blurry"},
]


def render(*asked: str) -> None:
    """`imagemill-worker render`, with as many slots as the job has."""
    environment = {"IMAGEMILL_TORCH_THREADS": "1"}
    done = CliRunner().invoke(command, ["--batch-size", str(SLOTS), "render", *asked], env=environment)
    assert done.exit_code == 0, done.output
    assert "bytes may differ" not in done.output


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("StableDiffusionPipeline", stable_diffusion_weights),
        ("StableDiffusionXLPipeline", stable_diffusion_xl_weights),
    ],
)
def test_a_single_file_is_rendered_as_its_folder_is_and_again_by_itself(
    name: str, weights: Any, redis_server: EmbeddedRedis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    pipeline = FAMILIES[name].build()
    pipeline.save_pretrained(tmp_path / "models" / "whole")
    pipeline.save_pretrained(tmp_path / "models" / "juggernaut.config")
    save_weights(weights(pipeline), tmp_path / "models" / "juggernaut.safetensors")
    for file in (tmp_path / "models" / "juggernaut.config").glob("*/*.safetensors"):
        file.unlink()
    farm = Farm(tmp_path, redis_server)
    farm.python = warm_painter
    own = farm.environment(batch_size=SLOTS)
    del own["IMAGEMILL_REDIS_URL"]
    # Relative to the manifest, as a folder is; a file needs no ./ in front.
    model, output = "models/juggernaut.safetensors", tmp_path / "out"
    manifest = farm.manifest([*LINES], model=model, output=str(output))
    done = farm.run_in(own, "run", manifest, "--gpus", "none")
    assert done.returncode == 0, done.stderr
    metadata = output / "00000" / "metadata.jsonl"
    records = [json.loads(line) for line in metadata.read_text().splitlines()]
    assert [record["text"] for record in records] == [line["prompt"] for line in LINES]
    assert {record["model"] for record in records} == {"juggernaut.safetensors"}
    assert {record["rendered_mode"] for record in records} == {"exact"}

    file = metadata.parent / records[1]["file_name"]
    again, whole = tmp_path / "again.png", tmp_path / "whole.png"
    monkeypatch.chdir(tmp_path)
    render("--from", str(file), "--model", model, "--out", str(again))
    assert again.read_bytes() == file.read_bytes()

    folder = resolve_model(str(tmp_path / "models" / "whole"))
    request = replace(read_request(file), revision=folder.revision).to_json()
    render("--request", request, "--model", folder.model, "--out", str(whole))
    assert np.array_equal(np.asarray(Image.open(file)), np.asarray(Image.open(whole)))
