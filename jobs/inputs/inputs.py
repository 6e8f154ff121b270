"""The files that requests name by their hash: pictures, masks, initial latents, adapters."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from jobs.errors import InputError, InputsAway, OutputError
from jobs.output.store import Unreachable
from jobs.plain_file import NotPlain, TooLarge, open_plain, read_plain

if TYPE_CHECKING:
    from jobs.inputs.latents import Latents

MAX_PICTURE_BYTES: Final = 1 << 30
"""A larger file of a picture is refused."""
_CHUNK: Final = 1 << 20
"""Bytes that are copied at a time."""
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Inputs(Protocol):
    """Where the files of requests are found; what is asked for is the SHA-256 that the request says."""

    def latents(self, sha256: str) -> Latents:
        """Initial latents [C,h,w]. Raises LatentsError; OutputError where the system cannot read them, and of
        those InputsAway where they may be asked for again."""

    def contents(self, sha256: str) -> bytes:
        """The bytes of a picture's file, verified. Raises InputError; OutputError as above."""

    def private_copy(self, sha256: str) -> AbstractContextManager[Path]:
        """A copy of an adapter's file, verified, inside the `with`. Raises InputError; OutputError as above.

        Libraries may map what they read: tensors of the copy stay as they are, whatever becomes of the file.
        """


@dataclass(frozen=True, slots=True)
class KeptInputs:
    """Files that a submission kept in an output, or that lie where the author has them."""

    folder: Path
    """`.imagemill/inputs` of an output, or any folder that has files under their hashes."""
    referenced: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 -> the absolute path of a file that was not copied."""

    def latents(self, sha256: str) -> Latents:
        """Initial latents; see `Inputs.latents`."""
        from jobs.inputs.latents import read_input

        return read_input(self.folder, sha256)

    def contents(self, sha256: str) -> bytes:
        """A picture's file; see `Inputs.contents`."""
        path = self.path(sha256)
        with reading(path):
            found = read_plain(path, MAX_PICTURE_BYTES)
        if hashlib.sha256(found).hexdigest() != sha256:
            raise altered(path)
        return found

    @contextmanager
    def private_copy(self, sha256: str) -> Iterator[Path]:
        """An adapter's file; see `Inputs.private_copy`."""
        path = self.path(sha256)
        # The file itself may become another one between the look at its hash and the loading, or after that.
        with temporary_folder() as folder:
            copy = folder / sha256
            if _copied(path, copy) != sha256:
                raise altered(path)
            yield copy

    def path(self, sha256: str) -> Path:
        """Where the file of this hash lies, if it is there. Raises InputError for what is no hash."""
        check_digest(sha256)
        given = self.referenced.get(sha256)
        return kept_path(self.folder, sha256) if given is None else Path(given)


NO_INPUTS: Final = KeptInputs(Path("/nonexistent"))
"""For requests that name no files."""


def kept_path(folder: Path, sha256: str) -> Path:
    """Where a folder keeps the file of a hash."""
    return folder / kept_name(sha256)


def kept_name(sha256: str) -> str:
    """What the file of a hash is called where inputs are kept: 256 folders, so that none has too many
    entries."""
    return f"{sha256[:2]}/{sha256}"


def check_digest(sha256: str) -> None:
    """Raises InputError for what is no hash."""
    if not _DIGEST.fullmatch(sha256):
        raise InputError(f"{sha256!r}: is not a SHA-256")


@contextmanager
def reading(path: Path | str) -> Iterator[None]:
    """Inside, what the reading of a file raises becomes InputError and OutputError, with its path."""
    try:
        yield
    except TooLarge:
        raise InputError(f"{path}: has more than {MAX_PICTURE_BYTES >> 30} GiB: make it smaller") from None
    except NotPlain:
        raise InputError(f"{path}: is no plain file: put the file itself there") from None
    except FileNotFoundError:
        raise InputError(f"{path}: is missing: put it back, or submit the manifest again") from None
    except Unreachable as error:
        raise InputsAway(f"{path}: cannot be read at present: {error.strerror}") from None
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be read ({error.strerror}): make it readable for this worker's user, and check "
            "its disk or mount"
        ) from None


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder of this process alone, which goes with all that is in it. Raises OutputError."""
    try:
        folder = tempfile.TemporaryDirectory(prefix="imagemill-", ignore_cleanup_errors=True)
    except OSError as error:
        raise _no_room(error) from None
    with folder as name:
        yield Path(name)


def _copied(path: Path, copy: Path) -> str:
    """Copies a file; returns the SHA-256 of what was copied. Raises InputError, OutputError."""
    with reading(path), open_plain(path) as file:
        return written(iter(partial(file.read, _CHUNK), b""), copy)


def written(chunks: Iterable[bytes], copy: Path) -> str:
    """Writes a new file; returns the SHA-256 of what was written. Raises OutputError."""
    digest = hashlib.sha256()
    try:
        file = copy.open("xb")
    except OSError as error:
        raise _no_room(error) from None
    with file:
        for chunk in chunks:
            digest.update(chunk)
            try:
                file.write(chunk)
                file.flush()
            except OSError as error:
                raise _no_room(error) from None
    return digest.hexdigest()


def altered(path: Path | str) -> InputError:
    return InputError(
        f"{path}: is another file than was submitted: put it back, or submit the manifest again"
    )


def _no_room(error: OSError) -> OutputError:
    return OutputError(
        f"an adapter is copied to the folder for temporary files before it is loaded, and that fails "
        f"({error.strerror}): make room there, or set TMPDIR to a folder that has some"
    )
