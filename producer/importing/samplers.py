"""What other programs call a sampler, and the scheduler of `jobs.schedulers` that it is.

Sources: ComfyUI's `comfy/samplers.py` (also SwarmUI and Fooocus), InvokeAI's `schedulers.py` (`_k` is
Karras), A1111's `sd_samplers_kdiffusion.py` and `sd_schedulers.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from jobs.errors import ManifestError
from jobs.schedulers import find_scheduler

_NAMES: Final = {
    "ddim": "DDIM",
    "ddpm": "DDPM",
    "deis": "DEIS",
    "dpm_2": "DPM2",
    "dpm_2_ancestral": "DPM2 a",
    "dpmpp_2m": "DPM++ 2M",
    "dpmpp_2m_sde": "DPM++ 2M SDE",
    "dpmpp_2s": "DPM++ 2S",
    "dpmpp_3m": "DPM++ 3M",
    "euler": "Euler",
    "euler_ancestral": "Euler a",
    "heun": "Heun",
    "kdpm_2": "DPM2",
    "kdpm_2_a": "DPM2 a",
    "lms": "LMS",
    "pndm": "PNDM",
    "plms": "PNDM",
    "uni_pc": "UniPC",
    "unipc": "UniPC",
}
_USUAL: Final = frozenset({"", "automatic", "uniform", "normal", "native", "discrete"})
"""Schedules that space the noise levels as the sampler does by itself."""


@dataclass(frozen=True, slots=True)
class Sampler:
    """A scheduler that a program's sampler is, or comes nearest to."""

    name: str | None
    """None where there is none."""
    differs: str = ""
    """In what it is another; empty where it is the same."""


def find_sampler(sampler: str, schedule: str = "") -> Sampler:
    """The scheduler of a program's sampler with its schedule of noise levels, both in any case."""
    bare, spaced = sampler.strip(), schedule.strip()
    found = _named(f"{bare} {spaced}" if spaced.casefold() not in _USUAL else bare)
    if found is not None:
        return Sampler(found)
    key = bare.casefold()
    for ending, own in (
        (" karras", "Karras"),
        (" exponential", "Exponential"),
        ("_ka", "Karras"),
        ("_k", "Karras"),
    ):
        if spaced.casefold() in _USUAL and key.endswith(ending):
            return find_sampler(bare[: -len(ending)], own)
    if key.endswith("_gpu"):
        base = find_sampler(bare[: -len("_gpu")], spaced)
        return (
            base if base.name is None else Sampler(base.name, base.differs or "its noise is drawn on a GPU")
        )
    base_name = _named(bare)
    if base_name is None:
        return Sampler(None)
    if base_name == "DDIM" and spaced.casefold() == "ddim_uniform":
        return Sampler(base_name)
    with_schedule = _named(f"{base_name} {spaced}")
    if with_schedule is not None:
        return Sampler(with_schedule)
    return Sampler(base_name, f"there is no {base_name} with the schedule {spaced}")


def _named(name: str) -> str | None:
    for one in (name, _NAMES.get(name.casefold().removeprefix("k_"))):
        if one is not None:
            try:
                return find_scheduler(one).name
            except ManifestError:
                continue
    return None
