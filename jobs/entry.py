"""One line of a job: its request, its author's id and columns, and how its seed was derived."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from operator import itemgetter
from typing import Any, NamedTuple

from jobs.adapters import NONE, nameless
from jobs.request import PICTURES, SETTINGS, IdentityParts, ImageRequest, as_json, quoted, settings_of

_PICTURES = tuple(map(SETTINGS.index, PICTURES))
_ADAPTERS = tuple(map(SETTINGS.index, ("loras", "textual_inversions", "ip_adapter")))
_HEIGHT, _WIDTH = SETTINGS.index("height"), SETTINGS.index("width")
_group_of = itemgetter(
    *map(SETTINGS.index, ("height", "width", "ip_adapter_scale")),
    *_ADAPTERS,
)


# A named tuple is made in a third of the time of a frozen dataclass, and a job has millions.
class Entry(NamedTuple):
    """One line of a job: the request, and what its author added to it.

    The request is kept in the form in which most of it is shared: lines with equal settings share one tuple,
    and the prompt is JSON already, as identity and wire need it.
    """

    quoted: str
    """The prompt as JSON."""
    seed: int
    settings: tuple[Any, ...]
    """The values of SETTINGS."""
    id: str | None
    """The user's own name for the line; passed through to the metadata."""
    columns: Mapping[str, Any]
    """The user's own columns (JSON values); passed through to the metadata."""
    seed_ordinal: int | None
    """The request's number among equals when its seed was derived; None when the seed was given."""

    @classmethod
    def of(
        cls,
        request: ImageRequest,
        *,
        id: str | None = None,
        columns: Mapping[str, Any] | None = None,
        seed_ordinal: int | None = None,
    ) -> Entry:
        """The entry of a request."""
        own = {} if columns is None else columns
        return cls(quoted(request.prompt), request.seed, settings_of(request), id, own, seed_ordinal)

    @property
    def request(self) -> ImageRequest:
        """The request; made each time, and equal each time."""
        settings = dict(zip(SETTINGS, self.settings, strict=True))
        return ImageRequest(prompt=json.loads(self.quoted), seed=self.seed, **settings)

    @property
    def inputs(self) -> Iterator[str]:
        """The SHA-256 of each of its pictures and adapters; initial latents are kept otherwise."""
        for place in _PICTURES:
            if (sha256 := self.settings[place]) is not None:
                yield sha256
        for place in _ADAPTERS:
            if (listed := self.settings[place]) != NONE:
                yield from (one["sha256"] for one in json.loads(listed))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.settings[_HEIGHT], self.settings[_WIDTH]

    @property
    def group(self) -> tuple[object, ...]:
        """What lines have in common that may share a shard: their size, and what the model carries for them.

        A worker changes adapters between forwards, which takes it longer than a forward of a small model.
        """
        height, width, scale, *adapters = _group_of(self.settings)
        return (height, width, scale, *map(nameless, adapters))


def derived_seed(job_name: str, request: ImageRequest, ordinal: int) -> int:
    """The seed of a line that names none: 32 bits of a hash of the manifest's name, the request's other
    settings and its number among equals, so that inserting a line changes no other picture.

    `request.seed` is not looked at; `ordinal` counts equal requests from 0.
    """
    before, after = seed_parts(job_name, request.identity_parts())
    key = f"{before}{quoted(request.prompt)}{after}{ordinal}]"
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big")


def seed_parts(job_name: str, parts: IdentityParts) -> tuple[str, str]:
    """What `derived_seed` hashes before the prompt, and between it and the ordinal: `[name, identity without
    seed, ordinal]` as JSON."""
    return f"[{as_json(job_name)},{parts.before_prompt}", f"{parts.before_seed}{parts.after_seed},"
