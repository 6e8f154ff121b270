"""An output examined as a whole: its shards one by one, no image twice, nothing foreign, nothing missing.

What a shard holds is its layout's to tell (`shard_folder.py`, `shard_tar.py`); everything here is the same
for all layouts.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from jobs.errors import ImagemillError, ManifestError, OutputError
from jobs.expand import Identified, identify, narrowed
from jobs.findings import Cut, Problem, ShardFindings, counted, shown
from jobs.layouts.files import METADATA, FolderShard
from jobs.layouts.stored_shard import shard_name, shard_number
from jobs.layouts.webdataset import TarShard
from jobs.manifest import Manifest
from jobs.manifest_latents import gather_latents
from jobs.models import ModelRef
from jobs.output import Output
from jobs.prompt_files.find import source_trouble
from jobs.quarantine import QUARANTINE
from jobs.shard_folder import examine_shard
from jobs.shard_tar import examine_tar
from jobs.soundness import RENDER_AGAIN, TAKE_OUT, file_problem, read_plain

_THREADS = min(8, os.cpu_count() or 1)
_OWN_FILES = frozenset({"job.json", "failures.jsonl", "preview.jpg", "README.md"})
_PICTURES = (".png", ".jpg", ".jpeg", ".webp")
_NAMED = 3
"""Missing images that are named in a manifest's line."""


@dataclass(slots=True)
class Checkup:
    """What an output holds and what is wrong with it."""

    shards: list[ShardFindings]
    problems: list[Problem] = field(default_factory=list)
    """All, the shards' own among them, in the order of the output."""
    notes: list[str] = field(default_factory=list)
    """Harmless, but told."""
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
    on_shard: Callable[[int, int], None] = lambda done, total: None,
) -> Checkup:
    """Read an output to its last byte and tell everything that is wrong in it.

    `known` are shards that need no second look. `on_shard(done, total)` is called from this thread. Raises
    OutputError where there is no output of imagemill; what is wrong in one is told, not raised.
    """
    committed, elsewhere = _entries(output)
    findings = {shard.shard: shard for shard in known}
    open_shards = [shard for shard in committed if shard not in findings]
    # Hashes and checksums of large files let go of the interpreter, and so do reads.
    with ThreadPoolExecutor(_THREADS) as pool:
        examined = pool.map(lambda shard: _examine(output, shard), open_shards)
        for done, found in enumerate(examined, 1):
            findings[found.shard] = found
            on_shard(done, len(open_shards))
    checkup = Checkup([findings[shard] for shard in committed])
    held: dict[str, str] = {}
    for found in checkup.shards:
        checkup.problems += sorted(found.problems, key=lambda problem: (problem.file, problem.line or 0))
        checkup.problems += _doubled(found, held)
        checkup.notes += found.notes
    failed = {image_id for found in checkup.shards for image_id in found.failed} - held.keys()
    checkup.failed = len(failed)
    checkup.problems += elsewhere
    _read_report(output, checkup)
    _compare_with_manifests(output, checkup, held.keys(), failed)
    checkup.notes += _leftovers(output)
    return checkup


def _examine(output: Output, shard: int) -> ShardFindings:
    if isinstance(output.stored(shard), TarShard):
        return examine_tar(output, shard)
    return examine_shard(output, shard)


def _entries(output: Output) -> tuple[list[int], list[Problem]]:
    """The committed shards, ascending, and what lies beside them and should not."""
    try:
        names = sorted(file.name for file in output.path.iterdir())
    except OSError as error:
        raise OutputError(
            f"{output.path}: cannot be read ({error.strerror}): name an output folder"
        ) from None
    committed: list[int] = []
    problems: list[Problem] = []
    for name in names:
        stem, _, ending = name.partition(".")
        number = shard_number(stem)
        if number is not None and name == stem:
            if FolderShard(output.path, number).committed():
                committed.append(number)
                continue
            what = f"is no shard that imagemill committed: it has neither {METADATA} nor failures"
            problems.append(
                Problem(kind="folder", file=name, what=what, remedy=RENDER_AGAIN, cut=Cut(whole=True))
            )
        elif number is not None and ending == "tar":
            if number in committed:
                what = f"stands beside the folder {stem}, and one of them is shard {number}"
                problems.append(Problem(kind="folder", file=name, what=what, remedy="move one of them out"))
            elif TarShard(output.path, number).committed():
                committed.append(number)
            else:
                what = "is no file, and so no shard that imagemill committed"
                problems.append(
                    Problem(kind="folder", file=name, what=what, remedy=RENDER_AGAIN, cut=Cut(whole=True))
                )
        elif number is not None and ending == "parquet":
            if not TarShard(output.path, number).committed():
                what = f"is there without {stem}.tar, whose pictures it lists"
                problems.append(
                    Problem(kind="table", file=name, what=what, remedy=RENDER_AGAIN, cut=Cut(whole=True))
                )
        elif _read_as_data(output.path / name):
            what = "is not imagemill's, and dataset readers take its pictures for part of the dataset"
            remedy = "move it out of the output"
            problems.append(Problem(kind="folder", file=shown(name), what=what, remedy=remedy))
    if not committed and not output.private.is_dir() and not (output.path / "job.json").exists():
        raise OutputError(
            f"{output.path}: is no output of imagemill: it has no shard, no job.json and no .imagemill; name "
            "the folder that the manifest calls `output`"
        )
    return sorted(committed), problems


def _read_as_data(path: Path) -> bool:
    """Whether dataset readers would read the foreign entry: a picture, or a folder that holds some."""
    if path.name in _OWN_FILES or path.name.startswith("."):
        return False
    try:
        names = [file.name for file in path.iterdir()] if path.is_dir() else [path.name]
    except OSError:
        return False
    return any(name == METADATA or name.lower().endswith(_PICTURES) for name in names)


def _doubled(found: ShardFindings, held: dict[str, str]) -> Iterator[Problem]:
    """The shard's images that the output holds already; `held` learns the others."""
    for image in found.images:
        file = f"{found.place}/{image.file_name}"
        first = held.setdefault(image.image_id, file)
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


def _read_report(output: Output, checkup: Checkup) -> None:
    """job.json: whether it is one, and whether shards went since."""
    file = output.path / "job.json"
    try:
        report = json.loads(read_plain(file))
        expected = int(report["output"]["shards"])
    except FileNotFoundError:
        checkup.notes.append("job.json: not there: no job has finished here")
    except OSError as error:
        checkup.problems.append(file_problem(file, file.name, error))
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        what = f"is not a job's report ({shown(str(error))})"
        remedy = "remove it: the next job that finishes writes it"
        checkup.problems.append(Problem(kind="report", file=file.name, what=what, remedy=remedy))
    else:
        numbers = {shard.shard for shard in checkup.shards}
        if expected > len(numbers):
            absent = [shard_name(n) for n in range(max(numbers, default=-1)) if n not in numbers]
            names = f" (no {', '.join(absent[:10])})" if absent else ""
            checkup.notes.append(
                f"job.json: counts {counted(expected, 'shard')}, {len(numbers)} are there{names}"
            )


def _compare_with_manifests(
    output: Output, checkup: Checkup, held: Collection[str], failed: Collection[str]
) -> None:
    """What the newest submission of each manifest asked for and is not there."""
    kept = _kept_manifests(output)
    if not kept:
        checkup.notes.append("no manifest is kept in .imagemill/jobs: what is missing cannot be told")
    for job_id, file in kept.items():
        name = str(file.relative_to(output.path))
        try:
            submitted = _read_submitted(file)
        except OSError as error:
            checkup.problems.append(file_problem(file, name, error))
            continue
        except (ManifestError, ValueError, TypeError, KeyError, RecursionError) as error:
            what = f"is not a manifest as it was submitted ({shown(str(error).splitlines()[0])})"
            remedy = "submit the manifest again: its newest submission is compared"
            checkup.problems.append(Problem(kind="report", file=name, what=what, remedy=remedy))
            continue
        asked = lost = tried = 0
        named: list[str] = []
        try:
            for image_id, entry in submitted.entries():
                asked += 1
                if image_id in failed:
                    tried += 1
                elif image_id not in held:
                    lost += 1
                    if lost <= _NAMED:
                        named.append(f"{image_id} {_shortened(entry.request.prompt)!r}")
        except (ImagemillError, OSError) as error:  # OSError: a prompt file's name is too long
            checkup.notes.append(f"{name}: cannot be compared with the output: {error}")
            continue
        if tried:
            checkup.notes.append(f"{job_id}: {tried} of {counted(asked, 'image')} failed: see failures.jsonl")
        if lost:
            checkup.missing[job_id] = lost
            more = ", …" if lost > _NAMED else ""
            what = f"{lost:,} of {counted(asked, 'image')} are not there: {', '.join(named)}{more}"
            remedy = f"if its job has ended, submit it again, or `imagemill retry {job_id}`"
            checkup.problems.append(Problem(kind="missing", file=name, what=what, remedy=remedy))


@dataclass(frozen=True, slots=True)
class _Submitted:
    """A manifest as it was submitted."""

    manifest: Manifest
    option: str
    """"--limit" or "--sample" where it was narrowed."""
    count: int

    def entries(self) -> Iterable[Identified]:
        """What it asks for, by its prompt files and latents as they are now. Raises ImagemillError when one
        of them is gone or wrong."""
        manifest = self.manifest
        for source in manifest.prompts_from:
            if (trouble := source_trouble(source)) is not None:
                raise ManifestError(f"prompts_from = {source.file}: {trouble}")
        # The revision was settled when it was submitted; image_id hangs on nothing else of the model.
        model = ModelRef(manifest.model, manifest.model, manifest.revision or "", None, None)
        entries = identify(manifest, model, latents=gather_latents(manifest, model))
        limited, sampled = (self.count if self.option == name else None for name in ("--limit", "--sample"))
        return narrowed(entries, limited, sampled, manifest.name)


def _read_submitted(file: Path) -> _Submitted:
    """The manifest in `file`. Raises OSError, and ManifestError, ValueError, TypeError, KeyError or
    RecursionError for anything else."""
    kept = json.loads(read_plain(file))
    told = dict(kept["manifest"] if file.name == "job.json" else kept)
    told.pop("files", None)  # which are compared as they are now
    narrowed_by = re.fullmatch("(?:(--limit|--sample) ([0-9]{1,18}))?", told.pop("narrowed", ""))
    if narrowed_by is None:
        raise ValueError("it was narrowed by something else than --limit or --sample")
    return _Submitted(Manifest.from_json(told), narrowed_by[1] or "", int(narrowed_by[2] or 0))


def _kept_manifests(output: Output) -> dict[str, Path]:
    """The newest job of each manifest's name -> its manifest's file; job.json where none is kept."""
    newest: dict[str, int] = {}
    for file in output.jobs.glob("*.json"):
        name, dash, number = file.stem.rpartition("-")
        if dash and number.isdecimal():
            newest[name] = max(newest.get(name, 0), int(number))
    found = {f"{name}-{number}": output.jobs / f"{name}-{number}.json" for name, number in newest.items()}
    report = output.path / "job.json"
    return dict(sorted(found.items())) if found or not report.exists() else {"job.json": report}


def _shortened(prompt: str) -> str:
    return prompt if len(prompt) <= 40 else f"{prompt[:39]}…"


def _leftovers(output: Output) -> Iterator[str]:
    """What lies in the private folder and waits for somebody."""
    waiting = [file.parents[2].name for file in output.spool.glob("*/*/metadata/*.json")]
    if waiting:
        unfinished = f"{counted(len(waiting), 'image')} of {counted(len(set(waiting)), 'unfinished shard')}"
        yield f".imagemill/spool: holds {unfinished}, for the next submission to go on from"
    repairs = len(list((output.private / QUARANTINE).glob("*")))
    if repairs:
        yield f".imagemill/{QUARANTINE}: holds what {counted(repairs, 'repair')} set aside; remove it at will"
    for file in sorted(output.path.glob(".*.tmp")):
        yield f"{shown(file.name)}: left by a write that was cut short; remove it at will"
