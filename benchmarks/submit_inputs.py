"""What input pictures cost to submit, 100,000 with --full: seconds, memory, disk and bytes of Redis an image.

    python benchmarks/submit_inputs.py [--toy | --full]

Small PNGs are made, each another one, and a .csv whose column `image` names one with each prompt. `imagemill
submit` runs as a user starts it, against a Redis of its own without workers: copied into the output, again
with the copies there, and with `inputs: reference`. Memory is the most that the process and its child held
together. The last line is JSON: the figures of each.
"""

from __future__ import annotations

import argparse
import csv
import json
import struct
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis
from rich.progress import track
from sizes import parse_sized
from submit import MEGABYTE, prompts, timed, used_memory

from producer.embedded_redis import EmbeddedRedis

SIDE = 32
A_FOLDER = 1_000
MODES = {"copy": "", "copied before": "", "reference": "inputs: reference\n"}


def png(number: int) -> bytes:
    """A grey picture of its own for each number."""
    row = b"\0" + struct.pack(">I", number) * (SIDE // 4)
    head = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(row * SIDE, 1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


def write_inputs(folder: Path, count: int) -> None:
    """The pictures, and the rows that name them."""
    with (folder / "prompts.csv").open("w", newline="", encoding="utf-8") as lines:
        rows = csv.writer(lines)
        rows.writerow(["prompt", "image"])
        for number, prompt in enumerate(prompts(count)):
            picture = Path("photos") / f"{number // A_FOLDER:03d}" / f"{number:07d}.png"
            if number % A_FOLDER == 0:
                (folder / picture).parent.mkdir(parents=True)
            (folder / picture).write_bytes(png(number))
            rows.writerow([prompt, picture])


def submitted(folder: Path, count: int) -> Iterator[dict[str, Any]]:
    """What each way of submission takes."""
    for mode in track(MODES, "ways", disable=not sys.stderr.isatty()):
        manifest = folder / "inputs.yaml"
        output = folder / ("referenced" if MODES[mode] else "copied")
        manifest.write_text(
            f"name: inputs\nmodel: instant\noutput: {output}\n{MODES[mode]}prompts_from: prompts.csv\n",
            encoding="utf-8",
        )
        with EmbeddedRedis() as server:
            client = redis.Redis.from_url(server.url)
            before = used_memory(client)
            took = timed("submit", manifest, server.url)
            after = used_memory(client)
        [done] = json.loads(took.printed)
        if done["images"] != count:
            raise SystemExit(f"{done['images']} images of {count} pictures")
        yield {
            "seconds": round(took.seconds, 2),
            "bytes_per_image": round((after - before) / count, 1),
            "peak_rss_mb": round(took.peak / MEGABYTE),
            "kept": sum(one.is_file() for one in (output / ".imagemill" / "inputs").glob("*/*")),
        }


def main() -> None:
    """Prints a table and, last, JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options = parse_sized(parser, pictures=(300, 10_000, 100_000))
    with tempfile.TemporaryDirectory() as name:
        write_inputs(Path(name), options.pictures)
        results = list(submitted(Path(name), options.pictures))
        print(f"{'inputs':<15}{'pictures':>10}{'seconds':>9}{'/s':>8}{'B/image':>9}{'peak MB':>9}{'kept':>9}")
        for mode, taken in zip(MODES, results, strict=True):
            rate = options.pictures / taken["seconds"]
            print(
                f"{mode:<15}{options.pictures:>10}{taken['seconds']:>9.2f}{rate:>8.0f}"
                f"{taken['bytes_per_image']:>9.1f}{taken['peak_rss_mb']:>9}{taken['kept']:>9}"
            )
        print(json.dumps({"pictures": options.pictures, **dict(zip(MODES, results, strict=True))}))


if __name__ == "__main__":
    main()
