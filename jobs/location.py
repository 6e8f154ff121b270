"""Where an output lies, as a manifest and the ledger name it: a folder, or a place in a bucket.

/data/sunsets                  a folder
s3://bucket/sets/sunsets       Amazon S3, or a store that speaks like it
gs://bucket/sets/sunsets       Google Cloud Storage
az://container/sets/sunsets    Azure Blob Storage
"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from typing import Final, Self

SCHEMES: Final = ("s3", "gs", "az")
_ANY_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
_PART = re.compile(r"[\w.=+@,() -]+")
_LONGEST: Final = 700
"""Bytes of a prefix: the stores take keys of 1,024, and the names of an output's files follow it."""
CHECK_BUCKET: Final = "check the bucket's name, its endpoint and the credentials"
"""The remedy where a bucket cannot be read or written."""


class NoLocation(ValueError):
    """A text names no place in a bucket that can be used here; the message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class BucketPlace:
    """A place in a bucket. Equal places have equal texts."""

    scheme: str
    """One of SCHEMES."""
    bucket: str
    prefix: str
    """What the keys there begin with, without slashes around it. Of a file: its key. Empty: the bucket."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """The place that a text names. Raises NoLocation."""
        found = _ANY_SCHEME.fullmatch(text)
        if found is None or found[1] not in SCHEMES:
            raise NoLocation(f"begins with none of {', '.join(f'{one}://' for one in SCHEMES)}")
        bucket, _, prefix = found[2].partition("/")
        if not _BUCKET.fullmatch(bucket):
            raise NoLocation(f"{bucket!r} is no bucket's name: write {found[1]}://BUCKET/FOLDER")
        prefix = prefix.removesuffix("/")
        for part in prefix.split("/") if prefix else ():
            if not _PART.fullmatch(part) or part.strip() != part or part in {".", ".."}:
                raise NoLocation(
                    f"{part!r} is no folder's name there: take letters, digits and any of . _ - = + @ , ( )"
                )
        if len(prefix.encode()) > _LONGEST:
            raise NoLocation(f"is longer than {_LONGEST} bytes after the bucket's name: shorten it")
        return cls(found[1], bucket, prefix)

    @classmethod
    def parse_file(cls, text: str) -> Self:
        """The place of a file that a text names, or of a pattern of files. Raises NoLocation.

        Its prefix is the key, which others may have given: any that a path can have.
        """
        scheme, _, rest = text.partition("://")
        bucket, _, key = rest.partition("/")
        top = cls.parse(f"{scheme}://{bucket}")
        if not key or not key.isprintable() or any(part in ("", ".", "..") for part in key.split("/")):
            raise NoLocation(f"is no file's name there: write {top}/FOLDER/FILE")
        return cls(scheme, bucket, key)

    def __str__(self) -> str:
        """As a manifest names it."""
        return "/".join(part for part in (f"{self.scheme}://{self.bucket}", self.prefix) if part)

    def is_within(self, root: BucketPlace) -> bool:
        """Whether it is the place `root` or below it."""
        same = (self.scheme, self.bucket) == (root.scheme, root.bucket)
        return same and f"{self.prefix}/".startswith(f"{root.prefix}/" if root.prefix else "")


def check_obstore() -> None:
    """Raises NoLocation where the package is not installed that reads and writes buckets."""
    if importlib.util.find_spec("obstore") is None:
        raise NoLocation(
            "obstore, which reads and writes buckets, is not installed: pip install 'imagemill[cloud]'"
        )


def names_bucket(text: str) -> bool:
    """Whether a text names a place in a bucket, or tries to: it begins as `s3://` does."""
    return _ANY_SCHEME.fullmatch(text) is not None
