"""An output of very many shards: their names, and what reads it, in seconds and memory.

    python benchmarks/many_shards.py [--toy | --full] [--folder OUT]

Each shard is a tar of one 8x8 picture by the stand-in model `instant`, committed as workers commit it, but by
this process alone and without a queue. Then: names in the order of numbers, no folder above 10,000 entries;
`imagemill plan` and `doctor` as commands, with their largest memory; `datasets.load_dataset(streaming=True)`
by the card, and webdataset by the braces that the card names, both to the last sample. The last line is JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

# A script's own folder is on the path, the repository's is not.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rich.console import Console
from rich.progress import Progress
from sizes import parse_sized
from submit import MEGABYTE, peak_memory

from jobs.ledger.shard import decode_shard
from jobs.output.job_files import JobFiles
from jobs.output.metadata import metadata_record
from jobs.output.output import Output
from jobs.output.shard_names import ShardNames
from jobs.output.store import Stage
from jobs.settings import Settings
from producer.manifest.base_request import base_request
from producer.manifest.submitted import SubmittedManifest
from producer.requests.prepared import Prepared, prepare
from producer.submit.packed import Packed, pack
from tests.stand_ins import drawn
from worker.encode import encode
from worker.finish.finish import JobReport, finish_output

JOB = "many-1"
RENDERED = {"precision": "fp32", "rows": 16, "device": "cpu", "versions": {}}


def written(folder: Path, shards: int, output: Path) -> Path:
    """The manifest of so many prompts, a shard each."""
    (folder / "prompts.txt").write_text("".join(f"a thing, number {n}\n" for n in range(shards)), "utf-8")
    manifest = folder / "many.json"
    settings = {"height": 8, "width": 8, "num_inference_steps": 1}
    keys = {"name": "many", "model": "instant", "output": str(output), "layout": "webdataset"}
    manifest.write_text(
        json.dumps({**keys, "shard_size": 1, "settings": settings, "prompts_from": "prompts.txt"}), "utf-8"
    )
    return manifest


def render(prepared: Prepared, packed: Packed, names: ShardNames) -> None:
    """Commits every shard that is not there yet, and finishes the job."""
    output = prepared.output
    output.prepare()
    output.settle_names(names)
    files = dict(packed.reading.sha256)
    JobFiles(output, JOB).write_manifest(SubmittedManifest(prepared.pinned, "", files).to_json())
    base = base_request(prepared.manifest, prepared.model)
    spool = output.spool_folder(0, "000001-bench")
    images = spool / "images"
    images.mkdir(parents=True, exist_ok=True)
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        for number in bar.track(range(len(packed.shards)), description="shards"):
            stored = output.stored(number, "webdataset")
            if stored.committed():
                continue
            shard = decode_shard(packed.blob(packed.shards[number]), base, prepared.manifest.name)
            [entry], [index] = shard.entries, shard.indices
            data = encode(drawn(entry.request), entry.request)
            name = f"{stored.key(0)}.png"
            (images / name).write_bytes(data)
            record = metadata_record(
                entry, file_name=name, sha256=hashlib.sha256(data).hexdigest(), job_id=JOB,
                rendered=RENDERED, flagged=None, prompt_cut=None, column_names=(), index=index,
            )  # fmt: skip
            stored.commit(images, [record], [], Stage(spool, "bench", lambda: None))
            for file in (images / name, *spool.glob("*.tar"), *spool.glob("*.parquet")):
                file.unlink(missing_ok=True)
    report = JobReport(
        job_id=JOB, manifest=prepared.manifest.to_json(), outcome="complete", images=packed.images,
        done=packed.images, failed=0, submitted_at="2026-01-31T12:00:00Z", started_at=None,
        finished_at="2026-01-31T12:00:00Z", workers=[],
    )  # fmt: skip
    timed("finish", lambda: finish_output(output, report))


FIGURES: dict[str, Any] = {}
EXACT: dict[str, bool] = {}


def said(name: str, right: bool) -> None:
    """Takes in whether something is as it must be, and says so at once: a full run takes an hour."""
    EXACT[name] = right
    print(f"{name:<24}{'as it must be' if right else 'WRONG':>13}", flush=True)


def timed(name: str, call: Callable[[], Any]) -> Any:
    """What the call returns; its seconds become a figure."""
    began = time.monotonic()
    result = call()
    FIGURES[f"{name}_s"] = round(time.monotonic() - began, 2)
    print(f"{name:<24}{FIGURES[f'{name}_s']:>10.2f} s", flush=True)
    return result


def command(name: str, *arguments: str) -> str:
    """What `imagemill` prints; seconds and largest memory become figures."""

    def run() -> tuple[int, str, int]:
        program = str(Path(sys.executable).parent / "imagemill")
        with tempfile.TemporaryFile("w+", encoding="utf-8") as printed:
            # What wait4 gives as the most is at least what this process has.
            process = subprocess.Popen([program, *arguments], stdout=printed)
            peak = peak_memory(process)
            printed.seek(0)
            return process.returncode, printed.read(), peak

    code, text, peak = timed(name, run)
    FIGURES[f"{name}_mb"] = round(peak / MEGABYTE)
    print(f"{'':<24}{FIGURES[f'{name}_mb']:>10} MB", flush=True)
    if code != 0:
        sys.exit(f"imagemill {' '.join(arguments)} ended with {code}:\n{text}")
    return text


def entries(folder: Path) -> Iterator[int]:
    """How many entries the folder and each below it have."""
    for _, folders, files in os.walk(folder):
        yield len(folders) + len(files)


def datasets_samples(output: Path) -> list[int]:
    """The index of every sample, as `datasets` streams them."""
    from datasets import load_dataset

    dataset = timed("load_dataset", lambda: load_dataset(str(output), split="train", streaming=True))
    return timed("iterate_datasets", lambda: [sample["json"]["index"] for sample in dataset])


def webdataset_samples(output: Path, braces: str) -> list[int]:
    """The index of every sample, as webdataset reads the tars that the braces name."""
    from webdataset import WebDataset

    urls = "::".join(f"{output}/{part}" for part in braces.split("::"))
    dataset = WebDataset(urls, shardshuffle=False)
    return timed("iterate_webdataset", lambda: [json.loads(one["json"])["index"] for one in dataset])


def main() -> None:
    """Prints a table and, last, JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, help="where the output goes, and stays; what is there is kept")
    options = parse_sized(parser, shards=(30, 5_000, 150_000))
    with ExitStack() as stack:
        here = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        os.environ |= {
            "IMAGEMILL_RUNTIME_DIR": str(here), "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(here / "hf"),
        }  # fmt: skip
        place = here / "out" if options.folder is None else options.folder.absolute()
        manifest = written(here, options.shards, place)
        prepared = prepare(manifest, Settings())
        # Those below count as held; this process makes each of them, or has.
        with pack(prepared, below=0) as packed:
            names = ShardNames.for_shards(max(options.shards, 9_901), 2)
            timed("commit", lambda: render(prepared, packed, names))
        output, everything = Output(place), [*range(options.shards)]
        numbers = timed("shards", output.shards)
        assert timed("next_shard", output.next_shard) == options.shards
        assert timed("committed", lambda: all(map(output.committed, numbers[:1000])))
        tars = sorted(str(file.relative_to(place)) for file in place.glob("*/*.tar"))
        said("in_order", tars == [f"{names.name(one)}.tar" for one in numbers] and numbers == everything)
        most = max(entries(place))
        said("entries", most <= 10_000)
        planned = json.loads(command("plan", "plan", str(manifest), "--json"))
        said("plan", planned["unchanged"] == options.shards and planned["new"] == 0)
        examined = json.loads(command("doctor", "doctor", str(place), "--json"))
        said("doctor", examined["images"] == options.shards and not examined["problems"])
        said("datasets", datasets_samples(place) == everything)
        braces = names.braces(numbers[0], numbers[-1])
        said("braces", f"`{braces}`" in (place / "README.md").read_text("utf-8"))
        said("webdataset", webdataset_samples(place, braces) == everything)
    result = {"shards": options.shards, "most_entries": most, "exact": all(EXACT.values()), **FIGURES}
    print(json.dumps(result))
    sys.exit(0 if result["exact"] else 1)


if __name__ == "__main__":
    main()
