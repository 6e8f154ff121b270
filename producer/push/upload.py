"""The files of a plan on their way: uploaded together, and committed when a commit is full."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from jobs.errors import HubError
from jobs.wording import counted, some
from producer.progress import counting
from producer.push.commits import CommitSize
from producer.push.form import Form, Piece
from producer.push.plan import Plan
from producer.push.repository import Repository, is_uploaded
from producer.push.retries import AGAIN
from producer.push.temporary import push_folder
from producer.reporter import Reporter

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd

_TOGETHER_FILES: Final = 32
_TOGETHER_BYTES: Final = 64 << 20
"""Files are uploaded together up to the one or the other: many small ones would wait for each other."""


def upload(repository: Repository, plan: Plan, form: Form) -> None:
    """Uploads and commits what the plan has. Raises HubError, OutputError, OSError."""
    uncommitted = _Uncommitted(repository, plan)
    with push_folder() as folder, counting("MB pushed", _mb(plan.bytes)) as reporter:
        for pieces, full in _together(plan):
            uncommitted.upload([(piece.path, form.made(piece, folder)) for piece in pieces], folder)
            reporter.count(_mb(uncommitted.bytes))
            if full:
                uncommitted.commit(reporter)
                _empty(folder)
        uncommitted.upload(list(plan.small.items()), folder)
        uncommitted.commit(reporter)
    if lacking := repository.lacking():
        raise HubError(
            f"{repository.name}: {counted(len(lacking), 'file')} not there after the commit "
            f"({some(lacking)}): see whether a .gitignore there names them, or who else writes to it; "
            f"then {AGAIN}"
        )


class _Uncommitted:
    """What was uploaded and is not committed yet."""

    def __init__(self, repository: Repository, plan: Plan) -> None:
        self._repository, self._total = repository, plan.files
        self._added: list[CommitOperationAdd] = []
        self._removed: Sequence[str] = plan.removed
        self.bytes = 0
        """All that were uploaded."""

    def upload(self, files: Sequence[tuple[str, Path | bytes]], folder: Path) -> None:
        """Upload files; those in `folder` are removed when they are not needed any more."""
        if not files:
            return
        added = self._repository.upload(files)
        for one, (_, file) in zip(added, files, strict=True):
            self.bytes += one.upload_info.size
            if is_uploaded(one) and isinstance(file, Path) and file.parent == folder:
                file.unlink()
        self._added += added

    def commit(self, reporter: Reporter) -> None:
        """Commit it, where there is something."""
        if self._added or self._removed:
            self._repository.commit(self._added, self._removed, f"Add {counted(len(self._added), 'file')}")
            self._added, self._removed = [], ()
            reporter.line(
                f"{self._repository.name}: commit {self._repository.commits}: "
                f"{len(self._repository.sent):,} of {counted(self._total, 'file')}"
            )


def _together(plan: Plan) -> Iterator[tuple[list[Piece], bool]]:
    """The pieces that are uploaded together, and whether a commit follows."""
    size = CommitSize.of(len(plan.pieces), plan.bytes)
    pieces: list[Piece] = []
    held = 0
    for piece in plan.pieces:
        pieces.append(piece)
        held += piece.size
        full = size.add(piece.size)
        if full or len(pieces) == _TOGETHER_FILES or held >= _TOGETHER_BYTES:
            yield pieces, full
            pieces, held = [], 0
    if pieces:
        yield pieces, False


def _empty(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


def _mb(size: int) -> int:
    return size // 1_000_000
