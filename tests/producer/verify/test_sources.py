"""Where the models of pictures are found: by the manifest of their job, by what is given, or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.models.models import BUILT_IN
from jobs.output.output import Output
from jobs.request import ImageRequest
from producer.verify.not_comparable import NotComparable
from producer.verify.sources import Source, Sources
from tests.rendered_output import rendered

__all__ = ["rendered"]
EDGES = Path(__file__).parents[3] / "jobs/examples/controlnets/edges"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
REQUEST = ImageRequest(prompt="a fox", seed=1, model="instant", revision="instant-1")


def test_built_in_models_and_those_of_the_hub_need_no_folder(rendered: Callable[..., Output]) -> None:
    sources = Sources(rendered(1))
    assert sources.of(REQUEST, "foxes-1") == Source("instant", "instant-1", ())
    of_hub = replace(REQUEST, model="org/sunsets", revision=COMMIT)
    assert sources.of(of_hub, "foxes-1") == Source("org/sunsets", COMMIT, ())


def test_a_built_in_model_of_another_version_is_not_compared(rendered: Callable[..., Output]) -> None:
    sources = Sources(rendered(1))
    with pytest.raises(NotComparable, match="instant at instant-0, is not of this imagemill"):
        sources.of(replace(REQUEST, revision="instant-0"), "foxes-1")
    other = replace(REQUEST, model="shapes", revision="sha256:" + "0" * 64)
    assert other.revision != BUILT_IN["shapes"].revision
    with pytest.raises(NotComparable, match="or it is of another imagemill"):
        sources.of(other, "foxes-1")


def test_a_controlnets_folder_is_taken_where_its_contents_are_those_of_the_revision(
    rendered: Callable[..., Output], tmp_path: Path
) -> None:
    output = rendered(1)

    def followed(revision: str) -> ImageRequest:
        told = [{"name": "edges", "revision": revision, "scale": 1.0}]
        return replace(REQUEST, control_image="0" * 64, controlnet=json.dumps(told))

    given = Sources(output, [EDGES])
    with pytest.raises(NotComparable) as raised:
        given.of(followed("sha256:" + "0" * 64), "foxes-1")
    assert f"{EDGES} holds sha256:" in str(raised.value)
    holds = str(raised.value).partition(f"{EDGES} holds ")[2].partition(")")[0]
    [beside] = given.of(followed(holds), "foxes-1").further
    assert beside == ("controlnet", str(EDGES), holds)
    with pytest.raises(NotComparable, match=r"controlnet, edges at sha256:.* is not found: name its folder"):
        Sources(output).of(followed(holds), "foxes-1")
