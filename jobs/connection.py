"""Where a process finds Redis: a given URL, or the connection file of a running `imagemill run`.

`imagemill run` publishes a file (mode 0600) that holds its Redis' URL, password included, and keeps an
exclusive lock on it for as long as it lives. The kernel lets go of the lock however the process ends, so a
file that can be locked is stale; pids, which are reused and differ between containers, decide nothing.

This module imports no Redis client, so that `imagemill status` starts fast.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import secrets
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.errors import LedgerError, NoRedis, SettingsError
from jobs.lock import try_lock
from jobs.redis_url import parse_redis_url
from jobs.strict_json import strict_json

if TYPE_CHECKING:
    from jobs.settings import Settings

_VERIFYING: dict[str, tuple[str | bool, ...]] = {
    "ssl_cert_reqs": ("required",),
    "ssl_check_hostname": (True,),
}
"""What a TLS URL may say about the server's certificate: only what is the default anyway."""
_LET_PASS = "if the network is yours alone, --insecure (IMAGEMILL_INSECURE=1) allows it"


@dataclass(frozen=True, slots=True)
class Connection:
    """What a live `imagemill run` has published."""

    url: str
    pid: int
    started: float
    """Unix time, seconds."""
    output: str
    file: Path


def redis_url(settings: Settings, say: Callable[[str], None] | None = None) -> str:
    """The URL of the Redis to use: IMAGEMILL_REDIS_URL, else that of the newest live `imagemill run`.

    `say` gets one line when several runs are live, for standard error. Raises SettingsError for a URL
    that is not Redis' or that strangers could share, LedgerError when there is nothing to connect to.
    """
    if settings.redis_url is not None:
        url = settings.redis_url.get_secret_value()
        trouble = _trouble(url, settings.insecure)
        if trouble is not None:
            raise SettingsError(f"IMAGEMILL_REDIS_URL = {safe_url(url)}: {trouble}")
        return url
    live = live_connections(settings)
    if not live:
        raise NoRedis(
            "no Redis to connect to: IMAGEMILL_REDIS_URL is not set and no `imagemill run` is alive "
            f"(looked in {', '.join(str(folder) for folder in _folders(settings))})\n"
            "start one with `imagemill run FILE`, or set IMAGEMILL_REDIS_URL=redis://:PASSWORD@HOST:6379/0"
        )
    if len(live) > 1 and say is not None:
        others = ", ".join(f"pid {other.pid} ({other.output}; {other.file})" for other in live[1:])
        say(
            f"{len(live)} runs are alive; using the newest, pid {live[0].pid} ({live[0].output}). "
            f"For another, set IMAGEMILL_REDIS_URL to the url in its file: {others}"
        )
    return live[0].url


def _trouble(url: str, insecure: bool) -> str | None:
    """What is wrong with a Redis URL, with the remedy: its form, an option that ledger and broker do not both
    take, or that strangers could use or fake Redis.

    Anyone who writes to Redis can make workers render. Anyone who fakes it can make producers and workers
    believe anything.
    """
    try:
        address = parse_redis_url(url)
    except ValueError as error:
        return str(error)
    if insecure or all(_is_loopback(host) for host, _port in address.hosts):
        return None
    with_tls = address.kind == "rediss" or address.use_tls
    if address.kind == "redis" and not address.password:
        return f"beyond this machine Redis needs a password or TLS (rediss://); {_LET_PASS}"
    if address.kind == "sentinel" and not (with_tls or (address.password and address.sentinel_password)):
        # Who may write to a Sentinel decides which Redis is ours.
        return (
            "beyond this machine Redis needs a password, and Sentinels need one too (sentinel_password=…), "
            f"or TLS (ssl=true); {_LET_PASS}"
        )
    for option, value in address.tls.items():
        if value not in _VERIFYING.get(option, (value,)):
            shown = str(value).lower()
            return (
                f"with {option}={shown} any server passes for this one: leave it out, and name a CA of your "
                f"own with ?ssl_ca_certs=FILE; {_LET_PASS}"
            )
    return None


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@contextmanager
def publish(settings: Settings, url: str, output: Path | str) -> Iterator[Path]:
    """Let other processes of this user find `url` while the block runs; yields the connection file."""
    folder = runtime_folder(settings)
    name = f"run-{os.getpid()}-{secrets.token_hex(4)}.json"
    hidden, file = folder / f".{name}", folder / name
    fd = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        # Locked and written before it has its name: a reader never sees a file that looks stale.
        try_lock(fd)
        published = {"url": url, "pid": os.getpid(), "started": time.time(), "output": str(output)}
        with open(fd, "w", encoding="utf-8", closefd=False) as stream:
            json.dump(published, stream)
        hidden.rename(file)
        yield file
    finally:
        hidden.unlink(missing_ok=True)
        file.unlink(missing_ok=True)
        os.close(fd)


def live_connections(settings: Settings) -> list[Connection]:
    """The connections of all live runs of this user, the newest first. Removes stale files."""
    found = []
    for folder in _folders(settings):
        if folder != settings.runtime_dir and not _is_private(folder):
            continue
        for file in folder.glob("run-*.json"):
            connection = _read(file)
            if connection is not None:
                found.append(connection)
    return sorted(found, key=lambda connection: connection.started, reverse=True)


def _read(file: Path) -> Connection | None:
    """The connection in `file`; None when its run is gone (it is removed) or it is not this user's alone."""
    try:
        fd = os.open(file, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        status = os.fstat(fd)
        # In a folder shared with others, a stranger's file would send us to a stranger's Redis.
        if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
            return None
        if try_lock(fd, shared=True):
            file.unlink(missing_ok=True)
            return None
        with open(fd, encoding="utf-8", closefd=False) as stream:
            values = strict_json(stream.read())
        return Connection(
            url=str(values["url"]),
            pid=int(values["pid"]),
            started=float(values["started"]),
            output=str(values["output"]),
            file=file,
        )
    except (ValueError, KeyError, TypeError) as error:
        raise LedgerError(
            f"{file}: not a connection file that this version reads ({error}): remove it"
        ) from None
    finally:
        os.close(fd)


def _folders(settings: Settings) -> list[Path]:
    """Where connection files may lie, the preferred folder first.

    Both of the last two, because one of a user's terminals may have XDG_RUNTIME_DIR and another not.
    """
    if settings.runtime_dir is not None:
        return [settings.runtime_dir]
    folders = [Path(tempfile.gettempdir()) / f"imagemill-{os.geteuid()}"]
    session = os.environ.get("XDG_RUNTIME_DIR")
    if session and Path(session).is_dir():
        folders.insert(0, Path(session) / "imagemill")
    return folders


def runtime_folder(settings: Settings) -> Path:
    """The folder for connection and lock files, made if missing (mode 0700).

    settings.runtime_dir as it is, else $XDG_RUNTIME_DIR/imagemill, else imagemill-UID in the temporary
    folder; of the last two, raises SettingsError when it is not this user's alone.
    """
    folder = _folders(settings)[0]
    try:
        if folder == settings.runtime_dir:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            return folder
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
    except OSError as error:
        raise SettingsError(
            f"{folder}: cannot be made for connection and lock files ({error.strerror}): "
            "set IMAGEMILL_RUNTIME_DIR to a folder of yours"
        ) from None
    if not _is_private(folder):
        raise SettingsError(
            f"{folder}: must be a folder of yours with mode 0700, because it holds passwords: "
            "remove it, or set IMAGEMILL_RUNTIME_DIR to another"
        )
    return folder


def _is_private(folder: Path) -> bool:
    """Whether `folder` is a real folder, this user's, and closed to all others."""
    try:
        status = folder.lstat()
    except OSError:
        return False
    mine = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
    return mine and not stat.S_IMODE(status.st_mode) & 0o077


def safe_url(url: str) -> str:
    """`url` without user and password, for messages. What is no URL at all may be a password: `***`."""
    if not url:
        return "(empty)"
    scheme, separator, rest = url.partition("://")
    if not separator:
        return "***"
    # The last @, since a password may hold one; a password may also be in the query.
    credentials, at, place = rest.rpartition("@")
    rest = f"***@{place}" if credentials or at else rest
    return f"{scheme}://" + re.sub(r"((?:password|username)=)[^&\s]*", r"\1***", rest)


def safe_text(text: str) -> str:
    """`text` with every Redis URL in it made safe, for logs."""
    return re.sub(
        r"\b(?:rediss?|valkeys?|sentinel|unix|(?:redis\+)?socket)://\S+", lambda m: safe_url(m[0]), text
    )
