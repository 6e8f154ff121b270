"""Draws that follow from what is drawn from: another option changes only the draws that take it.

Rendezvous hashing (Thaler and Ravishankar 1998): at every place each option of each draw has a lot, a number
that follows from the template, the draw, the place and the option's own text, and the best lot wins. An
option that is added has a lot of its own and changes no other, so it wins its share and the other draws stay.
With weights, -ln(u) / weight is the lot and the smallest wins (Efraimidis and Spirakis 2006): an option's
share is its weight's. The k best are the options of `{k$$…}`.

Lots are 64 bits mixed by SplitMix64's finalizer (Steele, Lea and Flood 2014), many draws at a time by numpy.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from producer.wildcards.choices import Choice, Choices, Fixed, Row

Keys = NDArray[np.uint64]

_MOST_LOTS = 1 << 18
"""Lots that are held at a time: what a core's cache holds."""
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_30, _27, _31, _11 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)


def draw_keys(text: str, first: int, count: int) -> Keys:
    """A key for each of `count` draws, from the draw `first` on; `text` is what the draws depend on."""
    numbers = np.arange(first + 1, first + count + 1, dtype=np.uint64)
    return _mixed(np.uint64(_hash(text)) ^ _mixed(numbers * _GOLDEN))


def drawn(choices: Choices, keys: Keys) -> list[str]:
    """One text for each key."""
    match choices:
        case Fixed(text):
            return [text] * len(keys)
        case Row(parts):
            columns = []
            places = np.arange(1, len(parts) + 1, dtype=np.uint64) * _GOLDEN
            for place, part in zip(places, parts, strict=True):
                columns.append(drawn(part, keys if isinstance(part, Fixed) else _mixed(keys ^ place)))
            return list(map("".join, zip(*columns, strict=True)))
        case Choice():
            return _chosen(choices, keys)


def _chosen(choice: Choice, keys: Keys) -> list[str]:
    if choice.most == 1 and choice.least == 1:
        return _texts(choice, _best(choice, keys, 1)[:, 0], keys)
    if choice.most == 0:
        return [""] * len(keys)
    best = _best(choice, keys, choice.most)
    columns = [_texts(choice, best[:, column], keys) for column in range(choice.most)]
    counts = _best_number(choice.least, choice.most, keys)
    return [
        choice.separator.join(row[:count])
        for count, row in zip(counts, zip(*columns, strict=True), strict=True)
    ]


def _best(choice: Choice, keys: Keys, taken: int) -> NDArray[np.intp]:
    """The `taken` options with the best lots of each key, the best first: [keys, taken]."""
    names = _option_keys(choice.names)
    weights = None
    if len(set(choice.weights)) > 1:
        weights = np.array(choice.weights)
    best = np.empty((len(keys), taken), np.intp)
    step = max(1, _MOST_LOTS // len(names))
    for start in range(0, len(keys), step):
        lots = _mixed(keys[start : start + step, None] ^ names[None, :])
        if weights is None:
            # The largest u is the smallest -ln(u).
            waits: NDArray[np.uint64] | NDArray[np.float64] = ~lots
        else:
            waits = -np.log(((lots >> _11) + 0.5) * 2.0**-53) / weights
        if taken == 1:
            best[start : start + step, 0] = waits.argmin(1)
        else:
            best[start : start + step] = waits.argsort(1, kind="stable")[:, :taken]
    return best


def _best_number(least: int, most: int, keys: Keys) -> list[int]:
    """A number from `least` to `most` for each key."""
    if least == most:
        return [least] * len(keys)
    numbers = np.arange(least, most + 1, dtype=np.uint64)
    lots = _mixed(keys[:, None] ^ _mixed((numbers + np.uint64(1)) * _SECOND)[None, :])
    found: list[int] = (lots.argmax(1) + least).tolist()
    return found


def _texts(choice: Choice, taken: NDArray[np.intp], keys: Keys) -> list[str]:
    """The text of the option that each key takes."""
    fixed = [option.text if isinstance(option, Fixed) else "" for option in choice.options]
    found = [fixed[option] for option in taken.tolist()]
    for number in np.unique(taken).tolist():
        option = choice.options[number]
        if isinstance(option, Fixed):
            continue
        at = np.nonzero(taken == number)[0]
        # What an option's own places draw follows from the option too.
        own = _mixed(keys[at] ^ _option_keys(choice.names)[number] ^ _GOLDEN)
        for place, text in zip(at.tolist(), drawn(option, own), strict=True):
            found[place] = text
    return found


@lru_cache(maxsize=256)
def _option_keys(names: tuple[str, ...]) -> Keys:
    return np.array([_hash(name) for name in names], dtype=np.uint64)


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


def _mixed(keys: Keys) -> Keys:
    """SplitMix64's finalizer of each."""
    keys = keys ^ (keys >> _30)
    keys *= _FIRST
    keys ^= keys >> _27
    keys *= _SECOND
    keys ^= keys >> _31
    return keys
