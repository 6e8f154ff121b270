"""Whatever lies in a model's folder, or where latents should: what it is, or one message, in time."""

from __future__ import annotations

import io
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st
from safetensors.numpy import save

from jobs.errors import LatentsError, ModelError
from jobs.inputs.latents import read_latents
from jobs.models.models import resolve_model
from tests.faults import strategies as make
from tests.faults.bounds import bounded
from tests.faults.fuzzing import fuzz
from tests.odd_files import DEEP, ODD, put

_FILES: dict[str, Any] = {
    "model_index.json": {
        "_class_name": "StableDiffusionPipeline",
        **{name: ["diffusers", "X"] for name in ("unet", "vae", "tokenizer", "scheduler")},
    },
    "unet/config.json": {"in_channels": 4, "sample_size": 64, "_diffusers_version": "0.8.0"},
    "vae/config.json": {"block_out_channels": [16, 32, 64, 64]},
    "scheduler/scheduler_config.json": {"use_dynamic_shifting": False},
    "tokenizer/vocab.json": {"a": 0},
}
_CLASSES = ["StableDiffusionPipeline", "FluxPipeline", "StableDiffusionXLPipeline", "QwenImagePipeline"]
_FIGURES = st.sampled_from(
    ["1e999", "-1e999", "NaN", "1e300", "-1", "0", "[]", "{}", "null", '"7"', "9" * 400]
)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@st.composite
def _changed(draw: st.DrawFn, value: Any) -> bytes:
    """The JSON of a file that was changed."""
    text = json.dumps(value)
    return draw(
        st.one_of(
            make.twisted(value).map(lambda changed: json.dumps(changed).encode()),
            make.nested(json.dumps({**value, "id": None})).map(str.encode),
            make.damaged(text.encode()),
            _FIGURES.map(lambda figure: text.replace("64", figure).replace("4,", f"{figure},").encode()),
            st.just(DEEP),
        )
    )


@fuzz(40, data=st.data(), name=st.sampled_from(_CLASSES))
def test_a_models_folder_is_a_model_or_refused(data: st.DataObject, name: str, tmp_path: Path) -> None:
    with TemporaryDirectory(dir=tmp_path) as around:
        folder = Path(around) / "model"
        files = {**_FILES, "model_index.json": {**_FILES["model_index.json"], "_class_name": name}}
        for file, value in files.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text(json.dumps(value))
        (folder / "unet/diffusion_pytorch_model.safetensors").write_bytes(b"weights")
        chosen = data.draw(st.lists(st.sampled_from(sorted(files)), min_size=1, max_size=2, unique=True))
        for file in chosen:
            kind = data.draw(st.sampled_from([*["text"] * 6, *ODD]))
            if kind == "text":
                (folder / file).write_bytes(data.draw(_changed(files[file])))
            else:
                put(folder / file, kind)
        with bounded(tmp_path):
            try:
                found = resolve_model(str(folder))
            except ModelError as error:
                assert str(error).isprintable(), ascii(str(error))
                assert len(str(error)) < 2000
                return
        assert found.model == str(folder)
        for figure in (found.latent_channels, found.latent_scale, found.folder.scale):
            assert figure is None or 1 <= figure <= 1 << 20
        assert 8 <= found.defaults.height <= 8192 or found.unsized


_VALUES = np.zeros((4, 8, 8), np.float32)


def _npy() -> bytes:
    contents = io.BytesIO()
    np.save(contents, _VALUES)
    return contents.getvalue()


@fuzz(
    40,
    suffix=st.sampled_from([".npy", ".safetensors"]),
    kind=st.sampled_from([*["bytes"] * 6, *ODD]),
    data=st.data(),
    header=st.text(st.sampled_from("{}()[]'\"\\, :<f48shapedecrfortn_oFalse-0123456789\n\0"), max_size=60),
)
def test_latents_are_read_or_refused(
    suffix: str, kind: str, data: st.DataObject, header: str, tmp_path: Path
) -> None:
    path = tmp_path / f"a{suffix}"
    path.unlink(missing_ok=True)
    if kind == "bytes":
        whole = _npy() if suffix == ".npy" else save({"latents": _VALUES})
        written = header.encode()
        made = b"\x93NUMPY\1\0" + len(written).to_bytes(2, "little") + written + bytes(64)
        path.write_bytes(data.draw(make.damaged(whole) | st.just(made)))
    else:
        put(path, kind)
    with bounded(tmp_path):
        try:
            found = read_latents(path)
        except LatentsError as error:
            assert str(error).startswith(f"{path}: ")
            assert str(error).isprintable(), ascii(str(error))
            return
    assert found.dtype == np.float32 and found.ndim == 3
