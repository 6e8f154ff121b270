"""Workers of one host share its GPUs by locks that die with them."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobs.errors import SettingsError
from jobs.settings import Settings, load_settings
from worker.host.gpu_list import Gpu
from worker.host.gpus import Device, GpusClaimed, claim

ROOT = Path(__file__).parents[3]
A, B, C = (f"GPU-0000000{digit}-aaaa-bbbb-cccc-dddddddddddd" for digit in "abc")

Claim = Callable[..., list[Device]]


@pytest.fixture
def three_gpus(fake_smi: Callable[[str], None]) -> None:
    fake_smi(
        '[ "$*" = "--query-gpu=index,uuid --format=csv,noheader" ] || exit 1\n'
        f'echo "0, {A}"; echo "1, {B}"; echo "2, {C}"'
    )


@pytest.fixture
def claimed() -> Iterator[Claim]:
    """`claim` whose devices are given up at the end."""
    devices: list[Device] = []

    def call(gpus: str, name: str = "host", patience: float = 0.0) -> list[Device]:
        got = claim(gpus, name, load_settings(), patience)
        devices.extend(got)
        return got

    yield call
    for device in devices:
        device.give_up()


@pytest.fixture
def other_process(tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[bytes]]]:
    """Starts a process that claims GPUs and keeps them."""
    started: list[subprocess.Popen[bytes]] = []

    def start(gpus: str) -> subprocess.Popen[bytes]:
        code = (
            "import sys, time; from jobs.settings import load_settings; from worker.host.gpus import claim\n"
            f"devices = claim({gpus!r}, 'host', load_settings())\n"
            "print([device.name for device in devices], flush=True); time.sleep(1000)"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def _first_line(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    return process.stdout.readline()


def _names(devices: list[Device]) -> list[str]:
    return [device.name for device in devices]


@pytest.mark.usefixtures("three_gpus")
def test_all_claims_every_gpu_and_pins_each_by_its_uuid(claimed: Claim) -> None:
    devices = claimed("all")
    assert [(device.name, device.gpu, device.cuda_visible_devices) for device in devices] == [
        ("gpu0", Gpu(0, A), A),
        ("gpu1", Gpu(1, B), B),
        ("gpu2", Gpu(2, C), C),
    ]


@pytest.mark.usefixtures("three_gpus")
def test_a_gpu_claimed_by_another_process_is_passed_over_until_that_one_is_killed(
    claimed: Claim, other_process: Callable[[str], subprocess.Popen[bytes]], wait_until: Callable[..., None]
) -> None:
    other = other_process("1")
    assert _first_line(other) == b"['gpu1']\n"
    with pytest.raises(GpusClaimed, match="GPU 1 is claimed by another worker"):
        claimed("0,1")
    assert _names(claimed("all")) == ["gpu0", "gpu2"], "the refused claim holds nothing"
    with pytest.raises(GpusClaimed, match=r"every GPU of this host \(0, 1, 2\) is claimed"):
        claimed("any")
    other.kill()
    assert _names(claimed("any", patience=10)) == ["gpu1"]


@pytest.mark.usefixtures("three_gpus")
def test_workers_that_want_any_gpu_get_one_each(
    claimed: Claim, other_process: Callable[[str], subprocess.Popen[bytes]]
) -> None:
    others = [other_process("any"), other_process("any")]
    taken = {_first_line(other) for other in others}
    names = {b"['gpu0']\n", b"['gpu1']\n", b"['gpu2']\n"}
    assert len(taken) == 2
    assert taken < names
    left = _names(claimed("all"))
    assert {f"{left}\n".encode()} == names - taken


@pytest.mark.usefixtures("three_gpus")
def test_the_lock_lasts_as_long_as_a_child_that_inherited_it(claimed: Claim) -> None:
    device = claim("2", "host", load_settings())[0]
    child = subprocess.Popen(["/bin/sleep", "1000"], pass_fds=(device.lock,))
    try:
        device.give_up()
        with pytest.raises(GpusClaimed):
            claimed("2")
    finally:
        child.kill()
        child.wait()
    assert _names(claimed("2")) == ["gpu2"]


@pytest.mark.usefixtures("three_gpus")
@pytest.mark.parametrize(
    ("gpus", "message"),
    [
        ("0,3", r"there is no GPU 3 \(there are: 0, 1, 2\)"),
        ("first", "must be auto, all, any, none, or numbers"),
        ("0,", "must be auto, all, any, none, or numbers"),
        ("1,1", "names a GPU twice"),
    ],
)
def test_a_wrong_choice_is_refused(gpus: str, message: str, claimed: Claim) -> None:
    with pytest.raises(SettingsError, match=message):
        claimed(gpus)
    assert len(claimed("all")) == 3


def test_a_name_that_celery_could_not_carry_is_refused(claimed: Claim) -> None:
    with pytest.raises(SettingsError, match="--name a/b"):
        claimed("none", "a/b")


@pytest.mark.parametrize("gpus", ["all", "any"])
@pytest.mark.usefixtures("fake_smi")
def test_without_a_gpu_a_worker_that_asks_for_one_is_refused(gpus: str, claimed: Claim) -> None:
    with pytest.raises(SettingsError, match=rf"--gpus {gpus}: no NVIDIA GPU is here .*--gpus none.*auto"):
        claimed(gpus)


@pytest.mark.usefixtures("three_gpus")
def test_auto_claims_every_gpu_where_there_are_some(claimed: Claim) -> None:
    assert _names(claimed("auto")) == ["gpu0", "gpu1", "gpu2"]


def test_without_a_gpu_auto_gives_one_seat_on_the_cpu_and_says_so(
    fake_smi: Callable[[str], None], claimed: Claim, caplog: pytest.LogCaptureFixture
) -> None:
    devices = claimed("auto")
    assert [(device.name, device.gpu, device.cuda_visible_devices) for device in devices] == [
        ("cpu0", None, "")
    ]
    assert "no NVIDIA GPU is here: rendering on the CPU" in caplog.text
    with pytest.raises(SettingsError, match=r"there is no GPU 0 \(there are: none\)"):
        claimed("0")


@pytest.mark.usefixtures("three_gpus")
def test_none_leaves_the_gpus_alone_and_gives_each_worker_of_a_name_another_cpu_seat(
    claimed: Claim, caplog: pytest.LogCaptureFixture
) -> None:
    assert _names(claimed("none")) == ["cpu0"]
    assert _names(claimed("none")) == ["cpu1"]
    assert _names(claimed("none", "elsewhere")) == ["cpu0"]
    assert caplog.records == []


def test_a_lock_folder_that_cannot_be_written_is_named(
    fake_smi: Callable[[str], None], claimed: Claim
) -> None:
    settings: Settings = load_settings()
    assert settings.runtime_dir is not None
    (settings.runtime_dir / "locks").write_text("")
    with pytest.raises(SettingsError, match=r"locks/cpu0@host: cannot be opened as a lock"):
        claimed("none")


def test_the_locks_of_containers_that_are_gone_are_swept_and_those_of_living_workers_stay(
    claimed: Claim, other_process: Callable[[str], subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    locks = tmp_path / "runtime" / "locks"
    assert _first_line(other_process("none")) == b"['cpu0']\n"
    for container in ("4f1ef528d4dc", "88bc6a44b474"):
        (locks / f"cpu0@{container}").touch()
    assert _names(claimed("none", "c0ffee")) == ["cpu0"]
    assert sorted(file.name for file in locks.iterdir()) == ["cpu0@c0ffee", "cpu0@host"]
    assert _names(claimed("none")) == ["cpu1"], "the lock of the other process still holds"


def test_a_lock_that_was_swept_while_it_was_opened_is_taken_again(claimed: Claim, tmp_path: Path) -> None:
    """Workers that start together sweep and lock the same names: no two may have one of them."""
    code = (
        "import sys, time; from jobs.settings import load_settings; from worker.host.gpus import claim\n"
        "sys.stdin.readline(); print(claim('none', 'host', load_settings())[0].name, flush=True)\n"
        "time.sleep(100)"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )
        for _ in range(6)
    ]  # fmt: skip
    try:
        for process in started:
            assert process.stdin is not None
            process.stdin.write(b"\n")
            process.stdin.flush()
        assert len({_first_line(process) for process in started}) == 6
    finally:
        for process in started:
            process.kill()
            process.communicate()


@pytest.fixture
def readable_by_all() -> Iterator[Path]:
    """A folder that another user finds: that of a test is below one of root's alone."""
    with tempfile.TemporaryDirectory(prefix="imagemill-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.parametrize("there", [True, False])
def test_a_volume_of_another_user_is_named_with_the_command_that_mends_it(
    there: bool, readable_by_all: Path
) -> None:
    volume = readable_by_all / "volume"
    (volume / "locks" if there else volume).mkdir(parents=True)
    volume.chmod(0)  # as a volume of another user looks; root alone sees through it, and becomes another here
    code = (
        "import os; from pathlib import Path; from jobs.settings import Settings\n"
        "from worker.host.gpus import claim\n"
        "if os.geteuid() == 0: os.setgid(4711); os.setuid(4711)\n"
        f"folder = {str(volume)!r} if os.geteuid() == 4711 else '/usr'\n"
        "try: claim('none', 'host', Settings(runtime_dir=folder))\n"
        "except Exception as error: print(type(error).__name__, error, os.geteuid())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True,
        capture_output=True, check=False,
    )  # fmt: skip
    volume.chmod(0o700)
    mine = done.stdout.split()[-1]
    assert done.stdout.startswith("SettingsError"), done.stdout + done.stderr
    assert f" belongs to user 0, and this process is user {mine}" in done.stdout
    assert "RUN_AS_UID" in done.stdout
    assert f"chown -R {mine}:" in done.stdout


def test_claiming_loads_no_torch() -> None:
    code = "import sys, worker.host.supervisor; sys.exit(bool({'torch', 'celery'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
