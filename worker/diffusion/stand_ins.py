"""What stands in for a module in an image's copy of a pipeline: it looks like the module and does more, or
less, when it is called.
"""

from __future__ import annotations

import copy
import inspect
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any

import torch

from worker.diffusion.contents import Digests, content_of
from worker.diffusion.decoding import timed_decoding
from worker.diffusion.in_float32 import in_float32
from worker.diffusion.sharing_errors import Refused
from worker.diffusion.tensors_within import tensors_within

CallDenoiser = Callable[[str, Any, dict[str, Any]], Any]
"""Takes a denoiser's name, its module and the call's arguments by name; gives the output."""

_REMEMBERED = 512 << 20
_NOTHING = object()


class StandIn:
    """Passes everything to a module except what a subclass defines."""

    def __init__(self, name: str, module: Any) -> None:
        self.__dict__.update(_name=name, _module=module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)

    def __setattr__(self, name: str, value: Any) -> None:
        raise Refused(f"the pipeline sets {self._name}.{name}, which its images share")

    @property  # type: ignore[misc]  # pipelines ask isinstance(self.unet, UNet2DConditionModel)
    def __class__(self) -> type:
        return type(self._module)


class Denoiser(StandIn):
    """A denoiser whose calls go to `call`."""

    def __init__(
        self, name: str, module: Any, call: CallDenoiser, config: Mapping[str, Any] | None = None
    ) -> None:
        """config: what the pipeline sees as the module's; None: its own."""
        super().__init__(name, module)
        self.__dict__["_call"] = call
        if config is not None:
            self.__dict__["config"] = config

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # Of the class, because an offload hook puts something else in the module's own place.
        names, defaults = _arguments(type(self._module).forward)
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        # What a pipeline gives in one call and leaves out in the next would be two keys.
        call = {name: value for name, value in given.items() if value is not defaults.get(name, _NOTHING)}
        return self._call(self._name, self._module, call)

    @property
    def attn_processors(self) -> Mapping[str, Any]:
        """Refused: code that asks for them is about to replace some, layer by layer, and to put them back."""
        raise Refused(f"the pipeline replaces the attention of {self._name}, which its images share")

    def set_attn_processor(self, *_args: Any, **_kwargs: Any) -> None:
        raise Refused(f"the pipeline replaces the attention of {self._name}, which its images share")

    def cache_context(self, _name: str) -> AbstractContextManager[None]:
        """Does nothing: a cache between steps would be the state of a module that images share."""
        return nullcontext()

    def _reset_stateful_cache(self, *_args: Any, **_kwargs: Any) -> None:
        """Does nothing, for the same reason."""


class WatchedAutoencoder(StandIn):
    """An autoencoder that notes in `finite` whether what it decodes, and what comes of it, is finite.

    It never computes in float16, whose range its activations leave: the picture would be black. Some
    pipelines see to that themselves, for configurations that say so (`force_upcast`); others do not. Weights
    in float32 beside a denoiser in half precision are right too: it takes and gives the pipeline's format.
    """

    def __init__(
        self, name: str, module: Any, finite: list[torch.Tensor], noise: torch.Generator | None = None
    ) -> None:
        """noise: what is drawn from where a pipeline names no generator; None: torch's own."""
        super().__init__(name, module)
        self.__dict__.update(_finite=finite, _noise=noise)

    def decode(self, latents: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        with timed_decoding(latents.device), self._in_range(latents):
            decoded = self._module.decode(self._taken(latents), *args, **kwargs)
        picture = decoded[0] if isinstance(decoded, tuple) else decoded.sample
        self._finite.extend([latents.isfinite().all(), picture.isfinite().all()])
        return decoded

    def encode(self, pictures: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        with self._in_range(pictures):
            encoded = self._module.encode(self._taken(pictures), *args, **kwargs)
        posterior = getattr(encoded, "latent_dist", None)
        if posterior is None:
            return encoded
        if posterior.parameters.dtype != pictures.dtype:
            # The noise that is drawn, and the latents, are of the format of what was encoded.
            posterior = encoded.latent_dist = type(posterior)(posterior.parameters.to(pictures.dtype))
        # SD3's ControlNets would draw from torch's own generator, and their pictures be others each time.
        draw, own = posterior.sample, self._noise
        posterior.sample = lambda generator=None: draw(own if generator is None else generator)
        return encoded

    @contextmanager
    def _in_range(self, given: torch.Tensor) -> Iterator[None]:
        """Inside, the module computes in no float16 and in no autocast."""
        device = given.device.type
        if torch.is_autocast_enabled(device) or self._module.dtype == torch.float16:
            with torch.autocast(device, enabled=False), in_float32([self._module], [torch.float16]):
                yield
        else:
            yield

    def _taken(self, given: torch.Tensor) -> torch.Tensor:
        """What is given, as the module takes it: a module that is held in float32 converts nothing itself."""
        converted = torch.is_autocast_enabled(given.device.type) or self._module.dtype == torch.float32
        return given.to(self._module.dtype) if converted else given


class RememberedTexts:
    """Outputs of text encoders by what they were given, so that a job's negative prompt is encoded once."""

    def __init__(self, most: int = _REMEMBERED) -> None:
        """most: bytes of outputs that are kept; the longest unused goes first."""
        self._most, self._size = most, 0
        self._outputs: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._digests = Digests()

    def encoder(self, name: str, module: Any) -> RememberedEncoder:
        """What stands in for a text encoder."""
        return RememberedEncoder(name, module, self)

    def output(self, name: str, module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """The encoder's output of a call; a copy, which the pipeline may write into.

        What holds tensors that cannot be told apart, such as keys and values of texts before it, is encoded
        each time.
        """
        content = content_of({"args": args, **kwargs}, self._digests)
        if content is None:
            return module(*args, **kwargs)
        key = (name, content)
        if key in self._outputs:
            self._outputs.move_to_end(key)
            return copy.deepcopy(self._outputs[key][0])
        output = module(*args, **kwargs)
        size = sum(memory.nbytes() for memory in _memories(output))
        if size <= self._most:
            self._outputs[key] = (copy.deepcopy(output), size)
            self._size += size
            while self._size > self._most:
                self._size -= self._outputs.popitem(last=False)[1][1]
        return output

    def forget(self) -> None:
        """Drops every output."""
        self._outputs.clear()
        self._size = 0


class RememberedEncoder(StandIn):
    """A text encoder that encodes a text once."""

    def __init__(self, name: str, module: Any, texts: RememberedTexts) -> None:
        super().__init__(name, module)
        self.__dict__["_texts"] = texts

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._texts.output(self._name, self._module, args, kwargs)


@cache
def _arguments(forward: Callable[..., Any]) -> tuple[tuple[str, ...], Mapping[str, Any]]:
    """The names of a method's arguments, without `self`, and the defaults of those that have one."""
    parameters = inspect.signature(forward).parameters
    defaults = {name: parameter.default for name, parameter in parameters.items()}
    return tuple(parameters)[1:], {
        name: default for name, default in defaults.items() if default is not inspect.Parameter.empty
    }


def _memories(value: Any) -> list[torch.UntypedStorage]:
    """The memory of every tensor that a value holds, once where several share it: a copy has as much."""
    memories = [tensor.untyped_storage() for tensor in tensors_within(value)]
    return [*{memory.data_ptr(): memory for memory in memories}.values()]
