"""The dataset card: README.md of a dataset, by which `datasets.load_dataset` reads pictures and captions.

Its front matter names the shards (so that nothing else counts as data) and the type of every column.
Without the types, `datasets` takes them from whichever shard it opens first, and fails when a column is null
throughout that one and text in another. Source: https://huggingface.co/docs/hub/datasets-cards
"""

from __future__ import annotations

import glob
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zlib import crc32

from jobs.columns import RENDERED_PREFIX
from jobs.output.column_kinds import Kind, kind_of, merged
from jobs.output.compact_counter import CompactCounter
from jobs.output.line_order import Split
from jobs.output.lines import numbered
from jobs.output.nested_kinds import DATES, JSON_TEXT, special_text
from jobs.output.output import Output
from jobs.output.stored_shard import LayoutName
from jobs.output.webdataset import TarShard
from jobs.request import SETTINGS

MARK = "<!-- Written by imagemill after every job. Remove this line to keep a text of your own. -->"

_COUNTED: dict[str, Callable[[dict[str, Any]], object]] = {
    "model": lambda record: record.get("model"),
    "size": lambda record: f"{record.get('width')}x{record.get('height')}",
    "scheduler": lambda record: record.get("scheduler"),
    "steps": lambda record: record.get("num_inference_steps"),
}
_SHARED = ("model", "revision", *(name for name in SETTINGS if name not in ("model", "revision")))
_OWN = frozenset({*SETTINGS, "file_name", "text", "image_id", "id", "job_id", "flagged", "sha256"})
_PLAIN = ""
_MOST_LISTED = 20
"""Lines of one setting in the table: a sweep may have thousands of values."""

Endings = dict[LayoutName, Counter[str]]
"""Layouts that have images -> how many there are whose files' names end with `png`."""


@dataclass(slots=True)
class Contents:
    """What a dataset holds, gathered in one pass over its records."""

    images: dict[int, int] = field(default_factory=dict)
    """Images by shard number; shards in which all failed have 0."""
    total: int = 0
    pictures: int = 0
    """Different ones: lines that are equal but for their id and columns share one."""
    formats: Counter[str] = field(default_factory=Counter)
    """What their files' names end with, `png` -> how many do."""
    endings: Endings = field(default_factory=dict)
    """The same for each layout; images that were added one by one belong to none."""
    columns: dict[str, Kind] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    """The user's columns that hold only a special kind of texts -> that kind: `JSON_TEXT`, `DATES`."""
    counts: dict[str, Counter[object]] = field(default_factory=lambda: {n: Counter() for n in _COUNTED})
    """Model, size, scheduler and steps -> images by value."""
    shared: dict[str, Any] = field(default_factory=dict)
    """The settings that all records have in common, and how they were rendered."""
    models: set[tuple[str, str]] = field(default_factory=set)
    """Each model and its revision."""
    licences: dict[tuple[str, str], str] = field(default_factory=dict)
    """Those of the models, where they are known."""
    cut: Counter[str] = field(default_factory=Counter)
    """Job -> images whose prompt was cut when it rendered them."""
    name: str = ""
    """The name of the job that rendered the first image."""
    checksum: int = 0
    """A CRC-32 of all records in their order: another one for other pictures, lines or places."""
    _seen: CompactCounter = field(default_factory=CompactCounter)

    def ordered_by(self, table: str) -> None:
        """Take in which order a table, of which this is the SHA-256, gives the records."""
        self.checksum = crc32(table.encode(), self.checksum)

    def add(self, record: dict[str, Any]) -> None:
        """Take one more record in."""
        columns = self.columns
        for name, value in record.items():
            if type(value) is str and name not in _OWN and self.texts.get(name) != _PLAIN:
                kind_of_text = special_text(value)
                if self.texts.setdefault(name, kind_of_text) != kind_of_text:
                    self.texts[name] = _PLAIN
            kind = kind_of(value)
            known = columns.setdefault(name, kind)
            if kind != known:
                columns[name] = merged(known, kind)
        if not self.total:
            names = [*_SHARED, *(name for name in record if name.startswith(RENDERED_PREFIX))]
            self.shared = {name: record[name] for name in names if name in record}
            self.name = str(record.get("job_id")).rpartition("-")[0]
        for name in [name for name, value in self.shared.items() if record.get(name) != value]:
            del self.shared[name]
        for name, value_of in _COUNTED.items():
            self.counts[name][value_of(record)] += 1
        self.formats[_ending(record)] += 1
        self.models.add((str(record.get("model")), str(record.get("revision"))))
        self.pictures += self._seen.mark(int(record["image_id"], 16), 1) == 0
        if record.get("prompt_cut") is not None:
            self.cut[str(record.get("job_id"))] += 1
        told = f"{record['image_id']} {record.get('sha256')} {record.get('id')} {record.get('index')}"
        self.checksum = crc32(told.encode(), self.checksum)
        self.total += 1

    def add_stored(self, shard: int, layout: LayoutName, record: dict[str, Any]) -> None:
        """Take one more record of a shard in."""
        self.add(record)
        self.endings.setdefault(layout, Counter())[_ending(record)] += 1
        self.images[shard] += 1


def contents(output: Output, split: Split | None = None) -> Contents:
    """What the committed shards hold; those of `layout: files` are added to `split`.

    Raises OutputError where their metadata cannot be read.
    """
    found = Contents()
    for shard in output.shards():
        found.images[shard] = 0
        stored = output.stored(shard)
        layout: LayoutName = "webdataset" if isinstance(stored, TarShard) else "files"
        for span, record in stored.located():
            if split is not None and layout == "files":
                split.add(shard, span, record)
                found.add_stored(shard, layout, numbered(record, 0))  # as the split's table has it
            else:
                found.add_stored(shard, layout, record)
    return found


def is_ours(readme: str) -> bool:
    """Whether a README.md is a card that may be overwritten, and not a user's own text."""
    return MARK in readme.splitlines()


def dataset_card(
    found: Contents,
    *,
    layout: LayoutName | None = None,
    failures: int = 0,
    preview: bool = False,
    as_pattern: bool = False,
    table: str | None = None,
) -> str:
    """The card's text: front matter in the Hugging Face form, then a page for people.

    `layout`: the one layout that all images have now, if they were in another before; `failures`: how many
    could not be rendered; `preview`: there is a contact sheet next to the card; `as_pattern`: the dataset's
    path is one (`is_pattern`); `table`: the file that has the lines of all folders (`split_table`).
    """
    import yaml  # only a finishing writes a card: a worker starts without it

    endings = found.endings if layout is None else {layout: found.formats}
    front: dict[str, Any] = {
        "pretty_name": found.name,
        "task_categories": ["text-to-image"],
        "size_categories": [_size_category(found.total)],
        "tags": ["synthetic", "imagemill"],
        **_reading(endings, found.columns, table),
    }
    # `datasets` keeps what it loaded under a hash of its configuration, whatever has become of the files: a
    # topped-up output would be loaded as it was before.
    front["configs"][0]["description"] = f"{_counted(found)}, checksum {found.checksum:08x}"
    failed = f" {failures:,} more could not be rendered: see `failures.jsonl`." if failures else ""
    sheet = "![A contact sheet](preview.jpg)\n\n" if preview else ""
    return f"""---
{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---

{MARK}

# {found.name}

{_counted(found)} from texts, made by imagemill.{failed}

All of them are synthetic: {_makers(found)}.

{sheet}{_loading_escaped(endings) if as_pattern else _loading(endings)}
{_table(found)}

All of them have in common:

```json
{json.dumps(found.shared, ensure_ascii=False, indent=2)}
```

The metadata of a picture: its prompt (`text`), every setting that made it, its `image_id`, and the SHA-256 of
its file. The file carries the same settings inside.
{_columns(found, endings)}"""


def _makers(found: Contents) -> str:
    """Which models made the pictures, and under which licences."""
    told = []
    for model, revision in sorted(found.models):
        licence = found.licences.get((model, revision))
        told.append(f"`{model}`" + (f" (its licence on the hub: {licence})" if licence else ""))
    names = list(dict.fromkeys(told))
    more = f" and {len(names) - _MOST_LISTED:,} other models" if len(names) > _MOST_LISTED else ""
    what = "a model made them" if len(names) == 1 else "models made them"
    return f"{what}, {', '.join(names[:_MOST_LISTED])}{more}"


def _ending(record: dict[str, Any]) -> str:
    ending: str = record["file_name"].rpartition(".")[2]
    return ending


def _counted(found: Contents) -> str:
    if found.pictures == found.total:
        return f"{found.total:,} pictures"
    return f"{found.total:,} lines with {found.pictures:,} different pictures"


def _reading(endings: Endings, columns: dict[str, Kind], table: str | None) -> dict[str, Any]:
    """The front matter: which files `datasets` should read, and the types of their columns.

    `datasets` takes the types of folders only from the configuration, and those of tars only from
    `dataset_info`. It reads one format for all configurations of a card, so tars next to folders get no
    types.
    """
    kinds: dict[str, Kind]
    if "files" in endings:
        kinds = {"image": "image", **columns}
        del kinds["file_name"]
        files = ["[0-9]*/*"]
        reading: dict[str, Any] = {}
        if table is not None:
            # `datasets` takes the most common ending for the kind of the data, and of two the parquet.
            only_one_each = max(endings["files"].values()) == 1
            files += [*(files if only_one_each else []), table]
            reading["metadata_filenames"] = [table]
        return {"configs": [{**_config(*files), **reading, "features": _features(kinds)}]}
    kinds = dict.fromkeys(sorted(endings["webdataset"]), "image")
    kinds |= {"txt": "string", "json": columns, "__key__": "string", "__url__": "string"}
    return {
        "configs": [_config("[0-9]*.tar")],
        "dataset_info": [{"config_name": "default", "features": _features(kinds)}],
    }


def _config(*files: str) -> dict[str, Any]:
    path = files[0] if len(files) == 1 else [*files]
    return {"config_name": "default", "data_files": [{"split": "train", "path": path}]}


def _loading(endings: Endings) -> str:
    """Python that loads what there is, when it runs in the dataset's folder."""
    text = []
    # load_dataset(".") fails: it takes the dataset's name from the path.
    if "files" in endings:
        text.append("""Numbered folders hold pictures and a `metadata.jsonl` with a line for each:

```python
import os
from datasets import load_dataset

dataset = load_dataset(os.getcwd(), split="train")  # or the path to this folder
print(dataset.num_rows, dataset[0]["image"], dataset[0]["text"])
```
""")
    if "webdataset" in endings:
        before, where = "import os\n", "os.getcwd()"
        if "files" in endings:
            before, where = "", '"webdataset", data_files="[0-9]*.tar"'
        text.append(f"""Numbered tars hold pictures, each with its prompt (`.txt`) and its metadata (`.json`);
the parquets list the same as tables:

```python
{before}from datasets import load_dataset

dataset = load_dataset({where}, split="train", streaming=True)
sample = next(iter(dataset))
print(sample["{min(endings["webdataset"])}"], sample["txt"], sample["json"])
```
""")
    return "\n".join(text)


def is_pattern(path: Path) -> bool:
    """Whether `datasets` takes the path for a pattern, and finds nothing there or more than is there."""
    return glob.has_magic(str(path))


def _loading_escaped(endings: Endings) -> str:
    """The same for a folder whose path is a pattern to `datasets`."""
    text = """The path of this folder has one of `* ? [` in it, which `load_dataset` takes for a pattern.
Rename the folder, or load it so, with types that `datasets` takes from the first file:
"""
    for layout, builder, files in (
        ("files", "imagefolder", "[0-9]*/*"),
        ("webdataset", "webdataset", "[0-9]*.tar"),
    ):
        if layout in endings:
            text += f"""
```python
import glob
import os
from datasets import load_dataset

files = os.path.join(glob.escape(os.getcwd()), "{files}")
dataset = load_dataset("{builder}", data_files=files, split="train")
print(dataset.num_rows, dataset[0])
```
"""
    return text


def _columns(found: Contents, endings: Endings) -> str:
    """What a reader must know of the user's columns to get each value as it was given."""
    told = [
        f"`{name}` is JSON text: `json.loads` gives its value."
        for name, kind in found.texts.items()
        if kind == JSON_TEXT and not name.startswith(RENDERED_PREFIX)
    ]
    if any(
        isinstance(kind, (list, dict))
        for name, kind in found.columns.items()
        if not name.startswith(RENDERED_PREFIX)
    ):
        told.append("An object has null for each key that only objects of other pictures have.")
    told += [
        f"`{name}` holds dates: `load_dataset` gives `2020-01-31` as `2020-01-31 00:00:00`, in UTC."
        for name, kind in found.texts.items()
        if kind == DATES and "files" in endings
    ]
    return "".join(f"\n{one}\n" for one in told)


def _table(found: Contents) -> str:
    lines = ["| | | pictures |", "| --- | --- | ---: |"]
    for name, counts in found.counts.items():
        ranked = sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))
        for value, count in ranked[:_MOST_LISTED]:
            lines.append(f"| {name} | {str(value).replace('|', chr(92) + '|')} | {count:,} |")
        if rest := ranked[_MOST_LISTED:]:
            lines.append(f"| {name} | {len(rest):,} others | {sum(count for _, count in rest):,} |")
    return "\n".join(lines)


def _size_category(images: int) -> str:
    """The hub's word for a dataset of so many records."""
    if images < 1_000:
        return "n<1K"
    bounds = ["1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T"]
    decade = len(str(images)) - 4
    return f"{bounds[decade]}<n<{bounds[decade + 1]}" if decade < len(bounds) - 1 else "n>1T"


def _features(kinds: dict[str, Kind]) -> list[dict[str, Any]]:
    return [{"name": name, **_feature(kind)} for name, kind in kinds.items()]


def _feature(kind: Kind) -> dict[str, Any]:
    """The kind in the form of a card's `features`."""
    if isinstance(kind, list):
        item = _feature(kind[0])
        return {"list": item.get("dtype", item)}
    if isinstance(kind, dict):
        return {"struct": _features(kind)}
    return {"dtype": "string" if kind is None else kind}
