"""Nested columns: `load_dataset` gives every value back, as it is or from JSON text, or they are refused."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.errors import ManifestError, OutputError
from jobs.ledger.shard import decode_shard
from jobs.output.card import dataset_card
from jobs.output.contents import contents
from jobs.output.output import Output
from jobs.output.stored_shard import LayoutName
from jobs.settings import Settings
from producer.export.export import write_export
from producer.export.options import Options
from producer.manifest.base_request import base_request
from producer.plan.plan import plan_submission
from producer.plan.report import report
from producer.requests.prepared import Prepared, prepare
from producer.submit.packed import pack
from worker.engine.renderer import RenderedBy
from worker.shard.store import ShardStore

MADE_BY = RenderedBy(precision="fp32", rows=16, device="cpu", versions={"torch": "2.13.0"})
Rows = Sequence[Mapping[str, Any]]


class Folder:
    """A manifest whose prompt file is `rows`, and its output."""

    def __init__(self, folder: Path, layout: LayoutName = "files") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.layout = folder, layout
        self.output = Output(folder / "out")
        self.output.prepare()

    def asks(self, rows: Rows) -> Prepared:
        names = sorted({name for row in rows for name in row})
        lines = [json.dumps({"prompt": f"picture {n}", **row}) for n, row in enumerate(rows)]
        (self.folder / "rows.jsonl").write_text("\n".join(lines))
        manifest = {
            "name": "cats", "model": "instant", "output": str(self.output.path), "shard_size": 2,
            "layout": self.layout, "settings": {"height": 16, "width": 16},
            "prompts_from": {"file": "rows.jsonl", "columns": names},
        }  # fmt: skip
        (self.folder / "cats.yaml").write_text(json.dumps(manifest))
        return prepare(self.folder / "cats.yaml", Settings())

    def render(self, rows: Rows) -> dict[str, str]:
        """Puts what the output lacks there, with its card; returns the columns that are JSON text."""
        prepared = self.asks(rows)
        base, first = base_request(prepared.manifest, prepared.model), self.output.next_shard()
        with pack(prepared) as packed:
            for number, shard in enumerate(packed.shards, first):
                entries = decode_shard(packed.blob(shard), base, "cats").entries
                names = prepared.manifest.column_names()
                store = ShardStore(
                    self.output, number, "1", entries, job_id="cats-1", column_names=names, adopt_below=0,
                    layout=self.layout,
                )  # fmt: skip
                for position, entry in enumerate(entries):
                    pixels = np.full((16, 16, 3), entry.request.seed % 251, np.uint8)
                    store.save(position, pixels, MADE_BY)
                assert store.commit([])
            as_json = dict(packed.json_columns)
        self.card = dataset_card(contents(self.output))
        (self.output.path / "README.md").write_text(self.card)
        return as_json

    def loaded(self, parquet: bool = False) -> dict[str, dict[str, Any]]:
        """Every record that `datasets` gives, by its prompt."""
        import datasets

        datasets.disable_progress_bars()
        given: dict[str, Any] = {"path": str(self.output.path)}
        if parquet:
            target = self.folder / "out.parquet"
            options = Options(with_pictures=False)
            write_export(self.output.path, target, "parquet", Settings(), options=options)
            given = {"path": "parquet", "data_files": str(target)}
        records = datasets.load_dataset(**given, split="train", cache_dir=str(self.folder / "hf"))
        if self.layout == "webdataset" and not parquet:
            return {record["txt"]: record["json"] for record in records}
        return {record["text"]: record for record in records}


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def as_in_a_table(given: Any, got: Any) -> bool:
    """Whether `got` is the value given: with null for the keys that it lacks, and with 1.0 for 1."""
    if isinstance(given, dict):
        return (
            isinstance(got, dict)
            and all(name in got and as_in_a_table(value, got[name]) for name, value in given.items())
            and all(got[name] is None for name in got.keys() - given.keys())
        )
    if isinstance(given, list):
        return (
            isinstance(got, list)
            and len(given) == len(got)
            and all(as_in_a_table(*both) for both in zip(given, got, strict=True))
        )
    return bool(given == got) and isinstance(given, bool) == isinstance(got, bool)


_TEXTS = st.sampled_from(["x", "", "7", "[1]", "2020-01-31", "été 🦊"])
_LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 5),
    st.just(2**60 + 1),
    st.sampled_from([0.5, -2.0, 1e300]),
    _TEXTS,
)
_NAMES = st.sampled_from(
    ["src", "class", "position", "_type", "list", "struct", "bytes", "", "a.b", "file_name"]
)
ANYTHING = st.recursive(
    _LEAVES,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(_NAMES, below, max_size=3),
    max_leaves=6,
)  # fmt: skip
MIXED = st.lists(ANYTHING.map(lambda value: {"meta": [value]}), min_size=1, max_size=5)


@st.composite
def uniform(draw: st.DrawFn) -> Rows:
    """Rows of one shape, whose parts some of them lack."""

    def shape(depth: int) -> st.SearchStrategy[Any]:
        kind = draw(st.integers(0, 5 if depth else 2))
        if kind >= 4:
            return st.lists(shape(depth - 1), max_size=3)
        if kind == 3:
            names = draw(st.lists(_NAMES, unique=True, max_size=3))
            return st.fixed_dictionaries({}, optional={name: shape(depth - 1) | st.none() for name in names})
        return [_TEXTS, st.sampled_from([1, 0.5, -3]), st.booleans()][kind]

    return draw(
        st.lists(st.fixed_dictionaries({"meta": st.lists(shape(3), max_size=2)}), min_size=1, max_size=5)
    )


@pytest.mark.parametrize("layout", ["files", "webdataset"])
@given(rows=uniform() | MIXED)
@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_any_nested_values_come_back_from_each_layout_and_from_a_parquet(
    tmp_path_factory: pytest.TempPathFactory, layout: LayoutName, rows: Rows
) -> None:
    folder = Folder(tmp_path_factory.mktemp("any"), layout)
    as_json = folder.render(rows)
    for records in (folder.loaded(), folder.loaded(parquet=True)):
        for number, row in enumerate(rows):
            got = records[f"picture {number}"]["meta"]
            if "meta" in as_json:
                assert json.loads(got) == row["meta"]
            else:
                assert as_in_a_table(row["meta"], got)


BENCHMARK: Rows = [
    {
        "tag": "position",
        "include": [{"class": "dog", "count": 1}, {"class": "tv", "position": ["left of", 0]}],
    },
    {
        "tag": "count",
        "include": [{"class": "clock", "count": 2}],
        "exclude": [{"class": "clock", "count": 3}],
    },
    {"tag": "two", "include": [{"class": "bench", "count": 1}]},
]


def test_a_benchmarks_nested_rows_load_and_the_card_says_which_column_is_json(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    assert folder.render(BENCHMARK) == {"include": "include[].position[] holds text and whole numbers"}
    assert "`include` is JSON text: `json.loads` gives its value." in folder.card
    records = folder.loaded()
    for number, row in enumerate(BENCHMARK):
        record = records[f"picture {number}"]
        assert json.loads(record["include"]) == row["include"]
        assert record["tag"] == row["tag"]
        assert record["exclude"] == row.get("exclude")


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ([{"src": "x"}, {"src": 7}], "meta.src holds text and whole numbers"),
        ([{"src": [1]}, {"src": 7}], "meta.src holds lists and whole numbers"),
        ([{"src": {"a": 1}}, {"src": [1]}], "meta.src holds objects and lists"),
        ([{"src": True}, {"src": 1}], "meta.src holds true or false and whole numbers"),
        ([{"src": 2**60}, {"src": 0.5}], "meta.src holds whole numbers beyond 2**53 and decimal numbers"),
        ([{"src": [1, None]}], "meta.src has a null among the items of a list"),
        ([{"src": "2020-01-31"}], "meta.src holds dates"),
        ([{}, {}], "meta never has a key"),
        ([{"src": [{}]}], "meta.src[] never has a key"),
        ([{"file_name": "x.png"}], "meta has a key file_name"),
        ([{str(n): n} for n in range(1001)], "meta has more than 1,000 different keys"),
    ],
)
def test_plan_says_which_column_is_json_text_and_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], values: list[Any], why: str
) -> None:
    folder = Folder(tmp_path)
    plan = plan_submission(folder.asks([{"meta": value} for value in values]), Settings())
    assert plan.json_columns == {"meta": why}
    report(plan)
    assert (
        f"meta: written as JSON text, which json.loads turns back, because {why}" in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    "values",
    [
        [{"src": 1}, {"src": 0.5}, {"src": None}, {}],
        [["a"], [], None],
        [{"a": {"b": [1]}}, {"c": "x"}],
        ["2020-01-31", "2021-01-31"],
    ],
)
def test_what_a_table_holds_stays_as_it_is(tmp_path: Path, values: list[Any]) -> None:
    folder = Folder(tmp_path)
    assert folder.render([{"meta": value} for value in values]) == {}
    assert "JSON text" not in folder.card


def test_the_card_says_how_dates_of_a_folder_are_read(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.render([{"taken": "2020-01-31"}, {"taken": "2021-01-31"}])
    assert "`taken` holds dates" in folder.card
    assert folder.loaded()["picture 0"]["taken"] == "2020-01-31 00:00:00"


def test_a_second_job_writes_json_text_where_the_output_has_it(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.render([{"meta": {"src": "x"}}, {"meta": {"src": 7}}])
    more = [{"meta": {"src": "x"}}, {"meta": {"src": 7}}, {"meta": {"src": "y"}}, {"meta": {"src": "z"}}]
    assert folder.render(more).keys() == {"meta"}
    records = folder.loaded()
    assert [json.loads(records[f"picture {n}"]["meta"]) for n in range(4)] == [row["meta"] for row in more]


@pytest.mark.parametrize(
    ("before", "after", "what"),
    [
        ({"src": "x"}, {"src": 7}, r"columns: meta.src holds text and whole numbers"),
        ("x", 7, r"columns: meta holds text and whole numbers"),
        (["x"], "x", r"columns: meta holds lists and text"),
        ([1], [1, None], r"columns: meta holds lists and JSON text"),
    ],
)
def test_a_second_job_of_another_kind_is_refused_by_plan_and_submit(
    tmp_path: Path, before: Any, after: Any, what: str
) -> None:
    folder = Folder(tmp_path)
    folder.render([{"meta": before}])
    more = [{"meta": None}, {"meta": after}]
    with pytest.raises(OutputError, match=what):
        plan_submission(folder.asks(more), Settings())
    with pytest.raises(OutputError, match="name another output, or call the column otherwise"):
        folder.render(more)


def test_a_second_job_that_a_table_holds_beside_the_first_is_taken(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.render([{"meta": {"score": 1}}])
    folder.render([{"meta": {"score": 1}}, {"meta": {"score": 0.5, "src": "x"}}])
    records = folder.loaded()
    assert records["picture 0"]["meta"] == {"score": 1.0, "src": None}
    assert records["picture 1"]["meta"] == {"score": 0.5, "src": "x"}


def test_a_column_of_two_kinds_at_its_top_is_refused_with_both_places(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"rows\.jsonl:2: meta: is a list, but text in .*rows\.jsonl:1"):
        plan_submission(Folder(tmp_path).asks([{"meta": "x"}, {"meta": [1]}]), Settings())


def test_an_output_that_already_breaks_is_topped_up_as_before(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    shard = folder.output.shard_folder(0)
    shard.mkdir()
    lines: Iterator[str] = (
        json.dumps({"file_name": f"{n}.png", "image_id": f"{n:016x}", "meta": {"src": src}}) + "\n"
        for n, src in enumerate(["x", 7])
    )
    (shard / "metadata.jsonl").write_text("".join(lines))
    for n in range(2):
        (shard / f"{n}.png").touch()
    assert folder.render([{"meta": {"src": "x"}}]) == {}
