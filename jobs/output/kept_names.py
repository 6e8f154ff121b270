"""The form of an output's shard names, as the output keeps it: OUT/.imagemill/shards.json.

A submission writes it before any worker can commit. Where it is not there (an output of an earlier version,
an export, a copy without hidden files) the names of the shards tell: the forms have none in common.
"""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Iterator
from dataclasses import asdict
from typing import Final, NamedTuple

from jobs.errors import OutputError
from jobs.output.shard_names import FLAT, UNBOUNDED, ShardNames
from jobs.output.store import OutputStore, Unreachable
from jobs.plain_file import MAX_JSON
from jobs.strict_json import strict_json

SHARDS: Final = ".imagemill/shards.json"
_THOUSAND: Final = re.compile(r"[0-9]{3,4}")


class ShardEntry(NamedTuple):
    """What lies in an output under a shard's name."""

    shard: int
    name: str
    """In the output: `149/421.tar`."""
    ending: str
    """tar, parquet, or nothing."""
    is_folder: bool
    is_file: bool


def thousands(store: OutputStore, names: ShardNames, below: str = "") -> Iterator[str]:
    """The folders of a thousand shards in the output, or in a folder of it, in no order."""
    if names.nested:
        folders = (one.name for one in store.list(below) if one.is_folder and names.is_folder(one.name))
        yield from (f"{below}/{folder}" if below else folder for folder in folders)


def shard_entries(store: OutputStore, names: ShardNames, below: str = "") -> Iterator[ShardEntry]:
    """What has a shard's name in the output, or in a folder of it, in no order."""
    for folder in thousands(store, names, below) if names.nested else (below,):
        thousand = folder.rpartition("/")[2]
        for entry in store.list(folder):
            part = names.part_in(thousand, entry.name)
            if part is not None:
                name = f"{thousand}/{entry.name}" if names.nested else entry.name
                yield ShardEntry(part.shard, name, part.ending, entry.is_folder, entry.is_file)


class KeptNames:
    """The form of one output's names; what is settled is read once."""

    __slots__ = ("_known", "_store")

    def __init__(self, store: OutputStore, known: ShardNames | None = None) -> None:
        """`known`: the form, where the output does not say it itself."""
        self._store, self._known = store, known

    def now(self) -> ShardNames:
        """The form; flat for an output that has no shard and was not begun.

        Raises OutputError where it is not told or cannot be read, Unreachable.
        """
        if self._known is None:
            self._known = self._kept()
        if self._known is None:
            self._known = _told_by_shards(self._store)
        return UNBOUNDED if self._known is None else self._known

    def settle(self, names: ShardNames) -> None:
        """Keep this form in the output. Raises OSError."""
        if self._kept() != names:
            self._store.replace(SHARDS, f"{json.dumps(asdict(names))}\n".encode())
        self._known = names

    def _kept(self) -> ShardNames | None:
        place = f"{self._store.label}/{SHARDS}"
        try:
            said = strict_json(self._store.read(SHARDS, MAX_JSON))
            if not isinstance(said, dict) or type(said.get("digits")) is not int:
                raise ValueError("no number of digits")
            return ShardNames(said["digits"], bool(said.get("bounded", True)))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except Unreachable:
            raise
        except OSError as error:
            # Of a bucket, and of a path that no file may have, others say what helps.
            if self._store.is_remote or error.errno == errno.ENAMETOOLONG:
                raise
            raise OutputError(f"{place}: {error.strerror}: make it readable for this user") from None
        except ValueError as error:
            raise OutputError(
                f"{place}: not what imagemill wrote ({error}): restore it, or remove it: the names of the "
                "shards that are there tell the form, too"
            ) from None


def _told_by_shards(store: OutputStore) -> ShardNames | None:
    """The form of the names that are there; None without any. Raises OutputError where there are two."""
    told: dict[ShardNames, str] = {}
    for entry in store.list():
        if FLAT.part(entry.name) is not None:
            told.setdefault(UNBOUNDED, entry.name)
        elif entry.is_folder and _THOUSAND.fullmatch(entry.name):
            nested = ShardNames(len(entry.name) + 3)
            if nested not in told:
                inside = (f"{entry.name}/{one.name}" for one in store.list(entry.name))
                first = next((name for name in inside if nested.part(name) is not None), None)
                if first is not None:
                    told[nested] = first
    if len(told) > 1:
        raise OutputError(
            f"{store.label}: holds {' and '.join(sorted(told.values()))}, names of two forms, and no "
            f"{SHARDS} says which is its own: move out what is not imagemill's"
        )
    return next(iter(told), None)
