"""The pages of an output of very many pictures: how long they take, and what memory the server has.

    python benchmarks/serve.py [--toy | --full] [--layout files] [--folder OUT]

An output is written (`serve_output.py`; tars of 1,000 images, or folders of 9,900), and `imagemill serve`
started for it, as a user starts it, with a Redis of its own. Then, over HTTP: the first page; 50 pages at
random places; pieces of a search that finds next to nothing; thumbnails at random places; /metrics. A page's
time is that of the whole answer, seen by one client on the same machine; the CPU time of the server is shown
beside it, for machines that do other things, too. The last line is JSON.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

# A script's own folder is on the path, the repository's is not.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import psutil
from serve_output import FAILS, RARE, make_output
from sizes import parse_sized

from producer.embedded_redis import EmbeddedRedis
from producer.serve.outputs import key_of
from tests.ports import free_port

LIMIT_MS, LIMIT_MB = 300, 150
"""What a page may take, and the server."""
LARGEST_FOLDER = 9_900
"""Images in a folder: the larger it is, the more there is to pass over."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a page took."""

    ms: float
    """Until its last byte was there."""
    cpu_ms: float
    """Of the server."""
    status: int
    text: str


class Client:
    """One connection to the server, as a browser keeps it."""

    def __init__(self, port: int, process: psutil.Process) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        self._process = process

    def get(self, path: str) -> Answer:
        """What the server gives."""
        before, began = self._cpu_ms(), time.perf_counter()
        self._connection.request("GET", path)
        answer = self._connection.getresponse()
        text = answer.read().decode("utf-8", "replace")
        took = (time.perf_counter() - began) * 1000
        return Answer(took, self._cpu_ms() - before, answer.status, text)

    def page(self, path: str) -> Answer:
        """The same of a page that must be there."""
        answer = self.get(path)
        if answer.status != 200:
            sys.exit(f"{path}: {answer.status}\n{answer.text}")
        return answer

    def _cpu_ms(self) -> float:
        times = self._process.cpu_times()
        return 1000 * (times.user + times.system)


@contextmanager
def server(output: Path, redis: str) -> Iterator[tuple[int, psutil.Process]]:
    """The port and the process of `imagemill serve`."""
    port = free_port()
    program = str(Path(sys.executable).parent / "imagemill")
    command = [program, "serve", str(output), "--port", str(port)]
    with subprocess.Popen(
        command, env={**os.environ, "IMAGEMILL_REDIS_URL": redis}, stdout=subprocess.PIPE, encoding="utf-8"
    ) as started:
        try:
            assert started.stdout is not None
            if "serving at" not in started.stdout.readline():
                sys.exit("imagemill serve did not begin")
            yield port, psutil.Process(started.pid)
        finally:
            started.terminate()
            started.wait(60)


def shown(name: str, answers: Sequence[Answer]) -> None:
    """A line of the table."""
    times, cpu = [one.ms for one in answers], statistics.mean(one.cpu_ms for one in answers)
    print(
        f"{name:<28}{statistics.median(times):>10.1f}{max(times):>10.1f}{cpu:>10.1f}{len(times):>8,}",
        flush=True,
    )


def search(client: Client, path: str, most: int) -> Iterator[Answer]:
    """The pieces of a search, up to so many."""
    for _ in range(most):
        answer = client.page(path)
        yield answer
        path = answer.text.partition('hx-get="')[2].partition('"')[0].replace("&amp;", "&")
        if not path:
            return


def main() -> None:
    """Prints a table and, last, JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, help="where the output goes, and stays; what is there is kept")
    parser.add_argument("--layout", choices=("webdataset", "files"), default="webdataset")
    options = parse_sized(
        parser, images=(120, 100_000, 1_000_000), shard_size=(20, 1_000, 1_000), pages=(5, 50, 50)
    )
    if options.layout == "files" and options.shard_size == 1_000:
        options.shard_size = LARGEST_FOLDER
    chance = random.Random(1)
    with ExitStack() as stack:
        here = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder = here / "out" if options.folder is None else options.folder.absolute()
        began = time.monotonic()
        images, shard_size = options.images, options.shard_size
        output = make_output(folder, images, shard_size, layout=options.layout)
        print(f"{options.images:,} images, made in {time.monotonic() - began:.0f} s")
        redis = stack.enter_context(EmbeddedRedis(here / "redis"))
        port, process = stack.enter_context(server(folder, redis.url))
        client, base = Client(port, process), f"/outputs/{key_of(output.label)}"
        places = [divmod(chance.randrange(options.images), options.shard_size) for _ in range(options.pages)]
        there = [place for place in places if (place[0] * options.shard_size + place[1]) % FAILS != FAILS - 1]

        client.page("/healthz")  # it serves
        first = client.page(base)
        asked = {
            "first page": [first],
            "first page again": [client.page(base) for _ in range(5)],
            "how much there is": [client.page(f"{base}/bar") for _ in range(3)],
            "any page": [client.page(f"{base}?shard={shard}&position={at}") for shard, at in places],
            "one picture": [client.page(f"{base}/{shard}/{at}") for shard, at in there],
            "one picture of a search": [
                client.page(f"{base}/{shard}/{at}?text={RARE.replace(' ', '+')}") for shard, at in there
            ],
            "a thumbnail": [client.page(f"{base}/{shard}/{at}/small?v={at:016x}") for shard, at in there],
            "a piece of a search": [
                *search(client, f"{base}/page?text={RARE.replace(' ', '+')}", options.pages)
            ],
        }
        metrics = client.get("/metrics")
        if metrics.status == 200:
            asked["/metrics"] = [client.get("/metrics") for _ in range(5)]
        print(f"{'':<28}{'median ms':>10}{'max ms':>10}{'CPU ms':>10}{'n':>8}")
        for name, answers in asked.items():
            shown(name, answers)
        used = process.memory_info().rss / 2**20
    slowest = {name: round(max(one.ms for one in answers), 1) for name, answers in asked.items()}
    cpu = {name: round(max(one.cpu_ms for one in answers), 1) for name, answers in asked.items()}
    result = {
        "images": options.images,
        "layout": options.layout,
        "first_page_ms": slowest["first page"],
        "any_page_ms": slowest["any page"],
        "filter_piece_ms": slowest["a piece of a search"],
        "picture_ms": max(slowest["one picture"], slowest["one picture of a search"]),
        "rss_mb": round(used, 1),
        "metrics_ms": slowest.get("/metrics"),
        "first_page_cpu_ms": cpu["first page"],
        "any_page_cpu_ms": cpu["any page"],
        "filter_piece_cpu_ms": cpu["a piece of a search"],
    }
    print(json.dumps(result))
    whole = first.text.count('class="tile"') == min(60, options.images)
    fast = max(result[name] for name in ("first_page_ms", "any_page_ms", "picture_ms")) <= LIMIT_MS
    sys.exit(0 if whole and fast and used <= LIMIT_MB else 1)


if __name__ == "__main__":
    main()
