"""What a worker tells of its GPU: nothing without one, and what the driver says where there is one."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace

import pytest

from tests.waiting import WaitUntil
from worker.gpu_use import GpuUse

UUID = "GPU-0000000a-aaaa-bbbb-cccc-dddddddddddd"
Use = Callable[[str], GpuUse]


@pytest.fixture
def use() -> Iterator[Use]:
    """Starts to ask about a GPU; ends at the test's end."""
    started: list[GpuUse] = []

    def start(visible: str) -> GpuUse:
        started.append(GpuUse(visible))
        started[-1].start()
        return started[-1]

    yield start
    for one in started:
        one.stop()


@dataclass
class Driver:
    """A driver's library with one GPU, of which some questions are not answered."""

    asked: list[object]
    hangs: threading.Event | None = None
    has_utilisation: bool = True

    def module(self) -> ModuleType:
        class Trouble(Exception):
            pass

        def utilisation(_gpu: object) -> SimpleNamespace:
            if not self.has_utilisation:
                raise Trouble("not supported")
            return SimpleNamespace(gpu=75)

        def memory(gpu: object) -> SimpleNamespace:
            self.asked.append(gpu)
            if self.hangs is not None:
                self.hangs.wait()
            return SimpleNamespace(used=8_000, total=141_000)

        made = ModuleType("pynvml")
        made.__dict__.update(
            NVMLError=Trouble,
            nvmlInit=lambda: None,
            nvmlDeviceGetHandleByUUID=lambda uuid: ("uuid", uuid),
            nvmlDeviceGetMemoryInfo=memory,
            nvmlDeviceGetUtilizationRates=utilisation,
        )
        return made


@pytest.mark.parametrize("visible", ["", UUID, "0,1"])
def test_nothing_is_told_where_there_is_no_gpu(
    use: Use, monkeypatch: pytest.MonkeyPatch, visible: str
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)  # not installed
    assert use(visible).facts() == {}


def test_the_library_without_a_driver_tells_nothing(
    use: Use, monkeypatch: pytest.MonkeyPatch, wait_until: WaitUntil
) -> None:
    driver = Driver([]).module()
    tried: list[int] = []

    def init() -> None:
        tried.append(1)
        raise driver.NVMLError("Driver Not Loaded")

    monkeypatch.setattr(driver, "nvmlInit", init)
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    asked = use(UUID)
    wait_until(lambda: bool(tried), "the library is loaded")
    assert asked.facts() == {}


@pytest.mark.parametrize("visible", ["0", "3", f"{UUID},{UUID[:-1]}e"])
def test_nothing_is_told_of_a_gpu_that_only_cuda_knows(
    use: Use, monkeypatch: pytest.MonkeyPatch, visible: str
) -> None:
    driver = Driver([])
    monkeypatch.setitem(sys.modules, "pynvml", driver.module())
    before = threading.enumerate()
    assert use(visible).facts() == {}
    assert not [one for one in threading.enumerate() if one not in before and one.name == "gpu-use"]


def test_memory_and_use_of_the_gpu_that_the_process_sees(
    use: Use, monkeypatch: pytest.MonkeyPatch, wait_until: WaitUntil
) -> None:
    driver = Driver([])
    monkeypatch.setitem(sys.modules, "pynvml", driver.module())
    asked = use(UUID)
    wait_until(lambda: bool(asked.facts()), "the driver answers")
    assert asked.facts() == {"gpu_memory_used": 8_000, "gpu_memory_total": 141_000, "gpu_utilisation": 0.75}
    assert driver.asked == [("uuid", UUID)]


def test_a_slice_of_a_gpu_tells_its_memory_alone(
    use: Use, monkeypatch: pytest.MonkeyPatch, wait_until: WaitUntil
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Driver([], has_utilisation=False).module())
    asked = use("MIG-1")
    wait_until(lambda: bool(asked.facts()), "the driver answers")
    assert {*asked.facts()} == {"gpu_memory_used", "gpu_memory_total"}


def test_a_driver_that_hangs_holds_nobody_up(
    use: Use, monkeypatch: pytest.MonkeyPatch, wait_until: WaitUntil
) -> None:
    driver = Driver([], hangs=threading.Event())
    monkeypatch.setitem(sys.modules, "pynvml", driver.module())
    asked = use(UUID)
    wait_until(lambda: bool(driver.asked), "the driver is asked")
    assert asked.facts() == {}
    assert driver.hangs is not None
    driver.hangs.set()
