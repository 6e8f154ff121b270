"""What docs/output.md shows for benchmarks, run as it stands but for the model, and read as they read it."""

from __future__ import annotations

import json
import os
import re
import shlex
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from jobs.output.output import Output
from tests.trouble import TROUBLED
from tests.waiting import LONGEST
from tests.warm_python import BIN, warm_imagemill

PAGE = Path(__file__).resolve().parents[2] / "docs/output.md"
LINES: list[dict[str, Any]] = [
    {
        "tag": "counting",
        "include": [{"class": "fork", "count": 3}],
        "exclude": [{"class": "fork", "count": 4}],
        "prompt": "a photo of three forks",
    },
    {
        "tag": "position",
        "include": [
            {"class": "cow", "count": 1},
            {"class": "bed", "count": 1, "position": ["above", 0]},
        ],
        "prompt": "a photo of a bed above a cow",
    },
    {"tag": "single_object", "include": [{"class": "kite", "count": 1}], "prompt": "a photo of a kite, été"},
]


@pytest.fixture
def exported(tmp_path: Path) -> Any:
    """Runs the manifest and the commands that the page shows for one name; returns the export's folder."""

    def run(name: str) -> Path:
        text = PAGE.read_text("utf-8")
        (manifest,) = re.findall(rf"```yaml\n(# {name}\.yaml\n.*?)```", text, re.DOTALL)
        (commands,) = re.findall(rf"```bash\n(imagemill run {name}\.yaml\n.*?)```", text, re.DOTALL)
        instant = re.sub(r"(?m)^model: .*", "model: instant\nshard_size: 3", manifest)
        (tmp_path / f"{name}.yaml").write_text(
            instant.replace("settings: {", "settings: {height: 64, width: 64, ")
        )
        own = {"MIN_FREE_DISK": "0", "RUNTIME_DIR": str(tmp_path / "runtime"), "TORCH_THREADS": "1"}
        environment = os.environ | {f"IMAGEMILL_{key}": value for key, value in own.items()} | TROUBLED
        for line in commands.splitlines():
            arguments = shlex.split(line)[1:] + (["--gpus", "none"] if " run " in line else [])
            done = warm_imagemill().call(
                [BIN / "imagemill", *arguments], cwd=tmp_path, env=environment, timeout=2 * LONGEST
            )
            assert done.returncode == 0, done.stderr
        return tmp_path / name

    return run


def pictures(output: Output) -> dict[tuple[str | None, str, int], bytes]:
    """Each line's picture: id, prompt and seed -> file."""
    return {
        (record["id"], record["text"], record["seed"]): data
        for shard in output.shards()
        for record in output.records(shard)
        for _, data in output.stored(shard).pictures([record["file_name"]])
    }


def test_geneval_finds_the_samples_of_each_line_below_the_line(tmp_path: Path, exported: Any) -> None:
    (tmp_path / "evaluation_metadata.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in LINES))
    folder = exported("geneval")
    rendered = pictures(Output(tmp_path / "out/geneval"))
    assert sorted(path.name for path in folder.iterdir()) == ["00000", "00001", "00002"]
    for number, line in enumerate(LINES):
        here = folder / f"{number:05d}"
        with (here / "metadata.jsonl").open(encoding="ascii") as file:
            assert json.load(file) == line
        samples = [path.read_bytes() for path in sorted((here / "samples").iterdir())]
        ours = [data for (_, text, _), data in rendered.items() if text == line["prompt"]]
        assert samples == ours
        assert len(samples) == 4


def test_dpg_bench_cuts_each_page_into_the_pictures_of_its_prompt(tmp_path: Path, exported: Any) -> None:
    prompts = tmp_path / "dpg_bench/prompts"
    prompts.mkdir(parents=True)
    texts = {
        "COCOval2014000000000042_1": "a dog\nbeside a shoe",
        "midjourney10": "a tower",
        "midjourney2": "a lamp",
    }
    for name, text in texts.items():
        (prompts / f"{name}.txt").write_text(text)
    folder = exported("dpg")
    rendered = pictures(Output(tmp_path / "out/dpg"))
    assert {path.name.split(".")[0] for path in folder.iterdir()} == {*texts}
    for page in folder.iterdir():
        ours = [data for (name, _, _), data in rendered.items() if name == page.name.split(".")[0]]
        assert len(ours) == 4
        with Image.open(page) as image:
            assert image.size == (128, 128)
            for place, data in enumerate(ours):
                x, y = place % 2 * 64, place // 2 * 64
                with Image.open(BytesIO(data)) as picture:
                    assert image.crop((x, y, x + 64, y + 64)).tobytes() == picture.convert("RGB").tobytes()


def test_coco_gives_as_many_files_as_rows_though_captions_repeat(tmp_path: Path, exported: Any) -> None:
    rows = {140892: "a wet boat", 37: "a small kite", 581929: "a wet boat", 66173: "a kite, seen twice"}
    lines = "".join(f'{image_id},"{caption}"\n' for image_id, caption in rows.items())
    (tmp_path / "coco30k.csv").write_text(f"image_id,caption\n{lines}")
    folder = exported("coco")
    rendered = pictures(Output(tmp_path / "out/coco"))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        f"{image_id:012d}.png": rendered[str(image_id), caption, 0] for image_id, caption in rows.items()
    }
