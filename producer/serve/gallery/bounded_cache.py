"""A cache that holds a bounded number of bytes and forgets what was used longest ago."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, TypeVar

T = TypeVar("T")


class BoundedCache(Generic[T]):
    """Values by key, of at most `most` bytes together; threads may share it."""

    def __init__(self, most: int, size: Callable[[T], int]) -> None:
        """`size` tells the bytes of a value."""
        self._most, self._size = most, size
        self._held = 0
        self._values: OrderedDict[Hashable, T] = OrderedDict()
        self._lock = Lock()

    @property
    def held(self) -> int:
        """The bytes that it holds."""
        return self._held

    def get(self, key: Hashable) -> T | None:
        """The value, if it is held."""
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key]

    def put(self, key: Hashable, value: T) -> None:
        """Hold a value; one larger than the whole cache is not held."""
        size = self._size(value)
        with self._lock:
            if key in self._values:
                self._held -= self._size(self._values.pop(key))
            if size > self._most:
                return
            self._values[key] = value
            self._held += size
            while self._held > self._most:
                _, old = self._values.popitem(last=False)
                self._held -= self._size(old)
