"""The dataset card: README.md of a dataset, by which `datasets.load_dataset` reads pictures and captions.

Its front matter names the shards (so that nothing else counts as data) and the type of every column.
Without the types, `datasets` takes them from whichever shard it opens first, and fails when a column is null
throughout that one and text in another. Source: https://huggingface.co/docs/hub/datasets-cards
"""

from __future__ import annotations

import glob
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.columns import RENDERED_PREFIX
from jobs.output.column_kinds import Kind
from jobs.output.contents import Contents, Endings
from jobs.output.markdown import in_code, in_text
from jobs.output.nested_kinds import DATES, JSON_TEXT
from jobs.output.shard_names import ShardNames
from jobs.output.stored_shard import LayoutName

MARK = "<!-- Written by imagemill after every job. Remove this line to keep a text of your own. -->"

_MOST_LISTED = 20
"""Lines of one setting in the table: a sweep may have thousands of values."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How a dataset is read whose files lie otherwise than in an output."""

    front: dict[str, Any]
    """Of the front matter: `configs`, and perhaps `dataset_info`."""
    text: str
    """Python that loads it, with its words."""


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
    reading: Reading | None = None,
) -> str:
    """The card's text: front matter in the Hugging Face form, then a page for people.

    `layout`: the one layout that all images have now, if they were in another before; `failures`: how many
    could not be rendered; `preview`: there is a contact sheet next to the card; `as_pattern`: the dataset's
    path is one (`is_pattern`); `table`: the file that has the lines of all folders (`split_table`);
    `reading`: instead of these three, where the files do not lie as in an output.
    """
    import yaml  # only a finishing writes a card: a worker starts without it

    endings = found.endings if layout is None else {layout: found.formats}
    front: dict[str, Any] = {
        "pretty_name": found.name,
        "task_categories": ["text-to-image"],
        "size_categories": [_size_category(found.total)],
        "tags": ["synthetic", "imagemill"],
        **(_reading(endings, found, table) if reading is None else reading.front),
    }
    # `datasets` keeps what it loaded under a hash of its configuration, whatever has become of the files: a
    # topped-up output would be loaded as it was before.
    front["configs"][0]["description"] = f"{_counted(found)}, checksum {found.checksum:08x}"
    failed = f" {failures:,} more could not be rendered: see `failures.jsonl`." if failures else ""
    sheet = "![A contact sheet](preview.jpg)\n\n" if preview else ""
    if reading is not None:
        loading, endings = reading.text, {}
    else:
        loading = _loading_escaped(endings, found.names) if as_pattern else _loading(endings, found)
    return f"""---
{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---

{MARK}

# {in_text(found.name)}

{_counted(found)} from texts, made by imagemill.{failed}

All of them are synthetic: {_makers(found)}.

{sheet}{loading}
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
        told.append(in_code(model) + (f" (its licence on the hub: {in_text(licence)})" if licence else ""))
    names = list(dict.fromkeys(told))
    more = f" and {len(names) - _MOST_LISTED:,} other models" if len(names) > _MOST_LISTED else ""
    what = "a model made them" if len(names) == 1 else "models made them"
    return f"{what}, {', '.join(names[:_MOST_LISTED])}{more}"


def _counted(found: Contents) -> str:
    if found.pictures == found.total:
        return f"{found.total:,} pictures"
    return f"{found.total:,} lines with {found.pictures:,} different pictures"


def _reading(endings: Endings, found: Contents, table: str | None) -> dict[str, Any]:
    """The front matter: which files `datasets` should read, and the types of their columns.

    `datasets` takes the types of folders only from the configuration, and those of tars only from
    `dataset_info`. It reads one format for all configurations of a card, so tars next to folders get no
    types.
    """
    kinds: dict[str, Kind]
    columns, pattern = found.columns, found.names.pattern
    if "files" in endings:
        kinds = {"image": "image", **columns}
        del kinds["file_name"]
        files = [f"{pattern}/*"]
        reading: dict[str, Any] = {}
        if table is not None:
            # `datasets` takes the most common ending for the kind of the data, and of two the parquet.
            only_one_each = max(endings["files"].values()) == 1
            files += [*(files if only_one_each else []), table]
            reading["metadata_filenames"] = [table]
        return {"configs": [{**_config(*files), **reading, "features": _features(kinds)}]}
    kinds = tar_kinds(endings["webdataset"], columns)
    return typed_reading([f"{pattern}.tar"], kinds)


def tar_kinds(endings: Iterable[str], columns: dict[str, Kind]) -> dict[str, Kind]:
    """What `datasets` finds in a tar whose pictures' names end so."""
    pictures: dict[str, Kind] = dict.fromkeys(sorted(endings), "image")
    return pictures | {"txt": "string", "json": columns, "__key__": "string", "__url__": "string"}


def typed_reading(files: Sequence[str], kinds: dict[str, Kind]) -> dict[str, Any]:
    """The front matter by which `datasets` reads files of these patterns with columns of these types."""
    return {
        "configs": [_config(*files)],
        "dataset_info": [{"config_name": "default", "features": _features(kinds)}],
    }


def _config(*files: str) -> dict[str, Any]:
    path = files[0] if len(files) == 1 else [*files]
    return {"config_name": "default", "data_files": [{"split": "train", "path": path}]}


def _loading(endings: Endings, found: Contents) -> str:
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
            before, where = "", f'"webdataset", data_files="{found.names.pattern}.tar"'
        text.append(f"""Numbered tars hold pictures, each with its prompt (`.txt`) and its metadata (`.json`);
the parquets list the same as tables:

```python
{before}from datasets import load_dataset

dataset = load_dataset({where}, split="train", streaming=True)
sample = next(iter(dataset))
print(sample["{min(endings["webdataset"])}"], sample["txt"], sample["json"])
```
""")
        shards = [*found.images]
        if (
            found.names.nested
            and shards
            and len(endings) == 1
            and shards == [*range(shards[0], shards[-1] + 1)]
        ):
            text.append(f"webdataset reads `{found.names.braces(shards[0], shards[-1])}`.\n")
    return "\n".join(text)


def _follow_one_another(numbers: Sequence[int]) -> bool:
    return len(numbers) == numbers[-1] - numbers[0] + 1


def is_pattern(path: Path) -> bool:
    """Whether `datasets` takes the path for a pattern, and finds nothing there or more than is there."""
    return glob.has_magic(str(path))


def _loading_escaped(endings: Endings, names: ShardNames) -> str:
    """The same for a folder whose path is a pattern to `datasets`."""
    text = """The path of this folder has one of `* ? [` in it, which `load_dataset` takes for a pattern.
Rename the folder, or load it so, with types that `datasets` takes from the first file:
"""
    for layout, builder, files in (
        ("files", "imagefolder", f"{names.pattern}/*"),
        ("webdataset", "webdataset", f"{names.pattern}.tar"),
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
        f"{in_code(name)} is JSON text: `json.loads` gives its value."
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
        f"{in_code(name)} holds dates: `load_dataset` gives `2020-01-31` as `2020-01-31 00:00:00`, in UTC."
        for name, kind in found.texts.items()
        if kind == DATES and "files" in endings
    ]
    return "".join(f"\n{one}\n" for one in told)


def _table(found: Contents) -> str:
    lines = ["| | | pictures |", "| --- | --- | ---: |"]
    for name, counts in found.counts.items():
        ranked = sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))
        for value, count in ranked[:_MOST_LISTED]:
            lines.append(f"| {name} | {in_text(value)} | {count:,} |")
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
