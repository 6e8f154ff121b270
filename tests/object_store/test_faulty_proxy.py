"""What goes wrong on the way to the store, as a client sees it."""

from __future__ import annotations

import socket
import time

import obstore
import pytest
from obstore.exceptions import AlreadyExistsError, BaseError, GenericError, PermissionDeniedError

from tests.object_store.breakable_store import REGION, BreakableStore
from tests.object_store.clients import ASKED, LARGE, RETRIES, SMALL, client, content, keys
from tests.object_store.fault import Action, Fault, Kind
from tests.waiting import LONGEST, WaitUntil

GETS, PUTS = frozenset({Kind.GET}), frozenset({Kind.PUT})
COMPLETES, PARTS = frozenset({Kind.COMPLETE_UPLOAD}), frozenset({Kind.UPLOAD_PART})
ENDS = [True, False]
CUTS = [Action.CUT_BEFORE, Action.CUT_REQUEST, Action.CUT_RESPONSE, Action.LOSE_ANSWER]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_an_error_of_the_store_is_seen_and_is_survived_with_retries(
    object_store: BreakableStore, bucket: str, status: int
) -> None:
    once, again = client(bucket), client(bucket, retries=RETRIES)
    for kind, call in ASKED.items():
        obstore.put(once, "small", SMALL)
        number = object_store.order(Fault(Action.ANSWER, frozenset({kind}), status=status, count=2))
        with pytest.raises(GenericError, match=rf"status code: {status} "):
            call(once)
        call(again)
        assert object_store.taken(number) == 2
        obstore.delete(once, "once")


@pytest.mark.parametrize("action", CUTS)
@pytest.mark.parametrize("resets", ENDS)
def test_a_connection_that_is_cut_is_seen(
    object_store: BreakableStore, bucket: str, action: Action, resets: bool
) -> None:
    once = client(bucket)
    obstore.put(once, "small", SMALL)
    for kind, call in ASKED.items():
        number = object_store.order(Fault(action, frozenset({kind}), count=1, resets=resets))
        with pytest.raises(GenericError, match=r"error sending request|request or response body error"):
            call(once)
        assert object_store.taken(number) == 1
        obstore.delete(once, "once")


@pytest.mark.parametrize("action", [Action.CUT_BEFORE, Action.CUT_REQUEST, Action.LOSE_ANSWER])
@pytest.mark.parametrize("resets", ENDS)
def test_a_connection_that_is_cut_is_survived_with_retries(
    object_store: BreakableStore, bucket: str, action: Action, resets: bool
) -> None:
    again = client(bucket, retries=RETRIES)
    obstore.put(again, "small", SMALL)
    for kind in ASKED.keys() - {Kind.DELETE}:  # which obstore does not try again after a reset
        number = object_store.order(Fault(action, frozenset({kind}), count=1, resets=resets))
        ASKED[kind](again)
        assert object_store.taken(number) == 1
        obstore.delete(again, "once")


@pytest.mark.parametrize("resets", ENDS)
def test_of_a_body_that_is_cut_on_its_way_nothing_is_stored(
    object_store: BreakableStore, bucket: str, resets: bool
) -> None:
    store = client(bucket)
    object_store.order(Fault(Action.CUT_REQUEST, PUTS | PARTS, resets=resets))
    for body in (SMALL, LARGE):
        with pytest.raises(GenericError):
            obstore.put(store, "a", body)
    object_store.withdraw()
    assert keys(store) == []


def test_a_body_that_is_cut_on_its_way_back_is_read_on_with_retries(
    object_store: BreakableStore, bucket: str
) -> None:
    obstore.put(client(bucket), "a", LARGE)
    object_store.forget()
    object_store.order(Fault(Action.CUT_RESPONSE, GETS, count=1, resets=False))
    assert content(client(bucket, retries=RETRIES), "a") == LARGE
    read = object_store.traffic(Kind.GET)
    assert (read.requests, read.sent) == (2, len(LARGE)), "the second request asks for the other half"


def test_a_put_whose_answer_is_lost_has_happened(object_store: BreakableStore, bucket: str) -> None:
    object_store.order(Fault(Action.LOSE_ANSWER, PUTS, count=2))
    with pytest.raises(GenericError):
        obstore.put(client(bucket), "a", b"1", mode="create")
    with pytest.raises(GenericError):  # such a put is not tried again after a reset
        obstore.put(client(bucket, retries=RETRIES), "b", b"2", mode="create")
    assert keys(client(bucket)) == ["a", "b"]


def test_a_retried_conditional_put_finds_its_own_object(object_store: BreakableStore, bucket: str) -> None:
    object_store.order(Fault(Action.LOSE_ANSWER, PUTS, count=1, resets=False))
    with pytest.raises(AlreadyExistsError):
        obstore.put(client(bucket, retries=RETRIES), "a", b"1", mode="create")
    assert content(client(bucket), "a") == b"1"


def test_an_upload_whose_last_answer_is_lost_is_there_though_a_missing_file_is_reported(
    object_store: BreakableStore, bucket: str
) -> None:
    object_store.order(Fault(Action.LOSE_ANSWER, COMPLETES, count=1))
    with pytest.raises(FileNotFoundError, match="DELETE"):
        obstore.put(client(bucket), "a", LARGE)
    assert content(client(bucket), "a") == LARGE


@pytest.mark.parametrize(("status", "error"), [(412, AlreadyExistsError), (404, FileNotFoundError)])
def test_a_strict_store_may_deny_a_copy_that_it_has_made(
    object_store: BreakableStore, bucket: str, status: int, error: type[Exception]
) -> None:
    obstore.put(client(bucket), "a", b"1")
    object_store.order(Fault(Action.LOSE_ANSWER, COMPLETES, count=1))
    object_store.order(Fault(Action.ANSWER, COMPLETES, status=status, count=1))
    with pytest.raises(error):
        obstore.copy(client(bucket, retries=RETRIES), "a", "b", overwrite=False)
    assert content(client(bucket), "b") == b"1"


@pytest.mark.parametrize("kind", [Kind.COPY, Kind.COMPLETE_UPLOAD])
def test_an_error_that_comes_as_a_success_is_no_success(
    object_store: BreakableStore, bucket: str, kind: Kind
) -> None:
    obstore.put(client(bucket), "small", SMALL)
    object_store.order(Fault(Action.ERROR_IN_200, frozenset({kind}), count=2))
    with pytest.raises(GenericError, match="InternalError"):
        ASKED[kind](client(bucket))
    assert keys(client(bucket)) == ["small"]
    ASKED[kind](client(bucket, retries=RETRIES))
    assert len(keys(client(bucket))) == 2


def test_credentials_that_have_expired_are_refused_until_they_are_renewed(
    object_store: BreakableStore, bucket: str, wait_until: WaitUntil
) -> None:
    store = client(bucket, retries=RETRIES)
    object_store.order(Fault(Action.ANSWER, status=403, lasts=0.5))
    with pytest.raises(PermissionDeniedError, match="ExpiredToken"):
        obstore.put(store, "a", b"1")
    assert object_store.traffic(Kind.PUT).requests == 1, "it is not tried again"

    def passes() -> bool:
        try:
            obstore.put(store, "a", b"1")
        except BaseError:
            return False
        return True

    wait_until(passes, "the credentials are good again")


def test_a_body_can_take_its_time_both_ways(object_store: BreakableStore, bucket: str) -> None:
    obstore.put(client(bucket), "a", SMALL)
    object_store.order(Fault(Action.TRICKLE, PUTS | GETS, rate=len(SMALL) * 2))
    for call in (lambda: obstore.put(client(bucket), "b", SMALL), lambda: content(client(bucket), "a")):
        began = time.monotonic()
        call()
        assert time.monotonic() - began > 0.4
    for call in (
        lambda: obstore.put(client(bucket, timeout=0.2), "c", SMALL),
        lambda: content(client(bucket, timeout=0.2), "a"),
    ):
        with pytest.raises(GenericError, match=r"kind: (Timeout|Body)"):
            call()


def test_a_store_that_hangs_is_given_up_in_time(object_store: BreakableStore, bucket: str) -> None:
    object_store.order(Fault(Action.HANG, PUTS, seconds=60, count=2))
    began = time.monotonic()
    with pytest.raises(GenericError, match="kind: Timeout"):
        obstore.put(client(bucket, timeout=0.3), "a", b"1")
    obstore.put(client(bucket, timeout=0.3, retries=RETRIES), "a", b"1")
    assert time.monotonic() - began < 30


def test_a_put_that_was_given_up_can_come_late(
    object_store: BreakableStore, bucket: str, wait_until: WaitUntil
) -> None:
    object_store.order(Fault(Action.DELAY, PUTS, seconds=1, count=1))
    with pytest.raises(GenericError, match="kind: Timeout"):
        obstore.put(client(bucket, timeout=0.2), "a", b"1")
    store = client(bucket)
    assert keys(store) == []
    wait_until(lambda: keys(store) == ["a"], "the put comes")


def test_a_way_that_refuses_opens_again_at_the_same_port(
    object_store: BreakableStore, bucket: str, wait_until: WaitUntil
) -> None:
    store = client(bucket)
    obstore.put(store, "a", b"1")
    object_store.refuse(60)
    with pytest.raises(GenericError, match="kind: Connect"):
        obstore.put(store, "b", b"2")
    object_store.withdraw()
    obstore.put(store, "b", b"2")
    object_store.refuse(0.3)

    def answers() -> bool:
        try:
            return keys(store) == ["a", "b"]
        except GenericError:
            return False

    assert not answers()
    wait_until(answers, "the way opens by itself")


def test_a_longer_refusal_outlasts_a_shorter_one(object_store: BreakableStore, bucket: str) -> None:
    object_store.refuse(0.1)
    object_store.refuse(60)
    time.sleep(0.3)
    with pytest.raises(GenericError, match="kind: Connect"):
        keys(client(bucket))


def test_a_client_that_asks_before_it_sends_a_body_is_told_to_go_on(
    object_store: BreakableStore, bucket: str
) -> None:
    signed = f"AWS4-HMAC-SHA256 Credential={object_store.key_id}/20300101/{REGION}/s3/aws4_request"
    host, port = object_store.endpoint.removeprefix("http://").split(":")
    with (
        socket.create_connection((host, int(port)), LONGEST) as connection,
        connection.makefile("rb") as answers,
    ):
        connection.sendall(
            f"PUT /{bucket}/a HTTP/1.1\r\nHost: {host}\r\nAuthorization: {signed}\r\n"
            "Expect: 100-continue\r\nContent-Length: 3\r\n\r\n".encode()
        )
        assert answers.readline() == b"HTTP/1.1 100 Continue\r\n"
        assert answers.readline() == b"\r\n"
        connection.sendall(b"abc")
        assert answers.readline() == b"HTTP/1.1 200 OK\r\n"
    assert content(client(bucket), "a") == b"abc"


def test_a_share_of_faults_is_survived_by_a_client_that_tries_again(
    object_store: BreakableStore, bucket: str
) -> None:
    number = object_store.order(Fault(Action.ANSWER, PUTS, share=0.3))
    store = client(bucket, retries=10)
    for name in range(40):
        obstore.put(store, f"{name:02}", b"%d" % name)
    assert [content(store, key) for key in keys(store)] == [b"%d" % name for name in range(40)]
    assert object_store.taken(number) > 0
