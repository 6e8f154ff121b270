"""The schedulers that a manifest may name, and the name of each in diffusers and in A1111's text.

Source: diffusers' table "A1111/k-diffusion to diffusers", docs api/schedulers/overview.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from jobs.errors import ManifestError


@dataclass(frozen=True, slots=True)
class Scheduler:
    """One scheduler: its canonical name, diffusers' class, and the options of that class."""

    name: str
    class_name: str
    options: Mapping[str, object] = field(default_factory=dict)
    schedule_type: str = ""
    """A1111's "Schedule type", empty for its default."""
    aliases: tuple[str, ...] = ()
    """Other names for it. Names are compared without regard to case."""


_KARRAS = {"use_karras_sigmas": True}
_FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
_TWICE = frozenset({"Heun", "DPM2", "DPM2 a", "Flow Heun"})

SCHEDULERS: tuple[Scheduler, ...] = (
    Scheduler("LMS", "LMSDiscreteScheduler", aliases=("k_lms",)),
    Scheduler("LMS Karras", "LMSDiscreteScheduler", _KARRAS, "Karras", ("k_lms_ka", "lms_k")),
    Scheduler("DDIM", "DDIMScheduler"),
    Scheduler("DDPM", "DDPMScheduler"),
    Scheduler("PNDM", "PNDMScheduler", aliases=("PLMS",)),
    Scheduler("Euler", "EulerDiscreteScheduler", aliases=("k_euler",)),
    Scheduler("Euler Karras", "EulerDiscreteScheduler", _KARRAS, "Karras", ("euler_k",)),
    Scheduler(
        "Euler a",
        "EulerAncestralDiscreteScheduler",
        aliases=("k_euler_a", "euler_a", "k_euler_ancestral", "euler_ancestral"),
    ),
    Scheduler("Heun", "HeunDiscreteScheduler", aliases=("k_heun",)),
    Scheduler("DPM2", "KDPM2DiscreteScheduler", aliases=("k_dpm_2", "dpm_2", "kdpm_2")),
    Scheduler(
        "DPM2 a",
        "KDPM2AncestralDiscreteScheduler",
        aliases=("k_dpm_2_a", "dpm_2_a", "k_dpm_2_ancestral", "dpm_2_ancestral", "kdpm_2_a"),
    ),
    Scheduler("DPM++ 2M", "DPMSolverMultistepScheduler", aliases=("dpmsolver++", "dpmsolver", "dpmpp_2m")),
    Scheduler("DPM++ 2M Karras", "DPMSolverMultistepScheduler", _KARRAS, "Karras", ("dpmpp_2m_k",)),
    Scheduler("DPM++ 2M SDE", "DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    Scheduler(
        "DPM++ 2M SDE Karras",
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "sde-dpmsolver++", **_KARRAS},
        "Karras",
    ),
    Scheduler("DPM++ 3M", "DPMSolverMultistepScheduler", {"solver_order": 3}),
    Scheduler("DPM++ 2S", "DPMSolverSinglestepScheduler", aliases=("dpmsingle", "dpmpp_2s")),
    Scheduler("DEIS", "DEISMultistepScheduler"),
    Scheduler("UniPC", "UniPCMultistepScheduler", aliases=("uni_pc",)),
)

FLOW_SCHEDULERS: tuple[Scheduler, ...] = (
    Scheduler("Flow Euler", "FlowMatchEulerDiscreteScheduler"),
    Scheduler("Flow Heun", "FlowMatchHeunDiscreteScheduler"),
    Scheduler("Flow UniPC", "UniPCMultistepScheduler", _FLOW),
    Scheduler("Flow DPM++ 2M", "DPMSolverMultistepScheduler", _FLOW),
)
"""Those of flow matching. A model has learned one kind of noise, and paints rubbish from the other."""

OWN_SCHEDULER = Scheduler("default", "")
"""The scheduler that the pipeline was saved with."""

NO_DYNAMIC_SHIFT = frozenset({"Flow Heun"})
"""Flow schedulers that cannot shift noise levels by a picture's size, as some models' configurations ask."""
TAKES: Mapping[str, frozenset[str]] = {
    "timesteps": frozenset(
        {"default", "DDPM", "Euler", "Heun", "DPM++ 2M", "DPM++ 2M SDE", "DPM++ 3M", "DPM++ 2S", "Flow Euler"}
    ),
    "sigmas": frozenset({"default", "Euler", "Euler Karras", "Flow Euler"}),
    "eta": frozenset({"default", "DDIM"}),
}
"""Arguments of a pipeline's call that only some schedulers take: lists of steps or noise levels, which the
others refuse (Flow UniPC takes numpy's arrays alone), and DDIM's share of new noise, which they ignore."""

_BY_NAME: dict[str, Scheduler] = {}
for _scheduler in (*SCHEDULERS, *FLOW_SCHEDULERS, OWN_SCHEDULER):
    for _name in (_scheduler.name, *_scheduler.aliases):
        _BY_NAME[_name.casefold()] = _scheduler
    if _scheduler.class_name and not _scheduler.options:
        _BY_NAME[_scheduler.class_name.casefold()] = _scheduler


SCHEDULER_NAMES: tuple[str, ...] = tuple(
    scheduler.name for scheduler in (*SCHEDULERS, *FLOW_SCHEDULERS, OWN_SCHEDULER)
)
"""Every canonical name. A pipeline takes some of them: `jobs.pipelines.pipelines`."""


def find_scheduler(name: str) -> Scheduler:
    """The scheduler of this name: A1111's, kohya's (`k_euler_a`) or diffusers' class name, in any case.

    Raises ManifestError with all known names.
    """
    found = _BY_NAME.get(name.casefold())
    if found is None:
        raise ManifestError(_no_such_scheduler(name))
    return found


@lru_cache(maxsize=100)
def _no_such_scheduler(name: str) -> str:
    near = difflib.get_close_matches(name.casefold(), _BY_NAME, 1)
    # It is not taken in its place: another sampler paints another picture.
    like = f" (the nearest is {_BY_NAME[near[0]].name})" if near else ""
    names = ", ".join(SCHEDULER_NAMES)
    return f"no scheduler is called {name!r}{like}: use one of {names}, or diffusers' class name"


_DIFFUSIONDB: Mapping[int, str] = {
    1: "DDIM",
    2: "PNDM",
    3: "Euler",
    4: "Euler a",
    5: "Heun",
    6: "DPM2",
    7: "DPM2 a",
    8: "LMS",
}


def scheduler_of_code(code: int) -> str:
    """The name of the scheduler that DiffusionDB's number stands for; its 9 is "others".

    Source: the table `sampler` in the card of poloclub/diffusiondb. Raises ManifestError for any other.
    """
    name = _DIFFUSIONDB.get(code)
    if name is None:
        known = ", ".join(f"{one} ({name})" for one, name in _DIFFUSIONDB.items())
        raise ManifestError(f"is no sampler's number in DiffusionDB: use one of {known}, or a name")
    return name


def forwards(scheduler: str, steps: int) -> int:
    """How often a denoiser is called for one image without guidance.

    Heun and DPM2 take two forwards in each step but the last; PNDM takes its second step twice. A pipeline's
    own scheduler, "default", is taken for one of one forward a step.
    """
    return 2 * steps - 1 if scheduler in _TWICE else steps + (scheduler == "PNDM" and steps > 1)
