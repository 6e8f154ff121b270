"""`--to geneval`: a folder for each prompt, as GenEval's `evaluate_images.py` reads it.

    00000/metadata.jsonl      {"tag": "counting", "include": [{"class": "fork", "count": 3}], "prompt": …}
    00000/samples/0000.png

Source: https://github.com/djghosh13/geneval, `evaluation/evaluate_images.py` and `diffusers_generate.py`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jobs.errors import OutputError
from jobs.output.nested_kinds import is_json_text
from jobs.request import SETTINGS
from jobs.strict_json import strict_json
from producer.export.columns import given_columns, value_of
from producer.export.consumer import Written, told
from producer.export.source import Picture, Record

TAG = "tag"
"""The column without which GenEval stops."""
_FILE = ".png"


@dataclass(slots=True)
class _Prompt:
    folder: int
    settings: bytes
    """A hash of the settings that all its samples share."""
    samples: int = 0


class GenEval:
    """Folders of the prompts, in the order of their first pictures; samples in the order of the source."""

    def __init__(self) -> None:
        self._prompts: dict[bytes, _Prompt] = {}
        self._images = 0
        self._is_json: dict[str, bool] = {}
        """The user's columns that hold text -> whether all of it is JSON of lists or objects."""

    def add(self, record: Record) -> None:
        what = told(self._images, int(record["image_id"], 16))
        if not record["file_name"].endswith(_FILE):
            raise OutputError(f"{what} is no PNG, and GenEval reads no other: write image_format: png")
        columns = given_columns(record)
        if TAG not in columns:
            raise OutputError(
                f"{what} has no {TAG}, which GenEval needs: in the manifest, write prompts_from: {{file: "
                "evaluation_metadata.jsonl, columns: [tag, include, exclude]}"
            )
        for name, value in columns.items():
            if isinstance(value, str):
                self._is_json[name] = self._is_json.get(name, True) and is_json_text(value)
            else:
                self._is_json[name] = False
        prompt = self._prompt(record)
        if prompt.settings != _settings(record):
            raise OutputError(
                f"{what} has other settings than another picture of its prompt, and GenEval takes all for "
                "samples of one model: render each of them into an output of its own, or leave others out by "
                "--only-current"
            )
        self._images += 1

    def write(self, target: Path, pictures: Iterator[Picture]) -> Written:
        target.mkdir()
        for picture in pictures:
            prompt = self._prompt(picture.record)
            folder = target / f"{prompt.folder:05d}"
            if prompt.samples == 0:
                (folder / "samples").mkdir(parents=True)
                # ASCII, as GenEval writes it: its reader takes the locale's encoding.
                (folder / "metadata.jsonl").write_bytes(json.dumps(self._line(picture.record)).encode())
            with (folder / "samples" / f"{prompt.samples:04d}{_FILE}").open("xb") as file:
                file.write(picture.data)
            prompt.samples += 1
        return Written(prompts=len(self._prompts))

    def _prompt(self, record: Record) -> _Prompt:
        """The line of the prompt file that the record comes from."""
        text = json.dumps([record.get("id"), record["text"], given_columns(record)], sort_keys=True)
        key = hashlib.blake2b(text.encode(), digest_size=16).digest()
        return self._prompts.setdefault(key, _Prompt(len(self._prompts), _settings(record)))

    def _line(self, record: Record) -> Record:
        """The line as it was: a column that it lacks is null in the metadata, and one that no table holds is
        JSON text there."""
        columns = given_columns(record)
        line = {name: strict_json(value) if self._is_json[name] else value for name, value in columns.items()}
        own = {} if record.get("id") is None else {"id": record["id"]}
        return {**own, **line, "prompt": record["text"]}


def _settings(record: Record) -> bytes:
    values = [value_of(record, name) for name in SETTINGS]
    return hashlib.blake2b(json.dumps(values).encode(), digest_size=16).digest()
