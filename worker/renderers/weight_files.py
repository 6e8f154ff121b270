"""Which of a model's weight files are loaded: the plain ones, or those of a variant such as fp16."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from jobs.errors import ModelError

_BASES = ("diffusion_pytorch_model", "model")
"""The names under which diffusers and transformers look for weights."""
_SHARD = re.compile(r"-\d+-of-\d+")
_CONVERTED = ("fp16", "bf16")
"""Variants that are loaded, and converted, where there is nothing else."""

_Weights = Mapping[str | None, list[str]]
"""Variant (None: plain) -> the files of one component."""


@dataclass(frozen=True, slots=True)
class WeightFiles:
    """The weight files of a model that are loaded."""

    variant: str | None
    """What diffusers calls `variant`; None for the plain files."""
    names: tuple[str, ...]
    """Weights and their indexes: `unet/diffusion_pytorch_model.safetensors`."""
    remark: str = ""
    """What people should know about the choice; empty where it is the expected one."""

    @property
    def tensors(self) -> tuple[str, ...]:
        """Those of `names` that hold weights."""
        return tuple(name for name in self.names if name.endswith(".safetensors"))


def choose_weights(
    model: str, names: Iterable[str], components: Collection[str], preferred: str | None = None
) -> WeightFiles:
    """The weight files to load, of those that a folder or a repository has.

    `model`: its name, for messages. `names`: relative paths of all its files. `preferred`: the variant to
    load if every component with weights has it. Next come the plain files; where a component has none, a
    variant that it has, with a remark.
    Raises ModelError when a component's weights are of other variants alone.
    """
    found = _by_component(names, components)
    variant = _variant(model, found, preferred)
    chosen = [file for weights in found.values() for file in weights.get(variant, weights.get(None, []))]
    remark = ""
    if variant is not None and variant != preferred:
        alone = [component for component, weights in found.items() if None not in weights]
        others = [component for component, weights in found.items() if variant not in weights]
        remark = f"{', '.join(alone)}: only weights of variant {variant} are there, which are converted"
        both = [name for name, weights in found.items() if variant in weights and name not in alone]
        remark += f"; {', '.join(both)}: of variant {variant} as well" if both else ""
        remark += f"; {', '.join(others)}: plain weights" if others else ""
    return WeightFiles(variant, tuple(sorted(chosen)), remark)


def _variant(model: str, found: Mapping[str, _Weights], preferred: str | None) -> str | None:
    if preferred is not None and found and all(preferred in weights for weights in found.values()):
        return preferred
    without_plain = {component: weights for component, weights in found.items() if None not in weights}
    if not without_plain:
        return None
    for variant in (preferred, *_CONVERTED):
        if variant is not None and all(variant in weights for weights in without_plain.values()):
            return variant
    there = "; ".join(f"{name} has {_listed(weights)}" for name, weights in without_plain.items())
    raise ModelError(
        f"model = {model}: its weights are of no common variant ({there}): name a model with "
        f"plain .safetensors weights, or with those of variant {' or '.join(_CONVERTED)}"
    )


def _listed(weights: _Weights) -> str:
    return ", ".join(sorted(variant for variant in weights if variant is not None))


def _by_component(names: Iterable[str], components: Collection[str]) -> dict[str, _Weights]:
    """The weights of each component that has any."""
    found: dict[str, dict[str | None, list[str]]] = {}
    for name in sorted(names):
        path = PurePosixPath(name)
        if len(path.parts) != 2 or path.parts[0] not in components:
            continue
        is_weights, variant = _parsed(path.name)
        if is_weights:
            found.setdefault(path.parts[0], {}).setdefault(variant, []).append(name)
    return {component: _sharded(weights) for component, weights in found.items()}


def _sharded(weights: Mapping[str | None, list[str]]) -> dict[str | None, list[str]]:
    """The same, without a single file beside an index and its shards, and without an index that has none."""
    kept = {}
    for variant, files in weights.items():
        shards = [file for file in files if _SHARD.search(file) is not None]
        indexes = [file for file in files if file.endswith(".json")]
        chosen = (
            [*indexes, *shards] if shards and indexes else [file for file in files if file not in indexes]
        )
        if chosen:
            kept[variant] = chosen
    return kept


def _parsed(name: str) -> tuple[bool, str | None]:
    """Whether a file's name is one of weights or of their index, and its variant.

    `model.fp16-00001-of-00002.safetensors` and `model.safetensors.index.fp16.json` are of variant fp16.
    """
    base, *rest = _SHARD.sub("", name).split(".")
    if base not in _BASES or "safetensors" not in rest:
        return False, None
    is_index = {"index", "json"} <= set(rest)
    if not (is_index or rest[-1] == "safetensors"):
        return False, None
    variant = ".".join(word for word in rest if word not in ("safetensors", "index", "json"))
    return True, variant if variant else None
