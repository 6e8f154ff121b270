"""Every family of pipelines that the tests build in code, by the name of its class."""

from __future__ import annotations

from tests.tiny.family import Family

FAMILIES: dict[str, Family] = {}
