"""The dataset card: read by `datasets`, run as it stands, counted right, and of any length of texts."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from jobs.entry import Entry
from jobs.output.card import MARK, dataset_card, is_ours, is_pattern
from jobs.output.contents import Contents, contents
from jobs.output.markdown import in_code
from jobs.output.nested_kinds import DATES, JSON_TEXT
from jobs.output.output import Output
from jobs.output.stored_shard import LayoutName
from jobs.request import ImageRequest
from tests.waiting import LONGEST
from tests.warm_python import WarmPython
from worker.engine.renderer import RenderedBy
from worker.shard.store import ShardStore

TEXTS = ["a red fox", "", "naïve 狐 🦊👩‍👩‍👧", "one\ntwo\r\n", 'quotes ", and \\', "```\n---\n", "x" * 10_000]
MADE_BY = RenderedBy(precision="fp32", rows=16, device="cpu", versions={"torch": "2.13.0"})


@pytest.fixture
def output(tmp_path: Path) -> Output:
    output = Output(tmp_path / "any folder's name: 🦊")
    output.prepare()
    return output


def line(text: str, seed: int, columns: dict[str, Any] | None = None, **settings: Any) -> Entry:
    given = {"model": "shapes", "revision": "v1", "height": 16, "width": 16, **settings}
    return Entry.of(request=ImageRequest(prompt=text, seed=seed, **given), columns=columns or {})


def put(output: Output, shard: int, lines: list[Entry], layout: LayoutName = "files") -> None:
    names = sorted({name for one in lines for name in one.columns})
    store = ShardStore(
        output, shard, "1", lines, job_id="foxes-1", column_names=names, adopt_below=0, layout=layout
    )  # fmt: skip
    for position, one in enumerate(lines):
        shape = (one.request.height, one.request.width, 3)
        store.save(position, np.full(shape, one.request.seed, np.uint8), MADE_BY)
    assert store.commit([])


def write_card(output: Output, **given: Any) -> str:
    card = dataset_card(contents(output), **given)
    (output.path / "README.md").write_bytes(card.encode())
    return card


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> WarmPython:
    """A Python with `datasets`, without a network."""
    home = str(tmp_path_factory.mktemp("hf"))
    return WarmPython("datasets", HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", HF_HOME=home)


def run_code(output: Output, card: str, reader: WarmPython) -> list[str]:
    """What each block of Python in the card prints, run where the card lies."""
    own_cache = (
        f"import datasets\ndatasets.config.HF_DATASETS_CACHE = {str(output.path.with_name('cache'))!r}\n"
    )
    blocks = re.findall(r"^```python\n(.*?)^```$", card, re.DOTALL | re.MULTILINE)
    ended = [
        reader.run(own_cache + code, cwd=output.path, env=reader.environment, timeout=LONGEST)
        for code in blocks
    ]
    assert [one.returncode for one in ended] == [0] * len(blocks), [one.stderr for one in ended]
    return [one.stdout for one in ended]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Output], list[dict[str, Any]]]:
    """All records that `datasets.load_dataset` finds, without a network."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    datasets.disable_progress_bars()

    def records(output: Output) -> list[dict[str, Any]]:
        return list(datasets.load_dataset(str(output.path), split="train", cache_dir=str(tmp_path / "cache")))

    return records


def test_the_cards_code_runs_as_it_stands_and_finds_the_pictures(output: Output, reader: WarmPython) -> None:
    put(output, 0, [line(text, seed) for seed, text in enumerate(TEXTS)])
    (found,) = run_code(output, write_card(output), reader)
    assert found.startswith("7 <PIL.")
    assert "size=16x16" in found
    assert found.endswith(" a red fox\n")


# The card of both layouts, below, has PNGs in its tar.
@pytest.mark.parametrize("image_format", ["jpeg", "webp"])
def test_the_cards_code_runs_on_tars_too(output: Output, reader: WarmPython, image_format: str) -> None:
    lines = [line(text, seed, image_format=image_format) for seed, text in enumerate(TEXTS)]
    put(output, 0, lines, "webdataset")
    (found,) = run_code(output, write_card(output), reader)
    assert "size=16x16" in found
    assert "a red fox" in found
    assert "'seed': 0" in found


@pytest.mark.parametrize("name", ["[v2]", "a*b?", "[fox"])
@pytest.mark.parametrize("layout", ["files", "webdataset"])
def test_the_cards_code_runs_where_the_path_is_a_pattern(
    tmp_path: Path, reader: WarmPython, name: str, layout: LayoutName
) -> None:
    output, neighbour = Output(tmp_path / name), Output(tmp_path / "axb-")
    for one in (output, neighbour):
        one.prepare()
        put(one, 0, [line("a red fox", 1), line("a hare", 2)], layout)
    assert is_pattern(output.path)
    assert not is_pattern(neighbour.path)
    (found,) = run_code(output, write_card(output, as_pattern=True), reader)
    assert found.startswith("2 {")
    assert "a red fox" in found


def test_the_card_of_an_output_of_both_layouts_loads_each(output: Output, reader: WarmPython) -> None:
    put(output, 0, [line("in a folder", 1)])
    put(output, 1, [line("in a tar", 2)], "webdataset")
    folder, tar = run_code(output, write_card(output), reader)
    assert folder.startswith("1 <PIL.")
    assert folder.endswith(" in a folder\n")
    assert "in a tar" in tar


def test_every_text_and_column_in_tars_reaches_a_reader_whatever_the_first_tar_lacks(
    output: Output, load: Callable[[Output], list[dict[str, Any]]]
) -> None:
    columns = {"weight": 0.5, "tags": ["a", "b"], "box": {"x": 1, "y": [2.5]}}
    put(output, 0, [line(text, seed) for seed, text in enumerate(TEXTS)], "webdataset")
    put(output, 1, [line("more", 7, columns, image_format="jpeg"), line("x", 8)], "webdataset")
    write_card(output)
    records = load(output)
    assert [record["txt"] for record in records] == [*TEXTS, "more", "x"]
    assert [record["json"]["text"] for record in records] == [*TEXTS, "more", "x"]
    assert [record["json"]["seed"] for record in records] == list(range(9))
    assert [record["json"]["weight"] for record in records] == [None] * 7 + [0.5, None]
    assert {name: records[7]["json"][name] for name in columns} == columns
    assert [record["png"] is None for record in records] == [False] * 7 + [True, False]
    assert [record["png"].getpixel((0, 0))[0] for record in records[:7]] == list(range(7))


def test_the_card_counts_what_differs_and_shows_what_is_shared(output: Output) -> None:
    put(output, 0, [line("a", 1, scheduler="DDIM"), line("b", 2, width=24)])
    put(output, 1, [line("c", 3, num_inference_steps=20, negative_prompt="a | b\n```\n")])
    card = write_card(output, failures=2)
    found = [record.strip("| ").split(" | ") for record in card.splitlines() if record.startswith("| ")]
    assert found[2:] == [
        ["model", "shapes", "3"],
        ["size", "16x16", "2"], ["size", "24x16", "1"],
        ["scheduler", "LMS", "2"], ["scheduler", "DDIM", "1"],
        ["steps", "50", "2"], ["steps", "20", "1"],
    ]  # fmt: skip
    assert "3 pictures" in card
    assert "2 more could not be rendered" in card
    shared = json.loads(re.findall(r"^```json\n(.*?)^```$", card, re.DOTALL | re.MULTILINE)[0])
    assert shared["guidance_scale"] == 7.5
    assert shared["rendered_versions"] == {"torch": "2.13.0"}
    assert not shared.keys() & {"width", "scheduler", "num_inference_steps", "negative_prompt", "seed"}


@pytest.mark.parametrize("layout", ["files", "webdataset"])
def test_records_alone_make_the_card_of_shards_of_them(output: Output, layout: LayoutName) -> None:
    put(output, 0, [line(text, seed, {"n": seed}) for seed, text in enumerate(TEXTS)], layout)
    put(output, 1, [line("in jpeg", 7, image_format="jpeg")], layout)
    found = Contents()
    for shard in output.shards():
        for record in output.records(shard):
            found.add(record)
    assert dataset_card(found, layout=layout) == dataset_card(contents(output))


def test_long_texts_that_all_share_stand_in_the_card_whole(output: Output) -> None:
    for text in TEXTS:
        put(output, len(output.shards()), [line(text, 1, negative_prompt="```\n---\n\x85" + "n" * 10_000)])
    card = write_card(output)
    shared = json.loads(re.findall(r"^```json\n(.*?)^```$", card, re.DOTALL | re.MULTILINE)[0])
    assert shared["negative_prompt"] == "```\n---\n\x85" + "n" * 10_000


@pytest.mark.parametrize(
    ("images", "word"),
    [(1, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (99_999, "10K<n<100K"), (10**6, "1M<n<10M"),
     (10**12, "n>1T")],
)  # fmt: skip
def test_the_front_matter_is_what_the_hub_asks_for(output: Output, images: int, word: str) -> None:
    put(output, 0, [line("a", 1)])
    found = contents(output)
    found.total = images
    front = yaml.safe_load(dataset_card(found).split("---\n")[1])
    assert front["task_categories"] == ["text-to-image"]
    assert front["size_categories"] == [word]
    assert front["pretty_name"] == "foxes"
    assert front["configs"][0]["data_files"] == [{"split": "train", "path": "[0-9]*/*"}]


def test_a_sweep_of_thousands_of_values_makes_no_card_of_thousands_of_lines(output: Output) -> None:
    put(output, 0, [line("a", steps, num_inference_steps=steps) for steps in range(1, 101)])
    card = write_card(output)
    assert "| steps | 80 others | 80 |" in card
    assert card.count("| steps |") == 21


def test_only_a_card_with_its_mark_on_a_line_is_ours(output: Output) -> None:
    put(output, 0, [line("a", 1)])
    card = write_card(output)
    assert is_ours(card)
    assert not is_ours(card.replace(MARK, ""))
    assert not is_ours(f"I took the line {MARK} out.")


HOSTILE = "x`y``z\n\n# forged <script>alert(1)</script> ![a](http://b/c.png) | & \\ [l](m)\x1b[31m\n```\n"


def test_names_and_values_of_rows_are_shown_and_never_obeyed(output: Output) -> None:
    put(output, 0, [line("a", 0)])
    found = contents(output)
    found.name, found.models, found.licences = HOSTILE, {(HOSTILE, "v1")}, {(HOSTILE, "v1"): HOSTILE}
    found.texts, found.shared = {HOSTILE: JSON_TEXT, "d`d": DATES}, {"model": HOSTILE}
    for values in found.counts.values():
        values.clear()
        values[HOSTILE] += 1
    front, _, page = dataset_card(found).partition(f"\n---\n\n{MARK}")
    assert yaml.safe_load(front.removeprefix("---\n"))["pretty_name"] == HOSTILE
    (shared,) = re.findall(r"^```json$(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert json.loads(shared) == found.shared
    prose = re.sub(r"^```\w+$.*?^```$", "", page, flags=re.DOTALL | re.MULTILINE)
    assert all(text.isprintable() for text in prose.splitlines())
    code = in_code(HOSTILE)
    assert code.startswith("```` x`y``z ") and code.endswith("```  ````")
    assert prose.count(code) == 2
    bare = prose.replace(code, "")
    assert "\n# forged" not in prose and "\n```" not in bare
    assert not [mark for mark in ("<script", "![a](", "[l](", "``z") if mark in bare]
    rows = [text for text in bare.splitlines() if text.startswith(("| model", "| scheduler"))]
    assert [len(re.findall(r"(?<!\\)\|", row)) for row in rows] == [4, 4]
