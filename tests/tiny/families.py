"""Every family of pipelines that the tests build in code, by the name of its class."""

from __future__ import annotations

from tests.tiny.auraflow import AURA_FLOW
from tests.tiny.cascade import CASCADE
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
from tests.tiny.pixart import PIXART
from tests.tiny.prx import PRX
from tests.tiny.qwen import QWEN
from tests.tiny.sana import SANA
from tests.tiny.stable_diffusion import STABLE_DIFFUSION
from tests.tiny.variants import VARIANTS

FAMILIES: dict[str, Family] = {
    **{family.class_name: family for family in (*STABLE_DIFFUSION, *QWEN)},
    **FLUX,
    **{family.class_name: family for family in (*PIXART, *SANA, *LUMINA, *HUNYUAN)},
    **{family.class_name: family for family in (*COGVIEW, *AURA_FLOW, *KOLORS, *PRX)},
    **{family.class_name: family for family in (*KANDINSKY, *HIDREAM, *KREA, *ERNIE, *FIBO)},
    **{family.class_name: family for family in (*OPTIONAL_PICTURES, *VARIANTS)},
}

SLOW_FAMILIES: dict[str, Family] = {family.class_name: family for family in GLM_IMAGE}
"""Those that take a second and more for a picture, however tiny they are."""

UNLOADABLE_FAMILIES: dict[str, Family] = {family.class_name: family for family in CASCADE}
"""Those that the pinned diffusers builds and saves, but cannot load from their folder."""
