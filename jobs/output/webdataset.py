"""`layout: webdataset`: a shard is a tar of samples, and a parquet that lists failures too.

    OUT/00003.tar       000030000.png 000030000.txt 000030000.json …     it appears by one link
    OUT/00003.parquet   what the tar says, as a table: `shard_table`

In an output of many shards they are OUT/149/421.tar and OUT/149/421.parquet (`shard_names`).

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

In a bucket the store's own ways take the place of links (`bucket_store`), and the tar tells its records in
one hidden member before the pictures (`tar_records`), so that nobody reads those to learn what is there.
Reading takes nothing but the tar, and no pyarrow.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

from jobs.errors import OutputRefused
from jobs.failpoints import failpoint
from jobs.location import CHECK_BUCKET
from jobs.output.durable import write_atomically, written_atomically
from jobs.output.kept_names import shard_entries
from jobs.output.metadata import Failure
from jobs.output.shard_names import ShardNames
from jobs.output.shard_table import check_parquet, parquet_bytes, shard_table
from jobs.output.store import OutputStore, RandomAccess, Stage, Unreachable
from jobs.output.stored_shard import (
    FAILURES,
    Span,
    damaged,
    sound_failure,
    sound_record,
)
from jobs.output.tar_file import DamagedTar, Member, TarReader, TarWriter
from jobs.output.tar_records import RECORDS, Sample, read_records, records_bytes
from jobs.plain_file import read_plain
from jobs.strict_json import strict_json


class Place(NamedTuple):
    """Where the files of an image lie in a tar."""

    file_name: str
    picture: Span
    json: Span


@dataclass(frozen=True, slots=True)
class TarShard:
    """A shard as a tar in an output."""

    store: OutputStore
    number: int
    names: ShardNames
    opened: RandomAccess | None = field(default=None, compare=False, repr=False)
    """Its tar, where it is open already."""

    def begun(self) -> Self:
        """The same with its tar open, in a store far away, and read up to its pictures, if that can be."""
        with contextlib.suppress(DamagedTar, OSError), self.store.opened(self.name) as file:
            tar = TarReader(file)
            for member in itertools.takewhile(lambda one: one.name.startswith("."), tar.members()):
                tar.read(member)
            return replace(self, opened=file)  # nothing is held open there
        return self

    @staticmethod
    def without_parquet(store: OutputStore, names: ShardNames) -> set[int]:
        """Those of committed shards that lack their parquet."""
        files = [entry for entry in shard_entries(store, names) if entry.is_file]
        complete = {entry.shard for entry in files if entry.ending == "parquet"}
        return {entry.shard for entry in files if entry.ending == "tar"} - complete

    @property
    def name(self) -> str:
        """What the tar is called in the output."""
        return f"{self.names.name(self.number)}.tar"

    @property
    def parquet(self) -> str:
        """What the parquet is called in the output."""
        return f"{self.names.name(self.number)}.parquet"

    @property
    def label(self) -> str:
        return f"{self.store.label}/{self.name}"

    def key(self, position: int) -> str:
        return self.names.key(self.number, position)

    def committed(self) -> bool:
        """Whether the tar is there, with or without its parquet."""
        return self.store.exists(self.name)

    def size(self) -> int:
        tar = self.store.size(self.name) if self.opened is None else self.opened.size
        with contextlib.suppress(FileNotFoundError):
            return tar + self.store.size(self.parquet)
        return tar

    def records(self) -> Iterator[dict[str, Any]]:
        return (record for _, record in self.located())

    def located(self) -> Iterator[tuple[Span, dict[str, Any]]]:
        with self._opened() as tar:
            told = self._told(tar)
            if told is not None:
                yield from ((sample.json, sample.record) for sample in told)
                return
            for member in tar.members():
                if member.name.endswith(".json"):
                    yield Span(member.start, member.size), self._record(tar, member)

    def record_at(self, span: Span) -> dict[str, Any]:
        with self._opened() as tar:
            return self._record(tar, Member(f"byte {span.start}", span.start, span.size))

    def places(self) -> Iterator[Place]:
        """Where the files of each image lie, in the tar's order; what its record says is not read."""
        with self._opened() as tar:
            told = self._told(tar)
            if told is not None:
                for sample in told:
                    yield Place(sample.record["file_name"], sample.picture, sample.json)
                return
            picture: Member | None = None
            for member in tar.members():
                key, _, ending = member.name.partition(".")
                if ending == "json" and picture is not None and picture.name.partition(".")[0] == key:
                    yield Place(
                        picture.name, Span(picture.start, picture.size), Span(member.start, member.size)
                    )
                elif ending not in ("json", "txt"):
                    picture = member

    def read_at(self, spans: Iterable[Span]) -> Iterator[bytes]:
        """What lies there, one after the other."""
        with self._opened() as tar:
            for span in spans:
                yield tar.read(Member(f"byte {span.start}", span.start, span.size))

    def failures(self) -> list[Failure]:
        with self._opened() as tar:
            first = next(tar.members(), None)
            lines = tar.read(first).splitlines() if first is not None and first.name == FAILURES else []
        place = f"{self.label}: {FAILURES}"
        return [sound_failure(f"{place}:{n}", _json(f"{place}:{n}", line)) for n, line in enumerate(lines, 1)]

    def held_records(self) -> Iterator[dict[str, Any]]:
        pictures = set()
        with self._opened() as tar:
            told = self._told(tar)
            if told is not None:
                yield from (sample.record for sample in told)
                return
            for member in tar.members():
                if not member.name.endswith(".json"):
                    pictures.add(member.name)
                elif (record := self._record(tar, member))["file_name"] in pictures:
                    yield record

    def pictures(self, file_names: Collection[str]) -> Iterator[tuple[str, bytes]]:
        told = None
        if self.store.is_remote:
            with self._opened() as tar:
                told = self._told(tar)
        # Most of a tar is fetched at once, a few pictures one by one.
        whole = told is None or 2 * len(file_names) > len(told)
        with self._opened(whole=whole) as tar:
            if told is None:
                yield from (
                    (member.name, tar.read(member)) for member in tar.members() if member.name in file_names
                )
                return
            for sample in told:
                if (name := sample.record["file_name"]) in file_names:
                    yield name, tar.read(Member(name, *sample.picture))

    def check_writable(self, folder: Path) -> None:
        check_parquet()
        self.store.check_can_put_if_absent(folder)

    def commit(
        self,
        images: Path,
        records: Sequence[Mapping[str, Any]],
        failures: Sequence[Failure],
        stage: Stage,
    ) -> None:
        tar, parquet = (images.parent / Path(name).name for name in (self.name, self.parquet))
        samples = [
            (
                str(record["file_name"]),
                str(record["text"]).encode(),
                json.dumps(record, ensure_ascii=False).encode(),
            )
            for record in records
        ]
        synced = not self.store.is_remote  # what is uploaded at once need not outlive this machine
        with written_atomically(tar, synced=synced) as file:
            writer = TarWriter(file)
            if failures:
                writer.add(FAILURES, "".join(f"{failure.to_json()}\n" for failure in failures).encode())
            if self.store.is_remote:
                told = (((images / name).stat().st_size, text, said) for name, text, said in samples)
                writer.add(RECORDS, records_bytes(told))
            for name, text, said in samples:
                key = name.partition(".")[0]
                writer.add(name, read_plain(images / name))
                writer.add(f"{key}.txt", text)
                writer.add(f"{key}.json", said)
            writer.close()
        write_atomically(parquet, parquet_bytes(shard_table(self.key, records, failures)), synced=synced)
        # In this order: a parquet that is ours has its tar there already.
        if self.store.is_taken(self.parquet) and not self.store.is_taken(self.name):
            raise FileExistsError(
                errno.EEXIST, os.strerror(errno.EEXIST), f"{self.store.label}/{self.parquet}"
            )
        failpoint("before commit", Path(self.label))
        self.store.put_if_absent(self.name, tar, stage)
        failpoint("after commit", Path(self.label))
        try:
            self.store.put_if_absent(self.parquet, parquet)
        except FileExistsError:
            pass  # made by `complete`, of this very tar
        except FileNotFoundError:
            self.complete()  # the attempt that came second has removed the spool

    def complete(self) -> None:
        """The parquet, where there is none. Raises OutputError without pyarrow."""
        if not self.store.exists(self.parquet):
            check_parquet()
            table = shard_table(self.key, list(self.records()), self.failures())
            self.store.replace(self.parquet, parquet_bytes(table))

    @contextlib.contextmanager
    def _opened(self, *, whole: bool = False) -> Iterator[TarReader]:
        try:
            if self.opened is not None and not whole:
                yield TarReader(self.opened)
                return
            with self.store.opened(self.name, whole=whole) as file:
                yield TarReader(file)
        except DamagedTar as error:
            raise damaged(self.label, str(error)) from None
        except Unreachable:
            raise
        except OSError as error:
            if not self.store.is_remote or isinstance(error, FileNotFoundError):
                raise damaged(self.label, str(error.strerror)) from None
            raise OutputRefused(
                f"{self.label}: cannot be read ({error.strerror}): {CHECK_BUCKET}, and where temporary files "
                "go (TMPDIR)"
            ) from None

    def _told(self, tar: TarReader) -> Sequence[Sample] | None:
        """What the member of records tells; None where the tar has none, or is not far away."""
        if not self.store.is_remote:
            return None
        for member in tar.members():
            if member.name == RECORDS:
                return read_records(f"{self.label}: {RECORDS}", tar.read(member), member.end, tar.size)
            if not member.name.startswith("."):
                return None
        return None

    def _record(self, tar: TarReader, member: Member) -> dict[str, Any]:
        place = f"{self.label}: {member.name}"
        return sound_record(place, _json(place, tar.read(member)))


def _json(place: str, text: bytes) -> object:
    try:
        return strict_json(text)
    except ValueError as error:
        raise damaged(place, f"not JSON ({error})") from None
