"""Which files a manifest's `prompts_from` means, and how their formats are told."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator
from pathlib import Path

from jobs.location import names_bucket
from producer.bucket_files.fetched_files import copy_of, is_there, matching, near
from producer.manifest.prompt_source import PromptSource
from producer.manifest.source_yaml import key_offer
from producer.manifest.unpacked import PACKED

TABLES = (".csv", ".tsv")
TEXTS = (*TABLES, ".txt")
"""Formats whose values are texts."""
FORMATS = {
    ".jsonl": ".jsonl",
    ".ndjson": ".jsonl",
    ".jsonlines": ".jsonl",
    ".json": ".json",
    ".csv": ".csv",
    ".tsv": ".tsv",
    ".tab": ".tsv",
    ".txt": ".txt",
    ".caption": ".txt",
    ".parquet": ".parquet",
}
"""How names end, in upper case too, -> the format that is read."""
_UNPACK = "unpack it"
_CONVERT = {
    ".yaml": "write its prompts under `prompts` of a manifest, or convert it to .json",
    ".yml": "write its prompts under `prompts` of a manifest, or convert it to .json",
    ".toml": "convert it to .json",
    ".xml": "convert it to .jsonl",
    ".xlsx": "save the sheet as .csv (UTF-8)",
    ".xls": "save the sheet as .csv (UTF-8)",
    ".ods": "save the sheet as .csv (UTF-8)",
    ".numbers": "export the sheet as .csv",
    ".arrow": "save it as .parquet",
    ".feather": "save it as .parquet",
    ".pkl": "save it as .parquet or .jsonl",
    ".pickle": "save it as .parquet or .jsonl",
    ".npy": "save it as .jsonl",
    ".db": "export the table as .csv",
    ".sqlite": "export the table as .csv",
    ".bz2": "unpack it, or pack it as .gz or .zst",
    ".xz": "unpack it, or pack it as .gz or .zst",
    ".lz4": "unpack it, or pack it as .gz or .zst",
    ".zip": _UNPACK,
    ".7z": _UNPACK,
    ".tar": _UNPACK,
    ".tgz": _UNPACK,
    ".docx": "save it as .txt",
    ".md": "rename it to .txt if it holds a prompt a line",
}
"""What to make of files of other formats."""


def format_of(file: Path) -> str | None:
    """The format of a file, one of FORMATS' values; None for other files, and for a packed .parquet."""
    suffix = file.suffix.lower()
    if suffix not in PACKED:
        return FORMATS.get(suffix)
    inner = FORMATS.get(Path(file.stem).suffix.lower())
    return None if inner == ".parquet" else inner


def files_of(source: PromptSource) -> tuple[Path, ...]:
    """The files, sorted by name; none when nothing is there. `source.file` is absolute.

    With `one_per_file` a folder means the .txt files in it and in its folders, and numbers in names are
    sorted by their values.
    """
    if names_bucket(source.file):
        return _in_bucket(source)
    file = Path(source.file)
    if source.one_per_file:
        return tuple(sorted(_texts_of(source), key=lambda file: _natural(str(file))))
    if file.exists():
        return (file,)
    return tuple(sorted(_matches(source.file)))


def _in_bucket(source: PromptSource) -> tuple[Path, ...]:
    """The copies of a source's files. Raises InputError."""
    found = [source.file] if is_there(source.file) else matching(source.file)
    if source.one_per_file and not found:
        below = matching(f"{source.file.removesuffix('/')}/**")
        found = [one for one in below if format_of(Path(one)) == ".txt"]
    key = _natural if source.one_per_file else None
    return tuple(near(one) for one in sorted(found, key=key))


def id_of(source: PromptSource, file: Path) -> str:
    """The id of the prompt in one of the files of a source with `one_per_file`: its name without suffixes,
    after those of the folders between it and what the source names."""
    below = file.relative_to(_root(source))
    name = Path(below.stem).stem if below.suffix.lower() in PACKED else below.stem
    return (below.parent / name).as_posix()


def source_trouble(source: PromptSource) -> str | None:
    """Why the source cannot be read, with the remedy; None when it can. Looks at names alone."""
    files = files_of(source)
    folder = Path(source.file).is_dir()
    if not files:
        if folder:
            return "holds no .txt file: put one there for each prompt, or name another folder"
        pattern = any(mark in source.file for mark in "*?[")
        what = "matches no file" if pattern else "there is no such file"
        return f"{what}: correct it (it is relative to the manifest), or put the file there"
    if folder and not source.one_per_file:
        return (
            f"is a folder: write {source.file}/*.jsonl for the files in it, or, if each of its .txt files is "
            f"one prompt, {key_offer(source, 'one_per_file: true')}"
        )
    ids = dict[str, Path]()
    for file in files:
        if not _is_utf8(str(file)):
            return f"{str(file)!a} is not UTF-8: rename it"
        if file.is_dir():
            return f"{file.name} is a folder: name files alone"
        form = format_of(file)
        trouble = _unreadable(file) if form is None else _unfit(source, file, form)
        if trouble is not None:
            return f"{file.name} {trouble}"
        if source.one_per_file and (other := ids.setdefault(id_of(source, file), file)) is not file:
            return f"{other.name} and {file.name} have one id, {id_of(source, file)}: rename one"
    return None


def _unreadable(file: Path) -> str:
    """What to say of a file whose format is not read."""
    suffix = file.suffix.lower()
    if suffix in PACKED:
        inner = Path(file.stem).suffix.lower()
        if FORMATS.get(inner) == ".parquet":
            return "is packed twice: unpack it, .parquet is packed in itself"
        if inner in _CONVERT:
            then = "" if _CONVERT[inner] == _UNPACK else f", and {_CONVERT[inner]}"
            return f"holds {inner}, which is not read: {_UNPACK}{then}"
        return f"does not say what it holds: rename it, as to prompts.jsonl{suffix}"
    if suffix in _CONVERT:
        return f"is {suffix}, which is not read: {_CONVERT[suffix]}"
    named = ", ".join(name for name, form in FORMATS.items() if name == form)
    return f"ends in none of {named}: rename or convert it"


def _unfit(source: PromptSource, file: Path, form: str) -> str | None:
    """Which key of the source means nothing for a file of that format; None when each does."""
    if source.one_per_file and form != ".txt":
        return "is not .txt: remove `one_per_file`, or name .txt files alone"
    if form == ".txt" and (source.fields or source.columns or source.ignore):
        return "has no columns: remove `fields`, `columns` and `ignore`"
    if form not in TABLES:
        for key in ("separator", "quoting"):
            if getattr(source, key) is not None:
                return f"is no table: remove `{key}`, or rename the file to .csv if it has a header"
    if form == ".parquet" and source.encoding is not None:
        return "is not text: remove `encoding`"
    return None


def _texts_of(source: PromptSource) -> Iterator[Path]:
    """What a source with `one_per_file` names."""
    file = Path(source.file)
    if file.is_dir():
        everything = _matches(f"{glob.escape(source.file)}/**/*")
        return (one for one in everything if format_of(one) == ".txt")
    return iter((file,)) if file.exists() else _matches(source.file)


def _matches(pattern: str) -> Iterator[Path]:
    found = (Path(name) for name in glob.iglob(pattern, recursive=True))  # noqa: PTH207 - an absolute pattern
    return (file for file in found if file.is_file())


def _root(source: PromptSource) -> Path:
    """The folder below which names differ between the files of a source."""
    file = copy_of(source.file) if names_bucket(source.file) else Path(source.file)
    if file.is_dir():
        return file
    if file.exists():
        return file.parent
    fixed = file.parent
    while any(mark in str(fixed) for mark in "*?["):
        fixed = fixed.parent
    return fixed


def _natural(name: str) -> tuple[list[str | int], str]:
    """What sorts 2 before 10; the name itself is last, since 1 and 01 are one number."""
    parts: list[str | int] = [*re.split("([0-9]+)", name)]
    parts[1::2] = [int(digits) for digits in parts[1::2]]
    return parts, name


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
