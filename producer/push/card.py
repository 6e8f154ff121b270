"""The card of a repository: that of an output, with the paths and the names that the repository has."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from jobs.output.card import Reading, dataset_card, tar_kinds, typed_reading
from jobs.output.column_kinds import Kind
from jobs.output.contents import Contents
from producer.export.parquet import IMAGE
from producer.push.paths import FormName, patterns


@dataclass(frozen=True, slots=True)
class Placed:
    """How the repository holds the shards."""

    form: FormName
    paths: Collection[str]
    """As `patterns` takes them."""
    loaded: str
    """The arguments by which `load_dataset` finds the repository."""
    json_column: str | None
    """The column of JSON that some parquet has."""


def repository_card(found: Contents, placed: Placed, *, failures: int, preview: bool) -> str:
    """The card's text; `failures` and `preview` as in `dataset_card`."""
    if placed.form == "webdataset":
        kinds = tar_kinds(found.endings["webdataset"], found.columns)
        text = _tars(placed.loaded, min(found.endings["webdataset"]))
    else:
        kinds = parquet_kinds(found, placed.json_column)
        text = _parquets(placed.loaded)
    reading = Reading(typed_reading(patterns(placed.form, placed.paths), kinds), text)
    return dataset_card(found, failures=failures, preview=preview, reading=reading)


def parquet_kinds(found: Contents, json_column: str | None) -> dict[str, Kind]:
    """The columns of all parquets together."""
    kinds: dict[str, Kind] = {IMAGE: "image", **found.columns}
    return kinds if json_column is None else kinds | {json_column: "string"}


def _tars(loaded: str, picture: str) -> str:
    return f"""Numbered tars hold pictures, each with its prompt (`.txt`) and its metadata (`.json`);
the parquets list the same as tables:

```python
from datasets import load_dataset

dataset = load_dataset({loaded}, split="train", streaming=True)
sample = next(iter(dataset))
print(sample["{picture}"], sample["txt"], sample["json"])
```
"""


def _parquets(loaded: str) -> str:
    return f"""The parquets hold pictures, each with its prompt (`text`) and its metadata:

```python
from datasets import load_dataset

dataset = load_dataset({loaded}, split="train", streaming=True)
record = next(iter(dataset))
print(record["image"], record["text"])
```
"""
