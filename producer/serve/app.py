"""The application: all routes, behind the doors."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from producer.serve import figures, job_pages, sign_in
from producer.serve.doors import HEALTH, Guarded
from producer.serve.gallery import gallery_pages
from producer.serve.site import Site


@dataclass(frozen=True, slots=True)
class _Wrong:
    """Why there is no such page."""

    status: int
    said: str


def create_app(site: Site) -> ASGIApp:
    """The pages of a site as an ASGI application."""

    async def healthy(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def wrong(request: Request, error: Exception) -> Response:
        if not isinstance(error, HTTPException):
            error = HTTPException(500, "this page failed: the server's log says why")
        status, headers, said = error.status_code, dict(error.headers or {}), error.detail
        if status == 405:
            taken = sorted(headers.get("Allow", "GET, HEAD").split(", "))
            headers["Allow"] = ", ".join(taken)
            said = f"this address takes {' and '.join(taken)} only"
        elif said == HTTPStatus(status).phrase:  # the framework's
            said = "there is no such page" if status == 404 else said
        answer = site.pages.answer(request, "wrong.html", _Wrong(status, said), status=status)
        answer.headers.update(headers)
        return answer

    app = Starlette(
        routes=[
            *job_pages.routes(site),
            *gallery_pages.routes(site),
            *sign_in.routes(site),
            *figures.routes(site.watch),
            Route(HEALTH, healthy),
            Mount("/static", _Static(packages=[("producer.serve", "static")])),
        ],
        exception_handlers={HTTPException: wrong, 500: wrong},
    )
    # Around all of it: the page of a failure has the same headers.
    return Guarded(app, site.doors)


class _Static(StaticFiles):
    """Files that a browser keeps, and asks for again."""

    def file_response(self, *arguments: object, **options: object) -> Response:
        response = super().file_response(*arguments, **options)  # type: ignore[arg-type]
        response.headers["Cache-Control"] = "no-cache"
        return response
