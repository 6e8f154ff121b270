"""What a submission writes to the output before any worker does, and what can go wrong there."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from jobs.errors import LatentsError, ManifestError, OutputError
from jobs.inputs import kept_path
from jobs.output.durable import written_atomically
from jobs.output.output import Output
from producer.manifest.latents import gather_latents
from producer.reporter import QUIET, Reporter
from producer.requests.input_files import InputFile
from producer.requests.prepared import Prepared

_PIECE: Final = 1 << 20
_SAID: Final = 100 << 20
"""Bytes of inputs from which on their copying is reported."""


def keep_inputs(prepared: Prepared, reporter: Reporter = QUIET) -> None:
    """Makes the output, and keeps what lines name there: initial latents, pictures, adapters.

    What is there already is not copied again. Raises LatentsError, ManifestError for a file that changed
    since it was hashed, OutputError, OSError.
    """
    prepared.output.prepare()
    kept = gather_latents(prepared.manifest, prepared.model, prepared.output.inputs)
    for name, sha in kept.items():
        if sha != prepared.latents[name]:
            raise LatentsError(f"{name}: changed after it was checked: submit again")
    if prepared.manifest.inputs == "copy":
        _copy_inputs(prepared, reporter)


def _copy_inputs(prepared: Prepared, reporter: Reporter) -> None:
    folder = prepared.output.inputs
    count, size = prepared.inputs.total()
    if size >= _SAID:
        reporter.line(f"copying {count:,} pictures and adapters, {size / 1e6:,.0f} MB, to {folder}")
    for file in prepared.inputs:
        target = kept_path(folder, file.sha256)
        if not target.exists():
            _copy(file, target)


def _copy(file: InputFile, target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    digest = hashlib.sha256()
    try:
        source = Path(file.path).open("rb")  # noqa: SIM115 - what fails to open is the author's file
    except OSError as error:
        raise ManifestError(f"{file.path}: cannot be read any more: {error.strerror}: submit again") from None
    with source, written_atomically(target) as copy:
        while piece := source.read(_PIECE):
            digest.update(piece)
            copy.write(piece)
        if digest.hexdigest() != file.sha256:
            raise ManifestError(f"{file.path}: changed after it was checked: submit again")


@contextmanager
def write_errors(output: Output) -> Iterator[None]:
    """Turns an OSError of the block, which writes to the output, into an OutputError."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"output {output.path}: cannot be written ({error.strerror}: {error.filename}): "
            "make it writable or free some space, and run the same command to continue"
        ) from None
