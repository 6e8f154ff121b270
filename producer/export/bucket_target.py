"""Where an export goes in a bucket, which has no step that makes a thousand objects appear at once.

    s3://bucket/set/.export.json    what is being exported: it is there until the end
    s3://bucket/set/00000.tar …     shards, whole each, as workers commit them
    s3://bucket/set/README.md       the card, which comes last

So an export that was cut short is known by its mark, and has no card: the same command goes on with it, and
no other writes there. One file, of `--to parquet`, is whole or absent, as on a disk.
"""

from __future__ import annotations

import json
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from jobs.errors import OutputError, OutputRefused
from jobs.location import CHECK_BUCKET, BucketPlace, NoLocation, names_bucket
from jobs.output.output import Output
from jobs.output.store import OutputStore, Stage, Unreachable
from jobs.plain_file import open_plain

MARK: Final = ".export.json"
_PAUSES: Final = (1.0, 4.0, 15.0)
"""Seconds before a shard is given to a store again that gave no answer."""
_COMPARED: Final = 1 << 20
"""Bytes at the end of a file by which it is known again."""


def check_apart(target: str, source: str) -> None:
    """Raises OutputError where a place in a bucket is the export's source or inside it."""
    with suppress(NoLocation):
        if BucketPlace.parse(target).is_within(BucketPlace.parse(source)):
            raise OutputError(f"{target}: is the output that is exported, or inside it: name another place")


@contextmanager
def resumable(target: Output, identity: Mapping[str, int]) -> Iterator[None]:
    """Inside, an export is written to a place in a bucket: a new one, or where the same was cut short.

    `identity`: what only the same export has in common. At the end, once the card is there, the mark goes.
    Raises OutputError where something else is there, or the store does not take it: what is there then stays
    for the same command, also where the source's store refuses it. Where the source is broken it is removed.
    """
    store, mark = target.store, f"{json.dumps(dict(identity))}\n".encode()
    with _writing(target.label):
        _begin(target, mark)
        try:
            yield
        except OutputRefused:  # the source, which may be sound: the same command goes on
            raise
        except OutputError:
            with suppress(OSError):
                for name in sorted(store.files_below(""), key=lambda name: name == MARK):
                    store.remove(name)
            raise
        # Uploads whose removal got no answer: no job begins there that would remove them.
        store.close_stages()
        store.remove(MARK)


@contextmanager
def appearing_object(target: str) -> Iterator[Path]:
    """Yields the path of a file to be made on this machine, which at the end becomes an object of that name.

    Raises OutputError where there is one already, or the store does not take it.
    """
    place, _, name = target.rpartition("/")
    if not name or place.endswith(":/"):
        raise OutputError(f"{target}: names no object: write s3://BUCKET/FILE.parquet")
    store = Output.at(place).store
    with _writing(target), tempfile.TemporaryDirectory(prefix="imagemill-") as folder:
        _check_new(store, name, target)
        file = Path(folder) / name
        yield file
        stage = Stage(file.parent, f"export-{secrets.token_hex(6)}", lambda: None)

        def put() -> None:
            try:
                store.put_if_absent(name, file, stage)
            except FileExistsError:  # maybe by this very call, whose answer was lost
                if not _is_copy(store, name, file):
                    raise OutputError(
                        f"{target}: was made meanwhile, by another program: name another place"
                    ) from None

        repeated(put)


def repeated(step: Callable[[], None]) -> None:
    """Takes a step again where the store gives no answer. Raises Unreachable in the end."""
    for pause in _PAUSES:
        try:
            return step()
        except Unreachable:
            time.sleep(pause)
    return step()


def _begin(target: Output, mark: bytes) -> None:
    store = target.store
    there = {one.name for one in store.list()}
    if not there:
        store.replace(MARK, mark)
        return
    try:
        if store.read(MARK) == mark:
            return
        what = "another export was begun there, or the source changed since"
    except FileNotFoundError:
        what = "already exists"
    raise OutputError(f"{target.label}: {what}: remove what is there, or name a place where nothing is")


def _check_new(store: OutputStore, name: str, target: str) -> None:
    if store.is_taken(name) or any(True for _ in store.list(name)):
        raise OutputError(f"{target}: already exists: remove it, or name a file that is not there yet")


def _is_copy(store: OutputStore, name: str, file: Path) -> bool:
    """Whether an object has a file's size and end."""
    with open_plain(file) as opened, store.opened(name) as there:
        start = max(0, there.size - _COMPARED)
        opened.seek(start)
        return there.size == file.stat().st_size and there.read_at(start, _COMPARED) == opened.read()


@contextmanager
def _writing(target: str) -> Iterator[None]:
    """Inside, an error of the system or of the store becomes OutputError with its remedy."""
    try:
        yield
    except OSError as error:
        place = error.filename if isinstance(error.filename, str) else target
        if not names_bucket(place):
            raise OutputError(
                f"{place}: cannot be written ({error.strerror}): free some space, or let TMPDIR name another "
                f"folder, and run the same command, which goes on with {target}"
            ) from None
        raise OutputError(
            f"{place}: cannot be reached ({error.strerror}): {CHECK_BUCKET}, and run the same command, which "
            f"goes on with {target}"
        ) from None
