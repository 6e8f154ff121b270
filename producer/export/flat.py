"""`--to flat` and `--to captions`: all pictures in one folder, named by a template."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from jobs.wording import counted
from producer.export.columns import value_of
from producer.export.consumer import Written, told
from producer.export.names import NameTemplate, TakenNames
from producer.export.source import Picture, Record


class Flat:
    """A folder of pictures and nothing else, or of pictures each with its prompt in a .txt."""

    def __init__(self, template: NameTemplate, *, captions: bool) -> None:
        self._template, self._captions = template, captions
        self._taken, self._images, self._joined = TakenNames(), 0, 0

    def add(self, record: Record) -> None:
        """Takes in the next picture. Raises OutputError for a name that cannot be, or that two have."""
        name = self._name(record, self._images)
        # a.png and a.jpg would share a.txt.
        unique = name.rpartition(".")[0] if self._captions else name
        self._taken.add(unique, int(record["image_id"], 16), told)
        self._images += 1
        self._joined += len(record["text"].splitlines()) > 1

    def write(self, target: Path, pictures: Iterator[Picture]) -> Written:
        """Writes the folder. A caption is one line, since trainers read no more; raises OSError."""
        target.mkdir()
        for index, picture in enumerate(pictures):
            name = self._name(picture.record, index)
            with (target / name).open("xb") as file:
                file.write(picture.data)
            if self._captions:
                caption = f"{' '.join(picture.record['text'].splitlines())}\n"
                with (target / name).with_suffix(".txt").open("xb") as file:
                    file.write(caption.encode())
        if not (self._captions and self._joined):
            return Written()
        return Written(remarks=(f"{counted(self._joined, 'prompt')} of several lines written on one",))

    def _name(self, record: Record, index: int) -> str:
        def column(name: str) -> object:
            return value_of(record, name)

        what = told(index, int(record["image_id"], 16))
        return self._template.named(column, index, Path(record["file_name"]).suffix, what)
