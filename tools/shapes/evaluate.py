"""Scores an exported model by the fidelity benchmark, and keeps the scores beside its weights."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Final

_BENCHMARK: Final = Path(__file__).resolve().parents[2] / "benchmarks" / "fidelity.py"


def evaluate(model: Path) -> None:
    """Run the benchmark on the pipeline folder `model`, and write its figures and the weights' hashes there.

    They go to scores.json, which no loader reads. The benchmark is a process of its own: it takes the model
    from its files, as a user's worker would.
    """
    command = [sys.executable, str(_BENCHMARK), "--model", str(model), "--sheet", str(model / "sheet.png")]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    print(done.stdout)
    scores = {
        "fidelity": json.loads(done.stdout.splitlines()[-1]),
        "sha256": {
            file.relative_to(model).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in sorted(model.rglob("*.safetensors"))
        },
    }
    (model / "scores.json").write_text(json.dumps(scores, indent=2) + "\n", "utf-8")
