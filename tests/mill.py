"""Two workers that render jobs of `shapes`, and the files that come of them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from jobs.ledger.job import JobStatus


class Mill:
    """Two workers that render jobs of `shapes`, each job to a folder of its name."""

    def __init__(self, farm: Any) -> None:
        self.farm = farm

    def start(self, name: str, lines: list[dict[str, Any]], **keys: Any) -> str:
        """Submits a job and returns its id."""
        settings = keys.pop("settings", {})
        return self.farm.submit(
            lines, name=name, model="shapes", output=str(self.folder(name)), settings=settings, **keys
        )

    def folder(self, name: str) -> Path:
        return Path(self.farm.folder / name)

    def wait(self, job_id: str) -> JobStatus:
        status: JobStatus = self.farm.finished(job_id)
        return status

    def records(self, name: str) -> list[tuple[Path, dict[str, Any]]]:
        """Each picture's file and metadata."""
        files = sorted(self.folder(name).glob("[0-9]*/metadata.jsonl"))
        records = [
            (file.parent, json.loads(line)) for file in files for line in file.read_text().splitlines()
        ]
        return [(folder / record["file_name"], record) for folder, record in records]

    def hashes(self, name: str) -> dict[str, str]:
        """image_id -> SHA-256 of the file."""
        records = self.records(name)
        hashes = {
            record["image_id"]: hashlib.sha256(file.read_bytes()).hexdigest() for file, record in records
        }
        assert len(hashes) == len(records)
        return hashes
