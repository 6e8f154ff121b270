"""What an answer of a store means, or none."""

from __future__ import annotations

import errno
from collections.abc import Callable

import obstore
import pytest
from obstore import exceptions

from jobs.errors import OutputError
from jobs.location import BucketPlace
from jobs.output import bucket_client
from jobs.output.bucket_client import Patience, asked, asked_once, connected
from jobs.output.store import Unreachable

ERROR = "Generic S3 error: Error performing GET http://host/b/a in 2s - "
STATUS = ERROR + "Server returned non-2xx status code: "


def failing(error: BaseException) -> Callable[[], None]:
    def ask() -> None:
        raise error

    return ask


@pytest.mark.parametrize(
    ("said", "means"),
    [
        (ERROR + "HTTP error: error sending request", Unreachable),
        (STATUS + "503 Service Unavailable: <Code>SlowDown</Code>", Unreachable),
        (STATUS + "500 Internal Server Error:", Unreachable),
        (STATUS + "429 Too Many Requests:", Unreachable),
        (STATUS + "400 Bad Request: <Code>RequestTimeout</Code>", Unreachable),
        (STATUS + "400 Bad Request: <Code>IncompleteBody</Code>", Unreachable),
        (STATUS + "400 Bad Request: <Code>InvalidArgument</Code>", OSError),
        (STATUS + "501 Not Implemented: <Code>NotImplemented</Code>", OSError),
        (STATUS + "416 Range Not Satisfiable:", OSError),
        (STATUS + "403 Forbidden: <Code>AccessDenied</Code>", PermissionError),
        (STATUS + "404 Not Found: <Code>NoSuchBucket</Code>", FileNotFoundError),
        ("HTTP error: builder error", OSError),
        ("Missing SecretAccessKey", OSError),
        # The service of a machine's own role says nothing of a file.
        ("Error performing PUT http://169.254.169.254/latest/api/token: 404 Not Found", Unreachable),
        ("Error performing GET http://host/latest/meta-data/iam: 403 Forbidden", Unreachable),
    ],
)
def test_an_error_is_known_by_what_the_store_said(said: str, means: type[OSError]) -> None:
    with pytest.raises(OSError, match=r".") as raised:
        asked_once("s3://b-1/a", failing(exceptions.GenericError(f"{said}\n\nDebug source:\nsecrets")))
    assert type(raised.value) is means
    assert raised.value.filename == "s3://b-1/a"
    assert "secrets" not in str(raised.value)
    assert "\n" not in str(raised.value)


DOCUMENT = (
    '404 Not Found: <?xml version="1.0"?> <Error> <Code>NoSuchBucket</Code>\n'
    "<Message>It is not there</Message></Error>"
)


@pytest.mark.parametrize("key", ["k" * 900, "404%20Not%20Found", "builder%20error", "latest/meta-data/x"])
def test_the_name_of_an_object_hides_nothing_of_the_answer_and_is_none(key: str) -> None:
    asked_for = f"Generic S3 error: Error performing PUT http://host/bucket/{key} in 2ms - "
    busy = f"{asked_for}Server returned non-2xx status code: 503 Service Unavailable:"
    with pytest.raises(Unreachable, match="503 Service Unavailable"):
        asked_once("s3://b-1/a", failing(exceptions.GenericError(busy)))
    missing = f"{asked_for}Server returned non-2xx status code: {DOCUMENT}"
    with pytest.raises(FileNotFoundError) as raised:
        asked_once("s3://b-1/a", failing(exceptions.GenericError(missing)))
    assert raised.value.strerror == "404 Not Found: NoSuchBucket: It is not there"


@pytest.mark.parametrize(
    ("error", "means"),
    [
        (exceptions.AlreadyExistsError("there"), FileExistsError),
        (exceptions.PreconditionError("there"), FileExistsError),
        (exceptions.PermissionDeniedError("403"), PermissionError),
        (exceptions.UnauthenticatedError("401"), PermissionError),
        (FileNotFoundError("Object at location a not found: 404"), FileNotFoundError),
        (ValueError("a//b"), OSError),
        (OSError(errno.ENOSPC, "full"), OSError),
    ],
)
def test_an_exception_is_known_by_its_kind(error: BaseException, means: type[OSError]) -> None:
    with pytest.raises(OSError, match=r".") as raised:
        asked_once("s3://b-1/a", failing(error))
    assert type(raised.value) is means


def test_what_gives_no_answer_is_asked_again_and_then_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket_client, "PATIENCE", Patience(pauses=(0.01, 0.01)))
    tries: list[int] = []

    def third_time() -> str:
        tries.append(1)
        if len(tries) < 3:
            raise exceptions.GenericError("error sending request")
        return "here"

    assert asked("s3://b-1/a", third_time) == "here"
    monkeypatch.setattr(bucket_client, "PATIENCE", Patience(pauses=(0.01,)))
    tries.clear()
    with pytest.raises(Unreachable):
        asked("s3://b-1/a", third_time)
    assert len(tries) == 2


def test_a_refusal_is_not_asked_for_again() -> None:
    tries: list[int] = []

    def ask() -> None:
        tries.append(1)
        raise exceptions.PermissionDeniedError("403")

    with pytest.raises(PermissionError):
        asked("s3://b-1/a", ask)
    assert len(tries) == 1


def test_a_connection_that_the_variables_do_not_make_names_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(OutputError, match="set AZURE_STORAGE_ACCOUNT_NAME, AZURE_STORAGE_ACCOUNT_KEY"):
        connected(BucketPlace("az", "container", "a"))


def test_a_key_with_a_line_break_fails_the_question_and_not_the_process(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "KEY\nID")
    store = connected(BucketPlace("s3", bucket, ""))
    with pytest.raises(OSError, match="s3://b-1/a") as raised:
        asked_once("s3://b-1/a", lambda: obstore.head(store, "a"))
    assert not isinstance(raised.value, Unreachable)
