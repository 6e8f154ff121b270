"""What the tests of recovering share."""

from __future__ import annotations

from pathlib import Path

import pytest

from producer.embedded_redis import EmbeddedRedis
from tests.producer.submit.recover.desk import Desk


@pytest.fixture
def desk(redis_server: EmbeddedRedis, tmp_path: Path) -> Desk:
    return Desk(redis_server.url, tmp_path)
