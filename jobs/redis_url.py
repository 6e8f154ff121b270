"""A Redis URL, read once for the ledger (redis-py) and the broker (kombu), which connect by what is found.

Each of the two libraries has a reader of URLs of its own, and they differ: an option that one takes ends the
other with a traceback, after the job was stored. So neither reads ours.

redis://[USER:PASSWORD@]HOST[:PORT]/[DB]        valkey:// is the same; rediss:// and valkeys:// use TLS
unix://[USER:PASSWORD@]/PATH[?db=DB]            redis+socket:///PATH[?virtual_host=DB], as Celery writes it
sentinel://[USER:PASSWORD@]HOST[:PORT];sentinel://HOST[:PORT]/[DB]?master_name=NAME
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

SCHEMES: Final = {
    "redis": "redis",
    "valkey": "redis",
    "rediss": "rediss",
    "valkeys": "rediss",
    "unix": "unix",
    "redis+socket": "unix",
    "sentinel": "sentinel",
}
"""How a URL may begin, and the kind of address that it is."""
_PORTS: Final = {"redis": 6379, "rediss": 6379, "sentinel": 26379}
_FORM: Final = "write redis://:PASSWORD@HOST:6379/0"
_QUOTE: Final = "in a user or password write / as %2F, ? as %3F, # as %23, @ as %40 and ; as %3B"


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """Where a Redis is, and how to connect to it. What is "" or None was not given."""

    kind: str
    """redis, rediss (TLS), unix or sentinel."""
    hosts: tuple[tuple[str, int], ...] = ()
    """The server's host and port, or those of each Sentinel; none for a socket."""
    path: str = ""
    """The socket's file."""
    database: int = 0
    username: str = ""
    password: str = ""
    socket_timeout: float | None = None
    """Seconds."""
    socket_connect_timeout: float | None = None
    """Seconds."""
    health_check_interval: int | None = None
    """Seconds without a word after which a connection is tried before it is used."""
    tls: Mapping[str, str | bool] = field(default_factory=dict)
    """The options of redis-py's SSLConnection that were given."""
    use_tls: bool = False
    """For a Sentinel's URL: its servers and the Sentinels themselves are reached by TLS."""
    master_name: str = ""
    sentinel_username: str = ""
    sentinel_password: str = ""


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds <= 3600:
        raise ValueError
    return seconds


def _whole_seconds(text: str) -> int:
    # 0 turns redis-py's checks off and makes kombu check without a pause.
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= 3600):
        raise ValueError
    return int(text)


def _yes(text: str) -> bool:
    return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[text.lower()]


def _database(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise ValueError
    return int(text)


def _text(text: str) -> str:
    if not text:
        raise ValueError
    return text


def _requirement(text: str) -> str:
    known = {"required", "optional", "none"}
    word = text.removeprefix("CERT_").lower()
    if word not in known:
        raise ValueError
    return word


@dataclass(frozen=True, slots=True)
class _Option:
    read: Callable[[str], object]
    """Raises ValueError or KeyError for what is not allowed."""
    allowed: str


_ANY = _Option(_text, "a text")
_TIMES: Final = {
    "socket_timeout": _Option(_seconds, "seconds, above 0 and up to 3600"),
    "socket_connect_timeout": _Option(_seconds, "seconds, above 0 and up to 3600"),
    "health_check_interval": _Option(_whole_seconds, "whole seconds, from 1 to 3600"),
}
_TLS: Final = {
    "ssl_ca_certs": _ANY,
    "ssl_ca_path": _ANY,
    "ssl_certfile": _ANY,
    "ssl_keyfile": _ANY,
    "ssl_password": _ANY,
    "ssl_cert_reqs": _Option(_requirement, "required, optional or none"),
    "ssl_check_hostname": _Option(_yes, "true or false"),
}
_SENTINEL: Final = {
    "master_name": _ANY,
    "sentinel_username": _ANY,
    "sentinel_password": _ANY,
    "ssl": _Option(_yes, "true or false"),
}
_DATABASE = _Option(_database, "a number from 0 on")
_OPTIONS: Final = {
    "redis": _TIMES,
    "valkey": _TIMES,
    "rediss": _TIMES | _TLS,
    "valkeys": _TIMES | _TLS,
    "unix": _TIMES | {"db": _DATABASE},
    "redis+socket": _TIMES | {"virtual_host": _DATABASE},
    "sentinel": _TIMES | _TLS | _SENTINEL,
}
"""What may follow the ? for each scheme. Both libraries can do each of these."""


def parse_redis_url(url: str) -> RedisAddress:
    """The address in a Redis URL.

    Raises ValueError that says what is wrong and the remedy; its text holds no password.
    """
    scheme = url.partition("://")[0]
    if "://" not in url or scheme not in SCHEMES:
        raise ValueError(
            f"must look like redis://:PASSWORD@HOST:6379/0, or begin with {_listed(SCHEMES, 'or')}"
        )
    kind = SCHEMES[scheme]
    if kind == "sentinel":
        return _of_sentinels(url)
    if ";" in url:
        # Celery would take what follows for a second server.
        raise ValueError("names several servers: name one, and write a ; in a password as %3B")
    parts = _split(url)
    options = _options(parts, scheme)
    given: dict[str, Any] = {
        "kind": kind,
        "username": unquote(parts.username or ""),
        "password": unquote(parts.password or ""),
        "tls": {name: options.pop(name) for name in _TLS if name in options},
    }
    if kind == "unix":
        path = unquote(parts.path)
        if parts.hostname or not path.strip("/"):
            raise ValueError("names no socket: write unix:///PATH/OF/redis.sock, with three strokes")
        number = options.pop("db", options.pop("virtual_host", 0))
        return RedisAddress(path=path, database=number, **given, **options)
    return RedisAddress(
        hosts=(_host(parts, kind),),
        database=_database_in(parts.path),
        **given,
        **options,
    )


def _of_sentinels(url: str) -> RedisAddress:
    """The address in a URL of one Sentinel or of several, as Celery writes it.

    User, password, database and options hold for all; they may stand in any of its parts.
    """
    hosts, found = [], dict[str, Any]()
    for one in url.split(";"):
        if not one:
            continue
        parts = _split(one if "://" in one else f"sentinel://{one}")
        if parts.scheme != "sentinel":
            raise ValueError(f"names a server of {parts.scheme}:// among Sentinels: name Sentinels only")
        hosts.append(_host(parts, "sentinel"))
        said: dict[str, Any] = {
            "username": unquote(parts.username or ""),
            "password": unquote(parts.password or ""),
            "database": _database_in(parts.path) if parts.path.strip("/") else "",
        } | _options(parts, "sentinel")
        for name, value in said.items():
            if value == "":
                continue
            if found.setdefault(name, value) != value:
                raise ValueError(f"its Sentinels' parts differ in {name}: say it once, for all of them")
    if "master_name" not in found:
        raise ValueError(
            "names no master: add ?master_name=NAME, the NAME that sentinel.conf has after `sentinel monitor`"
        )
    tls = {name: found.pop(name) for name in _TLS if name in found}
    use_tls = found.pop("ssl", bool(tls))
    if tls and not use_tls:
        raise ValueError(f"has {_listed(tls)} beside ssl=false: leave out one of them")
    return RedisAddress(kind="sentinel", hosts=tuple(hosts), tls=tls, use_tls=use_tls, **found)


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
    except ValueError:
        # The reason may show what stands before the @.
        raise ValueError(f"is no URL: {_FORM}") from None
    if parts.fragment or url.endswith("#"):
        raise ValueError(f"has a #, behind which nothing is read: {_QUOTE}")
    # A / or ? in a password ends the part of it that stands before the @: the rest must not be shown.
    cut_off = SCHEMES.get(parts.scheme) != "unix" or (parts.netloc and "@" not in parts.netloc)
    if "@" in parts.query or ("@" in parts.path and cut_off):
        raise ValueError(f"has an @ behind the first / or ?: {_QUOTE}; write an @ of an option as %40")
    return parts


def _host(parts: SplitResult, kind: str) -> tuple[str, int]:
    try:
        port = parts.port
    except ValueError:
        # The reason would show what stands in the port's place: a password with a stroke in it.
        raise ValueError(f"has a port that is no number up to 65535: {_FORM}; {_QUOTE}") from None
    if kind == "sentinel" and not parts.hostname:
        raise ValueError("names a Sentinel without a host: write sentinel://HOST:26379")
    return unquote(parts.hostname or "localhost"), _PORTS[kind] if port is None else port


def _database_in(path: str) -> int:
    text = unquote(path).removeprefix("/")
    try:
        return _database(text) if text else 0
    except ValueError:
        raise ValueError(
            f"has {'/' + text!r} in the place of the database, which is a number from 0 on: "
            "write /0 behind the port, or nothing"
        ) from None


def _options(parts: SplitResult, scheme: str) -> dict[str, Any]:
    """What follows the ?, read. Raises ValueError for an option that not both libraries take."""
    allowed, found = _OPTIONS[scheme], dict[str, Any]()
    for name, text in parse_qsl(parts.query, keep_blank_values=True):
        if name not in allowed:
            raise ValueError(f"?{name}= is no option of {scheme}://: {_remedy(name)}{_listed(allowed)}")
        if name in found:
            raise ValueError(f"has {name} twice: leave out one of them")
        try:
            found[name] = allowed[name].read(text)
        except (ValueError, KeyError):
            shown = "…" if "password" in name else text
            raise ValueError(f"{name}={shown}: must be {allowed[name].allowed}") from None
    return found


def _remedy(name: str) -> str:
    if name in ("db", "virtual_host"):
        return "write the database behind the port, as in redis://HOST:6379/3; there are "
    if name in ("host", "port", "username", "password"):
        return "write redis://USER:PASSWORD@HOST:6379/0; there are "
    return "there are "


def _listed(names: Iterable[str], link: str = "and") -> str:
    *all_but_last, last = sorted(names)
    return f"{', '.join(all_but_last)} {link} {last}" if all_but_last else last
