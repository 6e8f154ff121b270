"""An image request: every setting of one image, resolved, and the id that follows from it.

The settings are listed once, as the annotated fields of `ImageRequest`. The manifest's models, the fields of
prompt files, the wire, `--request`, metadata, tables, the JSON schema and docs/manifest.md follow from them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from json.encoder import encode_basestring
from operator import attrgetter
from typing import Annotated, Any, NamedTuple, get_args

from jobs.adapter_files.lora_loaders import LOADERS
from jobs.adapters import (
    CONTROLNETS,
    IP_ADAPTERS,
    LORAS,
    MOST_SCALE,
    NONE,
    TEXTUAL_INVERSIONS,
    Adapters,
)
from jobs.arguments import NO_ARGUMENTS
from jobs.bounds import (
    LEAST_GUIDANCE,
    MOST_GUIDANCE,
    QUALITIES,
    SEEDS,
    SIDES,
    STEPS,
    Arguments,
    Choice,
    Decimal,
    Fit,
    ImageFormat,
    Precision,
    SchedulerName,
    Sha256,
    Text,
    Whole,
)
from jobs.pipelines.pipeline_class import IP_ADAPTED, WEIGHTED
from jobs.prompt_weights import LongPrompts, Syntax
from jobs.setting import NOWHERE, Place, Setting, image_settings

quoted: Callable[[str], str] = encode_basestring
"""A text as JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRequest:
    """Every setting of one image. Equal requests give equal pictures and equal files.

    The order of the fields is that of the metadata's columns and of a sweep's combinations: add new ones
    last.
    """

    prompt: Annotated[
        str, Setting(Text(), 'The text to draw; "" is unconditional.', frozenset({"prompt", "row"}))
    ]
    negative_prompt: Annotated[str, Setting(Text(), "What the picture should not show.")] = ""
    height: Annotated[int, Setting(Whole(SIDES), "Pixels, a multiple of 8.", by_model=True)] = 512
    width: Annotated[int, Setting(Whole(SIDES), "Pixels, a multiple of 8.", by_model=True)] = 512
    num_inference_steps: Annotated[int, Setting(Whole(STEPS), "Denoising steps.", by_model=True)] = 50
    guidance_scale: Annotated[
        float,
        Setting(
            Decimal(LEAST_GUIDANCE, MOST_GUIDANCE),
            "Guidance; 1 switches it off (0 for some pipelines).",
            by_model=True,
        ),
    ] = 7.5
    scheduler: Annotated[
        str,
        Setting(
            SchedulerName(),
            "The sampler: A1111's, kohya's or diffusers' name, in any case.",
            by_model=True,
        ),
    ] = "LMS"
    seed: Annotated[
        int, Setting(Whole(SEEDS), "The seed of the noise; with `images_per_prompt` the first of several.")
    ]
    model: Annotated[
        str,
        Setting(
            Text(empty=False),
            "The model's label: a built-in name, a Hugging Face id, or a folder's own name.",
            frozenset({"manifest"}),
            # So that a model folder may be moved: `revision` says which weights.
            in_identity=False,
        ),
    ]
    revision: Annotated[
        str,
        Setting(
            Text(empty=False),
            "The exact weights: a commit, the sha256:… of a folder's contents, or a built-in model's own.",
            frozenset({"manifest"}),
        ),
    ]
    precision: Annotated[
        str,
        Setting(
            Choice(get_args(Precision)),
            "auto is bf16 on CUDA and fp32 on CPU; amp is autocast.",
            frozenset({"manifest"}),
        ),
    ] = "auto"
    image_format: Annotated[
        str,
        Setting(Choice(get_args(ImageFormat)), "The pictures' file format.", frozenset({"manifest"})),
    ] = "png"
    image_quality: Annotated[
        int,
        Setting(
            Whole(QUALITIES),
            "Of jpeg and webp; 100 makes webp lossless. png ignores it.",
            frozenset({"manifest"}),
        ),
    ] = 95
    init_latents: Annotated[
        str | None,
        Setting(
            Sha256(),
            "A .npy or .safetensors file of initial latents, [channels, h, w]; relative to the manifest.",
            frozenset({"prompt"}),
        ),
    ] = None
    arguments: Annotated[
        str,
        Setting(
            Arguments(),
            "Further arguments of the pipeline's call; what is given here replaces the whole mapping.",
            added_later=True,
        ),
    ] = NO_ARGUMENTS
    syntax: Annotated[
        str,
        Setting(
            Choice(get_args(Syntax)),
            "How the prompt and the negative prompt are read: plain is text alone; a1111 knows (text:1.3), "
            "((text)), [text] and BREAK; compel knows (text)1.3, text++, .and() and .blend().",
            added_later=True,
            pipelines=WEIGHTED,
        ),
    ] = "plain"
    long_prompts: Annotated[
        str,
        Setting(
            Choice(get_args(LongPrompts)),
            "Texts longer than the text encoder's window: cut ends them there, chunk encodes them window by "
            "window.",
            added_later=True,
            pipelines=WEIGHTED,
        ),
    ] = "cut"

    image: Annotated[
        str | None,
        Setting(
            Sha256(),
            "The picture to begin with: a file's name, with {id} and {column} of the line.",
            added_later=True,
        ),
    ] = None
    mask_image: Annotated[
        str | None,
        Setting(Sha256(), "What to paint again: white; black is kept.", added_later=True),
    ] = None
    control_image: Annotated[
        str | None,
        Setting(Sha256(), "What a ControlNet follows: edges, depth, …", added_later=True),
    ] = None
    fit: Annotated[
        str,
        Setting(
            Choice(get_args(Fit)),
            "How pictures get the size that is painted: crop cuts what is over, pad adds black, stretch "
            "changes their proportions.",
            added_later=True,
        ),
    ] = "crop"
    strength: Annotated[
        float | None,
        Setting(
            Decimal(0.0, 1.0),
            "How far `image` is painted over: 1 is all of it. When left out, the pipeline's own.",
            added_later=True,
        ),
    ] = None
    controlnet: Annotated[
        str,
        Setting(CONTROLNETS, "The models that follow `control_image`.", NOWHERE, added_later=True),
    ] = NONE
    controlnet_conditioning_scale: Annotated[
        float,
        Setting(
            Decimal(0.0, MOST_SCALE), "How much ControlNets have to say; 0 is nothing.", added_later=True
        ),
    ] = 1.0
    loras: Annotated[
        str,
        Setting(
            LORAS,
            "LoRAs: files, or files of the hub, each with its scale.",
            added_later=True,
            pipelines=frozenset(LOADERS),
        ),
    ] = NONE
    textual_inversions: Annotated[
        str,
        Setting(
            TEXTUAL_INVERSIONS,
            "Embeddings: files, each with the token that prompts call it by.",
            added_later=True,
            pipelines=WEIGHTED,
        ),
    ] = NONE
    ip_adapter: Annotated[
        str,
        Setting(IP_ADAPTERS, "What follows `ip_adapter_image`.", NOWHERE, added_later=True),
    ] = NONE
    ip_adapter_image: Annotated[
        str | None,
        Setting(
            Sha256(),
            "The picture that the IP-Adapter follows; of one that is not square, the middle.",
            added_later=True,
        ),
    ] = None
    ip_adapter_scale: Annotated[
        float,
        Setting(
            Decimal(0.0, MOST_SCALE),
            "How strongly the picture of the IP-Adapter counts; 0 is not at all.",
            added_later=True,
            pipelines=IP_ADAPTED,
        ),
    ] = 1.0

    def identity(self) -> str:
        """The canonical JSON that `image_id` hashes: sorted keys, no spaces, UTF-8, without `model`.

        Each key more here would give every image that was ever rendered another id, and outputs would be
        rendered again: so a setting that was added later is left out while it is at its default.
        """
        return self.identity_parts().of(quoted(self.prompt), self.seed)

    def identity_parts(self) -> IdentityParts:
        """`identity` cut at the prompt's and the seed's values, which do not count here."""
        members = [
            (name, f"{quoted(name)}:{as_json(setting.identified(value))}")
            for name, setting in sorted(IMAGE_SETTINGS.items())
            if setting.in_identity
            and name not in ("prompt", "seed")
            and not setting.left_out(value := getattr(self, name))
            and not (name == "image_quality" and self.image_format == "png")
        ]
        return IdentityParts(
            "{" + "".join(f"{member}," for name, member in members if name < "prompt") + '"prompt":',
            "".join(f",{member}" for name, member in members if "prompt" < name < "seed"),
            "".join(f",{member}" for name, member in members if name > "seed") + "}",
        )

    @property
    def image_id(self) -> str:
        """The first 16 hex digits of the SHA-256 of `identity()`."""
        return hashlib.sha256(self.identity().encode()).hexdigest()[:16]

    @property
    def guided(self) -> bool:
        """Whether classifier-free guidance is on."""
        return self.guidance_scale > 1.0

    @property
    def own_embeds(self) -> bool:
        """Whether its texts are encoded otherwise than by the pipeline's own call."""
        return self.syntax != "plain" or self.long_prompts != "cut"

    @property
    def adapters(self) -> Adapters:
        """What the denoiser and the text encoders carry for it."""
        return Adapters(self.loras, self.textual_inversions, self.ip_adapter, self.ip_adapter_scale)

    def to_mapping(self) -> dict[str, Any]:
        """Its settings as JSON values, in their order."""
        return {name: getattr(self, name) for name in IMAGE_SETTINGS}

    def written(self) -> dict[str, Any]:
        """`to_mapping` without the settings that were added later and are at their defaults."""
        values = self.to_mapping().items()
        return {name: value for name, value in values if not IMAGE_SETTINGS[name].left_out(value)}

    def to_json(self) -> str:
        """The whole request as JSON, as PNG text `imagemill` holds it.

        A setting that was added later is left out while it is at its default, so that files keep their bytes.
        """
        return json.dumps(self.written(), sort_keys=True, ensure_ascii=False)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> ImageRequest:
        """The request that `to_json` wrote; other keys are ignored. TypeError when one is missing."""
        return cls(**{name: values[name] for name in IMAGE_SETTINGS if name in values})


class IdentityParts(NamedTuple):
    """The canonical JSON of requests that differ in prompt and seed alone, without those two values."""

    before_prompt: str
    before_seed: str
    after_seed: str

    @property
    def between(self) -> str:
        """The text between the two values."""
        return f'{self.before_seed},"seed":'

    def of(self, quoted_prompt: str, seed: int) -> str:
        """The whole JSON; `quoted_prompt` is the prompt as JSON."""
        return f"{self.before_prompt}{quoted_prompt}{self.between}{seed}{self.after_seed}"


IMAGE_SETTINGS: Mapping[str, Setting] = image_settings(ImageRequest)
"""Every setting of an image by its name, in the order of the fields of `ImageRequest`."""
REQUEST_FIELDS: tuple[str, ...] = tuple(IMAGE_SETTINGS)
SETTINGS = tuple(name for name in REQUEST_FIELDS if name not in ("prompt", "seed"))
settings_of: Callable[[ImageRequest], tuple[Any, ...]] = attrgetter(*SETTINGS)
"""A request's SETTINGS, in their order."""


PICTURES = ("image", "mask_image", "control_image", "ip_adapter_image")
"""The settings that are pictures, each the SHA-256 of a file."""


def settings_in(place: Place) -> tuple[str, ...]:
    """The names of the settings that may be given there, in their order."""
    return tuple(name for name, setting in IMAGE_SETTINGS.items() if place in setting.places)


def as_json(value: object) -> str:
    """A value as the canonical JSON has it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
