"""`imagemill verify`: images of an output rendered again through the queue, and compared.

Nothing is written into the output: its requests are made from its records, and rendered as jobs of their own
in a folder that is removed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Final

from jobs.output.output import Output
from jobs.settings import Settings
from producer.stops import interruptible
from producer.verify.asked import OtherId, request_asked
from producer.verify.comparison import StoredPicture, compare
from producer.verify.files import Files
from producer.verify.not_comparable import NotComparable
from producer.verify.parts import Part, Parts
from producer.verify.report import NotCompared, Verification
from producer.verify.rerenderer import Rerendered, Rerenderer, rerendering
from producer.verify.sample import Drawn, draw
from producer.verify.sources import Sources

ROUND: Final = 1000
"""Images that are rendered, compared and removed at a time: `--sample all` takes no more room than these."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What is verified, and with what."""

    count: int | None
    """Images to draw; None: all."""
    seed: int
    tolerance: int = 0
    """The largest difference, 0 to 255, that counts as equal where bytes are not promised."""
    models: Sequence[Path] = ()
    """Folders and files of models that are not where they were."""
    inputs: Sequence[Path] = ()
    """Folders that hold files which requests name."""
    into: Path | str | None = None
    """Where pictures are rendered meanwhile: a folder, or a place in a bucket."""
    gpus: str = "auto"
    """As of `imagemill-worker --gpus`, for a worker of its own."""


def verify(output: Output, settings: Settings, options: Options, *, quiet: bool = False) -> Verification:
    """Renders images again and compares them; shows progress unless `quiet`.

    Raises ImagemillError where nothing can be drawn or rendered, Interrupted after Ctrl-C.
    """
    found = Verification(output.label, options.seed, options.count is None, options.tolerance)
    sources = Sources(output, options.models)
    files = Files(output, sources, options.inputs)
    rerenderer: Rerenderer | None = None
    with (
        interruptible(f"{output.label}: stopped before the end; it is as it was, and nothing else is left"),
        ExitStack() as stack,
    ):
        for drawn in _rounds(draw(output, options.count, options.seed, found.counts)):
            parts, not_asked = _asked(drawn, sources, files)
            if parts and rerenderer is None:
                rerenderer = stack.enter_context(
                    rerendering(output, settings, options.into, options.gpus, quiet=quiet)
                )
            again: Mapping[str, Rerendered | NotComparable] = (
                {} if rerenderer is None else rerenderer.render(parts)
            )
            _compare(output, drawn, {**not_asked, **again}, found)
            if rerenderer is not None:
                rerenderer.clear()
    return found


def _rounds(drawn: Iterator[Drawn]) -> Iterator[list[Drawn]]:
    while part := list(islice(drawn, ROUND)):
        yield part


def _asked(
    drawn: Iterable[Drawn], sources: Sources, files: Files
) -> tuple[list[Part], dict[str, Rerendered | NotComparable]]:
    """The jobs that render images again; by image_id, why others cannot be."""
    parts, not_asked = Parts(sources, files), dict[str, Rerendered | NotComparable]()
    for one in drawn:
        try:
            parts.add(request_asked(one.record), one.record)
        except NotComparable as error:
            not_asked[one.image_id] = error
    return parts.parts, not_asked


def _compare(
    output: Output,
    drawn: Iterable[Drawn],
    again: Mapping[str, Rerendered | NotComparable],
    found: Verification,
) -> None:
    for shard, images in groupby(drawn, lambda one: one.shard):
        wanted = {str(one.record["file_name"]): one for one in images}
        for name, data in output.pictures(shard, list(wanted)):
            one = wanted.pop(name)
            try:
                result = again[one.image_id]
                if isinstance(result, OtherId):
                    raise result.told_by(data)
                if isinstance(result, NotComparable):
                    raise result
                found.take(
                    compare(one.place, StoredPicture(one.record, data), result.read(), found.tolerance)
                )
            except NotComparable as error:
                found.not_compared.append(NotCompared(one.place, one.image_id, str(error)))
        for one in wanted.values():
            why = "its picture is not there: `imagemill doctor` says what else is missing"
            found.not_compared.append(NotCompared(one.place, one.image_id, why))
