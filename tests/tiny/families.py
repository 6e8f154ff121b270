"""Every family of pipelines that the tests build in code, by the name of its class."""

from __future__ import annotations

from tests.tiny.auraflow import AURA_FLOW
from tests.tiny.cogview import COGVIEW
from tests.tiny.family import Family
from tests.tiny.flux import FLUX
from tests.tiny.glm_image import GLM_IMAGE
from tests.tiny.hunyuan import HUNYUAN
from tests.tiny.kolors import KOLORS
from tests.tiny.lumina import LUMINA
from tests.tiny.pixart import PIXART
from tests.tiny.prx import PRX
from tests.tiny.qwen import QWEN
from tests.tiny.sana import SANA
from tests.tiny.stable_diffusion import STABLE_DIFFUSION

FAMILIES: dict[str, Family] = {
    **{family.class_name: family for family in (*STABLE_DIFFUSION, *QWEN)},
    **FLUX,
    **{family.class_name: family for family in (*PIXART, *SANA, *LUMINA, *HUNYUAN)},
    **{family.class_name: family for family in (*COGVIEW, *AURA_FLOW, *KOLORS, *PRX)},
}

SLOW_FAMILIES: dict[str, Family] = {family.class_name: family for family in GLM_IMAGE}
"""Those that take a second and more for a picture, however tiny they are."""
