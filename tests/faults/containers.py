"""`make containers`: builds the image, brings the stack up, and kills every container in the middle of a job.

    python3 -m tests.faults.containers

It needs Docker or Podman with Compose 2.24 or newer, and nothing of Python beyond the standard library. What
it takes from the environment:

    COMPOSE          the command (docker compose)
    BASE_IMAGE, REDIS_IMAGE, PROMETHEUS_IMAGE, PIP_INDEX_URL, TORCH_INDEX_URL, COMPILER   as in .env
    GRAFANA_IMAGE    as in .env; without it Grafana is not run
    BUILD_NETWORK    the network that the image is built in, such as `host`
    IMAGES           how many pictures the job has (2760)
    BUILD            0 takes the image of the last run as it is
    STEPS            the steps to run, with commas between (all); each needs what those before it left
    KEEP             1 leaves the containers and volumes as they are

A project of its own (`imagemill-check`), with volumes of its own, is made and removed. The last line is JSON.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import sys
import tempfile
import time
from pathlib import Path

from tests.faults.engine import PROJECT, Failed, Stack, say

IMAGES = int(os.environ.get("IMAGES", "2760"))
Facts = dict[str, object]
"""What the last line says."""


def build(stack: Stack, facts: Facts) -> None:
    """The image; then again with another version and code: only a small layer is another one."""
    began = time.monotonic()
    stack.compose("build")
    say(f"built in {time.monotonic() - began:.0f} s")
    before = _layers(stack)
    project = stack.context / "pyproject.toml"
    project.write_text(project.read_text().replace('\nversion = "', '\nversion = "9.', 1))
    (stack.context / "jobs" / "wording.py").open("a").write("\n# changed\n")
    began = time.monotonic()
    stack.compose("build")
    new = [layer for layer in _layers(stack) if layer not in before]
    sizes = stack.engine("history", "--format", "{{.Size}} {{.CreatedBy}}", f"{PROJECT}:local").splitlines()
    size = next(line.split()[0] for line in sizes if "COPY" in line)
    say(f"another version: {len(new)} new layer of {size}, in {time.monotonic() - began:.0f} s")
    if len(new) != 1:
        raise Failed(f"a change of the code made {len(new)} layers again:\n" + "\n".join(sizes))
    facts |= {"new_layer": size}


def _layers(stack: Stack) -> list[str]:
    """The digests of the image's layers, the lowest first."""
    shown = stack.engine("image", "inspect", "--format", "{{json .RootFS.Layers}}", f"{PROJECT}:local")
    return [str(layer) for layer in json.loads(shown)]


def come_up(stack: Stack, _facts: Facts) -> None:
    """The stack, healthy; a second `up` leaves it alone."""
    stack.up()
    stack.wait(stack.healthy, "every container is healthy")
    before = stack.containers()
    stack.up()
    if stack.containers() != before:
        raise Failed("a second `up -d` replaced containers")
    say(f"healthy: {stack.names()}; a second `up -d` left them alone")


def metrics(stack: Stack, _facts: Facts) -> None:
    """The profile `metrics`: refused without its token and password, and up with them."""
    services = ("serve", "prometheus", *(["grafana"] if "GRAFANA_IMAGE" in os.environ else []))
    told = stack.compose("up", "-d", *services, check=False) + stack.compose("logs", "metrics-settings")
    for needed in ("SERVE_TOKEN: set", "GRAFANA_PASSWORD: set", '"metrics-settings" didn\'t complete'):
        if needed not in told:
            raise Failed(f"without its settings the profile says nothing of {needed}: {told}")
    if started := set(_services(stack)) & {"serve", "prometheus", "grafana"}:
        raise Failed(f"without its settings the profile started {started}")
    token, password = secrets.token_hex(24), secrets.token_hex(12)
    stack.passwords |= {"SERVE_TOKEN": token, "GRAFANA_PASSWORD": password}
    stack.write_settings()
    stack.services = services
    stack.up()
    stack.wait(stack.healthy, "the profile `metrics` is healthy")
    _ask_metrics(stack)
    say(f"healthy with the profile `metrics`: {stack.names()}; Prometheus scrapes the pages")


def _services(stack: Stack) -> list[str]:
    return stack.compose("ps", "--services").split()


def _ask_metrics(stack: Stack) -> None:
    """Whether the pages ask for the token, Prometheus has it, and Grafana lives and has its password."""
    told = {"Authorization": f"Bearer {stack.passwords['SERVE_TOKEN']}"}
    statuses = [stack.answer("serve", 8484, "/metrics", headers)[0] for headers in ({}, told)]
    if statuses != [401, 200]:
        raise Failed(f"/metrics without and with the token: {statuses}")
    stack.wait(lambda: _value(stack, 'up{job="imagemill"}') == 1, "Prometheus scrapes the pages")
    if "grafana" in stack.services:
        stack.wait(lambda: stack.answer("grafana", 3000, "/api/health")[0] == 200, "Grafana answers")
        admin = base64.b64encode(f"admin:{stack.passwords['GRAFANA_PASSWORD']}".encode()).decode()
        board = stack.answer("grafana", 3000, "/api/search?type=dash-db", {"Authorization": f"Basic {admin}"})
        if "imagemill" not in board[1].lower():
            raise Failed(f"Grafana shows no dashboard: {board}")


def _value(stack: Stack, query: str) -> float | None:
    """The one value that Prometheus has for a query; None if it has none."""
    status, text = stack.answer("prometheus", 9090, f"/api/v1/query?query={query}")
    found = json.loads(text)["data"]["result"] if status == 200 else []
    return float(found[0]["value"][1]) if found else None


def kill_all_in_the_middle(stack: Stack, facts: Facts) -> None:
    """A job of many pictures, while each container is killed once; then the counts."""
    _write_long_job(stack, "many")
    waiting = stack.start("submit", "/manifests/many.yaml", "--wait")
    count = "find /work/out/many -name '*.png' 2>/dev/null | wc -l"
    killed: list[str] = []
    while left := sorted(stack.containers().keys() - set(killed)):
        name = left[0]
        least = (int(stack.in_worker(count)) if killed else 0) + IMAGES // 30
        stack.wait(lambda least=least: int(stack.in_worker(count)) >= least, "pictures appear")  # type: ignore[misc]
        stack.engine("kill", stack.containers()[name])
        stack.up()
        if "producer" in name:
            waiting.communicate()
            waiting = stack.start("submit", "/manifests/many.yaml", "--wait")
        killed.append(name)
        there = int(stack.in_worker(count))
        say(f"killed {name}: {there:,} pictures are there")
        if there >= IMAGES:
            raise Failed("the job had ended before every container was killed: give more IMAGES")
    told = waiting.communicate()[0]
    if waiting.returncode != 0:
        raise Failed(f"the producer ended with {waiting.returncode}: {told}")
    pictures = int(stack.in_worker(count))
    lines = "cat /work/out/many/[0-9]*/metadata.jsonl /work/out/many/*/[0-9]*/metadata.jsonl 2>/dev/null"
    ids = f'{lines} | grep -o \'"image_id": *"[0-9a-f]*"\' | sort'
    written, different = stack.in_worker(f"{ids} | wc -l; {ids} -u | wc -l").split()
    stack.produce("doctor", "out/many")
    if not pictures == int(written) == int(different) == IMAGES:
        raise Failed(f"{pictures} pictures, {written} lines, {different} ids, of {IMAGES}")
    stack.wait(stack.healthy, "every container is healthy after its kill")
    facts |= {"images": IMAGES, "lost": 0, "killed": len(killed)}
    names = ", ".join(name.removeprefix(f"{PROJECT}-") for name in killed)
    say(f"{IMAGES:,} pictures, none lost and none twice, though each was killed once: {names}")


def _write_long_job(stack: Stack, name: str) -> None:
    """A manifest of many pictures that cost nothing but time."""
    manifest = {
        "name": name, "model": "instant", "shard_size": 40, "settings": {"height": 64, "width": 64},
        "prompts": [f"picture {number}" for number in range(IMAGES)],
    }  # fmt: skip
    (stack.manifests / f"{name}.yaml").write_text(json.dumps(manifest))


def examples(stack: Stack, _facts: Facts) -> None:
    """What the README and the examples do; Prometheus counts it."""
    stack.produce("submit", "/manifests/demo.yaml", "--wait")
    stack.produce("submit", "/manifests/webdataset.yaml", "--wait")
    stack.produce("export", "out/demo", "out/demo.parquet", "--to", "parquet")
    found = stack.in_worker("cd /work/out && ls demo/records.parquet webdataset/00000.parquet demo.parquet")
    stack.compose("cp", "worker:/work/out", str(stack.folder))
    pictures = len(list((stack.folder / "out" / "demo").glob("[0-9]*/*.png")))
    if pictures != 40:
        raise Failed(f"out/demo has {pictures} pictures of 40")
    say(f"demo: 40 pictures in out/demo; {' '.join(found.split())}")
    if "prometheus" in stack.services:
        done = 'imagemill_images{job_id="demo-1",state="done"}'
        stack.wait(lambda: _value(stack, done) == 40, "Prometheus has the demo's pictures")
        say(f"Prometheus: {done} = 40")


_COMPARE = """
import json, pathlib, numpy, PIL.Image
def pictures(out):
    for lines in sorted(pathlib.Path("out", out).glob("[0-9]*/metadata.jsonl")):
        for record in map(json.loads, lines.open()):
            with PIL.Image.open(lines.parent / record["file_name"]) as picture:
                pixels = numpy.asarray(picture.convert("RGB"), dtype=float)
            yield record["image_id"], record["rendered_device"], pixels
eager = {image_id: picture for image_id, _, picture in pictures("demo")}
compiled = list(pictures("compiled"))
assert len(compiled) == 40, len(compiled)
for image_id, device, picture in compiled:
    assert device.endswith(", compiled"), device
    assert picture.std() > 5, "a flat picture"
print(max(abs(picture - eager[image_id]).mean() for image_id, _, picture in compiled))
"""


def compiled(stack: Stack, facts: Facts) -> None:
    """The demo with IMAGEMILL_TORCH_COMPILE=1: code is compiled, and the pictures are those of before."""
    libraries = "find /cache/torchinductor -name '*.so' 2>/dev/null | wc -l"
    if int(stack.in_worker(libraries)):
        raise Failed("something was compiled without IMAGEMILL_TORCH_COMPILE")
    _write_demo(stack, "compiled")
    stack.write_settings(IMAGEMILL_TORCH_COMPILE="1", WORKERS="1")
    stack.up()
    stack.produce("submit", "/manifests/compiled.yaml", "--wait")
    made = int(stack.in_worker(libraries))
    try_tmp = "cp /bin/true /tmp/true && ! /tmp/true 2>/dev/null && ! touch /true 2>/dev/null && echo closed"
    if made == 0 or stack.in_worker(try_tmp) != "closed":
        raise Failed(f"{made} compiled libraries; is /tmp executable, or the root file system writable?")
    difference = float(stack.compose("exec", "-T", "producer", "python", "-c", _COMPARE))
    if difference > 2:
        raise Failed(f"compiled pictures differ from the others by {difference} of 255")
    stack.write_settings()
    stack.up()
    facts |= {"compiled_libraries": made}
    say(f"torch.compile: {made} libraries in /cache; 40 pictures, off the demo's by {difference:.2g} of 255")


def _write_demo(stack: Stack, name: str) -> None:
    """A manifest with the demo's pictures, in another output."""
    demo = (stack.manifests / "demo.yaml").read_text()
    (stack.manifests / f"{name}.yaml").write_text(demo.replace("output: out/demo\n", f"output: out/{name}\n"))


def another_user(stack: Stack, _facts: Facts) -> None:
    """What a changed RUN_AS_UID meets in volumes, and that the command of docs/deploy.md works."""
    told = stack.compose("run", "--rm", "-T", "--no-deps", "--user", "1000:1000", "worker", check=False)
    if "belongs to user 10001, and this process is user 1000" not in told:
        raise Failed(f"a worker of another user says: {told}")
    rights = ("--user", "0", "--cap-add", "CHOWN", "--cap-add", "DAC_OVERRIDE")
    folders = ("/work/out", "/cache", "/var/lib/imagemill")
    argv = ("worker", "chown", "-R", "10001:10001", *folders)
    stack.compose("run", "--rm", "-T", "--no-deps", *rights, *argv)
    say("a worker of another user is refused with the remedy, and the remedy works")


def passwords_in_files(stack: Stack, _facts: Facts) -> None:
    """The stack with docker-compose.secrets.yml: a job runs, and `docker inspect` shows no password."""
    given = stack.passwords
    folder = stack.folder / "secrets"
    folder.mkdir(mode=0o700)
    files = {
        f"redis_{user}": given[f"REDIS_{user.upper()}_PASSWORD"] for user in ("producer", "worker", "flower")
    }
    files |= {"flower": f"{given['FLOWER_USER']}:{given['FLOWER_PASSWORD']}"}
    files |= {
        name: given[name.upper()] for name in ("serve_token", "grafana_password") if name.upper() in given
    }
    for name, value in files.items():
        (folder / name).write_text(f"{value}\n")
        (folder / name).chmod(0o444)
    stack.passwords = {name: "in-a-file" for name in given if not name.startswith(("SERVE", "GRAFANA"))}
    stack.write_settings("docker-compose.secrets.yml", SECRETS=str(folder))
    stack.passwords = given
    stack.up()
    stack.wait(stack.healthy, "every container is healthy, its passwords in files")
    shown = stack.engine("inspect", *stack.containers("--all").values())
    for name, value in files.items():
        if any(part in shown for part in (value, value.rpartition(":")[2])):
            raise Failed(f"`inspect` shows the password of {name}")
    login = {"Authorization": f"Basic {base64.b64encode(files['flower'].encode()).decode()}"}
    logins = [stack.answer("flower", 5555, "/api/workers", headers)[0] for headers in ({}, login)]
    if logins != [401, 200]:
        raise Failed(f"Flower without and with its password: {logins}")
    if stack.services:
        _ask_metrics(stack)
    _write_demo(stack, "secret")
    stack.produce("submit", "/manifests/secret.yaml", "--wait")
    stack.produce("doctor", "out/secret")
    say(f"passwords in files: {stack.names()} healthy, 40 pictures, and `inspect` shows no password")


def take_down(stack: Stack, _facts: Facts) -> None:
    """`down` while a producer waits: nothing is left."""
    _write_long_job(stack, "wait")
    waiting = stack.start("submit", "/manifests/wait.yaml", "--wait")
    time.sleep(5)
    if waiting.poll() is not None:
        raise Failed(f"the producer does not wait: {waiting.communicate()[0]}")
    profile = ("--profile", "metrics") if stack.services else ()
    stack.compose(*profile, "down")
    waiting.communicate(timeout=60)
    if left := stack.containers():
        raise Failed(f"`down` left {', '.join(left)}")
    if "Resource is still in use" in stack.compose(*profile, "down"):
        raise Failed("`down` left the network")
    say("`down` ended all, a producer that waited as well")


STEPS = (
    build, come_up, metrics, kill_all_in_the_middle, examples, compiled, another_user,
    passwords_in_files, take_down,
)  # fmt: skip


def main() -> int:
    """Runs all steps; the exit status."""
    facts: Facts = {}
    chosen = os.environ.get("STEPS", "")
    names = chosen.split(",") if chosen else [step.__name__ for step in STEPS]
    if os.environ.get("BUILD") == "0":
        names = [name for name in names if name != "build"]
    steps = {step.__name__: step for step in STEPS}
    with tempfile.TemporaryDirectory(prefix="imagemill-containers-") as folder:
        stack = Stack(Path(folder))
        stack.write_settings()
        compose = stack.compose("version", "--short").strip()
        say(f"Compose {compose}, engine {stack.engine('version', '--format', '{{.Server.Version}}')}")
        try:
            for name in names:
                steps[name](stack, facts)
            if "GRAFANA_IMAGE" not in os.environ:
                say("Grafana was not run: GRAFANA_IMAGE names no image")
        except Failed as failure:
            say(f"failed: {failure}")
            return 1
        finally:
            if os.environ.get("KEEP") != "1":
                stack.compose("--profile", "metrics", "down", "--volumes", "--remove-orphans", check=False)
        sys.stdout.write(f"{json.dumps(facts)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
