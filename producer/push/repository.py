"""A dataset repository of the hub: what is there, and the two ways in which something gets there.

A file's bytes are uploaded first, which changes nothing in the repository, and the hub knows them again; a
commit then makes files of them. A commit whose answer was lost is looked for before it is made again.
"""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from jobs.errors import HubError
from producer.push.retries import Retries, retried, status_of
from producer.reporter import Reporter

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, HfApi

_TYPE: Final = "dataset"
_SILENCE: Final = 180.0
"""Seconds without a byte after which a request is given up, and made again."""
_ASKED_AT_ONCE: Final = 500
"""Paths that the hub looks up in one request; it takes no more than 1,000."""
_TOO_MUCH: Final = frozenset({413, 504})
MAIN: Final = "main"
_Returned = TypeVar("_Returned")


class RemoteFile(NamedTuple):
    """A file in the repository."""

    size: int
    sha256: str | None
    """Of a large file."""
    blob: str
    """Git's SHA-1 of a file that is not large."""


class RepositoryState(NamedTuple):
    """The repository when the push began."""

    private: bool
    files: dict[str, RemoteFile]
    """By their paths."""
    has_branch: bool


def git_blob(data: bytes) -> str:
    """The SHA-1 by which git knows a file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


@dataclass(slots=True)
class Repository:
    """A dataset repository, or the place of one. Its methods raise HubError."""

    name: str
    """`org/name`."""
    branch: str
    reporter: Reporter
    retries: Retries
    commits: int = field(default=0, init=False)
    """Those that were made."""
    sent: dict[str, str] = field(default_factory=dict, init=False)
    """The paths of all files in them -> the SHA-256 of a large one, git's SHA-1 of another."""
    sent_bytes: int = field(default=0, init=False)
    _api: HfApi = field(init=False, repr=False)

    def __post_init__(self) -> None:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HFValidationError
        from huggingface_hub.utils import validate_repo_id

        try:
            validate_repo_id(self.name)
        except HFValidationError as error:
            raise HubError(f"{self.name!r} cannot be a repository's name: {error}") from None
        if self.name.count("/") != 1:
            raise HubError(
                f"{self.name!r} cannot be a repository's name: give it as org/name, with the name of a user "
                "or an organization on the hub"
            )
        self._api = HfApi()

    @staticmethod
    def has_token() -> bool:
        """Whether this machine has a token of the hub's: in HF_TOKEN, or from a login."""
        from huggingface_hub import get_token

        return get_token() is not None

    def look(self) -> RepositoryState | None:
        """What is there; None where nothing is, or where what is there is not shown to this user."""
        from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

        def info() -> Any:
            try:
                return self._api.dataset_info(self.name, timeout=_SILENCE)
            except RepositoryNotFoundError:
                return None

        found = self._retried(info)
        if found is None:
            return None
        try:
            files = self._retried(self._files, RevisionNotFoundError)
        except RevisionNotFoundError:
            return RepositoryState(bool(found.private), {}, has_branch=False)
        return RepositoryState(bool(found.private), files, has_branch=True)

    def create(self, *, private: bool) -> None:
        """Make the repository."""
        self._retried(
            lambda: self._api.create_repo(self.name, repo_type=_TYPE, private=private, exist_ok=True)
        )

    def create_branch(self) -> None:
        """Make the branch, from the main one."""
        self._retried(
            lambda: self._api.create_branch(self.name, branch=self.branch, repo_type=_TYPE, exist_ok=True)
        )

    def upload(self, files: Sequence[tuple[str, Path | bytes]]) -> list[CommitOperationAdd]:
        """Upload the contents of files, each with its path there; a commit must follow.

        What is returned holds no contents of large files, and none of these is read again.
        """
        from huggingface_hub import CommitOperationAdd

        added = [CommitOperationAdd(path, data) for path, data in files]
        self._retried(
            lambda: self._api.preupload_lfs_files(
                self.name, additions=added, repo_type=_TYPE, revision=self.branch
            )
        )
        return added

    def commit(self, added: Sequence[CommitOperationAdd], removed: Sequence[str], what: str) -> None:
        """Add what was uploaded and remove files in one commit, or two where the hub finds one too large."""
        from huggingface_hub import CommitOperationDelete

        gone = [CommitOperationDelete(path) for path in removed]

        def once() -> bool:
            try:
                self._api.create_commit(
                    self.name,
                    [*gone, *added],
                    commit_message=what,
                    repo_type=_TYPE,
                    revision=self.branch,
                )
            except Exception as error:
                status = status_of(error)
                if status in _TOO_MUCH and len(added) > 1 and not self._has(added):
                    return False
                # Without an answer nobody knows whether it was made.
                if (status is None or status >= 500) and self._has(added):
                    return True
                raise
            return True

        if self._retried(once):
            self.commits += 1
            self.sent |= {one.path_in_repo: _digest(one) for one in added}
            self.sent_bytes += sum(one.upload_info.size for one in added)
            return
        half = len(added) // 2
        self.commit(added[:half], removed, what)
        self.commit(added[half:], (), what)

    def lacking(self) -> list[str]:
        """The paths of the files that were committed and are not there with their contents."""
        there = self._retried(self._files)
        return [path for path, digest in self.sent.items() if _digest_of(there.get(path)) != digest]

    def text(self, path: str) -> str:
        """A text file of the repository."""
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

        # hf_hub_download would keep it in the cache.
        url = hf_hub_url(self.name, path, repo_type=_TYPE, revision=self.branch, endpoint=self._api.endpoint)

        def read() -> str:
            answer = get_session().get(url, headers=build_hf_headers(), follow_redirects=True)
            hf_raise_for_status(answer)
            text: str = answer.content.decode(errors="replace")
            return text

        return self._retried(read)

    def _has(self, added: Sequence[CommitOperationAdd]) -> bool:
        """Whether all of these are there."""
        for start in range(0, len(added), _ASKED_AT_ONCE):
            some = added[start : start + _ASKED_AT_ONCE]
            paths = [one.path_in_repo for one in some]
            found = self._api.get_paths_info(self.name, paths, repo_type=_TYPE, revision=self.branch)
            files = {one.path: _remote_file(one) for one in found if hasattr(one, "blob_id")}
            if any(_digest_of(files.get(one.path_in_repo)) != _digest(one) for one in some):
                return False
        return bool(added)

    def _files(self) -> dict[str, RemoteFile]:
        tree = self._api.list_repo_tree(self.name, recursive=True, repo_type=_TYPE, revision=self.branch)
        return {one.path: _remote_file(one) for one in tree if hasattr(one, "blob_id")}

    def _retried(self, call: Callable[[], _Returned], *let_through: type[Exception]) -> _Returned:
        return retried(call, self.name, self.retries, self.reporter, let_through)


@contextmanager
def plain_client(reporter: Reporter) -> Iterator[None]:
    """While this lasts, the hub's client shows no bars and logs no addresses, and a connection that is silent
    counts as cut. `reporter` gets what else it has to say."""
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
        get_session,
    )

    session = get_session()
    kind, hooks = type(session), session.event_hooks

    def client(seconds: float | None) -> Any:
        return kind(event_hooks=hooks, follow_redirects=True, timeout=seconds)

    logger, handler = logging.getLogger("huggingface_hub"), _Said(reporter)
    before = list(logger.handlers), logger.propagate
    bars = not are_progress_bars_disabled()
    set_client_factory(lambda: client(_SILENCE))
    disable_progress_bars()
    logger.handlers, logger.propagate = [handler], False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they are about cards, and show the lines of the client's code
            yield
    finally:
        logger.handlers, logger.propagate = before
        if bars:
            enable_progress_bars()
        set_client_factory(lambda: client(None))


class _Said(logging.Handler):
    """Reports warnings of the hub's client: not those with an address, which may be a signed one."""

    def __init__(self, reporter: Reporter) -> None:
        super().__init__(logging.WARNING)
        self._reporter = reporter

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if "://" not in text:
            self._reporter.line(f"the hub's client: {text}")


def _remote_file(file: Any) -> RemoteFile:
    return RemoteFile(file.size, None if file.lfs is None else file.lfs.sha256, file.blob_id)


def is_uploaded(added: CommitOperationAdd) -> bool:
    """Whether the hub has the contents; those of a small file are in the commit itself."""
    return bool(added.path_or_fileobj == b"")


def _digest(added: CommitOperationAdd) -> str:
    if is_uploaded(added) and added.upload_info.size:
        sha256: str = added.upload_info.sha256.hex()
        return sha256
    with added.as_file() as file:
        return git_blob(file.read())


def _digest_of(held: RemoteFile | None) -> str | None:
    return None if held is None else held.blob if held.sha256 is None else held.sha256
