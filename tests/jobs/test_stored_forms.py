"""What outputs and Redis hold, to the letter: other bytes here would orphan images or strand a job in flight.

The literals were written by the code before the settings became a table.
"""

from __future__ import annotations

import json
from dataclasses import replace

import zstandard

from jobs.entry import Entry, derived_seed
from jobs.ledger.shard import Shard, encode_shard
from jobs.output.contents import Contents
from jobs.output.metadata import metadata_record
from jobs.output.shard_table import shard_table
from jobs.request import ImageRequest
from producer.manifest.manifest import Manifest
from producer.manifest.parts import ROW_FIELDS, PromptLine, Sweep

BASE = ImageRequest(prompt="", seed=0, model="shapes", revision="sha256:0", negative_prompt="dull")
PLAIN = replace(BASE, prompt='ein "Füchslein" 🦊\n', seed=42)
SET = replace(
    BASE,
    prompt="a fox",
    negative_prompt="",
    height=520,
    width=640,
    num_inference_steps=30,
    guidance_scale=3.0,
    scheduler="Euler a",
    init_latents="1" * 64,
    image_format="webp",
)
RECORD = {
    "file_name": "0.png", "text": 'ein "Füchslein" 🦊\n', "image_id": "d164a549720da946",
    "negative_prompt": "dull", "height": 512, "width": 512, "num_inference_steps": 50,
    "guidance_scale": 7.5, "scheduler": "LMS", "seed": 42, "model": "shapes", "revision": "sha256:0",
    "precision": "auto", "image_format": "png", "image_quality": 95, "init_latents": None,
    "id": 'no "1"', "split": "test", "job_id": "cats-1", "rendered_rows": 8, "flagged": None, "sha256": "ab",
}  # fmt: skip


def record() -> dict[str, object]:
    entry = Entry.of(PLAIN, id='no "1"', columns={"split": "test"})
    return metadata_record(
        entry, file_name="0.png", sha256="ab", job_id="cats-1", rendered={"rows": 8}, column_names=["split"]
    )


def test_the_identity_its_id_and_the_derived_seed() -> None:
    assert PLAIN.identity() == (
        '{"guidance_scale":7.5,"height":512,"image_format":"png","init_latents":null,'
        '"negative_prompt":"dull","num_inference_steps":50,"precision":"auto",'
        '"prompt":"ein \\"Füchslein\\" 🦊\\n","revision":"sha256:0","scheduler":"LMS","seed":42,"width":512}'
    )
    assert PLAIN.image_id == "d164a549720da946"
    assert derived_seed("cats", SET, 2) == 2862185046
    request = replace(SET, seed=2862185046)
    assert request.identity() == (
        '{"guidance_scale":3.0,"height":520,"image_format":"webp","image_quality":95,'
        f'"init_latents":"{"1" * 64}","negative_prompt":"","num_inference_steps":30,"precision":"auto",'
        '"prompt":"a fox","revision":"sha256:0","scheduler":"Euler a","seed":2862185046,"width":640}'
    )
    assert request.image_id == "9a9392f7272a51f6"


def test_the_request_that_a_picture_carries() -> None:
    assert PLAIN.to_json() == (
        '{"guidance_scale": 7.5, "height": 512, "image_format": "png", "image_quality": 95,'
        ' "init_latents": null, "model": "shapes", "negative_prompt": "dull", "num_inference_steps": 50,'
        ' "precision": "auto", "prompt": "ein \\"Füchslein\\" 🦊\\n", "revision": "sha256:0",'
        ' "scheduler": "LMS", "seed": 42, "width": 512}'
    )


def test_rows_on_the_wire() -> None:
    own = replace(SET, image_format="png")
    entries = [
        Entry.of(PLAIN, id='no "1"', columns={"split": "test"}),
        Entry.of(replace(own, seed=derived_seed("cats", own, 2)), seed_ordinal=2),
    ]
    blob = encode_shard(Shard([0, 2], entries), BASE)
    assert zstandard.ZstdDecompressor().decompress(blob).decode() == (
        '{"v":1,"indices":[0,2],"rows":['
        '{"prompt":"ein \\"Füchslein\\" 🦊\\n","seed":42,"id":"no \\"1\\"","columns":{"split":"test"}},'
        '{"negative_prompt":"","height":520,"width":640,"num_inference_steps":30,"guidance_scale":3.0,'
        f'"scheduler":"Euler a","init_latents":"{"1" * 64}","prompt":"a fox","seed_ordinal":2}}]}}'
    )


def test_a_record_of_metadata() -> None:
    assert json.dumps(record()) == json.dumps(RECORD)


def test_the_columns_of_a_parquet() -> None:
    table = shard_table(str, [record()], [])
    assert [(field.name, str(field.type)) for field in table.schema] == [
        ("key", "string"), ("caption", "string"), ("status", "string"), ("error_message", "string"),
        ("width", "int64"), ("height", "int64"), ("sha256", "string"), ("image_id", "string"),
        ("negative_prompt", "string"), ("num_inference_steps", "int64"), ("guidance_scale", "double"),
        ("scheduler", "string"), ("seed", "int64"), ("model", "string"), ("revision", "string"),
        ("precision", "string"), ("image_format", "string"), ("image_quality", "int64"),
        ("init_latents", "string"), ("id", "string"), ("split", "string"), ("job_id", "string"),
        ("rendered_precision", "string"), ("rendered_rows", "int64"), ("rendered_device", "string"),
        ("rendered_versions", "string"), ("rendered_mode", "string"), ("flagged", "string"),
        ("command", "string"),
    ]  # fmt: skip


def test_what_a_card_says_that_all_share() -> None:
    contents = Contents()
    contents.add(record())
    assert list(contents.shared) == [
        "model", "revision", "negative_prompt", "height", "width", "num_inference_steps", "guidance_scale",
        "scheduler", "precision", "image_format", "image_quality", "init_latents", "rendered_rows",
    ]  # fmt: skip


def test_the_manifest_that_an_output_keeps() -> None:
    settings = {"negative_prompt": "dull", "height": 64, "width": 72, "num_inference_steps": 20,
                "guidance_scale": 3.0, "scheduler": "DDIM"}  # fmt: skip
    line = {"prompt": "a", "width": 80, "seed": 1, "id": "x", "columns": {"n": 1}, "init_latents": "/a.npy"}
    manifest = Manifest.from_json(
        {
            "name": "cats",
            "model": "shapes",
            "revision": "sha256:0",
            "output": "/out",
            "settings": settings,
            "prompts": ["a", line],
            "sweep": {"seed": [1, 2], "scheduler": ["LMS"]},
        }
    )
    assert json.dumps(manifest.to_json()) == json.dumps(
        {
            "name": "cats", "model": "shapes", "revision": "sha256:0", "output": "/out", "layout": "files",
            "image_format": "png", "image_quality": 95, "precision": "auto", "mode": "exact",
            "shard_size": 64, "priority": 5, "settings": settings | {"seed": None, "images_per_prompt": 1},
            "max_failures": None, "retention": 604800, "on_bad_row": "stop",
            "sweep": {"scheduler": ["LMS"], "seed": [1, 2]}, "prompts": ["a", line],
        }
    )  # fmt: skip


def test_the_order_of_a_sweep_and_the_fields_of_a_row() -> None:
    assert tuple(Sweep.model_fields) == (
        "negative_prompt", "height", "width", "num_inference_steps", "guidance_scale", "scheduler", "seed",
        "arguments", "syntax", "long_prompts", "image", "mask_image", "control_image", "fit", "strength",
        "controlnet_conditioning_scale", "loras", "textual_inversions", "ip_adapter_image",
        "ip_adapter_scale",
    )  # fmt: skip
    assert ("prompt", *Sweep.model_fields, "images_per_prompt", "seeds", "id") == ROW_FIELDS
    assert tuple(PromptLine.model_fields) == (
        *ROW_FIELDS, "columns", "init_latents", "sample", "sample_seed", "variables",
    )  # fmt: skip
