"""What the ledger keeps of a manifest: the job's spec, and the digest that makes two submissions the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from jobs.ledger.job import JobSpec
from producer.manifest.base_request import base_request
from producer.manifest.path_names import PathNames
from producer.manifest.submitted import INPUTS
from producer.prompt_files.reading import Reading
from producer.requests.prepared import Prepared


def job_spec(prepared: Prepared) -> JobSpec:
    """What workers need to know of a job of the manifest."""
    manifest, model = prepared.manifest, prepared.model
    return JobSpec(
        manifest=_without_prompts(PathNames(prepared.folder).of_manifest(written(prepared))),
        base=json.loads(base_request(manifest, model).to_json()),
        name=manifest.name,
        output=prepared.output.label,
        model=model.model,
        revision=model.revision,
        precision=manifest.precision,
        mode=manifest.mode,
        layout=manifest.layout,
        column_names=manifest.column_names(),
        shard_size=manifest.pictures_a_shard,
        shard_bytes=manifest.bytes_a_shard,
        priority=manifest.priority,
        max_failures=manifest.max_failures,
        retention=manifest.retention,
        narrowed=prepared.narrowed,
        further_models=model.further,
    )


def _without_prompts(manifest: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in manifest.items() if key != "prompts"}


def written(prepared: Prepared) -> dict[str, Any]:
    """The manifest as JSON, with the revision and the defaults that its model has now."""
    return prepared.pinned.to_json()


def file_hashes(prepared: Prepared, reading: Reading) -> dict[str, str]:
    """Every file that the manifest names -> the SHA-256 of its contents; rows name adapters too."""
    adapters = {path: sha256 for sha256, path in reading.adapters.items()}
    inputs = prepared.inputs.digest()
    of_lines = {} if inputs is None else {INPUTS: inputs}
    return dict(sorted((prepared.latents | adapters | reading.sha256 | of_lines).items()))


def digest(prepared: Prepared, spec: JobSpec, files: Mapping[str, str]) -> str:
    """The SHA-256 of what makes two submissions the same: manifest, contents of its files, narrowing."""
    manifest = written(prepared)
    job = spec.to_mapping() | {
        "manifest": _without_prompts(manifest)
    }  # with its paths, as they were always told
    text = json.dumps([job, manifest, files], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
