from __future__ import annotations

from importlib import resources
from pathlib import Path

import jsonschema
import pytest
import yaml

from jobs.entry import Entry
from producer.manifest.latents import gather_latents
from producer.manifest.manifest import Manifest, json_schema, load_manifest
from tests.expanded import expand

FOLDER = Path(str(resources.files("jobs.examples")))
EXAMPLES = sorted(FOLDER.glob("*.yaml"))


def test_the_examples_are_there() -> None:
    names = [
        "demo",
        "latents",
        "loras",
        "pictures",
        "prompt_files",
        "seeds",
        "starter",
        "sunset",
        "sweep",
        "webdataset",
        "wildcards",
    ]
    assert [path.stem for path in EXAMPLES] == names


@pytest.fixture(params=EXAMPLES, ids=lambda path: path.stem)
def example(request: pytest.FixtureRequest) -> Path:
    return request.param  # type: ignore[no-any-return]


def test_an_example_loads_resolves_without_the_network_and_expands(
    example: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: object, **__: object) -> object:
        raise AssertionError("the network was asked")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", no_network)
    manifest = load_manifest(example)
    model = manifest.resolve_model()
    twice: list[Entry] = []
    entries = list(expand(manifest, model, twice.append, latents=gather_latents(manifest, model)))
    assert entries
    assert twice == []
    assert Manifest.from_json(manifest.to_json()) == manifest


def test_an_example_fits_the_schema(example: Path) -> None:
    jsonschema.validate(yaml.safe_load(example.read_text("utf-8")), json_schema())


def test_an_example_says_in_its_first_line_what_it_shows(example: Path) -> None:
    assert example.read_text("utf-8").startswith("# ")


def test_the_sunset_is_the_quick_starts_own() -> None:
    manifest = load_manifest(FOLDER / "sunset.yaml")
    (entry,) = expand(manifest, manifest.resolve_model())
    request = entry.request
    assert request.prompt == "A beautiful sunset over mountains with a lake reflection"
    assert (request.height, request.width) == (512, 512)
    assert (request.num_inference_steps, request.guidance_scale, request.scheduler) == (50, 7.5, "LMS")


def test_the_demo_is_40_small_pictures() -> None:
    manifest = load_manifest(FOLDER / "demo.yaml")
    requests = [entry.request for entry in expand(manifest, manifest.resolve_model())]
    assert len(requests) == 40
    assert {(request.height, request.width, request.num_inference_steps) for request in requests} == {
        (64, 64, 20)
    }
    assert {request.scheduler for request in requests} == {"DDIM", "LMS", "DPM++ 2M", "Euler"}
