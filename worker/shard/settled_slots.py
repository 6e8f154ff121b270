"""With how many rows an output's pictures are rendered: `OUT/.imagemill/rows.json`, which outlives Redis.

A job that goes on with an output after its Redis is gone then renders with the same rows, and so the same
bytes. The first number of a kind of device, a model and a size stays.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from jobs.errors import OutputError
from jobs.ledger.job import RowsKey
from jobs.output.durable import write_atomically
from jobs.output.output import Output


def settled_rows(output: Output, key: RowsKey) -> int | None:
    """The rows that the output's pictures of this kind have; None where it has none yet.

    Raises OutputError naming the file when it cannot be read.
    """
    return _read(_file(output)).get(key)


def keep_rows(output: Output, key: RowsKey, rows: int) -> None:
    """Writes down with how many rows the output's pictures of this kind are rendered, unless it is there.

    Of two numbers written at once one may be lost: each shard writes down again what it misses. Raises
    OSError as the system gives it, and what `settled_rows` raises.
    """
    settled = _read(_file(output))
    if key not in settled:
        records = [asdict(one) | {"rows": number} for one, number in (settled | {key: rows}).items()]
        write_atomically(_file(output), f"{json.dumps(records, indent=1)}\n".encode())


def _file(output: Output) -> Path:
    return output.private / "rows.json"


def _read(file: Path) -> dict[RowsKey, int]:
    settled: dict[RowsKey, int] = {}
    try:
        for record in json.loads(file.read_bytes()):
            rows = record.pop("rows")
            if not isinstance(rows, int) or rows < 1:
                raise ValueError(f"{rows} rows")
            settled[RowsKey(**record)] = rows
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise OutputError(f"{file}: {error.strerror}: make it readable for this user") from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise OutputError(
            f"{file}: not what imagemill wrote ({error}): restore it, or remove it: rows are measured anew"
        ) from None
    return settled
