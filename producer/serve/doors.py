"""Who is let in, and what a browser may do with what it gets: a layer around all pages.

Without a token only this machine is served, and only by its own names: a page of strangers whose name is made
to lead here (DNS rebinding) is refused. With a token, who gives it is let in, as `Authorization: Bearer`
or by the cookie that signing in sets.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from typing import Final
from urllib.parse import parse_qs, quote, urlsplit, urlunsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SIGN_IN: Final = "/sign-in"
HEALTH: Final = "/healthz"
READY: Final = "/health"
_STATIC: Final = "/static/"
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "font-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)
_HEADERS: Final = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""What each answer says, unless its page says otherwise."""


class Doors:
    """Who is let in."""

    def __init__(self, token: str | None = None) -> None:
        """`token`: what visitors must know; None lets everyone in who comes by a name of this machine."""
        self._token = None if token is None else token.encode()

    @property
    def guarded(self) -> bool:
        """Whether visitors must know a token."""
        return self._token is not None

    @property
    def cookie(self) -> str:
        """The name of the cookie. Cookies know no ports: servers of other tokens have other names."""
        return f"imagemill-{self._digest('name')[:8]}"

    @property
    def pass_word(self) -> str:
        """What the cookie of a visitor says who is let in."""
        return self._digest("pass")

    def knows(self, given: str) -> bool:
        """Whether a visitor gave the token; wrong ones of its length all take the same time."""
        return self._token is None or hmac.compare_digest(given.encode("utf-8", "replace"), self._token)

    def lets_in(self, headers: Headers) -> bool:
        """Whether a request comes from someone who is let in."""
        if self._token is None:
            return True
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and self.knows(given.strip()):
            return True
        # The parser of http.cookies loses all cookies by an odd one, and other servers of this host set some.
        found = cookie_parser(headers.get("cookie", "")).get(self.cookie, "")
        return hmac.compare_digest(found.encode("utf-8", "replace"), self.pass_word.encode())

    def takes_host(self, headers: Headers) -> bool:
        """Whether the name that a browser came by is one of this machine. With a token, any name is."""
        return self._token is not None or _is_loopback(headers.get("host", ""))

    def _digest(self, use: str) -> str:
        return hmac.new(self._token or b"", use.encode(), hashlib.sha256).hexdigest()


def _is_loopback(host: str) -> bool:
    name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
    name = name.removeprefix("[").removesuffix("]").rstrip(".").lower()
    try:
        return name == "localhost" or name.endswith(".localhost") or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _here(address: str) -> str:
    """An address of this server without its name, which a proxy in front may call otherwise."""
    _, _, path, query, fragment = urlsplit(address)
    return urlunsplit(("", "", f"/{path.lstrip('/')}", query, fragment))


class Guarded:
    """An application behind its doors."""

    def __init__(self, app: ASGIApp, doors: Doors) -> None:
        self._app, self._doors = app, doors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers what is let in, with the headers that keep a browser from doing more."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                if "location" in headers:
                    headers["location"] = _here(headers["location"])
            await send(message)

        refused = self._refusal(scope)
        await (self._app if refused is None else refused)(scope, receive, send_guarded)

    def _refusal(self, scope: Scope) -> Response | None:
        path, headers = scope["path"], Headers(scope=scope)
        if path in (HEALTH, READY):
            return None
        if not self._doors.takes_host(headers):
            return PlainTextResponse(
                f"this server is not called {headers.get('host', '')!r}: come by 127.0.0.1 or localhost "
                "(from another machine through ssh -L), or start it with --token-file\n",
                421,
            )
        query = scope["query_string"].decode("latin-1")
        # A token in the address goes through the door, which takes it out of there.
        tells = self._doors.guarded and "token" in parse_qs(query)
        # What is open says nothing of jobs.
        if path == SIGN_IN or path.startswith(_STATIC) or (self._doors.lets_in(headers) and not tells):
            return None
        asks_for_page = "text/html" in headers.get("accept", "") and "hx-request" not in headers
        if scope["method"] == "GET" and asks_for_page:
            there = quote(scope["path"], safe="/") + (f"?{query}" if query else "")
            return RedirectResponse(f"{SIGN_IN}?next={quote(there, safe='')}", 303)
        return PlainTextResponse(
            "sign in first, or give the token: Authorization: Bearer TOKEN\n",
            401,
            {"WWW-Authenticate": 'Bearer realm="imagemill"'},
        )
