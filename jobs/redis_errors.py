"""redis-py's errors as ours, each with its remedy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import redis.exceptions

from jobs.errors import LedgerError, LedgerUnavailable


@contextmanager
def redis_errors_as_ours() -> Iterator[None]:
    """Turns redis-py's errors into ours, with the remedy."""
    try:
        yield
    except redis.exceptions.AuthenticationError as error:
        raise LedgerError(f"Redis refuses the password ({error}): check IMAGEMILL_REDIS_URL") from None
    except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError) as error:
        raise LedgerUnavailable(
            f"Redis does not answer ({error}): is it started, and is IMAGEMILL_REDIS_URL right?"
        ) from None
    except redis.exceptions.OutOfMemoryError as error:
        raise _full(error) from None
    except redis.exceptions.ResponseError as error:
        if "OOM" in str(error):
            raise _full(error) from None
        if "MISCONF" in str(error) or "READONLY" in str(error):
            raise LedgerUnavailable(f"Redis cannot write ({error}): give its disk space") from None
        if "NOAUTH" in str(error) or "NOPERM" in str(error) or "WRONGPASS" in str(error):
            raise LedgerError(f"Redis refuses us ({error}): check IMAGEMILL_REDIS_URL") from None
        raise


def _full(error: Exception) -> LedgerUnavailable:
    return LedgerUnavailable(
        f"Redis is full ({error}): raise its maxmemory, or let finished jobs go (retention); nothing is lost"
    )
