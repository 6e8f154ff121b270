"""Requests into shards of one size and one set of adapters each, as a stream: what shares a shard can share a
worker's forwards."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator
from typing import Any, Generic, NamedTuple, TypeVar

from jobs.adapters import Listed
from jobs.bounds import Arguments, Text
from jobs.entry import Entry
from jobs.request import IMAGE_SETTINGS, SETTINGS, settings_in
from producer.requests.expand import EqualLine
from producer.requests.shard_size import ShardSize

_Key = TypeVar("_Key")
_Open = tuple[list[tuple[_Key, Entry]], list[int]]
"""A shard that is being filled: its entries, and their places."""

MOST_OPEN = 64
"""Shards that are being filled at a time; a manifest of more groups than that gets smaller shards."""
MOST_TEXT = 8 << 20
"""Characters of texts and columns after which a shard is full: its worker holds it whole."""
_TEXTS = [
    SETTINGS.index(name)
    for name in settings_in("settings")
    if isinstance(IMAGE_SETTINGS[name].values, Text | Arguments | Listed)
]
"""Where an entry's settings hold a text of any length."""


class Part(NamedTuple, Generic[_Key]):
    """The entries of one shard by their keys, and how far the stream was read when it was full."""

    entries: list[tuple[_Key, Entry]]
    places: list[int]
    """The place of each entry in the stream, from 0."""
    taken: int
    """Requests read until then."""
    held: int
    """Requests among them that the output held already, and that are in no shard."""


def _text(entry: Entry) -> int:
    """Characters beside those of its settings, about."""
    own = len(entry.quoted)
    if entry.id is not None:
        own += len(entry.id)
    return own + len(str(entry.columns)) if entry.columns else own


def parts(
    entries: Iterable[tuple[_Key, Entry]],
    held: Container[_Key],
    shard_size: ShardSize,
    most_open: int = MOST_OPEN,
    on_left_out: Callable[[int, tuple[_Key, Entry]], None] = lambda place, keyed: None,
) -> Iterator[Part[_Key]]:
    """Every shard of a job, each of one group (`Entry.group`): model and precision are the job's own.

    A shard ends when it holds as many entries as `shard_size` says, or MOST_TEXT; when `most_open` others are
    open, the one that was begun first ends early; those left come last, in the order in which they were
    begun, and after them an empty one that shows how far the whole stream went. Entries whose key is among
    `held` are left out, and so are EqualLines: `on_left_out` gets each with its place. The same entries, of
    which the same are held, give the same parts.
    """
    open_shards: dict[tuple[object, ...], _Open[_Key]] = {}
    text: dict[tuple[object, ...], int] = {}
    full: dict[tuple[object, ...], int] = {}
    taken = left_out = 0
    last: tuple[Any, ...] | None = None
    group: tuple[object, ...] = ()
    of_settings = 0
    for keyed in entries:
        taken += 1
        if type(keyed) is EqualLine:
            on_left_out(taken - 1, keyed)
            continue
        if keyed[0] in held:
            left_out += 1
            on_left_out(taken - 1, keyed)
            continue
        if keyed[1].settings is not last:
            # Lines with equal settings share one tuple, as a rule.
            last, group = keyed[1].settings, keyed[1].group
            of_settings = sum(len(last[place]) for place in _TEXTS)
        part = open_shards.get(group)
        if part is None:
            if len(open_shards) == most_open:
                yield Part(*open_shards.pop(next(iter(open_shards))), taken, left_out)
            part = open_shards[group] = ([], [])
            text[group] = 0
            if group not in full:
                full[group] = shard_size.of_size(*keyed[1].size)
        part[0].append(keyed)
        part[1].append(taken - 1)
        text[group] += of_settings + _text(keyed[1])
        if len(part[0]) == full[group] or text[group] >= MOST_TEXT:
            yield Part(*open_shards.pop(group), taken, left_out)
    for part in open_shards.values():
        yield Part(*part, taken, left_out)
    yield Part([], [], taken, left_out)
