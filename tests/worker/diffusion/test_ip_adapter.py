"""IP-Adapters: what diffusers paints with them, and a UNet that is what it was without one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from jobs.adapter_files.ip_adapter_file import Projection
from jobs.adapters import IP_ADAPTERS, NO_ADAPTERS, Adapters, IpAdapter
from jobs.errors import RenderError
from jobs.inputs.inputs import KeptInputs
from tests.ip_adapter_files import image_encoder, ip_adapter_tensors, save_image_encoder
from tests.tiny.families import FAMILIES
from worker.diffusion.adapters import AdapterSwitch
from worker.diffusion.ip_adapter import ImageEncoder, IpAdapterSwitch
from worker.renderers.image_encoders import processor_of

SD, XL = "StableDiffusionPipeline", "StableDiffusionXLPipeline"
PICTURE = Image.fromarray(np.random.default_rng(1).integers(0, 255, (40, 32, 3), dtype=np.uint8))


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def built(family: str) -> Any:
    pipeline = FAMILIES[family].build()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@cache
def encoder() -> ImageEncoder:
    module = image_encoder()
    return ImageEncoder(module, processor_of(module), "1")


@dataclass(frozen=True, slots=True)
class Files:
    """Files of IP-Adapters by their hashes."""

    folder: Path
    paths: dict[str, str] = field(default_factory=dict)

    def add(self, tensors: dict[str, torch.Tensor]) -> IpAdapter:
        made = self.folder / "made.safetensors"
        save_file(tensors, made)
        digest = sha256(made.read_bytes()).hexdigest()
        self.paths[digest] = str(made.rename(self.folder / f"{digest}.safetensors"))
        return IpAdapter("ip", digest, "encoder", "1")

    @property
    def inputs(self) -> KeptInputs:
        return KeptInputs(self.folder, self.paths)


@torch.no_grad()
def painted(pipeline: Any, **arguments: Any) -> np.ndarray:
    [values] = pipeline(
        "a fox", height=32, width=32, num_inference_steps=2, guidance_scale=4.0, output_type="np",
        generator=torch.Generator().manual_seed(1), **arguments,
    ).images  # fmt: skip
    return np.asarray(values)


@pytest.mark.parametrize(("family", "kind"), [(SD, "plain"), (SD, "full"), (SD, "plus"), (XL, "plain")])
def test_a_picture_is_diffusers_own_and_the_unet_is_then_what_it_was(
    family: str, kind: Projection, tmp_path: Path
) -> None:
    ours, theirs, files = built(family), built(family), Files(tmp_path)
    before = painted(ours)
    processors = ours.unet.attn_processors
    adapter = files.add(ip_adapter_tensors(ours.unet, kind))
    save_image_encoder(tmp_path / "image_encoder")
    theirs.load_ip_adapter(str(tmp_path), subfolder="", weight_name=f"{adapter.sha256}.safetensors")
    switch = IpAdapterSwitch(ours, encoder())
    theirs.set_ip_adapter_scale(0.4)
    switch.put_on(adapter, 0.4, files.inputs)
    adapted = painted(ours, ip_adapter_image=PICTURE)
    assert np.array_equal(adapted, painted(theirs, ip_adapter_image=PICTURE))
    switch.put_on(None, 1.0, files.inputs)
    assert not np.array_equal(adapted, before)
    assert np.array_equal(painted(ours), before)
    assert ours.unet.attn_processors == processors
    assert ours.unet.encoder_hid_proj is None and ours.unet.config.encoder_hid_dim_type is None


def test_one_follows_another_and_comes_back_without_its_file(tmp_path: Path) -> None:
    pipeline, files = built(SD), Files(tmp_path)
    first, second = (files.add(ip_adapter_tensors(pipeline.unet, "plain", seed)) for seed in (1, 2))
    switch = IpAdapterSwitch(pipeline, encoder())
    found = []
    for adapter in (first, second, first):
        switch.put_on(adapter, 1.0, files.inputs)
        found.append(painted(pipeline, ip_adapter_image=PICTURE))
        files.paths.pop(first.sha256, None)
    assert np.array_equal(found[0], found[2])
    assert not np.array_equal(found[0], found[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"image_proj.proj.weight": torch.zeros(192, 9)},
            "takes pictures of an image encoder of width 9, and the one given has 8",
        ),
        ({"ip_adapter.1.to_k_ip.weight": None}, "is no IP-Adapter that is known"),
        ({"last": None}, "and the model has"),
        ({"ip_adapter.0.to_k_lora.down.weight": torch.zeros(1)}, "is an IP-Adapter FaceID, which is not"),
        ({"image_proj": None}, "is no IP-Adapter: it lacks tensors"),
        ({"image_proj.norm.bias": None}, "diffusers cannot load it"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_and_the_unet_stays(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    pipeline, files = built(XL), Files(tmp_path)
    switch, before = IpAdapterSwitch(pipeline, encoder()), painted(pipeline)
    tensors = ip_adapter_tensors(pipeline.unet)
    last = max(tensors, key=lambda name: int(name.split(".")[1]) if "to_" in name else 0)
    for name, tensor in change.items():
        start = {"last": last[: last.index("to_")]}.get(name, name)
        if tensor is None:
            tensors = {name: kept for name, kept in tensors.items() if not name.startswith(start)}
        else:
            tensors[name] = tensor
    adapter = files.add(tensors)
    for _ in range(2):
        with pytest.raises(RenderError, match=f"^ip_adapter: ip: .*{message}"):
            switch.put_on(adapter, 1.0, files.inputs)
        files.paths.clear()  # what was refused once is not read again
    assert np.array_equal(painted(pipeline), before)


def test_a_compiled_model_takes_none_and_says_what_to_do(tmp_path: Path) -> None:
    pipeline, files = built(SD), Files(tmp_path)
    one = files.add(ip_adapter_tensors(pipeline.unet))
    text = IP_ADAPTERS.plain([asdict(one)])
    switch = AdapterSwitch(pipeline, compiled=True, image_encoder=encoder())
    with pytest.raises(
        RenderError, match=r"^ip_adapter: this worker compiles .* set IMAGEMILL_TORCH_COMPILE=0"
    ):
        switch.switch(Adapters(ip_adapter=str(text)), files.inputs)
    assert switch.on == NO_ADAPTERS


@pytest.mark.parametrize("loaded", [None, "2"])
def test_another_image_encoder_than_the_request_asks_for_is_refused(
    loaded: str | None, tmp_path: Path
) -> None:
    pipeline, files = built(SD), Files(tmp_path)
    adapter = files.add(ip_adapter_tensors(pipeline.unet))
    other = None if loaded is None else ImageEncoder(encoder().module, encoder().processor, loaded)
    with pytest.raises(
        RenderError, match=f"of image encoder encoder at 1, and what is loaded is {loaded or 'none'}"
    ):
        IpAdapterSwitch(pipeline, other).put_on(adapter, 1.0, files.inputs)
