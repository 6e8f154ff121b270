"""What prompts cost to submit, a million with --full: seconds, memory, and bytes of Redis a prompt.

    python benchmarks/submit.py [--toy | --full]

`imagemill submit` of one prompt file, a process as a user starts it (and `imagemill plan` before it), timed
from its start to its end, against a Redis of its own without workers: .jsonl, .csv, .txt and .parquet in
turn, .jsonl at a tenth of the prompts too, so that one sees whether memory stays flat, and once with an id
on every prompt. Prompts are runs of 4 to 20 words of Python's own documentation: about as long as people's,
and they compress as prose does. Memory is the most that the process and its child held together. Celery's
`delay()`, a task a prompt, is timed on a share of them. Bytes are Redis' used_memory_dataset, before and
after. The last line is JSON: .jsonl's figures, the other formats' beneath `formats`.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import psutil
import pyarrow
import redis
from pyarrow import parquet
from rich.progress import track
from sizes import parse_sized

from jobs.ledger.broker import celery_app
from producer.embedded_redis import EmbeddedRedis

SEED = 7
MEGABYTE = 1 << 20


def prompts(count: int) -> Iterator[str]:
    """Runs of words; the same ones each time."""
    words = re.findall(r"[A-Za-z]+[,.;:]?(?= )", " ".join(topics.values()))
    draw = random.Random(SEED)
    for _ in range(count):
        start = draw.randrange(len(words) - 20)
        yield " ".join(words[start : start + draw.randint(4, 20)])


def write_jsonl(file: Path, count: int, *, ids: bool = False) -> None:
    """A JSON object a line."""
    with file.open("w", encoding="utf-8") as lines:
        for number, prompt in enumerate(prompts(count)):
            row = {"prompt": prompt} | ({"id": f"prompt-{number:07d}"} if ids else {})
            lines.write(json.dumps(row) + "\n")


def write_jsonl_with_ids(file: Path, count: int) -> None:
    """The same with an id on every line."""
    write_jsonl(file, count, ids=True)


def write_csv(file: Path, count: int) -> None:
    """One column."""
    with file.open("w", newline="", encoding="utf-8") as lines:
        rows = csv.writer(lines)
        rows.writerow(["prompt"])
        rows.writerows([prompt] for prompt in prompts(count))


def write_txt(file: Path, count: int) -> None:
    """A prompt a line."""
    with file.open("w", encoding="utf-8") as lines:
        lines.writelines(f"{prompt}\n" for prompt in prompts(count))


def write_parquet(file: Path, count: int) -> None:
    """One column."""
    parquet.write_table(pyarrow.table({"prompt": list(prompts(count))}), file)


FORMATS: dict[str, tuple[str, Callable[[Path, int], None]]] = {
    "jsonl": (".jsonl", write_jsonl),
    "jsonl, ids": (".jsonl", write_jsonl_with_ids),
    "csv": (".csv", write_csv),
    "txt": (".txt", write_txt),
    "parquet": (".parquet", write_parquet),
}


def submitted(folder: Path, form: str, count: int) -> dict[str, Any]:
    """Submits a file of so many prompts; what it took."""
    suffix, write = FORMATS[form]
    folder.mkdir()
    write(folder / f"prompts{suffix}", count)
    manifest = folder / "million.yaml"
    manifest.write_text(
        f"name: million\nmodel: instant\noutput: out\nprompts_from: prompts{suffix}\n", encoding="utf-8"
    )
    with EmbeddedRedis() as server:
        client = redis.Redis.from_url(server.url)
        plan_seconds, _, printed = timed("plan", manifest, server.url)
        planned = json.loads(printed)
        before = used_memory(client)
        seconds, peak, printed = timed("submit", manifest, server.url)
        after = used_memory(client)
    [done] = json.loads(printed)
    # The same words twice are one prompt, rendered once.
    if planned["images"] != done["images"] or done["images"] + done["duplicates"] != count:
        raise SystemExit(f"{done['images']} + {done['duplicates']} images of {count} prompts")
    return {
        "images": done["images"],
        "seconds": round(seconds, 2),
        "bytes_per_prompt": round((after - before) / done["images"], 1),
        "peak_rss_mb": round(peak / MEGABYTE),
        "plan_seconds": round(plan_seconds, 2),
    }


def timed(command: str, manifest: Path, url: str) -> tuple[float, int, str]:
    """Runs a command on a manifest: seconds, the most bytes of memory, and what it printed."""
    began = time.monotonic()
    process = subprocess.Popen(
        [Path(sys.executable).parent / "imagemill", command, manifest, "--json"],
        env={**os.environ, "IMAGEMILL_REDIS_URL": url},
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )
    peak = peak_memory(process)
    seconds = time.monotonic() - began
    printed, _ = process.communicate()
    if process.returncode != 0:
        raise SystemExit(f"{command} failed with {process.returncode}")
    return seconds, peak, printed


def used_memory(client: Any) -> int:
    """Bytes that Redis holds for its data."""
    return int(client.info("memory")["used_memory_dataset"])


def peak_memory(process: subprocess.Popen[str]) -> int:
    """Waits for a process; the most bytes that it and its children held at a time, seen 20 times a second."""
    peak, root = 0, psutil.Process(process.pid)
    while process.poll() is None:
        held = 0
        for one in (root, *children(root)):
            try:
                held += one.memory_info().rss
            except psutil.Error:
                continue
        peak = max(peak, held)
        time.sleep(0.05)
    return peak


def children(root: psutil.Process) -> list[psutil.Process]:
    """Those alive now."""
    try:
        return root.children(recursive=True)
    except psutil.Error:
        return []


def delayed(count: int) -> float:
    """Tasks a second by `delay()`, one a prompt, as scripts do it."""
    with EmbeddedRedis() as server:
        app = celery_app(server.url)

        @app.task(name="render")
        def task(prompt: str) -> None:
            """Never run."""

        texts = list(prompts(count))
        task.delay(texts[0])
        began = time.monotonic()
        for text in texts:
            task.delay(text)
        return count / (time.monotonic() - began)


def main() -> None:
    """Prints a table and, last, JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options = parse_sized(parser, prompts=(1_000, 200_000, 1_000_000), delays=(100, 5_000, 10_000))
    arms = [("jsonl", options.prompts // 10), *((form, options.prompts) for form in FORMATS)]
    results = []
    with tempfile.TemporaryDirectory() as name:
        for number, (form, count) in enumerate(track(arms, "files", disable=not sys.stderr.isatty())):
            results.append(submitted(Path(name) / str(number), form, count))
    per_second = delayed(options.delays)
    print(
        f"{'file':<14}{'prompts':>10}{'seconds':>9}{'prompts/s':>11}{'B/prompt':>10}{'peak MB':>9}"
        f"{'plan s':>8}"
    )
    for (form, count), taken in zip(arms, results, strict=True):
        rate = count / taken["seconds"]
        print(
            f"{form:<14}{count:>10}{taken['seconds']:>9.2f}{rate:>11.0f}{taken['bytes_per_prompt']:>10.1f}"
            f"{taken['peak_rss_mb']:>9}{taken['plan_seconds']:>8.2f}"
        )
    print(f"{'delay()':<14}{options.delays:>10}{options.delays / per_second:>9.2f}{per_second:>11.0f}")
    tenth, jsonl, *others = results
    result = {
        **{name: jsonl[name] for name in ("seconds", "bytes_per_prompt", "peak_rss_mb", "plan_seconds")},
        "speed_vs_delay": round(options.prompts / jsonl["seconds"] / per_second, 1),
        "peak_rss_mb_of_a_tenth": tenth["peak_rss_mb"],
        "formats": dict(zip([form for form, _ in arms[2:]], others, strict=True)),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
