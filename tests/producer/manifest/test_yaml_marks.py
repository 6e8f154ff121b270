from __future__ import annotations

import time

import pytest

from jobs.columns import MAX_DEPTH
from jobs.errors import ManifestError
from producer.manifest.document import REFUSED
from producer.manifest.yaml_marks import MAX_ALIASED_VALUES, MAX_BYTES, read_yaml


def _texts(text: str) -> list[str]:
    return [f"{one.line}:{one.column}: {one.text}" for one in read_yaml(text.encode(), "f.yaml").problems]


def _refusal(contents: bytes) -> str:
    with pytest.raises(ManifestError) as caught:
        read_yaml(contents, "f.yaml")
    return str(caught.value)


def test_plain_values_come_out_as_yaml_means_them() -> None:
    text = """
    a: [1, -2, 0.5, 1.5e+3, true, False, null, ~, plain text, "quoted: 7", '1', =, 0]
    b:
      c: |
        two
        lines
      "d": !!str 12
      e:
    """
    assert read_yaml(text.encode(), "f.yaml").root.value == {
        "a": [1, -2, 0.5, 1500.0, True, False, None, None, "plain text", "quoted: 7", "1", "=", 0],
        "b": {"c": "two\nlines\n", "d": "12", "e": None},
    }
    assert _texts(text) == []


def test_every_value_and_key_knows_its_line_and_column() -> None:
    document = read_yaml("a:\n  - é: x\n    bc: y\n".encode(), "f.yaml")
    assert document.place(("a", 0, "bc")) == (3, 9)
    assert document.place(("a", 0, "bc"), of_key=True) == (3, 5)
    assert document.place(("a", 0, "é")) == (2, 8)
    assert document.place(("a", 0, "missing", "below")) == (2, 5)


def test_a_doubled_key_is_refused_and_both_lines_are_named() -> None:
    assert _texts("a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\n") == [
        "5:3: b.c: the key is duplicated, first on line 3: remove one"
    ]


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("yes", "true"),
        ("NO", "false"),
        ("off", "false"),
        ("2024-01-01", "a date"),
        ("010", "another form"),
        ("0x1F", "another form"),
        ("1_000", "another form"),
        ("12:30", "another form"),
        ("12:30.5", "another form"),
        ("!!python/object:os.system x", "not allowed"),
        ("!!binary aGk=", "not allowed"),
        ("!mine x", "not allowed"),
    ],
)
def test_a_surprising_scalar_is_refused_with_its_place(written: str, why: str) -> None:
    document = read_yaml(f"a: [x, {written}]".encode(), "f.yaml")
    assert document.root.value == {"a": ["x", REFUSED]}
    (problem,) = document.problems
    assert (problem.line, problem.column) == (1, 8)
    assert problem.text.startswith("a[1] = ")
    assert why in problem.text


def test_a_key_that_is_not_text_is_refused() -> None:
    assert _texts("a: {1: x}") == ["1:5: a: the key 1 is not text: write it in quotes"]


def test_aliases_and_merge_keys_work_and_own_keys_win() -> None:
    text = "base: &b {x: 1, y: 2}\none: *b\ntwo: {<<: *b, y: 3}\nthree: {<<: [{y: 9}, *b]}\n"
    assert read_yaml(text.encode(), "f.yaml").root.value == {
        "base": {"x": 1, "y": 2},
        "one": {"x": 1, "y": 2},
        "two": {"y": 3, "x": 1},
        "three": {"y": 9, "x": 1},
    }


def test_a_bomb_of_aliases_is_refused_at_once() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    began = time.process_time()
    message = _refusal("\n".join(lines).encode())
    assert time.process_time() - began < 1.0
    assert message.startswith("f.yaml:6:")
    assert f"more than {MAX_ALIASED_VALUES} values" in message


def test_a_long_text_repeated_by_aliases_is_refused() -> None:
    text = f"a: &a {'x' * (1 << 20)}\nb: [{', '.join(['*a'] * 65)}]\n"
    assert "64 MiB" in _refusal(text.encode())


def test_an_alias_of_itself_or_of_nothing_is_refused() -> None:
    assert _refusal(b"a: &a [*a]") == "f.yaml:1:8: the alias *a is part of what it names: write it out"
    assert _refusal(b"a: *b") == "f.yaml:1:4: the alias *b names no anchor before it: write it out"


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 200_000])
def test_deep_nesting_is_refused(depth: int) -> None:
    assert f"deeper than {MAX_DEPTH}" in _refusal(b"[" * depth + b"]" * depth)


def test_nesting_up_to_the_bound_is_read() -> None:
    assert read_yaml(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH, "f.yaml").problems == ()


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"", "f.yaml:1:1: is empty: a manifest has at least name, model and prompts"),
        (b"# only a comment\n", "f.yaml:1:1: is empty: a manifest has at least name, model and prompts"),
        (b"a: 1\nb: \xff\n", "f.yaml:2:4: is not UTF-8 (byte 0xff): save the file as UTF-8"),
        ("a: 1".encode("utf-16"), "f.yaml:1:1: is not UTF-8 (byte 0xff): save the file as UTF-8"),
        (b"a: 1\nb: x\x07y\n", "f.yaml:2:5: U+0007 is not allowed in YAML: remove it"),
        (b"a: [1\nb: 2\n", "f.yaml:2:2: not YAML: "),
        (b"a:\n\t- x\n", "f.yaml:2:1: not YAML: "),
        ("a: [\x85\u2028".encode(), "f.yaml:3:1: not YAML: "),
        (
            b"a: 1\n---\nb: 2\n",
            "f.yaml:2:1: a second document begins: a file is one manifest, split it at ---",
        ),
    ],
)
def test_what_is_no_document_is_refused_with_its_place(contents: bytes, message: str) -> None:
    assert _refusal(contents).startswith(message)


def test_tabs_as_indentation_are_explained() -> None:
    assert _refusal(b"a:\n\t- x\n").endswith("indent with spaces, not tabs")


def test_a_byte_order_mark_is_no_part_of_the_text() -> None:
    assert read_yaml("\ufeffa: 1".encode(), "f.yaml").root.value == {"a": 1}


def test_a_file_beyond_the_bound_is_refused() -> None:
    assert "larger than 64 MiB" in _refusal(b"#" * (MAX_BYTES + 1))
