"""A hub on loopback that this process is logged in to, and outputs to push."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobs.models.models import BUILT_IN
from jobs.output.output import Output
from producer.manifest.manifest import Manifest
from tests.expanded import expand
from tests.hub_server import TOKEN, HubServer, running_hub
from tests.rendered_output import RENDERED_BY
from tests.stand_ins import drawn
from tests.warm_python import BIN, warm_imagemill
from worker.shard.store import ShardStore


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A hub that this process is logged in to, by LFS: what it stores is in its memory."""
    with running_hub() as server:
        template = f"{server.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.endpoint)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


@pytest.fixture
def start(hub: HubServer, tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Starts `imagemill push` as a process of its own, whose temporary folder is tmp_path/tmp."""

    def run(*arguments: object) -> subprocess.Popen[str]:
        (tmp_path / "tmp").mkdir(exist_ok=True)
        surroundings = {
            "HF_ENDPOINT": hub.endpoint,
            "HF_HUB_DISABLE_XET": "1",
            "HF_TOKEN": TOKEN,
            "TMPDIR": str(tmp_path / "tmp"),
        }
        return warm_imagemill().popen(
            [BIN / "imagemill", "push", *map(str, arguments)],
            env=os.environ | surroundings,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return run


@pytest.fixture
def add_shard() -> Callable[..., None]:
    """Commits one more shard of two pictures to an output, of prompts with these columns."""

    def add(output: Output, shard: int, columns: dict[str, object], layout: str = "files") -> None:
        given = {
            "name": "foxes", "model": "instant", "revision": "instant-1", "output": str(output.path),
            "settings": {"height": 64, "width": 64}, "layout": layout,
            "prompts": [{"prompt": f"badger {shard} {n}", "columns": columns} for n in range(2)],
        }  # fmt: skip
        manifest = Manifest.from_json(given)
        entries = list(expand(manifest, BUILT_IN["instant"]))
        store = ShardStore(
            output, shard, "1-a", entries, job_id="foxes-2", column_names=tuple(columns), adopt_below=0,
            layout=manifest.layout,
        )  # fmt: skip
        for position, entry in enumerate(entries):
            store.save(position, drawn(entry.request), RENDERED_BY)
        assert store.commit([])

    return add
