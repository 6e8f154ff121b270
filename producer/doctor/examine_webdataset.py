"""A committed shard of `layout: webdataset`, examined: tar, samples, failures, numbers and parquet agree."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from jobs.errors import OutputError
from jobs.output.lines import key_of
from jobs.output.metadata import Failure
from jobs.output.output import Output
from jobs.output.shard_table import by_another_pyarrow, check_parquet, parquet_bytes, read_table, shard_table
from jobs.output.stored_shard import FAILURES, REPAIRED
from jobs.output.tar_file import DamagedTar, Member, TarReader
from jobs.output.tar_records import RECORDS, read_records
from jobs.output.webdataset import TarShard
from jobs.wording import shown
from producer.doctor.findings import Cut, Problem, ProblemKind, ShardFindings, SoundImage
from producer.doctor.soundness import (
    FILL_GAP,
    RENDER_AGAIN,
    TAKE_OUT,
    failure_in,
    file_problem,
    gaps_between,
    json_object,
    lines_of,
    picture_trouble,
    repaired_places,
    request_in,
)

WRITE_AGAIN = "`--repair` writes it again from the tar"

_PICTURES = frozenset({"png", "jpg", "webp"})
_NAMED = 3
"""Lines of a parquet that are named."""


def examine_tar(output: Output, shard: int) -> ShardFindings:
    """Everything that is wrong in one committed tar and its parquet; every byte of them is read.

    Raises nothing for what it finds: what the system does not let it read is a problem too.
    """
    return _Examination(output, shard).findings()


@dataclass(slots=True)
class _Sample:
    """The members of one key, by their endings."""

    key: str
    position: int
    members: dict[str, Member] = field(default_factory=dict)
    number: int = 0
    """The number, from 1, of its KEY.json among the tar's members."""


class _Examination:
    def __init__(self, output: Output, shard: int) -> None:
        self._stored, self._shard = TarShard(output.store, shard, output.names), shard
        self._tar_name = self._stored.name
        self._found = ShardFindings(shard, self._tar_name)
        self._samples: dict[str, _Sample] = {}
        self._hidden: dict[str, Member] = {}
        self._filled: set[int] = set()
        """The places in the shard that something accounts for."""

    def findings(self) -> ShardFindings:
        """Examine the shard and return what was found."""
        records: list[dict[str, Any]] = []
        try:
            with self._stored.store.opened(self._tar_name, whole=True) as file:
                tar = TarReader(file)
                self._read_members(tar)
                self._examine_told(tar)
                for sample in self._samples.values():
                    self._filled.add(sample.position)
                    if (record := self._sound_record(tar, sample)) is not None:
                        records.append(record)
                failures = list(self._sound_failures(tar))
                self._filled.update(repaired_places(self._lines_of(tar, REPAIRED)))
        except OSError as error:
            self._found.problems.append(file_problem(self._stored.label, self._tar_name, error))
            return self._found
        gaps = gaps_between(self._filled)
        if gaps is not None:
            self._add("gap", "", gaps.what, FILL_GAP, cut=Cut(positions=gaps.places))
        self._examine_parquet(records, failures)
        return self._found

    def _read_members(self, tar: TarReader) -> None:
        """Sort the members by sample; those of no sample are problems."""
        try:
            for number, member in enumerate(tar.members(), 1):
                self._take(number, member)
            tar.check_padding()
        except DamagedTar as error:
            self._add("tar", "", str(error), RENDER_AGAIN, cut=Cut())

    def _take(self, number: int, member: Member) -> None:
        key, _, ending = member.name.partition(".")
        position = self._stored.names.position(self._shard, member.name)
        if member.name in {FAILURES, REPAIRED, RECORDS}:
            twice = self._hidden.setdefault(member.name, member) is not member
        elif position is None or ending not in {"json", "txt", *_PICTURES}:
            what = f"member {number} does not belong to the shard"
            self._add("stray", member.name, what, TAKE_OUT, cut=Cut(lines=(number,)))
            return
        else:
            sample = self._samples.setdefault(key, _Sample(key, position))
            twice = sample.members.setdefault(ending, member) is not member
            if ending == "json" and not twice:
                sample.number = number
        if twice:
            what = f"is there twice: member {number} has its name"
            self._add("doubled", member.name, what, TAKE_OUT, cut=Cut(lines=(number,)))

    def _sound_record(self, tar: TarReader, sample: _Sample) -> dict[str, Any] | None:
        """The sample's record; None when something is wrong with the sample, which is then a problem."""
        key, members = sample.key, sample.members
        pictures = sorted(_PICTURES & members.keys())
        lacking = [f"{key}.{ending}" for ending in ("txt", "json") if ending not in members]
        if not pictures:
            lacking.append(f"{key}.png" if lacking else self._picture_name(tar, sample))
        if lacking:
            rest = ", ".join(member.name for member in members.values())
            self._add_sample("picture", sample, lacking[0], f"is missing: the tar has only {rest} of it")
            return None
        name = f"{key}.{pictures[0]}"
        if len(pictures) > 1:
            self._add_sample("doubled", sample, name, f"has {key}.{pictures[1]} next to it")
            return None
        record = json_object(tar.read(members["json"]))
        if record is None:
            self._add_sample("line", sample, f"{key}.json", "is not a JSON object")
            return None
        request = request_in(record)
        if record.get("file_name") != name:
            what = f"is of another sample: file_name = {record.get('file_name')!r}, not {name}"
            self._add_sample("line", sample, f"{key}.json", what)
        elif isinstance(request, str):
            self._add_sample("line", sample, f"{key}.json", request)
        elif tar.read(members["txt"]) != request.prompt.encode():
            self._add_sample("line", sample, f"{key}.txt", f"is not the text that {key}.json has")
        elif (
            wrong := picture_trouble(tar.read(members[pictures[0]]), request, record["sha256"])
        ) is not None:
            self._add_sample("picture", sample, name, wrong, image_id=request.image_id)
        else:
            self._found.images.append(SoundImage(request.image_id, sample.number, name, key_of(record)))
            return record
        return None

    def _examine_told(self, tar: TarReader) -> None:
        """Whether the member of records, where there is one, tells what the tar holds; of a damaged tar it
        cannot."""
        if (told := self._hidden.get(RECORDS)) is None or any(
            problem.kind == "tar" for problem in self._found.problems
        ):
            return
        try:
            samples = read_records(RECORDS, tar.read(told), told.end, tar.size)
        except OutputError as error:
            wrong: str | None = str(error).removeprefix(f"{RECORDS}: ").partition("; imagemill ")[0]
        else:
            places = [(*sample.picture, *sample.json) for sample in samples]
            wrong = None if places == [*_places_of(self._samples.values())] else "tells other places"
            # Members that lie where it says are compared as they are.
            if wrong is None and any(
                json_object(tar.read(Member("", *one.json))) != one.record for one in samples
            ):
                wrong = "tells other records"
        if wrong is not None:
            self._add("table", RECORDS, wrong, WRITE_AGAIN, cut=Cut())

    def _picture_name(self, tar: TarReader, sample: _Sample) -> str:
        """What the sample's JSON calls its picture."""
        record = json_object(tar.read(sample.members["json"])) or {}
        return str(record.get("file_name", f"{sample.key}.png"))

    def _sound_failures(self, tar: TarReader) -> Iterator[Failure]:
        rendered = {sample.position for sample in self._samples.values()}
        for number, text in enumerate(self._lines_of(tar, FAILURES), 1):
            failure = failure_in(text, self._shard, rendered)
            if isinstance(failure, str):
                cut = Cut(failure_lines=(number,))
                self._add("line", FAILURES, failure, RENDER_AGAIN, line=number, cut=cut)
            else:
                self._filled.add(failure.position)
                self._found.failed.append(failure.image_id)
                yield failure

    def _lines_of(self, tar: TarReader, name: str) -> list[bytes]:
        return lines_of(tar.read(self._hidden[name])) if name in self._hidden else []

    def _examine_parquet(self, records: Sequence[dict[str, Any]], failures: Sequence[Failure]) -> None:
        """Whether the parquet says what the tar says. With a damaged tar this cannot be known: a repair
        writes the parquet again in any case."""
        name, store = self._stored.parquet, self._stored.store
        try:
            data = store.read(name)
        except FileNotFoundError:
            wrong: str | None = f"is missing: {self._tar_name} is there without it"
        except OSError as error:
            self._found.problems.append(file_problem(f"{store.label}/{name}", name, error))
            return
        else:
            if self._found.problems:
                return
            try:
                check_parquet()
            except OutputError as error:
                self._found.notes.append(f"{name}: not examined: {error}")
                return
            wrong = _table_trouble(data, self._stored.key, records, failures)
        if wrong is not None:
            problem = Problem(kind="table", file=name, what=shown(wrong), remedy=WRITE_AGAIN, cut=Cut())
            self._found.problems.append(problem)

    def _add_sample(self, kind: ProblemKind, sample: _Sample, name: str, what: str, **more: Any) -> None:
        """Something is wrong with a sample: all of it goes."""
        names = tuple(member.name for member in sample.members.values())
        cut = Cut(names=names, positions=(sample.position,))
        self._add(kind, name, what, RENDER_AGAIN, cut=cut, **more)

    def _add(self, kind: ProblemKind, name: str, what: str, remedy: str, **more: Any) -> None:
        file = f"{self._tar_name}/{shown(name)}" if name else self._tar_name
        self._found.problems.append(Problem(kind=kind, file=file, what=what, remedy=remedy, **more))


def _places_of(samples: Iterable[_Sample]) -> Iterator[tuple[int, int, int, int]]:
    """Where the picture and the record of each whole sample lie."""
    for sample in samples:
        pictures = sorted(_PICTURES & sample.members.keys())
        if len(pictures) == 1 and "json" in sample.members:
            picture, told = sample.members[pictures[0]], sample.members["json"]
            yield picture.start, picture.size, told.start, told.size


def _table_trouble(
    data: bytes,
    key_of: Callable[[int], str],
    records: Sequence[dict[str, Any]],
    failures: Sequence[Failure],
) -> str | None:
    """How a parquet differs from these records and failures; None when it does not."""
    wanted = shard_table(key_of, records, failures)
    again = parquet_bytes(wanted)
    if data == again:
        return None
    try:
        table = read_table(data)
    except ValueError as error:
        return str(error)
    if table.equals(wanted):
        # Another version of pyarrow writes the same in other bytes.
        return None if by_another_pyarrow(data) else "bytes were changed"
    if table.schema != wanted.schema:
        names = sorted({*table.schema.names} ^ {*wanted.schema.names})
        return f"has other columns than its tar gives{f': {names}' if names else ''}"
    held, should = ({line["key"]: line for line in one.to_pylist()} for one in (table, wanted))
    wrong = []
    for key in sorted({*held, *should}, key=str):
        if key not in held:
            wrong.append(f"has no line of {key}")
        elif key not in should:
            wrong.append(f"has a line of {key}, which its tar has not")
        elif held[key] != should[key]:
            names = [name for name, value in should[key].items() if held[key][name] != value]
            wrong.append(f"says other things of {key} than its tar: {', '.join(names)}")
    more = f"; and of {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
    return "; ".join(wrong[:_NAMED]) + more if wrong else "has its lines in another order or twice"
