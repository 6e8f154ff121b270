"""A worker that starts before its Redis waits for it."""

from __future__ import annotations

import logging
from contextlib import suppress

import redis

from jobs.connection import safe_url
from jobs.errors import LedgerError, LedgerUnavailable
from jobs.ledger.eviction import refuse_eviction
from jobs.ledger.redis_client import WrongKind, redis_client
from jobs.ledger.redis_errors import as_ledger_error
from jobs.ledger.sentinels import NoSuchMaster
from worker.host.supervisor import Stop

_log = logging.getLogger(__name__)
_REMEDY = "correct IMAGEMILL_REDIS_URL (redis://:PASSWORD@HOST:6379/0)"


def wait_for_redis(url: str, stop: Stop, *, allow_eviction: bool = False) -> None:
    """Return once Redis answers at `url`, or a stop is requested; say so while it does not.

    Raises LedgerError when the password, the certificate or the kind of server is wrong, or when it may drop
    keys of jobs, unless `allow_eviction`: waiting does not fix that.
    """
    pause = 1.0
    with redis_client(url) as client:
        while not stop:
            try:
                with suppress(redis.exceptions.NoPermissionError):
                    client.ping()  # a user that may not has the right password
                refuse_eviction(client, allow_eviction)
                return
            except LedgerUnavailable as error:
                _log.warning("Redis is away, next try in %g s: %s", pause, error)
            except (WrongKind, NoSuchMaster) as error:
                raise LedgerError(f"{safe_url(url)}: {error}") from None
            except (redis.exceptions.AuthenticationError, redis.exceptions.ResponseError) as error:
                raise LedgerError(
                    f"{safe_url(url)}: Redis refuses the connection ({error}): {_REMEDY}"
                ) from None
            except redis.exceptions.RedisError as error:
                ours = as_ledger_error(error)
                if not isinstance(ours, LedgerUnavailable):
                    raise LedgerError(f"{safe_url(url)}: {ours}") from None
                _log.warning("Redis is away, next try in %g s: %s", pause, error)
            stop.wait(pause)
            pause = min(2 * pause, 30.0)
