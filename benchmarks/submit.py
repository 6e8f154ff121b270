"""What prompts cost to submit, a million with --full: seconds, memory, and bytes of Redis a prompt.

    python benchmarks/submit.py [--toy | --full] [--prompts N] [--files jsonl]

`imagemill submit` of one prompt file, a process as a user starts it (and `imagemill plan` before it), timed
from its start to its end, against a Redis of its own without workers: .jsonl, .csv, .txt and .parquet in
turn, .jsonl at a tenth of the prompts too, so that one sees whether memory stays flat and seconds grow no
faster than prompts, and once with an id on every prompt. CPU seconds are those of the process and its child:
what else the machine does hardly changes them. Prompts are runs of 4 to 20 words of Python's own
documentation: about as long as people's, and they compress as prose does. Memory is the most that the process
and its child held together. Celery's `delay()`, a task a prompt, is timed on a share of them. Bytes are
Redis' used_memory_dataset, before and after. The last line is JSON: .jsonl's figures, the tenth's beneath
`tenth`, the other formats' beneath `formats`.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import chain, islice
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any, NamedTuple

import psutil
import pyarrow
import redis
from pyarrow import parquet
from rich.progress import track
from sizes import parse_sized

from jobs.ledger.broker import celery_app
from producer.embedded_redis import EmbeddedRedis

SEED = 7
MILLION, MEGABYTE = 1_000_000, 1 << 20
ROW_GROUP = 1 << 20
"""Rows of a .parquet that are written together, as pyarrow does."""


def prompts(count: int) -> Iterator[str]:
    """Runs of words; the same ones each time. Half of a million occurs before in that million.

    There are as many runs as that in the text. So each further million is of the words in another order.
    """
    words = re.findall(r"[A-Za-z]+[,.;:]?(?= )", " ".join(topics.values()))
    draw = random.Random(SEED)
    for number in range(count):
        if number and number % MILLION == 0:
            pieces = [words[at : at + 3] for at in range(0, len(words), 3)]
            random.Random(number).shuffle(pieces)
            words = [*chain.from_iterable(pieces)]
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
    rest = prompts(count)
    with parquet.ParquetWriter(file, pyarrow.schema({"prompt": pyarrow.string()})) as rows:
        while some := list(islice(rest, ROW_GROUP)):
            rows.write_table(pyarrow.table({"prompt": some}))


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
        plan = timed("plan", manifest, server.url)
        before = used_memory(client)
        submit = timed("submit", manifest, server.url)
        after = used_memory(client)
    planned, [done] = json.loads(plan.printed), json.loads(submit.printed)
    # The same words twice are one prompt, rendered once.
    if planned["images"] != done["images"] or done["images"] + done["duplicates"] != count:
        raise SystemExit(f"{done['images']} + {done['duplicates']} images of {count} prompts")
    return {
        "images": done["images"],
        "seconds": round(submit.seconds, 2),
        "cpu_seconds": round(submit.cpu_seconds, 2),
        "bytes_per_prompt": round((after - before) / done["images"], 1),
        "peak_rss_mb": round(submit.peak / MEGABYTE),
        "plan_seconds": round(plan.seconds, 2),
        "plan_cpu_seconds": round(plan.cpu_seconds, 2),
        "plan_peak_rss_mb": round(plan.peak / MEGABYTE),
    }


class Timed(NamedTuple):
    """What a command took."""

    seconds: float
    cpu_seconds: float
    """Of its process and the child."""
    peak: int
    """The most bytes of memory."""
    printed: str


def timed(command: str, manifest: Path, url: str) -> Timed:
    """Runs a command on a manifest."""
    began, used = time.monotonic(), cpu_seconds_of_children()
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
    return Timed(seconds, cpu_seconds_of_children() - used, peak, printed)


def cpu_seconds_of_children() -> float:
    """Of all that have ended, with their own children."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


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
    """Seconds of so many tasks by `delay()`, one a prompt, as scripts do it."""
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
        return time.monotonic() - began


def main() -> None:
    """Prints a table and, last, JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", nargs="+", choices=FORMATS, default=[*FORMATS], help="default: all")
    options = parse_sized(parser, prompts=(1_000, 200_000, 1_000_000), delays=(100, 5_000, 10_000))
    forms = ["jsonl", *(form for form in FORMATS if form in options.files and form != "jsonl")]
    arms = [("jsonl", options.prompts // 10), *((form, options.prompts) for form in forms)]
    results = []
    # Half of them before, half after: a run takes minutes, in which the machine may become slower.
    seconds_of_delays = delayed(options.delays // 2)
    with tempfile.TemporaryDirectory() as name:
        for number, (form, count) in enumerate(track(arms, "files", disable=not sys.stderr.isatty())):
            results.append(submitted(Path(name) / str(number), form, count))
    seconds_of_delays += delayed(options.delays // 2)
    per_second = options.delays // 2 * 2 / seconds_of_delays
    print(
        f"{'file':<14}{'prompts':>10}{'seconds':>9}{'CPU s':>8}{'prompts/s':>11}{'B/prompt':>10}"
        f"{'peak MB':>9}{'plan s':>8}{'CPU s':>8}{'peak MB':>9}"
    )
    for (form, count), taken in zip(arms, results, strict=True):
        rate = count / taken["seconds"]
        print(
            f"{form:<14}{count:>10}{taken['seconds']:>9.2f}{taken['cpu_seconds']:>8.2f}{rate:>11.0f}"
            f"{taken['bytes_per_prompt']:>10.1f}{taken['peak_rss_mb']:>9}{taken['plan_seconds']:>8.2f}"
            f"{taken['plan_cpu_seconds']:>8.2f}{taken['plan_peak_rss_mb']:>9}"
        )
    print(f"{'delay()':<14}{options.delays:>10}{seconds_of_delays:>9.2f}{'':>8}{per_second:>11.0f}")
    tenth, jsonl, *others = results
    result = {
        **jsonl,
        "speed_vs_delay": round(options.prompts / jsonl["seconds"] / per_second, 1),
        **{
            f"{name}_vs_tenth": round(jsonl[name] / tenth[name], 2)
            for name in ("seconds", "cpu_seconds", "plan_seconds", "plan_cpu_seconds")
        },
        "tenth": tenth,
        "formats": dict(zip(forms[1:], others, strict=True)),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
