"""The connection to a store of objects, by obstore: how long it is waited for, and what its errors mean.

obstore repeats a request that failed on its way, but not each: the answer to a deletion or a listing that was
cut off is an error. So what may be asked for twice is asked for again here.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Final, TypeVar, cast

from obstore import exceptions
from obstore.store import AzureStore, GCSStore, S3Store

from jobs.errors import OutputError
from jobs.location import BucketPlace
from jobs.output.store import Unreachable

if TYPE_CHECKING:
    from obstore.store import AzureConfig, GCSConfig, ObjectStore, RetryConfig, S3Config

Result = TypeVar("Result")
VARIABLES: Final[Mapping[str, str]] = {
    "s3": "AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME, AZURE_STORAGE_ACCOUNT_KEY",
}
"""The variables that say where a store is, and who asks."""
REQUEST_SECONDS: Final = 12
_REPEATED_SECONDS: Final = 16
"""How long one request may take, and how long it is begun again: together shorter than a lease."""
_PAUSES: Final = (0.2, 0.5, 1.0, 2.0, 4.0)
"""Seconds before each further try of our own."""
_REPETITIONS: Final = 8
_LONGEST: Final = 300
_SPACES = re.compile(r"\s+")
_DEBUG = "\n\nDebug source:"
_FORBIDDEN = re.compile(r"401 Unauthorized|403 Forbidden")
_NOT_THERE = re.compile(r"NoSuchBucket|404 Not Found|ContainerNotFound")
_NEVER = re.compile(
    r"InvalidBucketName|builder error|Missing \w*Key|must be specified|not a valid|400 Bad Request|416 "
)
"""Of what a store said, that it will say it again."""
_OWN_ROLE = "169.254.169.254"
"""Where a machine in Amazon's cloud is asked for its credentials, when no variable has some."""


def connected(place: BucketPlace, *, seconds: int = REQUEST_SECONDS, copying: str = "") -> ObjectStore:
    """The bucket. `seconds`: how long a request may take. `copying`: how S3 is to copy on a condition.

    Raises OutputError where the variables make no connection.
    """
    # Its threads do not live on in a child of this process.
    return _connected(place.scheme, place.bucket, seconds, copying, os.getpid())


@lru_cache
def _connected(scheme: str, bucket: str, seconds: int, copying: str, _process: int) -> ObjectStore:
    # As configuration, and not as the options of a client, which would replace those of the environment.
    config = {"timeout": f"{seconds}s", "connect_timeout": "5s"}
    if any(os.environ.get(name, "").startswith("http://") for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT")):
        config["allow_http"] = "true"
    retry: RetryConfig = {
        "max_retries": _REPETITIONS,
        "retry_timeout": timedelta(seconds=_REPEATED_SECONDS),
    }
    try:
        match scheme:
            case "s3":
                if copying:
                    config["copy_if_not_exists"] = copying
                return S3Store(bucket, config=cast("S3Config", config), retry_config=retry)
            case "gs":
                return GCSStore(bucket, config=cast("GCSConfig", config), retry_config=retry)
            case _:
                return AzureStore(bucket, config=cast("AzureConfig", config), retry_config=retry)
    except BaseException as error:
        if not isinstance(error, Exception) and not _is_panic(error):
            raise
        raise OutputError(
            f"{scheme}://{bucket}: no connection can be made ({_said(error)}): set {VARIABLES[scheme]}"
        ) from None


def asked(named: str, ask: Callable[[], Result]) -> Result:
    """What a store answers; asked again where it gave no answer. See `asked_once` for the errors."""
    until = time.monotonic() + _REPEATED_SECONDS
    for pause in _PAUSES:
        try:
            return asked_once(named, ask)
        except Unreachable:
            if time.monotonic() + pause > until:
                raise
            time.sleep(pause)
    return asked_once(named, ask)


def asked_once(named: str, ask: Callable[[], Result]) -> Result:
    """What a store answers about the file `named`.

    Raises FileNotFoundError, FileExistsError, PermissionError, Unreachable where a later try may do, or
    another OSError. What was asked for may have happened all the same.
    """
    try:
        return ask()
    except FileNotFoundError as error:
        what = _said(error) if _NOT_THERE.search(str(error)) else "is not there"
        raise FileNotFoundError(errno.ENOENT, what, named) from None
    except OSError:
        raise
    except (exceptions.AlreadyExistsError, exceptions.PreconditionError):
        raise FileExistsError(errno.EEXIST, "is there already", named) from None
    except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
        raise _refused(error, named) from None
    except (exceptions.BaseError, ValueError) as error:
        said = _said(error)
        if _FORBIDDEN.search(said):
            raise _refused(error, named) from None
        if _NOT_THERE.search(said):
            raise FileNotFoundError(errno.ENOENT, said, named) from None
        if _OWN_ROLE in said:
            said = f"no credentials are set, and this machine's own role gives none: {said}"
        raise (OSError if _NEVER.search(said) else Unreachable)(errno.EIO, said, named) from None
    except BaseException as error:
        if _is_panic(error):
            raise OSError(errno.EINVAL, f"its client fails ({_said(error)})", named) from None
        raise


def _refused(error: Exception, named: str) -> PermissionError:
    return PermissionError(errno.EACCES, f"the store refuses it: {_said(error)}", named)


def _is_panic(error: BaseException) -> bool:
    """Whether obstore failed at an odd value, as a key with a newline; it is no Exception."""
    return type(error).__name__ == "PanicException"


def _said(error: BaseException) -> str:
    """What a store said, on one line; obstore's own details aside."""
    text = _SPACES.sub(" ", str(error).partition(_DEBUG)[0]).strip()
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
