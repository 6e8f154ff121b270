"""The prompt files of a manifest as one stream of lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from jobs.bounds import Text, Values
from jobs.errors import InputError, ManifestError
from jobs.file_hash import FileState, file_sha256, file_state
from jobs.wording import printable, shortened
from producer.bucket_files.object_copies import named
from producer.manifest.line import Line, line_of, written_lines
from producer.manifest.manifest import Manifest
from producer.manifest.parts import ROW_FIELDS, ROW_VALUES, PromptLine
from producer.manifest.picture_files import PictureFiles
from producer.manifest.pipeline_check import PipelineCheck
from producer.manifest.problems import MAX_REPORTED
from producer.manifest.prompt_source import PromptSource
from producer.manifest.relations import ColumnKinds
from producer.manifest.source_files import TABLES, TEXTS, files_of, format_of, source_trouble
from producer.manifest.syntax_marks import Found
from producer.manifest.text_lines import WrongEncoding
from producer.manifest.unpacked import PACKED
from producer.manifest.written import TEMPLATE_COLUMNS
from producer.prompt_files import plain, separated
from producer.prompt_files.ahead import read_ahead
from producer.prompt_files.column_roles import UNKNOWN
from producer.prompt_files.drawn import Drawing, checked, drawn_lines, templates_of
from producer.prompt_files.marked_rows import marks_of_manifest, marks_of_rows
from producer.prompt_files.reading import Noticed, Reading
from producer.prompt_files.records import records
from producer.prompt_files.row_reader import RowReader, UnknownColumns
from producer.prompt_files.unknown_columns import named_within

if TYPE_CHECKING:
    from producer.wildcards.templates import Templates

_ROWS, _FEW = 512, 8
_TEXT = 16 << 20
"""Characters of prompts after which rows are handed on, looked at after each `_FEW`."""
LARGE = 8 << 20
"""Bytes of prompt files, about 80,000 prompts, that one process reads in half a second."""
_MOST_UNKNOWN = 100
"""Columns of one file that mean nothing, of which a message is made."""
_OF_LINES = ("prompt", "negative_prompt", "id")
"""What a file of prompts is expected to give."""
_UNPACKED = 4
"""How many times its size a packed file usually has."""


Row = str | Line | ManifestError
"""A prompt whose row says nothing else, which takes the least time to hand over; a line; or all that is wrong
with the row: `FILE:LINE: what`."""


class Rows(NamedTuple):
    """Some rows of one file, in order; the last of a file may be none."""

    path: str
    sha256: str
    rows: list[Row]
    noticed: Noticed | None
    """What was noticed in a file that ends with these rows."""
    marks: Mapping[int, Found]
    """What in their texts looks like another tool's syntax."""
    numbers: Sequence[str] = ()
    """The number of each row, with its key where it has one, where rows are templates."""


def lines(
    manifest: Manifest, reading: Reading | None = None, check: PipelineCheck | None = None
) -> Iterator[Line]:
    """Every line of `manifest` as `written_rows` gives it, or what is drawn from it. Raises as that does."""
    reading = Reading() if reading is None else reading
    reading.marks.add(marks_of_manifest(manifest))
    found, templates = written_rows(manifest, reading, check), templates_of(manifest)
    # A generator around the other one would cost each of a million plain lines its time.
    return found if templates is None else _drawn(manifest, reading, found, Drawing(templates, check))


def _drawn(manifest: Manifest, reading: Reading, found: Iterator[Line], drawing: Drawing) -> Iterator[Line]:
    yield from drawn_lines(manifest, found, drawing, lambda: reading.place)
    reading.sha256.update(drawing.templates.files)
    for name in TEMPLATE_COLUMNS:
        reading.columns.add({name: ""})


def written_rows(
    manifest: Manifest, reading: Reading | None = None, check: PipelineCheck | None = None
) -> Iterator[Line]:
    """Every line of `manifest`: those in it, then those of its prompt files, in order.

    Files are streamed, never held whole; large ones are read by a process of their own, so that two cores
    work. `reading` records what they held; `check` finds rows that the model's class does not take. Raises
    ManifestError for a file that cannot be read or that changes while it is, and, with `on_bad_row: stop`,
    for rows that are wrong, the first of them together.
    """
    reading = Reading() if reading is None else reading
    pictures = PictureFiles.of(manifest, None if check is None else check.settings)
    for line in map(pictures.named, written_lines(manifest)):
        yield reading.taken(line) if line.columns else line
    reading.pictures.add(pictures.noted)
    _, *unsaid = line_of({"prompt": ""}, manifest.settings)
    found = Counter[str]()
    for path, sha256, rows, noticed, marks, numbers in (
        read_ahead(partial(source_rows, check=check), manifest)
        if _large(manifest)
        else source_rows(manifest, check)
    ):
        reading.sha256[path] = sha256
        if noticed is not None:
            reading.add(noticed)
        reading.marks.add(marks)
        found[path] += len(rows)
        for row in _placed(reading, path, rows, numbers) if numbers else rows:
            if not isinstance(row, ManifestError):
                # After a row that stops the submission, the others are only checked.
                if reading.skipped == 0 or manifest.on_bad_row == "skip":
                    if isinstance(row, str):
                        yield Line._make((row, *unsaid))
                    else:
                        yield reading.taken(row) if row.columns else row
                continue
            reading.skipped += 1
            told = named(str(row))
            reading.on_skipped(told)
            if len(reading.skipped_rows) < MAX_REPORTED:
                reading.skipped_rows.append(told)
            elif manifest.on_bad_row == "stop":
                raise ManifestError("\n".join([*reading.skipped_rows, f"{named(path)}: and more"]))
    wrong = reading.skipped_rows if manifest.on_bad_row == "stop" else []
    wrong = [*wrong, *_without_prompts(found)]
    if found and not manifest.prompts and found.total() == reading.skipped:
        # Otherwise a job without a picture would be finished at once.
        wrong = reading.skipped_rows or wrong
    if wrong:
        raise ManifestError("\n".join(wrong))


def _placed(reading: Reading, path: str, rows: Sequence[Row], numbers: Sequence[str]) -> Iterator[Row]:
    """The rows, each after its place was recorded."""
    for number, row in zip(numbers, rows, strict=True):
        reading.place = f"{path}:{number}"
        yield row


def _without_prompts(found: Counter[str]) -> list[str]:
    """A line for each of the first files that no row was found in; `found` is by path."""
    empty = [path for path, rows in found.items() if rows == 0]
    remedy = "write one into it, or take it out of `prompts_from`"
    lines = [f"{path}: holds no prompt: {remedy}" for path in empty[:MAX_REPORTED]]
    more = len(empty) - len(lines)
    return [*lines, f"{more} more files hold no prompt"] if more else lines


def source_rows(manifest: Manifest, check: PipelineCheck | None = None) -> Iterator[Rows]:
    """The rows of every prompt file of `manifest`, some hundreds at a time. Raises ManifestError."""
    kinds = ColumnKinds()
    for written in manifest.prompts:
        if isinstance(written, PromptLine):
            for name, value in ({} if written.columns is None else written.columns).items():
                kinds.trouble(name, value, "in the manifest")
    templates = templates_of(manifest)
    pictures = PictureFiles.of(manifest, None if check is None else check.settings)
    for source, path in _files(manifest):
        state = _state(path)
        noticed = Noticed()
        pictures.noted = noticed.pictures
        numbers: list[int] = []
        read = 0
        rows = _rows(manifest, source, path, noticed, RowChecks(kinds, check, templates, pictures, numbers))
        # A file without rows is one that was read.
        some, ended = _some(rows)
        # Not before: what is no prompt file at all may take long to be hashed.
        sha256 = _sha256(path)
        while not ended:
            read += len(some)
            marks = marks_of_rows(some, path, numbers)
            yield Rows(str(path), sha256, some, None, marks, _numbers(numbers, templates))
            numbers.clear()
            some, ended = _some(rows)
        if format_of(path) == ".txt" and not source.one_per_file:
            noticed.lines = read + len(some)
        marks = marks_of_rows(some, path, numbers)
        yield Rows(str(path), sha256, some, noticed, marks, _numbers(numbers, templates))
        if _state(path) != state:
            raise ManifestError(f"{path}: changed while it was being read: run the same command again")


def _some(rows: Iterator[Row]) -> tuple[list[Row], bool]:
    """The next rows, fewer where their prompts are long, and whether they are the last."""
    some: list[Row] = []
    held = 0
    while len(some) < _ROWS and held < _TEXT:
        few = list(islice(rows, _FEW))
        some += few
        if len(few) < _FEW:
            return some, True
        held += sum(len(row) if isinstance(row, str) else len(getattr(row, "prompt", "")) for row in few)
    return some, False


def _numbers(numbers: Sequence[int], templates: Templates | None) -> Sequence[str]:
    return () if templates is None else [str(number) for number in numbers]


class RowChecks(NamedTuple):
    """What a row is asked beyond its own rules."""

    kinds: ColumnKinds
    pipeline: PipelineCheck | None
    templates: Templates | None
    pictures: PictureFiles
    numbers: list[int]
    """Takes the number of each row that is yielded."""


def _rows(
    manifest: Manifest, source: PromptSource, path: Path, noticed: Noticed, checks: RowChecks
) -> Iterator[Row]:
    form, templates, take_number = format_of(path), checks.templates, checks.numbers.append
    if source.one_per_file:
        names: Mapping[str, str] = {"prompt": "prompt", "id": "id"}
    else:
        names = plain.FLAGS if form == ".txt" else _names(source)
    table = RowReader(
        path,
        source,
        names,
        manifest.settings,
        manifest.sweep,
        checks.kinds,
        texts=form in TEXTS,
        check=checks.pipeline,
    )
    unknown_told = False
    for number, row in records(path, source, table, noticed.left_out):
        line: Line | ManifestError
        if isinstance(row, ManifestError):
            if isinstance(row, WrongEncoding) and manifest.on_bad_row == "stop":
                # The next rows would say the same.
                raise ManifestError(f"{path}:{number}: {row}")
            line = row
        else:
            prompt = table.prompt_alone(row)
            if prompt is not None and templates is None and not checks.pictures.usual:
                take_number(number)
                yield prompt
                continue
            line = table.line(row, number)
            if not isinstance(line, ManifestError):
                try:
                    line = checks.pictures.named(line)
                except ManifestError as error:
                    line = error
            if templates is not None and not isinstance(line, ManifestError):
                line = checked(line, templates, manifest.settings)
            if isinstance(line, ManifestError) and form in TABLES:
                one_line = {name for name in row if not isinstance(_values(table.roles.field(name)), Text)}
                line = separated.wrong_row(line, path, number, row, one_line)
            elif isinstance(line, UnknownColumns) and manifest.on_bad_row == "stop":
                if unknown_told:
                    continue
                # One message tells of all that the file has.
                unknown_told = True
                line = ManifestError(table.roles.unknown(_unknown(path, source, table)))
        take_number(number)
        trouble = printable(str(line)) if isinstance(line, ManifestError) else None
        yield line if trouble is None else ManifestError(f"{path}:{number}: {trouble}")
    if form not in (".txt", *TABLES, ".parquet"):
        for name in table.roles.never_met():
            yield ManifestError(f"{path}: ignore = {shortened(name)}: no row has such a column: correct it")
    if form != ".txt":
        noticed.settings_of_columns |= {
            name: setting for name, setting in table.roles.implied.items() if setting not in _OF_LINES
        }
    noticed.unguided = table.unguided


def _unknown(path: Path, source: PromptSource, table: RowReader) -> list[str]:
    """The columns of a file that mean nothing, in the order in which they first appear."""
    names: dict[str, None] = {}
    for _number, row in records(path, source, table, Counter()):
        if isinstance(row, dict):
            for name, value in row.items():
                if table.roles.field(name) == UNKNOWN:
                    names.update(dict.fromkeys(named_within(name, value)))
            if len(names) > _MOST_UNKNOWN:
                break
    return list(names)


def _values(field: str | None) -> Values:
    """The values of a field; any text for what is none."""
    return ROW_VALUES.get(field or "", Text())


def _files(manifest: Manifest) -> Iterator[tuple[PromptSource, Path]]:
    seen = set[Path]()
    for source in manifest.prompts_from:
        # A manifest is loaded some time before its files are read.
        try:
            trouble = source_trouble(source)
        except InputError as error:
            trouble = str(error)
        if trouble is not None:
            raise ManifestError(f"prompts_from = {source.file}: {trouble}")
        for path in files_of(source):
            if path in seen:
                raise ManifestError(f"prompts_from: {path} is named twice: remove one")
            seen.add(path)
            yield source, path


def _names(source: PromptSource) -> dict[str, str]:
    """What the source calls our fields -> the fields."""
    return {source.fields.get(field, field): field for field in ROW_FIELDS} | {
        name: field for field, name in source.fields.items()
    }


def _large(manifest: Manifest) -> bool:
    """Whether reading takes longer than starting a process for it."""
    sizes = (
        _state(path).size * (_UNPACKED if path.suffix.lower() in PACKED else 1)
        for _source, path in _files(manifest)
    )
    return sum(sizes) >= LARGE


def _state(path: Path) -> FileState:
    try:
        return file_state(path)
    except OSError as error:
        raise _unreadable(path, error) from None


def _sha256(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: OSError) -> ManifestError:
    return ManifestError(f"{path}: cannot be read: {error.strerror}")
