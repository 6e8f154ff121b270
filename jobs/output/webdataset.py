"""`layout: webdataset`: a shard is a tar of samples, and a parquet that lists failures too.

    OUT/00003.tar       000030000.png 000030000.txt 000030000.json …     it appears by one link
    OUT/00003.parquet   what the tar says, as a table: `shard_table`

The tar is the shard: KEY.txt is the prompt, KEY.json the metadata record. What failed is listed in its first
member, `.failures.jsonl`, what a repair emptied in `.repaired.jsonl`, as in `layout: files`: a hidden name
has no key, so readers of samples skip it. The parquet holds nothing that is not in the tar. Two files cannot
appear in one step, so one of them must decide:

- Both are written and synced in the attempt's own spool folder. Linking the tar to OUT/00003.tar commits; a
  link never overwrites, so at most one attempt wins, even if others sleep or die meanwhile.
- Only the winner links its parquet, again never overwriting. So no parquet appears before its tar, and a
  parquet that appears is that tar's own: a late attempt touches neither.
- Killed between the two links, the winner leaves a committed tar without parquet. `complete` makes it from
  the tar, which a job's finishing does for every shard; a winner that only slept would link the same.

Reading takes nothing but the tar, and no pyarrow.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.errors import OutputError
from jobs.failpoints import failpoint
from jobs.output.durable import fsync_folder, write_atomically, written_atomically
from jobs.output.metadata import Failure
from jobs.output.shard_table import check_parquet, parquet_bytes, shard_table
from jobs.output.stored_shard import (
    FAILURES,
    Span,
    damaged,
    shard_name,
    shard_number,
    sound_failure,
    sound_record,
)
from jobs.output.tar_file import DamagedTar, Member, TarReader, TarWriter
from jobs.plain_file import open_plain, read_plain
from jobs.strict_json import strict_json

_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


@dataclass(frozen=True, slots=True)
class TarShard:
    """A shard as a tar in `output`."""

    output: Path
    number: int

    @staticmethod
    def numbers(output: Path) -> Iterator[int]:
        """The shard numbers that name a tar or a parquet here."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            for entry in os.scandir(output):
                stem, _, ending = entry.name.partition(".")
                number = shard_number(stem) if ending in {"tar", "parquet"} else None
                if number is not None:
                    yield number

    @property
    def path(self) -> Path:
        return self.output / f"{shard_name(self.number)}.tar"

    @property
    def parquet(self) -> Path:
        return self.output / f"{shard_name(self.number)}.parquet"

    def committed(self) -> bool:
        """Whether the tar is there, with or without its parquet."""
        return self.path.is_file()

    def records(self) -> Iterator[dict[str, Any]]:
        return (record for _, record in self.located())

    def located(self) -> Iterator[tuple[Span, dict[str, Any]]]:
        with self._opened() as tar:
            for member in tar.members():
                if member.name.endswith(".json"):
                    yield Span(member.start, member.size), self._record(tar, member)

    def record_at(self, span: Span) -> dict[str, Any]:
        with self._opened() as tar:
            return self._record(tar, Member(f"byte {span.start}", span.start, span.size))

    def failures(self) -> list[Failure]:
        with self._opened() as tar:
            first = next(tar.members(), None)
            lines = tar.read(first).splitlines() if first is not None and first.name == FAILURES else []
        place = f"{self.path}: {FAILURES}"
        return [sound_failure(f"{place}:{n}", _json(f"{place}:{n}", line)) for n, line in enumerate(lines, 1)]

    def held_records(self) -> Iterator[dict[str, Any]]:
        pictures = set()
        with self._opened() as tar:
            for member in tar.members():
                if not member.name.endswith(".json"):
                    pictures.add(member.name)
                elif (record := self._record(tar, member))["file_name"] in pictures:
                    yield record

    def pictures(self, file_names: Collection[str]) -> Iterator[tuple[str, bytes]]:
        with self._opened() as tar:
            for member in tar.members():
                if member.name in file_names:
                    yield member.name, tar.read(member)

    def check_writable(self, folder: Path) -> None:
        check_parquet()
        one, other = (folder / f".probe.{secrets.token_hex(6)}" for _ in range(2))
        try:
            one.touch()
            os.link(one, other)
        except OSError as error:
            if error.errno in _NO_LINKS:
                raise OutputError(
                    f"{self.output}: its file system has no hard links ({error.strerror}), without which a "
                    "tar cannot appear whole and overwrite nothing: use layout: files, or another file system"
                ) from None
            raise
        finally:
            one.unlink(missing_ok=True)
            other.unlink(missing_ok=True)

    def commit(self, images: Path, records: Sequence[Mapping[str, Any]], failures: Sequence[Failure]) -> None:
        tar, parquet = images.parent / self.path.name, images.parent / self.parquet.name
        with written_atomically(tar) as file:
            writer = TarWriter(file)
            if failures:
                writer.add(FAILURES, "".join(f"{failure.to_json()}\n" for failure in failures).encode())
            for record in records:
                name = str(record["file_name"])
                key = name.partition(".")[0]
                writer.add(name, read_plain(images / name))
                writer.add(f"{key}.txt", str(record["text"]).encode())
                writer.add(f"{key}.json", json.dumps(record, ensure_ascii=False).encode())
            writer.close()
        write_atomically(parquet, parquet_bytes(shard_table(self.number, records, failures)))
        # In this order: a parquet that is ours has its tar there already.
        if self.parquet.exists() and not self.path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(self.parquet))
        failpoint("before commit", self.path)
        os.link(tar, self.path)
        failpoint("after commit", self.path)
        fsync_folder(self.output)
        try:
            os.link(parquet, self.parquet)
        except FileExistsError:
            pass  # made by `complete`, of this very tar
        except FileNotFoundError:
            self.complete()  # the attempt that came second has removed the spool
        fsync_folder(self.output)

    def complete(self) -> None:
        """The parquet, where there is none. Raises OutputError without pyarrow."""
        if not self.parquet.exists():
            check_parquet()
            table = shard_table(self.number, list(self.records()), self.failures())
            write_atomically(self.parquet, parquet_bytes(table))

    @contextlib.contextmanager
    def _opened(self) -> Iterator[TarReader]:
        try:
            with open_plain(self.path) as file:
                yield TarReader(file)
        except DamagedTar as error:
            raise damaged(str(self.path), str(error)) from None
        except OSError as error:
            raise damaged(str(self.path), str(error.strerror)) from None

    def _record(self, tar: TarReader, member: Member) -> dict[str, Any]:
        place = f"{self.path}: {member.name}"
        return sound_record(place, _json(place, tar.read(member)))


def _json(place: str, text: bytes) -> object:
    try:
        return strict_json(text)
    except ValueError as error:
        raise damaged(place, f"not JSON ({error})") from None
