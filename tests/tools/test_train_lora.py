from __future__ import annotations

import json
from pathlib import Path

import pytest

from tools.train_lora import main

TINY = ["--eye-steps=1", "--steps=1", "--pictures=8", "--rank=1", "--measure=1", "--threads=1"]


def test_a_seed_gives_the_same_file_and_the_eye_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "striped.safetensors"
    main([f"--out={tmp_path}", *TINY])
    first, printed = path.read_bytes(), capsys.readouterr().out
    assert "skipped" not in printed
    assert [figures["scale"] for figures in json.loads(printed.splitlines()[-1])] == [0.0, 0.5, 1.0]
    assert (tmp_path / "striped.png").is_file()
    main([f"--out={tmp_path}", *TINY])
    assert f"eye: {tmp_path / 'striped.eye.pt'} is there: skipped" in capsys.readouterr().out
    assert path.read_bytes() == first
