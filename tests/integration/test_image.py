"""The Dockerfile says the truth, and a change of the code makes only a small layer again."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def stage(name: str) -> str:
    """The instructions of a stage; of the last one for ""."""
    parts = re.split(r"^FROM .*?(?: AS (\w+))?$", DOCKERFILE, flags=re.M)
    return dict(zip((found or "" for found in parts[1::2]), parts[2::2], strict=True))[name]


def copied(text: str) -> set[str]:
    """What a stage takes from the repository."""
    return {name for line in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.M) for name in line.split()}


def test_the_image_runs_as_a_user_of_its_own_that_owns_every_folder_it_writes_to() -> None:
    assert re.findall(r"^ARG UID=(\d+)$", DOCKERFILE, re.M) == ["10001"]
    assert re.findall(r"^USER (.+)$", DOCKERFILE, re.M) == ["${UID}:${UID}"]
    made = re.findall(r"install -d -o \$\{UID\} -g \$\{UID\} -m \d+ ((?:/\S+ ?)+)", DOCKERFILE)
    described = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    volumes = [volume for name in ("worker", "producer") for volume in described[name]["volumes"]]
    targets = {
        volume.removesuffix(":ro").rpartition(":")[2] for volume in volumes if not volume.endswith(":ro")
    }
    assert targets | {"/work"} == set(" ".join(made).split())


def test_the_image_holds_every_package_and_nothing_of_the_repository_but_what_a_wheel_is_made_of() -> None:
    packages = {name.rstrip("*") for name in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]}
    needed = packages | {"pyproject.toml", PROJECT["project"]["readme"], "LICENSE"}
    assert copied(stage("imagemill")) == needed
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied(DOCKERFILE) == kept


def test_the_image_has_what_every_extra_needs_but_that_of_the_tests(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    (code,) = re.findall(r'^RUN python -c "(.+)" > requirements\.txt', stage("requirements"), re.M)
    argv = [sys.executable, "-c", code]
    done = subprocess.run(argv, cwd=tmp_path, text=True, capture_output=True, check=True)
    extras = PROJECT["project"]["optional-dependencies"]
    needs = {need for name, extra in extras.items() if name != "dev" for need in extra}
    assert set(done.stdout.splitlines()) == needs | set(PROJECT["project"]["dependencies"])


def test_a_change_of_the_code_or_of_the_version_installs_no_dependency_again() -> None:
    dependencies = stage("dependencies")
    assert copied(dependencies) == {"constraints.txt"}
    assert re.findall(r"^COPY --from=(\w+) (\S+)", dependencies, re.M) == [
        ("requirements", "/src/requirements.txt")
    ]
    assert "pip install --no-deps" in stage("imagemill"), "the code is installed alone"
    layers = re.findall(r"^COPY --from=(\w+) \S+ (\S+)$", stage(""), re.M)
    assert layers == [("dependencies", "/opt/imagemill"), ("imagemill", "/opt/imagemill")]


def test_the_labels_say_what_the_image_is() -> None:
    labels = dict(re.findall(r'org\.opencontainers\.image\.(\w+)="(.*)"', stage("")))
    project = PROJECT["project"]
    assert labels == {
        "title": project["name"], "description": project["description"], "version": project["version"],
        "licenses": project["license"], "revision": "${REVISION}",
    }  # fmt: skip
    assert stage("").index("LABEL") > stage("").rindex("COPY"), "a new label makes no layer again"


def test_what_torch_compile_makes_lies_where_it_may_be_run() -> None:
    """Nothing in /tmp may: Docker mounts a tmpfs with noexec."""
    described = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["worker"]
    assert "cache:/cache" in described["volumes"]
    assert "TORCHINDUCTOR_CACHE_DIR=/cache/" in stage("")
    assert "TRITON_CACHE_DIR=/cache/" in stage("")
    assert re.findall(r'^ARG COMPILER="(.*)"$', stage(""), re.M) == ["g++"]
