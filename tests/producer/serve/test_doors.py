"""Who is let in, and what a browser may do with what it gets."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from starlette.testclient import TestClient

from tests.visitor import HTML, TOKEN

Visit = Callable[..., TestClient]
EVERYTHING = ["/", "/?part=live", "/jobs/cats-1", "/static/imagemill.css", "/sign-in", "/healthz", "/nothing"]


@pytest.mark.parametrize("path", EVERYTHING)
def test_every_answer_keeps_a_browser_from_running_loading_or_sending_anything_else(
    path: str, visit: Visit
) -> None:
    answer = visit().get(path)
    policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert {policy[f"{kind}-src"] for kind in ("script", "style", "img", "connect", "font")} == {"'self'"}
    assert (policy["frame-ancestors"], policy["base-uri"], policy["form-action"]) == (
        "'none'", "'none'", "'self'"
    )  # fmt: skip
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert "server" not in answer.headers


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:9",
        "127.0.0.1:8484",
        "[::1]:8484",
        "[::1]",
        "LOCALHOST.",
        "127.3.2.1",
        "a.localhost",
    ],
)
def test_without_a_token_the_names_of_this_machine_are_served(host: str, visit: Visit) -> None:
    assert visit().get("/", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["strangers.example", "localhost.strangers.example:8484", "10.0.0.7", "", "[", "127.0.0.1.nip.io"]
)
def test_without_a_token_another_name_that_leads_here_is_refused(host: str, visit: Visit) -> None:
    answer = visit().get("/", headers={"Host": host})
    assert answer.status_code == 421
    assert "ssh -L" in answer.text
    assert visit().get("/healthz", headers={"Host": host}).text == "ok\n"


@pytest.mark.parametrize("path", ["/", "/jobs/cats-1", "/?part=live"])
def test_with_a_token_nobody_is_let_in_who_does_not_give_it(path: str, visit: Visit) -> None:
    visitor = visit(TOKEN, base="http://farm.example:8484")
    for headers in (
        {},
        {"Authorization": "Bearer "},
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": TOKEN},
        {"Cookie": f"imagemill={TOKEN}"},
        {"HX-Request": "true", **HTML},
    ):
        answer = visitor.get(path, headers=headers)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, 'Bearer realm="imagemill"')
        assert "cats" not in answer.text
    page = visitor.get(path, headers=HTML)
    assert (page.status_code, page.headers["location"][:14]) == (303, "/sign-in?next=")


def test_a_program_gives_the_token_in_a_header(visit: Visit) -> None:
    visitor = visit(TOKEN, base="http://farm.example:8484")
    assert visitor.get("/", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert visitor.get("/", headers={"Authorization": f"bearer  {TOKEN}"}).status_code == 200


@pytest.mark.parametrize("base", ["http://127.0.0.1:8484", "https://farm.example", "https://127.0.0.1:8484"])
def test_a_redirect_names_no_server_so_that_it_stays_behind_the_proxy_that_was_asked(
    base: str, visit: Visit
) -> None:
    visitor = visit(TOKEN, base=base)
    visitor.post("/sign-in", data={"token": TOKEN})
    for path, there in (
        ("/outputs/0123/?text=a%2Fb", "/outputs/0123?text=a%2Fb"),
        ("/metrics/", "/metrics"),
        (f"/jobs/a%20b?token={TOKEN}", "/sign-in?next=%2Fjobs%2Fa%2520b%3Ftoken%3D" + TOKEN),
    ):
        answer = visitor.get(path, headers=HTML)
        assert (answer.status_code, answer.headers["location"]) in ((307, there), (303, there)), path
    for path in ("//strangers.example/", "//strangers.example/outputs/", "/\\\\strangers.example/"):
        assert "location" not in visitor.get(base + path, headers=HTML).headers, path


@pytest.mark.parametrize(
    "odd",
    [
        b"session[1]=x",
        b"a b=1",
        b"a@b=c",
        b"junk",
        b'j={"a": 1}',
        b'prefs="un"closed"',
        b"=",
        b";",
        b"name=\xfc\xff",
        b"other=%" + b"x" * 3000,
    ],
)
def test_a_cookie_of_another_server_of_this_host_keeps_nobody_out(odd: bytes, visit: Visit) -> None:
    visitor = visit(TOKEN)
    ours = visitor.post("/sign-in", data={"token": TOKEN}).headers["set-cookie"].partition(";")[0].encode()
    visitor.cookies.clear()
    for cookies in (odd + b"; " + ours, ours + b"; " + odd, odd + b"; " + ours + b"; " + odd):
        assert visitor.get("/", headers={b"Cookie": cookies}).status_code == 200, cookies
    assert visitor.get("/", headers={b"Cookie": odd}).status_code == 401
    name = ours.partition(b"=")[0]
    for wrong in (b"", b"\xfc", b"x" * 64):
        assert visitor.get("/", headers={b"Cookie": name + b"=" + wrong}).status_code == 401, wrong


def test_what_is_open_says_nothing_of_jobs(visit: Visit) -> None:
    visitor = visit(TOKEN)
    assert visitor.get("/static/imagemill.css").status_code == 200
    assert visitor.get("/healthz").text == "ok\n"
    for path in ("/static/../jobs/cats-1", "/static/%2e%2e/app.py", "/static//etc/passwd", "/sign-in/../"):
        assert visitor.get(path, headers={"Accept": "*/*"}).status_code in (401, 404), path


def test_what_only_begins_like_something_open_is_not_open(visit: Visit) -> None:
    for path in ("/sign-ins", "/sign-in/x", "/healthzz", "/healthz/x", "/health/x", "/static", "/statics/x"):
        assert visit(TOKEN).get(path).status_code == 401, path


@pytest.mark.parametrize("path", ["/", "/outputs/0123456789abcdef", "/metrics", "/static/imagemill.css"])
def test_nothing_can_be_changed(path: str, visit: Visit) -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        answer = visit().request(method, path)
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
        assert "this address takes GET and HEAD only" in answer.text
    answer = visit().put("/sign-in")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, POST")


def test_a_page_that_is_none_is_said_in_words(visit: Visit) -> None:
    for path in ("/nothing", "/static/nothing.css"):
        answer = visit().get(path)
        assert (answer.status_code, "there is no such page" in answer.text) == (404, True)


def test_a_page_that_fails_says_so_without_its_inside(visit: Visit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("producer.serve.job_pages.worker_views", lambda *_: 1 // 0)
    answer = visit().get("/")
    assert answer.status_code == 500
    assert "the server&#39;s log says why" in answer.text
    assert "ZeroDivision" not in answer.text
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
