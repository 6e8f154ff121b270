"""`imagemill push`: an output to a dataset repository of the hub; what is there already is not sent again.

Nothing is kept here about a push: the repository is asked what it has, and uploads that no commit followed
are known to the hub by their hashes. So the same command goes on after any end, on any machine.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from jobs.errors import HubError, Interrupted, OutputError
from jobs.output.arrow_columns import check_pyarrow
from jobs.output.card import is_ours
from jobs.output.output import Output
from jobs.wording import counted, some
from producer.progress import counting
from producer.push.card import Placed
from producer.push.commits import CommitSize
from producer.push.form import Form, Piece
from producer.push.gathered import Gathered, gather, unfinished_job
from producer.push.parquets import Parquets
from producer.push.paths import FormName
from producer.push.patience import AGAIN, PATIENT, Patience
from producer.push.plan import Plan, add_small_files, compared
from producer.push.repository import MAIN, Repository, Seen, is_uploaded, plain_client
from producer.push.small_files import CARD, has_own_card, small_files
from producer.push.tars import Tars
from producer.push.temporary import temporary_folder
from producer.reporter import Reporter, StandardError

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd

_TOGETHER_FILES: Final = 32
_TOGETHER_BYTES: Final = 64 << 20
"""Files are uploaded together up to the one or the other: many small ones would wait for each other."""
_NOWHERE: Final = Seen(private=True, files={}, has_branch=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to push."""

    to: FormName | None = None
    """None: tars where all pictures are in tars, else parquet."""
    public: bool = False
    branch: str = MAIN
    overwrite: bool = False
    dry_run: bool = False
    patience: Patience = PATIENT


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """What was pushed, or with `dry_run` would be."""

    output: str
    repository: str
    to: FormName
    private: bool
    images: int
    failed: int
    """Images of the output that could not be rendered."""
    files: int
    bytes: int
    """Of these files; with `dry_run` and parquet, about so many."""
    commits: int
    there: int
    """Files that were there already."""
    removed: int
    dry_run: bool
    notes: tuple[str, ...]


def push(output: Output, name: str, options: Options) -> Pushed:
    """Push what the output has committed to the dataset repository `name`.

    Raises HubError, OutputError, and Interrupted after Ctrl-C; each says how far the push has come.
    """
    repository = Repository(name, options.branch, StandardError(), options.patience)
    if not options.dry_run and not repository.has_token():
        raise HubError(
            f"{name}: this machine has no token of the hub: set HF_TOKEN, or log in (`hf auth login`)"
        )
    try:
        with plain_client(repository.reporter):
            return _Push(output, repository, options).run()
    except KeyboardInterrupt:
        raise Interrupted(f"{name}: stopped; {_so_far(repository)}; {AGAIN}") from None
    except (HubError, OutputError) as error:
        raise type(error)(f"{error} ({_so_far(repository)})" if repository.commits else str(error)) from None
    except OSError as error:
        raise _unusable(error, output) from None


def report(pushed: Pushed) -> None:
    """Prints what was pushed, and what to know of it."""
    would = "would push" if pushed.dry_run else "pushed"
    about = "about " if pushed.dry_run and pushed.to == "parquet" else ""
    kind = "private" if pushed.private else "public"
    parts = [
        f"{pushed.repository} ({kind}): {would} {counted(pushed.files, 'file')}, {about}"
        f"{_size(pushed.bytes)}, in {counted(pushed.commits, 'commit')}",
        f"{counted(pushed.there, 'file')} there already",
        counted(pushed.images, "image"),
    ]
    if pushed.removed:
        parts.append(f"{counted(pushed.removed, 'file')} removed")
    if pushed.failed:
        parts.append(f"{pushed.failed:,} failed")
    click.echo("; ".join(parts))
    for note in pushed.notes:
        click.echo(f"note: {note}")


class _Push:
    def __init__(self, output: Output, repository: Repository, options: Options) -> None:
        self._output, self._repository, self._options = output, repository, options

    def run(self) -> Pushed:
        output, options, repository = self._output, self._options, self._repository
        asked = repository.look()
        with counting("images read") as reporter:
            gathered = gather(output, reporter)
        to: FormName = options.to or ("webdataset" if gathered.all_tars else "parquet")
        form = self._form(to, gathered)
        seen = _NOWHERE if asked is None else asked
        with counting("files compared") as reporter:
            try:
                plan = compared(form, to, seen.files, reporter, overwrite=options.overwrite)
            except HubError as error:
                raise HubError(f"{repository.name}: {error}") from None
        column = form.json_column() if isinstance(form, Parquets) else None
        placed = Placed(to, tuple(plan.folders.values()), self._loaded(), column)
        beside = small_files(output, gathered, placed)
        if not self._may_write_card(seen):
            del beside[CARD]
            plan.notes.append(
                f"{CARD} in the repository is a text of its own and stays: its front matter must name the "
                "files that `load_dataset` should read"
            )
        add_small_files(plan, beside, seen.files)
        private = not options.public if asked is None else asked.private
        self._note(plan, asked)
        size = plan.bytes
        if not options.dry_run and (plan.files or plan.removed or asked is None):
            if asked is None:
                repository.create(private=private)
            if not seen.has_branch and options.branch != MAIN:
                repository.create_branch()
            self._upload(plan, form)
            size = repository.sent_bytes
        return Pushed(
            output=output.label,
            repository=repository.name,
            to=to,
            private=private,
            images=gathered.found.total,
            failed=len(gathered.failures),
            files=plan.files,
            bytes=size,
            commits=plan.commits if options.dry_run else repository.commits,
            there=plan.there,
            removed=len(plan.removed),
            dry_run=options.dry_run,
            notes=tuple(plan.notes),
        )

    def _form(self, to: FormName, gathered: Gathered) -> Form:
        if to == "webdataset":
            if not gathered.all_tars:
                raise OutputError(
                    f"{self._output.label}: has pictures in folders: push with --to parquet, or push a copy "
                    "(`imagemill export OUT NEW --to webdataset`)"
                )
            return Tars(self._output, tuple(gathered.outlines))
        check_pyarrow("--to parquet", "push an output of layout: webdataset")
        return Parquets(self._output, gathered.outlines, gathered.found.columns)

    def _loaded(self) -> str:
        branch = self._options.branch
        return f'"{self._repository.name}"' + ("" if branch == MAIN else f', revision="{branch}"')

    def _may_write_card(self, seen: Seen) -> bool:
        """Whether the repository has no card, or one of ours."""
        if CARD not in seen.files:
            return True
        return is_ours(self._repository.text(CARD))

    def _note(self, plan: Plan, asked: Seen | None) -> None:
        repository, options = self._repository, self._options
        if asked is None and options.dry_run and not repository.has_token():
            plan.notes.append(
                f"{repository.name} is not there, or is private: without a token (HF_TOKEN, or `hf auth "
                "login`) the hub does not say; these are the figures of a first push"
            )
        if asked is not None and options.public and asked.private:
            plan.notes.append(
                f"{repository.name} is private and stays so: change that in its settings on the hub"
            )
        if asked is not None and not options.public and not asked.private:
            plan.notes.append(f"{repository.name} is public already")
        if (job := unfinished_job(self._output)) is not None:
            plan.notes.append(
                f"{job} has not written its report: what it has committed so far is taken, and when it is "
                "finished, the same command adds the rest"
            )
        if has_own_card(self._output):
            plan.notes.append(
                f"{CARD} of the output is a text of your own and stays here: write one into the repository, "
                "and it is kept"
            )

    def _upload(self, plan: Plan, form: Form) -> None:
        """Upload and commit what the plan has."""
        waiting = _Waiting(self._repository, plan)
        with temporary_folder() as folder, counting("MB pushed", _mb(plan.bytes)) as reporter:
            for pieces, full in _together(plan):
                waiting.upload([(piece.path, form.made(piece, folder)) for piece in pieces], folder)
                reporter.count(_mb(waiting.bytes))
                if full:
                    waiting.commit(reporter)
                    _empty(folder)
            waiting.upload(list(plan.small.items()), folder)
            waiting.commit(reporter)
        if lacking := self._repository.lacking():
            raise HubError(
                f"{self._repository.name}: {counted(len(lacking), 'file')} not there after the commit "
                f"({some(lacking)}): see whether a .gitignore there names them, or who else writes to it; "
                f"then {AGAIN}"
            )


class _Waiting:
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


def _unusable(error: OSError, output: Output) -> OutputError:
    """The error that a file of the output, or of the temporary folder, cannot be read or written."""
    file = output.label if error.filename is None else error.filename
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        what = "cannot be written", "free some space, or let TMPDIR name a folder with more"
    else:
        what = "cannot be used", "see to that"
    return OutputError(f"{file}: {what[0]} ({error.strerror or error}): {what[1]}; then {AGAIN}")


def _so_far(repository: Repository) -> str:
    if not repository.commits:
        return "nothing was committed"
    files, commits = counted(len(repository.sent), "file"), counted(repository.commits, "commit")
    return f"committed so far: {files} in {commits}"


def _mb(size: int) -> int:
    return size // 1_000_000


def _size(size: int) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"
