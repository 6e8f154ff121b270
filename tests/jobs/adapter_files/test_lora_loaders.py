"""What diffusers' loaders of LoRAs take, held against the installed ones."""

from __future__ import annotations

import diffusers
import pytest
import torch
from diffusers.loaders import lora_pipeline

from jobs.adapter_files.lora_file import Form, Pair
from jobs.adapter_files.lora_loaders import LOADERS, LoraLoader
from jobs.pipelines.pipelines import admitted

MODULE = "transformer_blocks.0.attn.to_q"
ENDS: dict[Pair, tuple[str, str]] = {
    "lora_A": ("lora_A.weight", "lora_B.weight"),
    "lora_down": ("lora_down.weight", "lora_up.weight"),
    "lora.down": ("lora.down.weight", "lora.up.weight"),
}
LOADER_NAMES = sorted({one.name for one in LOADERS.values()})
WRONG = {"PRXPipeline": "its loader looks for a unet, and it has a transformer"}
"""Classes that diffusers gives a loader that cannot be right."""


def loader_class(class_name: str) -> type | None:
    """diffusers' loader of a class of pipelines."""
    classes = getattr(diffusers, class_name).__mro__
    return next((one for one in classes if one.__name__.endswith("LoraLoaderMixin")), None)


def told(name: str) -> LoraLoader:
    return next(one for one in LOADERS.values() if one.name == name)


def converted(name: str, tensors: dict[str, torch.Tensor]) -> list[str]:
    """The names that diffusers' loader makes of these tensors."""
    found = getattr(lora_pipeline, name).lora_state_dict(dict(tensors))
    return list(found[0] if isinstance(found, tuple) else found)


def loads(name: str, tensors: dict[str, torch.Tensor]) -> bool:
    """Whether diffusers makes of these tensors layers of a component that it loads into."""
    try:
        found = converted(name, tensors)
    except (ValueError, KeyError, RuntimeError):
        return False
    begins = tuple(f"{one}." for one in getattr(lora_pipeline, name)._lora_loadable_modules)
    return all("lora" in one for one in found) and any(one.startswith(begins) for one in found)


def layer(name: str, pair: Pair, out: int = 8, *, alpha: bool = False) -> dict[str, torch.Tensor]:
    first, second = ENDS[pair]
    tensors = {f"{name}.{first}": torch.ones(2, 8), f"{name}.{second}": torch.ones(out, 2)}
    return tensors | ({f"{name}.alpha": torch.tensor(1.0)} if alpha else {})


def test_every_admitted_class_has_the_loader_that_diffusers_gives_it() -> None:
    found = {name: loader_class(name) for name in admitted()}
    with_loader = {name: loader.__name__ for name, loader in found.items() if loader is not None}
    ours = {name: loader.name for name, loader in LOADERS.items() if name in found}
    assert ours == {name: loader for name, loader in with_loader.items() if name not in WRONG}


@pytest.mark.parametrize("name", LOADER_NAMES)
def test_the_components_are_those_that_diffusers_loads_into(name: str) -> None:
    assert list(told(name).components) == getattr(lora_pipeline, name)._lora_loadable_modules


@pytest.mark.parametrize("name", LOADER_NAMES)
def test_diffusers_reads_names_after_a_component_and_alphas_where_we_say_so(name: str) -> None:
    loader = told(name)
    plain = f"{loader.denoiser}.{MODULE}"
    assert loads(name, layer(plain, "lora_A"))
    assert loads(name, layer(plain, "lora.down"))
    of_down = converted(name, layer(plain, "lora_down"))
    # The last step of loading, which no loader has of its own, knows lora_A and lora.down alone.
    assert ("lora_down" in loader.pairs) == (of_down != [] and all("lora_down" not in one for one in of_down))
    assert loads(name, layer(plain, "lora_A", alpha=True)) == (loader.alphas or loader.bare_with)


UNREAD: dict[Form, str] = {"peft": f"base_model.model.{MODULE}", "comfyui": f"diffusion_model.{MODULE}"}


@pytest.mark.parametrize("name", LOADER_NAMES)
def test_diffusers_loads_nothing_of_the_forms_that_we_refuse(name: str) -> None:
    loader = told(name)
    assert not loads(name, layer(MODULE, "lora_A"))
    assert loads(name, layer(MODULE, "lora_down", alpha=True)) == loader.bare_with
    for form, called in UNREAD.items():
        if form not in loader.forms:
            assert not loads(name, layer(called, "lora_A"))
    if "kohya" not in loader.forms:
        assert not loads(name, layer("lora_unet_transformer_blocks_0_attn_to_q", "lora_down", alpha=True))


def test_flux_reads_comfyuis_form_with_lora_down_alone() -> None:
    name = "diffusion_model.double_blocks.0.img_attn.qkv"
    assert loads("FluxLoraLoaderMixin", layer(name, "lora_down", 24))
    assert not loads("FluxLoraLoaderMixin", layer(name, "lora_A", 24))


def test_flux_reads_kohyas_form_with_its_own_names_alone() -> None:
    assert loads("FluxLoraLoaderMixin", layer("lora_unet_double_blocks_0_img_attn_qkv", "lora_down", 24))
    assert not loads("FluxLoraLoaderMixin", layer("lora_unet_transformer_blocks_0_attn_to_q", "lora_down"))
