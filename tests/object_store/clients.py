"""What the tests of the store and of the way to it ask for."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

import obstore
from obstore.store import S3Store

from tests.object_store.fault import Kind

if TYPE_CHECKING:
    from obstore.store import BackoffConfig, S3Config

LARGE = os.urandom(6 << 20)
"""More than one part of an upload."""
SMALL = os.urandom(100_000)
RETRIES = 3
_BACKOFF: BackoffConfig = {
    "init_backoff": timedelta(milliseconds=10),
    "max_backoff": timedelta(milliseconds=40),
}


def client(
    bucket: str, *, retries: int = 0, timeout: float = 30.0, config: S3Config | None = None
) -> S3Store:
    """A client by the environment's variables; `timeout`: seconds for a whole request."""
    return S3Store(
        bucket,
        config={"copy_if_not_exists": "multipart"} if config is None else config,
        retry_config={"max_retries": retries, "backoff": _BACKOFF},
        client_options={"allow_http": True, "timeout": timedelta(seconds=timeout)},
    )


def content(store: S3Store, key: str) -> bytes:
    """What is stored under a key."""
    return bytes(obstore.get(store, key).bytes())


def keys(store: S3Store, prefix: str = "") -> list[str]:
    """The keys under a prefix."""
    return [one["path"] for page in obstore.list(store, prefix) for one in page]


ASKED: dict[Kind, Callable[[S3Store], object]] = {
    Kind.PUT: lambda store: obstore.put(store, "put", SMALL),
    Kind.COPY: lambda store: obstore.copy(store, "small", "copied"),
    Kind.CREATE_UPLOAD: lambda store: obstore.put(store, "parted", SMALL, use_multipart=True),
    Kind.UPLOAD_PART: lambda store: obstore.put(store, "parted", SMALL, use_multipart=True),
    Kind.COPY_PART: lambda store: obstore.copy(store, "small", "once", overwrite=False),
    Kind.COMPLETE_UPLOAD: lambda store: obstore.copy(store, "small", "once", overwrite=False),
    Kind.GET: lambda store: content(store, "small"),
    Kind.HEAD: lambda store: obstore.head(store, "small"),
    Kind.LIST: keys,
    Kind.DELETE: lambda store: obstore.delete(store, "small"),
}
"""A call that makes requests of each kind; the key `small` must hold SMALL."""
