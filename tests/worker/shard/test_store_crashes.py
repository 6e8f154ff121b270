"""A crash at any step leaves nothing half, and the next attempt completes."""

import shutil

import pytest

from tests.worker.shard.stores import (
    FILES,
    WEBDATASET,
    Crash,
    CrashingSystem,
    a_failure,
    a_store,
    check_whole,
    entries,
    files_of,
    save,
)

pytestmark = pytest.mark.usefixtures("layout")


def attempt(output, lines, number):
    """One worker's try at a shard whose third image fails."""
    if output.committed(3):
        return
    store = a_store(output, lines, attempt=str(number))
    adopted = store.adopt()
    save(store, *(position for position in (0, 1, 3) if position not in adopted))
    store.commit([a_failure(lines, 2)])


STEPS = 3 * 2 + 3
"""Renames of an undisturbed attempt: 3 images and their metadata, the two lists, the shard."""


@FILES
def test_an_attempt_takes_as_many_steps_as_the_crashes_below_try(output, monkeypatch):
    CrashingSystem(monkeypatch, STEPS, after=False)
    attempt(output, entries(4), 1)
    assert output.committed(3)


@FILES
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", range(STEPS))
def test_a_crash_at_any_rename_leaves_nothing_half_and_the_next_attempt_completes(
    output, monkeypatch, step, after
):
    lines = entries(4)
    with monkeypatch.context() as patch:
        CrashingSystem(patch, step, after)
        with pytest.raises(Crash):
            attempt(output, lines, 1)
    last = step == STEPS - 1 and after
    assert output.committed(3) == last
    # The second attempt dies in the middle of adopting or a little later, the third lives.
    with monkeypatch.context() as patch:
        CrashingSystem(patch, 3, after)
        if not last:
            with pytest.raises(Crash):
                attempt(output, lines, 2)
    attempt(output, lines, 3)
    if last:
        assert (output.spool / "00003").exists()
        assert [record["file_name"][-6:] for record in output.records(3)] == ["00.png", "01.png", "03.png"]
    else:
        check_whole(output, lines, 3, failed=[2])


TAR_STEPS = 1 + 3 * 2 + 2 + 2
"""The trial link, 3 images and their metadata, tar and parquet in the spool, the links of both."""


@WEBDATASET
def test_a_tar_takes_as_many_steps_as_the_crashes_below_try(output, monkeypatch):
    CrashingSystem(monkeypatch, TAR_STEPS, after=False)
    attempt(output, entries(4), 1)
    assert files_of(output.path)[1:] == ["00003.parquet", "00003.tar"]


@WEBDATASET
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", range(TAR_STEPS))
def test_a_crash_at_any_link_leaves_no_parquet_but_the_tars_own(output, monkeypatch, step, after):
    lines = entries(4)
    with monkeypatch.context() as patch:
        CrashingSystem(patch, step, after)
        with pytest.raises(Crash):
            attempt(output, lines, 1)
    committed = step > TAR_STEPS - 2 or (step == TAR_STEPS - 2 and after)
    assert output.committed(3) == committed
    assert (output.path / "00003.parquet").exists() == (step == TAR_STEPS - 1 and after)
    attempt(output, lines, 2)
    output.stored(3).complete()
    if committed:
        shutil.rmtree(output.spool / "00003")
    check_whole(output, lines, 3, failed=[2])
