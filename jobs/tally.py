"""A number for each of millions of 64-bit keys, in 12 bytes and a free place for each."""

from __future__ import annotations

from array import array


class Tally:
    """Keys that are spread evenly, as hashes are, to numbers below 2**32; 0 for a key that is not there.

    A dict of a million ints takes 100 MB and more; this, with open addressing and linear probing, 25.
    """

    def __init__(self) -> None:
        self._keys = array("Q", bytes(8 << 10))
        self._numbers = array("I", bytes(4 << 10))
        self._mask = (1 << 10) - 1
        self._free = 600

    def get(self, key: int) -> int:
        """The number of `key`."""
        return self._numbers[self._place(key)]

    def set(self, key: int, number: int) -> None:
        """Gives `key` a number above 0."""
        self.mark(key, 1)
        self._numbers[self._place(key)] = number

    def mark(self, key: int, bits: int) -> int:
        """Sets `bits` (not 0) in the number of `key`; returns the number before."""
        # `_place`, without the call: this is done for every image.
        keys, numbers, mask = self._keys, self._numbers, self._mask
        place = key & mask
        while numbers[place] and keys[place] != key:
            place = (place + 1) & mask
        before = numbers[place]
        if before == 0:
            if self._free == 0:
                self._grow()
                place = self._place(key)
            self._free -= 1
            self._keys[place] = key
        self._numbers[place] = before | bits
        return before

    def _place(self, key: int) -> int:
        keys, numbers, mask = self._keys, self._numbers, self._mask
        place = key & mask
        while numbers[place] and keys[place] != key:
            place = (place + 1) & mask
        return place

    def _grow(self) -> None:
        keys, numbers, size = self._keys, self._numbers, 2 * len(self._keys)
        self._keys, self._numbers = array("Q", bytes(8 * size)), array("I", bytes(4 * size))
        self._mask, self._free = size - 1, size * 6 // 10 - len(keys) * 6 // 10
        for key, number in zip(keys, numbers, strict=True):
            if number:
                place = self._place(key)
                self._keys[place], self._numbers[place] = key, number
