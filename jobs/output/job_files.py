"""What an output keeps of each submission, by the job's id.

OUT/.imagemill/jobs/sunsets-1.json           its manifest
OUT/.imagemill/jobs/sunsets-1.skipped.txt    the rows of prompt files that it left out, if it did
OUT/.imagemill/jobs/sunsets-2.order          its lines in order, where the output held some before
OUT/.imagemill/jobs/sunsets-2.lines.jsonl    its lines that share a picture with another one
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.errors import OutputError
from jobs.output.output import JOBS, REPORT, Output
from jobs.output.store import Unreachable
from jobs.output.stored_shard import damaged


@dataclass(frozen=True, slots=True)
class JobFiles:
    """What the files of one submission are called in the output.

    `job_id` is as Redis gave it. Raises OutputError for one that would lead elsewhere.
    """

    output: Output
    job_id: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.-]+-\d+", self.job_id, re.ASCII):
            raise OutputError(
                f"{self.output.named(JOBS)}: Redis calls the job {self.job_id!r}, which is no job's id: find "
                "out who writes to Redis, and submit to another"
            )

    @property
    def manifest(self) -> str:
        """The manifest that was submitted, as JSON."""
        return f"{JOBS}/{self.job_id}.json"

    @property
    def skipped_rows(self) -> str:
        """The list of the rows of prompt files that were left out."""
        return f"{JOBS}/{self.job_id}.skipped.txt"

    @property
    def line_order(self) -> str:
        """The order of the lines: `jobs.output.line_order`."""
        return f"{JOBS}/{self.job_id}.order"

    @property
    def equal_lines(self) -> str:
        """The lines that share a picture: `jobs.output.equal_lines`."""
        return f"{JOBS}/{self.job_id}.lines.jsonl"

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Keep the manifest in the output. Raises OSError."""
        text = json.dumps(manifest, ensure_ascii=False, indent=2)
        self.output.store.replace(self.manifest, f"{text}\n".encode())


def next_job_number(output: Output, name: str) -> int:
    """One more than the largest number of a job of this name submitted there; 1 when there is none.

    Raises OutputError where that cannot be told, Unreachable.
    """
    try:
        files = (Path(one.name) for one in output.store.list(JOBS) if not one.is_folder)
        job_ids = {file.stem for file in files if file.suffix == ".json"}
    except Unreachable:
        raise
    except OSError as error:
        raise output.unreadable(JOBS, error) from None
    try:
        job_ids.add(str(output.read_json(REPORT)["job_id"]))
    except FileNotFoundError:
        pass
    except Unreachable:
        raise
    except OSError as error:
        raise output.unreadable(REPORT, error) from None
    except (ValueError, KeyError, TypeError) as error:
        raise damaged(f"{output.named(REPORT)}:1", f"not a job's report ({error})") from None
    numbers = [int(m[1]) for i in job_ids if (m := re.fullmatch(re.escape(name) + r"-([0-9]{1,18})", i))]
    return max(numbers, default=0) + 1
