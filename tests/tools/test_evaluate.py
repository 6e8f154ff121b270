from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tools.shapes.evaluate import evaluate


def test_scores_of_the_same_weights_are_kept_and_others_are_scored_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "unet" / "weights.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(b"weights")
    scores = tmp_path / "scores.json"
    sha256 = {"unet/weights.safetensors": hashlib.sha256(b"weights").hexdigest()}
    scores.write_text(json.dumps({"fidelity": {}, "scale": 1.0, "sha256": sha256}))
    evaluate(tmp_path, 1.0)
    assert capsys.readouterr().out == f"evaluate: {scores} is there: skipped\n"
    # A benchmark that fails shows that it was asked, and that its failure costs no scores.
    monkeypatch.setattr(sys, "executable", "/bin/false")
    before = scores.read_bytes()
    with pytest.raises(subprocess.CalledProcessError):
        evaluate(tmp_path, 0.5)
    weights.write_bytes(b"others")
    with pytest.raises(subprocess.CalledProcessError):
        evaluate(tmp_path, 1.0)
    assert scores.read_bytes() == before
