"""Where a setting `clip_skip` arrives, from every place where it can be given; ImageRequest must have it.

    python new_setting_journey.py FOLDER

Prints JSON: what each station saw. `tests/test_new_setting.py` adds the setting and judges.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from jobs.entry import Entry
from jobs.errors import ImagemillError
from jobs.ledger.shard import Shard, decode_shard, encode_shard
from jobs.output.contents import Contents
from jobs.output.metadata import metadata_record, request_of_record
from jobs.output.shard_table import shard_table
from jobs.request import ImageRequest
from producer.manifest.base_request import base_request
from producer.manifest.manifest import json_schema, load_manifest
from producer.requests.expand import identify
from worker.render import parse_request

FILES = {
    "rows.jsonl": '{"prompt": "jsonl", "clip_skip": 3}\n{"prompt": "jsonl, as in settings"}\n',
    "rows.csv": "prompt,clip_skip\ncsv,4\n",
    "all.yaml": """
        name: all
        model: instant
        settings: {clip_skip: 1, seed: 7}
        prompts: [as in settings, {prompt: prompt, clip_skip: 2}]
        prompts_from: [rows.jsonl, rows.csv, rows.parquet]
    """,
    "sweep.yaml": """
        name: sweep
        model: instant
        settings: {clip_skip: 1}
        sweep: {clip_skip: [0, 6]}
        prompts: [sweep]
    """,
    "none.yaml": "{name: none, model: instant, prompts: [none]}",
}
WRONG = {
    "settings": "{name: wrong, model: instant, settings: {clip_skip: 13}, prompts: [a]}",
    "prompt": '{name: wrong, model: instant, prompts: [{prompt: a, clip_skip: "1"}]}',
    "sweep": "{name: wrong, model: instant, sweep: {clip_skip: [1, 1]}, prompts: [a]}",
}


def refusal(manifest: Path, text: str) -> str:
    """Why a manifest is refused."""
    manifest.write_text(text)
    try:
        load_manifest(manifest)
    except ImagemillError as error:
        return str(error).replace(f"{manifest}:", "")
    return "taken"


def wrong_request(text: str) -> str:
    """Why `--request` is refused."""
    try:
        parse_request(text)
    except ImagemillError as error:
        return str(error)
    return "taken"


def journey(folder: Path) -> dict[str, Any]:
    """What each station saw, by its name."""
    for name, text in FILES.items():
        (folder / name).write_text(text)
    rows = pyarrow.table({"prompt": ["parquet"], "clip_skip": [5.0]})
    pyarrow.parquet.write_table(rows, folder / "rows.parquet")
    entries, decoded = list[Entry](), list[Entry]()
    for name in ("all.yaml", "sweep.yaml", "none.yaml"):
        manifest = load_manifest(folder / name)
        model = manifest.resolve_model()
        base = base_request(manifest, model)
        mine = [entry for _image_id, entry in identify(manifest, model)]
        blob = encode_shard(Shard(range(len(mine)), mine), base)
        decoded += decode_shard(blob, base, manifest.name).entries
        entries += mine
    requests = [entry.request for entry in decoded]
    records = [
        metadata_record(
            entry, file_name=f"{n:05}.png", sha256="0", job_id="all-1", rendered={}, column_names=[]
        )
        for n, entry in enumerate(decoded)
    ]
    table = shard_table(str, records, [])
    card = Contents()
    card.add(records[0])
    least = json.dumps({"prompt": "x", "seed": 1, "model": "m", "revision": "r"})
    definitions = json_schema()["$defs"]
    return {
        "wire": [[request.prompt, request.clip_skip] for request in requests],  # type: ignore[attr-defined]
        "wire loses nothing": decoded == entries,
        "--request": [parse_request(request.to_json()).clip_skip for request in requests],  # type: ignore[attr-defined]
        "--request without": parse_request(least).clip_skip,  # type: ignore[attr-defined]
        "metadata": [record.get("clip_skip", "left out") for record in records],
        "metadata gives the request back": [request_of_record(record) for record in records] == requests,
        "metadata columns": list(records[0]),
        "parquet": [str(table.schema.field("clip_skip").type), table["clip_skip"].to_pylist()],
        "card": card.shared["clip_skip"],
        "ids": {
            request.prompt: request.image_id for request in requests if request.prompt in ("none", "prompt")
        },
        "id at the default": ImageRequest(prompt="a fox", seed=3, model="m", revision="r").image_id,
        "JSON at the default": ImageRequest(prompt="a fox", seed=3, model="m", revision="r").to_json(),
        "schema": {
            name: definitions[name]["properties"]["clip_skip"]
            for name in ("DefaultSettings", "PromptLine", "Sweep")
        },
        "refused": {where: refusal(folder / "wrong.yaml", text) for where, text in WRONG.items()}
        | {"--request": wrong_request(least.replace("1", '1, "clip_skip": 13'))},
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(journey(Path(sys.argv[1]))))
