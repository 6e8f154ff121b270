"""`make containers`: builds the image, brings the stack up, and kills every container in the middle of a job.

    python3 -m tests.faults.containers

It needs Docker or Podman with Compose 2.24 or newer, and nothing of Python beyond the standard library. What
it takes from the environment:

    COMPOSE          the command (docker compose)
    BASE_IMAGE, REDIS_IMAGE, PIP_INDEX_URL, TORCH_INDEX_URL, COMPILER   as in .env
    BUILD_NETWORK    the network that the image is built in, such as `host`
    IMAGES           how many pictures the job has (2760)
    BUILD            0 takes the image of the last run as it is
    KEEP             1 leaves the containers and volumes as they are

A project of its own (`imagemill-check`), with volumes of its own, is made and removed. The last line is JSON.
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = "imagemill-check"
COMPOSE = shlex.split(os.environ.get("COMPOSE", "docker compose"))
ENGINE = os.environ.get("ENGINE", COMPOSE[0] if COMPOSE[0] in ("docker", "podman") else "docker")
IMAGES = int(os.environ.get("IMAGES", "2760"))
PASSED_ON = ("BASE_IMAGE", "REDIS_IMAGE", "PIP_INDEX_URL", "TORCH_INDEX_URL", "COMPILER")
PATIENCE = 900.0
"""Seconds that a step may take; more than that is a failure."""


class Failed(Exception):
    """Something is not as docker-compose.yml promises."""


def say(text: str) -> None:
    """A line of the run, with the time."""
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stdout.flush()


class Check:
    """The stack on an engine, in a folder that is a copy of what the repository holds."""

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
        self.facts: dict[str, object] = {}

    def write_settings(self) -> None:
        """The .env that a person would write, and what only this check needs."""
        example = (self.context / ".env.example").read_text()
        for line in example.splitlines():
            name, equals, value = line.partition("=")
            if equals and not value and not name.startswith("#"):
                example = example.replace(f"\n{name}=\n", f"\n{name}={secrets.token_hex(12)}\n")
        own = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        own |= {
            "COMPOSE_FILE": "docker-compose.yml:docker-compose.cpu.yml:check.yml",
            "COMPOSE_PROJECT_NAME": PROJECT, "IMAGE": f"{PROJECT}:local", "FLOWER_PORT": "0", "WORKERS": "2",
            "MANIFESTS": str(self.manifests), "IMAGEMILL_LEASE": "10", "IMAGEMILL_INSTANT_SECONDS": "0.5",
            "IMAGEMILL_BATCH_SIZE": "8",
        }  # fmt: skip
        (self.context / ".env").write_text(example + "".join(f"{key}={own[key]}\n" for key in own))
        network = os.environ.get("BUILD_NETWORK")
        build = {"build": {"network": network}} if network else {}
        (self.context / "check.yml").write_text(json.dumps({"services": {"worker": build}}))

    def compose(self, *arguments: str, check: bool = True) -> str:
        """What `docker compose ARGUMENTS` prints."""
        done = subprocess.run(
            [*COMPOSE, *arguments], cwd=self.context, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, env=self.environment(), check=False,
        )  # fmt: skip
        if check and done.returncode != 0:
            raise Failed(
                f"{shlex.join([*COMPOSE, *arguments])}: exit status {done.returncode}\n{done.stdout}"
            )
        return done.stdout

    def environment(self) -> dict[str, str]:
        """This process's, without what would come before the .env."""
        taken = {*PASSED_ON, "COMPOSE_FILE", "COMPOSE_PROJECT_NAME"}
        return {name: value for name, value in os.environ.items() if name not in taken}

    def engine(self, *arguments: str) -> str:
        """What `docker ARGUMENTS` prints."""
        return subprocess.run([ENGINE, *arguments], capture_output=True, text=True, check=True).stdout.strip()

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """A command of the producer, beside what follows."""
        return subprocess.Popen(
            [*COMPOSE, "exec", "-T", "producer", "imagemill", *arguments], cwd=self.context, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=self.environment(),
        )  # fmt: skip

    def produce(self, *arguments: str) -> str:
        """What `docker compose exec producer imagemill ARGUMENTS` prints."""
        return self.compose("exec", "-T", "producer", "imagemill", *arguments)

    def containers(self) -> dict[str, str]:
        """Name -> id, of all containers of the project that run."""
        label = f"label=com.docker.compose.project={PROJECT}"
        lines = self.engine("ps", "--filter", label, "--format", "{{.Names}} {{.ID}}").splitlines()
        return dict(line.split() for line in lines)

    def in_worker(self, script: str) -> str:
        """What a shell in a worker's container prints."""
        return self.compose("exec", "-T", "worker", "sh", "-c", script).strip()

    def wait(self, done: Callable[[], bool], what: str) -> None:
        """Waits until something has come about."""
        ends = time.monotonic() + PATIENCE
        while not done():
            if time.monotonic() > ends:
                logs = self.compose("logs", "--tail", "40", check=False)
                raise Failed(f"{what}: not within {PATIENCE:.0f} s\n{logs}")
            time.sleep(1)

    def all_healthy(self) -> bool:
        """Whether each container that has a health check passes it."""
        shown = "{{if .State.Health}}{{.State.Health.Status}}{{end}}"
        states = [self.engine("inspect", "--format", shown, one) for one in self.containers().values()]
        return len(states) == 5 and set(states) == {"healthy", ""}

    def layers(self) -> list[str]:
        """The digests of the image's layers, the lowest first."""
        shown = self.engine("image", "inspect", "--format", "{{json .RootFS.Layers}}", f"{PROJECT}:local")
        return [str(layer) for layer in json.loads(shown)]

    def build(self) -> None:
        """The image; then again with another version and code: only a small layer is another one."""
        began = time.monotonic()
        self.compose("build")
        say(f"built in {time.monotonic() - began:.0f} s")
        before = self.layers()
        project = self.context / "pyproject.toml"
        project.write_text(project.read_text().replace('\nversion = "', '\nversion = "9.', 1))
        (self.context / "jobs" / "wording.py").open("a").write("\n# changed\n")
        began = time.monotonic()
        self.compose("build")
        new = [layer for layer in self.layers() if layer not in before]
        sizes = self.engine(
            "history", "--format", "{{.Size}} {{.CreatedBy}}", f"{PROJECT}:local"
        ).splitlines()
        size = next(line.split()[0] for line in sizes if "COPY" in line)
        say(f"another version: {len(new)} new layer of {size}, in {time.monotonic() - began:.0f} s")
        if len(new) != 1:
            raise Failed(f"a change of the code made {len(new)} layers again:\n" + "\n".join(sizes))
        self.facts |= {"new_layer": size}

    def come_up(self) -> None:
        """The stack, healthy; a second `up` leaves it alone, and its checks cost next to nothing."""
        self.compose("up", "-d")
        self.wait(self.all_healthy, "every container is healthy")
        before = self.containers()
        self.compose("up", "-d")
        if self.containers() != before:
            raise Failed("a second `up -d` replaced containers")
        say(f"healthy: {', '.join(sorted(before))}; a second `up -d` left them alone")

    def examples(self) -> None:
        """What the README and the examples do."""
        self.produce("submit", "/manifests/demo.yaml", "--wait")
        self.produce("submit", "/manifests/webdataset.yaml", "--wait")
        self.produce("export", "out/demo", "out/demo.parquet", "--to", "parquet")
        found = self.in_worker(
            "cd /work/out && ls demo/records.parquet webdataset/00000.parquet demo.parquet"
        )
        self.compose("cp", "worker:/work/out", str(self.folder))
        pictures = len(list((self.folder / "out" / "demo").glob("[0-9]*/*.png")))
        if pictures != 40:
            raise Failed(f"out/demo has {pictures} pictures of 40")
        say(f"demo: 40 pictures in out/demo; {' '.join(found.split())}")

    def kill_all_in_the_middle(self) -> None:
        """A job of many pictures, while each container is killed once; then the counts."""
        manifest = {
            "name": "many", "model": "instant", "shard_size": 40, "settings": {"height": 64, "width": 64},
            "prompts": [f"picture {number}" for number in range(IMAGES)],
        }  # fmt: skip
        (self.manifests / "many.yaml").write_text(json.dumps(manifest))
        waiting = self.start("submit", "/manifests/many.yaml", "--wait")
        count = "find /work/out/many -name '*.png' 2>/dev/null | wc -l"
        killed: list[str] = []
        while left := sorted(self.containers().keys() - set(killed)):
            name = left[0]
            least = (int(self.in_worker(count)) if killed else 0) + IMAGES // 20
            self.wait(lambda least=least: int(self.in_worker(count)) >= least, "pictures appear")  # type: ignore[misc]
            self.engine("kill", self.containers()[name])
            self.compose("up", "-d")
            if "producer" in name:
                waiting.communicate()
                waiting = self.start("submit", "/manifests/many.yaml", "--wait")
            killed.append(name)
            there = int(self.in_worker(count))
            say(f"killed {name}: {there:,} pictures are there")
            if there >= IMAGES:
                raise Failed("the job had ended before every container was killed: give more IMAGES")
        told = waiting.communicate()[0]
        if waiting.returncode != 0:
            raise Failed(f"the producer ended with {waiting.returncode}: {told}")
        pictures = int(self.in_worker(count))
        lines = "cat /work/out/many/[0-9]*/metadata.jsonl /work/out/many/*/[0-9]*/metadata.jsonl 2>/dev/null"
        ids = f'{lines} | grep -o \'"image_id": *"[0-9a-f]*"\' | sort'
        written, different = self.in_worker(f"{ids} | wc -l; {ids} -u | wc -l").split()
        self.produce("doctor", "out/many")
        if not pictures == int(written) == int(different) == IMAGES:
            raise Failed(f"{pictures} pictures, {written} lines, {different} ids, of {IMAGES}")
        self.facts |= {"images": IMAGES, "lost": 0, "killed": len(killed)}
        names = ", ".join(name.removeprefix(f"{PROJECT}-") for name in killed)
        say(f"{IMAGES:,} pictures, none lost and none twice, though each was killed once: {names}")

    def another_user(self) -> None:
        """What a changed RUN_AS_UID meets in volumes, and that the command of docs/deploy.md works."""
        told = self.compose("run", "--rm", "-T", "--no-deps", "--user", "1000:1000", "worker", check=False)
        if "belongs to user 10001, and this process is user 1000" not in told:
            raise Failed(f"a worker of another user says: {told}")
        rights = ("--user", "0", "--cap-add", "CHOWN", "--cap-add", "DAC_OVERRIDE")
        folders = ("/work/out", "/cache", "/var/lib/imagemill")
        argv = ("worker", "chown", "-R", "10001:10001", *folders)
        self.compose("run", "--rm", "-T", "--no-deps", *rights, *argv)
        say("a worker of another user is refused with the remedy, and the remedy works")

    def take_down(self) -> None:
        """`down` while a producer waits: nothing is left."""
        many = (self.manifests / "many.yaml").read_text()
        (self.manifests / "wait.yaml").write_text(many.replace("many", "wait"))
        waiting = self.start("submit", "/manifests/wait.yaml", "--wait")
        time.sleep(5)
        if waiting.poll() is not None:
            raise Failed(f"the producer does not wait: {waiting.communicate()[0]}")
        self.compose("down")
        waiting.communicate(timeout=60)
        if left := self.containers():
            raise Failed(f"`down` left {', '.join(left)}")
        if "Resource is still in use" in self.compose("down"):
            raise Failed("`down` left the network")
        say("`down` ended all, a producer that waited as well")


def main() -> int:
    """Runs all steps; the exit status."""
    with tempfile.TemporaryDirectory(prefix="imagemill-containers-") as folder:
        check = Check(Path(folder))
        check.write_settings()
        versions = (
            check.compose("version", "--short"),
            check.engine("version", "--format", "{{.Server.Version}}"),
        )
        say(f"Compose {versions[0].strip()}, engine {versions[1]}")
        try:
            build = [] if os.environ.get("BUILD") == "0" else [check.build]
            stack = [check.come_up, check.kill_all_in_the_middle, check.examples, check.another_user]
            for step in (*build, *stack, check.take_down):
                step()
        except Failed as failure:
            say(f"failed: {failure}")
            return 1
        finally:
            if os.environ.get("KEEP") != "1":
                check.compose("down", "--volumes", "--remove-orphans", check=False)
        sys.stdout.write(f"{json.dumps(check.facts)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
