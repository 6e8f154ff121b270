"""The demo, as a stranger runs it: its pictures show what their prompts say."""

import json
import subprocess
from pathlib import Path

import yaml
from PIL import Image

from tests.warm_python import BIN
from tools.shapes.checker import read, shows
from tools.shapes.grammar import KINDS, scene_of

DEMO = Path(__file__).parents[2] / "jobs" / "examples" / "demo.yaml"
WHOLE = 26
"""How many of its first pictures have prompts that leave nothing open."""


def test_the_demos_pictures_show_what_their_prompts_say(farm) -> None:
    environment = farm.environment()
    del environment["IMAGEMILL_REDIS_URL"], environment["IMAGEMILL_OUTPUT_ROOT"]
    command = [BIN / "imagemill", "run", DEMO, "--limit", str(WHOLE), "--gpus", "none"]
    done = subprocess.run(
        command, env=environment, cwd=farm.folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith(f"finished: {WHOLE} images in ")
    output = farm.folder / "out" / "demo"
    rows = [
        json.loads(line)
        for file in sorted(output.glob("[0-9]*/metadata.jsonl"))
        for line in file.read_text().splitlines()
    ]
    scenes = {row["file_name"]: scene_of(row["text"]) for row in rows}
    assert len(scenes) == WHOLE
    assert {scene.kind for scene in scenes.values()} == set(KINDS)
    wrong = [
        scene
        for name, scene in scenes.items()
        if not shows(read(Image.open(output / name[:5] / name)), scene)
    ]
    assert len(wrong) <= 1, wrong


def test_the_demo_speaks_the_models_own_words() -> None:
    lines = yaml.safe_load(DEMO.read_text())["prompts"]
    prompts = [line if isinstance(line, str) else line["prompt"] for line in lines]
    for prompt in filter(None, prompts):
        scene_of(prompt)
