"""The connection to a store of objects, by obstore: how long it is waited for, and what its errors mean.

obstore repeats a request that failed on its way, but not each: the answer to a deletion or a listing that was
cut off is an error. So what may be asked for twice is asked for again here.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
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


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a store is waited for, in seconds."""

    request: int = 12
    repeated: int = 16
    """How long one request may take, and how long it is begun again: together shorter than a lease."""
    pauses: Sequence[float] = (0.2, 0.5, 1.0, 2.0, 4.0)
    """Before each further try of our own."""
    settled: float = 3.0
    """How long a store may still copy what it has begun to, at least, after its source was deleted."""


PATIENCE = Patience()
_REPETITIONS: Final = 8
_LONGEST: Final = 300
_SPACES = re.compile(r"\s+")
_DEBUG = "\n\nDebug source:"
_ASKED = re.compile(r".*?Error performing [A-Z]+ \S+ in \S+ - (?:Server returned non-2xx status code: )?")
"""What was asked for, which has the names of objects: whatever these are, they say nothing of the answer."""
_DOCUMENT = re.compile(r"<\?xml.*<Code>(.*?)</Code>(?:.*<Message>(.*?)</Message>)?.*")
_FORBIDDEN = re.compile(r"401 Unauthorized|403 Forbidden")
_NOT_THERE = re.compile(r"NoSuchBucket|404 Not Found|ContainerNotFound")
_NEVER = re.compile(
    r"InvalidBucketName|builder error|Missing \w*Key|must be specified|not a valid|400 Bad Request"
    r"|405 Method Not Allowed|416 |501 Not Implemented"
)
"""Of what a store said, that it will say it again …"""
_BROKEN_OFF = re.compile(r"RequestTimeout|IncompleteBody|BadDigest")
"""… but what S3 says, with the status 400, of a body that came too slowly or not whole."""
_OWN_ROLE = re.compile(
    r"Error performing [A-Z]+ https?://(169\.254\.169\.254/|[^/\s]+/latest/(api/token|meta-data))"
)
"""Where a machine in Amazon's cloud is asked for its credentials, when no variable has some."""
ENDPOINTS: Final = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AWS_ENDPOINT_URL_S3")
"""The variables that lead to another store than Amazon's."""


def connected(
    place: BucketPlace, *, seconds: int | None = None, copying: str = "", repeats: bool = True
) -> ObjectStore:
    """The bucket. `seconds`: how long a request may take, if longer than others. `copying`: how S3 is to copy
    on a condition. `repeats`: whether obstore makes a request again that failed on its way.

    Raises OutputError where the variables make no connection.
    """
    # Its threads do not live on in a child of this process.
    patience = PATIENCE if seconds is None else replace(PATIENCE, request=seconds)
    return _connected(place.scheme, place.bucket, patience, copying, repeats, os.getpid())


@lru_cache
def _connected(
    scheme: str, bucket: str, patience: Patience, copying: str, repeats: bool, _process: int
) -> ObjectStore:
    # As configuration, and not as the options of a client, which would replace those of the environment.
    config = {"timeout": f"{patience.request}s", "connect_timeout": "5s"}
    if scheme == "s3" and any(os.environ.get(name, "").startswith("http://") for name in ENDPOINTS):
        config["allow_http"] = "true"
    retry: RetryConfig = {
        "max_retries": _REPETITIONS if repeats else 0,
        "retry_timeout": timedelta(seconds=patience.repeated),
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
            f"{scheme}://{bucket}: no connection can be made ({_shown(_answer(error))}): "
            f"set {VARIABLES[scheme]}"
        ) from None


def asked(named: str, ask: Callable[[], Result]) -> Result:
    """What a store answers; asked again where it gave no answer. See `asked_once` for the errors."""
    until = time.monotonic() + PATIENCE.repeated
    for pause in PATIENCE.pauses:
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
        answer = _answer(error)
        what = _shown(answer) if _NOT_THERE.search(answer) else "is not there"
        raise FileNotFoundError(errno.ENOENT, what, named) from None
    except OSError:
        raise
    except (exceptions.AlreadyExistsError, exceptions.PreconditionError):
        raise FileExistsError(errno.EEXIST, "is there already", named) from None
    except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
        raise _refused(error, named) from None
    except ValueError as error:  # a name that no object can have
        raise OSError(errno.EINVAL, _shown(_answer(error)), named) from None
    except exceptions.BaseError as error:
        answer = _answer(error)
        shown = _shown(answer)
        # What that service says is of no file: 404 has another meaning there.
        if _OWN_ROLE.search(str(error)):
            shown = f"no credentials are set, and this machine's own role gives none: {shown}"
            raise Unreachable(errno.EACCES, shown, named) from None
        if _FORBIDDEN.search(answer):
            raise _refused(error, named) from None
        if _NOT_THERE.search(answer):
            raise FileNotFoundError(errno.ENOENT, shown, named) from None
        never = _NEVER.search(answer) and not _BROKEN_OFF.search(answer)
        raise (OSError if never else Unreachable)(errno.EIO, shown, named) from None
    except BaseException as error:
        if _is_panic(error):
            raise OSError(errno.EINVAL, f"its client fails ({_shown(_answer(error))})", named) from None
        raise


def _refused(error: Exception, named: str) -> PermissionError:
    return PermissionError(errno.EACCES, f"the store refuses it: {_shown(_answer(error))}", named)


def _is_panic(error: BaseException) -> bool:
    """Whether obstore failed at an odd value, as a key with a newline; it is no Exception."""
    return type(error).__name__ == "PanicException"


def _answer(error: BaseException) -> str:
    """What a store said, on one line; obstore's own details aside."""
    return _ASKED.sub("", _SPACES.sub(" ", str(error).partition(_DEBUG)[0]).strip(), count=1)


def _shown(answer: str) -> str:
    """The answer for a person: of S3's documents the code and the message."""
    text = _DOCUMENT.sub(lambda found: ": ".join(filter(None, found.groups())), answer)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
