"""How many slots an output's pictures are rendered with: `OUT/.imagemill/rows.json`, which outlives Redis.

So a job that continues an output after its Redis is gone renders with the same slots, and gives the same
bytes. The first number of a kind of device, a model and a size stays.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict

from jobs.errors import OutputError
from jobs.ledger.job import SlotsKey
from jobs.output.output import Output
from jobs.output.store import Unreachable

_FILE = ".imagemill/rows.json"


def settled_slots(output: Output, key: SlotsKey) -> int | None:
    """The slots that the output's pictures of this kind have; None where it has none yet.

    Raises OutputError naming the file when it cannot be read, Unreachable when it may be later.
    """
    return _read(output).get(key)


def keep_slots(output: Output, key: SlotsKey, slots: int) -> None:
    """Writes down how many slots the output's pictures of this kind are rendered with, unless it is there.

    Of two numbers written at once one may be lost: each shard writes down again what it misses. Raises
    OSError as the system gives it, and what `settled_slots` raises.
    """
    settled = _read(output)
    if key not in settled:
        write_slots(output, settled | {key: slots})


def write_slots(output: Output, settled: Mapping[SlotsKey, int]) -> None:
    """Writes down all slots of an output's pictures, instead of what is there. Raises OSError."""
    records = [asdict(key) | {"rows": slots} for key, slots in settled.items()]
    output.store.replace(_FILE, f"{json.dumps(records, indent=1)}\n".encode())


def _read(output: Output) -> dict[SlotsKey, int]:
    settled: dict[SlotsKey, int] = {}
    try:
        for record in output.read_json(_FILE):
            slots = record.pop("rows")
            if not isinstance(slots, int) or slots < 1:
                raise ValueError(f"{slots} slots")
            settled[SlotsKey(**record)] = slots
    except FileNotFoundError:
        return {}
    except Unreachable:
        raise
    except OSError as error:
        raise output.unreadable(_FILE, error) from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise OutputError(
            f"{output.named(_FILE)}: not what imagemill wrote ({error}): restore it, or remove it: slots are "
            "then measured again"
        ) from None
    return settled
