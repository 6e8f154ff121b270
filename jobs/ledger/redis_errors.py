"""redis-py's errors as ours, each with its remedy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import redis.exceptions

from jobs.errors import LedgerError, LedgerFull, LedgerUnavailable

_FOR_NOW = (
    redis.exceptions.ReadOnlyError,
    redis.exceptions.MasterDownError,
    redis.exceptions.ClusterDownError,
    redis.exceptions.TryAgainError,
)
_FOR_NOW_CODES = ("MISCONF", "NOREPLICAS", "BUSY", "READONLY")
"""Codes without a class of redis-py's own: where it has one it takes the code's word off the text. READONLY
is in the text when a script of an older server met it."""


@contextmanager
def redis_errors_as_ours() -> Iterator[None]:
    """Turns redis-py's errors into ours, with the remedy."""
    try:
        yield
    except redis.exceptions.RedisError as error:
        raise as_ours(error) from None


def as_ours(error: redis.exceptions.RedisError) -> LedgerError:
    """What an error of redis-py's means to a person."""
    text = str(error)
    match error:
        case redis.exceptions.AuthenticationError() | redis.exceptions.AuthenticationWrongNumberOfArgsError():
            return LedgerError(f"Redis refuses the password ({text}): check IMAGEMILL_REDIS_URL")
        case redis.exceptions.NoPermissionError() | redis.exceptions.AuthorizationError():
            return _refused(text)
        case redis.exceptions.MaxConnectionsError():
            return LedgerUnavailable(f"Redis takes no more connections ({text}): raise its maxclients")
        case redis.exceptions.BusyLoadingError():
            return LedgerUnavailable(f"Redis does not answer yet ({text}): it is reading its data")
        case redis.exceptions.ConnectionError() if "CERTIFICATE_VERIFY_FAILED" in text:
            return LedgerError(
                f"Redis' certificate is not to be trusted ({text}): name its CA in IMAGEMILL_REDIS_URL "
                "(?ssl_ca_certs=FILE), and the host as the certificate does"
            )
        case redis.exceptions.ConnectionError() | redis.exceptions.TimeoutError():
            return LedgerUnavailable(
                f"Redis does not answer ({text}): is it started, and is IMAGEMILL_REDIS_URL right?"
            )
        case redis.exceptions.OutOfMemoryError():
            return _full(text)
        case _ if isinstance(error, _FOR_NOW) or any(code in text for code in _FOR_NOW_CODES):
            return LedgerUnavailable(
                f"Redis cannot write now ({text}): it is a replica, busy, or cannot save: look after its "
                "disk and its log, or give the address of the primary in IMAGEMILL_REDIS_URL"
            )
    # A script's error may come in other words, without its code.
    if "OOM " in text:
        return _full(text)
    if any(words in text for words in ("NOPERM", "ACL failure", "The user executing the script")):
        return _refused(text)
    return LedgerError(
        f"Redis answers with an error ({text}): imagemill needs Redis 6.2 or newer, or Valkey, and no cluster"
    )


def _full(text: str) -> LedgerFull:
    return LedgerFull(
        f"Redis is full ({text}): raise its maxmemory, or let finished jobs go (retention); nothing is lost"
    )


def _refused(text: str) -> LedgerError:
    return LedgerError(
        f"Redis refuses us ({text}): check the user in IMAGEMILL_REDIS_URL, and give it `~imagemill* "
        "~celery* ~_kombu* ~unacked* ~*celery.pidbox* &* +@all -@admin -@dangerous`, or what SECURITY.md has"
    )
