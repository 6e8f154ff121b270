"""What a push does, and says, when the hub refuses, is away or answers late."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from jobs.errors import HubError
from jobs.output.output import Output
from producer.push.push import push
from tests.hub_server import TOKEN, Fault, HubServer, Repo
from tests.producer.push.hasty import REPOSITORY, options

Render = Callable[..., Output]
COMMIT = "POST /api/datasets/org/foxes/commit/main"
AGAIN = "the same command goes on"


def _trouble(output: Output, name: str = REPOSITORY) -> str:
    """What a push that fails says, which is one line without the token."""
    with pytest.raises(HubError) as caught:
        push(output, name, options())
    said = str(caught.value)
    assert "\n" not in said and "://" not in said.replace("https://huggingface.co/settings", "")
    assert TOKEN not in said
    return said


@pytest.mark.parametrize(
    ("status", "message", "told"),
    [
        (401, "Invalid credentials in Authorization header", "log in again (`hf auth login`)"),
        (403, "You don't have the rights to create a dataset", "take one with write access"),
        (403, "Private repository storage limit reached", "free some of the account's storage"),
        (413, "Payload too large", "--shard-size"),
        (429, "We had to rate limit you", "too many requests: wait an hour"),
        (400, "Invalid metadata", "correct what it names"),
        (502, "", AGAIN),
        (None, "", "the hub cannot be reached"),
    ],
)
def test_a_refusal_is_one_line_with_its_remedy(
    hub: HubServer, rendered: Render, status: int | None, message: str, told: str
) -> None:
    hub.faults = [Fault("POST /api/repos/create", status, message)] * 4
    said = _trouble(rendered(4))
    assert said.startswith("org/foxes: ")
    assert told in said and message in said
    if status is not None:
        assert f"the hub answers {status}" in said


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("foxes", "give it as org/name"),
        ("a/b/c", "cannot be a repository's name"),
        ("org/f--x", "cannot be a repository's name"),
        ("org/.foxes", "cannot be a repository's name"),
    ],
)
def test_what_is_no_repositorys_name_is_refused_before_anything_is_asked(
    hub: HubServer, rendered: Render, name: str, told: str
) -> None:
    assert told in _trouble(rendered(4), name)
    assert not hub.requests


def test_the_message_says_that_a_token_may_only_read(
    hub: HubServer, rendered: Render, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_reader")
    hub.repos[REPOSITORY] = Repo(private=True)
    assert "you must use a write token" in _trouble(rendered(4))


def test_the_message_says_that_the_hub_does_not_know_the_token(
    hub: HubServer, rendered: Render, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_forgotten")
    said = _trouble(rendered(4))
    assert "does not take the token" in said and "hf_forgotten" not in said


@pytest.mark.parametrize("status", [429, 500, 503, None])
@pytest.mark.parametrize("after", [False, True])
def test_a_commit_that_fails_or_whose_answer_is_lost_is_made_once(
    hub: HubServer, rendered: Render, status: int | None, after: bool
) -> None:
    hub.faults = [Fault(COMMIT, status, after=after)]

    pushed = push(rendered(4), REPOSITORY, options())

    assert pushed.commits == 1
    if status != 429:  # the hub never does what it refuses so
        assert len(hub.repos[REPOSITORY].commits) == 1


@pytest.mark.parametrize(
    "request_of",
    [
        "GET /api/datasets/org/foxes$",
        "POST .*/preupload/",
        "objects/batch",
        "PUT /lfs/",
        "verify",
        "tree/main",
    ],
)
def test_what_passes_is_waited_for(hub: HubServer, rendered: Render, request_of: str) -> None:
    hub.faults = [Fault(request_of, 503), Fault(request_of, 429, headers={"Retry-After": "0"})]
    push(rendered(4), REPOSITORY, options())
    assert set(hub.uploads.values()) == {1}
    assert not hub.faults


def test_a_cut_upload_is_made_again(hub: HubServer, rendered: Render) -> None:
    hub.faults = [Fault("PUT /lfs/", None)]
    output = rendered(4, layout="webdataset")
    push(output, REPOSITORY, options())
    assert hub.repos[REPOSITORY].files["00000.tar"] == (output.path / "00000.tar").read_bytes()


def test_a_commit_that_is_too_large_becomes_two(hub: HubServer, rendered: Render) -> None:
    hub.faults = [Fault(COMMIT, 413, "too many operations")]
    pushed = push(rendered(8, layout="webdataset"), REPOSITORY, options())
    first, second = hub.repos[REPOSITORY].commits
    assert len(first) + len(second) == pushed.files
    assert pushed.commits == 2


def test_a_file_that_the_repository_ignores_is_not_called_pushed(hub: HubServer, rendered: Render) -> None:
    hub.ignored = "job.json"
    said = _trouble(rendered(4))
    assert "1 file not there after the commit (job.json)" in said and ".gitignore" in said


def test_what_was_committed_before_a_failure_is_said_and_is_not_sent_again(
    hub: HubServer, rendered: Render, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("producer.push.commits.FILES", 2)
    monkeypatch.setattr("producer.push.commits.MOST", 3)
    output = rendered(12, layout="webdataset")
    seen = []

    def fail_later(request: str) -> None:
        if request.startswith("POST /api/datasets/org/foxes/commit"):
            seen.append(request)
            if len(seen) == 2:
                hub.faults = [Fault(COMMIT, 400, "no more today")] * 4

    hub.before = fail_later
    assert "(committed so far: 2 files in 1 commit)" in _trouble(output)
    hub.faults, hub.before = [], lambda request: None

    push(output, REPOSITORY, options())

    paths = [path for commit in hub.repos[REPOSITORY].commits for path in commit]
    assert sorted(paths) == sorted(set(paths)) == sorted(hub.repos[REPOSITORY].files)
    assert set(hub.uploads.values()) == {1}


def test_a_hub_without_xet_is_told_with_the_switch(
    hub: HubServer, rendered: Render, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", False)
    said = _trouble(rendered(4))
    assert "the hub answers 404" in said and "HF_HUB_DISABLE_XET=1 uploads without Xet" in said
