"""One long run under faults: `python -m tests.faults.soak --faults 100 --images 10000 --seed 7`.

Real Redis, real Celery workers, the stand-in model: jobs of files and of tars, one after the other, and
faults in an order that the seed gives. Each fault hits while a job is under way (or the run ends), and is
over before the next. Every job is judged when it ends; the last line is JSON. The exit status is 1 unless all
is exact. With `--bucket`, jobs write into a bucket, which the workers reach by a way that breaks, too.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from tests.breakable_redis import BreakableRedis
from tests.faults.fault import Fault
from tests.faults.faults import FAULTS, FAULTS_OF_BUCKET
from tests.faults.field import Field
from tests.faults.oracle import Verdict
from tests.object_store.breakable_store import BreakableStore

JOB = 1000
"""Images of one job, about."""
MARGIN = 130
"""A job that has fewer images left is let run out: a fault needs something to hit."""
SECONDS = 2.5
"""What a fault takes, until ten have shown it."""
SHAPES = 300
"""Images of the job of `shapes`."""
SHAPES_FAULTS = ("killed: rendered", "killed: before commit", "frozen", "Redis killed", "told to leave")


def schedule(seed: int, count: int, word: str = "", table: Sequence[Fault] = FAULTS) -> list[Fault]:
    """So many faults; all kinds, or those with this word in their name, before one comes again."""
    kinds = [fault for fault in table if word in fault.name]
    drawn, order = random.Random(seed), list[Fault]()
    while len(order) < count:
        order += drawn.sample(kinds, len(kinds))
    return order[:count]


class Soak:
    """Faults over jobs, one job after the other, each judged when it ends."""

    def __init__(
        self,
        field: Field,
        images: int,
        faults: int,
        say: Callable[[str], None],
        margin: int = MARGIN,
        **keys: object,
    ) -> None:
        """`images`: those of the faults' own jobs are not among them. `faults`: how many are to come.

        `margin`: a job with fewer images left is let run out. `keys`: the manifests'.
        """
        self._field, self._left, self._to_come, self._say, self._keys = field, images, faults, say, keys
        self._margin = margin
        self.images = images
        self.verdict = Verdict()
        self._began = time.monotonic()
        self._jobs = self._hit = 0
        self._since: list[str] = []
        """The faults that hit the job that is under way."""

    def strike(self, fault: Fault) -> None:
        """Lets a fault hit a job that is under way, and waits until it is over."""
        field = self._field
        if self._hit == 0:
            self._began = time.monotonic()
        if field.leg is not None and field.left() < self._margin:
            self.end_job()
        if field.leg is None:
            assert self._left > 0, f"the images ran out after {self._hit} faults: give more"
            # Before it begins: on a busy machine the workers would be through with it before the fault comes.
            self._set_pace()
            self._begin_job(self._left if self._left < 1.5 * JOB else JOB)
        self._set_pace()
        began = time.monotonic()
        self._since.append(fault.name)
        try:
            field.goes_on()
            own = fault.strike(field)
            field.over(fault.refuses)
        except Exception as error:
            error.add_note(f"under {fault.name!r}:\n{field.logs()}")
            raise
        self._hit += 1
        self._to_come -= 1
        assert field.leg is not None
        self._say(
            f"{self._hit:5} {began - self._began:8.1f} s  {fault.name}: over in "
            f"{time.monotonic() - began:.1f} s, {field.left()} images left in {field.leg.job_id}"
        )
        if own is not None:
            self._add(own, fault.name)

    def end_job(self) -> None:
        """Lets the job that is under way end, and judges it."""
        leg = self._field.leg
        assert leg is not None
        self._field.pace(0)
        self._add(self._field.finish(leg), f"{leg.job_id}, hit by {', '.join(self._since)}")
        self._field.leg = None
        self._since = []

    def end(self) -> Verdict:
        """Renders what is left, without faults; returns the verdict on all jobs."""
        if self._field.leg is not None:
            self.end_job()
        while self._left > 0:
            self._begin_job(min(self._left, JOB))
            self.end_job()
        return self.verdict

    def _begin_job(self, images: int) -> None:
        self._jobs += 1
        layout = {"layout": ("files", "webdataset")[self._jobs % 2]} | self._field.layout
        name = f"{self._keys.get('model', 'job')}{self._jobs}"
        self._field.leg = self._field.begin(name, images, **layout | self._keys)
        self._left -= images

    def _set_pace(self) -> None:
        """So slow that the images last for the faults and three more."""
        there = self._left + (0 if self._field.leg is None else self._field.left())
        spent = (SECONDS * 10 + time.monotonic() - self._began) / (10 + self._hit)
        self._field.pace(len(self._field.names) * (self._to_come + 3) * spent / there)

    def _add(self, found: Verdict, what: str) -> None:
        self.verdict.add(found)
        self._say(f"{what}: {found.images} images, {'exact' if found.exact else found.problems}")


def shapes_leg(field: Field, faults: Sequence[Fault], say: Callable[[str], None]) -> Verdict:
    """A job of a real model, in worker processes that take seconds to load it."""
    settings = {"num_inference_steps": 3, "guidance_scale": 1.0}
    soak = Soak(field, SHAPES, len(faults), say, 40, model="shapes", settings=settings)
    for fault in faults:
        soak.strike(fault)
    return soak.end()


def main() -> None:
    """Prints the seed, each fault, and, last, JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=None, help="default: another each time")
    parser.add_argument("--shapes", action="store_true", help=f"then {SHAPES} images of the model `shapes`")
    parser.add_argument("--bucket", action="store_true", help="write into a bucket, not into folders")
    parser.add_argument("--only", metavar="WORD", default="", help="only faults with this in their name")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    say = partial(print, flush=True)
    say(f"seed {seed}")
    table = FAULTS_OF_BUCKET if options.bucket else FAULTS
    faults = schedule(seed, options.faults, options.only, table)
    images = options.images - sum(fault.images for fault in faults)
    began = time.monotonic()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="imagemill-soak-")))
        server, store = stack.enter_context(BreakableRedis(folder / "redis")), None
        if options.bucket:
            store = stack.enter_context(BreakableStore())
            # Who submits and judges here goes past the way that breaks.
            os.environ |= store.environment(store.direct) | {"XDG_CACHE_HOME": str(folder / "cache")}
        field = Field(folder, server, seed, store=store)
        stack.callback(field.stop)
        field.start()
        soak = Soak(field, images, len(faults), say)
        for fault in faults:
            soak.strike(fault)
        verdict = soak.end()
        if options.shapes:
            of_shapes = [fault for fault in FAULTS if fault.name in SHAPES_FAULTS]
            verdict.add(shapes_leg(field, of_shapes, say))
            faults += of_shapes
    for problem in verdict.problems:
        say(problem)
    names = ("images", "files", "bits", "counted", "lost", "doubled", "finish_events", "regenerated")
    asked = options.images + (SHAPES if options.shapes else 0)
    exact = verdict.exact and verdict.images == asked and field.hits >= len(faults)
    found = {name: getattr(verdict, name) for name in names} | {
        "faults": len(faults),
        "runs": verdict.runs,
        "exact": exact,
        "seconds": round(time.monotonic() - began, 1),
        "kinds": dict(sorted(Counter(fault.name for fault in faults).items())),
    }
    say(json.dumps(found))
    sys.exit(0 if exact else 1)


if __name__ == "__main__":
    main()
