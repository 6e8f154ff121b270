"""Which requests an order takes."""

from __future__ import annotations

import json

import pytest

from tests.object_store.fault import Action, Fault, FaultBook, Kind, kind_of

PUTS = frozenset({Kind.PUT})


@pytest.mark.parametrize(
    ("method", "target", "copies", "kind", "key"),
    [
        ("PUT", "/bucket/a/b%20c", False, Kind.PUT, "a/b c"),
        ("PUT", "/bucket/a", True, Kind.COPY, "a"),
        ("PUT", "/bucket/a?partNumber=1&uploadId=x", False, Kind.UPLOAD_PART, "a"),
        ("PUT", "/bucket/a?partNumber=1&uploadId=x", True, Kind.COPY_PART, "a"),
        ("POST", "/bucket/a?uploads=", False, Kind.CREATE_UPLOAD, "a"),
        ("POST", "/bucket/a?uploads", False, Kind.CREATE_UPLOAD, "a"),
        ("POST", "/bucket/a?uploadId=x", False, Kind.COMPLETE_UPLOAD, "a"),
        ("DELETE", "/bucket/a?uploadId=x", False, Kind.ABORT_UPLOAD, "a"),
        ("DELETE", "/bucket/a", False, Kind.DELETE, "a"),
        ("POST", "/bucket?delete", False, Kind.DELETE, ""),
        ("GET", "/bucket/a", False, Kind.GET, "a"),
        ("HEAD", "/bucket/a", False, Kind.HEAD, "a"),
        ("GET", "/bucket?list-type=2&prefix=a%2F", False, Kind.LIST, ""),
        ("GET", "/bucket/a?uploadId=x", False, Kind.LIST, "a"),
        ("PUT", "/bucket", False, Kind.BUCKET, ""),
        ("HEAD", "/bucket/", False, Kind.BUCKET, ""),
    ],
)
def test_a_request_is_known_by_its_method_its_path_and_its_query(
    method: str, target: str, copies: bool, kind: Kind, key: str
) -> None:
    assert kind_of(method, target, copies=copies) == (kind, key)


def test_an_order_lets_some_pass_and_then_takes_as_many_as_it_says() -> None:
    book = FaultBook()
    fault = Fault(Action.CUT_BEFORE, PUTS, skip=2, count=3)
    number = book.order(fault)
    taken = [book.take(Kind.PUT, "a") for _ in range(7)]
    assert taken == [None, None, fault, fault, fault, None, None]
    assert book.taken(number) == 3


def test_an_order_takes_its_kinds_and_keys_only() -> None:
    book = FaultBook()
    number = book.order(Fault(Action.CUT_BEFORE, PUTS, keys=r"\.tar$", skip=1))
    assert [book.take(Kind.GET, "a.tar"), book.take(Kind.PUT, "a.tar.part"), book.taken(number)] == [
        None,
        None,
        0,
    ]
    assert book.take(Kind.PUT, "a.tar") is None, "the first of its own passes"
    assert book.take(Kind.PUT, "b/a.tar") is not None


def test_an_order_ends_with_its_time() -> None:
    now = [100.0]
    book = FaultBook(clock=lambda: now[0])
    book.order(Fault(Action.ANSWER, status=403, lasts=5))
    now[0] = 104
    assert book.take(Kind.LIST, "") is not None
    now[0] = 106
    assert book.take(Kind.LIST, "") is None


def test_a_share_of_requests_is_the_same_with_the_same_seed() -> None:
    def drawn(seed: int) -> list[bool]:
        book = FaultBook(seed)
        book.order(Fault(Action.ANSWER, share=0.25))
        return [book.take(Kind.PUT, "a") is not None for _ in range(1000)]

    assert drawn(1) == drawn(1) != drawn(2)
    assert 200 < sum(drawn(1)) < 300


def test_the_earliest_order_that_takes_a_request_decides_and_a_withdrawn_one_takes_none() -> None:
    book = FaultBook()
    first = Fault(Action.LOSE_ANSWER, PUTS, count=1)
    book.order(first)
    second = Fault(Action.ANSWER, PUTS, status=412, count=1)
    book.order(second)
    book.order(Fault(Action.HANG))
    assert [book.take(Kind.PUT, "a"), book.take(Kind.PUT, "a")] == [first, second]
    book.withdraw()
    assert book.take(Kind.PUT, "a") is None


def test_a_fault_is_the_same_after_its_way_through_json() -> None:
    fault = Fault(
        Action.TRICKLE, frozenset({Kind.GET, Kind.UPLOAD_PART}), keys="a", share=0.5, rate=10, resets=False
    )
    assert Fault.from_mapping(json.loads(json.dumps(fault.to_mapping()))) == fault


def test_an_answer_that_no_store_gives_is_refused() -> None:
    with pytest.raises(ValueError, match="status 418: one of 403, 404, 412, 429, 500, 503"):
        Fault(Action.ANSWER, status=418)
