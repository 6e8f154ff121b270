"""Pages of a real Redis, asked without a network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from jobs.output.output import Output
from jobs.settings import Settings
from producer.embedded_redis import EmbeddedRedis
from producer.serve.app import create_app
from producer.serve.opened import site_at, site_of

ADDRESS = "http://127.0.0.1:8484"


@pytest.fixture
def output(tmp_path: Path) -> Output:
    """An output that the command line names."""
    output = Output(tmp_path / "named")
    output.prepare()
    return output


@pytest.fixture
def visit(redis_server: EmbeddedRedis, output: Output) -> Callable[..., TestClient]:
    """Makes a visitor of the pages, who follows no redirect; `token`: what the server was started with."""

    def visitor(token: str | None = None, *, base: str = ADDRESS) -> TestClient:
        settings = Settings(redis_url=redis_server.url)  # type: ignore[arg-type]
        site = site_of(settings, [output]) if token is None else site_at(redis_server.url, output, token)
        return TestClient(create_app(site), base, follow_redirects=False, raise_server_exceptions=False)

    return visitor
