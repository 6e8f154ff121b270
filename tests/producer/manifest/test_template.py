from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from jobs.errors import ManifestError
from jobs.models.models import resolve_model
from producer.manifest.manifest import Manifest, load_manifest
from producer.manifest.template import rendered
from tests.expanded import expand

MODEL = resolve_model("shapes-random")


def _load(folder: Path, line: str) -> Manifest:
    file = folder / "m.yaml"
    file.write_text(f"name: cats\nmodel: shapes-random\nprompts:\n  - {line}\n", "utf-8")
    return load_manifest(file)


def _prompts(folder: Path, line: str) -> list[str]:
    return [entry.request.prompt for entry in expand(_load(folder, line), MODEL)]


def test_every_combination_is_a_prompt_the_last_variable_fastest(tmp_path: Path) -> None:
    line = '{prompt: "a {colour} {animal}, {colour}", variables: {colour: [red, blue], animal: [cat, dog]}}'
    assert _prompts(tmp_path, line) == [
        "a red cat, red",
        "a red dog, red",
        "a blue cat, blue",
        "a blue dog, blue",
    ]


def test_doubled_braces_are_braces_and_a_value_is_not_read_again(tmp_path: Path) -> None:
    line = '{prompt: "{{{x}}} {{y}}", variables: {x: ["{x}", "}{"]}}'
    assert _prompts(tmp_path, line) == ["{{x}} {y}", "{}{} {y}"]


def test_comments_and_blank_lines_of_a_variables_file_are_no_values(tmp_path: Path) -> None:
    for name, pack in [("colours.TXT", bytes), ("colours.txt.gz", gzip.compress)]:
        (tmp_path / name).write_bytes(pack(b"# warm\nred\n\n  #cold\n blue \n"))
        line = f'{{prompt: "a {{c}} fox", variables: {{c: {name}}}}}'
        assert _prompts(tmp_path, line) == ["a red fox", "a blue fox"]
    (tmp_path / "none.txt").write_text("# red\n\n")
    with pytest.raises(ManifestError, match=r"none\.txt: holds no value: write one a line"):
        _prompts(tmp_path, '{prompt: "a {c}", variables: {c: none.txt}}')
    (tmp_path / "latin.txt").write_bytes("grün\n".encode("cp1252"))
    with pytest.raises(
        ManifestError, match=r"latin\.txt:1: is not UTF-8 \(byte 0xfc\): save the file as UTF-8$"
    ):
        _prompts(tmp_path, '{prompt: "a {c}", variables: {c: latin.txt}}')


def test_a_prompt_without_variables_keeps_its_braces(tmp_path: Path) -> None:
    assert _prompts(tmp_path, '"{red|blue} {"') == ["{red|blue} {"]


def test_a_file_gives_a_value_a_line_without_blank_ones(tmp_path: Path) -> None:
    (tmp_path / "animals.txt").write_bytes("\ufeffcat\r\n\n  Füchslein 🦊 \n".encode())
    line = '{prompt: "a {animal}", variables: {animal: animals.txt}}'
    assert _prompts(tmp_path, line) == ["a cat", "a Füchslein 🦊"]
    manifest = _load(tmp_path, line)
    assert manifest.to_json()["prompts"][0]["variables"] == {"animal": ["cat", "Füchslein 🦊"]}
    assert Manifest.from_json(manifest.to_json()) == manifest


def test_a_sample_is_of_different_combinations_in_order_and_hangs_on_its_seed() -> None:
    variables = {"a": [str(n) for n in range(30)], "b": [str(n) for n in range(30)]}
    whole = list(rendered("{a} {b}", variables, None, 0))
    drawn = list(rendered("{a} {b}", variables, 200, 0))
    assert len(set(drawn)) == 200
    assert drawn == [prompt for prompt in whole if prompt in drawn]
    assert drawn == list(rendered("{a} {b}", variables, 200, 0))
    assert drawn != list(rendered("{a} {b}", variables, 200, 1))
    assert list(rendered("{a} {b}", variables, 900, 5)) == whole
    # Another draw would be another data set.
    assert list(rendered("{a} {b}", variables, 4, 0)) == ["2 22", "12 6", "14 2", "20 10"]


def test_a_few_of_very_many_combinations_are_drawn_at_once() -> None:
    variables = {name: [str(n) for n in range(1000)] for name in "abcdef"}
    assert len(list(rendered("{a}{b}{c}{d}{e}{f}", variables, 10, 3))) == 10


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (
            '{prompt: "a {b}", variables: {a: [x]}}',
            '4:14: prompts[0].prompt = "a {b}": names {b}, which is no',
        ),
        ('{prompt: "a {", variables: {a: [x]}}', '4:14: prompts[0].prompt = "a {": has a { alone: write {{'),
        ('{prompt: "a }", variables: {a: [x]}}', '4:14: prompts[0].prompt = "a }": has a } alone: write }}'),
        (
            '{prompt: "{a}", variables: {a: [x], b: [y]}}',
            "4:41: prompts[0].variables.b: is not in the prompt",
        ),
        (
            '{prompt: "{a}", variables: {a: []}}',
            "4:36: prompts[0].variables.a = a list of 0: must not be empty",
        ),
        ('{prompt: "{a}", variables: {a: [7]}}', "4:37: prompts[0].variables.a[0] = 7: must be text"),
        ('{prompt: "{a}", variables: {a: no.txt}}', "4:36: prompts[0].variables.a = no.txt: "),
        (
            '{prompt: "{a}", sample: 3, variables: {a: [x, y]}}',
            "4:29: prompts[0].sample = 3: there are only 2",
        ),
        ("{prompt: a, sample: 3}", "4:17: prompts[0].sample: needs variables"),
        (
            "{prompt: '{a}', variables: {a: [x]}, sample_seed: 3}",
            "4:42: prompts[0].sample_seed: needs sample",
        ),
    ],
)
def test_what_does_not_fit_is_reported_with_its_place(tmp_path: Path, line: str, error: str) -> None:
    with pytest.raises(ManifestError) as caught:
        _load(tmp_path, line)
    assert str(caught.value).startswith(f"{tmp_path / 'm.yaml'}:{error}")
    assert "\n" not in str(caught.value)
