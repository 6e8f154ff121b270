"""What a push leaves in a repository, and what it does not send again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Image, load_dataset

from jobs.errors import HubError, OutputError
from jobs.output.card import MARK
from jobs.output.output import Output
from producer.push.push import push
from producer.push.report import report
from tests.hub_server import HubServer, Repo
from tests.object_store.breakable_store import BreakableStore
from tests.object_store.fault import Action, Fault, Kind
from tests.producer.push.hasty import REPOSITORY, options

Render = Callable[..., Output]


def _bytes_of(output: Output) -> list[bytes]:
    """The output's pictures, in order."""
    names = [(shard, {record["file_name"]}) for shard in output.shards() for record in output.records(shard)]
    return [data for shard, name in names for _, data in output.pictures(shard, name)]


def _loaded(folder: Path, column: str) -> list[bytes]:
    """The pictures that `datasets` reads from a copy of a repository."""
    dataset = load_dataset(str(folder), split="train", cache_dir=str(folder.parent / "cache"))
    return [one[column]["bytes"] for one in dataset.cast_column(column, Image(decode=False))]


@pytest.mark.parametrize(("layout", "column"), [("webdataset", "png"), ("files", "image")])
def test_load_dataset_reads_the_pictures_of_the_repository_byte_for_byte(
    hub: HubServer, rendered: Render, tmp_path: Path, layout: str, column: str
) -> None:
    output = rendered(12, (5,), layout=layout)

    pushed = push(output, REPOSITORY, options())

    assert _loaded(hub.download(REPOSITORY, tmp_path / "copy"), column) == _bytes_of(output)
    assert (pushed.images, pushed.failed, pushed.commits, pushed.private) == (11, 1, 1, True)
    assert json.loads(hub.repos[REPOSITORY].files["failures.jsonl"])["reason"] == "black"


def test_tars_go_up_as_they_are_and_a_copy_of_the_repository_is_an_output(
    hub: HubServer, rendered: Render, tmp_path: Path
) -> None:
    output = rendered(8, layout="webdataset")
    push(output, REPOSITORY, options())

    copy = Output(hub.download(REPOSITORY, tmp_path / "copy"))

    for name in ("00000.tar", "00000.parquet", "00001.tar", "00001.parquet", "job.json"):
        assert (copy.path / name).read_bytes() == (output.path / name).read_bytes()
    assert list(copy.records(1)) == list(output.records(1))


def test_nothing_of_imagemills_own_folder_goes_up(hub: HubServer, rendered: Render) -> None:
    push(rendered(4), REPOSITORY, options())
    assert not [path for path in hub.repos[REPOSITORY].files if path.startswith(".")]


@pytest.mark.parametrize("layout", ["webdataset", "files"])
def test_pushing_again_sends_nothing(hub: HubServer, rendered: Render, layout: str) -> None:
    output = rendered(8, layout=layout)
    push(output, REPOSITORY, options())
    before = dict(hub.uploads)

    again = push(output, REPOSITORY, options())

    assert (again.files, again.bytes, again.commits) == (0, 0, 0)
    assert again.there == len(hub.repos[REPOSITORY].files)
    assert dict(hub.uploads) == before
    assert hub.times("POST .*/commit/.*") == 1


@pytest.mark.parametrize("layout", ["webdataset", "files"])
def test_after_a_top_up_only_what_is_new_goes_up(
    hub: HubServer, rendered: Render, add_shard: Callable[..., None], tmp_path: Path, layout: str
) -> None:
    output = rendered(8, layout=layout)
    push(output, REPOSITORY, options())
    # Another column, of a nested kind, leaves the parquets of the first shards as they are.
    add_shard(output, 2, {"boxes": [{"x": 1}], "split": "test"}, layout)

    push(output, REPOSITORY, options())

    first, second = hub.repos[REPOSITORY].commits
    assert not {path for path in first if "0000" in path} & set(second)
    assert {path for path in second if "00002" in path} == {path for path in second if "0000" in path}
    assert set(hub.uploads.values()) == {1}
    column = "png" if layout == "webdataset" else "image"
    assert _loaded(hub.download(REPOSITORY, tmp_path / "copy"), column) == _bytes_of(output)


def test_equal_outputs_give_equal_parquets(
    hub: HubServer, rendered: Render, tmp_path_factory: pytest.TempPathFactory
) -> None:
    output = rendered(8)
    push(output, "org/one", options())
    moved = output.path.rename(tmp_path_factory.mktemp("elsewhere") / "other")

    push(Output(moved), "org/two", options())

    one, two = (hub.repos[name].files for name in ("org/one", "org/two"))
    parquets = [path for path in one if path.startswith("data/")]
    assert len(parquets) == 2
    assert [one[path] for path in parquets] == [two[path] for path in parquets]
    assert {hub.uploads[digest] for digest in hub.repos["org/two"].large.values()} == {1}


def test_a_parquet_of_the_repository_is_a_source_of_exports(
    hub: HubServer, rendered: Render, tmp_path: Path
) -> None:
    from jobs.settings import load_settings
    from producer.export.export import write_export

    output = rendered(4)
    push(output, REPOSITORY, options())
    [parquet] = hub.download(REPOSITORY, tmp_path / "copy").glob("data/*.parquet")

    write_export(parquet, tmp_path / "back", "files", load_settings())

    assert _bytes_of(Output(tmp_path / "back")) == _bytes_of(output)


def test_tars_can_go_up_as_parquets(hub: HubServer, rendered: Render, tmp_path: Path) -> None:
    output = rendered(4, layout="webdataset")
    assert push(output, REPOSITORY, options(to="parquet")).to == "parquet"
    assert _loaded(hub.download(REPOSITORY, tmp_path / "copy"), "image") == _bytes_of(output)


def test_pictures_in_folders_do_not_go_up_as_tars(hub: HubServer, rendered: Render) -> None:
    with pytest.raises(OutputError, match=r"pictures in folders: push with --to parquet, or push a copy"):
        push(rendered(4), REPOSITORY, options(to="webdataset"))
    assert not hub.repos


def test_the_two_forms_do_not_meet_in_one_repository(hub: HubServer, rendered: Render) -> None:
    output = rendered(4, layout="webdataset")
    push(output, REPOSITORY, options())

    with pytest.raises(HubError, match=r"holds tars \(00000\.parquet, 00000\.tar\).*--to webdataset"):
        push(output, REPOSITORY, options(to="parquet"))
    push(output, REPOSITORY, options(to="parquet", overwrite=True))

    assert not [path for path in hub.repos[REPOSITORY].files if path.endswith(".tar")]
    assert [path for path in hub.repos[REPOSITORY].files if path.startswith("data/")]


def test_another_outputs_shards_are_replaced_only_when_that_is_asked_for(
    hub: HubServer, rendered: Render
) -> None:
    output = rendered(8, layout="webdataset")
    repo = hub.repos[REPOSITORY] = Repo(private=True)
    repo.files.update({"00000.tar": b"another", "00007.tar": b"more"})

    with pytest.raises(HubError, match=r"org/foxes: .*other shards of these numbers \(00000\.tar\)"):
        push(output, REPOSITORY, options())
    assert repo.files["00000.tar"] == b"another"
    push(output, REPOSITORY, options(overwrite=True))

    assert repo.files["00000.tar"] == (output.path / "00000.tar").read_bytes()
    assert "00007.tar" not in repo.files


def test_files_and_shards_of_others_stay_and_are_named(hub: HubServer, rendered: Render) -> None:
    repo = hub.repos[REPOSITORY] = Repo(private=False)
    repo.files.update({"notes.txt": b"mine", "00009.tar": b"of a former output"})

    pushed = push(rendered(4, layout="webdataset"), REPOSITORY, options())

    assert repo.files["notes.txt"] == b"mine"
    assert "1 file of others stay in the repository (notes.txt)" in pushed.notes
    assert any("(00009.tar): --overwrite removes them" in note for note in pushed.notes)
    assert "org/foxes is public already" in pushed.notes


def test_a_card_of_the_users_in_the_repository_stays(hub: HubServer, rendered: Render) -> None:
    repo = hub.repos[REPOSITORY] = Repo(private=True)
    repo.files["README.md"] = b"# My foxes"

    pushed = push(rendered(4), REPOSITORY, options())

    assert repo.files["README.md"] == b"# My foxes"
    assert any(note.startswith("README.md in the repository is a text of its own") for note in pushed.notes)


def test_a_card_of_ours_follows_the_output(
    hub: HubServer, rendered: Render, add_shard: Callable[..., None]
) -> None:
    output = rendered(4)
    push(output, REPOSITORY, options())
    add_shard(output, 1, {})
    push(output, REPOSITORY, options())

    card = hub.repos[REPOSITORY].files["README.md"].decode()
    assert MARK in card
    assert "6 pictures from texts" in card
    assert 'load_dataset("org/foxes", split="train"' in card
    assert "path: data/*.parquet" in card


def test_a_repository_is_public_and_on_a_branch_where_that_is_asked_for(
    hub: HubServer, rendered: Render
) -> None:
    output = rendered(4)

    pushed = push(output, REPOSITORY, options(public=True, branch="small"))

    repo = hub.repos[REPOSITORY]
    assert not repo.private and not pushed.private
    assert not repo.files
    assert 'revision="small"' in repo.branches["small"]["README.md"].decode()


def test_a_dry_run_says_files_bytes_and_commits_and_changes_nothing(
    hub: HubServer, rendered: Render, capsys: pytest.CaptureFixture[str]
) -> None:
    output = rendered(8, layout="webdataset")

    would = push(output, REPOSITORY, options(dry_run=True))
    report(would)

    assert not hub.repos and not hub.times("PUT|POST")
    assert "org/foxes (private): would push 6 files" in capsys.readouterr().out
    done = push(output, REPOSITORY, options())
    assert (would.files, would.bytes, would.commits) == (done.files, done.bytes, done.commits)


def test_a_dry_run_without_a_token_says_what_it_could_not_ask(
    hub: HubServer, rendered: Render, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    hub.repos[REPOSITORY] = Repo(private=True)

    would = push(rendered(4), REPOSITORY, options(dry_run=True))

    assert any("is not there, or is private: without a token" in note for note in would.notes)
    with pytest.raises(HubError, match=r"no token of the hub: set HF_TOKEN, or log in"):
        push(Output(Path(would.output)), REPOSITORY, options())


def test_what_a_job_has_committed_so_far_goes_up_and_the_job_is_named(
    hub: HubServer, rendered: Render
) -> None:
    output = rendered(8)
    (output.path / "job.json").unlink()

    pushed = push(output, REPOSITORY, options())

    assert pushed.images == 8
    assert any(note.startswith("foxes-1 has not written its report") for note in pushed.notes)


def test_a_tar_whose_parquet_is_not_made_yet_goes_up(hub: HubServer, rendered: Render) -> None:
    output = rendered(4, layout="webdataset")
    (output.path / "00000.parquet").unlink()
    push(output, REPOSITORY, options())
    assert "00000.tar" in hub.repos[REPOSITORY].files


@pytest.mark.parametrize("layout", ["webdataset", "files"])
def test_a_damaged_shard_is_refused_with_doctor_and_those_before_it_are_sound(
    hub: HubServer, rendered: Render, layout: str
) -> None:
    output = rendered(8, layout=layout)
    file = output.path / ("00001.tar" if layout == "webdataset" else "00001/000010002.png")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)

    with pytest.raises(OutputError, match=r"out/00001.*: `imagemill doctor .*` names all that is wrong"):
        push(output, REPOSITORY, options())


def test_large_files_go_up_in_parts(hub: HubServer, rendered: Render, tmp_path: Path) -> None:
    hub.part_size = 5_000
    output = rendered(4, layout="webdataset")
    push(output, REPOSITORY, options())
    assert hub.times("PUT /lfs/[0-9a-f]+/2") and hub.times("POST /lfs/[0-9a-f]+/complete")
    assert hub.repos[REPOSITORY].files["00000.tar"] == (output.path / "00000.tar").read_bytes()


def test_columns_whose_records_differ_come_back_whole(
    hub: HubServer, rendered: Render, add_shard: Callable[..., None], tmp_path: Path
) -> None:
    output = rendered(4)
    given: list[dict[str, Any]] = [{"weight": 1, "note": {"a": 1}}, {"weight": 0.5, "note": {"b": "x"}}]
    for shard, columns in enumerate(given, 1):
        add_shard(output, shard, columns)
    push(output, REPOSITORY, options())

    copy = hub.download(REPOSITORY, tmp_path / "copy")
    dataset = load_dataset(str(copy), split="train", cache_dir=str(tmp_path / "cache"))

    assert dataset["weight"][:] == [None] * 4 + [1, 1, 0.5, 0.5]
    assert dataset["note"][-1] == {"a": None, "b": "x"}
    assert dataset[0]["image"].size == (64, 64)


def test_an_output_in_a_bucket_goes_up_as_one_in_a_folder_does(
    hub: HubServer, rendered: Render, bucket: str
) -> None:
    local = rendered(8, (5,), layout="webdataset")
    far = Output.at(f"s3://{bucket}/foxes")
    for file in local.path.rglob("*"):
        if file.is_file():
            far.store.replace(file.relative_to(local.path).as_posix(), file.read_bytes())
    push(local, "org/local", options())

    pushed = push(far, "org/far", options())
    again = push(far, "org/far", options())

    assert (pushed.output, pushed.images, pushed.commits) == (f"s3://{bucket}/foxes", 7, 1)
    assert again.files == 0
    one, other = (hub.repos[name].files for name in ("org/local", "org/far"))
    assert one.keys() == other.keys()
    assert all(one[path] == other[path] for path in one if path != "README.md")


def test_a_bucket_that_refuses_is_told_with_what_to_check(
    hub: HubServer, rendered: Render, bucket: str, object_store: BreakableStore
) -> None:
    output = rendered(4, layout="webdataset", place=f"s3://{bucket}/foxes")
    for keys in (".*", r"foxes/00000\.tar"):
        object_store.order(Fault(Action.ANSWER, frozenset({Kind.GET, Kind.LIST}), keys=keys, status=403))
        with pytest.raises(OutputError, match=r"cannot be read .*check the bucket's name") as raised:
            push(output, REPOSITORY, options())
        assert "doctor" not in str(raised.value)
        object_store.withdraw()
    assert not hub.repos
