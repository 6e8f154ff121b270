"""`controlnet` of a manifest: what may be written, what requests and workers get of it, what is kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from jobs.adapters import controlnets_of
from jobs.errors import ManifestError, ModelError
from jobs.ledger.job import JobSpec
from jobs.models.further_models import further_revision
from jobs.settings import Settings
from producer.manifest.base_request import usual_request
from producer.manifest.manifest import Manifest, load_manifest
from producer.requests.prepared import Prepared, prepare
from producer.submit.job_spec import job_spec


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8)).save("p.png")
    for name, kind in (
        ("edges", "ControlNetModel"),
        ("depth", "ControlNetModel"),
        ("flux", "FluxControlNetModel"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({"_class_name": kind}))
        (tmp_path / name / "diffusion_pytorch_model.safetensors").write_text(name)


_LINES = "prompts: [a, {prompt: b, control_image: p.png}]\n"


def written(controlnet: str) -> Path:
    path = Path("m.yaml")
    path.write_text(f"name: m\nmodel: shapes\ncontrolnet: {controlnet}\n{_LINES}")
    return path


def prepared(controlnet: str) -> Prepared:
    return prepare(written(controlnet), Settings())


def spec(controlnet: str) -> JobSpec:
    return job_spec(prepared(controlnet))


def test_one_may_be_a_bare_name_and_several_have_scales(tmp_path: Path) -> None:
    edges, depth = (further_revision(tmp_path / name) for name in ("edges", "depth"))
    one = prepared("./edges")
    told = controlnets_of(usual_request(one.manifest, one.model).controlnet)
    assert [(each.name, each.revision, each.scale) for each in told] == [("edges", edges, 1.0)]
    two = prepared("[./edges, {model: ./depth, scale: 0.5}]")
    told = controlnets_of(usual_request(two.manifest, two.model).controlnet)
    assert [(each.name, each.revision, each.scale) for each in told] == [
        ("edges", edges, 1.0),
        ("depth", depth, 0.5),
    ]


def test_a_line_without_a_control_image_has_none(tmp_path: Path) -> None:
    (with_one, entry), (_, controlled) = prepared("./edges").entries()
    assert entry.request.controlnet == "[]"
    assert controlled.request.controlnet != "[]"
    Path("m.yaml").write_text("{name: m, model: shapes, prompts: [a]}")
    [(without, _entry)] = prepare(Path("m.yaml"), Settings()).entries()
    assert with_one == without


def test_workers_load_them_in_the_order_of_the_manifest(tmp_path: Path) -> None:
    several = spec("[./depth, ./edges]")
    assert several.further_models == tuple(
        ("controlnet", str(tmp_path / name), further_revision(tmp_path / name)) for name in ("depth", "edges")
    )
    again = JobSpec(**json.loads(json.dumps(several.to_mapping())))
    assert again.pipeline == several.pipeline
    assert json.loads(again.pipeline)[3] == [list(one) for one in several.further_models]
    assert spec("[./edges, ./depth]").pipeline != several.pipeline
    # The scale is the request's.
    assert spec("{model: ./edges, scale: 0.5}").pipeline == spec("./edges").pipeline


def test_a_job_without_any_is_told_as_before_there_were_any(tmp_path: Path) -> None:
    Path("m.yaml").write_text("{name: m, model: shapes, prompts: [a]}")
    plain = job_spec(prepare(Path("m.yaml"), Settings()))
    assert "further_models" not in plain.to_mapping()
    assert "controlnet" not in plain.manifest
    assert len(json.loads(plain.pipeline)) == 3


def test_the_kept_manifest_has_their_revisions_and_names_no_folders(tmp_path: Path) -> None:
    one = prepared("./edges")
    pinned = one.pinned.to_json()
    assert pinned["controlnet"] == [
        {"model": str(tmp_path / "edges"), "revision": further_revision(tmp_path / "edges"), "scale": 1.0}
    ]
    assert Manifest.from_json(pinned) == one.pinned
    [kept] = spec("./edges").manifest["controlnet"]
    assert kept["model"] == "./edges"


@pytest.mark.parametrize(
    ("controlnet", "words"),
    [
        ("shapes", "m.yaml:3:13: controlnet = shapes: is no ControlNet: name a folder"),
        (
            "./a.safetensors",
            "m.yaml:3:13: controlnet = ./a.safetensors: is no ControlNet: name a folder",
        ),
        ("[./edges, {model: ./depth, scale: 11}]", "m.yaml:3:47: controlnet[1].scale = 11: must be"),
        ("{model: ./edges, weight: 1}", "m.yaml:3:30: controlnet.weight: no such key"),
        ("[]", "m.yaml:3:13: controlnet"),
    ],
)
def test_what_is_none_is_refused_at_its_place(controlnet: str, words: str) -> None:
    with pytest.raises(ManifestError) as raised:
        load_manifest(written(controlnet))
    assert str(raised.value).startswith(words)


def test_one_that_the_model_does_not_take_is_refused_at_its_place() -> None:
    for controlnet, place in (("./flux", "m.yaml:3:13: "), ("[./edges, ./flux]", "m.yaml:3:23: ")):
        with pytest.raises(ModelError) as raised:
            prepared(controlnet)
        assert str(raised.value).startswith(
            f"{place}controlnet = flux: is a FluxControlNetModel, and shapes,"
        )
