"""An output as workers leave it, for what examines and mends one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.models.models import BUILT_IN
from jobs.output.job_files import JobFiles
from jobs.output.metadata import Failure
from jobs.output.output import Output
from producer.manifest.manifest import Manifest
from producer.manifest.submitted import SubmittedManifest
from tests.expanded import expand
from tests.stand_ins import drawn
from worker.engine.renderer import RenderedBy
from worker.shard.store import ShardStore

RENDERED_BY = RenderedBy(precision="fp32", rows=16, device="cpu", versions={"torch": "2.13.0"})


@pytest.fixture
def rendered(tmp_path: Path) -> Callable[..., Output]:
    """Renders manifest `foxes` of so many pictures in shards of 4; those of `failed` fail. `place`: where."""

    def render(
        images: int = 12, failed: tuple[int, ...] = (), *, place: str | None = None, **keys: object
    ) -> Output:
        output = Output(tmp_path / "out") if place is None else Output.at(place)
        output.prepare()
        given = {
            "name": "foxes", "model": "instant", "revision": "instant-1", "output": output.label,
            "settings": {"height": 64, "width": 64}, "prompts": [f"fox {n}, été 🦊" for n in range(images)],
        } | keys  # fmt: skip
        manifest = Manifest.from_json(given)
        JobFiles(output, "foxes-1").write_manifest(SubmittedManifest(manifest).to_json())
        entries = list(expand(manifest, BUILT_IN["instant"]))
        for shard in range((images + 3) // 4):
            here = entries[shard * 4 : shard * 4 + 4]
            store = ShardStore(
                output, shard, "1-a", here, job_id="foxes-1", column_names=manifest.column_names(),
                adopt_below=0, layout=manifest.layout,
            )  # fmt: skip
            failures = []
            for position, entry in enumerate(here):
                if shard * 4 + position in failed:
                    failures.append(
                        Failure(
                            shard=shard, position=position, entry=entry, reason="black", job_id="foxes-1",
                            command="render it",
                        )
                    )  # fmt: skip
                else:
                    store.save(position, drawn(entry.request), RENDERED_BY)
            assert store.commit(failures)
        report = {"job_id": "foxes-1", "output": {"images": images, "shards": (images + 3) // 4}}
        output.store.replace("job.json", json.dumps(report | {"manifest": manifest.to_json()}).encode())
        return output

    return render
