"""The files of requests that an output keeps in a bucket: each is read when it is needed, and verified."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from jobs.errors import InputsAway, LatentsError
from jobs.inputs.inputs import (
    MAX_PICTURE_BYTES,
    KeptInputs,
    altered,
    check_digest,
    kept_name,
    reading,
    temporary_folder,
    written,
)
from jobs.inputs.latents import MAX_BYTES, parsed_input
from jobs.output.output import INPUTS
from jobs.output.store import OutputStore, Unreachable, pieces

if TYPE_CHECKING:
    from jobs.inputs.latents import Latents

_LEFT_ALONE: Final = 2.0
"""Seconds in which a store that gave no answer is not asked: the one thread that renders would wait again for
each image."""


class BucketInputs:
    """Files that a submission kept in the bucket of its output, or that lie where the author has them.

    Nothing is kept on this machine.
    """

    def __init__(self, store: OutputStore, near: KeptInputs) -> None:
        """`near`: the files that were not copied."""
        self.store, self.near = store, near
        self._failed: tuple[float, str] | None = None

    def latents(self, sha256: str) -> Latents:
        """Initial latents; see `Inputs.latents`."""
        check_digest(sha256)
        name = f"{INPUTS}/{sha256}.npy"
        place = f"{self.store.label}/{name}"
        with self._asking(place):
            try:
                contents = self.store.read(name, MAX_BYTES)
            except FileNotFoundError:
                raise LatentsError(f"{place}: there is no such file") from None
        return parsed_input(place, contents, sha256)

    def contents(self, sha256: str) -> bytes:
        """A picture's file; see `Inputs.contents`."""
        if sha256 in self.near.referenced:
            return self.near.contents(sha256)
        name, place = self._names(sha256)
        with self._asking(place):
            found = self.store.read(name, MAX_PICTURE_BYTES)
        if hashlib.sha256(found).hexdigest() != sha256:
            raise altered(place)
        return found

    @contextmanager
    def private_copy(self, sha256: str) -> Iterator[Path]:
        """An adapter's file; see `Inputs.private_copy`."""
        if sha256 in self.near.referenced:
            with self.near.private_copy(sha256) as copy:
                yield copy
            return
        name, place = self._names(sha256)
        with temporary_folder() as folder:
            copy = folder / sha256
            with self._asking(place), self.store.opened(name) as file:
                digest = written(pieces(file), copy)
            if digest != sha256:
                raise altered(place)
            yield copy

    def has(self, sha256: str) -> bool:
        """Whether the output keeps a picture or an adapter of this hash. Raises OSError."""
        return self.store.exists(self._names(sha256)[0])

    def reach(self) -> None:
        """Asks the store anything. Raises Unreachable where it gives no answer."""
        self.store.exists(INPUTS)
        self._failed = None

    def _names(self, sha256: str) -> tuple[str, str]:
        """What a file is called in the output, and in messages."""
        check_digest(sha256)
        name = f"{INPUTS}/{kept_name(sha256)}"
        return name, f"{self.store.label}/{name}"

    @contextmanager
    def _asking(self, place: str) -> Iterator[None]:
        """As `reading`; a store that has just given no answer is not asked."""
        if self._failed is not None and time.monotonic() < self._failed[0]:
            raise InputsAway(f"{place}: cannot be read at present: {self._failed[1]}")
        with reading(place):
            try:
                yield
            except Unreachable as error:
                self._failed = time.monotonic() + _LEFT_ALONE, str(error.strerror)
                raise
