"""Dates, times and decimals of a .parquet as text: JSON has no values for them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, time
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyarrow import DataType, RecordBatch


def writer(kind: DataType) -> Callable[[Any], Any] | None:
    """Makes text of dates, times and decimals in values of a type: 2023-01-02T03:04:05+00:00, 1.50.

    None for a type that holds none.
    """
    return _written if _holds(kind, _is_text) else None


def storable(batch: RecordBatch) -> RecordBatch:
    """The batch with times in microseconds, which Python's hold.

    Raises pyarrow.ArrowInvalid for a time that is not whole ones.
    """
    for index, field in enumerate(batch.schema):
        kind = _in_microseconds(field.type)
        if kind != field.type:
            batch = batch.set_column(index, field.name, batch.column(index).cast(kind))
    return batch


def unwritable(kind: DataType) -> str | None:
    """What a type holds that no text stands for; None where all has one."""
    from pyarrow import types

    for what, asked in (
        ("bytes", _is_bytes),
        ("durations", lambda one: types.is_duration(one) or types.is_interval(one)),
    ):
        if _holds(kind, asked):
            return what
    return None


def _is_bytes(kind: DataType) -> bool:
    from pyarrow import types

    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind))


def _is_text(kind: DataType) -> bool:
    from pyarrow import types

    return bool(
        types.is_timestamp(kind) or types.is_date(kind) or types.is_time(kind) or types.is_decimal(kind)
    )


def _holds(kind: DataType, asked: Callable[[DataType], bool]) -> bool:
    """Whether a type, or one in it, is such."""
    from pyarrow import types

    if types.is_dictionary(kind):
        return _holds(kind.value_type, asked)
    return asked(kind) or any(_holds(kind.field(index).type, asked) for index in range(kind.num_fields))


def _in_microseconds(kind: DataType) -> DataType:
    import pyarrow
    from pyarrow import types

    if types.is_timestamp(kind) and kind.unit == "ns":
        return pyarrow.timestamp("us", kind.tz)
    if types.is_time64(kind) and kind.unit == "ns":
        return pyarrow.time64("us")
    if types.is_struct(kind):
        return pyarrow.struct([one.with_type(_in_microseconds(one.type)) for one in kind])
    if types.is_list(kind) or types.is_large_list(kind):
        made = pyarrow.list_ if types.is_list(kind) else pyarrow.large_list
        return made(kind.value_field.with_type(_in_microseconds(kind.value_type)))
    return kind


def _written(value: Any) -> Any:
    if isinstance(value, (date, time)):  # a datetime is a date
        return value.isoformat()
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, list):
        return [_written(one) for one in value]
    if isinstance(value, dict):
        return {key: _written(one) for key, one in value.items()}
    return value
