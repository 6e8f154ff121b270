"""The engine with images that carry different LoRAs: few switches, and each image keeps its bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from jobs.adapters import Adapters
from jobs.errors import RenderError
from tests.random_loras import LoraFolder, loras, random_lora
from tests.tiny.families import FAMILIES
from tests.worker.engine.desk import Desk, Start, Wait
from worker.diffusion.precision import resolve_precision
from worker.engine.renderer import Bucket, Pipeline
from worker.engine.request_queue import Order
from worker.renderers.pipeline_renderer import PipelineRenderer

CPU = torch.device("cpu")
FLUX = Pipeline("tiny-flux", "1", "fp32")
LARGE, SMALL = Bucket(FLUX, 48, 32, slots=4), Bucket(FLUX, 32, 32, slots=4)


@dataclass(frozen=True, slots=True)
class Place:
    """A renderer, the folder of its images' files, and two LoRAs in it."""

    renderer: PipelineRenderer
    folder: LoraFolder
    hashes: tuple[str, str]

    def order(self, desk: Desk, seed: int, bucket: Bucket, lora: str | None) -> Order:
        said = "[]" if lora is None else loras((lora, 0.8))
        carrying = replace(bucket, adapters=Adapters(said))
        one = desk.order(
            seed,
            f"a star {seed}",
            bucket=carrying,
            steps=1 + seed % 2,
            scheduler="default",
            arguments='{"max_sequence_length":32}',
            loras=said,
        )
        return replace(one, inputs=self.folder.inputs)

    def mix(self, desk: Desk) -> list[Order]:
        """Images of two sizes without LoRAs, and with one of two, in turn: seeds 0 .. 17."""
        each = (None, *self.hashes)
        return [self.order(desk, seed, (LARGE, SMALL)[seed // 3 % 2], each[seed % 3]) for seed in range(18)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        pipeline = FAMILIES["FluxPipeline"].build()
        folder = LoraFolder(tmp_path_factory.mktemp("inputs"))
        files = (random_lora(pipeline.transformer, "transformer", seed=seed) for seed in (1, 2))
        first, second = map(folder.keep, files)
        renderer = PipelineRenderer(
            pipeline,
            precision=resolve_precision("fp32", CPU),
            device=CPU,
            model=FLUX.model,
            revision=FLUX.revision,
        )
        yield Place(renderer, folder, (first, second))
    torch.set_num_threads(before)


def pixels_of(desk: Desk) -> dict[int, bytes]:
    return {seed: desk.finished(seed).picture.pixels.tobytes() for seed in desk.outcomes}


Painted = Callable[[list[Order], Desk], dict[int, bytes]]


@pytest.fixture
def painted(place: Place, start: Start, wait_until: Wait) -> Painted:
    def paint(orders: list[Order], desk: Desk) -> dict[int, bytes]:
        start(place.renderer, orders)
        wait_until(lambda: len(desk.outcomes) == len(orders), "all are delivered")
        return pixels_of(desk)

    return paint


def test_images_in_turn_are_painted_with_a_switch_for_each_lora(
    place: Place, painted: Painted, desk: Desk
) -> None:
    before = place.renderer.adapters.switches
    together = painted(place.mix(desk), desk)
    assert len(set(together.values())) == 18
    assert place.renderer.adapters.switches - before <= 3
    one_by_one: dict[int, bytes] = {}
    for seed in (17, 4, 9, 1, 0):
        alone = Desk()
        one_by_one |= painted([place.mix(alone)[seed]], alone)
    assert one_by_one.items() <= together.items()


def test_a_lora_that_cannot_be_loaded_fails_its_images_and_no_others(
    place: Place, start: Start, wait_until: Wait, desk: Desk
) -> None:
    calm: Any = Desk()
    start(place.renderer, place.mix(calm))
    wait_until(lambda: len(calm.outcomes) == 18, "all are delivered")
    wrong = place.folder.keep({"transformer.x_embedder.lora_A.weight": torch.zeros(2, 7)})
    bad = [place.order(desk, 20 + index, SMALL, sha256) for index, sha256 in enumerate((wrong, "9" * 64))]
    start(place.renderer, [bad[0], *place.mix(desk), bad[1]])
    wait_until(lambda: len(desk.outcomes) == 20, "all are delivered")
    errors = [desk.outcomes.pop(seed) for seed in (20, 21)]
    assert all(isinstance(error, RenderError) for error in errors)
    assert wrong[:4] in str(errors[0])
    assert f"{'9' * 64}: is missing" in str(errors[1])
    assert pixels_of(desk) == pixels_of(calm)
