"""Which form an export has, and what its options ask of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jobs.errors import JobError
from jobs.output.shard_names import FOLDER_LIMIT
from producer.export.consumer import Consumer
from producer.export.flat import Flat
from producer.export.geneval import GenEval
from producer.export.names import INDEX, NameTemplate

Dataset = Literal["files", "webdataset", "parquet"]
Form = Literal["files", "webdataset", "parquet", "flat", "captions", "geneval", "grid"]
"""A dataset, which can be exported again, or what another program reads."""

_FORMS: Mapping[str, tuple[Form, ...]] = {
    "--shard-size": ("files", "webdataset"),
    "--no-pictures": ("parquet",),
    "--name": ("flat", "captions", "grid"),
    **dict.fromkeys(("--x", "--y", "--page", "--plain", "--font"), ("grid",)),
}
"""The forms that an option is for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options that some forms have, as they were given."""

    shard_size: int | None = None
    with_pictures: bool = True
    name: str | None = None
    x: str | None = None
    y: str | None = None
    pages: tuple[str, ...] = ()
    plain: bool = False
    font: Path | None = None

    def check(self, to: Form) -> None:
        """Raises JobError for an option that form `to` does not have."""
        given = {
            "--shard-size": self.shard_size is not None, "--no-pictures": not self.with_pictures,
            "--name": self.name is not None, "--x": self.x is not None, "--y": self.y is not None,
            "--page": bool(self.pages), "--plain": self.plain, "--font": self.font is not None,
        }  # fmt: skip
        for option, forms in _FORMS.items():
            if given[option] and to not in forms:
                raise JobError(
                    f"{option}: is for --to {' or '.join(forms)}, and this is --to {to}: leave it out"
                )
        if to == "files" and self.shard_size is not None and self.shard_size > FOLDER_LIMIT:
            raise JobError(
                f"--shard-size = {self.shard_size}: the Hugging Face hub takes 10,000 entries a folder, and "
                f"metadata.jsonl is one: use {FOLDER_LIMIT}"
            )


def consumer_of(to: Form, options: Options) -> Consumer | None:
    """What writes a form for another program; None for a dataset. Raises JobError for a wrong option."""
    options.check(to)
    template = NameTemplate(INDEX if options.name is None else options.name)
    match to:
        case "flat" | "captions":
            return Flat(template, captions=to == "captions")
        case "geneval":
            return GenEval()
        case "grid":
            from producer.export.grid import Grid, GridOptions  # with Pillow, that the others need not load
            from producer.export.grid_layout import Axes

            if options.x is not None and options.x == options.y:
                raise JobError(f"--x {options.x}, --y {options.y}: must be two columns")
            axes = Axes(x=options.x, y=options.y, pages=options.pages)
            return Grid(template, GridOptions(axes=axes, plain=options.plain, font=options.font))
        case _:
            return None
