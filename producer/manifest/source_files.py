"""Which files a manifest's `prompts_from` means."""

from __future__ import annotations

import glob
from pathlib import Path

from producer.manifest.parts import PromptSource

TEXTS = (".csv", ".tsv", ".txt")
"""Formats whose values are texts."""
SUFFIXES = (".jsonl", ".csv", ".tsv", ".txt", ".parquet")


def files_of(source: PromptSource) -> tuple[Path, ...]:
    """The files, sorted by name; none when nothing is there. `source.file` is absolute."""
    if Path(source.file).exists():
        return (Path(source.file),)
    found = (Path(name) for name in glob.iglob(source.file, recursive=True))  # noqa: PTH207 - an absolute pattern
    return tuple(sorted(file for file in found if file.is_file()))


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def source_trouble(source: PromptSource) -> str | None:
    """Why the source cannot be read, with the remedy; None when it can. Looks at names alone."""
    files = files_of(source)
    if not files:
        pattern = any(mark in source.file for mark in "*?[")
        what = "matches no file" if pattern else "there is no such file"
        return f"{what}: correct it (it is relative to the manifest), or put the file there"
    for file in files:
        if not _is_utf8(str(file)):
            return f"{str(file)!a} is not UTF-8: rename it"
        if file.is_dir():
            return f"is a folder: write {source.file}/*.jsonl for the files in it"
        if file.suffix not in SUFFIXES:
            return f"{file.name} ends in none of {', '.join(SUFFIXES)}: rename or convert it"
        if file.suffix == ".txt" and (source.fields or source.columns):
            return f"{file.name} has no columns: remove `fields` and `columns`"
    return None
