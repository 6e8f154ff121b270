"""A file on its way to a bucket, in one request or in parts."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import MutableSequence
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO

import obstore

from jobs.output import upload_pace
from jobs.output.bucket_client import connected
from jobs.output.bucket_reading import BucketReading
from jobs.output.store import Unreachable
from jobs.output.upload_pace import Parts, paced

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import ObjectStore


def put(files: BucketReading, name: str, file: BinaryIO) -> None:
    """Write a whole file, over what has its name. Raises Unreachable, or another OSError."""
    before: ObjectMeta | None = None
    if file.seek(0, os.SEEK_END) > upload_pace.UPLINK.first.part:
        with suppress(FileNotFoundError):
            before = files.head(name)
    paced(files.named(name), file, lambda parts: _send(files, files.objects, name, parts, before))


def upload(files: BucketReading, folder: str, name: str, file: BinaryIO, tries: MutableSequence[str]) -> None:
    """Upload a file into a stage; `tries` gets the name of every try, and the last one is it.

    Each has a name of its own, for a request that was given up may arrive late: under a name that was
    copied since, or taken away because another job has begun, it would be there again.
    Raises as `put`.
    """

    def try_next(parts: Parts) -> None:
        tries.append(f"{folder}-{secrets.token_hex(4)}/{name}")
        _send(files, connected(files.place, repeats=parts.several), tries[-1], parts)

    paced(files.named(folder), file, try_next)


def _send(
    files: BucketReading, store: ObjectStore, name: str, parts: Parts, before: ObjectMeta | None = None
) -> None:
    """One try to write a whole file, over the one that was there before."""
    try:
        # What is small is sent as it is, in one request.
        obstore.put(
            store,
            files.key(name),
            iter(parts) if parts.several else b"".join(parts),
            use_multipart=parts.several,
            chunk_size=parts.pace.part,
            max_concurrency=parts.pace.at_once,
        )
    except FileNotFoundError:
        # So an upload in parts ends whose last answer was lost: it is tidied up, though it is there.
        if not parts.several:
            raise
        there = files.head(name)
        if there == before:
            raise Unreachable(errno.EIO, "was not replaced: its upload is gone", files.named(name)) from None
        if there["size"] != parts.size:
            raise
