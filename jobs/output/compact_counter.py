"""A number for each of millions of 64-bit keys: a million in 15 MB of memory, the others in a file."""

from __future__ import annotations

from collections.abc import Iterator

from jobs.output.spilled_buckets import (
    BITS,
    BUCKETS,
    EACH,
    FILTER_BIT,
    FILTER_BYTE,
    KEY,
    SpilledBuckets,
    place_in,
)

_MASK = BUCKETS - 1
IN_MEMORY = 1 << 20
"""Keys that memory holds, in 15 MB; more go to a temporary file together."""


class CompactCounter:
    """Keys that are spread evenly, as hashes are, to numbers below 2**32; 0 for a key that is not there.

    A dict of a million ints takes 100 MB and more, this 15: the last bits of a key choose a bucket, a bytes
    object of keys and numbers that is searched from its beginning, so memory never grows by leaps. A million
    keys are 32 in a bucket. Then all buckets go to a file and are filled again, so memory stays below 40 MB.
    Methods raise OutputError where the temporary folder cannot hold that file.
    """

    def __init__(self, in_memory: int = IN_MEMORY) -> None:
        # No buckets until there is a key: thousands of manifests at a time have several counters each.
        self._buckets: list[bytes] = []
        self._room = self._in_memory = in_memory
        self._spilled: SpilledBuckets | None = None

    def get(self, key: int) -> int:
        """The number of `key`."""
        bucket, place, _ = self._find(key)
        if place >= 0:
            return int.from_bytes(bucket[place + KEY : place + EACH], "little")
        return 0 if self._spilled is None else self._spilled.find(key)[0]

    def set(self, key: int, number: int) -> None:
        """Gives `key` a number above 0."""
        bucket, place, rest = self._find(key)
        if place < 0 and self._spilled is not None:
            before, where = self._spilled.find(key)
            if before:
                self._spilled.put(where, number)
                return
        if not self._buckets:
            self._buckets = [b""] * BUCKETS
        entry = rest + number.to_bytes(EACH - KEY, "little")
        if place < 0:
            self._buckets[key & _MASK] = bucket + entry
            self._room -= 1
            if not self._room:
                self._spill()
        else:
            self._buckets[key & _MASK] = bucket[:place] + entry + bucket[place + EACH :]

    def mark(self, key: int, bits: int) -> int:
        """Sets `bits` (not 0) in the number of `key`; returns the number before."""
        # Most keys are new: then one look is enough.
        at, rest = key & _MASK, (key >> BITS).to_bytes(KEY, "little")
        if not self._buckets:
            self._buckets = [b""] * BUCKETS
        bucket = self._buckets[at]
        if rest not in bucket:
            spilled = self._spilled
            if spilled is not None and spilled.filter[key >> FILTER_BYTE] >> (key & FILTER_BIT) & 1:
                before, where = spilled.find(key)
                if before:
                    if before | bits != before:
                        spilled.put(where, before | bits)
                    return before
            self._buckets[at] = bucket + rest + bits.to_bytes(EACH - KEY, "little")
            self._room -= 1
            if not self._room:
                self._spill()
            return 0
        before = self.get(key)
        if before | bits != before:
            self.set(key, before | bits)
        return before

    def __iter__(self) -> Iterator[int]:
        """Every key, in no order."""
        for buckets in (self._buckets, () if self._spilled is None else self._spilled):
            for at, bucket in enumerate(buckets):
                for place in range(0, len(bucket), EACH):
                    yield int.from_bytes(bucket[place : place + KEY], "little") << BITS | at

    def _spill(self) -> None:
        """Moves all keys to the file."""
        if self._spilled is None:
            self._spilled = SpilledBuckets()
        self._spilled.add(self._buckets)
        self._buckets, self._room = [], self._in_memory

    def _find(self, key: int) -> tuple[bytes, int, bytes]:
        """The bucket of `key`, its place there (-1: none), and what is stored there for it."""
        rest = (key >> BITS).to_bytes(KEY, "little")
        bucket = self._buckets[key & _MASK] if self._buckets else b""
        return bucket, place_in(bucket, rest), rest
