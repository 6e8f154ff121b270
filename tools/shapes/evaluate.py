"""Scores an exported model by the fidelity benchmark, and keeps the scores next to its weights."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Final

from tools.shapes.progress import say, write_whole

_BENCHMARK: Final = Path(__file__).resolve().parents[2] / "benchmarks" / "fidelity.py"


def evaluate(model: Path, scale: float) -> None:
    """Run the benchmark on the pipeline folder `model`, and write its figures and the weights' hashes there.

    They go to scores.json, which no loader reads; one that has the figures of these weights at this `scale`,
    the share of the benchmark's prompts, is left alone. The benchmark is a process of its own: it takes the
    model from its files, as a user's worker would.
    """
    path = model / "scores.json"
    made_from = {
        "scale": scale,
        "sha256": {
            file.relative_to(model).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in sorted(model.rglob("*.safetensors"))
        },
    }
    if path.is_file() and json.loads(path.read_text("utf-8")).items() >= made_from.items():
        say("evaluate", f"{path} is there: skipped")
        return
    say("evaluate", f"by {_BENCHMARK.name}, at scale {scale:g}")
    command = [sys.executable, str(_BENCHMARK), "--model", str(model), "--scale", str(scale)]
    command += ["--sheet", str(model / "sheet.png")]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, encoding="utf-8")
    print(done.stdout)
    scores = {"fidelity": json.loads(done.stdout.splitlines()[-1]), **made_from}
    write_whole(path, (json.dumps(scores, indent=2) + "\n").encode())
