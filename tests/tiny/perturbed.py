"""Pipelines of perturbed attention over the parts of other families: their call replaces the attention."""

from __future__ import annotations

from diffusers import (
    DiffusionPipeline,
    HunyuanDiTPAGPipeline,
    KolorsPAGPipeline,
    PixArtSigmaPAGPipeline,
    SanaPAGPipeline,
)

from tests.tiny.family import Family
from tests.tiny.hunyuan import HUNYUAN
from tests.tiny.kolors import KOLORS
from tests.tiny.pixart import PIXART
from tests.tiny.sana import SANA

_PLAIN = {family.name: family for family in (*HUNYUAN, *KOLORS, *PIXART, *SANA)}


def _perturbed(pipeline: type[DiffusionPipeline], plain: str, **config: bool) -> Family:
    """The family of a class that has the parts of the `plain` family's pipeline."""
    family = _PLAIN[plain]

    def build() -> DiffusionPipeline:
        parts = {name: part for name, part in family.build().components.items() if part is not None}
        return pipeline(**parts, **config)

    return Family(pipeline.__name__, build, family.height, family.width, arguments=family.arguments)


PERTURBED = (
    _perturbed(HunyuanDiTPAGPipeline, "HunyuanDiTPipeline", requires_safety_checker=False),
    _perturbed(KolorsPAGPipeline, "KolorsPipeline"),
    _perturbed(PixArtSigmaPAGPipeline, "PixArtSigmaPipeline"),
    _perturbed(SanaPAGPipeline, "SanaPipeline"),
)
"""The families of this file."""
