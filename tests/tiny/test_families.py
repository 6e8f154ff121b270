from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline

from jobs.pipelines.pipelines import admitted, find_pipeline
from tests.copied_weights import copy_weights
from tests.tiny.families import CORE, FAMILIES
from tests.tiny.family import Family
from tests.tiny.family_params import family_params

VISIBLE = 1 / 255
"""A difference that a PNG shows."""
PROMPT = "a red circle left of a blue square"


def guides(name: str) -> set[str]:
    """The arguments of a family's call that guide it."""
    kind = find_pipeline(FAMILIES[name].class_name)
    switches = {stage.switch[0] for stage in kind.stages if stage.switch is not None}
    return switches if kind.guidance is None else {kind.guidance, *switches}


@dataclass(frozen=True, slots=True)
class Tiny:
    """A family's pipeline, and its pictures of two steps as floats from 0 to 1, [height, width, 3 or 4]."""

    family: Family
    pipe: DiffusionPipeline

    def paint(
        self, prompt: str = PROMPT, *, seed: int = 0, guidance: float = 4.0, **others: Any
    ) -> np.ndarray:
        kind = find_pipeline(self.family.class_name)
        fixed = {argument: value for argument, (value, _why) in kind.fixed.items()}
        given = {**fixed, **self.family.arguments, **dict.fromkeys(guides(self.family.name), guidance)}
        if kind.negative_prompt:
            given["negative_prompt"] = "blurry low quality"
        # By name: FLUX.2's first argument is an image.
        given |= {
            "prompt": prompt,
            "height": self.family.height,
            "width": self.family.width,
            "num_inference_steps": 2,
        }
        self.pipe.set_progress_bar_config(disable=True)
        generator = torch.Generator().manual_seed(seed)
        result = self.pipe(generator=generator, output_type="np", **{**given, **others})
        # By place: Kandinsky 5 calls its pictures `image`, the others `images`.
        return np.asarray(result[0][0])


def largest_difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).max())


@pytest.fixture(scope="module", params=family_params(FAMILIES))
def tiny(request: pytest.FixtureRequest) -> Tiny:
    family = FAMILIES[request.param]
    return Tiny(family, family.build())


@pytest.fixture(scope="module")
def picture(tiny: Tiny) -> np.ndarray:
    return tiny.paint()


def test_families_are_of_classes_that_are_rendered_and_those_of_every_run_are_among_them() -> None:
    assert {family.class_name for family in FAMILIES.values()} <= {*admitted()}
    assert {*CORE} <= FAMILIES.keys()


def test_a_family_is_of_the_class_it_is_named_after(tiny: Tiny) -> None:
    assert type(tiny.pipe).__name__ == tiny.family.class_name


def test_a_picture_has_the_familys_size_and_is_neither_flat_nor_clipped(
    tiny: Tiny, picture: np.ndarray
) -> None:
    assert picture.shape[:2] == (tiny.family.height, tiny.family.width)
    assert np.isfinite(picture).all()
    assert picture.std() > 0.05
    assert ((picture == 0) | (picture == 1)).mean() < 0.5


def test_a_picture_follows_from_its_prompt_and_its_seed(tiny: Tiny, picture: np.ndarray) -> None:
    assert np.array_equal(tiny.paint(), picture)
    assert largest_difference(tiny.paint("a cat"), picture) > VISIBLE
    assert largest_difference(tiny.paint(seed=1), picture) > VISIBLE


@pytest.mark.parametrize("tiny", family_params(filter(guides, FAMILIES)), indirect=True)
def test_guidance_shows_in_the_picture(tiny: Tiny, picture: np.ndarray) -> None:
    assert largest_difference(tiny.paint(guidance=1.5), picture) > VISIBLE


@pytest.mark.parametrize(
    "tiny",
    family_params(
        name for name, family in FAMILIES.items() if find_pipeline(family.class_name).negative_prompt
    ),
    indirect=True,
)
def test_a_negative_prompt_shows_in_the_picture(tiny: Tiny, picture: np.ndarray) -> None:
    assert largest_difference(tiny.paint(negative_prompt="a house and the sea"), picture) > VISIBLE


def test_a_saved_pipeline_paints_the_same_bytes_and_is_made_of_library_parts_alone(
    tiny: Tiny, picture: np.ndarray, tmp_path: Path
) -> None:
    tiny.pipe.save_pretrained(tmp_path)
    loaded = Tiny(tiny.family, copy_weights(type(tiny.pipe).from_pretrained(tmp_path)))
    assert np.array_equal(loaded.paint(), picture)
    index = json.loads((tmp_path / "model_index.json").read_text())
    libraries = {value[0] for value in index.values() if isinstance(value, list) and len(value) == 2}
    # A part that only one of diffusers' pipelines has is named by that pipeline's module.
    assert {name for name in libraries - {None} if not hasattr(diffusers.pipelines, name)} <= {
        "diffusers",
        "transformers",
    }
    # Neither code nor pickled weights.
    assert not {file.suffix for file in tmp_path.rglob("*")} & {".bin", ".ckpt", ".pkl", ".pt", ".py"}


def test_a_family_built_again_paints_the_same_bytes_and_leaves_torchs_random_state(
    tiny: Tiny, picture: np.ndarray
) -> None:
    before = torch.get_rng_state()
    again = Tiny(tiny.family, tiny.family.build())
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(again.paint(), picture)
