"""What a submission writes to the output before any worker does, and what can go wrong there."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import groupby, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO, Final

from jobs.errors import LatentsError, ManifestError, OutputError
from jobs.inputs.inputs import kept_name, kept_path
from jobs.output.durable import fsync_folder, written_atomically
from jobs.output.output import INPUTS, Output
from jobs.plain_file import open_plain, read_plain
from producer.manifest.latents import gather_latents
from producer.reporter import QUIET, Reporter
from producer.requests.input_files import InputFile
from producer.requests.prepared import Prepared

_PIECE: Final = 1 << 20
_SAID: Final = 100 << 20
_SAID_FILES: Final = 10_000
"""Bytes and number of inputs from which on their copying is reported."""
_WRITERS: Final = 8
_AT_A_TIME: Final = 1_000


def keep_inputs(prepared: Prepared, reporter: Reporter = QUIET) -> None:
    """Makes the output, and keeps what lines name there: initial latents, pictures, adapters.

    What is there already is not copied again. Raises LatentsError, ManifestError for a file that changed
    since it was hashed, OutputError, OSError.
    """
    output = prepared.output
    output.prepare()
    if output.in_bucket:
        with TemporaryDirectory(prefix="imagemill-") as folder:
            _gather_latents(prepared, Path(folder))
            for file in Path(folder).iterdir():
                if not output.store.exists(f"{INPUTS}/{file.name}"):
                    output.store.replace(f"{INPUTS}/{file.name}", read_plain(file))
    else:
        _gather_latents(prepared, output.inputs)
    if prepared.manifest.inputs == "copy":
        (_upload_inputs if output.in_bucket else _copy_inputs)(prepared, reporter)


def _gather_latents(prepared: Prepared, folder: Path) -> None:
    for name, sha in gather_latents(prepared.manifest, prepared.model, folder).items():
        if sha != prepared.latents[name]:
            raise LatentsError(f"{name}: changed after it was checked: submit again")


def _upload_inputs(prepared: Prepared, reporter: Reporter) -> None:
    """Puts each file that the bucket lacks there, by its hash."""
    output, kept = prepared.output, 0
    count, said = _announced(prepared, f"{output.label}/{INPUTS}", reporter)

    def upload(file: InputFile) -> None:
        with output.store.written(f"{INPUTS}/{kept_name(file.sha256)}") as copy:
            _copy_into(file, copy)

    # The requests of several files are under way at a time.
    with ThreadPoolExecutor(_WRITERS, "input") as writers:
        for start, files in groupby(prepared.inputs.wanted(), lambda file: file.sha256[:2]):
            # One of another size was damaged: it is replaced.
            there = {(one.name, one.size) for one in output.store.list(f"{INPUTS}/{start}")}
            while some := list(islice(files, _AT_A_TIME)):
                lacking = [file for file in some if (file.sha256, file.size) not in there]
                for _ in writers.map(upload, lacking):
                    pass
                kept += len(some)
                if said:
                    reporter.line(f"kept {kept:,} of {count:,}")


def _announced(prepared: Prepared, where: str, reporter: Reporter) -> tuple[int, bool]:
    """How many inputs there are, and whether their copying is reported."""
    count, size = prepared.inputs.total()
    said = count >= _SAID_FILES or size >= _SAID
    if said:
        reporter.line(f"keeping {count:,} pictures and adapters, {size / 1e6:,.0f} MB, in {where}")
    return count, said


def _copy_inputs(prepared: Prepared, reporter: Reporter) -> None:
    folder = prepared.output.inputs
    count, said = _announced(prepared, str(folder), reporter)
    kept, told = 0, 0
    # Copies are made durable by several threads: a file system joins what they wait for.
    with ThreadPoolExecutor(_WRITERS, "input") as writers:
        for parent, files in groupby(
            prepared.inputs.wanted(), lambda file: kept_path(folder, file.sha256).parent
        ):
            parent.mkdir(parents=True, exist_ok=True)
            # One of another size was cut or damaged: it is replaced.
            there = {(one.name, one.stat().st_size) for one in parent.iterdir()}
            while some := list(islice(files, _AT_A_TIME)):
                lacking = [file for file in some if (file.sha256, file.size) not in there]
                for _ in writers.map(_copy, lacking, [parent / file.sha256 for file in lacking]):
                    pass
                kept += len(some)
            fsync_folder(parent)
            if said and kept - told >= _SAID_FILES:
                told = kept
                reporter.line(f"kept {kept:,} of {count:,}")
    if kept:
        fsync_folder(folder)


def _copy(file: InputFile, target: Path) -> None:
    """Writes one file durably; its folder is to be made durable after it."""
    with written_atomically(target, durable_name=False) as copy:
        _copy_into(file, copy)


def _copy_into(file: InputFile, copy: BinaryIO) -> None:
    digest = hashlib.sha256()
    try:
        source = open_plain(Path(file.path))
    except OSError as error:
        raise ManifestError(f"{file.path}: cannot be read any more: {error.strerror}: submit again") from None
    with source:
        while piece := source.read(_PIECE):
            digest.update(piece)
            copy.write(piece)
        if digest.hexdigest() != file.sha256:
            raise ManifestError(f"{file.path}: changed after it was checked: submit again")


def said_wait(output: Output, reporter: Reporter) -> Callable[[float], None]:
    """What waits for the copies that a bucket may still make of an earlier job's uploads, and says so."""

    def wait(seconds: float) -> None:
        reporter.line(
            f"{output.label}: holds uploads of an earlier job; waiting {math.ceil(seconds):,} s until no "
            "copy of them can be under way"
        )
        time.sleep(seconds)

    return wait


@contextmanager
def write_errors(output: Output) -> Iterator[None]:
    """Turns an OSError of the block, which writes to the output, into an OutputError."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"output {output.label}: cannot be written ({error.strerror}: {error.filename}): "
            "make it writable or free some space, and run the same command to continue"
        ) from None
