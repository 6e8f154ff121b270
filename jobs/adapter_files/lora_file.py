"""What a safetensors file of a LoRA is, by the names and shapes in its header alone.

Names of layers come in several forms, each by another program: `unet.down_blocks.0….lora_A.weight` is
diffusers', `lora_unet_down_blocks_0_….lora_down.weight` kohya's, `diffusion_model.….lora_A.weight` ComfyUI's
and ai-toolkit's, `base_model.model.….lora_A.weight` peft's own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from jobs.model_files.checkpoint_kind import CheckpointKind, kind_of
from jobs.model_files.model_folder import PICKLES
from jobs.model_files.safetensors_header import SUFFIX, HeaderError, SafetensorsHeader, header_of

Form = Literal["diffusers", "kohya", "comfyui", "peft", "bare"]
"""How layers are named. diffusers: after a component, `unet.`; kohya: `lora_unet_`, `lora_te1_`, with
underscores for dots; comfyui: after `diffusion_model.`; peft: after `base_model.model.`; bare: without any of
these."""
Pair = Literal["lora_A", "lora_down", "lora.down"]
"""What the first matrix of a layer is called."""

COMPONENTS: Final = ("unet", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3", "prior")
KOHYA: Final = {
    "lora_unet_": "",
    "lora_transformer_": "",
    "lora_te_": "text_encoder",
    "lora_te1_": "text_encoder",
    "lora_te2_": "text_encoder_2",
    "lora_te3_": "text_encoder_3",
}
"""How kohya's names begin -> the component; empty: the denoiser."""

_HALF = re.compile(
    r"(?P<lora_A>\.lora_[AB](?:\.default)?(?:\.weight)?)$"
    r"|(?P<lora_down>\.lora_(?:down|up)\.weight)$"
    r"|(?P<old>(?:\.lora_linear_layer|\.lora|_lora)\.(?:down|up)\.weight)$"
)
_FIRST: Final = (".lora_A", ".lora_down", ".down.")
"""What the end of the first matrix's name holds."""
_KEPT = re.compile("[0-9a-f]{64}")
"""How an output calls a file that it keeps."""
_ALPHA = re.compile(r"\.alpha$")
_OF_PEFT = re.compile(r"\.lora_magnitude_vector(?:\.default)?(?:\.weight)?$")
_DORA_SCALE: Final = ".dora_scale"
_OTHER_KINDS: Final = {
    ".lokr_": "a LoKr",
    ".hada_": "a LoHa",
    ".oft_": "an OFT",
    ".boft_": "a BOFT",
    ".glora": "a GLoRA",
    ".on_input": "an IA3",
    ".vera_lambda": "a VeRA",
}
"""What names of other adapters hold."""


@dataclass(frozen=True, slots=True)
class LoraLayer:
    """One layer that a LoRA changes; a matrix that is missing is None."""

    down: tuple[int, ...] | None
    """The shape [rank, in, …] of its first matrix."""
    up: tuple[int, ...] | None
    """The shape [out, rank, …] of its second."""

    @property
    def rank(self) -> int | None:
        """How many directions it has."""
        return self.down[0] if self.down else None

    @property
    def whole(self) -> bool:
        """Whether both matrices are there, and fit each other."""
        if self.down is None or self.up is None or len(self.down) < 2 or len(self.up) < 2:
            return False
        return self.down[0] == self.up[1]


@dataclass(frozen=True, slots=True)
class LoraFile:
    """What a LoRA's file holds."""

    form: Form
    pairs: frozenset[Pair]
    layers: Mapping[str, LoraLayer]
    """By their names in the file, without what follows the layer's own."""
    alphas: bool
    """Whether layers have an alpha, by which their scale is divided."""
    magnitudes: bool
    """Whether it is a DoRA as peft writes it (`lora_magnitude_vector`)."""
    dora_scales: bool
    """Whether it is a DoRA as kohya's and LyCORIS write it (`dora_scale`)."""
    default: bool
    """Whether names hold peft's `.default.`."""
    others: tuple[str, ...]
    """Tensors that belong to no layer of a LoRA."""

    @property
    def ranks(self) -> tuple[int, ...]:
        """Every rank that a layer has, each once, ascending."""
        return tuple(sorted({layer.rank for layer in self.layers.values() if layer.rank is not None}))

    @property
    def components(self) -> tuple[str, ...]:
        """The components that it changes, as far as its names tell; "" is the denoiser by any name."""
        return tuple(sorted({component_of(name, self.form) for name in self.layers}))

    @property
    def first(self) -> str:
        """The name of one layer, to be shown."""
        return min(self.layers)

    @property
    def original_names(self) -> bool:
        """Whether layers are called as the model's authors did (double_blocks), not as diffusers does."""
        return any(_ORIGINAL.search(name) is not None for name in self.layers)

    @property
    def summary(self) -> str:
        """What it is, for people: `LoRA of 4 layers, rank 8, in kohya's form`."""
        kind = "DoRA" if self.magnitudes or self.dora_scales else "LoRA"
        ranks = "-".join(str(rank) for rank in sorted({self.ranks[0], self.ranks[-1]})) if self.ranks else "?"
        return f"{kind} of {len(self.layers):,} layers, rank {ranks}, in the form {self.form}"


_ORIGINAL = re.compile(
    r"(?:^|[._])(?:double_blocks|single_blocks|joint_blocks|input_blocks|output_blocks)[._]"
)


def component_of(name: str, form: Form) -> str:
    """The component that a layer of this name is of; "" is the denoiser."""
    if form == "diffusers":
        return name.partition(".")[0]
    if form == "kohya":
        return next((component for prefix, component in KOHYA.items() if name.startswith(prefix)), "")
    if name.startswith("text_encoders."):
        return {"clip_l": "text_encoder", "clip_g": "text_encoder_2"}.get(
            name.split(".")[1], "text_encoder_3"
        )
    return ""


def read_lora(file: Path) -> LoraFile:
    """What a LoRA's file is, read from its header alone.

    Raises HeaderError that says what is wrong with it, and the remedy, for what is no LoRA or cannot be read.
    """
    trouble = name_trouble(file)
    if trouble is not None:
        raise HeaderError(trouble)
    return lora_of(header_of(file))


def name_trouble(file: Path) -> str | None:
    """What is wrong with a LoRA's file by its name, with the remedy; None where its header decides."""
    suffix = file.suffix.lower()
    if suffix in PICKLES:
        return (
            "is a pickle, which runs code when it is loaded: convert it to .safetensors, or name another file"
        )
    if file.suffix != SUFFIX and _KEPT.fullmatch(file.name) is None:
        return f"must end in {SUFFIX}: name such a file"
    return None


def lora_of(header: SafetensorsHeader) -> LoraFile:
    """What the header of a LoRA's file says. Raises HeaderError for that of another file."""
    halves: dict[str, dict[str, tuple[int, ...]]] = {}
    pairs = set[Pair]()
    alphas = magnitudes = dora_scales = default = False
    others = []
    for name, tensor in header.tensors.items():
        if _DORA_SCALE in name:
            dora_scales = True
        elif _OF_PEFT.search(name) is not None:
            magnitudes = True
        elif _ALPHA.search(name) is not None:
            alphas = True
        elif (half := _half(name)) is not None:
            called, pair, role = half
            pairs.add(pair)
            halves.setdefault(called, {})[role] = tensor.shape
            default = default or ".default" in name[len(called) :]
        else:
            others.append(name)
    for mark, kind in _OTHER_KINDS.items():
        if any(mark in name for name in others):
            raise HeaderError(
                f"is {kind}, which is not rendered: name a LoRA, or convert it to one by LyCORIS"
            )
    if not halves:
        raise HeaderError(_no_lora(header))
    layers = {name: LoraLayer(held.get("down"), held.get("up")) for name, held in halves.items()}
    broken = next((name for name, layer in layers.items() if not layer.whole), None)
    if broken is not None:
        layer = layers[broken]
        if layer.down is None or layer.up is None:
            missing = "second" if layer.up is None else "first"
            raise HeaderError(f"is no whole LoRA: {broken} has no {missing} matrix: fetch it again")
        raise HeaderError(
            f"is no LoRA: the matrices of {broken}, {list(layer.down)} and {list(layer.up)}, do not fit each "
            "other: fetch it again, or name another file"
        )
    return LoraFile(
        _form(layers), frozenset(pairs), layers, alphas, magnitudes, dora_scales, default, tuple(others)
    )


def _half(name: str) -> tuple[str, Pair, str] | None:
    """The layer that a tensor is half of, how the half is called, and which it is."""
    found = _HALF.search(name)
    if found is None:
        return None
    pair: Pair = "lora_A" if found["lora_A"] else "lora_down" if found["lora_down"] else "lora.down"
    first = any(mark in found[0] for mark in _FIRST)
    return name[: found.start()], pair, "down" if first else "up"


def _form(layers: Mapping[str, LoraLayer]) -> Form:
    """The form of most layers."""
    counts: dict[Form, int] = {}
    for name in layers:
        form = _form_of(name)
        counts[form] = counts.get(form, 0) + 1
    return max(counts, key=counts.__getitem__)


def _form_of(name: str) -> Form:
    if name.startswith(tuple(KOHYA)):
        return "kohya"
    if name.startswith("base_model.model."):
        return "peft"
    if name.startswith(("diffusion_model.", "model.diffusion_model.", "text_encoders.")):
        return "comfyui"
    return "diffusers" if name.partition(".")[0] in COMPONENTS else "bare"


def _no_lora(header: SafetensorsHeader) -> str:
    if not header.tensors:
        return "holds no tensor: name another file"
    kind = kind_of(header)
    looks = kind.name if isinstance(kind, CheckpointKind) else kind
    if looks.startswith("no checkpoint"):
        looks = f"nothing that is known (its first tensor is {min(header.tensors)})"
    return f"is no LoRA: it looks like {looks}: name a LoRA's file"
