"""An output of many pictures for `serve.py`, as workers commit them: tars and parquets, or folders.

The pictures are a few that the stand-in model `instant` draws, again and again: what a page takes depends on
the records and on where pictures lie, which are those of so many different images. Nothing is synced.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.progress import track

# A script's own folder is on the path, the repository's is not.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jobs.entry import Entry
from jobs.models.models import BUILT_IN
from jobs.output.durable import write_atomically
from jobs.output.files import METADATA
from jobs.output.metadata import Failure, metadata_record
from jobs.output.output import Output
from jobs.output.shard_names import ShardNames
from jobs.output.shard_table import parquet_bytes, shard_table
from jobs.output.stored_shard import FAILURES, LayoutName, entries_of_a_shard
from jobs.output.tar_file import TarWriter
from jobs.request import ImageRequest, quoted
from producer.manifest.base_request import base_request
from producer.manifest.manifest import Manifest
from tests.stand_ins import drawn
from worker.encode import encode

JOB = "many-1"
RARE = "a lighthouse in fog"
"""The prompt of one image in RARELY."""
RARELY, FLAGGED, FAILS, PICTURES = 200_000, 1_000, 5_000, 16
NO_PROMPTS: Mapping[int, str] = {}
SCHEDULERS = ("LMS", "DDIM", "Euler", "DPM++ 2M")
RENDERED = {"precision": "fp32", "rows": 16, "device": "cpu", "versions": {}, "mode": "exact"}


def requests(
    base: ImageRequest, first: int, number: int, prompts: Mapping[int, str] = NO_PROMPTS
) -> Iterator[ImageRequest]:
    """The requests of a job from this one on; those of `prompts` have a text of their own."""
    values = base.to_mapping()
    for index in range(first, first + number):
        usual = RARE if index % RARELY == RARELY // 2 else f"a fox, number {index}, in the snow"
        own = {
            "prompt": prompts.get(index, usual),
            "seed": index,
            "scheduler": SCHEDULERS[index % len(SCHEDULERS)],
        }
        yield ImageRequest(**(values | own))


def make_output(
    folder: Path,
    images: int,
    shard_size: int,
    prompts: Mapping[int, str] = NO_PROMPTS,
    layout: LayoutName = "webdataset",
) -> Output:
    """The output in this folder; shards that are there are kept. In each 5,000 images one has failed.

    `prompts`: other texts than the usual ones, by the number of the image.
    """
    output = Output(folder)
    output.prepare()
    shards = -(-images // shard_size)
    names = ShardNames.for_shards(max(shards, 1), entries_of_a_shard(layout))
    output.settle_names(names)
    manifest = Manifest.from_json(
        {"name": "many", "model": "instant", "revision": "instant-1", "output": str(folder),
         "layout": layout, "shard_size": shard_size, "settings": {"height": 64, "width": 64},
         "prompts": ["a fox"]}
    )  # fmt: skip
    base = base_request(manifest, BUILT_IN["instant"])
    pictures = [encode(drawn(one), one) for one in requests(base, 0, PICTURES)]
    sha256 = [hashlib.sha256(one).hexdigest() for one in pictures]
    failed = 0
    for shard in track(range(shards), "shards", disable=not sys.stderr.isatty()):
        stored = output.stored(shard, layout)
        first = shard * shard_size
        here = min(shard_size, images - first)
        failed += sum((first + place) % FAILS == FAILS - 1 for place in range(here))
        if stored.committed():
            continue
        records: list[dict[str, Any]] = []
        failures: list[Failure] = []
        template: dict[str, Any] = {}
        parts: dict[str, Any] = {}
        for place, request in enumerate(requests(base, first, here, prompts)):
            index = first + place
            entry = Entry.of(request, id=None, columns={"kind": f"k{index % 7}"})
            if index % FAILS == FAILS - 1:
                failures.append(
                    Failure(
                        shard=shard, position=place, entry=entry, reason="black", job_id=JOB,
                        command="imagemill-worker render …",
                    )
                )  # fmt: skip
                continue
            if not template:
                template = metadata_record(
                    entry, file_name="", sha256="", job_id=JOB, rendered=RENDERED, column_names=("kind",),
                    index=0,
                )  # fmt: skip
            if request.scheduler not in parts:
                parts[request.scheduler] = request.identity_parts()
            identity = parts[request.scheduler].of(quoted(request.prompt), request.seed)
            records.append(
                template
                | {
                    "file_name": f"{stored.key(place)}.png",
                    "text": request.prompt,
                    "image_id": hashlib.sha256(identity.encode()).hexdigest()[:16],
                    "index": index,
                    "seed": request.seed,
                    "scheduler": request.scheduler,
                    "kind": f"k{index % 7}",
                    "flagged": "one flat colour" if index % FLAGGED == FLAGGED // 2 else None,
                    "sha256": sha256[index % PICTURES],
                }
            )
        if layout == "files":
            _write_folder(folder / names.name(shard), records, failures, pictures)
            continue
        target = folder / f"{names.name(shard)}.tar"
        target.parent.mkdir(exist_ok=True)
        table = shard_table(stored.key, records, failures)
        write_atomically(target.with_suffix(".parquet"), parquet_bytes(table), synced=False)
        write_atomically(target, _tar(records, failures, pictures), synced=False)
    report = {
        "job_id": JOB, "outcome": "complete", "manifest": manifest.to_json(),
        "output": {"images": images - failed, "shards": shards, "failures": failed},
    }  # fmt: skip
    output.store.replace("job.json", json.dumps(report).encode())
    return output


def _write_folder(
    folder: Path, records: list[dict[str, Any]], failures: list[Failure], pictures: list[bytes]
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for record in records:
        (folder / record["file_name"]).write_bytes(pictures[record["index"] % PICTURES])
    if failures:
        (folder / FAILURES).write_text("".join(f"{one.to_json()}\n" for one in failures), "utf-8")
    lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    write_atomically(folder / METADATA, lines.encode(), synced=False)  # last: the shard is there


def _tar(records: list[dict[str, Any]], failures: list[Failure], pictures: list[bytes]) -> bytes:
    file = io.BytesIO()
    writer = TarWriter(file)
    if failures:
        writer.add(FAILURES, "".join(f"{one.to_json()}\n" for one in failures).encode())
    for record in records:
        key = record["file_name"].partition(".")[0]
        writer.add(record["file_name"], pictures[record["index"] % PICTURES])
        writer.add(f"{key}.txt", record["text"].encode())
        writer.add(f"{key}.json", json.dumps(record, ensure_ascii=False).encode())
    writer.close()
    return file.getvalue()
