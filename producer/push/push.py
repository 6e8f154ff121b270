"""`imagemill push`: an output to a dataset repository of the hub; what is there already is not sent again.

Nothing is kept here about a push: the repository is asked what it has, and uploads that no commit followed
are known to the hub by their hashes. So the same command goes on after any end, on any machine.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Final

from jobs.errors import HubError, Interrupted, OutputError
from jobs.location import CHECK_BUCKET, names_bucket
from jobs.output.arrow_columns import check_pyarrow
from jobs.output.card import is_ours
from jobs.output.output import CARD, Output
from jobs.wording import counted
from producer.progress import counting
from producer.push.card import Placed
from producer.push.form import Form
from producer.push.gathered import Gathered, gather, unfinished_job
from producer.push.parquets import Parquets
from producer.push.paths import FormName
from producer.push.plan import Plan, add_small_files, compared
from producer.push.report import Pushed
from producer.push.repository import MAIN, Repository, RepositoryState, plain_client
from producer.push.retries import AGAIN, RETRIES, Retries
from producer.push.small_files import has_own_card, small_files
from producer.push.tars import Tars
from producer.push.upload import upload
from producer.reporter import StandardError

_NOWHERE: Final = RepositoryState(private=True, files={}, has_branch=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to push."""

    to: FormName | None = None
    """None: tars where all pictures are in tars, else parquet."""
    public: bool = False
    branch: str = MAIN
    overwrite: bool = False
    dry_run: bool = False
    retries: Retries = RETRIES


def push(output: Output, name: str, options: Options) -> Pushed:
    """Push what the output has committed to the dataset repository `name`.

    Raises HubError, OutputError, and Interrupted after Ctrl-C; each says how far the push has come.
    """
    repository = Repository(name, options.branch, StandardError(), options.retries)
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
            upload(repository, plan, form)
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

    def _may_write_card(self, seen: RepositoryState) -> bool:
        """Whether the repository has no card, or one of ours: a card that is there is read from the hub."""
        if CARD not in seen.files:
            return True
        return is_ours(self._repository.text(CARD))

    def _note(self, plan: Plan, asked: RepositoryState | None) -> None:
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


def _unusable(error: OSError, output: Output) -> OutputError:
    """The error that a file of the output, or of the temporary folder, cannot be read or written."""
    file = output.label if error.filename is None else str(error.filename)
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        what, remedy = "cannot be written", "free some space, or let TMPDIR name a folder with more"
    elif names_bucket(file):
        what, remedy = "cannot be read", CHECK_BUCKET
    else:
        what, remedy = "cannot be used", "make it readable and writable for this user"
    return OutputError(f"{file}: {what} ({error.strerror or error}): {remedy}; then {AGAIN}")


def _so_far(repository: Repository) -> str:
    if not repository.commits:
        return "nothing was committed"
    files, commits = counted(len(repository.sent), "file"), counted(repository.commits, "commit")
    return f"committed so far: {files} in {commits}"
