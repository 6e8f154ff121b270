"""A plan shows what a submission would do, by what is really on disk and in Redis, and writes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from pydantic import SecretStr

from jobs.errors import ManifestError, OutputError
from jobs.ledger.job import JobSpec, SlotsKey
from jobs.ledger.ledger import Ledger
from jobs.output.output import Output
from jobs.output.shard_names import FLAT
from jobs.output.stored_shard import LayoutName
from jobs.settings import Settings
from producer.embedded_redis import EmbeddedRedis
from producer.manifest.manifest import load_manifest
from producer.plan.plan import MOST_ORPHANS, Plan, plan_submission
from producer.plan.report import listing, report, to_json
from producer.requests.prepared import prepare
from tests.expanded import expand
from tests.stand_ins import drawn
from worker.engine.renderer import RenderedBy
from worker.shard.store import ShardStore

RENDERED_BY = RenderedBy(precision="fp32", rows=16, device="cpu", versions={})
SIZE = SlotsKey("a card", "bf16", "instant-1", 64, 64)


class Desk:
    """A folder with a manifest and its output."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.file, self.output = folder, folder / "foxes.yaml", Output(folder / "out")

    def write(self, prompts: Sequence[object] | int, **keys: object) -> None:
        lines = [f"fox {n}" for n in range(prompts)] if isinstance(prompts, int) else prompts
        manifest = {
            "name": "foxes", "model": "instant", "output": str(self.output.path), "shard_size": 4,
            "settings": {"height": 64, "width": 64, "num_inference_steps": 10}, "prompts": lines,
        } | keys  # fmt: skip
        self.file.write_text(json.dumps(manifest, ensure_ascii=False))

    def render(self, layout: LayoutName = "files") -> None:
        """Renders all that the manifest asks for, in new shards."""
        self.output.prepare()
        manifest = load_manifest(self.file)
        entries, first = list(expand(manifest, manifest.resolve_model())), self.output.next_shard()
        for shard in range((len(entries) + 3) // 4):
            here = entries[shard * 4 : shard * 4 + 4]
            store = ShardStore(
                self.output, first + shard, "1-a", here, job_id="foxes-1", column_names=(), adopt_below=0,
                layout=layout,
            )  # fmt: skip
            for position, entry in enumerate(here):
                store.save(position, drawn(entry.request), RENDERED_BY)
            assert store.commit([])

    def plan(self, redis_url: str | None = None, **narrowing: int) -> Plan:
        settings = Settings(redis_url=None if redis_url is None else SecretStr(redis_url))  # type: ignore[call-arg]
        settings = settings.model_copy(update={"runtime_dir": self.folder / "runtime"})
        return plan_submission(prepare(self.file, settings, **narrowing), settings)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


Shown = Callable[[Plan], list[str]]


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str]) -> Shown:
    """The lines that a person is shown."""

    def lines(planned: Plan) -> list[str]:
        report(planned)
        return capsys.readouterr().out.splitlines()

    return lines


def figures(planned: Plan) -> tuple[int, int | None, int, int | None]:
    return planned.new, planned.changed, planned.survey.held, planned.orphaned


def test_with_neither_an_output_nor_redis_it_says_what_is_unknown(desk: Desk, shown: Shown) -> None:
    desk.write([f"fox {n}" for n in range(5)] + [{"prompt": "fox 0"}, "a wolf"])
    planned = desk.plan()
    assert figures(planned) == (7, 0, 0, 0)
    assert shown(planned) == [
        f"foxes: 7 images by instant, png, into {desk.output.path}",
        "  a stand-in: its pictures are blocks of colour",
        "  height x width  steps  guided  images  to render  slots",
        "         64 x 64     10     yes       7          7    140",
        "",
        "  new        7",
        "  changed    0",
        "  unchanged  0",
        "  orphaned   0",
        "  time       unknown: no Redis",
        "  disk       unknown: the output holds no picture of these sizes in this format",
        "  Redis      about 280 bytes: 40 bytes an image, measured over prompts of 4 to 20 words",
        *shown(planned)[-6:],
    ]
    assert not desk.output.path.exists()


def test_new_changed_unchanged_and_orphaned_are_told_apart(desk: Desk, shown: Shown) -> None:
    desk.write([{"prompt": f"fox {n}", "id": f"f{n}"} for n in range(6)])
    desk.render()
    edited = [{"prompt": f"fox {n}", "id": f"f{n}"} for n in range(4)] + [{"prompt": "red fox", "id": "f4"}]
    desk.write([*edited, "a wolf", "a bear"])
    planned = desk.plan()
    assert figures(planned) == (2, 1, 4, 2)
    assert [(orphan.file, orphan.id, orphan.prompt, orphan.replaced) for orphan in planned.orphans] == [
        (f"00001/{FLAT.key(1, 0)}.png", "f4", "fox 4", True),
        (f"00001/{FLAT.key(1, 1)}.png", "f5", "fox 5", False),
    ]
    lines = shown(planned)
    assert "  changed    1: the output has their ids, with other settings" in lines
    assert "  orphaned   2: in the output, and not asked for, 1 of them changed" in lines
    assert '             00001/000010001.png id f5 "fox 5"' in lines


def test_a_picture_that_was_deleted_is_to_be_rendered_again(desk: Desk) -> None:
    desk.write(6)
    desk.render()
    (desk.output.shard_folder(0) / f"{FLAT.key(0, 1)}.png").unlink()
    assert figures(desk.plan()) == (1, 0, 5, 0)


def test_a_narrowed_plan_names_no_orphans(desk: Desk, shown: Shown) -> None:
    desk.write(6)
    desk.render()
    planned = desk.plan(limit=2)
    assert figures(planned) == (0, None, 2, None)
    assert "  orphaned   unknown: --limit 2 asks for a part of the images" in shown(planned)
    assert figures(desk.plan(sample=3)) == (0, None, 3, None)


@pytest.mark.parametrize("layout", ["files", "webdataset"])
def test_what_is_there_counts_in_every_layout(desk: Desk, layout: LayoutName) -> None:
    desk.write(8)
    desk.render(layout)
    each = sum(file.stat().st_size for file in desk.output.path.glob("0*/*")) / 8
    if layout == "webdataset":
        each = sum(file.stat().st_size for file in desk.output.path.glob("0*.*")) / 8
    assert each > 0
    desk.write(6 + 3)
    planned = desk.plan()
    assert figures(planned) == (1, 0, 8, 0)
    assert planned.disk_bytes == round(each)
    desk.write(6)
    planned = desk.plan()
    assert figures(planned) == (0, 0, 6, 2)
    shard = "00001.tar" if layout == "webdataset" else "00001"
    assert planned.orphans[0].file == f"{shard}/{FLAT.key(1, 2)}.png"


def test_bytes_on_disk_are_those_of_pictures_of_the_same_size_and_format(desk: Desk, shown: Shown) -> None:
    desk.write(8)
    desk.render()
    files = [file for shard in (0, 1) for file in desk.output.shard_folder(shard).iterdir()]
    each = sum(file.stat().st_size for file in files) / 8
    desk.write([*(f"wolf {n}" for n in range(100)), {"prompt": "a wide one", "width": 128}])
    planned = desk.plan()
    assert (planned.disk_bytes, planned.disk_images) == (round(100 * each), 100)
    assert to_json(planned)["disk_bytes"] is None
    [line] = [line for line in shown(planned) if line.startswith("  disk")]
    assert line.endswith(" an image, measured on those in the output; unknown for 1 image of other sizes")
    desk.write(9, image_format="jpeg")
    assert desk.plan().disk_images == 0


def test_time_follows_from_the_speed_that_workers_measured(
    desk: Desk, shown: Shown, redis_server: EmbeddedRedis, job_spec: Callable[..., JobSpec]
) -> None:
    ledger = Ledger(redis_server.url)
    desk.write([*(f"fox {n}" for n in range(99)), {"prompt": "a wide one", "width": 128}])
    unknown = [line for line in shown(desk.plan(redis_server.url)) if line.startswith("  time   ")]
    assert unknown == [
        "  time       unknown: no worker has rendered this model at these sizes in the last 30 days"
    ]
    ledger.add_work(SIZE, 100, 10.0)
    for name in ("w1", "w2"):
        ledger.heartbeat(name, {"slots": 2})
    ledger.create(job_spec(output=str(desk.output.path)), "digest", 1)
    planned = desk.plan(redis_server.url)
    assert planned.times == [("a card", "bf16", 99 * 20 / 10, 99)]
    lines = shown(planned)
    assert (
        "  time       3m 18s on a card in bf16, without loading the model; 1m 39s if all 2 workers share it; "
        "unknown for 1 image of other sizes"
    ) in lines
    assert "  now        cats-1 is writing there: what it has not committed counts as to render" in lines


def test_a_redis_that_does_not_answer_leaves_the_rest_shown(desk: Desk, shown: Shown) -> None:
    desk.write(3)
    planned = desk.plan("redis://127.0.0.1:1/0")
    assert planned.deployment.unknown
    assert any(line.startswith("  time       unknown: ") and "127.0.0.1:1" in line for line in shown(planned))
    assert to_json(planned)["workers"] is None


def test_what_is_left_out_is_counted(desk: Desk, shown: Shown) -> None:
    (desk.folder / "foxes.csv").write_text("prompt,seed\na fox,1\na fox,1\na wolf,zwei\n")
    desk.write(["a cow"], prompts_from="foxes.csv", on_bad_row="skip")
    planned = desk.plan()
    assert (planned.survey.images, planned.duplicates, planned.reading.skipped) == (2, 1, 1)
    lines = shown(planned)
    at = lines.index("  left out   1 line asking for an image that another line also asks for")
    assert lines[at + 1].startswith(
        f"             1 row with something wrong: {desk.folder}/foxes.csv:4: seed"
    )
    desk.write(["a cow"], prompts_from="foxes.csv")
    with pytest.raises(ManifestError, match=r"foxes\.csv:4: seed"):
        desk.plan()


def test_what_rows_decide_by_themselves_is_told(desk: Desk, shown: Shown) -> None:
    (desk.folder / "p.csv").write_text("prompt,Width,cfg\na fox,64,0\na hen,64,1\n")
    desk.write(["a cow"], prompts_from="p.csv")
    planned = desk.plan()
    lines = shown(planned)
    at = next(number for number, line in enumerate(lines) if line.startswith("  from rows "))
    assert lines[at : at + 2] == [
        "  from rows  width (Width), guidance_scale (cfg) from columns of prompt files: `ignore: [Width, "
        "cfg]` leaves them out",
        "             2 rows with a guidance_scale of 0 or 1: guidance is off there, and 0 counts as 1",
    ]
    as_json = to_json(planned)
    assert as_json["settings_of_columns"] == {"Width": "width", "cfg": "guidance_scale"}
    assert as_json["unguided_rows"] == 2


def test_comments_and_flags_that_change_no_picture_are_counted(desk: Desk, shown: Shown) -> None:
    (desk.folder / "p.txt").write_text("# one\n#two\na fox\n--prompt a hen --do_not_save_grid true\n")
    desk.write(["a cow"], prompts_from="p.txt")
    planned = desk.plan()
    lines = shown(planned)
    at = lines.index("  left out   2 lines beginning with # (comments)")
    assert lines[at + 1] == "             flags that change no picture: --do_not_save_grid (1)"
    as_json = to_json(planned)
    assert (as_json["comments"], as_json["dropped_flags"]) == (2, {"--do_not_save_grid": 1})


def test_texts_that_look_like_syntax_are_counted_with_the_first_place_and_the_key(
    desk: Desk, shown: Shown
) -> None:
    (desk.folder / "p.txt").write_text("a fox\na (red:1.2) fox\na [red] __color__\na fox --ar 16:9 --s 250\n")
    (desk.folder / "p.jsonl").write_text('{"prompt": "a fox --ar 16:9 --s 250"}\n')
    desk.write(["a fox --ar 16:9 --s 250"], prompts_from=["p.txt", "p.jsonl"])
    planned = desk.plan()
    column = desk.file.read_text().index('"a fox') + 1
    words = "they are painted as words"
    warnings = [
        f"2 prompts with weights, (text:1.3), ((text)) or [text], first {desk.folder}/p.txt:2: {words}: "
        "write `syntax: a1111` to weigh them",
        f"1 prompt with wildcards, __name__, first {desk.folder}/p.txt:3: {words}: write `syntax: "
        "dynamic` to draw from their files",
        f"3 prompts with another tool's flags, --ar 16:9, first {desk.file}:1:{column}: prompts[0]: {words}: "
        "take them out, and give what they mean as settings",
    ]
    lines = shown(planned)
    at = lines.index(f"  syntax     {warnings[0]}")
    assert lines[at + 1 : at + 3] == [f"             {warnings[1]}", f"             {warnings[2]}"]
    assert to_json(planned)["syntax"] == warnings
    (desk.folder / "wildcards").mkdir()
    (desk.folder / "wildcards/color.txt").write_text("teal\n")
    desk.write(["a {fox|owl}"], prompts_from=["p.txt"], syntax="dynamic", sample=3)
    planned = desk.plan()
    assert planned.survey.images == 3 + 4 - 1 + 3
    assert len(to_json(planned)["syntax"]) == 2


def test_json_lists_a_thousand_orphans_and_counts_them_all_and_a_file_lists_all(
    desk: Desk, tmp_path: Path
) -> None:
    desk.write(1)
    desk.render()
    metadata = desk.output.metadata_file(0)
    [slot] = map(json.loads, metadata.read_text().splitlines())
    slots = [slot | {"image_id": f"{n * 7919:016x}"} for n in range(1, MOST_ORPHANS + 101)]
    metadata.write_text("".join(json.dumps(one) + "\n" for one in slots))
    written = json.loads(json.dumps(to_json(desk.plan())))
    assert (written["new"], written["orphaned"], len(written["orphans"])) == (1, 1100, 1000)
    with listing(tmp_path / "orphans.jsonl") as on_orphan:
        plan_submission(prepare(desk.folder / "foxes.yaml", Settings()), Settings(), on_orphan=on_orphan)
    lines = (tmp_path / "orphans.jsonl").read_text().splitlines()
    assert len(lines) == 1100
    assert [json.loads(line) for line in lines[:1000]] == written["orphans"]
    with pytest.raises(OutputError, match=r"nowhere.*cannot be written"), listing(tmp_path / "nowhere" / "o"):
        pass


def test_a_slot_that_imagemill_did_not_write_is_named(desk: Desk) -> None:
    desk.write(1)
    desk.render()
    metadata = desk.output.metadata_file(0)
    metadata.write_text(metadata.read_text().replace('"image_id": "', '"image_id": "fox'))
    with pytest.raises(
        OutputError, match=r"00000/metadata\.jsonl:1: a record whose image_id is no 16 hex digits"
    ):
        desk.plan()


def test_prompts_stay_on_their_line(desk: Desk, shown: Shown) -> None:
    desk.write(["two\nlines", "", "été 🦊 " * 20])
    lines = shown(desk.plan())[-3:]
    assert lines[0].endswith("'two\\nlines'")
    assert lines[1].endswith(' ""')
    assert lines[2].endswith('…"')


def test_lines_of_one_picture_and_those_that_are_added_to_pictures_that_are_there_are_said(
    desk: Desk, shown: Shown
) -> None:
    desk.write([{"prompt": "a fox", "seed": 1, "id": "1"}, "a cow"])
    desk.render()
    desk.write([{"prompt": "a fox", "seed": 1, "id": id} for id in ("2", "1", "3")] + ["a cow"])
    planned = desk.plan()
    assert figures(planned) == (0, 0, 2, 0)
    assert (planned.lines.equal, planned.lines.added) == (2, 2)
    assert "  lines      4 lines, 2 pictures: 2 lines share a picture with an equal one" in shown(planned)
    assert (to_json(planned)["equal_lines"], to_json(planned)["added_lines"]) == (2, 2)
