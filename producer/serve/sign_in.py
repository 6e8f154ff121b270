"""Signing in: who gives the token gets a cookie, and the token leaves the address at once."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs, urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from producer.serve.doors import SIGN_IN
from producer.serve.site import Site

_LONGEST: Final = 4096
"""Bytes of a form."""
_PAUSE: Final = 0.5
"""Seconds that a wrong token costs in the form. One in a header costs nothing: none can be guessed."""


@dataclass(frozen=True, slots=True)
class _Form:
    """The form for the token."""

    wrong: bool
    """Whether another token was given."""
    next: str
    """The page that was asked for."""


def routes(site: Site) -> list[Route]:
    """The form, and what it sends."""

    async def sign_in(request: Request) -> Response:
        if request.method == "POST":
            given = await _given(request)
            token, there = given.get("token", ""), _local(given.get("next", "/"))
        else:
            token, there = "", _local(request.query_params.get("next", "/"))
            # The whole of /?token=… was asked for: take it out of the address.
            path, _, query = there.partition("?")
            asked = parse_qs(query)
            if "token" in asked:
                token = asked.pop("token")[-1]
                there = path + (f"?{urlencode(asked, doseq=True)}" if asked else "")
        token = token.strip()  # as it is of a file and of a header: people paste it with a space or a newline
        if token and site.doors.knows(token):
            answer = RedirectResponse(there, 303)
            answer.set_cookie(
                site.doors.cookie,
                site.doors.pass_word,
                max_age=30 * 24 * 3600,
                httponly=True,
                samesite="lax",
                secure=request.url.scheme == "https",
            )
            return answer
        if token:
            await asyncio.sleep(_PAUSE)
        form = _Form(wrong=bool(token), next=there)
        return site.pages.answer(request, "sign_in.html", form, status=403 if token else 200)

    return [Route(SIGN_IN, sign_in, methods=["GET", "POST"])]


async def _given(request: Request) -> dict[str, str]:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _LONGEST:
            return {}
    return {name: values[-1] for name, values in parse_qs(body.decode("utf-8", "replace")).items()}


def _local(there: str) -> str:
    """A path of this server; / for anything that leads elsewhere."""
    local = there.startswith("/") and not there.startswith(("//", "/\\")) and there.isprintable()
    return there if local and not there.startswith(SIGN_IN) else "/"
