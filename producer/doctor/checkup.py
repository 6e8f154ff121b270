"""An output examined as a whole: its shards one by one, no image twice, nothing foreign, nothing missing.

Shards are examined by their layout (`examine_files.py`, `examine_webdataset.py`); everything here is the same
for all layouts. `lost_shards.py` and `missing_images.py` find what should be there and is not.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from jobs.errors import OutputError
from jobs.location import CHECK_BUCKET
from jobs.output.files import METADATA
from jobs.output.output import CARD, FAILURES, PREVIEW, REPORT, Output
from jobs.output.split_table import TABLES
from jobs.output.store import UPLOADS, Found
from jobs.output.webdataset import TarShard
from jobs.wording import counted, shown
from producer.doctor.examine_files import examine_shard
from producer.doctor.examine_webdataset import examine_tar
from producer.doctor.findings import Cut, Problem, ShardFindings
from producer.doctor.lost_shards import lost_shards
from producer.doctor.mend_table import table_problem
from producer.doctor.missing_images import There, missing_images
from producer.doctor.quarantine import QUARANTINE
from producer.doctor.soundness import RENDER_AGAIN, TAKE_OUT
from producer.reporter import QUIET, Reporter

_THREADS = min(8, os.cpu_count() or 1)
_OWN_FILES = frozenset({REPORT, FAILURES, PREVIEW, CARD, *TABLES})
_PICTURES = (".png", ".jpg", ".jpeg", ".webp")


@dataclass(slots=True)
class Checkup:
    """What an output holds and what is wrong with it."""

    shards: list[ShardFindings]
    problems: list[Problem] = field(default_factory=list)
    """All problems, those of the shards included, in the order of the output."""
    notes: list[str] = field(default_factory=list)
    """Harmless, but worth saying."""
    missing: dict[str, int] = field(default_factory=dict)
    """The newest job of each manifest's name -> images it asked for that are neither there nor failed."""
    failed: int = 0
    """Images that failed and that the output does not hold."""

    @property
    def images(self) -> int:
        """The sound ones."""
        return sum(len(shard.images) for shard in self.shards)


def check_output(
    output: Output,
    *,
    known: Collection[ShardFindings] = (),
    reporter: Reporter = QUIET,
) -> Checkup:
    """Read an output to its last byte and return everything that is wrong in it.

    `known` are shards that need no second look. `reporter` counts the shards. Raises
    OutputError where there is no output of imagemill; what is wrong in one is returned, not raised.
    """
    committed, elsewhere = _entries(output)
    findings = {shard.shard: shard for shard in known}
    open_shards = [shard for shard in committed if shard not in findings]
    # Hashing large files releases the interpreter's lock, and so do reads.
    with ThreadPoolExecutor(_THREADS) as pool:
        examined = pool.map(lambda shard: _examine(output, shard), open_shards)
        for done, found in enumerate(examined, 1):
            findings[found.shard] = found
            reporter.count(done, len(open_shards))
    checkup = Checkup([findings[shard] for shard in committed])
    held: dict[int, str] = {}
    for found in checkup.shards:
        checkup.problems += sorted(found.problems, key=lambda problem: (problem.file, problem.line or 0))
        checkup.problems += _doubled(found, held)
        checkup.notes += found.notes
    pictures = {image.image_id for found in checkup.shards for image in found.images}
    failed = {image_id for found in checkup.shards for image_id in found.failed} - pictures
    checkup.failed = len(failed)
    checkup.problems += elsewhere
    lost = lost_shards(output)
    missing = missing_images(output, There(pictures, failed, held))
    table = table_problem(output)
    checkup.problems += [*lost.problems, *missing.problems, *([] if table is None else [table])]
    checkup.notes += [*lost.notes, *missing.notes, *_leftovers(output, explains=lost.explained)]
    checkup.missing = missing.images
    return checkup


def _examine(output: Output, shard: int) -> ShardFindings:
    if isinstance(output.stored(shard), TarShard):
        return examine_tar(output, shard)
    return examine_shard(output, shard)


def _entries(output: Output) -> tuple[list[int], list[Problem]]:
    """The committed shards, ascending, and what else is there and should not be."""
    names = output.names
    try:
        entries = [*_listed(output)]
        if not entries and not output.in_bucket and not output.path.is_dir():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    except OSError as error:
        raise OutputError(
            f"{output.label}: cannot be read ({error.strerror}): "
            + (CHECK_BUCKET if output.in_bucket else "name an output folder")
        ) from None
    committed: list[int] = []
    files = {entry.name for entry in entries if entry.is_file}
    problems: list[Problem] = []
    for name, is_folder, is_file, _ in entries:
        number, ending = names.part(name) or (None, "")
        stem = "" if number is None else names.name(number)
        if number is not None and is_folder and output.in_bucket:
            what = "is a folder, as of layout: files, and in a bucket a shard is a tar"
            remedy = "move it out, to a folder of a machine, and run `imagemill doctor` there"
            problems.append(Problem(kind="folder", file=name, what=what, remedy=remedy))
        elif number is not None and not ending:
            if not output.in_bucket and output.stored(number, "files").committed():
                committed.append(number)
                continue
            what = f"is no shard that imagemill committed: it has neither {METADATA} nor failures"
            problems.append(
                Problem(kind="folder", file=name, what=what, remedy=RENDER_AGAIN, cut=Cut(whole=True))
            )
        elif number is not None and ending == "tar":
            if committed and committed[-1] == number:
                what = f"is next to the folder {stem}, and one of them is shard {number}"
                problems.append(Problem(kind="folder", file=name, what=what, remedy="move one of them out"))
            elif is_file:
                committed.append(number)
            else:
                what = "is no file, and so no shard that imagemill committed"
                problems.append(
                    Problem(kind="folder", file=name, what=what, remedy=RENDER_AGAIN, cut=Cut(whole=True))
                )
        elif number is not None and ending == "parquet":
            if f"{stem}.tar" not in files:
                what = f"is there without {stem}.tar, whose pictures it lists"
                problems.append(
                    Problem(kind="table", file=name, what=what, remedy=RENDER_AGAIN, cut=Cut(whole=True))
                )
        elif _read_as_data(output, name, is_folder):
            what = "is not imagemill's, and dataset readers take its pictures for part of the dataset"
            remedy = "move it out of the output"
            problems.append(Problem(kind="folder", file=shown(name), what=what, remedy=remedy))
    if not committed and not {entry.name for entry in entries} & {".imagemill", REPORT}:
        raise OutputError(
            f"{output.label}: is no output of imagemill: it has no shard, no job.json and no .imagemill; "
            "name what the manifest calls `output`"
        )
    return sorted(committed), problems


def _listed(output: Output) -> Iterator[Found]:
    """The entries of the output in their order; of a folder of a thousand shards, its own."""
    for entry in sorted(output.store.list()):
        if not (entry.is_folder and output.names.is_folder(entry.name)):
            yield entry
            continue
        for inner in sorted(output.store.list(entry.name)):
            yield inner._replace(name=f"{entry.name}/{inner.name}")


def _read_as_data(output: Output, name: str, is_folder: bool) -> bool:
    """Whether dataset readers would read the foreign entry: a picture, or a folder that holds some."""
    if name in _OWN_FILES or name.rpartition("/")[2].startswith("."):
        return False
    try:
        names = [file.name for file in output.store.list(name)] if is_folder else [name]
    except OSError:
        return False
    return any(one == METADATA or one.lower().endswith(_PICTURES) for one in names)


def _doubled(found: ShardFindings, held: dict[int, str]) -> Iterator[Problem]:
    """The shard's lines that the output has already, by their keys; the others are added to `held`.

    Lines of one picture may be several, with other ids or columns.
    """
    for image in found.images:
        file = f"{found.place}/{image.file_name}"
        first = held.setdefault(image.key, file)
        if first != file:
            position = int(Path(image.file_name).stem[-4:])
            yield Problem(
                kind="doubled",
                file=file,
                image_id=image.image_id,
                what=f"is image {image.image_id}, which {first} is already",
                remedy=TAKE_OUT,
                cut=Cut(names=(image.file_name,), lines=(image.line,), positions=(position,)),
            )


def _leftovers(output: Output, *, explains: bool) -> Iterator[str]:
    """What is in the private folder and waits for a person. `explains`: the quarantine holds shards that
    job.json counts."""
    waiting = [file.parents[2].name for file in output.spool.glob("*/*/metadata/*.json")]
    if waiting:
        unfinished = f"{counted(len(waiting), 'image')} of {counted(len(set(waiting)), 'unfinished shard')}"
        yield f".imagemill/spool: holds {unfinished}, for the next submission to go on from"
    repairs = sum(1 for _ in output.store.list(QUARANTINE))
    if repairs:
        when = "when the next job has finished here" if explains else "at will"
        yield f"{QUARANTINE}: holds what {counted(repairs, 'repair')} set aside; remove it {when}"
    uploads = sum(1 for _ in output.store.files_below(UPLOADS)) if output.in_bucket else 0
    if uploads:
        yield f"{UPLOADS}: holds {counted(uploads, 'upload')} of workers; a job that begins removes them"
    names = (one.name for one in _listed(output))
    left = (name for name in names if name.rpartition("/")[2].startswith(".") and name.endswith(".tmp"))
    for name in sorted(left):
        yield f"{shown(name)}: left by a write that was cut short; remove it at will"
