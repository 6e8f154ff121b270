"""A worker that starts before its Redis waits for it."""

from __future__ import annotations

import logging
import time
from contextlib import suppress

import redis

from jobs.connection import safe_url
from jobs.errors import LedgerError, LedgerUnavailable
from jobs.ledger.eviction import refuse_eviction
from jobs.ledger.redis_client import WrongKind, redis_client
from jobs.ledger.redis_errors import as_ledger_error
from jobs.ledger.sentinels import NoSuchMaster
from worker.host import exit_status
from worker.host.stop import Stop

_log = logging.getLogger(__name__)
_REMEDY = "correct IMAGEMILL_REDIS_URL (redis://:PASSWORD@HOST:6379/0)"


def wait_for_redis(
    url: str, stop: Stop, *, allow_eviction: bool = False, patience: float | None = None
) -> None:
    """Return once Redis answers at `url`, or a stop is requested; say so while it does not.

    After `patience` seconds without an answer, it requests the stop itself.

    Raises LedgerError when the password, the certificate or the kind of server is wrong, or when it may drop
    keys of jobs, unless `allow_eviction`: waiting does not fix that.
    """
    pause, began = 1.0, time.monotonic()
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
            waited = time.monotonic() - began
            if patience is not None and waited >= patience:
                stop.leave(exit_status.NO_REDIS, f"Redis has given no answer for {waited:.0f} s")
            stop.wait(pause if patience is None else min(pause, patience - waited))
            pause = min(2 * pause, 30.0)
