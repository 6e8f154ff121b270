"""A bucket's output as a folder, fetched past the way that breaks, and without the code that is judged."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import obstore

from tests.object_store.clients import client

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import S3Store

_BUCKET = "s3://"


@contextmanager
def as_folder(output: str) -> Iterator[Path]:
    """All files of the output as they are now, in a folder; a folder of the disk is itself."""
    if not output.startswith(_BUCKET):
        yield Path(output)
        return
    store, prefix = _place(output)
    with tempfile.TemporaryDirectory(prefix="imagemill-mirror-") as name:
        for entry in _objects(store, prefix):
            file = Path(name, entry["path"].removeprefix(f"{prefix}/"))
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(bytes(obstore.get(store, entry["path"]).bytes()))
        yield Path(name)


def committed(output: str) -> dict[str, object]:
    """The files of committed shards, and what tells each from another that is written in its place."""
    if not output.startswith(_BUCKET):
        return {str(file): file.stat().st_ino for file in Path(output).glob("[0-9]*/*")}
    store, prefix = _place(output)
    found = {entry["path"].removeprefix(f"{prefix}/"): entry for entry in _objects(store, prefix)}
    return {
        name: (entry["e_tag"], entry["last_modified"])
        for name, entry in found.items()
        if name.endswith(".tar") and not name.startswith(".")
    }


def clear(output: str, folder: str) -> None:
    """Takes away what a bucket's output has in a folder."""
    store, prefix = _place(output)
    if names := [entry["path"] for entry in _objects(store, f"{prefix}/{folder}")]:
        obstore.delete(store, names)


def _place(output: str) -> tuple[S3Store, str]:
    bucket, _, prefix = output.removeprefix(_BUCKET).partition("/")
    return client(bucket, retries=3), prefix


def _objects(store: S3Store, prefix: str) -> list[ObjectMeta]:
    return [entry for page in obstore.list(store, prefix) for entry in page]
