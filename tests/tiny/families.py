"""Every family of pipelines that the tests build in code, by the name of its class."""

from __future__ import annotations

from tests.tiny.family import Family
from tests.tiny.flux import FLUX
from tests.tiny.qwen import QWEN
from tests.tiny.stable_diffusion import STABLE_DIFFUSION

FAMILIES: dict[str, Family] = {
    **{family.class_name: family for family in (*STABLE_DIFFUSION, *QWEN)},
    **FLUX,
}
