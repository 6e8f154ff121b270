"""The table of an output's lines, which `datasets` reads: examined, and written again after a repair."""

from __future__ import annotations

from jobs.errors import OutputError
from jobs.output.card import dataset_card, is_ours
from jobs.output.contents import contents
from jobs.output.line_order import Places, Split, last_job
from jobs.output.output import CARD, PREVIEW, Output
from jobs.output.split_table import PARQUET, TABLES, drop_tables, write_split
from producer.doctor.findings import Problem

_PARQUET_MARK = b"PAR1"
_REMEDY = "submit the manifest again: the job's end writes it"


def table_problem(output: Output) -> Problem | None:
    """What is wrong with the table that the card names; None when nothing is.

    It is looked at from its ends, without pyarrow: what it lists follows from the shards.
    """
    name = next((name for name in TABLES if f"- {name}" in _card(output)), None)
    if name is None:
        return None
    try:
        sound = _is_whole(output, name)
    except FileNotFoundError:
        what = "is missing: the card names it, and without it `datasets` reads pictures without their lines"
    except OSError as error:
        what = f"cannot be read ({error.strerror})"
    else:
        if sound:
            return None
        what = "is cut off or no table"
    return Problem(kind="table", file=name, what=what, remedy=_REMEDY)


def write_table_again(output: Output, aside_in: str) -> None:
    """Writes table and card for what the shards hold now, where the output has a table.

    What goes is moved to the folder `aside_in` of it. Raises OutputError where it cannot be written.
    """
    if output.in_bucket or not any(output.store.exists(name) for name in TABLES):
        return
    aside = output.path / aside_in
    split = Split(Places(output, last_job(output)))
    found = contents(output, split)
    table = None
    try:
        if len(split):
            table, found.columns = write_split(output, split, found.columns, aside)
        else:
            drop_tables(output, aside)
        if found.total and is_ours("\n".join(_card(output))):
            preview = output.store.exists(PREVIEW)
            card = dataset_card(found, failures=len(output.failures()), preview=preview, table=table)
            output.store.replace(CARD, card.encode())
    except OSError as error:
        raise OutputError(
            f"output {output.label} cannot be written ({error.strerror}): free some space"
        ) from None


def _card(output: Output) -> list[str]:
    try:
        text = output.store.read(CARD).decode(errors="replace")
    except OSError:
        return []
    return [line.strip() for line in text.splitlines()]


def _is_whole(output: Output, name: str) -> bool:
    """Whether the table has its beginning and its end. Raises OSError."""
    with output.store.opened(name) as opened:
        beginning, end = opened.read_at(0, 4), opened.read_at(max(0, opened.size - 4), 4)
    return beginning == end == _PARQUET_MARK if name == PARQUET else end.endswith(b"\n")
