"""IP-Adapters: what diffusers paints with them, and a UNet that is what it was without one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from jobs.errors import RenderError
from tests.tiny.families import FAMILIES
from tests.tiny.family import random_weights
from worker.diffusion.ip_adapter import IpAdapterSwitch
from worker.renderers.shapes_random import build

SD, XL = "StableDiffusionPipeline", "StableDiffusionXLPipeline"


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def image_encoder() -> Any:
    config = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, projection_dim=8, num_hidden_layers=2, num_attention_heads=2,
        image_size=32, patch_size=16,
    )  # fmt: skip
    with random_weights():
        return CLIPVisionModelWithProjection(config).eval()


def built(family: str) -> Any:
    pipeline = build() if family == SD else FAMILIES[family].build()
    pipeline.set_progress_bar_config(disable=True)
    size = {"height": 32, "width": 32}
    pipeline.register_modules(
        image_encoder=image_encoder(),
        feature_extractor=CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=size),
    )
    return pipeline


def weights(unet: Any) -> dict[str, torch.Tensor]:
    """A plain IP-Adapter for a UNet and the image encoder above."""
    draw, width = torch.Generator().manual_seed(1), unet.config.cross_attention_dim
    tensors = {
        "image_proj.proj.weight": torch.randn(4 * width, 8, generator=draw),
        "image_proj.proj.bias": torch.randn(4 * width, generator=draw),
        "image_proj.norm.weight": torch.ones(width),
        "image_proj.norm.bias": torch.zeros(width),
    }
    crossing = [name for name in unet.attn_processors if not name.endswith("attn1.processor")]
    modules = dict(unet.named_modules())
    for place, name in enumerate(crossing):
        inner = modules[name.removesuffix(".processor")].to_k.weight.shape[0]
        for part in ("to_k_ip", "to_v_ip"):
            key = f"ip_adapter.{2 * place + 1}.{part}.weight"
            tensors[key] = torch.randn(inner, width, generator=draw) * 0.3
    return tensors


PICTURE = Image.fromarray(np.random.default_rng(1).integers(0, 255, (40, 32, 3), dtype=np.uint8))


@torch.no_grad()
def painted(pipeline: Any, **arguments: Any) -> np.ndarray:
    [values] = pipeline(
        "a fox", height=32, width=32, num_inference_steps=2, guidance_scale=4.0, output_type="np",
        generator=torch.Generator().manual_seed(1), **arguments,
    ).images  # fmt: skip
    return np.asarray(values)


@pytest.mark.parametrize("family", [SD, XL])
def test_a_picture_is_diffusers_own_and_the_unet_is_then_what_it_was(family: str, tmp_path: Path) -> None:
    ours, theirs = built(family), built(family)
    before = painted(ours)
    processors = ours.unet.attn_processors
    save_file(weights(ours.unet), tmp_path / "ip.safetensors")
    theirs.load_ip_adapter(str(tmp_path), subfolder="", weight_name="ip.safetensors")
    switch = IpAdapterSwitch(ours.unet)
    for _ in range(2):
        switch.put_on(tmp_path / "ip.safetensors", ours.image_encoder)
        adapted = painted(ours, ip_adapter_image=PICTURE)
        assert np.array_equal(adapted, painted(theirs, ip_adapter_image=PICTURE))
        switch.put_off()
        assert not np.array_equal(adapted, before)
        assert np.array_equal(painted(ours), before)
    assert ours.unet.attn_processors == processors
    assert ours.unet.encoder_hid_proj is None and ours.unet.config.encoder_hid_dim_type is None


def test_a_file_that_does_not_fit_is_refused_and_the_unet_stays(tmp_path: Path) -> None:
    pipeline, file = built(XL), tmp_path / "ip.safetensors"
    switch, before, right = IpAdapterSwitch(pipeline.unet), painted(pipeline), weights(pipeline.unet)
    last = max(right)
    for change, message in (
        (
            {"image_proj.proj.weight": torch.zeros(192, 9)},
            "takes pictures of an image encoder of width 9",
        ),
        ({last: None}, "and the model has"),
        ({"ip_adapter.0.to_k_lora.down.weight": torch.zeros(1)}, "is an IP-Adapter FaceID, which is not"),
        ({name: None for name in right if "image_proj" in name}, "is no IP-Adapter: it lacks tensors"),
    ):
        tensors = {name: tensor for name, tensor in (right | change).items() if tensor is not None}
        if change == {last: None}:
            tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(last[:13])}
        save_file(tensors, file)
        with pytest.raises(RenderError, match=f"^ip_adapter: .*{message}"):
            switch.put_on(file, pipeline.image_encoder)
    assert np.array_equal(painted(pipeline), before)
