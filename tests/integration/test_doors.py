"""Who may come in, and what they can do there: tried on real servers, workers and a real Flower.

This file times servers and workers of its own: it is among the tests that have the cores to themselves.
"""

from __future__ import annotations

import asyncio
import base64
import json
import pickle
import re
import shlex
import ssl
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
import redis
from kombu import Connection

from jobs.errors import LedgerError
from jobs.ledger import redis_keys
from jobs.ledger.broker import celery_app, wake
from jobs.ledger.job import JobStatus
from jobs.ledger.ledger import Ledger
from producer.embedded_redis import find_binary
from tests.farm import BIN, Farm
from tests.guarded_redis import Server, answers, print_users, start_redis
from tests.ports import free_port
from tests.waiting import LONGEST, Overdue, WaitUntil

ROOT = Path(__file__).parents[2]
Finish = Callable[..., JobStatus]


class Flower:
    """Flower, started by the command line in docs/monitor.md, on a port of its own."""

    def __init__(self, farm: Farm, url: str) -> None:
        page = (ROOT / "docs" / "monitor.md").read_text()
        (line,) = re.findall(r"^FLOWER_BASIC_AUTH=\S+ celery .+ flower .+$", page, re.MULTILINE)
        setting, *command = shlex.split(line.replace("deploy/", f"{ROOT}/deploy/"))
        name, _, _value = setting.partition("=")
        self.port = free_port()
        with (farm.folder / "flower.log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *command, f"--port={self.port}"],
                env=farm.environment(redis_url=url) | {name: "ann:flower-secret"},
                cwd=farm.folder, stdout=log, stderr=log,
            )  # fmt: skip

    def ask(self, path: str, credentials: str = "ann:flower-secret") -> bytes | int | None:
        """What it answers; the status where that is an error, None while it does not listen."""
        question = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}")
        question.add_header("Authorization", f"Basic {base64.b64encode(credentials.encode()).decode()}")
        try:
            with urllib.request.urlopen(question, timeout=10) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            return error.code
        except urllib.error.URLError:
            return None

    def sees(self, worker: str) -> bool:
        """Whether the worker is online."""
        answer = self.ask("/api/workers?status=true")
        return isinstance(answer, bytes) and json.loads(answer).get(worker) is True

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def test_the_users_of_the_acl_file_can_do_all_that_is_theirs(
    tmp_path: Path, guarded: Server, wait_until: WaitUntil
) -> None:
    farm = Farm(tmp_path, guarded)
    flower = Flower(farm, guarded.url_of("flower"))
    try:
        manifest = farm.manifest(64)

        def shown(*arguments: str | Path, status: int = 0) -> str:
            done = farm.command(*arguments, redis_url=guarded.url_of("producer"))
            assert done.returncode == status, done
            return done.stdout

        shown("submit", manifest)
        shown("pause", "cats-1")
        assert "paused" in shown("status", "cats-1")
        shown("resume", "cats-1")
        shown("cancel", "cats-1")
        farm.start_worker(redis_url=guarded.url_of("worker"))
        wait_until(lambda: flower.sees("cpu0@w1"), "Flower sees the worker")
        shown("watch", "cats-1", status=1)
        shown("retry", "cats-1", "--wait")
        shown("plan", manifest)
        shown("doctor", "out")
        with guarded.client("admin") as admin:
            admin.delete(*admin.keys("imagemill:*"))
        shown("recover", manifest)
        assert "64 of 64" in shown("status", "cats-1")
        assert len(farm.records()) == 64
        assert farm.command("status", "--json", redis_url=guarded.url_of("worker")).returncode == 0
        wait_until(
            lambda: b"'cats-1', " in (flower.ask("/api/tasks?state=SUCCESS") or b""), "Flower shows shards"
        )
        assert b'"cpu0@w1"' in flower.ask("/api/workers?refresh=true")  # type: ignore[operator]
        farm.workers["w1"].terminate()
        assert farm.workers["w1"].wait(timeout=LONGEST) == 0
    finally:
        flower.kill()
        farm.stop()
    with guarded.client("admin") as admin:
        assert admin.acl_log() == []


EVERYBODY = [
    "FLUSHALL", "FLUSHDB", "CONFIG GET *", "ACL LIST", "KEYS *", "SCAN 0", "RANDOMKEY", "MONITOR", "SHUTDOWN",
    "SCRIPT FLUSH", "EVAL return 0", "CLIENT LIST", "REPLICAOF NO ONE", "GET somebody:elses",
    "SET somebody:elses x", "SUBSCRIBE somebody:elses", "PUBLISH somebody:elses x",
]  # fmt: skip
FORBIDDEN = {
    "producer": [
        "HSET imagemill:worker:gpu0@host pid 1", "ZADD imagemill:workers 0 gpu0@host",
        "XADD imagemill:events * a b", "HSET imagemill:rates a b", "RPOP imagemill", "DEL imagemill",
        "HGETALL unacked", "PUBLISH /0.celery.pidbox x", "SUBSCRIBE /0.celeryev/*",
    ],
    "worker": [
        "SET imagemill:job:cats-1:spec x", "DEL imagemill:job:cats-1:spec",
        "HSET imagemill:job:cats-1:shards 0 x", "HDEL imagemill:job:cats-1:shards 0",
        "HSET imagemill:numbers cats 1",
    ],
    "flower": [
        "GET imagemill:job:cats-1:spec", "HGETALL imagemill:job:cats-1",
        "HSET imagemill:job:cats-1 state finished", "DEL imagemill:jobs", "ZADD imagemill:active 0 cats-1",
        "LPUSH imagemill x", "RPOP imagemill", "HGETALL imagemill:workers",
    ],
}  # fmt: skip


@pytest.mark.parametrize("user", FORBIDDEN)
def test_no_user_of_the_acl_file_can_do_more(guarded: Server, user: str) -> None:
    with guarded.client(user) as client:
        assert client.ping()
        for command in EVERYBODY + FORBIDDEN[user]:
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.execute_command(*command.split())
                pytest.fail(f"{user} may {command}")
        scripted = client.script_load("return redis.call(unpack(ARGV))")
        for command in ("FLUSHALL", "KEYS *", "SET somebody:elses x", *FORBIDDEN[user][:1]):
            with pytest.raises(
                redis.exceptions.RedisError, match=r"ACL failure|can't run this command|can't access"
            ):
                client.evalsha(scripted, 0, *command.split())
                pytest.fail(f"{user} may {command} in a script")
    with guarded.client("admin") as admin:
        assert admin.dbsize() == 0


def test_nobody_comes_in_without_a_password_and_a_job_belongs_to_worker_but_for_what_it_asks(
    guarded: Server,
) -> None:
    with redis.Redis(port=guarded.port) as stranger, pytest.raises(redis.exceptions.AuthenticationError):
        stranger.ping()
    with guarded.client("admin") as admin:
        for part in redis_keys.JOB_PARTS:
            key = redis_keys.job("a.b_c-d-12", part)
            assert admin.acl_dryrun("worker", "EXPIRE", key, 1) == b"OK"
            may_write = admin.acl_dryrun("worker", "DEL", key) == b"OK"
            assert may_write == (part not in ("spec", "shards")), part


@pytest.mark.parametrize("user", FORBIDDEN)
@pytest.mark.parametrize("password", ["", "p@ss:word"])
def test_the_acl_script_refuses_a_password_that_would_break_a_url(user: str, password: str) -> None:
    variable = f"REDIS_{user.upper()}_PASSWORD"
    done = print_users(**{variable: password})
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{variable}: letters, digits" in done.stderr


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def make_authority(folder: Path, name: str) -> None:
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", f"{name}.key"]
    openssl(folder, "req", "-x509", *key, "-out", f"{name}.pem", "-subj", f"/CN={name}", "-days", "2")


@contextmanager
def tls_door(folder: Path, inside: int) -> Iterator[int]:
    """Passes what comes over TLS on to a port of loopback; yields its own. The bundled server has no TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "redis.pem", folder / "redis.key")
    port, closed = Future[int](), threading.Event()

    async def carry(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
        sink.close()

    async def enter(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_redis, to_redis = await asyncio.open_connection("127.0.0.1", inside)
        await asyncio.gather(carry(reader, to_redis), carry(from_redis, writer))

    async def stand_open() -> None:
        door = await asyncio.start_server(enter, "127.0.0.1", 0, ssl=context)
        port.set_result(door.sockets[0].getsockname()[1])
        await asyncio.to_thread(closed.wait)

    thread = threading.Thread(target=asyncio.run, args=(stand_open(),))
    thread.start()
    try:
        yield port.result(LONGEST)
    finally:
        closed.set()
        thread.join()


@pytest.fixture
def tls(tmp_path: Path, wait_until: WaitUntil) -> Iterator[Server]:
    """A Redis that is reached by TLS, as 127.0.0.1; its folder holds ca.pem, and a stranger's other.pem."""
    folder = tmp_path / "tls"
    folder.mkdir()
    for name in ("ca", "other"):
        make_authority(folder, name)
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", "redis.key"]
    openssl(folder, "req", *key, "-out", "redis.csr", "-subj", "/CN=redis")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    signed_by = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names"]
    openssl(folder, "x509", "-req", "-in", "redis.csr", "-out", "redis.pem", *signed_by)
    inside = free_port()
    with tls_door(folder, inside) as port:
        server = start_redis(
            folder, f"rediss://:tls-secret@127.0.0.1:{{port}}/0?ssl_ca_certs={folder}/ca.pem", port,
            "--port", str(inside), "--requirepass", "tls-secret",
        )  # fmt: skip
        try:
            wait_until(lambda: answers(replace(server, port=inside)), "Redis answers")
            yield server
        finally:
            server.process.kill()
            server.process.wait()


def test_a_job_goes_through_over_tls(tmp_path: Path, tls: Server) -> None:
    farm = Farm(tmp_path, tls)
    try:
        farm.start_worker()
        done = farm.command("submit", farm.manifest(16), "--wait")
        assert done.returncode == 0, done.stderr + farm.log("w1")
        farm.check_exact("cats-1", 16)
    finally:
        farm.stop()


def test_sentinels_and_their_master_are_reached_by_tls(tls: Server, wait_until: WaitUntil) -> None:
    inside, config = free_port(), tls.folder / "sentinel.conf"
    # It asks the master in plain text, in vain, but holds it to be up for ten minutes.
    config.write_text(
        f"port {inside}\nbind 127.0.0.1\ndir {tls.folder}\nsentinel monitor m 127.0.0.1 {tls.port} 1\n"
        "sentinel down-after-milliseconds m 600000\n"
    )
    sentinel = subprocess.Popen([find_binary(), config, "--sentinel"], stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: answers(replace(tls, port=inside, process=sentinel)), "the Sentinel answers")
        with tls_door(tls.folder, inside) as port:
            url = f"sentinel://:tls-secret@127.0.0.1:{port}/0?master_name=m&ssl_ca_certs={tls.folder}"
            ledger = Ledger(f"{url}/ca.pem")
            ledger.ping()
            wake(celery_app(f"{url}/ca.pem"), 2)
            assert ledger.queued() == 2
            for stranger in (f"{url}/other.pem", url.partition("&")[0] + "&ssl=true"):
                with pytest.raises(LedgerError, match="CERTIFICATE_VERIFY_FAILED"):
                    Ledger(stranger).ping()
                with pytest.raises(LedgerError, match="CERTIFICATE_VERIFY_FAILED"):
                    wake(celery_app(stranger), 1)
    finally:
        sentinel.kill()
        sentinel.wait()


@pytest.mark.parametrize("wrong", ["another CA", "no CA of ours", "another host"])
def test_a_certificate_that_cannot_be_trusted_is_refused_by_all_who_connect(
    tmp_path: Path, tls: Server, wrong: str
) -> None:
    url = {
        "another CA": tls.url.replace("/ca.pem", "/other.pem"),
        "no CA of ours": tls.url.partition("?")[0],
        "another host": tls.url.replace("127.0.0.1", "localhost"),
    }[wrong]
    farm = Farm(tmp_path, tls)
    done = farm.command("status", redis_url=url)
    assert done.returncode == 2
    assert done.stderr.startswith("error: Redis' certificate cannot be trusted"), done.stderr
    assert "?ssl_ca_certs=FILE" in done.stderr
    assert "Traceback" not in done.stderr
    try:
        worker = farm.start_worker(redis_url=url)
        assert worker.wait(timeout=LONGEST) == 2
    finally:
        farm.stop()
    assert "Redis' certificate cannot be trusted" in farm.log("w1")
    assert "tls-secret" not in done.stderr + farm.log("w1")
    with pytest.raises(LedgerError, match="certificate cannot be trusted"):
        wake(celery_app(url), 1)


WAITS = "Redis does not answer|Redis is away"


@pytest.mark.parametrize("command", [["imagemill", "status"], ["imagemill-worker", "--gpus", "none"]])
def test_a_redis_beyond_this_machine_without_password_or_tls_is_refused_unless_insecure(
    farm: Farm, command: list[str], wait_until: WaitUntil
) -> None:
    program, *arguments = command
    environment = farm.environment(redis_url="redis://queue.invalid:6379/0")

    def run(*options: str) -> str:
        """What it says until it ends, by itself or, as it waits for its Redis, by us."""
        said = farm.folder / "said"
        with said.open("wb") as log:
            process = subprocess.Popen(
                [BIN / program, *options, *arguments], env=environment, cwd=farm.folder,
                stdout=subprocess.DEVNULL, stderr=log,
            )  # fmt: skip
        try:
            wait_until(
                lambda: process.poll() is not None or re.search(WAITS, said.read_text()), "it ends or waits"
            )
            assert process.poll() in (None, 2)
        finally:
            process.kill()
            process.wait()
        return said.read_text()

    refused = run()
    assert refused.startswith(
        "error: IMAGEMILL_REDIS_URL = redis://queue.invalid:6379/0: beyond this machine"
    )
    assert "rediss://" in refused
    assert "--insecure (IMAGEMILL_INSECURE=1)" in refused
    tried = run("--insecure")
    assert "beyond this machine" not in tried
    assert re.search(WAITS, tried), tried


class Bomb:
    """Unpickled, it makes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.file,)


def test_a_message_that_is_no_json_runs_nothing_and_the_queue_goes_on(
    farm: Farm, finished: Finish, wait_until: WaitUntil
) -> None:
    burst = farm.folder / "burst"
    header = {"task": "imagemill.render", "id": "1", "root_id": "1", "lang": "py"}
    applied = f"!!python/object/apply:os.mknod [{burst}]"
    with Connection(farm.server.url) as connection:
        send = connection.Producer().publish
        pickled = pickle.dumps(((Bomb(burst),), {}, {}))
        for kind, body in (
            ("application/x-python-serialize", pickled),
            ("application/x-yaml", applied.encode()),
        ):
            send(body, routing_key="imagemill", content_type=kind, content_encoding="binary", headers=header)
        send({"args": [str(burst)]}, routing_key="imagemill", headers=header | {"task": "os.mknod"})
    farm.client.lpush("imagemill", b"no JSON at all", pickle.dumps(Bomb(burst)))
    farm.start_worker()
    wait_until(lambda: farm.ledger.queued() == 0, "the queue is empty")
    job_id = farm.submit(16)
    finished(job_id)
    farm.check_exact(job_id, 16)
    assert not burst.exists()
    assert "application/x-python-serialize" in farm.log("w1")
    assert "application/x-yaml" in farm.log("w1")
    assert farm.ledger.queued() == 0


def bytes_of_celery(client: Any) -> bytes:
    """Everything that Redis holds beside the ledger: names and values."""
    read = {
        b"string": client.get,
        b"list": lambda key: client.lrange(key, 0, -1),
        b"set": client.smembers,
        b"hash": client.hgetall,
        b"zset": lambda key: client.zrange(key, 0, -1),
    }
    keys = [key for key in client.scan_iter() if not key.startswith(b"imagemill:")]
    kinds = {key: client.type(key) for key in keys}
    return repr([(key, read[kind](key)) for key, kind in kinds.items() if kind != b"none"]).encode()


def test_celery_flower_and_the_logs_never_see_a_prompt_or_a_password(
    farm: Farm, finished: Finish, wait_until: WaitUntil
) -> None:
    marks = [b"prompt-of-ours", b"negative-of-ours", b"column-of-ours", b"id-of-ours"]
    password = urlsplit(farm.server.url).password or ""
    marks.append(password.encode())
    assert len(password) >= 32
    heard: list[bytes] = []
    listener = redis.Redis.from_url(farm.server.url).pubsub()
    listener.psubscribe("*")
    ended = threading.Event()

    def listen() -> None:
        while not ended.is_set():
            message = listener.get_message(timeout=0.1)
            if message is not None:
                heard.append(repr(message).encode())

    ear = threading.Thread(target=listen)
    ear.start()
    flower = Flower(farm, farm.server.url)
    seen = b""
    try:
        line = {
            "prompt": "prompt-of-ours", "negative_prompt": "negative-of-ours", "id": "id-of-ours",
            "columns": {"c": "column-of-ours"}, "seeds": list(range(24)),
        }  # fmt: skip
        job_id = farm.submit([line])
        seen += bytes_of_celery(farm.client)
        assert b"imagemill.render" in seen
        farm.start_worker(instant_seconds=0.2, log_level="DEBUG")
        wait_until(lambda: flower.sees("cpu0@w1"), "Flower sees the worker")
        wait_until(lambda: farm.status(job_id).done >= 4, "it renders")
        seen += bytes_of_celery(farm.client)
        finished(job_id)
        # Events are not kept: on a busy machine Flower may miss the end of a job, and sees the next.
        for attempt in range(3):
            with suppress(Overdue):
                wait_until(lambda: b"'ended': 'finished'" in (flower.ask("/api/tasks") or b""), "an end", 30)
                break
            finished(farm.submit([line | {"seeds": [100 + attempt]}]))
        else:
            pytest.fail("Flower showed the end of none of three jobs")
        for path in ("/api/tasks", "/api/workers?refresh=true", "/tasks", "/workers", "/broker"):
            answer = flower.ask(path)
            assert isinstance(answer, bytes), path
            seen += answer
    finally:
        flower.kill()
        ended.set()
        ear.join()
        listener.close()
    seen += b"".join(heard) + farm.log("w1").encode() + (farm.folder / "flower.log").read_bytes()
    # Celery packs the bodies of its messages and events.
    seen += b"".join(base64.b64decode(body) for body in re.findall(rb'"body": "([\w+/=]+)"', seen))
    for known in (b"task-succeeded", b"('cats-1', 0)", b'"callbacks": null'):
        assert known in seen
    assert [mark for mark in marks if mark in seen] == []


def test_flower_as_the_docs_start_it_listens_on_loopback_and_asks_for_a_password(
    farm: Farm, wait_until: WaitUntil
) -> None:
    flower = Flower(farm, farm.server.url)
    try:
        wait_until(lambda: flower.ask("/api/workers") is not None, "Flower listens")
        assert flower.ask("/api/workers", "ann:wrong") == flower.ask("/", "") == 401
        assert flower.ask("/metrics", "") == flower.ask("/metrics", "ann:wrong") == 401
        assert isinstance(flower.ask("/metrics"), bytes)
        assert isinstance(flower.ask("/api/workers"), bytes)
        connections = psutil.Process(flower.process.pid).net_connections("tcp")
        assert {each.laddr.ip for each in connections if each.status == psutil.CONN_LISTEN} == {"127.0.0.1"}
    finally:
        flower.kill()
