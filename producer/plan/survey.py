"""What a job will take, counted beforehand: images, slots of forwards, bytes; and what exists already.

Everything is counted in one pass over the requests, which are not kept.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from typing import Any, NamedTuple

from jobs.entry import Entry
from jobs.ledger.job import SlotsKey
from jobs.output.compact_counter import CompactCounter
from jobs.pipelines.pipeline_class import STABLE_DIFFUSION
from jobs.pipelines.pipeline_task import TASK_PICTURES, AskedForwards, painting_class
from jobs.pipelines.pipelines import find_pipeline
from jobs.request import PICTURES, SETTINGS
from producer.reporter import QUIET, Reporter
from producer.requests.expand import Identified

ENDS = 3
"""Requests that are shown of each end."""
REDIS_BYTES = 40
"""Bytes of Redis that a waiting image takes: measured over a million prompts of 4 to 20 words in shards of 64
(docs/performance.md). Longer prompts and smaller shards take more."""
_SAY_EVERY = 10_000
_HELD, _ASKED = 1, 2
_size_of = itemgetter(*(SETTINGS.index(name) for name in ("height", "width")))
_cost_of = itemgetter(*(SETTINGS.index(name) for name in AskedForwards._fields if name not in TASK_PICTURES))
"""Of SETTINGS, what decides how many forwards an image takes, its pictures aside."""
pictures_of = itemgetter(*map(SETTINGS.index, TASK_PICTURES))
"""Of SETTINGS, the pictures that decide a task."""
all_pictures_of = itemgetter(*map(SETTINGS.index, PICTURES))
"""Of SETTINGS, all pictures."""


class Group(NamedTuple):
    """The images that cost the same."""

    height: int
    width: int
    num_inference_steps: int
    guided: bool
    images: int
    to_render: int
    row_evaluations: int
    """Slot evaluations of the images to render."""


class Listed(NamedTuple):
    """A request, and whether the output holds its image."""

    image_id: str
    entry: Entry
    held: bool


class Holding:
    """What an output holds, and which of it was asked for: 11 bytes for each image, and 11 for each of the
    user's ids."""

    def __init__(self) -> None:
        self._images, self._named = CompactCounter(), CompactCounter()
        self.images = self.asked = 0
        self._any_named = False

    def add(self, image_id: str, user_id: str | None) -> None:
        """Takes in an image that the output holds; one that is there twice counts once."""
        if self._images.mark(int(image_id, 16), _HELD):
            return
        self.images += 1
        if user_id is not None:
            self._any_named = True
            self._named.mark(_hash(user_id), 1)

    def ask(self, image_id: str, user_id: str | None) -> bool:
        """Whether the output holds the image of a request. Each request asks once."""
        key = int(image_id, 16)
        if self._images.get(key):
            self._images.mark(key, _ASKED)
            self.asked += 1
            return True
        # Above the first, the number counts the new images of the same id.
        if user_id is not None and self._any_named and (count := self._named.get(_hash(user_id))):
            self._named.set(_hash(user_id), count + 1)
        return False

    def orphaned(self, image_id: str) -> bool:
        """Whether the output holds an image that no request has asked for; True once for each."""
        key = int(image_id, 16)
        orphaned = self._images.get(key) == _HELD
        if orphaned:
            self._images.mark(key, _ASKED)
        return orphaned

    def replaced(self, user_id: str | None) -> bool:
        """Whether a new image with the same user's id replaces an orphan; each replaces only one."""
        if user_id is None or (count := self._named.get(_hash(user_id))) < 2:
            return False
        self._named.set(_hash(user_id), count - 1)
        return True


@dataclass(frozen=True, slots=True)
class Survey:
    """What one pass over the requests found."""

    groups: list[Group]
    """The groups of the largest pictures come first."""
    images: int
    held: int
    """Images among them that the output holds: they are unchanged."""
    first: list[Listed]
    last: list[Listed]
    """The last `ENDS`, without those among the first."""

    @property
    def to_render(self) -> int:
        """What a submission would queue."""
        return self.images - self.held


def survey(
    entries: Iterable[Identified],
    holding: Holding,
    reporter: Reporter = QUIET,
    pipeline: str | None = None,
) -> Survey:
    """Counts every request, and asks `holding` for it.

    `reporter` counts them; `pipeline` is diffusers' class of the model, None where it is not known.
    """
    known = find_pipeline(STABLE_DIFFUSION if pipeline is None else pipeline)

    @lru_cache(maxsize=10_000)
    def cost(*asked: Any) -> tuple[int, bool, int]:
        image = AskedForwards(*asked)
        kind = painting_class(known, image)
        return image.num_inference_steps, kind.guided(image), kind.slot_evaluations(image)

    # Each way in which images cost: those to render, those held.
    counts: dict[tuple[Any, ...], list[int]] = {}
    first, last = list[tuple[str, Entry, bool]](), deque[tuple[str, Entry, bool]](maxlen=ENDS)
    images, anything_held, held = 0, holding.images > 0, False
    for image_id, entry in entries:
        settings = entry.settings
        if anything_held:
            held = holding.ask(image_id, entry.id)
        # Whether there are pictures, not which: each image may have its own.
        given = (None if picture is None else "given" for picture in pictures_of(settings))
        key = (*_size_of(settings), *cost(*_cost_of(settings), *given))
        count = counts.get(key)
        if count is None:
            count = counts[key] = [0, 0]
        count[held] += 1
        ends = first if images < ENDS else last
        ends.append((image_id, entry, held))
        images += 1
        if images % _SAY_EVERY == 0:
            reporter.count(images)
    return Survey(
        groups=_groups(counts),
        images=images,
        held=holding.asked,
        first=[Listed(*one) for one in first],
        last=[Listed(*one) for one in last],
    )


def _groups(counts: Mapping[tuple[Any, ...], Sequence[int]]) -> list[Group]:
    groups: dict[tuple[int, int, int, bool], Group] = {}
    for (height, width, steps, guided, evaluations), (to_render, there) in counts.items():
        key = (height, width, steps, guided)
        known = groups.get(key, Group(*key, 0, 0, 0))
        groups[key] = known._replace(
            images=known.images + to_render + there,
            to_render=known.to_render + to_render,
            row_evaluations=known.row_evaluations + to_render * evaluations,
        )
    return sorted(groups.values(), key=lambda group: (group.height * group.width, *group), reverse=True)


class DeviceTime(NamedTuple):
    """How long one kind of device would take."""

    device: str
    precision: str
    seconds: float
    images: int
    """Images that the time is for; no rate of this device is known for the sizes of the others."""


def device_times(
    groups: Iterable[Group], rates: Mapping[SlotsKey, float], revision: str, precision: str
) -> list[DeviceTime]:
    """The time that the images to render take on each kind of device that was measured with their model.

    rates: slot evaluations a second. precision: the manifest's; auto takes what was measured in any.
    """
    groups, times = list(groups), []
    kinds = {(key.device, key.precision) for key in rates if key.revision == revision}
    for device, measured_in in sorted(kinds):
        if precision not in ("auto", measured_in):
            continue
        seconds, images = 0.0, 0
        for group in groups:
            rate = rates.get(SlotsKey(device, measured_in, revision, group.height, group.width))
            if rate is not None:
                seconds += group.row_evaluations / rate
                images += group.to_render
        if images:
            times.append(DeviceTime(device, measured_in, seconds, images))
    return times


def _hash(user_id: str) -> int:
    return hash(user_id) & 0xFFFF_FFFF_FFFF_FFFF
