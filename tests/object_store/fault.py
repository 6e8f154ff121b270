"""What the way to an object store does to requests: which, how many of them, and how."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


class Kind(StrEnum):
    """What a request asks an S3 for."""

    PUT = "put"
    COPY = "copy"
    CREATE_UPLOAD = "create_upload"
    UPLOAD_PART = "upload_part"
    COPY_PART = "copy_part"
    COMPLETE_UPLOAD = "complete_upload"
    ABORT_UPLOAD = "abort_upload"
    GET = "get"
    HEAD = "head"
    LIST = "list"
    DELETE = "delete"
    BUCKET = "bucket"


WRITES = frozenset(
    {Kind.PUT, Kind.COPY, Kind.CREATE_UPLOAD, Kind.UPLOAD_PART, Kind.COPY_PART, Kind.COMPLETE_UPLOAD}
)
READS = frozenset({Kind.GET, Kind.HEAD, Kind.LIST})
OBJECTS = frozenset(Kind) - {Kind.BUCKET}


def kind_of(method: str, target: str, *, copies: bool) -> tuple[Kind, str]:
    """The kind and the key ("" of the bucket itself) of a path-style request; `copies`: it names a source."""
    parts = urlsplit(target)
    query = parse_qs(parts.query, keep_blank_values=True)
    key = unquote(parts.path).lstrip("/").partition("/")[2]
    if method == "POST":
        if "delete" in query:
            return Kind.DELETE, key
        return (Kind.CREATE_UPLOAD if "uploads" in query else Kind.COMPLETE_UPLOAD), key
    if method == "GET" and (not key or "uploadId" in query):
        return Kind.LIST, key
    if not key:
        return Kind.BUCKET, key
    if method == "PUT":
        if "uploadId" in query:
            return (Kind.COPY_PART if copies else Kind.UPLOAD_PART), key
        return (Kind.COPY if copies else Kind.PUT), key
    if method == "DELETE":
        return (Kind.ABORT_UPLOAD if "uploadId" in query else Kind.DELETE), key
    return (Kind.HEAD if method == "HEAD" else Kind.GET), key


class Action(StrEnum):
    """What is done to a request."""

    ANSWER = "answer"
    """The way answers with `status`; the server hears nothing of it."""
    ERROR_IN_200 = "error_in_200"
    """The way answers 200 and an error in the body, as S3 may for copies and for the end of an upload."""
    CUT_BEFORE = "cut_before"
    """The connection ends; the server hears nothing."""
    CUT_REQUEST = "cut_request"
    """The connection ends, on both sides, after half of the request's body."""
    CUT_RESPONSE = "cut_response"
    """The connection ends after half of the response's body."""
    LOSE_ANSWER = "lose_answer"
    """The server answers, and the connection ends before a byte of the answer."""
    TRICKLE = "trickle"
    """The request's body, or the response's when it has none, takes its time: `rate` bytes a second, of all
    such requests together when the rate is `shared`."""
    HANG = "hang"
    """Nothing is read and nothing is answered for `seconds`; then the connection ends."""
    DELAY = "delay"
    """The request reaches the server `seconds` later, whether or not the client still waits for it."""


STATUSES = {
    403: ("Forbidden", "ExpiredToken", "The provided token has expired."),
    404: ("Not Found", "NoSuchUpload", "The specified multipart upload does not exist."),
    412: ("Precondition Failed", "PreconditionFailed", "At least one of the preconditions did not hold."),
    429: ("Too Many Requests", "TooManyRequests", "Please reduce your request rate."),
    500: ("Internal Server Error", "InternalError", "We encountered an internal error. Please try again."),
    503: ("Slow Down", "SlowDown", "Please reduce your request rate."),
}
"""What `Action.ANSWER` can say: the reason, and the code and message of the body, as S3 has them."""


@dataclass(frozen=True, slots=True)
class Fault:
    """An order to the way: what to do with which requests.

    `keys` is a regular expression that is searched in the key. Of the requests that match, the first `skip`
    pass; of the others each is taken with the chance `share`, until `count` have been, or `lasts` seconds are
    over.
    A connection ends with a reset, or, unless `resets`, in good order: clients take the two differently.
    """

    action: Action
    kinds: frozenset[Kind] = OBJECTS
    keys: str = ""
    skip: int = 0
    count: int | None = None
    share: float = 1.0
    lasts: float | None = None
    status: int = 503
    seconds: float = 1.0
    rate: int = 65536
    shared: bool = False
    resets: bool = True

    def __post_init__(self) -> None:
        if self.action is Action.ANSWER and self.status not in STATUSES:
            raise ValueError(f"status {self.status}: one of {', '.join(map(str, STATUSES))}")

    def to_mapping(self) -> dict[str, Any]:
        """What JSON holds."""
        return asdict(self) | {"kinds": sorted(self.kinds)}

    @classmethod
    def from_mapping(cls, mapping: dict[str, Any]) -> Fault:
        """What `to_mapping` gave."""
        kinds = frozenset(map(Kind, mapping["kinds"]))
        return cls(**{**mapping, "action": Action(mapping["action"]), "kinds": kinds})


class FaultBook:
    """The orders in force, the earliest first."""

    def __init__(self, seed: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self._random = random.Random(seed)
        self._clock = clock
        self._orders: dict[int, _Order] = {}
        self._last = 0

    def order(self, fault: Fault) -> int:
        """The number of an order that is in force from now on."""
        self._last += 1
        ends = None if fault.lasts is None else self._clock() + fault.lasts
        self._orders[self._last] = _Order(fault, ends, fault.skip)
        return self._last

    def withdraw(self) -> None:
        """Ends all orders."""
        self._orders.clear()

    def taken(self, number: int) -> int:
        """How many requests an order has taken since it was given; 0 of one that is withdrawn."""
        return order.taken if (order := self._orders.get(number)) is not None else 0

    def take(self, kind: Kind, key: str) -> Fault | None:
        """What is to be done with a request: by the first order that takes it."""
        now = self._clock()
        for order in self._orders.values():
            fault = order.fault
            if kind not in fault.kinds or re.search(fault.keys, key) is None:
                continue
            if (order.ends is not None and now > order.ends) or order.taken == fault.count:
                continue
            if order.skip > 0:
                order.skip -= 1
                continue
            if fault.share >= 1 or self._random.random() < fault.share:
                order.taken += 1
                return fault
        return None


@dataclass(slots=True)
class _Order:
    fault: Fault
    ends: float | None
    skip: int
    taken: int = 0
