"""A worker leaves when nothing is left, when Redis stays away, and at a notice; its status says which."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from jobs.errors import SettingsError
from jobs.ledger.job import Outlook
from jobs.ledger.ledger import Ledger
from producer.embedded_redis import EmbeddedRedis
from tests.breakable_redis import BreakableRedis
from tests.jobs.ledger.claims import Submit, must_claim
from tests.ports import free_port
from tests.waiting import Overdue, wait_until
from tests.worker.host.host import Host
from worker.host.leaving import Idleness, Leaving, watch
from worker.host.stop import Stop

NOTHING = Outlook(left=False, growth=0, open=0, paused=0, refused=0)
SOMETHING = Outlook(left=True, growth=0, open=0, paused=0, refused=0)
QUICK = Leaving(until_idle=1.0)


def grown(growth: int) -> Outlook:
    return Outlook(left=False, growth=growth, open=1, paused=0, refused=0)


def stays(host: Host, ledger: Ledger) -> None:
    """Waits until a host has looked for three times as long as it may be idle; it is still there then."""
    looks = ledger.client.info("commandstats")["cmdstat_evalsha"]["calls"]

    def looked() -> bool:
        return bool(ledger.client.info("commandstats")["cmdstat_evalsha"]["calls"] > looks + 12)

    host.wait_until(looked, "it has looked")
    assert host.process is not None
    assert host.process.poll() is None


def test_only_time_in_which_nothing_was_left_counts() -> None:
    idleness = Idleness(60)
    assert not idleness.look(NOTHING, 100)
    assert not idleness.look(NOTHING, 159)
    assert not idleness.look(SOMETHING, 160)
    assert not idleness.look(NOTHING, 165)
    assert not idleness.look(NOTHING, 224)
    assert idleness.look(NOTHING, 225)


def test_time_without_an_answer_does_not_count() -> None:
    idleness = Idleness(60)
    assert not idleness.look(NOTHING, 100)
    assert not idleness.look(None, 159)
    assert not idleness.look(None, 1000)
    assert not idleness.look(NOTHING, 1001)
    assert idleness.look(NOTHING, 1061)


def test_a_submission_that_goes_on_is_waited_for_and_one_that_was_broken_off_is_not() -> None:
    idleness = Idleness(60)
    assert not idleness.look(grown(1), 100)
    assert not idleness.look(grown(1001), 150)
    assert not idleness.look(grown(2001), 209)
    assert not idleness.look(grown(2001), 268)
    assert idleness.look(grown(2001), 269)


def test_the_first_request_decides_the_exit_status() -> None:
    stop = Stop(until_idle=True)
    assert (bool(stop), stop.status) == (False, 0)
    stop.leave(75, "no Redis")
    stop.drain("too late")
    assert (bool(stop), stop.status) == (True, 75)


def test_a_notice_whose_folder_is_not_there_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "no such" / "notice"
    with pytest.raises(SettingsError, match=r"there is no folder .*no such that this user may look into"):
        Leaving(spot_notice=file).refuse_what_cannot_come()
    Leaving(spot_notice=tmp_path / "notice").refuse_what_cannot_come()


def test_a_host_for_which_nothing_comes_leaves_with_0(host: Host, url: str) -> None:
    host.start(url, leaving=QUICK)
    host.wait_for_log("gpu1@host started")
    host.look()
    assert host.wait() == 0
    host.wait_for_the_end_of_all()
    assert "leaving with exit status 0: nothing has been left here for 1 s" in host.log
    assert host.log.count("ended: ") == 2


def test_a_host_stays_while_another_one_holds_a_shard_and_leaves_after_its_end(
    host: Host, redis_server: EmbeddedRedis, ledger: Ledger, submit_job: Submit
) -> None:
    submit_job(1)
    found = must_claim(ledger, "gpu0@another")
    host.start(redis_server.url, leaving=QUICK)
    host.starts(2)
    stays(host, ledger)
    ledger.release(found)
    ledger.control(found.job_id, "cancel")
    ledger.finish(must_claim(ledger, "gpu0@another"))
    assert host.wait() == 0


def test_a_host_that_refused_what_is_left_leaves_with_3(
    host: Host, redis_server: EmbeddedRedis, ledger: Ledger, submit_job: Submit
) -> None:
    submit_job(2)
    host.start(redis_server.url, leaving=QUICK)
    host.starts(2)
    for node in ("gpu0@host", "gpu1@host"):
        ledger.refuse(must_claim(ledger, node), node, "no room for the model")
    assert host.wait() == 3
    assert "(of the jobs that are not finished: 1 refused here, as the log says)" in host.log


def test_what_earlier_processes_of_a_host_refused_is_left_for_those_of_now(
    host: Host, redis_server: EmbeddedRedis, ledger: Ledger, submit_job: Submit
) -> None:
    job_id = submit_job(2)
    for node in ("gpu0@host", "gpu1@host"):
        ledger.refuse(must_claim(ledger, node), node, "another folder was the root of outputs")
    host.start(redis_server.url, leaving=QUICK)
    host.starts(2)
    assert ledger.status(job_id).refused_by == {}
    ledger.refuse(must_claim(ledger, "gpu0@host"), "gpu0@host", "no room for the model")
    stays(host, ledger)


def test_an_error_that_nobody_foresaw_does_not_keep_a_worker(caplog: pytest.LogCaptureFixture) -> None:
    class Odd(Ledger):
        looks = 0

        def outlook(self, workers: Sequence[str], models: Sequence[str]) -> Outlook:
            self.looks += 1
            if self.looks == 1:
                raise ValueError("odd")
            return NOTHING

    stop = Stop(until_idle=True)
    watch(Leaving(until_idle=0.1), stop, Odd("redis://127.0.0.1:1/0"), lambda: ["cpu0@host"], ())
    wait_until(lambda: bool(stop), "it leaves")
    assert stop.status == 0
    assert "whether something is left is not known" in caplog.text


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_before_nothing_is_left_has_a_status_of_its_own(
    host: Host, url: str, number: int, status: int
) -> None:
    host.start(url, leaving=Leaving(until_idle=3600))
    host.starts(2)
    host.signal(number)
    assert host.wait() == status
    host.wait_for_the_end_of_all()


@pytest.mark.parametrize(("until_idle", "status"), [(None, 0), (3600, 143)])
def test_a_notice_ends_all_as_sigterm_does(
    host: Host, url: str, tmp_path: Path, until_idle: float | None, status: int
) -> None:
    notice = tmp_path / "notice"
    host.start(url, leaving=Leaving(until_idle=until_idle, spot_notice=notice))
    host.starts(2)
    notice.touch()
    assert host.wait() == status
    assert f"leaving with exit status {status}: the notice {notice} is there" in host.log
    assert host.log.count("ended: exit status 0") == 2


def test_a_notice_that_is_there_already_ends_it_at_once(host: Host, url: str, tmp_path: Path) -> None:
    (tmp_path / "notice").symlink_to("nowhere")
    host.start(f"redis://127.0.0.1:{free_port()}/0", leaving=Leaving(spot_notice=tmp_path / "notice"))
    assert host.wait() == 0
    assert not host.starts_file.exists()


def test_a_redis_that_does_not_come_ends_it_with_75(host: Host) -> None:
    host.start(f"redis://127.0.0.1:{free_port()}/0", leaving=Leaving(redis_patience=1.0), gpus="none")
    assert host.wait() == os.EX_TEMPFAIL
    assert "leaving with exit status 75: Redis has given no answer for 1 s" in host.log
    assert not host.starts_file.exists()


def test_a_redis_that_goes_and_comes_back_is_waited_for_and_one_that_stays_away_is_not(
    host: Host, tmp_path: Path
) -> None:
    with BreakableRedis(tmp_path / "redis") as server:
        host.start(server.url, leaving=Leaving(until_idle=2.0, redis_patience=1000.0), gpus="none")
        host.wait_for_log("cpu0@host started")
        os.kill(server.pid, signal.SIGSTOP)
        try:
            with pytest.raises(Overdue):
                host.wait_until(lambda: host.process is None or host.process.poll() is not None, "its end", 4)
        finally:
            os.kill(server.pid, signal.SIGCONT)
        assert host.wait() == 0, "it has been idle since"
        host.start(server.url, leaving=Leaving(redis_patience=1.0), gpus="none")
        host.wait_for_log("cpu0@host started")
        server.kill()
        assert host.wait() == os.EX_TEMPFAIL
