"""An image request: every setting of one image, resolved, and the id that follows from it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from json.encoder import encode_basestring
from operator import attrgetter
from typing import Any

quoted: Callable[[str], str] = encode_basestring
"""A text as JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRequest:
    """Every setting of one image. Equal requests give equal pictures and equal files.

    `revision` says which weights: a hub commit, or "sha256:…" of a folder's contents. `model` is only
    its label (a hub id, a built-in name, a folder's own name) and is no part of the identity, so that a
    model folder may be moved. `init_latents` is the SHA-256 of the initial latents' contents.
    """

    prompt: str
    negative_prompt: str = ""
    height: int = 512
    """Pixels, a multiple of 8."""
    width: int = 512
    """Pixels, a multiple of 8."""
    num_inference_steps: int = 50
    guidance_scale: float = 7.5
    """>= 1; 1.0 switches classifier-free guidance off."""
    scheduler: str = "LMS"
    """A canonical name of `jobs.schedulers`."""
    seed: int
    """0 .. 2**63 - 1, for a CPU generator."""
    model: str
    revision: str
    precision: str = "auto"
    """auto (bf16 on CUDA, fp32 on CPU), bf16, fp16, amp, fp32."""
    image_format: str = "png"
    """png, jpeg or webp."""
    image_quality: int = 95
    """1 .. 100 for jpeg and webp (100: lossless webp); png ignores it."""
    init_latents: str | None = None

    def identity(self) -> str:
        """The canonical JSON that `image_id` hashes: sorted keys, no spaces, UTF-8, without `model`.

        A field that is added later must be left out while at its default: each key more here would give every
        image that was ever rendered another id, and outputs would be rendered anew.
        """
        # asdict copies every value deeply, which takes four times as long.
        settings = {name: getattr(self, name) for name in REQUEST_FIELDS if name != "model"}
        if self.image_format == "png":
            del settings["image_quality"]
        return json.dumps(settings, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @property
    def image_id(self) -> str:
        """The first 16 hex digits of the SHA-256 of `identity()`."""
        return hashlib.sha256(self.identity().encode()).hexdigest()[:16]

    @property
    def guided(self) -> bool:
        """Whether the image takes two slots of a forward."""
        return self.guidance_scale > 1.0

    def to_json(self) -> str:
        """The whole request as JSON, as PNG text `imagemill` holds it."""
        return json.dumps(asdict(self), sort_keys=True, ensure_ascii=False)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> ImageRequest:
        """The request that `to_json` wrote; other keys are left aside. TypeError when one is missing."""
        return cls(**{name: values[name] for name in REQUEST_FIELDS if name in values})


REQUEST_FIELDS: tuple[str, ...] = tuple(f.name for f in fields(ImageRequest))
SETTINGS = tuple(name for name in REQUEST_FIELDS if name not in ("prompt", "seed"))
settings_of = attrgetter(*SETTINGS)
"""A request's SETTINGS, in their order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:  # noqa: PLW1641 - the dataclass makes __hash__
    """One line of a job: the request, and what its author wrote beside it."""

    request: ImageRequest
    id: str | None = None
    """The user's own name for the line; passed through to the metadata."""
    columns: Mapping[str, Any] = field(default_factory=dict)
    """The user's own columns (JSON values); passed through to the metadata."""
    seed_ordinal: int | None = None
    """The request's number among equals when its seed was derived; None when the seed was given."""

    @property
    def quoted(self) -> str:
        """The prompt as JSON."""
        return quoted(self.request.prompt)

    @property
    def seed(self) -> int:
        return self.request.seed

    @property
    def settings(self) -> tuple[Any, ...]:
        """The values of SETTINGS."""
        return settings_of(self.request)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.request.height, self.request.width

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Entry):
            return NotImplemented
        mine = (self.request, self.id, self.columns, self.seed_ordinal)
        return mine == (other.request, other.id, other.columns, other.seed_ordinal)


def derived_seed(job_name: str, request: ImageRequest, ordinal: int) -> int:
    """The seed of a line that names none: 32 bits of a hash of the manifest's name, the request's other
    settings and its number among equals, so that inserting a line changes no other picture.

    `request.seed` is not looked at; `ordinal` counts equal requests from 0.
    """
    settings = json.loads(request.identity())
    del settings["seed"]
    key = json.dumps([job_name, settings, ordinal], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big")
