"""What a submission writes to the output before any worker does, and what can go wrong there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from jobs.errors import LatentsError, OutputError
from jobs.output.output import Output
from producer.manifest.latents import gather_latents
from producer.requests.prepared import Prepared


def keep_inputs(prepared: Prepared) -> None:
    """Makes the output, and keeps the manifest's initial latents there. Raises LatentsError, OutputError."""
    prepared.output.prepare()
    kept = gather_latents(prepared.manifest, prepared.model, prepared.output.inputs)
    for name, sha in kept.items():
        if sha != prepared.latents[name]:
            raise LatentsError(f"{name}: changed after it was checked: submit again")


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
