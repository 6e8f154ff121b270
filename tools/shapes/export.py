"""Writes the trained parts as a diffusers pipeline folder in half precision."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from diffusers import StableDiffusionPipeline

from tools.shapes.networks import build_scheduler
from tools.shapes.progress import digest, say, write_whole


def export(vae: Any, tokenizer: Any, unet: Any, text_encoder: Any, folder: Path) -> None:
    """Save the pipeline to `folder`: fp16 safetensors, and the tokenizer in both of its formats.

    made_from.json, written last, says of which weights; a folder that has these already is left alone.
    """
    tensors = (tensor for part in (vae, unet, text_encoder) for tensor in part.state_dict().values())
    words = json.dumps(tokenizer.get_vocab(), sort_keys=True)
    made_from = f"{json.dumps({'weights': digest(*tensors, words)})}\n".encode()
    mark = folder / "made_from.json"
    if mark.is_file() and mark.read_bytes() == made_from:
        say("export", f"{folder} is there: skipped")
        return
    pipeline = StableDiffusionPipeline(
        # Copies: half precision is for the files, the caller's models stay as they are.
        vae=copy.deepcopy(vae).cpu().half(),
        text_encoder=copy.deepcopy(text_encoder).cpu().half(),
        tokenizer=tokenizer,
        unet=copy.deepcopy(unet).cpu().half(),
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    # Recent transformers write tokenizer.json alone; older ones and other programs want these two.
    model = json.loads((folder / "tokenizer" / "tokenizer.json").read_text("utf-8"))["model"]
    vocabulary = json.dumps(model["vocab"], ensure_ascii=False)
    (folder / "tokenizer" / "vocab.json").write_text(vocabulary + "\n", "utf-8")
    merges = "\n".join(" ".join(pair) for pair in model["merges"])
    (folder / "tokenizer" / "merges.txt").write_text(f"#version: 0.2\n{merges}\n", "utf-8")
    write_whole(mark, made_from)
    say("export", f"{folder}")
