"""Which weight files of a folder or a repository are loaded."""

from __future__ import annotations

import pytest

from jobs.errors import ModelError
from worker.renderers.weight_files import choose_weights

BOTH = ("unet", "text_encoder")
PLAIN = ["unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"]
HALF = ["unet/diffusion_pytorch_model.fp16.safetensors", "text_encoder/model.fp16.safetensors"]


def test_the_plain_weights_are_loaded_unless_a_whole_variant_is_preferred() -> None:
    names = [*PLAIN, *HALF, "unet/config.json"]
    assert choose_weights("m", names, BOTH).names == tuple(sorted(PLAIN))
    assert choose_weights("m", names, BOTH, "bf16").variant is None
    half = choose_weights("m", names, BOTH, "fp16")
    assert (half.variant, half.names, half.remark) == ("fp16", tuple(sorted(HALF)), "")
    # A variant of one component is no variant of the model.
    assert choose_weights("m", [*PLAIN, HALF[0]], BOTH, "fp16").names == tuple(sorted(PLAIN))


@pytest.mark.parametrize("preferred", [None, "fp32", "bf16"])
def test_a_variant_alone_is_loaded_with_a_remark(preferred: str | None) -> None:
    chosen = choose_weights("m", HALF, BOTH, preferred)
    assert (chosen.variant, chosen.names) == ("fp16", tuple(sorted(HALF)))
    assert chosen.remark == (
        "text_encoder, unet: only weights of variant fp16 are there, which are converted"
    )


def test_what_is_mixed_is_named() -> None:
    names = [HALF[0], PLAIN[1], "vae/diffusion_pytorch_model.safetensors"]
    names.append("vae/diffusion_pytorch_model.fp16.safetensors")
    chosen = choose_weights("m", names, (*BOTH, "vae"))
    assert chosen.names == (PLAIN[1], HALF[0], names[3])
    assert chosen.remark == (
        "unet: only weights of variant fp16 are there, which are converted; vae: of variant fp16 as well; "
        "text_encoder: plain weights"
    )


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["unet/diffusion_pytorch_model.non_ema.safetensors"], "unet has non_ema"),
        ([HALF[0], "text_encoder/model.bf16.safetensors"], "text_encoder has bf16; unet has fp16"),
    ],
)
def test_weights_of_no_common_variant_are_refused(names: list[str], said: str) -> None:
    with pytest.raises(ModelError, match=f"model = org/m: its weights are of no common variant .{said}"):
        choose_weights("org/m", names, BOTH)


@pytest.mark.parametrize(
    ("variant", "names"),
    [
        (
            None,
            [
                "unet/diffusion_pytorch_model-00001-of-00002.safetensors",
                "unet/diffusion_pytorch_model-00002-of-00002.safetensors",
                "unet/diffusion_pytorch_model.safetensors.index.json",
            ],
        ),
        (
            "fp16",
            [
                "unet/diffusion_pytorch_model.fp16-00001-of-00002.safetensors",
                "unet/diffusion_pytorch_model.fp16-00002-of-00002.safetensors",
                "unet/diffusion_pytorch_model.safetensors.index.fp16.json",
            ],
        ),
        (
            "fp16",
            [
                "unet/diffusion_pytorch_model-00001-of-00001.fp16.safetensors",
                "unet/diffusion_pytorch_model.safetensors.index.fp16.json",
            ],
        ),
        (
            None,
            ["text_encoder/model-00001-of-00001.safetensors", "text_encoder/model.safetensors.index.json"],
        ),
    ],
)
def test_shards_are_loaded_with_their_index(variant: str | None, names: list[str]) -> None:
    chosen = choose_weights("m", names, BOTH)
    assert (chosen.variant, chosen.names) == (variant, tuple(names))
    assert chosen.tensors == tuple(names[:-1])
    # They come before a single file of the same weights.
    single = names[0].replace("-00001-of-00002", "").replace("-00001-of-00001", "")
    assert choose_weights("m", [*names, single], BOTH).names == tuple(names)


def test_other_files_are_no_weights_that_are_loaded() -> None:
    names = [
        *PLAIN,
        "flux1-dev.safetensors",
        "model.safetensors",
        "unet/others.safetensors",
        "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.fp16.bin",
        "unet/diffusion_flax_model.msgpack",
        "unet/nested/diffusion_pytorch_model.safetensors",
        "safety_checker/model.safetensors",
        "text_encoder/model.onnx",
        "text_encoder/pytorch_model.bin.index.json",
    ]
    assert choose_weights("m", names, BOTH).names == tuple(sorted(PLAIN))
    assert choose_weights("m", ["scheduler/scheduler_config.json"], BOTH).names == ()
