"""redis-py's errors as LedgerErrors, each with its remedy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import redis.exceptions

from jobs.errors import LedgerError, LedgerFull, LedgerUnavailable
from jobs.ledger.redis_client import WrongKind
from jobs.ledger.sentinels import NoSuchMaster

_FOR_NOW = (
    redis.exceptions.ReadOnlyError,
    redis.exceptions.MasterDownError,
    redis.exceptions.ClusterDownError,
    redis.exceptions.TryAgainError,
)
_FOR_NOW_CODES = ("MISCONF", "NOREPLICAS", "BUSY", "READONLY")
"""Codes for which redis-py has no class; for those with a class it removes the code from the text. READONLY
is in the text if a script on an older server met it."""


@contextmanager
def as_ledger_errors() -> Iterator[None]:
    """Raises a LedgerError, with the remedy, in place of an error of redis-py."""
    try:
        yield
    except redis.exceptions.RedisError as error:
        raise as_ledger_error(error) from None


def as_ledger_error(error: redis.exceptions.RedisError) -> LedgerError:
    """The LedgerError that explains an error of redis-py."""
    text = str(error)
    match error:
        case WrongKind() | NoSuchMaster():
            return LedgerError(text)
        case redis.exceptions.AuthenticationError() | redis.exceptions.AuthenticationWrongNumberOfArgsError():
            return LedgerError(f"Redis refuses the password ({text}): check IMAGEMILL_REDIS_URL")
        case redis.exceptions.NoPermissionError() | redis.exceptions.AuthorizationError():
            return _refused(text)
        case redis.exceptions.MaxConnectionsError():
            return LedgerUnavailable(f"Redis accepts no more connections ({text}): raise its maxclients")
        case redis.exceptions.BusyLoadingError():
            return LedgerUnavailable(f"Redis does not answer yet ({text}): it is loading its data")
        case redis.exceptions.ConnectionError() if "CERTIFICATE_VERIFY_FAILED" in text:
            return LedgerError(
                f"Redis' certificate cannot be trusted ({text}): name its CA in IMAGEMILL_REDIS_URL "
                "(?ssl_ca_certs=FILE), and use the host name that is in the certificate"
            )
        case redis.exceptions.ConnectionError() | redis.exceptions.TimeoutError():
            return LedgerUnavailable(
                f"Redis does not answer ({text}): is it started, and is IMAGEMILL_REDIS_URL right?"
            )
        case redis.exceptions.OutOfMemoryError():
            return _full(text)
        case _ if isinstance(error, _FOR_NOW) or any(code in text for code in _FOR_NOW_CODES):
            return LedgerUnavailable(
                f"Redis cannot write now ({text}): it is a replica, is busy, or cannot save: check its "
                "disk and its log, or set IMAGEMILL_REDIS_URL to the address of the primary"
            )
    # An error within a script may have another wording, without the code.
    if "OOM " in text:
        return _full(text)
    if any(words in text for words in ("NOPERM", "ACL failure", "The user executing the script")):
        return _refused(text)
    return LedgerError(
        f"Redis answers with an error ({text}): imagemill needs Redis 6.2 or newer, or Valkey, and not as a "
        "cluster"
    )


def _full(text: str) -> LedgerFull:
    return LedgerFull(
        f"Redis is full ({text}): raise its maxmemory, or wait until finished jobs expire; nothing is lost"
    )


def _refused(text: str) -> LedgerError:
    return LedgerError(
        f"Redis refuses a command ({text}): check the user in IMAGEMILL_REDIS_URL, and give it `~imagemill* "
        "~celery* ~_kombu* ~unacked* ~*celery.pidbox* &* +@all -@admin -@dangerous`, or what SECURITY.md "
        "has; a file of an earlier version must be printed again"
    )
