"""The lines of a submission that share a picture with another line: asked for, and not rendered again.

The submission notes them next to its manifest. The job's finishing adds those that the output lacks.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from jobs.output.job_files import JobFiles
from jobs.output.output import Output
from jobs.output.store import Unreachable
from jobs.output.stored_shard import damaged
from jobs.strict_json import strict_json


@dataclass(frozen=True, slots=True)
class NotedLine:
    """A line whose picture another line has."""

    image_id: str
    index: int
    """Its place in what the job asks for."""
    id: str | None
    columns: Mapping[str, Any]

    def to_json(self) -> str:
        """It on one line of JSON."""
        return json.dumps(asdict(self), ensure_ascii=False)


def noted_lines(output: Output, job_id: str) -> Iterator[NotedLine]:
    """The lines that a job's submission noted; none where it noted none.

    Raises OutputError naming file and line when one cannot be read.
    """
    file = JobFiles(output, job_id).equal_lines
    try:
        for number, text in enumerate(output.store.lines(file), 1):
            try:
                yield NotedLine(**strict_json(text))
            except (ValueError, TypeError) as error:
                raise damaged(f"{output.named(file)}:{number}", f"not a noted line ({error})") from None
    except FileNotFoundError:
        return
    except Unreachable:
        raise
    except OSError as error:
        raise output.unreadable(file, error) from None
