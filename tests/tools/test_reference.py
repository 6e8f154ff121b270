"""The generated parts of the pages are what the product says today."""

from __future__ import annotations

import pytest

from jobs.schedulers import SCHEDULERS
from jobs.settings import Settings
from producer.cli import command as imagemill
from producer.manifest.manifest import json_schema
from tools.reference import DOCS, PAGES, filled
from worker.cli import command as imagemill_worker


def page(name: str) -> str:
    return (DOCS / name).read_text("utf-8")


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_as_it_is_generated_today(name: str) -> None:
    assert page(name) == filled(page(name)), "run python tools/reference.py"


def test_text_outside_of_the_marks_stays() -> None:
    mark = "<!-- python tools/reference.py: sweep -->\n"
    made = filled(f"Before.\n\n{mark}old\n<!-- end -->\n\nAfter.\n")
    assert made.startswith(f"Before.\n\n{mark}`")
    assert "old" not in made
    assert made.endswith("\n<!-- end -->\n\nAfter.\n")


def test_a_mark_of_another_name_is_refused() -> None:
    with pytest.raises(KeyError, match="sweeps"):
        filled("<!-- python tools/reference.py: sweeps -->\n<!-- end -->\n")


def test_the_manifests_page_has_every_key_of_the_schema() -> None:
    schema, text = json_schema(), page("manifest.md")
    keys = {*schema["properties"]}
    for part in schema["$defs"].values():
        keys |= {*part.get("properties", ())}
    assert len(keys) > 30
    assert [key for key in sorted(keys) if f"`{key}`" not in text] == []
    assert [one.name for one in SCHEDULERS if f"| `{one.name}` |" not in text] == []


def test_the_commands_page_has_every_command_and_variable_and_no_hidden_option() -> None:
    text = page("commands.md")
    for name, group in (("imagemill", imagemill), ("imagemill-worker", imagemill_worker)):
        for each in group.commands:
            assert f"\n### {name} {each}\n\n`{name} {each} [OPTIONS]" in text
    assert [name for name in Settings.model_fields if f"| `IMAGEMILL_{name.upper()}` |" not in text] == []
    assert "lifeline" not in text


def test_bounds_defaults_and_choices_are_said_in_words() -> None:
    assert "| `height` | whole number, 8 to 8,192, a multiple of 8 |" in page("manifest.md")
    assert "0 to 2^63-1" in page("manifest.md")
    assert "| `IMAGEMILL_CONCURRENCY` | whole number, 1 to 64 | `2` |" in page("commands.md")
    assert "| `IMAGEMILL_MIN_FREE_DISK` | text or whole number, at least 0 | `1GiB` |" in page("commands.md")
    assert "From 2 to 1024." in page("commands.md")
    assert r"| `--to [files\|webdataset\|parquet\|" in page("commands.md")
