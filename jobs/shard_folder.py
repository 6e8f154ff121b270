"""A committed shard of `layout: files`, examined: lines, pictures, failures and numbering agree both ways."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.findings import Cut, Held, Kind, Problem, ShardFindings, shown
from jobs.metadata import Failure, request_of_row
from jobs.output import METADATA, SHARD_LIMIT, Output, shard_name
from jobs.picture_file import read_picture
from jobs.quarantine import REPAIRED
from jobs.request import ImageRequest

RENDER_AGAIN = "`--repair` sets it aside, then submit the manifest again"
TAKE_OUT = "`--repair` sets it aside"

_PICTURE_NAME = re.compile(r"([0-9]{9,})\.[a-z]+")


def examine_shard(output: Output, shard: int) -> ShardFindings:
    """Everything that is wrong in one committed shard; every byte of it is read.

    Raises nothing for what it finds: what the system does not let it read is a problem too.
    """
    return _Examination(output, shard).findings()


def file_problem(path: Path, file: str, error: OSError) -> Problem:
    """The problem that the system does not let us read `path`, which is `file` in the output."""
    return Problem(
        kind="unreadable",
        file=file,
        what=f"cannot be read ({error.strerror})",
        remedy=f"make it readable for this user, or look after the disk: {path}",
    )


def read_plain(path: Path) -> bytes:
    """The file's bytes. Raises OSError, also for what is no plain file: reading a pipe would wait forever."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(0, "not a plain file")
    return path.read_bytes()


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of metadata whose row is sound."""

    number: int
    position: int
    row: dict[str, Any]
    request: ImageRequest


class _Examination:
    def __init__(self, output: Output, shard: int) -> None:
        self._folder, self._shard = output.shard_folder(shard), shard
        self._failures_name = output.failures_file(shard).name
        self._found = ShardFindings(shard)
        self._claimed: dict[str, int] = {}
        """Every picture that a line names -> the first such line."""
        self._filled: set[int] = set()
        """The places in the shard that something accounts for."""

    def findings(self) -> ShardFindings:
        """Examine and tell."""
        try:
            names = sorted(file.name for file in self._folder.iterdir())
            metadata = self._lines_of(METADATA) if METADATA in names else []
            failures = self._lines_of(self._failures_name) if self._failures_name in names else []
            repaired = self._lines_of(REPAIRED) if REPAIRED in names else []
        except OSError as error:
            name = shard_name(self._shard)
            where = name if error.filename is None else f"{name}/{Path(error.filename).name}"
            self._found.problems.append(file_problem(self._folder, where, error))
            return self._found
        if not metadata and not failures:
            what = "holds no line of metadata and no failure"
            self._tell("folder", "", what, RENDER_AGAIN, cut=Cut(whole=True))
            return self._found
        lines = list(self._sound_lines(metadata))
        self._read_failures(failures, {line.position for line in lines})
        self._filled.update(self._repaired_positions(repaired))
        for line in lines:
            self._examine_picture(line)
        beside = [name for name in names if name not in {METADATA, self._failures_name, REPAIRED}]
        strays = self._name_strays([name for name in beside if name not in self._claimed])
        self._name_gaps(strays)
        return self._found

    def _sound_lines(self, lines: list[bytes]) -> Iterator[_Line]:
        """The rows that say what they should; the others are told."""
        for number, text in enumerate(lines, 1):
            row = _json_object(text)
            if row is None:
                self._tell_line(number, "is not a JSON object")
                continue
            name = row.get("file_name")
            position = self._position(name)
            if position is None or not isinstance(name, str):
                self._tell_line(number, f"names no picture of this shard: file_name = {name!r}")
                continue
            earlier = self._claimed.setdefault(name, number)
            if earlier != number:
                what = f"names {name}, as line {earlier} does"
                self._tell_line(number, what, kind="doubled", remedy=TAKE_OUT)
                continue
            self._filled.add(position)
            request = _request_of(row)
            if isinstance(request, str):
                names = (name,) if os.path.lexists(self._folder / name) else ()
                self._tell_line(number, f"{name}: {request}", names=names, positions=(position,))
                continue
            yield _Line(number, position, row, request)

    def _read_failures(self, lines: list[bytes], rendered: set[int]) -> None:
        for number, text in enumerate(lines, 1):
            row = _json_object(text) or {}
            try:
                failure = Failure.from_mapping(row)
                image_id = failure.image_id
            except (KeyError, TypeError, ValueError) as error:
                wrong = f"is not a failure ({error})"
            else:
                if failure.shard != self._shard or not _is_place(failure.position):
                    wrong = f"is of place {failure.position} of shard {failure.shard}, not of this one"
                elif image_id != row.get("image_id"):
                    wrong = f"its settings give image_id {image_id}: the line was changed"
                elif failure.position in rendered:
                    wrong = f"place {failure.position} has a picture and a failure"
                else:
                    self._filled.add(failure.position)
                    self._found.failed.append(image_id)
                    continue
            cut = Cut(failure_lines=(number,))
            self._tell("line", self._failures_name, wrong, RENDER_AGAIN, line=number, cut=cut)

    def _repaired_positions(self, lines: list[bytes]) -> Iterator[int]:
        for text in lines:
            row = _json_object(text)
            if row is not None and _is_place(row.get("position")):
                yield row["position"]

    def _examine_picture(self, line: _Line) -> None:
        name, image_id = line.row["file_name"], line.row["image_id"]
        path = self._folder / name
        names: tuple[str, ...] = (name,)
        try:
            data = read_plain(path)
        except FileNotFoundError:
            wrong: str | None = f"is missing: line {line.number} of {METADATA} names it"
            # A link that leads nowhere is there all the same.
            names = (name,) if path.is_symlink() else ()
        except OSError as error:
            self._found.problems.append(file_problem(path, f"{shard_name(self._shard)}/{name}", error))
            return
        else:
            wrong = _picture_trouble(data, line)
        if wrong is None:
            self._found.images.append(Held(image_id, line.number, name))
            return
        cut = Cut(names=names, lines=(line.number,), positions=(line.position,))
        self._tell("picture", name, wrong, RENDER_AGAIN, image_id=image_id, cut=cut)

    def _name_strays(self, names: Iterable[str]) -> set[int]:
        """Tells of files that no line names; returns the places that they would have."""
        positions = set()
        for name in names:
            position = self._position(name)
            if name.startswith("."):
                self._found.notes.append(
                    f"{shard_name(self._shard)}/{shown(name)}: not imagemill's; dataset readers pass it by"
                )
            elif position is None:
                cut = Cut(names=(name,))
                self._tell("stray", name, "does not belong to the shard", TAKE_OUT, cut=cut)
            else:
                positions.add(position)
                image_id = self._image_id_in(name)
                holds = "" if image_id is None else f"; it holds {image_id}"
                what = f"no line of {METADATA} names it{holds}"
                cut = Cut(names=(name,), positions=(position,))
                self._tell("stray", name, what, RENDER_AGAIN, image_id=image_id, cut=cut)
        return positions

    def _name_gaps(self, strays: set[int]) -> None:
        """Tells of places below the last one that are filled with neither picture nor failure."""
        gaps = sorted(set(range(max(self._filled, default=-1))) - self._filled - strays)
        if gaps:
            noun = "place" if len(gaps) == 1 else "places"
            verb = "is" if len(gaps) == 1 else "are"
            what = f"{noun} {_ranges(gaps)} {verb} neither a picture nor a failure"
            remedy = "submit the manifest again; `--repair` notes the gap"
            self._tell("gap", "", what, remedy, cut=Cut(positions=tuple(gaps)))

    def _image_id_in(self, name: str) -> str | None:
        try:
            request = read_picture(read_plain(self._folder / name)).request
            return None if request is None else request.image_id
        except (OSError, ValueError):
            return None

    def _position(self, name: object) -> int | None:
        """The place in this shard that a picture of this name has; None for any other name."""
        found = _PICTURE_NAME.fullmatch(name) if isinstance(name, str) else None
        if found is None or found[1][:-4] != shard_name(self._shard):
            return None
        return int(found[1][-4:])

    def _lines_of(self, name: str) -> list[bytes]:
        """The file's lines. Raises OSError that names the file."""
        path = self._folder / name
        try:
            data = read_plain(path)
        except OSError as error:
            raise OSError(error.errno or 0, error.strerror, str(path)) from None
        lines = data.split(b"\n")
        return lines if lines[-1] else lines[:-1]

    def _tell_line(
        self, number: int, what: str, *, kind: Kind = "line", remedy: str = RENDER_AGAIN, **cut: Any
    ) -> None:
        """A line of metadata is wrong; `cut`: what goes with it."""
        self._tell(kind, METADATA, what, remedy, line=number, cut=Cut(lines=(number,), **cut))

    def _tell(self, kind: Kind, name: str, what: str, remedy: str, **more: Any) -> None:
        file = f"{shard_name(self._shard)}/{shown(name)}" if name else shard_name(self._shard)
        self._found.problems.append(Problem(kind=kind, file=file, what=what, remedy=remedy, **more))


def _json_object(text: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _is_place(position: object) -> bool:
    return isinstance(position, int) and 0 <= position < SHARD_LIMIT


def _request_of(row: Mapping[str, Any]) -> ImageRequest | str:
    """The request of a metadata row, or what is wrong with the row."""
    if not isinstance(row.get("sha256"), str):
        return "names no SHA-256"
    try:
        request = request_of_row(row)
        image_id = request.image_id
    except (KeyError, TypeError, ValueError) as error:
        return f"its settings make no request ({error})"
    if image_id != row.get("image_id"):
        return f"its settings give image_id {image_id}, not {row.get('image_id')}: the line was changed"
    return request


def _picture_trouble(data: bytes, line: _Line) -> str | None:
    """What is wrong with the picture of a sound line; None when nothing is."""
    wanted = line.request
    try:
        picture = read_picture(data)
        if picture.request is None:
            return "holds no request: another program wrote it"
        if picture.request != wanted and (other := picture.request.image_id) != wanted.image_id:
            return f"is another picture: it holds {other}, its line names {wanted.image_id}"
    except ValueError as error:
        return str(error)
    if hashlib.sha256(data).hexdigest() != line.row["sha256"]:
        return "bytes were changed: its SHA-256 is not that of its line"
    told, asked = (
        f"{form} of {width}x{height}"
        for form, width, height in (
            (picture.image_format, picture.width, picture.height),
            (wanted.image_format, wanted.width, wanted.height),
        )
    )
    return None if told == asked else f"is a {told}, its line says {asked}"


def _ranges(numbers: Sequence[int]) -> str:
    """`3, 5–7` of ascending numbers."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1][1:] = [number]
        else:
            parts.append([number])
    return ", ".join("–".join(map(str, part)) for part in parts)
