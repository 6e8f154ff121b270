import os
import subprocess

import pytest

from jobs.errors import JobError, OutputError
from jobs.output.output import Output
from jobs.output.output_lock import locked


def test_a_link_in_the_place_of_the_lock_is_not_followed(tmp_path):
    output = Output(tmp_path / "out")
    output.prepare()
    (tmp_path / "mine").write_text("precious")
    (output.private / "lock").symlink_to(tmp_path / "mine")
    with pytest.raises(OutputError, match=r"\.imagemill/lock: cannot be opened"), locked(output):
        pytest.fail("there is no lock")
    assert (tmp_path / "mine").read_text() == "precious"


def test_a_locked_output_shows_the_next_run_who_holds_it_and_is_free_afterwards(tmp_path):
    output = Output(tmp_path)
    output.prepare()
    with locked(output):  # noqa: SIM117 - the inner one fails while the outer one holds
        with pytest.raises(JobError, match=rf"pid {os.getpid()}\).*kill {os.getpid()}"), locked(output, 0.2):
            pytest.fail("the folder is locked")
    with locked(output, 0):
        pass


def test_who_inherits_the_lock_holds_it_until_it_ends(tmp_path):
    output = Output(tmp_path)
    output.prepare()
    with locked(output) as lock:
        orphan = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=(lock,))
    with pytest.raises(JobError, match="worker is still ending"), locked(output, 0):
        pytest.fail("the folder is locked")
    orphan.communicate()
    with locked(output, 0):
        pass


def test_a_lock_is_waited_for(tmp_path):
    output = Output(tmp_path)
    output.prepare()
    with locked(output) as lock:
        orphan = subprocess.Popen(["sleep", "0.3"], pass_fds=(lock,))
    with locked(output, 20):
        assert orphan.wait() == 0


def test_a_lock_that_cannot_be_opened_is_an_error_of_the_output(tmp_path):
    Output(tmp_path).prepare()
    (tmp_path / ".imagemill" / "lock").mkdir()
    with pytest.raises(OutputError, match=r"\.imagemill/lock: cannot be opened"), locked(Output(tmp_path)):
        pytest.fail("there is no lock")
