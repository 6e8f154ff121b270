"""What is told by hand of one class of diffusers' pipelines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

ALWAYS: Final = "always"


@dataclass(frozen=True, slots=True)
class Stage:
    """One run of a denoiser through its steps."""

    steps: str = "num_inference_steps"
    """The argument that counts its steps."""
    switch: str | None = "guidance_scale"
    """The argument that switches classifier-free guidance on; None for a stage without, "always" for one that
    takes the cost of guidance at any value."""
    above: float = 1.0
    """The value above which guidance is on."""
    guided: tuple[int, int] = (2, 1)
    """Slots of a call and calls of a guided step."""
    more: tuple[str, float] | None = None
    """An argument that adds a slot to each call while it is above a value, and that value."""

    def described(self) -> dict[str, Any]:
        """As JSON."""
        slots, calls = self.guided
        entry: dict[str, Any] = {"steps": self.steps, "guided": {"slots": slots, "calls": calls}}
        if self.switch == ALWAYS:
            return entry | {"unguided": entry["guided"]}
        entry["unguided"] = {"slots": 1, "calls": 1}
        if self.switch is not None:
            entry["switch"] = {"argument": self.switch, "above": self.above}
        if self.more is not None:
            entry["more"] = {"argument": self.more[0], "above": self.more[1]}
        return entry


@dataclass(frozen=True, slots=True)
class Limits:
    """Which numbers an argument of a call may be."""

    least: float | None = None
    above: float | None = None
    """The number that it must be greater than."""
    most: float | None = None

    def described(self) -> dict[str, float]:
        """As JSON."""
        given = {"least": self.least, "above": self.above, "most": self.most}
        return {name: limit for name, limit in given.items() if limit is not None}


@dataclass(frozen=True, slots=True)
class Known:
    """One admitted class."""

    schedulers: str
    """"diffusion" takes all of Stable Diffusion's, "own" only the saved one. Any other text says what a flow
    pipeline gives its scheduler: "steps", "sigmas, mu" (numpy's), "list of sigmas, mu", "tensor of…"."""
    multiple: Mapping[str, int]
    """What height and width must be a multiple of: {"pixels": 16}, {"latents": 2} or {"squared": 1}."""
    guidance: str | None = "guidance_scale"
    """The argument that a manifest's `guidance_scale` is; None for a class that has none."""
    switch: str | None = "guidance_scale"
    above: float = 1.0
    guided: tuple[int, int] = (2, 1)
    more: tuple[str, float] | None = None
    """As in `Stage`, of a class of one stage."""
    least: float = 1.0
    """The least guidance that means something to it."""
    guides: float | None = None
    """The default of guidance where the signature has none."""
    several: tuple[Stage, ...] = ()
    """The stages of a class that has more than one."""
    scale: int | Mapping[str, Any] | None = None
    """Pixels of a latent, or where a folder says them, where the class does so in a way of its own."""
    default: Mapping[str, Any] | None = None
    """The default size, where the class says it in a way of its own."""
    sizes: Callable[[Any], Any] | None = None
    """From the class's module the only sizes that it does not round: (height, width)."""
    unless: str | None = None
    """An argument that, at false, lifts `sizes`."""
    area: bool | str = False
    """It scales every size to the area of its default one, or to that of the argument of this name."""
    fixed: Mapping[str, tuple[Any, str]] = field(default_factory=dict)
    """Arguments that are always given, each with its value and why no manifest may choose another."""
    needs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What arguments need: {"steps": 2} is null at any other number of steps, {"steps_within": True} at least
    as many as there are steps, {"dynamic_shift": True} a model whose noise levels follow the size."""
    left_out: frozenset[str] = frozenset()
    """Arguments that do nothing without a picture."""
    own: tuple[str, ...] = ("",)
    """The keys of the tasks that a model's own class paints, as in `jobs.pipelines.pipeline_task`."""
    keeps_steps: bool = False
    """Whether all steps are painted, whatever the strength."""
    of: str | None = None
    """The model's class, with its sizes, of a class in tools/task_table.py."""

    def stages(self) -> tuple[Stage, ...]:
        """What its denoisers do, in order."""
        if self.several:
            return self.several
        return (Stage("num_inference_steps", self.switch, self.above, self.guided, self.more),)
