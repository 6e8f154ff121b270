"""Problems find their own places, and are reported together in the order of the file."""

from pydantic import ValidationError

from producer.manifest.parts import PromptLine
from producer.manifest.problems import MAX_REPORTED, Problems
from producer.manifest.yaml_marks import read_yaml

TEXT = "name: cats\nprompts:\n  - {prompt: a, width: 12}\n  - no\n"


def _problems(text: str = TEXT) -> Problems:
    return Problems("m.yaml", read_yaml(text.encode(), "m.yaml"))


def test_a_problem_stands_where_its_value_or_its_key_stands_in_the_file() -> None:
    problems = _problems("name: cats\nprompts:\n  - {prompt: a, width: 12}\n")
    problems.add(("prompts", 0, "width"), "is small", value="12")
    problems.add(("prompts", 0, "width"), "is a key", of_key=True)
    problems.add(("prompts", 7, "width"), "is not there")
    assert problems.report().split("\n") == [
        "m.yaml:3:3: prompts[7].width: is not there",
        "m.yaml:3:17: prompts[0].width: is a key",
        "m.yaml:3:24: prompts[0].width = 12: is small",
    ]
    assert str(problems.error()) == problems.report()


def test_the_files_own_problems_are_among_them_and_equal_ones_are_reported_once() -> None:
    problems = _problems()
    problems.add(("name",), "is taken", value="cats")
    problems.add(("name",), "is taken", value="cats")
    assert [problem.path for problem in problems] == [("name",), ("prompts", 1)]


def test_values_that_stand_in_no_file_are_named_without_a_place() -> None:
    problems = Problems("--request")
    try:
        PromptLine.model_validate({"prompt": "a", "width": 12, "seed": -1})
    except ValidationError as error:
        problems.add_errors(error, PromptLine)
    assert problems.report().split("\n") == [
        "--request: width = 12: must be a multiple of 8 (8 or 16)",
        "--request: seed = -1: must be at least 0",
    ]
    assert (problems.place(("width",)), problems.line(("width",))) == ("--request", 0)


def test_of_very_many_only_the_first_are_written_out() -> None:
    problems = Problems("rows")
    for number in range(MAX_REPORTED + 3):
        problems.add((f"row{number}",), "is wrong")
    assert problems.report().split("\n")[-2:] == [
        f"rows: row{MAX_REPORTED - 1}: is wrong",
        "rows: and 3 more",
    ]
