"""Paints with a tiny pipeline of every family, one by one and together, and writes which share forwards.

    python -m tools.families                    every family: a table, and one JSON object as the last line
    python -m tools.families FluxPipeline …     these alone
    python -m tools.families --write            and writes the table in docs/families.md

Of each family eight images are painted that differ in prompt, steps, guidance, scheduler and seed: by the
plain pipeline one by one, then in forwards of eight slots together, in the opposite order, and each alone.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
import transformers

from jobs.arguments import arguments_text
from jobs.pipelines.pipeline_class import PipelineClass
from jobs.pipelines.pipelines import admitted
from jobs.request import ImageRequest
from tests.tiny.families import FAMILIES
from tests.tiny.family import Family
from worker.diffusion.painter import Painter
from worker.engine.renderer import Batching, first_line
from worker.renderers.learning import learn_and_prove, switched
from worker.renderers.paint_together import paint_together

PAGE = Path(__file__).parents[1] / "docs" / "families.md"
MARK, END = "<!-- python -m tools.families --write -->\n", "<!-- end -->"
LISTS = {"exact": "batched, exact", "fast": "batched", "alone": "alone"}
"""What the page calls each way of batching, the best first."""
NOT_TRIED = "Admitted and not tried here:"
SLOTS = 8
_PROMPTS = (
    "a cat",
    "two dogs on the moon, oil painting, very detailed",
    "x",
    "a red house by the lake in the evening",
    "b",
    "mountains, fog",
    "an old man with a white beard who reads the newspaper",
    "fox",
)
_STEPS = (2, 5, 3, 4, 2, 3, 4, 2)
_ABOVE = (3.0, 2.0, 0.0, 6.0, 1.0, 3.0, 4.0, 0.0)
"""How much the guidance scale of each image is above the value above which guidance is on."""
_SCHEDULERS = ("default", "DDIM", "Euler", "DPM++ 2M", "Flow Euler", "Flow UniPC")


@dataclass(frozen=True, slots=True)
class Measured:
    """How a family's images came out."""

    name: str
    batching: Batching
    reason: str
    difference: float = 0.0
    """The largest of the float picture, 0..1, from the plain pipeline's; 0 where images are alone."""
    same: bool = True
    """Whether bytes were equal in two orders, and alone."""
    one_by_one: int = 0
    together: int = 0
    """Forwards."""
    failing: tuple[str, ...] = ()
    """Schedulers that the class admits and whose pictures fail."""
    amplifies: str = ""


def measure(family: Family, *, images: int = len(_PROMPTS), alone: int = len(_PROMPTS)) -> Measured:
    """Paints so many of the eight images in every way; `alone` of them also alone in forwards of 8 slots."""
    painter = Painter(family.build())
    requests = list(mix(painter.kind, family))[:images]
    learned = learn_and_prove(painter, requests[0])
    measured = Measured(
        family.name,
        learned.batching,
        learned.reason,
        failing=tuple(_failing_schedulers(painter, requests[0])),
        amplifies=family.amplifies,
    )
    if learned.batching == "alone":
        return measured
    with torch.no_grad(), _counted(painter) as forwards:
        plain = [painter.paint(request) for request in requests]
    paint = partial(paint_together, painter, learned.rules, slots=SLOTS)
    mixed, together = paint(requests)
    turned = paint(requests[::-1])[0][::-1]
    each = [paint([request])[0][0] for request in requests[:alone]]
    pairs = zip(plain, mixed, strict=True)
    return replace(
        measured,
        difference=max(float(np.abs(one.values - other.values).max()) for one, other in pairs),
        same=all(
            np.array_equal(one.values, other.values)
            for one, other in (*zip(mixed, turned, strict=True), *zip(mixed, each, strict=False))
        ),
        one_by_one=len(forwards),
        together=together,
    )


@contextmanager
def _counted(painter: Painter) -> Iterator[list[None]]:
    """A list that gets an item for each forward of the painter's denoisers."""
    forwards: list[None] = []
    # A denoiser may have two names.
    modules = {id(module): module for module in painter.denoisers.values()}.values()
    hooks = [
        module.register_forward_pre_hook(lambda _module, _args: forwards.append(None)) for module in modules
    ]
    try:
        yield forwards
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def _failing_schedulers(painter: Painter, request: ImageRequest) -> Iterator[str]:
    """The schedulers of the painter's class that cannot paint, with the reason."""
    for scheduler in painter.kind.schedulers:
        try:
            if not painter.paint(replace(request, scheduler=scheduler, num_inference_steps=4)).finite:
                yield f"{scheduler}: not finite"
        except Exception as error:
            yield f"{scheduler}: {first_line(error)}"


def mix(kind: PipelineClass, family: Family) -> Iterator[ImageRequest]:
    """Eight requests that differ in all that images of one size may."""
    schedulers = [one for one in _SCHEDULERS if one in kind.schedulers]
    for number, (prompt, steps, above) in enumerate(zip(_PROMPTS, _STEPS, _ABOVE, strict=True)):
        request = ImageRequest(
            prompt=prompt,
            negative_prompt="blurry" if kind.negative_prompt and number % 3 == 1 else "",
            height=family.height,
            width=family.width,
            num_inference_steps=steps,
            guidance_scale=kind.guidance_scale,
            scheduler=schedulers[number % len(schedulers)],
            seed=number,
            model=kind.name,
            revision="tiny",
            arguments=arguments_text(dict(family.arguments)),
        )
        yield switched(kind, request, above)


def table(measured: Sequence[Measured]) -> str:
    """The families as a table in Markdown, by list and name."""
    lines = [
        "| class | list | largest difference | same bytes | forwards one by one | together |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for one in sorted(measured, key=lambda one: ([*LISTS].index(one.batching), one.name)):
        words = LISTS[one.batching]
        if one.batching == "alone":
            lines.append(f"| {one.name} | {words}: {one.reason} | | | | |")
        else:
            difference = f"{one.difference:.1e}{' *' if one.amplifies else ''}"
            figures = (difference, "yes" if one.same else "no", one.one_by_one, one.together)
            lines.append(f"| {one.name} | {words} | {' | '.join(map(str, figures))} |")
    for one in measured:
        if one.amplifies:
            lines.append(f"\n\\* {one.name}: {one.amplifies}")
    not_tried = sorted(set(admitted()) - {FAMILIES[one.name].class_name for one in measured})
    if not_tried:
        lines.append(f"\n{NOT_TRIED} {', '.join(not_tried)}.")
    return "\n".join(lines) + "\n"


def summary(measured: Sequence[Measured]) -> dict[str, Any]:
    """The figures of all families."""
    batched = [one for one in measured if one.batching != "alone"]
    return {
        "pipelines": len(measured),
        "batched_exact": sum(one.batching == "exact" and one.same for one in measured),
        "batched": sum(one.batching == "fast" for one in measured),
        "alone": len(measured) - len(batched),
        "refused": sum(one.batching == "exact" and not one.same for one in measured),
        "failing_schedulers": {one.name: one.failing for one in measured if one.failing},
        "max_abs_diff": max((one.difference for one in batched if not one.amplifies), default=0.0),
        "forwards_ratio": round(
            sum(one.together for one in batched) / max(1, sum(one.one_by_one for one in batched)), 3
        ),
    }


def main() -> None:
    """Measures what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("classes", nargs="*")
    parser.add_argument("--write", action="store_true", help="write the table in docs/families.md")
    asked = parser.parse_args()
    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    measured = []
    for name in asked.classes or FAMILIES:
        measured.append(measure(FAMILIES[name]))
        print(table(measured[-1:]).splitlines()[2], flush=True)
    if asked.write:
        page = PAGE.read_text("utf-8")
        before, begin, rest = page.partition(MARK)
        _old, end, after = rest.partition(END)
        PAGE.write_text(f"{before}{begin}{table(measured)}{end}{after}", "utf-8")
    print(json.dumps(summary(measured)))


if __name__ == "__main__":
    main()
