"""What a metadata column holds, over all records: the type that a reader must know beforehand."""

from __future__ import annotations

from typing import Any

Kind = None | str | list[Any] | dict[str, Any]
"""None (only nulls so far), a dtype's name ("bool", "int64", "float64", "string"; "image" for the pictures
themselves), [item's kind], {field's name: kind}."""

_SCALARS: dict[type, Kind] = {type(None): None, bool: "bool", float: "float64", str: "string"}
_INT64 = range(-(2**63), 2**63)


def kind_of(value: Any) -> Kind:
    """The kind of one JSON value; an integer beyond 64 bits is text."""
    if type(value) in _SCALARS:
        return _SCALARS[type(value)]
    if isinstance(value, int):
        return "int64" if value in _INT64 else "string"
    if isinstance(value, dict):
        return {name: kind_of(each) for name, each in value.items()}
    item: Kind = None
    for each in value:
        item = merged(item, kind_of(each))
    return [item]


def merged(one: Kind, other: Kind) -> Kind:
    """The kind that holds both; text when nothing else does."""
    if one == other or other is None:
        return one
    if one is None:
        return other
    if isinstance(one, list) and isinstance(other, list):
        return [merged(one[0], other[0])]
    if isinstance(one, dict) and isinstance(other, dict):
        return {name: merged(one.get(name), other.get(name)) for name in {**one, **other}}
    return "float64" if {str(one), str(other)} == {"int64", "float64"} else "string"
