"""Lua scripts as typed functions: a call names each argument, and the script reads it by the same name.

A protocol declares the functions, and each runs the script of its name in `jobs/ledger/lua/`. What Redis gets
is the key names of `redis_keys`, then `damage.lua`, `prelude.lua` and `places.lua`, then a `local` for each
parameter, read from ARGV in the order of the declaration, then the script. Redis keeps that text; a call
sends its hash and the arguments. If a damaged key makes a script fail, `mend.lua` drops what is damaged, also
of the jobs that the call names, and it runs again.

Python                  ARGV                       Lua
str, bytes, Literal     the bytes                  string
int                     decimal digits             number: exact up to 2**53
bool                    1 or 0                     boolean
a dataclass             its fields in their order  table with the names of the fields
Sequence[T]             the length, then the items table 1, 2, …
Mapping[str | int, T]   the length, then the pairs table; its keys are strings
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from importlib.resources import files
from inspect import getmembers, isfunction
from types import SimpleNamespace
from typing import Any, Literal, get_args, get_origin, get_type_hints

import redis.exceptions

from jobs.ledger import redis_keys
from jobs.ledger.redis_errors import as_ledger_errors

log = logging.getLogger(__name__)


def lua_functions(declared: type, client: Any) -> Any:
    """An object with each function that the protocol `declared` has; they run on `client`, a Redis client.

    Sends nothing yet. A call raises LedgerUnavailable and LedgerError as every call of the ledger does.
    """
    before = _key_names() + "".join(map(_lua_file, ("damage", "prelude", "places")))
    functions = getmembers(
        declared, lambda member: isfunction(member) and not member.__name__.startswith("_")
    )
    mend = client.register_script(before + _lua_file("mend"))
    return SimpleNamespace(**{name: _lua_function(one, before, client, mend) for name, one in functions})


def _lua_function(declared: Callable[..., Any], before: str, client: Any, mend: Any) -> Callable[..., Any]:
    parameters = {name: hint for name, hint in get_type_hints(declared).items() if name != "return"}
    locals_ = "".join(f"local {name} = {_reader(hint)}\n" for name, hint in parameters.items())
    script = client.register_script(before + locals_ + _lua_file(declared.__name__))

    def run(**arguments: Any) -> Any:
        argv: list[str | int | bytes] = []
        for name in parameters:
            _append(argv, arguments[name])
        with as_ledger_errors():
            try:
                return script(args=argv)
            except redis.exceptions.ResponseError as error:
                if not any(words in str(error) for words in redis_keys.DAMAGE):
                    raise
                dropped = mend(args=sorted(_jobs_of(arguments)))
                log.warning("Redis: dropped what cannot be read (%s): %s", error, dropped)
                return script(args=argv)

    return run


def _jobs_of(call: object) -> set[str]:
    """The jobs that a call's arguments name: a list of jobs that was lost as well does not have them."""
    if is_dataclass(call):
        call = {field.name: getattr(call, field.name) for field in fields(call)}
    if isinstance(call, Mapping):
        own = {call["job_id"]} if "job_id" in call else set()
        return own.union(*map(_jobs_of, call.values()))
    if isinstance(call, Sequence) and not isinstance(call, (str, bytes)):
        return set().union(*map(_jobs_of, call))
    return set()


def _lua_file(name: str) -> str:
    return files("jobs.ledger.lua").joinpath(f"{name}.lua").read_text("utf-8")


def _append(argv: list[str | int | bytes], value: Any) -> None:
    """Appends a value as the parts of ARGV that `_reader` reads."""
    if isinstance(value, (str, bytes)):
        argv.append(value)
    elif isinstance(value, int):
        argv.append(int(value))  # redis-py refuses a bool
    elif is_dataclass(value):
        for field in fields(value):
            _append(argv, getattr(value, field.name))
    elif isinstance(value, Mapping):
        argv.append(len(value))
        for key, item in value.items():
            argv.append(key)
            _append(argv, item)
    else:
        argv.append(len(value))
        for item in value:
            _append(argv, item)


def _reader(hint: Any) -> str:
    """The Lua expression that reads a value of this type from ARGV; `take…` are functions of the prelude."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint in (str, bytes) or origin is Literal:
        return "take()"
    if hint is int:
        return "tonumber(take())"
    if hint is bool:
        return "take() == '1'"
    if origin is Sequence:
        return f"take_list(function() return {_reader(inner[0])} end)"
    if origin is Mapping:
        return f"take_map(function() return {_reader(inner[1])} end)"
    if is_dataclass(hint):
        # Lua evaluates the fields of a table from left to right.
        parts = [f"{name} = {_reader(part)}" for name, part in get_type_hints(hint).items()]
        return f"{{{', '.join(parts)}}}"
    raise TypeError(f"{hint}: no argument of a script may have this type")


def _key_names() -> str:
    """The names in capitals of `redis_keys` as Lua locals: texts, numbers, lists and tables of texts."""
    names = {name: value for name, value in vars(redis_keys).items() if name.isupper()}
    return "".join(f"local {name} = {_literal(value)}\n" for name, value in names.items())


def _literal(value: str | int | Sequence[str] | Mapping[str, str]) -> str:
    if isinstance(value, str | int):
        return json.dumps(value)
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'[{json.dumps(name)}] = {json.dumps(of)}' for name, of in value.items())}}}"
    return f"{{{', '.join(map(json.dumps, value))}}}"
