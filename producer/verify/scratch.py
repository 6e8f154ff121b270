"""Where a verification's jobs write: a folder, or a place in a bucket, of which nothing is left."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from jobs.errors import OutputError
from jobs.inputs.inputs import KeptInputs, kept_name
from jobs.inputs.latents import write_input
from jobs.location import names_bucket
from jobs.output.output import INPUTS, Output
from jobs.output.output_root import check_output_within
from jobs.plain_file import open_plain, read_plain
from jobs.settings import Settings
from jobs.settled_slots import write_slots
from producer.reporter import StandardError
from producer.verify.files import InBucket
from producer.verify.parts import Part

NAME: Final = "verify"
"""What a verification's jobs are called, verify-1, and with a dot the place that they write to."""


@dataclass(frozen=True, slots=True)
class Scratch:
    """A new place for the outputs of jobs."""

    place: str
    """An absolute path, or a place in a bucket."""

    def output(self, number: int, part: Part) -> Output:
        """A new output there, with what workers look for: slots, and inputs. Raises OutputError."""
        output = Output.at(f"{self.place}/{number}")
        output.prepare()
        try:
            write_slots(output, part.slots)
            for sha256, latents in part.latents.items():
                if isinstance(latents, InBucket):
                    latents.copy_to(output)
                else:
                    _keep_latents(output, latents, sha256)
            for sha256, file in part.files.items():
                if isinstance(file, InBucket):
                    file.copy_to(output)
                elif output.in_bucket:
                    with open_plain(file) as source, output.store.written(_kept(sha256)) as copy:
                        shutil.copyfileobj(source, copy)
        except OSError as error:
            raise _unwritable(self.place, error) from None
        return output

    def named(self, part: Part) -> dict[str, str]:
        """Of the files of a part, those that workers read where they lie: SHA-256 -> path."""
        if names_bucket(self.place):
            return {}
        return {sha256: str(file) for sha256, file in part.files.items() if isinstance(file, Path)}

    def clear(self) -> None:
        """Removes what is there, but for the place itself. Raises nothing."""
        if not names_bucket(self.place):
            for entry in Path(self.place).iterdir():
                shutil.rmtree(entry, ignore_errors=True)
            return
        store = Output.at(self.place).store
        with suppress(OSError):
            for name in [*store.files_below("")]:
                # What a bucket's outputs have on this machine: their spool.
                shutil.rmtree(Output.at(f"{self.place}/{name.partition('/')[0]}").path, ignore_errors=True)
                store.remove(name)

    def left(self) -> bool:
        """Whether anything is there."""
        if not names_bucket(self.place):
            return os.path.lexists(self.place)
        try:
            return any(True for _ in Output.at(self.place).store.files_below(""))
        except OSError:
            return True


@contextmanager
def scratch(output: Output, settings: Settings, into: Path | str | None, own: bool) -> Iterator[Scratch]:
    """A place for what is rendered of `output` again: in `into`, by default where temporary files are if the
    worker is the command's own, else beside the output. Raises OutputError."""
    if into is not None:
        home = str(into)
    elif own and settings.output_root is None:
        home = str(Path(tempfile.gettempdir()).resolve())
    else:
        home = output.label.rpartition("/")[0] if output.in_bucket else str(output.path.parent)
        if home.endswith(":/"):  # OUT is a whole bucket
            raise OutputError(
                f"{output.label}: has nothing beside it, where its pictures could be rendered again: name a "
                "place with --into"
            )
    place = f"{home.removesuffix('/')}/.{NAME}-{secrets.token_hex(4)}"
    there = Output.at(place)
    if settings.output_root is not None:
        try:
            check_output_within(there, settings.output_root)
        except OutputError as error:
            raise OutputError(f"{error}; --into FOLDER names where pictures are rendered meanwhile") from None
    if not there.in_bucket:
        try:
            there.path.mkdir()
        except OSError as error:
            raise _unwritable(home, error) from None
    made = Scratch(place)
    try:
        yield made
    finally:
        _remove(made)


def _remove(made: Scratch) -> None:
    """Removes it, also from under a worker that still makes files there."""
    for _ in range(10):
        if names_bucket(made.place):
            made.clear()
        else:
            shutil.rmtree(made.place, ignore_errors=True)
        if not made.left():
            return
        time.sleep(0.1)
    StandardError().line(f"note: {made.place} could not be removed: remove it")


def _keep_latents(output: Output, path: Path, sha256: str) -> None:
    latents = KeptInputs(path.parent).latents(sha256)
    if not output.in_bucket:
        write_input(output.inputs, latents)
        return
    with tempfile.TemporaryDirectory(prefix="imagemill-") as folder:
        name = f"{write_input(Path(folder), latents)}.npy"
        output.store.replace(f"{INPUTS}/{name}", read_plain(Path(folder) / name))


def _kept(sha256: str) -> str:
    return f"{INPUTS}/{kept_name(sha256)}"


def _unwritable(place: str, error: OSError) -> OutputError:
    return OutputError(
        f"{place}: pictures cannot be rendered there ({error.strerror}): name a folder that workers may "
        "write in with --into"
    )
