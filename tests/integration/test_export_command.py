"""`imagemill export` on what a real `imagemill run` left: every form, orphans, refusals, stops."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from jobs.output.output import Output
from tests.trouble import TROUBLED
from tests.waiting import LONGEST
from tests.warm_python import BIN, warm_imagemill

TEXTS = [
    "",
    "naïve 狐 🦊👩‍👩‍👧",
    "one\ntwo\r\n",
    'quotes ", and \\',
    "x" * 10_000,
    *(f"fox {n}" for n in range(14)),
]


class Mill:
    """A folder with a manifest of the stand-in model, and `imagemill` with no Redis configured."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.output = folder, Output((folder / "out").resolve())

    def manifest(self, texts: list[str], *, failing: bool = True) -> Path:
        """The manifest with these prompts, in place of the one before; `failing`: and one that fails."""
        given = {
            "name": "foxes", "model": "instant", "output": str(self.output.path), "shard_size": 8,
            "settings": {"height": 64, "width": 64},
            "prompts": [
                *({"prompt": text, "columns": {"letters": len(text)}} for text in texts),
                *(["!raise"] if failing else []),
            ],
        }  # fmt: skip
        file = self.folder / "foxes.yaml"
        file.write_text(json.dumps(given, ensure_ascii=False), encoding="utf-8")
        return file

    def command(self, *arguments: str | Path) -> tuple[list[str | Path], dict[str, str]]:
        """`imagemill ARGUMENTS` and its environment."""
        settings = {"MIN_FREE_DISK": "0", "RUNTIME_DIR": str(self.folder / "runtime"), "TORCH_THREADS": "1"}
        given = {f"IMAGEMILL_{name}": value for name, value in settings.items()}
        return [BIN / "imagemill", *arguments], {**os.environ, **given, **TROUBLED}

    def call(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """`imagemill ARGUMENTS`, to its end."""
        _, environment = self.command(*arguments)
        return warm_imagemill().call(
            [BIN / "imagemill", *arguments], cwd=self.folder, env=environment, timeout=2 * LONGEST
        )

    def export(self, target: str, *options: str | Path, source: str = "out") -> dict[str, object]:
        """What `imagemill export SOURCE TARGET OPTIONS` says of itself."""
        done = self.call("export", source, target, *options, "--json")
        assert (done.returncode, done.stderr) == (0, "")
        found = json.loads(done.stdout)
        assert isinstance(found, dict)
        return found

    def files(self, folder: str) -> dict[str, bytes]:
        root = self.folder / folder
        return {str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def mill(tmp_path_factory: pytest.TempPathFactory) -> Mill:
    mill = Mill(tmp_path_factory.mktemp("mill"))
    ended = mill.call("run", mill.manifest(TEXTS), "--gpus", "none")
    assert ended.returncode == 1, ended.stderr
    return mill


def texts_of(output: Output) -> list[str]:
    return [row["text"] for shard in output.shards() for row in output.records(shard)]


def test_every_form_holds_every_picture_and_equal_exports_are_equal_bytes(mill: Mill) -> None:
    known = {
        "output": str(mill.output.path), "images": 19, "failed": 1, "orphans": 0, "missing": 0, "skipped": 0,
        "skipped_rows": [], "prompts": None, "pages": None, "remarks": [],
    }  # fmt: skip
    for to, shards in (("files", 4), ("webdataset", 4)):
        target = mill.folder / to
        report = mill.export(to, "--to", to, "--shard-size", "5")
        assert report == {**known, "to": to, "target": str(target), "shards": shards}
        assert texts_of(Output(target)) == texts_of(mill.output)
        mill.export(f"{to}-2", "--to", to, "--shard-size", "5")
        assert mill.files(f"{to}-2") == mill.files(to)
        diagnosis = mill.call("doctor", target)
        assert diagnosis.returncode == 0, diagnosis.stdout
    report = mill.export("foxes.parquet", "--to", "parquet")
    assert report == {**known, "to": "parquet", "target": str(mill.folder / "foxes.parquet"), "shards": None}
    table = pyarrow.parquet.read_table(mill.folder / "foxes.parquet")
    assert table["text"].to_pylist() == texts_of(mill.output)
    pictures = {file.read_bytes() for file in mill.output.path.glob("0*/*.png")}
    assert {one["bytes"] for one in table["image"].to_pylist()} == pictures
    assert len(pictures) == 19
    mill.export("foxes-2.parquet", "--to", "parquet")
    assert mill.files(".")["foxes-2.parquet"] == mill.files(".")["foxes.parquet"]
    mill.export("table.parquet", "--to", "parquet", "--no-pictures")
    bare = pyarrow.parquet.read_table(mill.folder / "table.parquet")
    assert bare.equals(table.drop_columns(["image"]))


def test_what_other_programs_read_is_the_same_from_every_source_and_each_time(mill: Mill) -> None:
    mill.export("consumed", "--to", "webdataset")
    mill.export("consumed.parquet", "--to", "parquet")
    forms = {
        "flat": (("--to", "flat", "--name", "{index:03d}-{letters}"), 19),
        "captions": (("--to", "captions"), 38),
        "grid": (("--to", "grid", "--x", "scheduler", "--name", "{index}"), 19),
        "plain": (("--to", "grid", "--plain"), 19),
    }
    for name, (options, files) in forms.items():
        said = mill.export(name, *options)
        pages = 19 if "grid" in options else None
        assert (said["images"], said["shards"], said["pages"]) == (19, None, pages)
        assert len(mill.files(name)) == files
        for number, source in enumerate(("out", "consumed", "consumed.parquet")):
            mill.export(f"{name}-{number}", *options, source=source)
            assert mill.files(f"{name}-{number}") == mill.files(name)
    pictures = sorted(file.read_bytes() for file in mill.output.path.glob("0*/*.png"))
    assert sorted(mill.files("flat").values()) == pictures
    assert mill.files("flat")["001-14.png"] in pictures
    texts = {name: data for name, data in mill.files("captions").items() if name.endswith(".txt")}
    captions = [texts[name].decode() for name in sorted(texts)]
    assert captions == [f"{' '.join(text.splitlines())}\n" for text in TEXTS]
    current = ("--only-current", mill.manifest(TEXTS[:10], failing=False))
    assert mill.export("flat-now", "--to", "flat", *current)["orphans"] == 9
    assert sorted(mill.files("flat-now")) == [f"{number:09d}.png" for number in range(10)]
    said = mill.call("export", "out", "said-flat", "--to", "captions", *current)
    assert said.stdout.endswith("; 1 prompt of several lines written on one\n")


def test_after_a_top_up_names_and_pages_follow_the_newest_manifest(tmp_path: Path) -> None:
    mill = Mill(tmp_path)
    for texts in (["b", "d"], ["a", "b", "c", "d"]):
        ended = mill.call("run", mill.manifest(texts, failing=False), "--gpus", "none")
        assert ended.returncode == 0, ended.stderr
    mill.export("flat", "--to", "flat", "--name", "{index}-{prompt}")
    mill.export("pages", "--to", "grid", "--plain", "--name", "{index}-{prompt}")
    names = ["0-a.png", "1-b.png", "2-c.png", "3-d.png"]
    assert sorted(mill.files("flat")) == sorted(mill.files("pages")) == names
    written = {
        record["text"]: (shard.parent / record["file_name"]).read_bytes()
        for shard in mill.output.path.glob("0*/metadata.jsonl")
        for record in map(json.loads, shard.read_text("utf-8").splitlines())
    }
    assert mill.files("flat") == {f"{index}-{text}.png": written[text] for index, text in enumerate("abcd")}


def test_only_current_leaves_out_what_the_manifest_no_longer_asks_for(mill: Mill) -> None:
    manifest = mill.manifest([*TEXTS[:10], "a new fox"])
    for to in ("files", "webdataset", "parquet"):
        target = f"current-{to}.parquet" if to == "parquet" else f"current-{to}"
        report = mill.export(target, "--to", to, "--only-current", manifest)
        assert [report[name] for name in ("images", "orphans", "missing", "failed")] == [10, 9, 1, 1]
        if to == "parquet":
            table = pyarrow.parquet.read_table(mill.folder / target)
            assert table["text"].to_pylist() == TEXTS[:10]
        else:
            assert texts_of(Output(mill.folder / target)) == TEXTS[:10]
    said = mill.call("export", "out", "said", "--to", "files", "--only-current", manifest)
    left_out = "left out 9 images that the manifest does not ask for"
    lacking = "1 image of the manifest missing"
    assert said.stdout == f"{mill.folder / 'said'}: 10 images in 1 shard; {left_out}; {lacking}; 1 failed\n"
    manifest = mill.manifest(TEXTS[:10], failing=False)
    report = mill.export("whole", "--to", "files", "--only-current", manifest)
    assert [report[name] for name in ("images", "orphans", "missing", "failed")] == [10, 9, 0, 0]
    nothing = mill.call("export", "out", "none", "--to", "files", "--only-current", mill.manifest(["other"]))
    assert (nothing.returncode, (mill.folder / "none").exists()) == (2, False)
    assert "holds no picture that" in nothing.stderr


def test_a_parquet_goes_back_into_every_form_with_every_byte(mill: Mill) -> None:
    mill.export("back.parquet", "--to", "parquet")
    known = {
        "output": str(mill.folder / "back.parquet"), "images": 19, "failed": 0, "orphans": 0, "missing": 0,
        "skipped": 0, "skipped_rows": [], "prompts": None, "pages": None, "remarks": [],
    }  # fmt: skip
    for to in ("files", "webdataset"):
        mill.export(f"straight-{to}", "--to", to, "--shard-size", "5")
        report = mill.export(f"back-{to}", "--to", to, "--shard-size", "5", source="back.parquet")
        assert report == {**known, "to": to, "target": str(mill.folder / f"back-{to}"), "shards": 4}
        assert mill.files(f"back-{to}") == mill.files(f"straight-{to}")
        diagnosis = mill.call("doctor", f"back-{to}")
        assert diagnosis.returncode == 0, diagnosis.stdout
    report = mill.export("again.parquet", "--to", "parquet", source="back.parquet")
    assert report == {**known, "to": "parquet", "target": str(mill.folder / "again.parquet"), "shards": None}
    mill.export("through.parquet", "--to", "parquet", source="back-webdataset")
    mill.export("bare.parquet", "--to", "parquet", "--no-pictures", source="back.parquet")
    mill.export("straight-bare.parquet", "--to", "parquet", "--no-pictures")
    files = mill.files(".")
    assert files["again.parquet"] == files["back.parquet"]
    assert files["bare.parquet"] == files["straight-bare.parquet"]
    numbered_anew = pyarrow.parquet.read_table(mill.folder / "through.parquet")
    changed = ["image", "file_name"]
    straight = pyarrow.parquet.read_table(mill.folder / "back.parquet")
    assert numbered_anew.drop_columns(changed).equals(straight.drop_columns(changed))


def test_only_current_leaves_out_of_a_parquet_what_it_leaves_out_of_an_output(mill: Mill) -> None:
    manifest = mill.manifest([*TEXTS[:10], "a new fox"])
    mill.export("all.parquet", "--to", "parquet")
    options = ("--to", "files", "--only-current", manifest)
    report = mill.export("parquet-now", *options, source="all.parquet")
    # A parquet holds no failures: what failed counts as missing.
    assert [report[name] for name in ("images", "orphans", "missing", "failed")] == [10, 9, 2, 0]
    mill.export("output-now", *options)
    assert mill.files("parquet-now") == mill.files("output-now")
    other = mill.manifest(["other"])
    nothing = mill.call("export", "all.parquet", "none", "--to", "files", "--only-current", other)
    assert (nothing.returncode, (mill.folder / "none").exists()) == (2, False)
    assert "all.parquet: holds no picture that" in nothing.stderr


def test_a_parquet_that_does_not_come_back_is_refused_and_leaves_nothing(mill: Mill) -> None:
    mill.export("whole.parquet", "--to", "parquet")
    mill.export("pictureless.parquet", "--to", "parquet", "--no-pictures")
    mill.export("tars", "--to", "webdataset")
    table = pyarrow.parquet.read_table(mill.folder / "whole.parquet")
    doubled = pyarrow.concat_tables([table, table.slice(3, 1)])
    pyarrow.parquet.write_table(doubled, mill.folder / "doubled.parquet")
    pyarrow.parquet.write_table(table.slice(0, 0), mill.folder / "empty.parquet")
    pyarrow.parquet.write_table(table.replace_schema_metadata(None), mill.folder / "older.parquet")
    before = sorted(mill.folder.iterdir())
    for source, wrong in [
        ("pictureless.parquet", "pictureless.parquet: holds no pictures in a column 'image'; name an output"),
        ("tars/00000.parquet", "00000.parquet: holds no pictures in a column 'image'; name an output"),
        ("foxes.yaml", "foxes.yaml: cannot be read as a parquet"),
        ("older.parquet", "older.parquet: has no mark that its rows are exact"),
        ("doubled.parquet", f"doubled.parquet: image {table['image_id'][3]} is there twice; nothing was"),
        ("empty.parquet", "empty.parquet: holds no picture to export"),
    ]:
        done = mill.call("export", source, "new", "--to", "files")
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(f"error: {mill.folder}/")
        assert wrong in done.stderr
        assert "doctor" not in done.stderr
    itself = mill.call("export", "whole.parquet", "whole.parquet", "--to", "parquet")
    assert (itself.returncode, "is the export's own source" in itself.stderr) == (2, True)
    assert sorted(mill.folder.iterdir()) == before


def test_what_cannot_be_done_is_refused_and_leaves_nothing(mill: Mill) -> None:
    before = sorted(mill.folder.iterdir())
    for arguments, wrong in [
        (["out", "out/new", "--to", "files"], "is inside the output"),
        (["out", ".", "--to", "files"], "already exists"),
        (["out", "no/new", "--to", "webdataset"], "there is no folder"),
        (["out", "new", "--to", "files", "--no-pictures"], "--no-pictures"),
        (["out", "new", "--to", "parquet", "--shard-size", "5"], "--shard-size"),
        (["runtime", "new", "--to", "files"], "holds no picture to export"),
        (["out", "new", "--to", "files", "--only-current", "none.yaml"], "none.yaml"),
        (["out", "new", "--to", "files", "--name", "{id}"], "--name: is for --to flat or captions or grid"),
        (["out", "new", "--to", "flat", "--x", "seed"], "--x: is for --to grid"),
        (["out", "new", "--to", "flat", "--name", "{id}.png"], "has no id: use {index}"),
        (["out", "new", "--to", "flat", "--name", "{model}"], "add {index} to --name"),
        (["out", "new", "--to", "grid", "--x", "seed", "--y", "seed"], "must be two columns"),
        (["out", "new", "--to", "grid", "--plain", "--page", "model"], "an empty cell"),
        (["out", "new", "--to", "geneval"], "has no tag"),
    ]:
        done = mill.call("export", *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("error: ")
        assert wrong in done.stderr
    assert sorted(mill.folder.iterdir()) == before


def test_a_broken_picture_stops_every_form_and_leaves_nothing(tmp_path: Path, mill: Mill) -> None:
    mill.export(str(tmp_path / "out"), "--to", "files")
    picture = next(tmp_path.glob("out/0*/*.png"))
    picture.write_bytes(picture.read_bytes()[:-1])
    before = sorted(tmp_path.iterdir())
    for to in ("files", "webdataset", "parquet", "flat", "captions", "grid"):
        target = "new.parquet" if to == "parquet" else "new"
        done = mill.call("export", tmp_path / "out", tmp_path / target, "--to", to)
        assert done.returncode == 2
        assert picture.name in done.stderr
        assert f"`imagemill doctor {tmp_path / 'out'}`" in done.stderr
    assert sorted(tmp_path.iterdir()) == before


def many(folder: Path, one: Path) -> None:
    """An output of 4,000 images, all with the file `one`, so that to export it takes a while."""
    row = json.loads((one.parent / "metadata.jsonl").read_text().splitlines()[0])
    for shard in range(20):
        here = folder / f"{shard:05d}"
        here.mkdir(parents=True)
        rows = []
        for place in range(200):
            name, image_id = f"{shard:05d}{place:04d}.png", f"{shard * 200 + place:016x}"
            os.link(one, here / name)
            rows.append(json.dumps({**row, "file_name": name, "image_id": image_id}) + "\n")
        (here / "metadata.jsonl").write_text("".join(rows))


@pytest.fixture(scope="module")
def large(mill: Mill, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("large")
    mill.export(str(folder / "one"), "--to", "files")
    many(folder / "out", folder / "one/00000/000000000.png")
    return folder / "out"


def begun(mill: Mill, source: Path, target: Path, to: str) -> subprocess.Popen[str]:
    """An export that has begun to write, and stands still."""
    command, environment = mill.command("export", source, target, "--to", to)
    before = {*target.parent.iterdir()}
    process = warm_imagemill().popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + LONGEST
    while not any(entry for entry in target.parent.iterdir() if entry not in before and any(entry.iterdir())):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGSTOP)
    assert not target.exists(), "it was over before it could be stopped"
    return process


def end(process: subprocess.Popen[str], number: signal.Signals) -> str:
    """Sends a signal to what stands still, and lets it go on to its end; returns what it said."""
    process.send_signal(number)
    process.send_signal(signal.SIGCONT)
    _, found = process.communicate(timeout=LONGEST)
    return found


@pytest.mark.parametrize(
    ("to", "number"),
    [
        ("files", signal.SIGINT),
        ("files", signal.SIGTERM),
        ("webdataset", signal.SIGINT),
        ("parquet", signal.SIGTERM),
        ("flat", signal.SIGINT),
        ("captions", signal.SIGTERM),
        ("grid", signal.SIGINT),
    ],
)
def test_a_stop_leaves_nothing_and_says_so(
    tmp_path: Path, mill: Mill, large: Path, to: str, number: signal.Signals
) -> None:
    before = sorted(tmp_path.iterdir())
    with begun(mill, large, tmp_path / "new", to) as process:
        found = end(process, number)
    assert process.returncode == 130
    assert found == f"error: {tmp_path / 'new'}: stopped before the end; nothing was left there\n"
    assert sorted(tmp_path.iterdir()) == before


def test_a_stop_while_a_parquet_is_read_leaves_nothing_and_says_so(
    tmp_path: Path, mill: Mill, large: Path
) -> None:
    made = mill.call("export", large, tmp_path / "large.parquet", "--to", "parquet")
    assert made.returncode == 0, made.stderr
    before = sorted(tmp_path.iterdir())
    with begun(mill, tmp_path / "large.parquet", tmp_path / "new", "files") as process:
        found = end(process, signal.SIGINT)
    assert process.returncode == 130
    assert found == f"error: {tmp_path / 'new'}: stopped before the end; nothing was left there\n"
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("to", ["files", "parquet"])
def test_what_a_killed_export_left_goes_with_the_next_but_not_what_one_is_writing(
    tmp_path: Path, mill: Mill, large: Path, to: str
) -> None:
    target = tmp_path / "new"
    with begun(mill, large, target, to) as killed:
        killed.kill()
        killed.communicate(timeout=LONGEST)
    (left,) = tmp_path.glob(".new.*.export")
    stranger = tmp_path / ".new.0123456789ab.export.txt"
    stranger.touch()
    with begun(mill, large, target, to) as process:
        (mine,) = tmp_path.glob(".new.*.export")
        assert mine != left
        # Another export to the same target leaves what this one writes alone.
        other = mill.call("export", mill.output.path, target, "--to", to)
        assert other.returncode == 0, other.stderr
        assert mine.exists()
        end(process, signal.SIGTERM)
    assert [*tmp_path.glob(".new*")] == [stranger]
    assert target.exists()


def test_rows_that_a_manifest_skips_are_reported(mill: Mill) -> None:
    (mill.folder / "rows.csv").write_text("prompt,width\nfox 1,64\nfox 2,65\nfox 3,64\n")
    manifest = mill.folder / "rows.yaml"
    given = {
        "name": "foxes", "model": "instant", "output": str(mill.output.path), "prompts_from": "rows.csv",
        "on_bad_row": "skip", "settings": {"height": 64, "width": 64},
    }  # fmt: skip
    manifest.write_text(json.dumps(given))
    row = f"{mill.folder / 'rows.csv'}:3: width = 65: must be a multiple of 8 (64 or 72)"
    said = mill.call("export", "out", "skipped", "--to", "files", "--only-current", manifest)
    assert said.stdout.endswith("; 1 row of the manifest skipped\n")
    assert said.stderr == f"skipped: {row}\n"
    as_json = mill.export("skipped-2", "--to", "files", "--only-current", manifest)
    assert (as_json["images"], as_json["skipped"], as_json["skipped_rows"]) == (2, 1, [row])


def test_an_image_that_is_there_twice_is_named(tmp_path: Path, mill: Mill) -> None:
    mill.export(str(tmp_path / "out"), "--to", "files", "--shard-size", "10")
    lines = (tmp_path / "out/00000/metadata.jsonl").read_text().splitlines(keepends=True)
    with (tmp_path / "out/00001/metadata.jsonl").open("a") as file:
        file.write(lines[3])
    done = mill.call("export", tmp_path / "out", tmp_path / "new", "--to", "files")
    image_id = json.loads(lines[3])["image_id"]
    assert done.returncode == 2
    assert f"image {image_id} is there twice" in done.stderr
    assert "imagemill doctor" in done.stderr


def test_exporting_loads_neither_torch_nor_celery_and_files_need_no_pyarrow(
    mill: Mill, tmp_path: Path
) -> None:
    code = (
        "import sys; sys.modules['pyarrow'] = None; sys.argv[1:] = sys.argv[1:]\n"
        "from producer.cli import main\n"
        "try:\n    main()\n"
        "finally:\n    print(*sorted({name.partition('.')[0] for name in sys.modules}))\n"
    )
    call = [sys.executable, "-c", code, "export", mill.output.path, tmp_path / "new", "--to"]
    done = subprocess.run([*call, "files"], capture_output=True, text=True, check=True)
    assert "producer" in done.stdout.split()
    assert not set(done.stdout.split()) & {"torch", "diffusers", "celery", "PIL", "numpy", "worker"}
    (tmp_path / "foxes.parquet").touch()
    from_parquet = [*call[:4], tmp_path / "foxes.parquet", tmp_path / "newer", "--to", "files"]
    for refused in ([*call, "parquet"], from_parquet):
        done = subprocess.run(refused, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert "pip install 'imagemill[parquet]'" in done.stderr
