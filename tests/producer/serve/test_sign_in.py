"""Signing in: a form, or an address that holds the token and loses it at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from starlette.testclient import TestClient

from tests.visitor import HTML, TOKEN

Visit = Callable[..., TestClient]


def test_an_address_with_the_token_signs_in_and_loses_it(visit: Visit) -> None:
    visitor = visit(TOKEN)
    first = visitor.get(f"/jobs/cats-1?token={TOKEN}&part=live", headers=HTML)
    assert first.status_code == 303
    second = visitor.get(first.headers["location"], headers=HTML)
    assert (second.status_code, second.headers["location"]) == (303, "/jobs/cats-1?part=live")
    cookie = second.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=lax" in cookie
    assert TOKEN not in cookie
    assert visitor.get("/").status_code == 200
    # Who is signed in loses it from the address as well.
    again = visitor.get(f"/?token={TOKEN}", headers=HTML)
    assert visitor.get(again.headers["location"]).headers["location"] == "/"


def test_the_form_signs_in_and_leads_to_what_was_asked_for(visit: Visit) -> None:
    visitor = visit(TOKEN)
    form = visitor.get(visitor.get("/jobs/a%20b?x=1%262", headers=HTML).headers["location"])
    assert '<input name="next" type="hidden" value="/jobs/a%20b?x=1%262">' in form.text
    done = visitor.post("/sign-in", data={"token": TOKEN, "next": "/jobs/a%20b?x=1%262"})
    assert (done.status_code, done.headers["location"]) == (303, "/jobs/a%20b?x=1%262")
    assert visitor.get("/").status_code == 200


@pytest.mark.parametrize("wrong", ["x", TOKEN[:-1], TOKEN + "x", "ü" * 32, "\0"])
def test_a_wrong_token_gets_no_cookie(wrong: str, visit: Visit, monkeypatch: pytest.MonkeyPatch) -> None:
    visitor = visit(TOKEN)
    answer = visitor.post("/sign-in", data={"token": wrong})
    assert (answer.status_code, "set-cookie" in answer.headers) == (403, False)
    assert "not the token" in answer.text
    assert visitor.get("/").status_code == 401


def test_a_wrong_token_in_the_form_costs_half_a_second(visit: Visit, monkeypatch: pytest.MonkeyPatch) -> None:
    sleep, waited = asyncio.sleep, list[float]()

    async def counted(seconds: float) -> None:
        waited.append(seconds)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", counted)
    assert visit(TOKEN).post("/sign-in", data={"token": TOKEN}).status_code == 303
    assert waited == []
    assert visit(TOKEN).post("/sign-in", data={"token": "x"}).status_code == 403
    assert waited == [0.5]


@pytest.mark.parametrize("pasted", [TOKEN + " ", f"\n{TOKEN}\r\n", f"\t {TOKEN}"])
def test_a_token_that_was_pasted_with_space_around_it_is_the_token(pasted: str, visit: Visit) -> None:
    visitor = visit(TOKEN)
    assert visitor.post("/sign-in", data={"token": pasted}).status_code == 303
    assert visitor.get("/").status_code == 200


def test_a_form_of_any_length_costs_no_memory(visit: Visit) -> None:
    answer = visit(TOKEN).post("/sign-in", content=b"token=" + b"x" * 100_000)
    assert answer.status_code == 200
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    "there",
    [
        "//strangers.example",
        "/\\strangers.example",
        "https://strangers.example",
        "",
        "jobs",
        "/a\nb",
        "/sign-in",
    ],
)
def test_signing_in_leads_nowhere_else(there: str, visit: Visit) -> None:
    done = visit(TOKEN).post("/sign-in", data={"token": TOKEN, "next": there})
    assert (done.status_code, done.headers["location"]) == (303, "/")


def test_a_token_of_another_server_does_not_sign_in(visit: Visit) -> None:
    first, second = visit(TOKEN), visit(TOKEN[::-1])
    first.post("/sign-in", data={"token": TOKEN})
    second.cookies = first.cookies
    assert second.get("/").status_code == 401
