"""`imagemill init`: the manifest that it writes is right, teaches what it says, and harms no file."""

import re
from pathlib import Path

import click.testing
import pytest

from jobs.errors import ManifestError
from producer import cli
from producer.manifest.manifest import load_manifest
from producer.manifest.starter import starter_text
from tests.expanded import expand


def _init(*arguments: str) -> click.testing.Result:
    return click.testing.CliRunner().invoke(cli.command, ["init", *arguments])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_init_writes_a_manifest_of_eight_pictures_by_the_built_in_model(folder: Path) -> None:
    result = _init()
    assert (result.exit_code, result.exception) == (0, None)
    assert "imagemill run manifest.yaml" in result.output
    manifest = load_manifest(folder / "manifest.yaml")
    requests = [entry.request for entry in expand(manifest, manifest.resolve_model())]
    assert len(requests) == 8
    assert {(request.model, request.height, request.width) for request in requests} == {("shapes", 64, 64)}
    assert {request.scheduler for request in requests} == {"DDIM", "DPM++ 2M"}


def test_what_is_commented_out_is_right_as_well(folder: Path) -> None:
    text = starter_text()
    commented = text[text.index("# prompts_from:") :]
    (folder / "prompts.csv").write_text("caption,key,split\na blue square,one,test\n")
    (folder / "m.yaml").write_text(text.replace(commented, re.sub(r"(?m)^# ", "", commented)))
    manifest = load_manifest(folder / "m.yaml")
    entries = list(expand(manifest, manifest.resolve_model()))
    assert len(entries) == 10
    assert (entries[-1].id, entries[-1].columns) == ("one", {"split": "test"})


def test_init_takes_a_name_and_overwrites_nothing(folder: Path) -> None:
    assert _init("my cats.yaml").output.endswith("`imagemill run 'my cats.yaml'` renders its pictures\n")
    (folder / "my cats.yaml").write_text("mine")
    error = _init("my cats.yaml").exception
    assert isinstance(error, ManifestError)
    assert str(error) == "my cats.yaml: exists already, and is not overwritten: give another name"
    assert (folder / "my cats.yaml").read_text() == "mine"
    assert isinstance(_init("no/such/folder.yaml").exception, ManifestError)


def test_a_dash_prints_the_manifest_and_writes_nothing(folder: Path) -> None:
    assert _init("-").output == starter_text()
    assert list(folder.glob("*.yaml")) == []
