"""Which images are drawn: as many as asked for, equal for an equal seed, spread over shards and kinds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from jobs.errors import OutputError
from jobs.output.output import Output
from producer.verify.sample import Drawn, SampleCounts, draw
from tests.rendered_output import rendered

__all__ = ["rendered"]


def drawn(output: Output, count: int | None, seed: int = 1) -> list[Drawn]:
    return list(draw(output, count, seed, SampleCounts()))


@pytest.mark.parametrize("layout", ["files", "webdataset"])
def test_a_seed_draws_the_same_images_again_and_another_seed_others(
    rendered: Callable[..., Output], layout: str
) -> None:
    output = rendered(40, layout=layout)
    first, again, other = ([one.place for one in drawn(output, 10, seed)] for seed in (1, 1, 2))
    assert first == again != other
    assert len(set(first)) == 10
    assert first == sorted(first)


def test_every_shard_gives_one_before_any_gives_a_second(rendered: Callable[..., Output]) -> None:
    output = rendered(40)
    assert Counter(one.shard for one in drawn(output, 10)) == Counter(range(10))
    assert set(Counter(one.shard for one in drawn(output, 20)).values()) == {2}


def test_kinds_of_images_take_turns(rendered: Callable[..., Output]) -> None:
    small = [{"prompt": f"small fox {n}", "height": 32} for n in range(2)]
    output = rendered(40, prompts=[*(f"fox {n}" for n in range(38)), *small])
    heights = Counter(one.record["height"] for one in drawn(output, 4))
    assert heights == {64: 2, 32: 2}


def test_a_sample_of_as_many_or_all_has_every_image_once(rendered: Callable[..., Output]) -> None:
    output = rendered(10, failed=(3, 8))
    counts = SampleCounts()
    everything = list(draw(output, None, 1, counts))
    assert len({one.place for one in everything}) == 8
    assert {one.place for one in drawn(output, 100)} == {one.place for one in everything}
    assert (counts.shards, counts.looked_at, counts.images, counts.failed, counts.drawn) == (3, 3, 8, 2, 8)


def test_an_output_without_images_is_refused(rendered: Callable[..., Output]) -> None:
    output = rendered(4, failed=(0, 1, 2, 3))
    for count in (3, None):
        with pytest.raises(OutputError, match="holds no image that could be rendered again"):
            drawn(output, count)
