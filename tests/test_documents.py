"""What the documents point to is there."""

from __future__ import annotations

import ast
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

from producer.manifest.manifest import load_manifest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    ROOT / name for name in ("README.md", "SECURITY.md", "CHANGELOG.md", "worker/models/shapes/README.md")
]
PAGES += sorted((ROOT / "docs").glob("*.md"))
FENCED = re.DOTALL | re.MULTILINE
CODE_SUFFIXES = (".py", ".lua", ".sh", ".yml", ".yaml", ".toml")
EXAMPLES = {"foxes.yaml", "stars.yaml", "signs.yaml", "cats.yaml"}
"""Manifests that a reader writes."""


def without_fences(text: str) -> str:
    """The page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", text, flags=FENCED)


def anchors(text: str) -> set[str]:
    """The names by which GitHub links to a page's headings."""
    heads = re.findall(r"^#+ (.+)$", without_fences(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@cache
def files() -> frozenset[str]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return frozenset(listed.stdout.splitlines())


@pytest.fixture(params=PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def page(request: pytest.FixtureRequest) -> Path:
    return request.param  # type: ignore[no-any-return]


def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", without_fences(page.read_text("utf-8"))):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        there = page.parent / path if path else page
        if not there.exists() or (anchor and anchor not in anchors(there.read_text("utf-8"))):
            broken.append(target)
    assert broken == []


def test_every_source_file_that_a_page_names_exists(page: Path) -> None:
    names = {path.rpartition("/")[2] for path in files()}
    missing = []
    for quoted in re.findall(r"`([^`\n]+)`", page.read_text("utf-8")):
        for word in re.split(r"[\s:(),]+", quoted):
            if not word.endswith(CODE_SUFFIXES) or not re.fullmatch(r"[\w./-]+", word) or word in EXAMPLES:
                continue
            if word not in (files() if "/" in word else names) and not word.startswith("/"):
                missing.append(word)
    assert missing == []


def test_the_readme_fits_on_a_page() -> None:
    assert len((ROOT / "README.md").read_bytes()) <= 8192


def test_the_readme_leads_to_every_other_page() -> None:
    linked = set(re.findall(r"\]\((docs/[\w-]+\.md)\)", (ROOT / "README.md").read_text("utf-8")))
    assert linked == {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")}


def test_the_manifests_that_the_pages_show_load(tmp_path: Path) -> None:
    loaded = []
    for path in (ROOT / "README.md", ROOT / "docs" / "manifest.md"):
        for number, text in enumerate(re.findall(r"^```yaml\n(.*?)^```$", path.read_text("utf-8"), FENCED)):
            file = tmp_path / f"{path.stem}{number}.yaml"
            file.write_text(text)
            loaded.append(load_manifest(file).name)
    assert loaded == ["stars", "foxes", "foxes", "mugs", "weights", "scenes"]


def test_the_python_that_the_pages_show_compiles(page: Path) -> None:
    for number, text in enumerate(re.findall(r"^```python\n(.*?)^```$", page.read_text("utf-8"), FENCED)):
        compile(text, f"{page.name}, block {number}", "exec")


@cache
def said_by_the_product() -> str:
    """Every text in the code of the product but docstrings, with the values left out."""
    texts = []
    for room in ("jobs", "producer", "worker"):
        for file in sorted((ROOT / room).rglob("*.py")):
            nodes = [*ast.walk(ast.parse(file.read_text("utf-8")))]
            docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
            texts += [n.value for n in nodes if isinstance(n, ast.Constant) and id(n) not in docstrings]
        texts += [file.read_text("utf-8") for file in sorted((ROOT / room).rglob("*.lua"))]
    return "\n".join(text for text in texts if isinstance(text, str))


def test_the_messages_that_troubleshooting_explains_are_those_of_the_product() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
    lines = re.findall(r"^\| (.+?) \| ", page, re.MULTILINE)[2:]
    said, missing, looked_at = said_by_the_product(), [], 0
    for quoted in re.findall(r"``(.+?)``(?!`)|`(.+?)`", "\n".join(lines)):
        for part in re.split(r"…|\bN\b|\b20\b", "".join(quoted)):
            looked_at += 1
            if part.strip(" ()") not in said:
                missing.append(part)
    assert looked_at > 15
    assert missing == []
