import json
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from jobs.errors import ImagemillError, LatentsError, RenderError
from jobs.latents import write_input
from jobs.request import ImageRequest
from jobs.settings import Settings
from worker.cli import command
from worker.encode import read_request
from worker.render import parse_request, render, reproducing_command

REQUEST = ImageRequest(
    prompt='it\'s $HOME `ls` "x"\n狐', seed=0, model="instant", revision="instant-1", height=64, width=64
)


def test_the_command_of_a_failure_is_one_shell_command_that_holds_the_request(tmp_path: Path) -> None:
    told = reproducing_command(REQUEST, "instant", tmp_path)
    echoed = subprocess.run(
        ["sh", "-c", told.replace("imagemill-worker render --request", "printf %s", 1)],
        capture_output=True,
        check=True,
    )
    assert ImageRequest.from_mapping(json.loads(echoed.stdout)) == REQUEST


def test_the_command_names_the_models_folder_and_the_latents(tmp_path: Path) -> None:
    request = ImageRequest(prompt="", seed=0, model="mine", revision="sha256:0", init_latents="f" * 64)
    words = shlex.split(reproducing_command(request, "/models/mine", tmp_path))
    assert words[4:] == ["--model", "/models/mine", "--inputs", str(tmp_path)]


def test_the_command_of_a_failure_writes_the_image(tmp_path: Path) -> None:
    words = shlex.split(reproducing_command(REQUEST, "instant", tmp_path))
    out = tmp_path / "again.png"
    binary = Path(sys.executable).parent / words[0]
    done = subprocess.run([binary, *words[1:], "--out", out], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert read_request(out) == REQUEST
    assert out.read_bytes() == render(REQUEST, None, None, Settings())


def test_a_request_that_is_wrong_is_named(tmp_path: Path) -> None:
    for wrong in ("nonsense", "[]", '{"prompt": "x"}', '{"prompt": "x", "cfg": 7}'):
        with pytest.raises(RenderError, match="--request"):
            parse_request(wrong)
    done = CliRunner().invoke(command, ["render", "--request", "{}", "--out", str(tmp_path / "x.png")])
    assert isinstance(done.exception, ImagemillError)
    assert not (tmp_path / "x.png").exists()


def test_latents_are_looked_up_by_their_hash(tmp_path: Path) -> None:
    sha = write_input(tmp_path, np.zeros((4, 16, 16), np.float32))
    request = ImageRequest(
        prompt="", seed=0, model="instant", revision="instant-1", height=64, width=64, init_latents=sha
    )
    assert render(request, None, tmp_path, Settings())
    with pytest.raises(RenderError, match="--inputs"):
        render(request, None, None, Settings())
    with pytest.raises(LatentsError):
        render(request, None, tmp_path / "elsewhere", Settings())


def test_a_picture_that_is_none_is_an_error() -> None:
    request = ImageRequest(prompt="!nan", seed=0, model="instant", revision="instant-1", height=64, width=64)
    with pytest.raises(RenderError, match="non-finite"):
        render(request, None, None, Settings())
