"""How each benchmark runs at toy size, and the figures that its line of JSON has."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "benchmarks"
TOYS: dict[str, tuple[list[str], set[str]]] = {
    "control_plane.py": (
        [],
        {"claim_ms", "claim_ms_10000", "status_cpu_s", "redis_cpu_ms_per_job"},
    ),
    "engine.py": ([], {"calls_ratio", "slots_ratio", "speed_vs_grouped", "speed_vs_one", "uniform"}),
    "fidelity.py": ([], {"one_all", "two_all", "count_all", "images_per_s", "lms"}),
    "inputs.py": ([], {"max_abs_diff", "bytes_equal", "lora_time_ratio", "unsorted_time_ratio"}),
    "interception.py": (
        [],
        {"ms_per_image_step", "launches_per_image_step", "forwards_vs_tables", "speed_vs_one"},
    ),
    "long_run.py": (["--model", "instant"], {"rss_ratio", "fds_first", "fds_last", "keys_left_without_ttl"}),
    "machinery.py": ([], {"images_per_s", "exact", "flower_answered", "plan_seconds"}),
    "many_shards.py": ([], {"shards", "most_entries", "exact", "plan_s", "plan_mb", "doctor_s", "doctor_mb"}),
    "recovery.py": ([], {"kill_to_claim", "sigterm_to_exit", "redis_to_image"}),
    "schedulers.py": (["--model", "shapes-random"], {"compiled", "max_abs_diff"}),
    "serve.py": ([], {"first_page_ms", "any_page_ms", "picture_ms", "rss_mb", "metrics_ms"}),
    "storage.py": (["--model", "instant"], {"lost", "doubled", "speed_vs_local", "worker_cpu"}),
    "submit.py": (
        [],
        {"seconds", "bytes_per_prompt", "plan_seconds", "speed_vs_delay", "cpu_seconds_vs_tenth"},
    ),
    "submit_inputs.py": ([], {"pictures", "copy", "copied before", "reference"}),
    "system.py": ([], {"ratio", "bare_vs_diffusers", "images_per_s"}),
}

PAINTING = {"engine.py", "fidelity.py", "inputs.py", "interception.py", "schedulers.py", "system.py"}
"""They import torch and diffusers, which takes longer than a toy; test_painting.py runs them."""


def check_figures(ran: subprocess.CompletedProcess[str], figures: set[str]) -> None:
    """The last line is JSON with these figures; what they are is not judged."""
    assert ran.stdout, ran.stderr
    last = ran.stdout.splitlines()[-1]
    assert last.startswith("{"), ran.stderr
    assert figures <= json.loads(last).keys(), ran.stderr
    # A toy is too small for a bound on speed or memory; 2 is what wrong options give.
    assert ran.returncode in (0, 1), ran.stderr
