"""What weights need, what is free, and what is said when they do not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save, save_file

from jobs.errors import ModelError
from worker.renderers.memory import check_fits, free_memory, machine_memory, weight_bytes

CPU = torch.device("cpu")
GIB = 2**30


def test_weights_need_the_bytes_of_the_format_they_are_converted_to(tmp_path: Path) -> None:
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_file({"w": torch.zeros(3, 5), "h": torch.zeros(7, dtype=torch.float16)}, first, {"format": "pt"})
    save_file({"x": torch.zeros(2, dtype=torch.bfloat16), "s": torch.zeros(())}, second)
    assert weight_bytes([first, second], torch.float32) == (15 + 7 + 2 + 1) * 4
    assert weight_bytes([first, second], torch.bfloat16) == (15 + 7 + 2 + 1) * 2
    assert weight_bytes([], torch.float32) == 0


def test_whole_numbers_are_not_converted(tmp_path: Path) -> None:
    file = tmp_path / "quantised.safetensors"
    save_file({"q": torch.zeros(10, dtype=torch.uint8), "i": torch.zeros(3, dtype=torch.int64)}, file)
    assert weight_bytes([file], torch.bfloat16) == 10 + 3 * 8


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        (b"", "is empty: fetch it again"),
        (b"cut" * 100, "is no safetensors file, or is damaged"),
        (b"\x02" + bytes(7) + b"[]", "is no safetensors file, or is damaged"),
        (b"\x03" + bytes(7) + b"{x}", "is no safetensors file, or is damaged"),
        (save({"x": torch.zeros(100)})[:-9], "is cut off: "),
    ],
)
def test_what_is_no_safetensors_is_an_error(tmp_path: Path, contents: bytes, words: str) -> None:
    file = tmp_path / "x.safetensors"
    file.write_bytes(contents)
    with pytest.raises(ValueError, match=f"^{file}: {words}"):
        weight_bytes([file], torch.float32)


@pytest.mark.parametrize(
    ("needed", "dtype", "device", "said"),
    [
        (
            24 * GIB,
            torch.float32,
            CPU,
            "needs? 24.0 GiB in float32, and this machine has 15.7 GiB of memory free: use precision bf16 "
            r"\(12.0 GiB\), a smaller model, or a machine with more memory",
        ),
        (
            24 * GIB,
            torch.bfloat16,
            torch.device("cuda:1"),
            "need 24.0 GiB in bfloat16, and cuda:1 has 15.7 GiB of memory free: use a smaller model, or a "
            "GPU with more memory",
        ),
    ],
)
def test_what_does_not_fit_is_told_with_both_figures_and_what_to_do(
    needed: int, dtype: torch.dtype, device: torch.device, said: str
) -> None:
    with pytest.raises(ModelError, match="model = org/m: its weights " + said):
        check_fits("org/m", needed, int(15.7 * GIB), dtype=dtype, device=device)


def test_what_fits_or_cannot_be_known_passes() -> None:
    assert check_fits("m", 5, 5, dtype=torch.float32, device=CPU) is None
    assert check_fits("m", 5, None, dtype=torch.float32, device=CPU) is None


def _machine(root: Path, **files: str) -> Path:
    (root / "proc").mkdir()
    (root / "sys/fs/cgroup").mkdir(parents=True)
    (root / "proc/meminfo").write_text("MemTotal:  900 kB\nMemFree: 1 kB\nMemAvailable:   100 kB\n")
    for name, text in files.items():
        (root / "sys/fs/cgroup" / f"memory.{name}").write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, 102_400),
        ({"max": "max\n", "current": "5\n", "stat": "inactive_file 3\n"}, 102_400),
        ({"max": "50000\n", "current": "20000\n", "stat": "anon 1\ninactive_file 3000\n"}, 33_000),
        ({"max": "999999999\n", "current": "20000\n", "stat": "inactive_file 3000\n"}, 102_400),
        ({"max": "50000\n", "current": "60000\n", "stat": "inactive_file 0\n"}, 0),
    ],
)
def test_a_container_has_free_what_its_limit_leaves(tmp_path: Path, files: dict[str, str], free: int) -> None:
    assert machine_memory(_machine(tmp_path, **files)) == free


def test_what_is_free_is_unknown_where_linux_does_not_say(tmp_path: Path) -> None:
    assert machine_memory(tmp_path) is None
    assert free_memory(torch.device("meta")) is None


def test_this_machine_has_memory_free() -> None:
    free = free_memory(CPU)
    assert free is not None and free > 0
