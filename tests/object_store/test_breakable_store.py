"""The store itself: what S3 promises, and what a client sees that is led astray."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import obstore
import psutil
import pytest
from obstore.exceptions import AlreadyExistsError, GenericError, PermissionDeniedError

from tests.object_store.breakable_store import BreakableStore
from tests.object_store.clients import LARGE, SMALL, client, content, keys
from tests.object_store.fault import Kind
from tests.ports import free_port
from tests.waiting import LONGEST, WaitUntil


def test_a_conditional_put_leaves_what_is_there(bucket: str) -> None:
    store = client(bucket)
    obstore.put(store, "a", b"first", mode="create")
    with pytest.raises(AlreadyExistsError):
        obstore.put(store, "a", b"second", mode="create")
    assert content(store, "a") == b"first"


def test_a_large_file_is_put_in_parts_and_copied_to_a_name_once(
    object_store: BreakableStore, bucket: str, tmp_path: Path
) -> None:
    file = tmp_path / "large"
    file.write_bytes(LARGE)
    store = client(bucket)
    obstore.put(store, "uploads/large", file)
    assert object_store.traffic(Kind.UPLOAD_PART).requests == 2
    obstore.copy(store, "uploads/large", "large", overwrite=False)
    obstore.put(store, "uploads/other", b"other")
    with pytest.raises(AlreadyExistsError):
        obstore.copy(store, "uploads/other", "large", overwrite=False)
    assert content(store, "large") == LARGE
    assert keys(store) == ["large", "uploads/large", "uploads/other"]


@pytest.mark.parametrize("way", ["put", "copy"])
def test_of_many_that_take_a_name_at_once_one_gets_it(bucket: str, way: str) -> None:
    store = client(bucket)
    names = [f"from{number}" for number in range(6)]
    for name in names:
        obstore.put(store, name, name.encode())
    for key in ("a", "b", "c", "d"):
        winners: list[str] = []
        together = threading.Barrier(len(names))

        def take(
            name: str, key: str = key, winners: list[str] = winners, together: threading.Barrier = together
        ) -> None:
            together.wait(LONGEST)
            try:
                if way == "put":
                    obstore.put(store, key, name.encode(), mode="create")
                else:
                    obstore.copy(store, name, key, overwrite=False)
            except AlreadyExistsError:
                return
            winners.append(name)

        threads = [threading.Thread(target=take, args=(name,)) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [content(store, key).decode()] == winners


def test_what_a_test_stored_is_not_there_for_the_next(object_store: BreakableStore, bucket: str) -> None:
    obstore.put(client(bucket), "a", b"1")
    object_store.empty()
    object_store.make_bucket(bucket)
    assert keys(client(bucket)) == []


def test_the_traffic_is_counted_by_kinds(object_store: BreakableStore, bucket: str) -> None:
    store = client(bucket)
    obstore.put(store, "a", SMALL)
    object_store.forget()
    obstore.get_range(store, "a", start=0, length=1000)
    obstore.get_range(store, "a", start=50, length=500)
    obstore.put(store, "b", b"12345")
    read, written = object_store.traffic(Kind.GET), object_store.traffic(Kind.PUT)
    assert (read.requests, read.received, read.sent) == (2, 0, 1500)
    assert (written.requests, written.received) == (1, 5)
    assert object_store.traffic().requests == 3


def test_both_processes_end_with_the_one_that_started_them(wait_until: WaitUntil) -> None:
    program = (
        "import sys, time; from tests.object_store.breakable_store import BreakableStore\n"
        "with BreakableStore(): print('ready', flush=True); time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        children = psutil.Process(parent.pid).children()
        parent.send_signal(signal.SIGKILL)
    assert len(children) == 2
    wait_until(lambda: not any(child.is_running() for child in children), "the store's processes end")


# A client that is led astray: obstore's exceptions.


def test_a_stranger_is_refused(bucket: str) -> None:
    stranger = client(bucket, config={"access_key_id": "STRANGER", "secret_access_key": "secret"})
    with pytest.raises(PermissionDeniedError, match="403 Forbidden"):
        obstore.put(stranger, "a", b"1")
    with pytest.raises(GenericError, match="403 Forbidden"):  # of a list nothing finer is said
        keys(stranger)
    unsigned = client(bucket, config={"skip_signature": True})
    with pytest.raises(PermissionDeniedError, match="403 Forbidden"):
        obstore.head(unsigned, "a")


@pytest.mark.usefixtures("object_store")
def test_a_bucket_that_is_missing_is_a_file_that_is_missing_but_for_a_list() -> None:
    store = client("not-there")
    calls: list[Callable[[], object]] = [
        lambda: obstore.put(store, "a", b"1"),
        lambda: obstore.put(store, "a", LARGE),
        lambda: obstore.get(store, "a"),
        lambda: obstore.copy(store, "a", "b", overwrite=False),
    ]
    for call in calls:
        with pytest.raises(FileNotFoundError, match="NoSuchBucket"):
            call()
    with pytest.raises(GenericError, match=r"404 Not Found[^$]*NoSuchBucket"):
        keys(store)


def test_without_credentials_the_machines_role_is_used_and_half_a_pair_is_refused(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(GenericError, match="Missing SecretAccessKey"):
        obstore.put(client(bucket), "a", b"1")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(
        GenericError, match=r"PUT http://127\.0\.0\.1:\d+/latest/api/token .*error sending request"
    ):
        obstore.put(client(bucket), "a", b"1")


def test_an_endpoint_that_refuses_or_has_no_tls_is_said_by_the_error(
    object_store: BreakableStore, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(GenericError, match=r"error sending request[^$]*kind: Connect[^$]*ConnectionRefused"):
        obstore.put(client(bucket), "a", b"1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", object_store.endpoint.replace("http:", "https:"))
    with pytest.raises(GenericError, match="error sending request"):
        obstore.put(client(bucket, timeout=0.5), "a", b"1")


def test_plain_http_is_refused_unless_it_is_allowed(
    object_store: BreakableStore, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    with pytest.raises(GenericError, match=r"builder error[^$]*BadScheme"):
        obstore.put(obstore.store.S3Store(bucket), "a", b"1")
    assert os.environ["AWS_ENDPOINT_URL"] == object_store.endpoint
    assert object_store.traffic().requests == 0
