"""A field for the tests of a file, one after the other, and a fresh one after a failure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.breakable_redis import BreakableRedis
from tests.faults.field import Field
from tests.faults.fuzzing import CASES, SLICE
from tests.faults.fuzzing import SEED as FUZZ_SEED
from tests.faults.soak import Soak
from tests.faults.soaks import AGAIN, Soaks
from tests.object_store.breakable_store import BreakableStore

SEED = 7
FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if report.failed:
        item.stash[FAILED] = True
    return report


@pytest.fixture(scope="session", autouse=True)
def _the_seed_is_shown(pytestconfig: pytest.Config) -> None:
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    if CASES > SLICE and capture is not None:
        with capture.global_and_fixture_disabled():
            print(f"\nFUZZ_CASES={CASES} FUZZ_SEED={FUZZ_SEED}")  # noqa: T201


class Fields:
    """Two armed workers on a Redis that breaks, for as long as all goes well with them."""

    def __init__(self, folder: Callable[[], Path], store: BreakableStore | None = None) -> None:
        """`store`: where jobs write, if it is not into folders."""
        self._folder, self._store = folder, store
        self._server: BreakableRedis | None = None
        self._field: Field | None = None

    def field(self) -> Field:
        """The field, with its workers ready."""
        if self._field is None:
            folder = self._folder()
            self._server = BreakableRedis(folder / "redis")
            self._server.start()
            self._field = Field(folder, self._server, SEED, workers=2, store=self._store)
            self._field.start()
        return self._field

    def give_up(self) -> None:
        """Ends the field, whatever state it is in; the next is a fresh one."""
        if self._field is not None:
            self._field.stop()
        if self._server is not None:
            self._server.stop()
        self._field = self._server = None


@pytest.fixture(scope="module")
def store() -> BreakableStore | None:
    """Where the jobs of a file write: into folders, unless the file has another fixture of this name."""
    return None


@pytest.fixture(scope="module")
def fields(tmp_path_factory: pytest.TempPathFactory, store: BreakableStore | None) -> Iterator[Fields]:
    fields = Fields(lambda: tmp_path_factory.mktemp("faults"), store)
    yield fields
    fields.give_up()


@pytest.fixture
def field(fields: Fields, request: pytest.FixtureRequest) -> Iterator[Field]:
    """The file's field; one on which a test failed is given up."""
    try:
        yield fields.field()
    finally:
        if request.node.stash.get(FAILED, False):
            fields.give_up()


@pytest.fixture(scope="module")
def images_for_each() -> int:
    """How many images a file has for each of its faults."""
    return 100


@pytest.fixture(scope="module")
def soaks(request: pytest.FixtureRequest, images_for_each: int) -> Soaks:
    here = [item for item in request.session.items if item.path == request.path]
    in_any_order = any("any_order" in item.name for item in here)
    return Soaks(len(here) + AGAIN * in_any_order, images_for_each)


@pytest.fixture
def soak(soaks: Soaks, field: Field) -> Soak:
    return soaks.on(field)
