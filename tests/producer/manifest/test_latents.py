"""Initial latents that a manifest names: checked before anything is written, kept by their hashes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from jobs.errors import LatentsError
from jobs.inputs.latents import read_input
from jobs.models.models import resolve_model
from producer.manifest.latents import gather_latents
from producer.manifest.manifest import Manifest, load_manifest
from tests.expanded import expand

MODEL = resolve_model("shapes-random")


def test_latents_are_checked_at_the_size_of_every_line_and_the_line_is_named(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((4, 16, 16), np.float32))
    text = "name: x\nmodel: shapes-random\nsettings: {height: 64, width: 64}\nprompts:\n"
    second = "  - {prompt: b, width: 128, init_latents: a.npy}\n"
    (tmp_path / "m.yaml").write_text(text + "  - {prompt: a, init_latents: a.npy}\n" + second)
    manifest = load_manifest(tmp_path / "m.yaml")
    with pytest.raises(LatentsError) as caught:
        gather_latents(manifest, MODEL, tmp_path / "inputs")
    place = (
        f"{tmp_path / 'm.yaml'}:6:43: prompts[1].init_latents = {tmp_path / 'a.npy'}: has shape [4, 16, 16]"
    )
    assert str(caught.value).startswith(place)
    assert not (tmp_path / "inputs").exists()


def test_a_missing_file_of_latents_is_reported_with_the_manifests_line(tmp_path: Path) -> None:
    text = "name: x\nmodel: shapes-random\nprompts:\n  - {prompt: a, init_latents: none.npy}\n"
    (tmp_path / "m.yaml").write_text(text)
    with pytest.raises(LatentsError, match=r"m.yaml:4:31: prompts\[0\].init_latents = .*no such file"):
        gather_latents(load_manifest(tmp_path / "m.yaml"), MODEL)


def test_latents_are_hashed_into_the_request_and_kept(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((4, 16, 16), np.float32))
    text = "name: x\nmodel: shapes-random\nsettings: {height: 64, width: 64}\nprompts:\n"
    (tmp_path / "m.yaml").write_text(text + "  - {prompt: a, init_latents: a.npy}\n  - a\n")
    manifest = load_manifest(tmp_path / "m.yaml")
    hashes = gather_latents(manifest, MODEL, tmp_path / "inputs")
    (sha,) = hashes.values()
    first, second = expand(manifest, MODEL, latents=hashes)
    assert first.request.init_latents == sha
    assert second.request.init_latents is None
    assert (first.seed_ordinal, second.seed_ordinal) == (0, 0)
    assert (read_input(tmp_path / "inputs", sha) == 1).all()
    with pytest.raises(LatentsError, match="has not been read"):
        list(expand(manifest, MODEL))


def test_each_size_of_a_sweep_is_checked(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((4, 16, 16), np.float32))
    line = {"prompt": "x", "init_latents": str(tmp_path / "a.npy")}
    asked = {"name": "x", "model": "shapes-random", "settings": {"height": 64}, "prompts": [line]}
    manifest = Manifest.from_json(asked | {"sweep": {"width": [64]}})
    assert len(gather_latents(manifest, MODEL)) == 1
    with pytest.raises(LatentsError, match=r"a\.npy"):
        gather_latents(Manifest.from_json(asked | {"sweep": {"width": [64, 72]}}), MODEL)
