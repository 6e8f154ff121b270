"""Single-file checkpoints of zeros and their configurations, for tests that load no weights."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Shapes = Mapping[str, list[int]]
UNET = "model.diffusion_model."
CLIP = "text_model.embeddings.position_embedding.weight"

SD: Shapes = {
    f"{UNET}input_blocks.0.0.weight": [8, 4, 3, 3],
    "first_stage_model.decoder.conv_in.weight": [8, 4, 3, 3],
    f"cond_stage_model.transformer.{CLIP}": [77, 8],
    "cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1.bias": [8],
    "cond_stage_model.transformer.text_model.encoder.layers.1.mlp.fc1.bias": [8],
}
XL: Shapes = {
    f"{UNET}input_blocks.0.0.weight": [8, 4, 3, 3],
    f"{UNET}label_emb.0.0.weight": [8, 8],
    "first_stage_model.decoder.conv_in.weight": [8, 4, 3, 3],
    f"conditioner.embedders.0.transformer.{CLIP}": [77, 8],
    "conditioner.embedders.1.model.positional_embedding": [77, 8],
    "conditioner.embedders.1.model.transformer.resblocks.0.ln_1.bias": [8],
}
FLUX: Shapes = {
    "double_blocks.0.img_attn.norm.key_norm.scale": [8],
    "single_blocks.0.norm.key_norm.scale": [8],
    "img_in.weight": [8, 64],
    "guidance_in.in_layer.weight": [8, 8],
}


def checkpoint(
    file: Path, shapes: Shapes, dtype: str = "F16", metadata: Mapping[str, str] | None = None
) -> Path:
    """A safetensors file of zeros."""
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    end = 0
    for name, shape in shapes.items():
        size = {"F16": 2, "U8": 1}[dtype]
        for side in shape:
            size *= side
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(struct.pack("<Q", len(text)) + text + bytes(end))
    return file


def configuration(folder: Path, class_name: str, **configs: Mapping[str, Any]) -> Path:
    """A pipeline folder without weights."""
    parts = {
        "StableDiffusionPipeline": ("unet", "vae", "text_encoder"),
        "StableDiffusionXLPipeline": ("unet", "vae", "text_encoder", "text_encoder_2"),
    }.get(class_name, ("transformer", "vae", "text_encoder", "text_encoder_2"))
    index = {"_class_name": class_name} | {
        name: ["diffusers", "X"] for name in (*parts, "scheduler", "tokenizer")
    }
    for name in (*parts, "scheduler", "tokenizer"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        file = "scheduler_config.json" if name == "scheduler" else "config.json"
        usual = {"unet": {"in_channels": 4}, "vae": {"block_out_channels": [1, 2, 3, 4]}}.get(name, {})
        (folder / name / file).write_text(json.dumps(usual | dict(configs.get(name, {}))))
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder
