"""What a push has to do: the output's files compared with those of the repository."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from jobs.errors import HubError
from jobs.output.output import CARD, FAILURES, PREVIEW, REPORT
from jobs.wording import counted, some
from producer.push.commits import CommitSize
from producer.push.form import Form, Piece
from producer.push.paths import FormName, Place, is_nested, place_of
from producer.push.repository import RemoteFile, git_blob
from producer.reporter import Reporter

_OURS = frozenset({CARD, FAILURES, PREVIEW, REPORT, ".gitattributes"})
ADVISED_FILES = 100_000
"""Files of a repository that the hub advises at most.
Source: https://huggingface.co/docs/hub/repositories-recommendations"""


@dataclass(slots=True)
class Plan:
    """What is to be pushed."""

    pieces: list[Piece] = field(default_factory=list)
    """In the order of the shards."""
    small: dict[str, bytes] = field(default_factory=dict)
    """The files beside them that are new or differ."""
    removed: list[str] = field(default_factory=list)
    """Paths in the repository that go."""
    folders: dict[bool, str] = field(default_factory=dict)
    """Whether a shard lies in a folder of a thousand -> the path of one that does, or does not."""
    there: int = 0
    """Files that the repository has already."""
    notes: list[str] = field(default_factory=list)

    @property
    def files(self) -> int:
        return len(self.pieces) + len(self.small)

    @property
    def bytes(self) -> int:
        return sum(piece.size for piece in self.pieces) + sum(map(len, self.small.values()))

    @property
    def commits(self) -> int:
        """Commits that it takes."""
        size = CommitSize.of(len(self.pieces), self.bytes)
        full = sum(size.add(piece.size) for piece in self.pieces)
        return full + (size.files > 0 or bool(self.small) or (bool(self.removed) and not full))


def compared(
    form: Form, name: FormName, there: Mapping[str, RemoteFile], reporter: Reporter, *, overwrite: bool
) -> Plan:
    """Compare the shards; `there` are the repository's files. `reporter` counts the output's files.

    Raises HubError where the repository has shards that differ, unless `overwrite`: then all of its shards
    that the output does not have as they are go.
    """
    plan = Plan()
    places = {path: place for path in there if (place := place_of(path)) is not None}
    left = dict(places)
    differ: list[str] = []
    shards: set[int] = set()
    for number, piece in enumerate(form.pieces(), 1):
        reporter.count(number)
        shards.add(piece.shard)
        plan.folders[is_nested(piece.path)] = piece.path
        place = left.pop(piece.path, None)
        held = there.get(piece.path)
        if held is not None and form.is_there(piece, held):
            plan.there += 1
            continue
        plan.pieces.append(piece)
        if held is not None and place is not None and not place.is_table:
            differ.append(piece.path)
    # What is left is another form's, of a shard that the output does not have, or a former version of one.
    left = {
        path: place
        for path, place in left.items()
        if not (place.form == name and place.is_table and place.shard in shards)
    }
    other = [path for path, place in left.items() if place.form != name]
    differ += [path for path, place in left.items() if place.form == name and place.shard in shards]
    if overwrite:
        plan.removed = sorted(left)
    else:
        _refuse(differ, other, name)
        if left:
            plan.notes.append(
                f"{counted(len(left), 'file')} of shards that the output does not have stay there "
                f"({some(sorted(left))}): --overwrite removes them"
            )
    _note_others(plan, there, places)
    return plan


def add_small_files(plan: Plan, files: Mapping[str, bytes], there: Mapping[str, RemoteFile]) -> None:
    """Add the files beside the shards that the repository does not have as they are."""
    for path, data in files.items():
        if path in there and _is_equal(there[path], data):
            plan.there += 1
        else:
            plan.small[path] = data
    if FAILURES in there and FAILURES not in files:
        plan.removed.append(FAILURES)


def _is_equal(held: RemoteFile, data: bytes) -> bool:
    if held.sha256 is not None:
        return held.sha256 == hashlib.sha256(data).hexdigest()
    return held.blob == git_blob(data)


def _refuse(differ: list[str], other: list[str], name: FormName) -> None:
    if other:
        has = "parquets" if name == "webdataset" else "tars"
        to = "parquet" if name == "webdataset" else "webdataset"
        raise HubError(
            f"the repository holds {has} ({some(other)}), and readers would get pictures twice: give "
            f"--to {to}, --overwrite to replace them, or another repository"
        )
    if differ:
        raise HubError(
            f"the repository holds other shards of these numbers ({some(differ)}): they are of another "
            "output, or from before a repair or another type of a column: give another repository, or "
            "--overwrite to replace them"
        )


def _note_others(plan: Plan, there: Mapping[str, RemoteFile], places: Mapping[str, Place]) -> None:
    others = [path for path in there if path not in places and path not in _OURS]
    if others:
        plan.notes.append(
            f"{counted(len(others), 'file')} of others stay in the repository ({some(sorted(others))})"
        )
    if (total := len(there) + len(plan.pieces) - len(plan.removed)) > ADVISED_FILES:
        plan.notes.append(
            f"the repository gets {total:,} files, and the hub advises {ADVISED_FILES:,} at most: larger "
            "shards (`imagemill export OUT NEW --shard-size N`) make fewer"
        )
