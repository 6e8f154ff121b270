"""Files of a bucket that a manifest names, s3://BUCKET/KEY, read as any other: from a copy on this machine.

A copy lies in the user's cache (`object_copies`), and is used again while the store says that the file is the
same. Messages and what an output keeps name the place in the bucket (`object_copies.named`), never the copy.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.errors import InputError
from jobs.location import CHECK_BUCKET, BucketPlace, NoLocation, check_obstore, names_bucket
from producer.bucket_files.key_pattern import compiled, fixed_folder
from producer.bucket_files.object_copies import (
    Version,
    copies_folder,
    copy_path,
    keep_copy,
    kept_copy,
    make_room,
)

if TYPE_CHECKING:
    from obstore import ObjectMeta

SAID = 100 << 20
"""Bytes of a file whose fetching is said."""


def near(name: str) -> Path:
    """Where a file lies on this machine: the path itself, or the copy of one in a bucket.

    Raises InputError for one of a bucket that is not there or cannot be read.
    """
    return _near(name) if names_bucket(name) else Path(name)


def matching(pattern: str) -> list[str]:
    """The places in a bucket that a pattern (*, ?, [a-z], **) matches, sorted.

    No wildcard matches a name that begins with a dot. Raises InputError.
    """
    place = _place(pattern)
    folder, rest = fixed_folder(place.prefix)
    below = BucketPlace(place.scheme, place.bucket, folder)
    try:
        wanted = compiled(rest)
    except ValueError as error:
        raise InputError(f"{pattern}: is no pattern ({error}): correct it") from None
    return sorted(f"{below}/{name}" for name in _files_below(below) if wanted.fullmatch(name))


def is_there(name: str) -> bool:
    """Whether a place in a bucket is a file. Raises InputError."""
    place = _place(name)
    try:
        _head(place)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _unreadable(place, error) from None
    return True


def copy_of(name: str) -> Path:
    """Where the copy of a place in a bucket, or of a pattern, lies or would lie. Raises InputError."""
    return copy_path(_place(name))


def _place(text: str) -> BucketPlace:
    try:
        place = BucketPlace.parse_file(text)
        check_obstore()
    except NoLocation as error:
        raise InputError(f"{text}: {error}") from None
    return place


# Each file is looked at once a process: all that is made of it is made of one version.
@lru_cache(10_000)
def _near(name: str) -> Path:
    place = _place(name)
    try:
        return _fetched(place)
    except FileNotFoundError:
        raise InputError(f"{name}: there is no such file: correct it, or put the file there") from None
    except OSError as error:
        raise _unreadable(place, error) from None


def _fetched(place: BucketPlace) -> Path:
    """The copy, which is fetched unless it is there. Raises OSError, InputError."""
    from jobs.output.object_parts import version  # an extra, and slow to import

    found = _head(place)
    kept = kept_copy(place, version(found))
    if kept is not None:
        return kept
    size = found["size"]
    make_room(place, size)
    if size >= SAID:
        sys.stderr.write(f"fetching {place}, {size / 1e6:,.0f} MB, to {copy_path(place)}\n")
    return keep_copy(place, lambda to: _download(place, to))


def _download(place: BucketPlace, to: Path) -> Version:
    """Write the file to a path; returns which version it was. Raises OSError."""
    from jobs.output.object_access import PART, fetch
    from jobs.output.object_parts import ObjectParts, version  # an extra, and slow to import

    parts = ObjectParts(place, place.prefix, str(place))
    with to.open("wb") as file:
        size, data = parts.part(0, PART)
        file.write(data)
        file.flush()
        fetch(parts.part, size, file, PART)
    return version(parts.first)


def _head(place: BucketPlace) -> ObjectMeta:
    """What the store says of a file. Raises OSError."""
    import obstore

    from jobs.output.bucket_client import asked, connected  # an extra, and slow to import

    return asked(str(place), lambda: obstore.head(connected(place), place.prefix))


def _files_below(folder: BucketPlace) -> Iterator[str]:
    """The names of all files at any depth of a folder, relative to it. Raises InputError."""
    from jobs.output.bucket_store import BucketStore  # an extra, and slow to import

    try:
        yield from BucketStore(folder).files_below("")
    except OSError as error:
        raise _unreadable(folder, error) from None


def _unreadable(place: BucketPlace, error: OSError) -> InputError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return InputError(
            f"{place}: cannot be copied to {copies_folder()} ({error.strerror}): make room there"
        )
    if error.errno == errno.ESTALE:
        return InputError(f"{place}: {error.strerror}: try again once it is written")
    return InputError(f"{place}: cannot be read ({error.strerror}): {CHECK_BUCKET}")
