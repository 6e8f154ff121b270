"""What no signature of diffusers' pipelines says: which are admitted, how they guide, which sizes they round.

One line for each class; all else is read from the class by tools/pipelines.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tools.known_pipeline import ALWAYS, Known, Limits, Stage

_SAMPLED: Final = (
    "it rewrites the prompt at random, which no seed decides: equal requests would give other pictures"
)
_WITH_SIGMAS: Final = (
    "diffusers gives its scheduler noise levels of its own besides, and that takes one of them"
)
_TABLES: Final = "this version's own sampler of StableDiffusionPipeline does not know it"


LIMITS: Final[Mapping[str, Limits]] = {
    "clip_skip": Limits(least=0),
    "control_guidance_end": Limits(least=0, most=1),
    "control_guidance_start": Limits(least=0, most=1),
    # Outside, diffusers denoises to the end without a word.
    "denoising_end": Limits(above=0, most=1),
    "eta": Limits(least=0, most=1),
    "guidance_rescale": Limits(least=0, most=1),
    # Below 1, the pipelines that have it switch all guidance off.
    "image_guidance_scale": Limits(least=1),
    "intermediate_timesteps": Limits(above=0),
    "max_area": Limits(least=1),
    "max_sequence_length": Limits(least=1),
    "max_timesteps": Limits(above=0),
    "noise_level": Limits(least=0),
    "original_inference_steps": Limits(least=1, most=1000),
    "pag_adaptive_scale": Limits(least=0),
    "pag_scale": Limits(least=0),
    "prior_num_inference_steps": Limits(least=1, most=1000),
    "skip_layer_guidance_start": Limits(least=0, most=1),
    "skip_layer_guidance_stop": Limits(least=0, most=1),
    "tokenizer_max_length": Limits(least=1),
}
"""What arguments of these names may be, in any class; the most tokens of a text are read from the class."""


_8: Final = {"pixels": 8}
_16: Final = {"pixels": 16}
_32: Final = {"pixels": 32}
_64: Final = {"pixels": 64}
_SQUARED: Final = {"squared": 1}
"""The scale of the latents, squared: Kandinsky's decoder paints latents of latents."""
_MOVQ: Final = {"component": "movq", "key": "block_out_channels", "less": 1, "usual": 8}
_MEGAPIXEL: Final = {"pixels": [1024, 1024]}
_PACKED: Final = {"latents": 2}
"""Two latents, each way, are one token."""
_OF_UNET: Final = {"config": ["unet", "sample_size"]}
_INPAINTING: Final = "image+mask_image"
REFINING: Final[Mapping[str, tuple[Any, str]]] = {
    "denoising_start": (None, "strength says how far the picture is painted over")
}
"""What pipelines take that go on with the latents of another."""
_TWO_CALLS: Final = (1, 2)
_PAG: Final = ("pag_scale", 0.0)
_PRIOR: Final = Stage("prior_num_inference_steps", "prior_guidance_scale")


def _kandinsky_5(module: Any) -> Any:
    # The class's constructor holds them.
    del module
    widths = ((1024, 1024), (640, 1408), (1408, 640), (768, 1280), (1280, 768), (896, 1152), (1152, 896))
    return [(height, width) for width, height in widths]


def _hunyuan_dit(module: Any) -> Any:
    # Width comes first there.
    return [(height, width) for width, height in module.SUPPORTED_SHAPE]


ADMITTED: Final[Mapping[str, Known]] = {
    "AuraFlowPipeline": Known("steps", _PACKED),
    # They read the shift's parameters from the scheduler's configuration, where only Flow Euler's has them.
    "BriaFibo2Pipeline": Known("own", _PACKED, guided=_TWO_CALLS),
    "BriaFiboPipeline": Known("own", _16, scale=16),
    # It asks whether its scheduler is Flow Euler, and makes others' noise levels from their training.
    "BriaPipeline": Known("own", _PACKED, fixed={"timesteps": (None, _WITH_SIGMAS)}),
    "ChromaPipeline": Known("sigmas, mu", _PACKED, guided=_TWO_CALLS),
    "CogView3PlusPipeline": Known("own", _16),
    "CogView4ControlPipeline": Known("timesteps, sigmas, mu", _16, guided=_TWO_CALLS, own=("control_image",)),
    "CogView4Pipeline": Known("timesteps, sigmas, mu", _16, guided=_TWO_CALLS),
    "DreamLiteMobilePipeline": Known(
        "sigmas, mu", {"latents": 1}, None, None, left_out=frozenset({"guidance_scale"})
    ),
    "DreamLitePipeline": Known("sigmas, mu", {"latents": 1}, switch=ALWAYS, least=0.0),
    "ErnieImagePipeline": Known("tensor of sigmas", {"latents": 1}, fixed={"use_pe": (False, _SAMPLED)}),
    "Flux2KleinPipeline": Known("sigmas, mu", _PACKED, guided=_TWO_CALLS, own=("", "image")),
    "Flux2Pipeline": Known(
        "sigmas, mu",
        _PACKED,
        switch=None,
        least=0.0,
        fixed={"caption_upsample_temperature": (None, _SAMPLED)},
        own=("", "image"),
    ),
    # The models of depth and edges, which have a denoiser of their own instead of a ControlNet.
    "FluxControlPipeline": Known("sigmas, mu", _PACKED, switch=None, least=0.0, own=("control_image",)),
    "FluxFillPipeline": Known("sigmas, mu", _PACKED, switch=None, least=0.0, own=(_INPAINTING,)),
    "FluxKontextPipeline": Known(
        "sigmas, mu",
        _PACKED,
        switch="true_cfg_scale",
        guided=_TWO_CALLS,
        least=0.0,
        area="max_area",
        own=("", "image"),
    ),
    "FluxPipeline": Known("sigmas, mu", _PACKED, switch="true_cfg_scale", guided=_TWO_CALLS, least=0.0),
    "GlmImagePipeline": Known("timesteps, sigmas, mu", _32, guided=_TWO_CALLS),
    "HiDreamImagePipeline": Known("own", _PACKED, area=True),
    "HunyuanDiTPAGPipeline": Known(
        "diffusion", _16, more=_PAG, sizes=_hunyuan_dit, unless="use_resolution_binning"
    ),
    "HunyuanDiTPipeline": Known("diffusion", _16, sizes=_hunyuan_dit, unless="use_resolution_binning"),
    # Its guidance is a component that the folder configures.
    "HunyuanImagePipeline": Known("sigmas", _PACKED, None, ALWAYS, guided=_TWO_CALLS),
    "IFPipeline": Known("own", _8, scale=1),
    # Its call takes a scale or a scale for each step, and by default the latter, which only 48 steps fit.
    "Ideogram4Pipeline": Known(
        "own",
        _PACKED,
        switch=ALWAYS,
        guided=_TWO_CALLS,
        least=0.0,
        guides=7.0,
        fixed={
            "guidance_schedule": (None, "guidance_scale holds for every step"),
            "prompt_upsampling": (False, _SAMPLED),
        },
        left_out=frozenset({"prompt_upsampling_temperature"}),
    ),
    "Kandinsky3Pipeline": Known("own", _64, scale=8),
    "Kandinsky5T2IPipeline": Known("steps", _16, guided=_TWO_CALLS, scale=8, sizes=_kandinsky_5),
    "KandinskyCombinedPipeline": Known("own", _SQUARED, several=(_PRIOR, Stage()), scale=_MOVQ),
    "KandinskyV22CombinedPipeline": Known("own", _SQUARED, several=(_PRIOR, Stage()), scale=_MOVQ),
    "KolorsPAGPipeline": Known("diffusion", _8, more=_PAG),
    "KolorsPipeline": Known("diffusion", _8),
    "Krea2Pipeline": Known("sigmas, mu", _PACKED, above=0.0, guided=_TWO_CALLS, least=0.0),
    "LDMTextToImagePipeline": Known("own", _8),
    "LatentConsistencyModelPipeline": Known(
        "own", _8, switch=None, needs={"original_inference_steps": {"steps_within": True}}
    ),
    "LongCatImagePipeline": Known(
        "sigmas, mu", _PACKED, guided=_TWO_CALLS, fixed={"enable_prompt_rewrite": (False, _SAMPLED)}
    ),
    "Lumina2Pipeline": Known("sigmas, mu", _16, guided=_TWO_CALLS, scale=8),
    "LuminaPipeline": Known("steps", _16, scale=8),
    "NucleusMoEImagePipeline": Known("sigmas, mu", _PACKED, guided=_TWO_CALLS),
    # Its scheduler counts time from 0 to 1.
    "OmniGenPipeline": Known("own", _PACKED, switch=ALWAYS, fixed={"timesteps": (None, _WITH_SIGMAS)}),
    "OvisImagePipeline": Known("sigmas, mu", _PACKED, guided=_TWO_CALLS),
    "PRXPipeline": Known(
        "steps",
        _PACKED,
        default={"index": "default_sample_size", "else": 512},
        scale={
            "component": "vae",
            "key": "encoder_block_out_channels",
            "or": "block_out_channels",
            "less": 1,
            "usual": 8,
        },
    ),
    "PRXPixelPipeline": Known("steps", _16, default={"index": "default_sample_size", "else": 1024}, scale=1),
    "PixArtAlphaPipeline": Known("diffusion", _PACKED),
    "PixArtSigmaPAGPipeline": Known("diffusion", _PACKED, more=_PAG),
    "PixArtSigmaPipeline": Known("diffusion", _PACKED),
    "QwenImageEditPipeline": Known(
        "sigmas, mu",
        _PACKED,
        guidance="true_cfg_scale",
        switch="true_cfg_scale",
        guided=_TWO_CALLS,
        default=_MEGAPIXEL,
        own=("image",),
    ),
    "QwenImageEditPlusPipeline": Known(
        "sigmas, mu",
        _PACKED,
        guidance="true_cfg_scale",
        switch="true_cfg_scale",
        guided=_TWO_CALLS,
        default=_MEGAPIXEL,
        own=("image",),
    ),
    "QwenImagePipeline": Known(
        "sigmas, mu", _PACKED, guidance="true_cfg_scale", switch="true_cfg_scale", guided=_TWO_CALLS
    ),
    "SanaPAGPipeline": Known("steps", _32, more=_PAG),
    "SanaPipeline": Known("steps", _32),
    "SanaSprintPipeline": Known(
        "own",
        _32,
        switch=None,
        least=0.0,
        fixed={
            "timesteps": (None, "diffusers gives them to its scheduler without their number, which fails")
        },
        needs={"intermediate_timesteps": {"steps": 2}},
    ),
    "StableDiffusion3PAGPipeline": Known("steps", _PACKED, more=_PAG),
    "StableDiffusion3Pipeline": Known("steps", _PACKED, needs={"mu": {"dynamic_shift": True}}),
    "StableDiffusionInpaintPipeline": Known("diffusion", _8, own=(_INPAINTING,)),
    # The text, the picture and neither.
    "StableDiffusionInstructPix2PixPipeline": Known(
        "diffusion", _8, guided=(3, 1), default=_OF_UNET, own=("image",)
    ),
    "StableDiffusionPAGPipeline": Known("diffusion", _8, more=_PAG),
    # Its steps are the engine's own tables, which know none of these.
    "StableDiffusionPipeline": Known(
        "diffusion",
        _8,
        fixed={
            "timesteps": (None, _TABLES),
            "sigmas": (None, _TABLES),
            "eta": (0.0, _TABLES),
            "guidance_rescale": (0.0, _TABLES),
            "clip_skip": (None, _TABLES),
        },
    ),
    # The refiner.
    "StableDiffusionXLImg2ImgPipeline": Known(
        "diffusion", _8, default=_OF_UNET, fixed=REFINING, own=("image",)
    ),
    "StableDiffusionXLInpaintPipeline": Known("diffusion", _8, fixed=REFINING, own=(_INPAINTING,)),
    "StableDiffusionXLInstructPix2PixPipeline": Known("diffusion", _8, guided=(3, 1), own=("image",)),
    "StableDiffusionXLPAGPipeline": Known("diffusion", _8, more=_PAG),
    "StableDiffusionXLPipeline": Known("diffusion", _8),
    "StableUnCLIPPipeline": Known("diffusion", _8, several=(_PRIOR, Stage())),
    "ZImageOmniPipeline": Known(
        "list of sigmas, mu", _PACKED, above=0.0, least=0.0, default={"pixels": [1024, 1024]}
    ),
    "ZImagePipeline": Known(
        "list of sigmas, mu", _PACKED, above=0.0, least=0.0, default={"pixels": [1024, 1024]}
    ),
}

REFUSED: Final[Mapping[str, str]] = {
    "Cosmos2TextToImagePipeline": "it needs the package cosmos_guardrail, which imagemill does not install",
    "DiffusionGemmaPipeline": "it writes text, not pictures",
    "KandinskyPriorPipeline": "it makes no picture, but what KandinskyCombinedPipeline begins with",
    "KandinskyV22PriorPipeline": "it makes no picture, but what KandinskyV22CombinedPipeline begins with",
    "LLaDA2Pipeline": "it writes text, not pictures",
    "QwenImage21Pipeline": "its pictures have transparency, which no format here keeps",
    "ShapEPipeline": "it makes shapes in three dimensions",
    "StableCascadeCombinedPipeline": "diffusers saves it and cannot load what it saved (PaellaVQModel)",
    "WuerstchenCombinedPipeline": "diffusers saves it and cannot load what it saved (PaellaVQModel)",
    "StableAudio3Pipeline": "it does not make pictures, but videos or sound",
}
