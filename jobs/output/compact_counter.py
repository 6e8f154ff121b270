"""A number for each of millions of 64-bit keys, in 11 bytes for each and 3 MB for all."""

from __future__ import annotations

from collections.abc import Iterator

_BITS = 15
_MASK = (1 << _BITS) - 1
_KEY, _EACH = 7, 11
"""Bytes of the part of a key that its bucket does not give; bytes of that part and the key's number."""


class CompactCounter:
    """Keys that are spread evenly, as hashes are, to numbers below 2**32; 0 for a key that is not there.

    A dict of a million ints takes 100 MB and more, this 15: the last bits of a key choose a bucket, a bytes
    object of keys and numbers that is searched from its beginning, so memory never grows by leaps. A million
    keys are 30 in a bucket.
    """

    def __init__(self) -> None:
        # No buckets until there is a key: thousands of manifests at a time have several counters each.
        self._buckets: list[bytes] = []

    def get(self, key: int) -> int:
        """The number of `key`."""
        bucket, place, _ = self._find(key)
        return 0 if place < 0 else int.from_bytes(bucket[place + _KEY : place + _EACH], "little")

    def set(self, key: int, number: int) -> None:
        """Gives `key` a number above 0."""
        if not self._buckets:
            self._buckets = [b""] * (1 << _BITS)
        bucket, place, rest = self._find(key)
        if place < 0:
            place = len(bucket)
        entry = rest + number.to_bytes(_EACH - _KEY, "little")
        self._buckets[key & _MASK] = bucket[:place] + entry + bucket[place + _EACH :]

    def mark(self, key: int, bits: int) -> int:
        """Sets `bits` (not 0) in the number of `key`; returns the number before."""
        # Most keys are new: then one look is enough.
        at, rest = key & _MASK, (key >> _BITS).to_bytes(_KEY, "little")
        if not self._buckets:
            self._buckets = [b""] * (1 << _BITS)
        bucket = self._buckets[at]
        if rest not in bucket:
            self._buckets[at] = bucket + rest + bits.to_bytes(_EACH - _KEY, "little")
            return 0
        before = self.get(key)
        if before | bits != before:
            self.set(key, before | bits)
        return before

    def __iter__(self) -> Iterator[int]:
        """Every key, in no order."""
        for at, bucket in enumerate(self._buckets):
            for place in range(0, len(bucket), _EACH):
                yield int.from_bytes(bucket[place : place + _KEY], "little") << _BITS | at

    def _find(self, key: int) -> tuple[bytes, int, bytes]:
        """The bucket of `key`, its place there (-1: none), and what is stored there for it."""
        if not self._buckets:
            return b"", -1, b""
        bucket, rest = self._buckets[key & _MASK], (key >> _BITS).to_bytes(_KEY, "little")
        place = bucket.find(rest)
        # Bytes that look like the key may belong to another key and its number.
        while place > 0 and place % _EACH:
            place = bucket.find(rest, place + 1)
        return bucket, place, rest
