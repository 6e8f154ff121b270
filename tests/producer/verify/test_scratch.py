"""Inputs that an output keeps reach those where its images are rendered again, in folders and buckets."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from jobs.errors import OutputError
from jobs.inputs.inputs import KeptInputs, kept_name
from jobs.inputs.latents import write_input
from jobs.ledger.job import SlotsKey
from jobs.output.output import INPUTS, Output
from jobs.request import ImageRequest
from jobs.settings import Settings
from jobs.settled_slots import settled_slots
from producer.verify.files import Files
from producer.verify.parts import Kind, Part
from producer.verify.scratch import scratch
from producer.verify.sources import Source, Sources

PICTURE = b"the bytes of a picture"
SHA256 = hashlib.sha256(PICTURE).hexdigest()
SLOTS = SlotsKey("cpu", "fp32", "instant-1", 64, 64)
LATENTS = np.linspace(-1, 1, 64, dtype="<f4").reshape(4, 4, 4)


@pytest.fixture
def places(bucket: str, tmp_path: Path) -> dict[str, str]:
    """An output in a folder and one in a bucket, which keep the same picture and the same latents."""
    places = {"folder": str(tmp_path / "sets/out"), "bucket": f"s3://{bucket}/sets/out"}
    digest = write_input(tmp_path / "latents", LATENTS)
    for place in places.values():
        output = Output.at(place)
        output.prepare()
        with output.store.written(f"{INPUTS}/{kept_name(SHA256)}") as file:
            file.write(PICTURE)
        output.store.replace(f"{INPUTS}/{digest}.npy", (tmp_path / f"latents/{digest}.npy").read_bytes())
    return places


def part_of(output: Output) -> Part:
    """The part of one image that was painted from the picture and the latents."""
    [digest] = [Path(name).stem for name in output.store.files_below(INPUTS) if name.endswith(".npy")]
    request = ImageRequest(
        prompt="a fox", seed=1, model="instant", revision="instant-1", image=SHA256, init_latents=digest
    )
    files = Files(output, Sources(output))
    part = Part(Kind(Source("instant", "instant-1", ()), request, "exact"))
    part.files.update(files.of(request, "foxes-1"))
    part.latents[digest] = files.latents(digest)
    part.slots[SLOTS] = 16
    return part


@pytest.mark.parametrize("kept_in", ["folder", "bucket"])
@pytest.mark.parametrize("rendered_in", ["folder", "bucket"])
def test_what_an_output_keeps_is_there_for_workers_and_nothing_is_left(
    places: dict[str, str], kept_in: str, rendered_in: str, tmp_path: Path
) -> None:
    part = part_of(Output.at(places[kept_in]))
    into = places[rendered_in].rpartition("/")[0]
    with scratch(
        Output.at(places[kept_in]), Settings(), Path(into) if rendered_in == "folder" else into, own=False
    ) as made:
        output = made.output(1, part)
        [latents] = part.latents
        (tmp_path / "read").mkdir()
        (tmp_path / f"read/{latents}.npy").write_bytes(output.store.read(f"{INPUTS}/{latents}.npy"))
        assert np.array_equal(KeptInputs(tmp_path / "read").latents(latents), LATENTS)
        assert settled_slots(output, SLOTS) == 16
        named = made.named(part)
        if SHA256 in named:  # workers read it where it is
            assert Path(named[SHA256]).read_bytes() == PICTURE
            assert kept_in == rendered_in == "folder"
        else:
            assert output.store.read(f"{INPUTS}/{kept_name(SHA256)}") == PICTURE
    assert not any("verify" in name for name in Output.at(into).store.files_below(""))
    assert not output.path.exists()


def test_it_is_beside_the_output_or_where_temporary_files_are(places: dict[str, str], bucket: str) -> None:
    output = Output.at(places["bucket"])
    with scratch(output, Settings(), None, own=False) as made:
        assert made.place.startswith(f"s3://{bucket}/sets/.verify-")
    with scratch(output, Settings(), None, own=True) as made:
        assert Path(made.place).is_dir()
    with (
        pytest.raises(OutputError, match=r"has nothing beside it.*--into"),
        scratch(Output.at(f"s3://{bucket}"), Settings(), None, own=False),
    ):
        pass
    with (
        pytest.raises(OutputError, match=r"lies outside IMAGEMILL_OUTPUT_ROOT = s3://other: .*--into"),
        scratch(output, Settings(output_root="s3://other"), None, own=True),
    ):
        pass
