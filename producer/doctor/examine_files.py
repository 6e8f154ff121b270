"""A committed shard of `layout: files`, examined: lines, pictures, failures and numbering agree both ways."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.output.files import METADATA
from jobs.output.lines import key_of
from jobs.output.output import Output
from jobs.output.picture_file import read_picture
from jobs.output.stored_shard import REPAIRED
from jobs.plain_file import read_plain
from jobs.request import ImageRequest
from jobs.wording import shown
from producer.doctor.findings import Cut, Problem, ProblemKind, ShardFindings, SoundImage
from producer.doctor.soundness import (
    FILL_GAP,
    RENDER_AGAIN,
    TAKE_OUT,
    failure_in,
    file_problem,
    gaps_between,
    json_object,
    lines_of,
    picture_trouble,
    repaired_places,
    request_in,
)


def examine_shard(output: Output, shard: int) -> ShardFindings:
    """Everything that is wrong in one committed shard; every byte of it is read.

    Raises nothing for what it finds: what the system does not let it read is a problem too.
    """
    return _Examination(output, shard).findings()


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of metadata whose record is sound."""

    number: int
    position: int
    record: dict[str, Any]
    request: ImageRequest


class _Examination:
    def __init__(self, output: Output, shard: int) -> None:
        self._folder, self._shard = output.shard_folder(shard), shard
        self._failures_name = output.failures_file(shard).name
        self._names, self._name = output.names, output.names.name(shard)
        self._found = ShardFindings(shard, self._name)
        self._claimed: dict[str, int] = {}
        """Every picture that a line names -> the first such line."""
        self._filled: set[int] = set()
        """The places in the shard that something accounts for."""

    def findings(self) -> ShardFindings:
        """Examine the shard and return what was found."""
        try:
            names = sorted(file.name for file in self._folder.iterdir())
            metadata = self._lines_of(METADATA) if METADATA in names else []
            failures = self._lines_of(self._failures_name) if self._failures_name in names else []
            repaired = self._lines_of(REPAIRED) if REPAIRED in names else []
        except OSError as error:
            name = self._name
            where = name if error.filename is None else f"{name}/{Path(error.filename).name}"
            self._found.problems.append(file_problem(str(self._folder), where, error))
            return self._found
        if not metadata and not failures:
            what = "holds no line of metadata and no failure"
            self._add("folder", "", what, RENDER_AGAIN, cut=Cut(whole=True))
            return self._found
        lines = list(self._sound_lines(metadata))
        self._read_failures(failures, {line.position for line in lines})
        self._filled.update(repaired_places(repaired))
        for line in lines:
            self._examine_picture(line)
        others = [name for name in names if name not in {METADATA, self._failures_name, REPAIRED}]
        strays = self._name_strays([name for name in others if name not in self._claimed])
        self._name_gaps(strays)
        return self._found

    def _sound_lines(self, lines: list[bytes]) -> Iterator[_Line]:
        """The sound records; what is wrong with the others is added to the problems."""
        for number, text in enumerate(lines, 1):
            record = json_object(text)
            if record is None:
                self._add_line(number, "is not a JSON object")
                continue
            name = record.get("file_name")
            position = self._names.position(self._shard, name)
            if position is None or not isinstance(name, str):
                self._add_line(number, f"names no picture of this shard: file_name = {name!r}")
                continue
            earlier = self._claimed.setdefault(name, number)
            if earlier != number:
                what = f"names {name}, as line {earlier} does"
                self._add_line(number, what, kind="doubled", remedy=TAKE_OUT)
                continue
            self._filled.add(position)
            request = request_in(record)
            if isinstance(request, str):
                names = (name,) if os.path.lexists(self._folder / name) else ()
                self._add_line(number, f"{name}: {request}", names=names, positions=(position,))
                continue
            yield _Line(number, position, record, request)

    def _read_failures(self, lines: list[bytes], rendered: set[int]) -> None:
        for number, text in enumerate(lines, 1):
            failure = failure_in(text, self._shard, rendered)
            if isinstance(failure, str):
                cut = Cut(failure_lines=(number,))
                self._add("line", self._failures_name, failure, RENDER_AGAIN, line=number, cut=cut)
            else:
                self._filled.add(failure.position)
                self._found.failed.append(failure.image_id)

    def _examine_picture(self, line: _Line) -> None:
        name, image_id = line.record["file_name"], line.record["image_id"]
        path = self._folder / name
        names: tuple[str, ...] = (name,)
        try:
            data = read_plain(path)
        except FileNotFoundError:
            wrong: str | None = f"is missing: line {line.number} of {METADATA} names it"
            # A link that leads nowhere is there all the same.
            names = (name,) if path.is_symlink() else ()
        except OSError as error:
            self._found.problems.append(file_problem(str(path), f"{self._name}/{name}", error))
            return
        else:
            wrong = picture_trouble(data, line.request, line.record["sha256"])
        if wrong is None:
            self._found.images.append(SoundImage(image_id, line.number, name, key_of(line.record)))
            return
        cut = Cut(names=names, lines=(line.number,), positions=(line.position,))
        self._add("picture", name, wrong, RENDER_AGAIN, image_id=image_id, cut=cut)

    def _name_strays(self, names: Iterable[str]) -> set[int]:
        """Add the files that no line names to the problems; return the places that they would have."""
        positions = set()
        for name in names:
            position = self._names.position(self._shard, name)
            if name.startswith("."):
                self._found.notes.append(
                    f"{self._name}/{shown(name)}: not imagemill's; dataset readers pass it by"
                )
            elif position is None:
                cut = Cut(names=(name,))
                self._add("stray", name, "does not belong to the shard", TAKE_OUT, cut=cut)
            else:
                positions.add(position)
                image_id = self._image_id_in(name)
                holds = "" if image_id is None else f"; it holds {image_id}"
                what = f"no line of {METADATA} names it{holds}"
                cut = Cut(names=(name,), positions=(position,))
                self._add("stray", name, what, RENDER_AGAIN, image_id=image_id, cut=cut)
        return positions

    def _name_gaps(self, strays: set[int]) -> None:
        """Add the places below the last one that have neither picture nor failure to the problems."""
        gaps = gaps_between(self._filled, strays)
        if gaps is not None:
            self._add("gap", "", gaps.what, FILL_GAP, cut=Cut(positions=gaps.places))

    def _image_id_in(self, name: str) -> str | None:
        try:
            request = read_picture(read_plain(self._folder / name)).request
            return None if request is None else request.image_id
        except (OSError, ValueError):
            return None

    def _lines_of(self, name: str) -> list[bytes]:
        """The file's lines. Raises OSError that names the file."""
        path = self._folder / name
        try:
            data = read_plain(path)
        except OSError as error:
            raise OSError(error.errno or 0, error.strerror, str(path)) from None
        return lines_of(data)

    def _add_line(
        self, number: int, what: str, *, kind: ProblemKind = "line", remedy: str = RENDER_AGAIN, **cut: Any
    ) -> None:
        """A line of metadata is wrong; `cut`: what goes with it."""
        self._add(kind, METADATA, what, remedy, line=number, cut=Cut(lines=(number,), **cut))

    def _add(self, kind: ProblemKind, name: str, what: str, remedy: str, **more: Any) -> None:
        file = f"{self._name}/{shown(name)}" if name else self._name
        self._found.problems.append(Problem(kind=kind, file=file, what=what, remedy=remedy, **more))
