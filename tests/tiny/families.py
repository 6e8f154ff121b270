"""Every family of pipelines that the tests build in code, by its name."""

from __future__ import annotations

from tests.tiny.auraflow import AURA_FLOW
from tests.tiny.cogview import COGVIEW
from tests.tiny.ernie import ERNIE
from tests.tiny.family import Family
from tests.tiny.fibo import FIBO
from tests.tiny.flux import FLUX
from tests.tiny.glm_image import GLM_IMAGE
from tests.tiny.hidream import HIDREAM
from tests.tiny.hunyuan import HUNYUAN
from tests.tiny.kandinsky import KANDINSKY
from tests.tiny.kolors import KOLORS
from tests.tiny.krea import KREA
from tests.tiny.lumina import LUMINA
from tests.tiny.optional_pictures import OPTIONAL_PICTURES
from tests.tiny.perturbed import PERTURBED
from tests.tiny.pixart import PIXART
from tests.tiny.prx import PRX
from tests.tiny.qwen import QWEN
from tests.tiny.sana import SANA
from tests.tiny.stable_diffusion import STABLE_DIFFUSION
from tests.tiny.variants import VARIANTS

_ALL = (
    *(
        *STABLE_DIFFUSION,
        *QWEN,
        *FLUX,
        *PIXART,
        *SANA,
        *LUMINA,
        *HUNYUAN,
        *COGVIEW,
        *AURA_FLOW,
        *KOLORS,
        *PRX,
    ),
    *(*KANDINSKY, *HIDREAM, *KREA, *ERNIE, *FIBO, *OPTIONAL_PICTURES, *VARIANTS, *GLM_IMAGE, *PERTURBED),
)
FAMILIES: dict[str, Family] = {family.name: family for family in _ALL}

CORE = (
    "StableDiffusionPipeline",
    "StableDiffusionXLPipeline",
    "StableDiffusion3Pipeline",
    "FluxPipeline",
    "FluxPipeline-schnell",
    "Flux2Pipeline",
    "QwenImagePipeline",
    "ZImagePipeline",
    "PixArtSigmaPipeline",
    "SanaPipeline",
    "Lumina2Pipeline",
    "HunyuanDiTPipeline",
    "ChromaPipeline",
    "AuraFlowPipeline",
    "CogView4Pipeline",
    "StableDiffusionPAGPipeline",
)
"""The names of those that every run of the tests tries; `make families` tries the others too."""
