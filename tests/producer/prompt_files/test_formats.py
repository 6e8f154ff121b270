"""A prompt is the same whatever kind of file it was read from, and what is wrong names file and line."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import yaml

from jobs.entry import Entry
from jobs.errors import ManifestError
from jobs.models.models import resolve_model
from producer.manifest.line import Line
from producer.manifest.manifest import Manifest, load_manifest
from producer.prompt_files.sources import lines
from tests.expanded import expand

MODEL = resolve_model("shapes-random")
ODD = [
    "a plain prompt",
    "",
    "commas, \"quotes\" and 'quotes'",
    "two\nlines\r\nand three",
    "a fox 🦊 im Wäldchen, 狐",
    "x" * 10_000,
    "  blanks around\t",
    "\u2028 is no newline, \x85 neither",
    "{curly} --not a flag",
]


def _manifest(folder: Path, source: object, **others: object) -> Manifest:
    file = folder / "m.yaml"
    given = {"name": "cats", "model": "shapes-random", "prompts_from": source, **others}
    file.write_text(json.dumps(given), "utf-8")
    return load_manifest(file)


def _entries(folder: Path, source: object, **others: object) -> list[Entry]:
    return list(expand(_manifest(folder, source, **others), MODEL))


def _prompts(folder: Path, source: object) -> list[str]:
    return [entry.request.prompt for entry in _entries(folder, source)]


def _errors(folder: Path, source: object, **others: object) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        _entries(folder, source, **others)
    return str(caught.value).replace(f"{folder}/", "").split("\n")


def _write(file: Path, rows: Sequence[dict[str, Any]]) -> None:
    if file.suffix == ".jsonl":
        file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    elif file.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), file)
    else:
        with file.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, rows[0], delimiter="\t" if file.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)


@pytest.mark.parametrize("name", ["p.jsonl", "p.csv", "p.tsv", "p.parquet"])
def test_any_prompt_comes_through_as_it_is(tmp_path: Path, name: str) -> None:
    _write(tmp_path / name, [{"prompt": prompt, "id": str(number)} for number, prompt in enumerate(ODD)])
    entries = _entries(tmp_path, {"file": name, "empty_prompt": "unconditional"})
    assert [entry.request.prompt for entry in entries] == ODD
    assert [entry.id for entry in entries] == [str(number) for number in range(len(ODD))]


@pytest.mark.parametrize("name", ["p.jsonl", "p.csv", "p.tsv", "p.parquet"])
def test_fields_have_other_names_and_columns_are_kept_when_asked_for(tmp_path: Path, name: str) -> None:
    row = {"caption": "a cat", "key": "k1", "split": "train", "steps": 7, "cfg": 3.5, "sampler": "k_euler_a"}
    _write(tmp_path / name, [row | {"rest": "left aside", "prompt": "of another kind"}])
    source = {
        "file": name,
        "fields": {
            "prompt": "caption", "id": "key", "num_inference_steps": "steps", "guidance_scale": "cfg",
            "scheduler": "sampler",
        },
        "columns": ["split"],
        "ignore_others": True,
    }  # fmt: skip
    (entry,) = _entries(tmp_path, source, settings={"height": 64, "width": 64})
    request = entry.request
    assert (request.prompt, entry.id, entry.columns) == ("a cat", "k1", {"split": "train"})
    assert (request.num_inference_steps, request.guidance_scale, request.scheduler) == (7, 3.5, "Euler a")
    assert (request.height, request.width) == (64, 64)
    assert _manifest(tmp_path, source).column_names() == ("split",)


@pytest.mark.parametrize("name", ["p.jsonl", "p.csv", "p.parquet"])
def test_an_empty_cell_is_as_in_the_manifests_settings(tmp_path: Path, name: str) -> None:
    empty = "" if name == "p.csv" else None
    _write(
        tmp_path / name,
        [{"prompt": "a", "seed": 3, "width": 64}, {"prompt": "b", "seed": empty, "width": empty}],
    )
    entries = _entries(tmp_path, name, settings={"seed": 9, "width": 72})
    assert [(entry.request.seed, entry.request.width) for entry in entries] == [(3, 64), (9, 72)]


def test_a_manifest_takes_its_own_prompts_then_its_files_in_order_and_a_pattern_by_name(
    tmp_path: Path,
) -> None:
    for name in ("b2.txt", "b10.txt", "a.txt"):
        (tmp_path / name).write_text(f"of {name}\n")
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "c.txt").write_text("deep\n")
    entries = _entries(tmp_path, ["b*.txt", "a.txt", {"file": "**/c.txt"}], prompts=["first"])
    found = [entry.request.prompt for entry in entries]
    assert found == ["first", "of b10.txt", "of b2.txt", "of a.txt", "deep"]


def test_equal_prompts_of_different_sources_are_different_pictures(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("a cat\na cat\n")
    entries = _entries(tmp_path, "p.txt", prompts=["a cat"])
    assert [entry.seed_ordinal for entry in entries] == [0, 1, 2]
    assert len({entry.request.image_id for entry in entries}) == 3


def test_a_text_file_takes_kohyas_and_a1111s_flags(tmp_path: Path) -> None:
    lines = [
        "\ufeff# a comment, a blank line, and a prompt alone",
        "",
        "a fox, 50 -- 50, well--known\r",
        "a fox --n blurry, --w 512 --H 640 --s 28 --l 7.5 --d 1,2 --ss k_euler_a",
        '--prompt "a fox, \'red\'" --negative_prompt "blurry, grey" --steps 30 --cfg_scale 7 --seed 1 '
        '--sampler_name "Euler a" --width 512 --height 640 --n_iter 2',
        '--prompt "" --seed -1',
    ]
    (tmp_path / "p.txt").write_text("\n".join(lines[:2] + lines[3:]), "utf-8")
    entries = _entries(tmp_path, {"file": "p.txt", "empty_prompt": "unconditional"})
    first = entries[0].request
    assert [entry.request.seed for entry in entries[:4]] == [1, 2, 1, 2]
    assert (first.prompt, first.negative_prompt, first.width, first.height) == ("a fox", "blurry,", 512, 640)
    assert (first.num_inference_steps, first.guidance_scale, first.scheduler) == (28, 7.5, "Euler a")
    third = entries[2].request
    assert (third.prompt, third.negative_prompt) == ("a fox, 'red'", "blurry, grey")
    assert (third.width, third.height, third.num_inference_steps, third.guidance_scale) == (512, 640, 30, 7.0)
    assert (entries[4].request.prompt, entries[4].seed_ordinal) == ("", 0)
    (tmp_path / "p.txt").write_text("a well--known fox\r\n")
    assert _prompts(tmp_path, "p.txt") == ["a well--known fox"]


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("a fox --nn blur", "--nn: no such flag: use --n, --w,"),
        ("a -- b", "--b: no such flag"),
        ("--steps 3 --promt x", "--promt: no such flag: use --prompt, "),
        ("--prompt --steps 3", "--prompt: has no value"),
        ("--tiling", "--tiling: makes pictures that tile"),
        ("--prompt a --steps 3 fox", "fox: no flag: use --prompt, "),
        ('--prompt "a', "No closing quotation: put the whole prompt in double quotes"),
        ("--steps 3", "prompt: is missing"),
        ("a --w 500", "--w = 500: must be a multiple of 8 (496 or 504)"),
        ("a --w wide", "--w = wide: must be a whole number, without a point"),
        ("a --l much", "--l = much: must be a number"),
        ("a --d 1,x", "--d = 1,x: must be whole numbers with commas between"),
        ("a --d -1", "--d[0] = -1: must be at least 0"),
        ("a --s", "--s: has no value"),
        ("a --s 1 --s 2", "--s: occurs twice"),
        ("a --l 1 --g 2", "--g: means the same as --l here: remove one"),
        ("a --ss eulerr", "--ss = \"eulerr\": no scheduler is called 'eulerr'"),
        ("a\0b", 'prompt = "a\\u0000b": holds the character NUL: remove it'),
    ],
)
def test_a_wrong_line_of_text_is_reported(tmp_path: Path, line: str, error: str) -> None:
    (tmp_path / "p.txt").write_text(f"right\n{line}\n")
    (found,) = _errors(tmp_path, "p.txt")
    assert found.startswith(f"p.txt:2: {error}")


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ('{"prompt": "a", "width": 500}', "width = 500: must be a multiple of 8 (496 or 504)"),
        ('{"prompt": "a", "width": "512"}', 'width = "512": must be a whole number, without quotes'),
        ('{"prompt": "a", "width": 512.0}', "width = 512.0: must be a whole number, without a point"),
        ('{"prompt": "a", "seed": true}', "seed = true: must be a whole number, without a point"),
        ('{"prompt": "a", "guidance_scale": NaN}', "guidance_scale = NaN: must be finite"),
        ('{"prompt": "a", "seeds": []}', "seeds = a list of 0: must not be empty"),
        (
            '{"prompt": "a", "seeds": [1], "seed": 1}',
            "seeds = a list of 1: excludes seed: remove one of them",
        ),
        ('{"prompt": 7}', "prompt = 7: must be text: write it in quotes"),
        ('{"prompt": null}', "prompt: is empty: write a prompt, or, for pictures of none, add `empty_prompt"),
        ('{"prompt": "\\ud800"}', 'prompt = "\\ud800": holds half of a surrogate pair: remove it'),
        ('{"width": 64}', "prompt: is missing: add it"),
        (
            '{"prompt": "a", "hieght": 8}',
            "hieght: no such key: did you mean height? Write prompts_from: {file: p.jsonl, columns: [score, ",
        ),
        ('{"prompt": "a", "columns": {"a": 1}}', "columns: no such key"),
        ('{"prompt": "a", "init_latents": "x.npy"}', "init_latents: no such key"),
        ('{"prompt": "a", "prompt": "b"}', "prompt: the key occurs twice: remove one"),
        ('{"prompt": "a"', "not JSON at column 15: Expecting ',' delimiter"),
        ('["a"]', 'must be an object or a text: {"prompt": "…"}'),
        ("[" * 100_000, "not JSON"),
        (f'{{"prompt": "a", "seed": {2**63 - 1}}}', "the last of 2 seeds is above 2**63-1: start lower"),
        ('{"prompt": "a", "score": {"b": 9e999}}', "score: must be finite"),
    ],
)
def test_a_wrong_row_is_reported_as_a_wrong_prompt_of_the_manifest(
    tmp_path: Path, line: str, error: str
) -> None:
    (tmp_path / "p.jsonl").write_text(f'\n{{"prompt": "right"}}\n{line}\n')
    source = {"file": "p.jsonl", "columns": ["score"]}
    (found,) = _errors(tmp_path, source, settings={"images_per_prompt": 2})
    assert found.startswith(f"p.jsonl:3: {error}")


def test_a_wrong_row_is_reported_under_the_files_own_names(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text('caption,w\n"two\nlines",64\nb,65\n')
    source = {"file": "p.csv", "fields": {"prompt": "caption", "width": "w"}}
    assert _errors(tmp_path, source) == ["p.csv:4: w = 65: must be a multiple of 8 (64 or 72)"]


@pytest.mark.parametrize(
    ("name", "contents", "error"),
    [
        ("p.csv", "", "p.csv: holds no prompt: write one into it"),
        ("p.csv", "prompt,prompt\na,b\n", "p.csv:1: prompt occurs twice: rename one"),
        ("p.csv", "caption\na\n", "p.csv:1: caption: no such key: did you mean prompt?"),
        ("p.csv", "prompt,id,kex\na,b,c\n", "p.csv:1: kex: no such key"),
        ("p.csv", "id\na\n", "p.csv:1: prompt: there is no such column"),
        ("p.csv", "prompt,id\na\n", "p.csv:2: has 1 cells, and the header 2"),
        ("p.csv", 'prompt,id\n"a"b,c\n', "p.csv:2: not a row: "),
        ("p.csv", 'prompt,id\n"a', "p.csv:2: a quote opened on line 2 is still open on line 2: close it"),
        (
            "p.tsv",
            "prompt\tid\na\tb\tc\n",
            "p.tsv:2: has 3 cells, and the header 2: put a cell that holds a tab",
        ),
        ("p.csv", '"prompt"s,id\n', "p.csv:1: not a header: "),
        ("p.csv", "prompt,kex\n", "p.csv:1: kex: no such key"),
        ("p.tsv", "id", "p.tsv:1: prompt: there is no such column"),
        ("p.csv", f"prompt,{'k' * 999}\n", f"p.csv:1: {'k' * 59}…: no such key"),
        (
            "p.txt",
            "a\r# b\rc\r",
            "p.txt:1: holds a carriage return, which may end a line: end lines with \\n or",
        ),
        ("p.txt", "a\nb\rc\n", "p.txt:2: holds a carriage return"),
        ("p.jsonl", '{"prompt": "a"}\r{"prompt": "b"}\r', "p.jsonl:1: holds a carriage return"),
        ("p.parquet", "no parquet", "p.parquet: cannot be read as parquet: "),
    ],
)
def test_a_file_that_cannot_be_read_is_reported(tmp_path: Path, name: str, contents: str, error: str) -> None:
    (tmp_path / name).write_text(contents, newline="")
    assert _errors(tmp_path, name)[0].startswith(error)
    if ": has " not in error and ": not a row" not in error:
        assert _errors(tmp_path, name, on_bad_row="skip")[0].startswith(error), "the file is wrong, not a row"


@pytest.mark.parametrize("name", ["p.jsonl", "p.csv", "p.txt"])
def test_bytes_that_are_no_utf8_cost_their_own_row_alone(tmp_path: Path, name: str) -> None:
    rows = {
        "p.jsonl": b'{"prompt": "a"}\n{"prompt": "\xfc"}\n{"prompt": "\xfc"}\n',
        "p.csv": b"prompt\na\n\xfc\n\xfc\n",
        "p.txt": b"a\n\xfc\n\xfc\n",
    }
    (tmp_path / name).write_bytes(rows[name])
    number = 3 if name == "p.csv" else 2
    (found,) = _errors(tmp_path, name)
    assert found == (
        f"{name}:{number}: is not UTF-8 (byte 0xfc): save the file as UTF-8, or name its encoding; for "
        "Western Europe's of Windows add `encoding: cp1252`, as in prompts_from: "
        f"{{file: {name}, encoding: cp1252}}"
    )
    assert [entry.request.prompt for entry in _entries(tmp_path, name, on_bad_row="skip")] == ["a"]


@pytest.mark.parametrize(
    ("name", "contents"),
    [
        ("p.jsonl", '{"prompt": "a"}\n\n{"prompt": "b"}\n'),
        ("p.csv", 'prompt\n"a"\n\nb\n'),
        ("p.tsv", "prompt\na\nb"),
        ("p.txt", "a\n\n# c\nb\n"),
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_lines_end_as_on_windows_or_not_and_a_byte_order_mark_is_no_text(
    tmp_path: Path, name: str, contents: str, newline: str, mark: str
) -> None:
    (tmp_path / name).write_text(mark + contents, "utf-8", newline=newline)
    assert _prompts(tmp_path, name) == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "contents"),
    [
        ("p.jsonl", '{"prompt": "é"}\n\n{"prompt": "b"}\n'),
        ("p.json", '["é",\n "b"]\n'),
        ("p.csv", "prompt\né\n\nb"),
        ("p.tsv", 'prompt\n"é"\nb\n'),
        ("p.txt", "é\n\nb"),
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("encoding", "named"),
    [("utf-16", None), ("utf-16", "utf-16"), ("utf-16-be", "utf-16"), ("latin-1", "cp1252")],
)
def test_every_format_is_read_in_the_encoding_that_is_marked_or_named(
    tmp_path: Path, name: str, contents: str, newline: str, encoding: str, named: str | None
) -> None:
    (tmp_path / name).write_bytes(contents.replace("\n", newline).encode(encoding))
    source = {"file": name} | ({} if named is None else {"encoding": named})
    assert _prompts(tmp_path, source) == ["é", "b"]


def test_characters_that_only_look_like_the_end_of_a_line_stay_in_their_prompt(tmp_path: Path) -> None:
    prompt = "a\x0bb\x0cc\x1cd\x85e\u2028f"
    for name, header in [("p.txt", ""), ("p.csv", "prompt\n")]:
        (tmp_path / name).write_text(f"{header}{prompt}\r\r\nb\r", "utf-8", newline="")
        assert _prompts(tmp_path, name) == [prompt, "b"]


def test_a_source_without_a_file_is_refused_by_its_name_with_the_remedy(tmp_path: Path) -> None:
    for name, what in [("c/*.csv", "matches no file"), ("c.csv", "there is no such file")]:
        with pytest.raises(ManifestError) as caught:
            _manifest(tmp_path, name)
        message = (
            f"prompts_from = {tmp_path}/{name}: {what}: correct it (it is relative to the manifest), or put"
        )
        assert message in str(caught.value)


def test_a_column_has_one_kind_in_all_files_and_the_manifest(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"prompt": "a", "score": 1}\n{"prompt": "b", "score": 0.5}\n')
    source = {"file": "p.jsonl", "columns": ["score"]}
    message = "p.jsonl:2: score: is a decimal number, but a whole number in p.jsonl:1: write 1.0 for 1"
    assert [line.replace(f"{tmp_path}/", "") for line in _errors(tmp_path, source)] == [message]
    lines = [{"prompt": "x", "columns": {"score": "text"}}]
    assert "but text in the manifest" in _errors(tmp_path, source, prompts=lines)[0]


def test_a_setting_that_the_sweep_gives_is_refused_in_a_row(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"prompt": "a", "seeds": [1]}\n')
    (found,) = _errors(tmp_path, "p.jsonl", sweep={"seed": [1]})
    assert found == "p.jsonl:1: seeds: the manifest's `sweep` gives it too: remove one of them"


def test_a_table_has_every_column_that_the_manifest_names(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("prompt,key\na,b\n")
    for source in ({"fields": {"id": "kex"}}, {"columns": ["kex"]}):
        found = _errors(tmp_path, {"file": "p.csv", "ignore_others": True, **source})
        assert found == ["p.csv:1: kex: there is no such column"]


def test_a_row_cannot_run_a_swept_seed_past_the_largest(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"prompt": "a"}\n{"prompt": "a", "images_per_prompt": 2}\n')
    found = _errors(tmp_path, "p.jsonl", sweep={"seed": [2**63 - 1, 0]})
    assert found == ["p.jsonl:2: the last of 2 seeds is above 2**63-1: start lower"]


def test_without_pyarrow_parquet_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "p.parquet").write_bytes(b"")
    code = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from producer.manifest.manifest import Manifest; from producer.prompt_files.sources import lines\n"
        f"file = {str(tmp_path / 'p.parquet')!r}\n"
        "next(lines(Manifest.from_json({'name': 'a', 'model': 'instant', 'prompts_from': [{'file': file}]})))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "p.parquet: needs pyarrow: pip install 'imagemill[parquet]', or use .jsonl or .csv" in ended.stderr


def test_pyarrow_is_imported_for_parquet_alone(tmp_path: Path) -> None:
    code = "import sys, producer.requests.expand, producer.submit.submit; assert 'pyarrow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_line_beyond_all_bounds_is_refused_before_it_is_held_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("producer.manifest.text_lines.MAX_LINE", 20)
    (tmp_path / "p.txt").write_text("short\n" + "x" * 100)
    assert _errors(tmp_path, "p.txt")[0].startswith("p.txt:2: the line is longer than")


@pytest.mark.parametrize(
    ("contents", "wrong", "right"),
    [
        ("t;note\na fox, red;x\n", {"fields": {"prompt": "t"}, "columns": ["note"]}, {"separator": ";"}),
        (
            'Prompt\tNote\na mug\tx\n"TEA" on a mug\ty\n',
            {"fields": {"prompt": "Prompt"}, "columns": ["Note"], "separator": "\t"},
            {"quoting": "none"},
        ),
        ("t,note\n,x\na,y\n", {"fields": {"prompt": "t"}, "columns": {"n": "note"}}, None),
    ],
)
def test_the_entry_in_a_message_works_at_once_in_the_place_of_the_one_in_the_manifest(
    tmp_path: Path, contents: str, wrong: dict[str, Any], right: dict[str, Any] | None
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "p.csv").write_text(contents)
    path = tmp_path / "m.yaml"

    def read(entry: dict[str, Any]) -> list[Line]:
        path.write_text(yaml.safe_dump({"name": "m", "model": "instant", "prompts_from": entry}))
        return list(lines(load_manifest(path)))

    before = {"file": "data/*.csv"} | wrong
    with pytest.raises(ManifestError) as caught:
        read(before)
    pasted = yaml.safe_load(str(caught.value).rpartition("as in ")[2])["prompts_from"]
    assert pasted == before | ({"empty_prompt": "unconditional"} if right is None else right)
    assert all(line.columns for line in read(pasted))
