"""The demo, as a stranger runs it: its pictures show what their prompts say."""

import itertools
import json
from pathlib import Path

from PIL import Image

from tools.shapes.checker import read, shows
from tools.shapes.grammar import BACKGROUNDS, COLOURS, PLACES, SHAPES, Scene, Thing, prompt_of

DEMO = Path(__file__).parents[2] / "jobs" / "examples" / "demo.yaml"
ONE_THING = {
    prompt_of(scene): scene
    for scene in (
        Scene((Thing(colour, shape, place),), background)
        for colour, shape, place, background in itertools.product(COLOURS, SHAPES, PLACES, BACKGROUNDS)
    )
}


def test_the_demos_pictures_show_what_their_prompts_say(farm) -> None:
    environment = farm.environment()
    del environment["IMAGEMILL_REDIS_URL"], environment["IMAGEMILL_OUTPUT_ROOT"]
    done = farm.run_in(environment, "run", DEMO, "--limit", "14", "--gpus", "none")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("finished: 14 images in ")
    output = farm.folder / "out" / "demo"
    rows = [
        json.loads(line)
        for file in sorted(output.glob("[0-9]*/metadata.jsonl"))
        for line in file.read_text().splitlines()
    ]
    right = [
        shows(read(Image.open(output / row["file_name"][:5] / row["file_name"])), ONE_THING[row["text"]])
        for row in rows
    ]
    assert len(right) == 14
    assert sum(right) >= 13


def test_the_demo_speaks_the_models_own_words() -> None:
    import yaml

    from tools.shapes.grammar import words

    lines = yaml.safe_load(DEMO.read_text())["prompts"]
    prompts = [line if isinstance(line, str) else line["prompt"] for line in lines]
    assert {word for prompt in prompts for word in prompt.split()} <= set(words())
