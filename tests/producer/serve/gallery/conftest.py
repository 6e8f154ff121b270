"""Outputs to look at, in both layouts, and visitors of their pages."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from starlette.testclient import TestClient

from jobs.output.output import Output
from jobs.settings import Settings
from producer.embedded_redis import EmbeddedRedis
from producer.serve.app import create_app
from producer.serve.gallery.gallery_output import GalleryOutput
from producer.serve.gallery.shard_indices import ShardIndices
from producer.serve.opened import site_of
from producer.serve.outputs import key_of
from tests.rendered_output import rendered
from tests.waiting import LONGEST

__all__ = ["rendered"]


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search of a page looks on until it has found what there is, however busy this machine is."""
    for page in ("gallery_pages", "picture_page"):
        monkeypatch.setattr(f"producer.serve.gallery.{page}.BUDGET", LONGEST)


@pytest.fixture
def gallery() -> Callable[[Output], GalleryOutput]:
    """Looks at an output."""
    return lambda output: GalleryOutput(output, ShardIndices())


@pytest.fixture
def pages_of(redis_server: EmbeddedRedis) -> Callable[[Output], tuple[TestClient, str]]:
    """A visitor of the pages of an output, and its address."""

    def visitor(output: Output) -> tuple[TestClient, str]:
        site = site_of(Settings(redis_url=redis_server.url), [output])  # type: ignore[arg-type]
        client = TestClient(create_app(site), "http://127.0.0.1:8484")
        return client, f"/outputs/{key_of(output.label)}"

    return visitor
