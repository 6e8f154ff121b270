"""docker-compose.yml says the truth: every service's own command line runs here, and a job goes through them.

Without containers. Of what the files say only host names, ports and the paths of mounted volumes are
replaced; the server's program is found on PATH by the command itself.
"""

from __future__ import annotations

import base64
import json
import os
import re
import resource
import shutil
import signal
import socket
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import psutil
import pytest
import yaml

from jobs.settings import FORMER_NAMES, PREFIX, Settings
from producer.embedded_redis import find_binary
from tests.ports import free_port
from tests.waiting import LONGEST, WaitUntil
from worker.host.supervisor import Pace

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
SECRETS = {
    "REDIS_PRODUCER_PASSWORD": "producer-secret_1",
    "REDIS_WORKER_PASSWORD": "worker-secret_1",
    "REDIS_FLOWER_PASSWORD": "flower-secret_1",
    "FLOWER_USER": "ann",
    "FLOWER_PASSWORD": "flower-secret_2",
}
OURS = ("worker", "flower", "producer")
_RESET = object()
_VARIABLE = re.compile(r"\$(?:(\$)|\{(\w+)(?::?([?-])([^}]*))?\})")


class _Instead(dict[str, Any]):
    """What `!override` puts in the place of what stood there."""


class _Loader(yaml.SafeLoader):
    """YAML with Compose's `!reset` and `!override`."""


_Loader.add_constructor("!reset", lambda _loader, _node: _RESET)
_Loader.add_constructor("!override", lambda loader, node: _Instead(loader.construct_mapping(node, deep=True)))


def services(*overrides: str, **variables: str) -> dict[str, Any]:
    """docker-compose.yml under the `overrides`, its variables replaced, without the profile `metrics`.

    KeyError for a required variable that is empty.
    """
    merged: Any = {}
    for file in ("docker-compose.yml", *overrides):
        merged = _merge(merged, yaml.load((ROOT / file).read_text(), _Loader))
    described = cast(dict[str, Any], _resolve(merged, SECRETS | variables)["services"])
    return {name: one for name, one in described.items() if one.get("profiles") != ["metrics"]}


def _merge(below: Any, above: Any) -> Any:
    # Compose appends lists, but for command and healthcheck; no list but `command` stands in our second file.
    if not (isinstance(below, dict) and isinstance(above, dict)) or isinstance(above, _Instead):
        return above
    both = below | {key: _merge(below.get(key), value) for key, value in above.items()}
    return {key: value for key, value in both.items() if value is not _RESET}


def _resolve(value: Any, variables: Mapping[str, str]) -> Any:
    def one(match: re.Match[str]) -> str:
        dollar, name, kind, text = match.groups()
        if dollar:
            return "$"
        if variables.get(name):
            return variables[name]
        if kind == "?":
            raise KeyError(f"{name}: {text}")
        return text or ""

    if isinstance(value, dict):
        return {key: _resolve(item, variables) for key, item in value.items()}
    if isinstance(value, list):
        return [_resolve(item, variables) for item in value]
    return _VARIABLE.sub(one, value) if isinstance(value, str) else value


class Stack:
    """The services on a host without a GPU, as processes of this machine."""

    def __init__(self, folder: Path) -> None:
        self.services = services("docker-compose.cpu.yml")
        self._folder = folder
        self.redis_port, self.flower_port = free_port(), free_port()
        volumes = [volume for each in self.services.values() for volume in each.get("volumes", [])]
        targets = {volume.split(":")[1] for volume in volumes} | {"/work"}
        self._replaced = {rf"(?<![\w/.]){path}(?![\w.-])": str(self.place(path)) for path in targets} | {
            r"@redis:6379": f"@127.0.0.1:{self.redis_port}", r"\b6379\b": str(self.redis_port),
            r"\b5555\b": str(self.flower_port), r"0\.0\.0\.0": "127.0.0.1",
        }  # fmt: skip
        for target in targets:
            self.place(target).mkdir(parents=True, exist_ok=True)
        shutil.copytree(ROOT / "deploy", self.place("/deploy"), dirs_exist_ok=True)
        (folder / "bin").mkdir()
        (folder / "root").mkdir()
        if shutil.which("redis-cli") is None and shutil.which("valkey-cli") is None:
            _write_client(folder / "bin" / "valkey-cli")
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def place(self, path: str) -> Path:
        """Where a path in a container lies here."""
        return self._folder / "volumes" / path.strip("/")

    def here(self, text: str) -> str:
        """A piece of a command line, or a variable's value, as it must read on this machine."""
        for pattern, replacement in self._replaced.items():
            text = re.sub(pattern, replacement, text)
        return text

    def argv(self, service: str, *arguments: str) -> list[str]:
        """The service's command line; `arguments` stand in its command's place, as with `compose run`."""
        described = self.services[service]
        command = arguments or described["command"]
        return [self.here(part) for part in (*described.get("entrypoint", ()), *command)]

    def environment(self, service: str) -> dict[str, str]:
        """What the service finds in its environment, and nothing of this test's own but paths."""
        path = [self._folder / "bin", BIN, find_binary().parent, os.environ["PATH"]]
        own = {"PATH": os.pathsep.join(map(str, path)), "HOME": str(self._folder), "OMP_NUM_THREADS": "1"}
        own["PYTHONPATH"] = str(ROOT)
        given = self.services[service].get("environment", {})
        return own | {name: self.here(str(value)) for name, value in given.items() if value is not None}

    def start(self, service: str, instance: int = 1) -> None:
        """Starts one replica of a service; its log is SERVICE-N.log."""
        name = f"{service}-{instance}"
        with (self._folder / f"{name}.log").open("wb") as log:
            self.running[name] = subprocess.Popen(
                self.argv(service), env=self.environment(service), cwd=self._folder / "root",
                stdout=log, stderr=log,
            )  # fmt: skip

    def run(self, service: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """What `docker compose run --rm SERVICE ARGUMENTS` does."""
        return subprocess.run(
            self.argv(service, *arguments), env=self.environment(service), text=True, capture_output=True,
            cwd=self.place(self.services[service]["working_dir"]), timeout=LONGEST, check=False,
        )  # fmt: skip

    def healthy(self, service: str) -> bool:
        """Whether the service's healthcheck passes now."""
        kind, *test = self.services[service]["healthcheck"]["test"]
        argv = ["/bin/sh", "-c", *test] if kind == "CMD-SHELL" else test
        done = subprocess.run(
            [self.here(part) for part in argv], env=self.environment(service), cwd=self._folder / "root",
            capture_output=True, timeout=LONGEST, check=False,
        )  # fmt: skip
        return done.returncode == 0

    def flower(self, path: str, credentials: str = "ann:flower-secret_2", method: str = "GET") -> Any:
        """What Flower's API answers; its status where that is an error, None while nobody listens."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.flower_port}{path}", method=method)
        if credentials:
            request.add_header("Authorization", f"Basic {base64.b64encode(credentials.encode()).decode()}")
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code
        except urllib.error.URLError:
            return None

    def logs(self) -> str:
        """The end of every log, for a failure's message."""
        files = sorted(self._folder.glob("*.log"))
        return "\n".join(f"{file.name}:\n{file.read_text(errors='replace')[-1500:]}" for file in files)

    def stop(self) -> dict[str, int]:
        """SIGTERM to every service, the last started first; their exit statuses."""
        statuses = {}
        for name, process in reversed(self.running.items()):
            process.terminate()
            statuses[name] = process.wait(timeout=LONGEST)
        return statuses

    def kill(self) -> None:
        """Ends what is left, whatever state it is in."""
        for process in self.running.values():
            if process.poll() is None:
                for child in psutil.Process(process.pid).children(recursive=True):
                    child.send_signal(signal.SIGKILL)
                process.kill()
                process.wait()


def _write_client(file: Path) -> None:
    """Stands in for the server's own client, which the bundled server comes without."""
    file.write_text(
        f"#!{sys.executable}\nimport os, sys, redis\nassert sys.argv[1::2] == ['-p', '--user', 'ping']\n"
        "password = os.environ['VALKEYCLI_AUTH']\n"
        "client = redis.Redis(port=int(sys.argv[2]), username=sys.argv[4], password=password)\n"
        "print('PONG' if client.ping() else 'no')\n"
    )
    file.chmod(0o755)


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    """The services, none started yet."""
    stack = Stack(tmp_path)
    yield stack
    stack.kill()


def test_a_job_goes_through_the_services_own_command_lines_and_flower_shows_it(
    stack: Stack, wait_until: WaitUntil
) -> None:
    stack.start("redis")
    wait_until(lambda: stack.healthy("redis"), "redis is healthy")
    # Flower hears of a worker when that comes: of one that came earlier it may hear minutes later.
    for service, instances in (("flower", 1), ("worker", 2)):
        for instance in range(1, instances + 1):
            stack.start(service, instance)
        wait_until(lambda: stack.healthy(service), f"{service} is healthy; {stack.logs()}")  # noqa: B023

    def online() -> list[str]:
        workers = stack.flower("/api/workers?status=true")
        return sorted(name for name, up in workers.items() if up) if isinstance(workers, dict) else []

    wait_until(lambda: len(online()) == 2, f"Flower sees both workers; {stack.logs()}")
    assert online() == [f"cpu{n}@{socket.gethostname()}" for n in (0, 1)]
    assert stack.flower("/api/workers", credentials="") == 401
    assert stack.flower("/api/tasks", credentials="ann:wrong") == 401
    assert stack.flower("/metrics", credentials="") == 401
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert stack.healthy("worker")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.1, "seconds of a CPU"
    assert stack.flower(f"/api/worker/shutdown/{online()[0]}", method="POST") == 403

    manifest = {
        "name": "cats", "model": "instant", "output": "out/cats", "shard_size": 4,
        "settings": {"height": 64, "width": 64}, "prompts": [f"cat {n}" for n in range(32)],
    }  # fmt: skip
    (stack.place("/manifests") / "cats.yaml").write_text(json.dumps(manifest))
    done = stack.run("producer", "submit", "/manifests/cats.yaml", "--wait")
    assert done.returncode == 0, done.stderr + stack.logs()
    # With OUTPUTS=./out this is ./out/cats, as the manifest says.
    pictures = list(stack.place("/work/out").glob("cats/[0-9]*/*.png"))
    assert len(pictures) == 32

    def shards_shown() -> set[str]:
        tasks = stack.flower("/api/tasks?state=SUCCESS")
        return {task["args"] for task in tasks.values() if "'ended': 'committed'" in task["result"]}

    wait_until(lambda: len(shards_shown()) == 8, "Flower shows the finished shards")
    assert shards_shown() == {repr(("cats-1", shard)) for shard in range(8)}

    seen = [part for process in psutil.process_iter(["cmdline"]) for part in process.info["cmdline"] or []]
    assert not [part for part in seen for secret in SECRETS.values() if "secret" in secret and secret in part]
    assert stack.stop() == {"worker-2": 0, "worker-1": 0, "flower-1": 0, "redis-1": 0}
    assert not stack.healthy("redis")


def test_the_file_of_the_users_is_closed_to_all_but_the_server(stack: Stack, wait_until: WaitUntil) -> None:
    stack.start("redis")
    wait_until(lambda: stack.healthy("redis"), "redis is healthy")
    assert stat.S_IMODE((stack.place("/data") / "users.acl").stat().st_mode) == 0o600


def test_a_redis_password_that_would_break_the_url_is_refused_by_the_server(stack: Stack) -> None:
    environment = stack.environment("redis") | {"REDIS_WORKER_PASSWORD": "p@ss:word"}
    done = subprocess.run(
        stack.argv("redis"), env=environment, text=True, capture_output=True, timeout=LONGEST, check=False
    )
    assert done.returncode == 2
    assert "REDIS_WORKER_PASSWORD: letters, digits" in done.stderr


def test_without_a_redis_the_workers_healthcheck_fails(stack: Stack) -> None:
    assert not stack.healthy("worker")


@pytest.mark.parametrize("missing", SECRETS)
def test_every_password_must_be_given(missing: str) -> None:
    with pytest.raises(KeyError, match=missing):
        services(**{missing: ""})
    assert f"\n{missing}=\n" in (ROOT / ".env.example").read_text()


def test_flower_only_shows() -> None:
    assert "--read_only=True" in services()["flower"]["command"]


def test_only_flower_is_published_and_on_loopback_alone() -> None:
    published = {name: service["ports"] for name, service in services().items() if "ports" in service}
    assert published == {"flower": ["127.0.0.1:5555:5555"]}


def test_no_service_has_more_rights_than_it_needs() -> None:
    assert set(services()) == {"redis", *OURS}
    for name, service in services().items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        taken = {"privileged", "cap_add", "devices", "network_mode", "pid", "ipc", "userns_mode", "group_add"}
        assert not taken & set(service), name
        assert not [volume for volume in service.get("volumes", []) if ".sock" in volume], name
        assert service["tmpfs"] == ["/tmp"], name
        # Ours run as the user that the Dockerfile names, Valkey's as the one that its image has.
        assert name in OURS or service["user"] == "999"


def test_each_service_comes_to_redis_as_its_own_user_and_knows_no_other_password() -> None:
    for name in OURS:
        environment = services()[name]["environment"]
        own = SECRETS[f"REDIS_{name.upper()}_PASSWORD"]
        assert environment["IMAGEMILL_REDIS_URL"] == f"redis://{name}:{own}@redis:6379/0"
        others = [
            secret for variable, secret in SECRETS.items() if variable.startswith("REDIS_") and secret != own
        ]
        assert not [secret for secret in others if secret in str(services()[name])], name


def test_every_setting_that_a_service_is_given_is_one_that_imagemill_knows() -> None:
    known = {PREFIX + name.upper() for name in (*Settings.model_fields, *FORMER_NAMES)}
    for name, service in services().items():
        given = {variable for variable in service["environment"] if variable.startswith(PREFIX)}
        assert given <= known, name


def test_a_worker_has_longer_to_stop_than_its_supervisor_waits() -> None:
    worker = services()["worker"]
    assert worker["init"] is True
    assert int(worker["stop_grace_period"].removesuffix("s")) > Pace().grace + Pace().after_kill


def test_replicas_share_the_gpus_by_locks_in_one_volume_and_the_cpu_file_asks_for_none() -> None:
    worker = services()["worker"]
    (gpus,) = worker["deploy"]["resources"]["reservations"]["devices"]
    assert gpus["count"] == "all"
    assert worker["command"] == ["imagemill-worker", "--gpus", "any"]
    assert f"locks:{worker['environment']['IMAGEMILL_RUNTIME_DIR']}" in worker["volumes"]
    on_cpu = services("docker-compose.cpu.yml")["worker"]
    assert on_cpu["deploy"]["resources"]["reservations"] == {}
    assert on_cpu == worker | {"command": ["imagemill-worker", "--gpus", "none"], "deploy": on_cpu["deploy"]}


def test_one_service_builds_the_image_that_all_of_ours_use() -> None:
    """With two builders of one tag, a plain `up -d` replaces every worker."""
    assert [name for name, service in services().items() if "build" in service] == ["worker"]
    assert len({services()[name]["image"] for name in OURS}) == 1


@pytest.mark.parametrize("service", ["worker", "producer"])
def test_every_setting_reaches_the_service_from_the_file_of_variables(service: str) -> None:
    here = {"REDIS_URL", "OUTPUT_ROOT", *(["RUNTIME_DIR"] if service == "worker" else [])}
    # One process of a producer alone has no locks to share.
    left_out = {"RUNTIME_DIR"} - here
    environment = {
        variable.removeprefix(PREFIX): value
        for variable, value in services()[service]["environment"].items()
        if variable.startswith(PREFIX)
    }
    assert {name.upper() for name in (*Settings.model_fields, *FORMER_NAMES)} == set(environment) | left_out
    assert {name for name, value in environment.items() if value is not None} == here


def test_no_log_grows_without_end() -> None:
    for name, service in services().items():
        options = service["logging"]["options"]
        assert options["max-size"] == "10m", name
        assert int(options["max-file"]) > 1, name


def test_a_file_says_how_many_workers_there_are() -> None:
    assert services()["worker"]["deploy"]["replicas"] == "1"
    assert services(WORKERS="4")["worker"]["deploy"]["replicas"] == "4"
    assert "#WORKERS=1\n" in (ROOT / ".env.example").read_text()


def test_the_file_of_passwords_is_never_committed() -> None:
    assert {".env", "secrets/"} <= set((ROOT / ".gitignore").read_text().splitlines())


def test_the_producer_is_a_container_of_the_stack_so_that_down_ends_what_waits_in_it(stack: Stack) -> None:
    """Compose's `down` leaves containers of `run`, and no container of a profile is there for `exec`."""
    assert "profiles" not in stack.services["producer"]
    stack.start("producer")
    assert stack.run("producer", "--help").stdout.startswith("Usage: imagemill")
    assert stack.running["producer-1"].poll() is None
    assert stack.stop() == {"producer-1": -signal.SIGTERM}


def test_with_passwords_in_files_none_is_in_an_environment() -> None:
    described = services("docker-compose.secrets.yml")
    for name, service in described.items():
        environment = service["environment"]
        assert not [
            value for value in environment.values() for secret in SECRETS.values() if secret in str(value)
        ]
        files = {value for variable, value in environment.items() if variable.endswith("_FILE")}
        assert files == {f"/run/secrets/{secret}" for secret in service["secrets"]}, name


def test_the_servers_users_are_the_same_with_passwords_from_files(tmp_path: Path) -> None:
    given = {name: value for name, value in SECRETS.items() if name.startswith("REDIS_")}
    for name, value in given.items():
        (tmp_path / name).write_text(f"{value}\n")
    in_files = {f"{name}_FILE": str(tmp_path / name) for name in given}
    argv = ["sh", ROOT / "deploy" / "redis_acl.sh"]
    files, variables, both = (
        subprocess.run(argv, env=os.environ | given, text=True, capture_output=True, check=False)
        for given in (in_files, given, in_files | given)
    )
    assert variables.stdout.count("\n") == 4
    assert files.stdout == variables.stdout
    assert both.returncode == 2
    assert "REDIS_PRODUCER_PASSWORD_FILE: REDIS_PRODUCER_PASSWORD is set too" in both.stderr
