"""The card names the model, its licence where the hub tells it, and that all pictures are synthetic."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.output.card import dataset_card
from jobs.output.contents import Contents
from jobs.output.licences import keep_licences, licence_of_card, read_licences
from jobs.output.output import Output

COMMIT = "5f" * 20
MODEL = ("org/fox-diffusion", COMMIT)


@pytest.fixture
def output(tmp_path: Path) -> Output:
    output = Output(tmp_path / "out")
    output.prepare()
    return output


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The snapshot of a model in this machine's cache of the hub."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    snapshot = tmp_path / "hub" / "models--org--fox-diffusion" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    return snapshot


@pytest.mark.parametrize(
    ("readme", "licence"),
    [
        ("---\nlicense: mit\ntags: [x]\n---\n# A model", "mit"),
        ("---\nlicense: other\nlicense_name: flux-dev\n---\n", "flux-dev"),
        ("---\ntags: [x]\n---\nlicense: mit", ""),
        ("# A model\n---\nlicense: mit\n---\n", ""),
        ("---\nlicense: 'cc0-1.0'  # all\n---\n", "cc0-1.0"),
        ("---\nlicense:\n- mit\n---\n", ""),
        ("---\nlicense: [mit]\n---\n", ""),
        ("", ""),
    ],
)
def test_the_licence_is_that_of_the_cards_front_matter(readme: str, licence: str) -> None:
    assert licence_of_card(readme) == licence


def test_a_licence_stays_with_the_output_once_it_was_found(output: Output, hub: Path) -> None:
    assert keep_licences(output, {MODEL, ("shapes", "sha256:00")}) == {}
    (hub / "README.md").write_text("---\nlicense: openrail\n---\n")
    assert keep_licences(output, {MODEL}) == {MODEL: "openrail"}
    (hub / "README.md").unlink()
    assert keep_licences(output, {MODEL}) == read_licences(output) == {MODEL: "openrail"}


def test_the_card_names_models_licences_and_that_all_is_synthetic() -> None:
    found = Contents()
    for model, revision in (MODEL, ("shapes", "sha256:00")):
        found.add(
            {
                "file_name": "x.png",
                "text": "a fox",
                "image_id": "0" * 16,
                "model": model,
                "revision": revision,
            }
        )
    found.licences = {MODEL: "openrail"}
    card = dataset_card(found, layout="files")
    assert (
        "All of them are synthetic: models made them, `org/fox-diffusion` (its licence on the hub: " in card
    )
    assert "openrail), `shapes`." in card
    assert "- synthetic\n" in card
