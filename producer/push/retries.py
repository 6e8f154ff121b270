"""Calls of the hub that wait and try again where that can help, and what its errors mean for a person.

No message shows more of an error than the hub's own sentence: URLs may carry signatures, and nothing that was
sent is repeated.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from jobs.errors import HubError
from jobs.model_files.hub import of_the_hub
from jobs.wording import on_one_line, shortened
from producer.reporter import Reporter

_PASSING: Final = frozenset({408, 409, 412, 429, 500, 502, 503, 504})
_LONGEST: Final = 600.0
"""Seconds that the hub may ask to wait."""
_RESET: Final = re.compile(r"\bt=(\d+)")
_STATUS: Final = re.compile(r"HTTP status \w+ error \((\d{3})\b")
"""How hf_xet tells of one: its errors are of Python's own kinds."""
_URL: Final = re.compile(r"\w+://\S+")
AGAIN: Final = "the same command goes on where this one ended"
_Returned = TypeVar("_Returned")


@dataclass(frozen=True, slots=True)
class Retries:
    """How long to go on where the hub is away, refuses for the moment, or limits requests."""

    waits: tuple[float, ...] = (2, 4, 8, 16, 32)
    """Seconds before each further try. A longer one that the hub asks for counts instead."""


RETRIES: Final = Retries()


def retried(
    call: Callable[[], _Returned],
    repository: str,
    retries: Retries,
    reporter: Reporter,
    let_through: tuple[type[Exception], ...] = (),
) -> _Returned:
    """What `call` returns, tried again while the hub may still do it. Raises HubError, and errors of the
    kinds `let_through` as they are."""
    waits = iter(retries.waits)
    while True:
        try:
            return call()
        except Exception as error:
            if isinstance(error, let_through) or not _is_hubs(error):
                raise
            wait = next(waits, None)
            if wait is None or not _passes(error):
                raise hub_error(error, repository) from None
            seconds = max(wait, _asked_for(error))
            reporter.line(f"{repository}: {_said(error)}: trying again in {seconds:.0f} s")
            time.sleep(seconds)


def status_of(error: BaseException) -> int | None:
    """The HTTP status that an error, or what caused it, is about."""
    for one in _causes(error):
        status = getattr(getattr(one, "response", None), "status_code", None)
        if isinstance(status, int):
            return status
        if told := _STATUS.search(str(one)):
            return int(told[1])
    return None


def hub_error(error: BaseException, repository: str) -> HubError:
    """The error for a person: what the hub said, and what to do."""
    remedy = _remedy(error, status_of(error))
    if any("/xet-" in str(one) for one in _causes(error)):
        remedy += " (HF_HUB_DISABLE_XET=1 uploads without Xet)"
    return HubError(f"{repository}: {_said(error)}: {remedy}")


def _is_hubs(error: BaseException) -> bool:
    """Whether an error is of asking the hub; an error of reading a file here is not."""
    for one in _causes(error):
        if status_of(one) is None and isinstance(one, OSError) and one.filename is not None:
            return False
    return isinstance(error, (ValueError, RuntimeError)) or any(
        isinstance(one, Exception) and of_the_hub(one) for one in _causes(error)
    )


def _passes(error: BaseException) -> bool:
    status = status_of(error)
    if status is not None:
        return status in _PASSING
    # Without an answer: a cut connection, or one that nobody takes; or half an answer, which is no JSON.
    return any(
        isinstance(one, (ConnectionError, TimeoutError, json.JSONDecodeError)) or _is_transport(one)
        for one in _causes(error)
    ) and not any(type(one).__name__ == "OfflineModeIsEnabled" for one in _causes(error))


def _is_transport(error: BaseException) -> bool:
    return any(kind.__name__ == "TransportError" for kind in type(error).__mro__)


def _asked_for(error: BaseException) -> float:
    """The seconds that the hub asks to wait; 0 where it does not."""
    for one in _causes(error):
        headers: Any = getattr(getattr(one, "response", None), "headers", None)
        if headers is None:
            continue
        after = headers.get("Retry-After") or ""
        reset = _RESET.search(headers.get("RateLimit") or "") if status_of(one) == 429 else None
        asked = int(after) if after.isascii() and after.isdigit() else int(reset[1]) if reset else 0
        return min(float(asked), _LONGEST)
    return 0.0


def _said(error: BaseException) -> str:
    """The hub's own sentence, or the system's, on one line and without addresses."""
    status = status_of(error)
    for one in _causes(error):
        said = getattr(one, "server_message", None)
        if isinstance(said, str) and said.strip():
            return f"the hub answers {status}: {_plain(said)}"
    if status is not None:
        return f"the hub answers {status}"
    deepest = list(_causes(error))[-1]
    if isinstance(deepest, json.JSONDecodeError):
        return "the hub's answer is no JSON"
    lines = [line for line in str(deepest).splitlines() if line.strip()]
    told = _plain(lines[-1] if lines else type(deepest).__name__)
    return told if isinstance(deepest, ValueError) else f"the hub cannot be reached ({told})"


def _plain(text: str) -> str:
    return shortened(on_one_line(_URL.sub("…", text.strip())).rstrip(".: "), 200)


def _remedy(error: BaseException, status: int | None) -> str:
    said = _said(error).lower()
    if any(word in said for word in ("storage", "quota")) and any(
        word in said for word in ("limit", "exceed", "quota", "full")
    ):
        return f"free some of the account's storage, get more, or use --public; then {AGAIN}"
    if status == 401:
        return "the hub does not take the token: log in again (`hf auth login`), or set HF_TOKEN"
    if status in {402, 403}:
        return (
            "the token may not write there: take one with write access to it "
            "(https://huggingface.co/settings/tokens), or another name"
        )
    if status == 404:
        return "check the name; a private repository is found only with a token that may read it"
    if status == 413:
        return (
            f"push a copy with smaller files (`imagemill export OUT NEW --shard-size N`), or later: {AGAIN}"
        )
    if status == 429:
        return f"too many requests: wait an hour; then {AGAIN}"
    if status is not None and status < 500 and status not in _PASSING:
        return "correct what it names, or push to another repository"
    return f"wait, or look at the network and at HF_ENDPOINT and HF_HUB_OFFLINE; then {AGAIN}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    one: BaseException | None = error
    while one is not None:
        yield one
        one = one.__cause__
