"""Drives an engine with Compose for `containers.py`: docker-compose.yml in a copy of the repository."""

from __future__ import annotations

import json
import os
import re
import secrets
import shlex
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = "imagemill-check"
COMPOSE = shlex.split(os.environ.get("COMPOSE", "docker compose"))
ENGINE = os.environ.get("ENGINE", COMPOSE[0] if COMPOSE[0] in ("docker", "podman") else "docker")
IMAGES_OF = ("BASE_IMAGE", "REDIS_IMAGE", "PROMETHEUS_IMAGE", "GRAFANA_IMAGE")
PASSED_ON = (*IMAGES_OF, "PIP_INDEX_URL", "TORCH_INDEX_URL", "COMPILER")
PATIENCE = 900.0
"""Seconds that a step may take; more than that is a failure."""
_TAIL = 60
"""Lines of a failed command's output that are shown: a build prints thousands."""


class Failed(Exception):
    """Something is not as docker-compose.yml promises."""


def say(text: str) -> None:
    """A line of the run, with the time."""
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stdout.flush()


class Stack:
    """The containers of one project, in a folder that is a copy of what the repository holds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.context = folder / "repository"
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, capture_output=True, check=True,
        ).stdout  # fmt: skip
        for name in filter(None, os.fsdecode(listed).split("\0")):
            if (ROOT / name).is_file():
                (self.context / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, self.context / name)
        self.manifests = folder / "manifests"
        shutil.copytree(self.context / "jobs" / "examples", self.manifests)
        self._example = (self.context / ".env.example").read_text()
        needed = re.findall(r"^(\w+)=$", self._example, re.M)
        self.passwords = {name: secrets.token_hex(12) for name in needed}
        self.services: tuple[str, ...] = ()
        """Those of the profile `metrics` that `up` starts, besides all that have no profile."""

    def write_settings(self, *files: str, **further: str) -> None:
        """The .env that a person would write, and what only this check needs; `files` of Compose on top."""
        example = re.sub(
            r"^(\w+)=$", lambda name: f"{name[1]}={self.passwords[name[1]]}", self._example, flags=re.M
        )
        own = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        own |= {
            "COMPOSE_FILE": ":".join(("docker-compose.yml", "docker-compose.cpu.yml", "check.yml", *files)),
            "COMPOSE_PROJECT_NAME": PROJECT, "IMAGE": f"{PROJECT}:local", "WORKERS": "2",
            "MANIFESTS": str(self.manifests), "IMAGEMILL_LEASE": "10", "IMAGEMILL_INSTANT_SECONDS": "0.5",
            "IMAGEMILL_BATCH_SIZE": "8",
        }  # fmt: skip
        own |= {f"{name}_PORT": "0" for name in ("FLOWER", "SERVE", "PROMETHEUS", "GRAFANA")}
        own |= {name: value for name, value in self.passwords.items() if f"\n{name}=\n" not in self._example}
        own |= further
        (self.context / ".env").write_text(example + "".join(f"{key}={own[key]}\n" for key in own))
        network = os.environ.get("BUILD_NETWORK")
        build = {"build": {"network": network}} if network else {}
        (self.context / "check.yml").write_text(json.dumps({"services": {"worker": build}}))

    def environment(self) -> dict[str, str]:
        """This process's, without what would come before the .env."""
        taken = {
            *re.findall(r"^#?(\w+)=", self._example, re.M),
            *PASSED_ON,
            "COMPOSE_PROFILES",
            "COMPOSE_PROJECT_NAME",
        }
        return {name: value for name, value in os.environ.items() if name not in taken}

    def compose(self, *arguments: str, check: bool = True) -> str:
        """What `docker compose ARGUMENTS` prints."""
        done = subprocess.run(
            [*COMPOSE, *arguments], cwd=self.context, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, env=self.environment(), check=False,
        )  # fmt: skip
        if check and done.returncode != 0:
            command = shlex.join([*COMPOSE, *arguments])
            raise Failed(f"{command}: exit status {done.returncode}\n{_end(done.stdout)}")
        return done.stdout

    def engine(self, *arguments: str) -> str:
        """What `docker ARGUMENTS` prints."""
        return subprocess.run([ENGINE, *arguments], capture_output=True, text=True, check=True).stdout.strip()

    def up(self) -> None:
        """Starts what does not run."""
        self.compose("up", "-d")
        if self.services:
            self.compose("up", "-d", *self.services)

    def produce(self, *arguments: str) -> str:
        """What `docker compose exec producer imagemill ARGUMENTS` prints."""
        return self.compose("exec", "-T", "producer", "imagemill", *arguments)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """The same, beside what follows."""
        return subprocess.Popen(
            [*COMPOSE, "exec", "-T", "producer", "imagemill", *arguments], cwd=self.context, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=self.environment(),
        )  # fmt: skip

    def in_worker(self, script: str) -> str:
        """What a shell in a worker's container prints."""
        return self.compose("exec", "-T", "worker", "sh", "-c", script).strip()

    def containers(self, *ended: str) -> dict[str, str]:
        """Name -> id, of all containers of the project that run; with "--all", also of those that ended."""
        label = f"label=com.docker.compose.project={PROJECT}"
        lines = self.engine("ps", *ended, "--filter", label, "--format", "{{.Names}} {{.ID}}").splitlines()
        return dict(line.split() for line in lines)

    def names(self) -> str:
        """Those of the containers that run, without the project's."""
        return ", ".join(sorted(name.removeprefix(f"{PROJECT}-") for name in self.containers()))

    def healthy(self) -> bool:
        """Whether all containers run, and each that has a health check passes it."""
        shown = "{{.State.Status}} {{if .State.Health}}{{.State.Health.Status}}{{end}}"
        states = [self.engine("inspect", "--format", shown, one) for one in self.containers().values()]
        return len(states) == 5 + len(self.services) and set(states) <= {"running healthy", "running"}

    def wait(self, done: Callable[[], bool], what: str) -> None:
        """Waits until something has come about."""
        ends = time.monotonic() + PATIENCE
        while not done():
            if time.monotonic() > ends:
                logs = self.compose("logs", "--tail", "40", check=False)
                raise Failed(f"{what}: not within {PATIENCE:.0f} s\n{logs}")
            time.sleep(1)

    def answer(
        self, service: str, port: int, path: str, headers: Mapping[str, str] | None = None
    ) -> tuple[int, str]:
        """Status and text of what a service says at the port that it publishes; 0 while it says nothing."""
        place = self.compose("port", service, str(port)).strip()
        asked = urllib.request.Request(f"http://{place}{path}", headers=dict(headers or {}))
        try:
            with urllib.request.urlopen(asked, timeout=30) as said:
                return said.status, said.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""


def _end(output: str) -> str:
    return "\n".join(output.splitlines()[-_TAIL:])
