"""A worker's process loads what it needs to render, and nothing that reads manifests or prompt files."""

from __future__ import annotations

import subprocess
import sys


def loaded(*modules: str) -> set[str]:
    """All that a process has loaded after it imported these."""
    code = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_a_worker_loads_no_module_of_the_producer() -> None:
    names = loaded("worker.tasks", "worker.process", "worker.render", "worker.finish.finish_run")
    assert "worker.shard.shard_run" in names
    assert [name for name in names if name.partition(".")[0] == "producer"] == []


def test_a_worker_loads_no_yaml_before_it_writes_a_card() -> None:
    """Celery's kombu, which loads YAML by itself, is left out."""
    assert "yaml" not in loaded("worker.process", "worker.render", "worker.finish.finish_run")
