"""The dataset card: OUT/README.md, by which `datasets.load_dataset(OUT)` reads pictures and captions.

Its front matter names the shards' folders (so that nothing beside them counts as data) and the type of every
column. Without the types, `datasets` takes them from whichever shard it opens first, and fails when a
column is null throughout that one and text in another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from jobs.output import Output

MARK = "<!-- Written by imagemill after every job. Remove this line to keep a text of your own. -->"

Kind = None | str | list[Any] | dict[str, Any]
"""A column's type: None (only nulls so far), a dtype's name, [item's kind], {field's name: kind}."""


@dataclass(slots=True)
class Contents:
    """What an output holds, gathered in one pass over its metadata."""

    images: dict[int, int] = field(default_factory=dict)
    """Images by shard number; shards in which all failed have 0."""
    columns: dict[str, Kind] = field(default_factory=dict)
    models: Counter[str] = field(default_factory=Counter)

    @property
    def total(self) -> int:
        return sum(self.images.values())


def contents(output: Output) -> Contents:
    """What the committed shards hold. Raises OutputError where their metadata cannot be read."""
    found = Contents()
    for shard in output.shards():
        found.images[shard] = 0
        for row in output.rows(shard):
            found.images[shard] += 1
            found.models[str(row.get("model"))] += 1
            for name, value in row.items():
                found.columns[name] = _merge(found.columns.get(name), _kind(value))
    return found


def dataset_card(title: str, found: Contents) -> str:
    """The card's text: front matter in the Hugging Face form, then a page for people."""
    columns = {name: kind for name, kind in found.columns.items() if name != "file_name"}
    image = {"name": "image", "dtype": "image"}
    front = {
        "pretty_name": title,
        "task_categories": ["text-to-image"],
        "tags": ["synthetic", "imagemill"],
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": "train", "path": "[0-9]*/*"}],
                "features": [image, *({"name": name, **_feature(kind)} for name, kind in columns.items())],
            }
        ],
    }
    models = ", ".join(f"`{name}` ({count:,})" for name, count in found.models.most_common())
    yaml_text = yaml.safe_dump(front, sort_keys=False, allow_unicode=True)
    return f"""---
{yaml_text}---

{MARK}

# {title}

{found.total:,} pictures made by imagemill. Models: {models}.

![A contact sheet](preview.jpg)

```python
from datasets import load_dataset

dataset = load_dataset("path/to/this/folder", split="train")
dataset[0]["image"], dataset[0]["text"]
```

Every numbered folder holds pictures and a `metadata.jsonl` with one line for each: the prompt (`text`), every
setting that made the picture, its `image_id`, and the SHA-256 of the file. The picture files carry the same
settings inside. `job.json` describes the last job, `failures.jsonl` (if any) what could not be rendered.
"""


def _kind(value: Any) -> Kind:
    match value:
        case None:
            return None
        case bool():
            return "bool"
        case int():
            return "int64"
        case float():
            return "float64"
        case list():
            item: Kind = None
            for each in value:
                item = _merge(item, _kind(each))
            return [item]
        case Mapping():
            return {str(name): _kind(each) for name, each in value.items()}
        case _:
            return "string"


def _merge(one: Kind, other: Kind) -> Kind:
    """The kind that holds both; text when nothing else does."""
    if one == other or other is None:
        return one
    if one is None:
        return other
    if isinstance(one, list) and isinstance(other, list):
        return [_merge(one[0], other[0])]
    if isinstance(one, dict) and isinstance(other, dict):
        return {name: _merge(one.get(name), other.get(name)) for name in {**one, **other}}
    return "float64" if {str(one), str(other)} == {"int64", "float64"} else "string"


def _feature(kind: Kind) -> dict[str, Any]:
    """The kind in the form of a card's `features`."""
    if isinstance(kind, list):
        item = _feature(kind[0])
        return {"list": item.get("dtype", item)}
    if isinstance(kind, dict):
        return {"struct": [{"name": name, **_feature(each)} for name, each in kind.items()]}
    return {"dtype": "string" if kind is None else kind}
