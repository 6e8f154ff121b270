"""A GPU that is none: tensors lie on the CPU, say that they do not, and each wait of the host is counted.

    python -m tests.pretended_gpu StableDiffusionXLPipeline:DDIM FluxPipeline:default

For each tiny pipeline and sampler: what the host of a GPU waits for in the steps of one image, by diffusers'
own call and by interception. The last line is JSON. torch keeps such a device for the life of a process, so
tests run this as one of its own.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from jobs.arguments import arguments_text
from jobs.request import ImageRequest
from tests.tiny.families import FAMILIES
from worker.diffusion.build_scheduler import scheduler_like
from worker.diffusion.interception import Hub, painted
from worker.diffusion.painter import Painter
from worker.renderers.learning import Learned, learn_and_prove, sample_of

NAME = "pretended"
STEPS, IMAGES = 6, 3
_READ = {
    "aten::_local_scalar_dense",
    "aten::equal",
    "aten::is_nonzero",
    "aten::masked_select",
    "aten::nonzero",
}
"""Operators whose results the host needs before it goes on: numbers, or shapes that follow from contents."""
_COPY = {"aten::_to_copy", "aten::copy_"}
_TAKE_INDICES_OF_THE_HOST = {"aten::index", "aten::index_put_"}


class OnGpu(torch.Tensor):
    """A tensor that says it is on the GPU; what it holds is on the CPU."""

    held: torch.Tensor
    linked = False
    """Whether torch asks for the memory that views share by its own account."""

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> OnGpu:
        made: OnGpu = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=torch.device(NAME, 0),
        )
        made.held = held
        return made

    def untyped_storage(self) -> torch.UntypedStorage:
        return super().untyped_storage() if OnGpu.linked else self.held.untyped_storage()

    def __deepcopy__(self, memo: dict[int, Any]) -> OnGpu:
        return OnGpu(self.held.clone())

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func} outside of the pretended GPU")


class PretendedGpu(TorchDispatchMode):
    """Runs every operator on the CPU, and counts in `waits` those for which the host of a GPU waits.

    Raises where a GPU would: an operator on tensors of both places, unless the host's is one number.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = dict(kwargs or {})
        name, device = func._schema.name, named.get("device")
        tensors = [one for one in tree_leaves((args, named)) if isinstance(one, torch.Tensor)]
        there = [one for one in tensors if isinstance(one, OnGpu)]
        here = [one for one in tensors if not isinstance(one, OnGpu)]
        goes_there = bool(there) if device is None else torch.device(device).type == NAME
        if name in _COPY:
            from_there = isinstance(args[-1 if name == "aten::copy_" else 0], OnGpu)
            if from_there != (goes_there if name == "aten::_to_copy" else isinstance(args[0], OnGpu)):
                self.waits["a copy to the host" if from_there else "a copy from the host"] += 1
        elif there and (
            name in _READ or any(one.dtype == torch.bool for one in tensors[1:] * ("index" in name))
        ):
            self.waits[name] += 1
        elif there and name not in _TAKE_INDICES_OF_THE_HOST and any(one.ndim for one in here):
            raise RuntimeError(f"{name}: expected all tensors to be on the same device")
        if device is not None:
            named["device"] = torch.device("cpu")
        held_args, held_named = tree_map(_held, (args, named))
        result = func(*held_args, **held_named)
        if not goes_there:
            return result
        OnGpu.linked = True
        try:
            return return_and_correct_aliasing(func, args, kwargs or {}, tree_map(_moved, result))
        finally:
            OnGpu.linked = False


def _held(value: Any) -> Any:
    return value.held if isinstance(value, OnGpu) else value


def _moved(value: Any) -> Any:
    return OnGpu(value) if isinstance(value, torch.Tensor) and not isinstance(value, OnGpu) else value


def to_gpu(pipeline: DiffusionPipeline) -> None:
    """Moves the weights of a pipeline there."""
    modules = [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]
    for part in {below for module in modules for below in module.modules()}:
        for name, weight in part._parameters.items():
            if weight is not None:
                part._parameters[name] = torch.nn.Parameter(OnGpu(weight.detach()), requires_grad=False)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = OnGpu(buffer)


def together(painter: Painter, learned: Learned, request: ImageRequest) -> list[np.ndarray]:
    """Pictures of seeds 0, 1 …, which share all forwards."""
    hub: Hub[int] = Hub(learned.rules, 8 + painter.spare_slots, spare=painter.spare_slots)
    for seed in range(IMAGES):
        hub.start(seed, partial(painter.paint, replace(request, seed=seed), None))
    while hub.running:
        hub.forward()
    return [painted(result).values for _seed, result in sorted(hub.finished(), key=lambda one: one[0])]


@cache
def learned_of(family_name: str) -> Learned:
    """How images of a family share forwards."""
    painter = Painter(FAMILIES[family_name].build())
    return learn_and_prove(painter, sample_of(painter))


def waits_of(family_name: str, sampler: str) -> dict[str, Any]:
    """Waits of an image from the end of its second step on, and how far pictures are from the CPU's."""
    family = FAMILIES[family_name]
    pipeline = family.build()
    pipeline.set_progress_bar_config(disable=True)
    painter = Painter(pipeline)
    learned = learned_of(family_name)
    request = replace(
        sample_of(painter),
        num_inference_steps=STEPS,
        height=family.height,
        width=family.width,
        guidance_scale=4.0,
        scheduler=sampler,
        arguments=arguments_text(dict(family.arguments)),
    )
    with torch.no_grad():
        expected = together(painter, learned, request)
    painter.forget_texts()
    marks: list[int] = []
    with PretendedGpu() as gpu, torch.no_grad():
        to_gpu(pipeline)
        for module in painter.denoisers.values():
            module.register_forward_pre_hook(lambda *_call: marks.append(gpu.waits.total()))

        def in_steps() -> int:
            calls = len(marks) // STEPS  # a guided image of some families calls twice a step
            found = marks[-1] - marks[2 * calls]
            marks.clear()
            return found

        pictures = together(painter, learned, request)
        ours = in_steps() / IMAGES
        if sampler != "default":
            pipeline.scheduler = scheduler_like(sampler, pipeline.scheduler)
        pipeline(**painter.kind.call_arguments(request), generator=torch.Generator().manual_seed(0))
        own = in_steps()
    # Attention is computed by its formula there, which rounds in another way.
    far = max(float(np.abs(one - other).max()) for one, other in zip(pictures, expected, strict=True))
    return {"diffusers": own, "interception": ours, "difference": far}


if __name__ == "__main__":
    torch.set_num_threads(1)
    _setup_privateuseone_for_python_backend(NAME)
    found = {asked: waits_of(*asked.split(":")) for asked in sys.argv[1:]}
    sys.stdout.write(json.dumps(found) + "\n")
