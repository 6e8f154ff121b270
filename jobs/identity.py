"""image_ids and derived seeds of requests that differ in prompt and seed alone, of which a job has millions.

What they hash is `ImageRequest.identity`; here the JSON around the prompt and the seed is written once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from hashlib import sha256
from json.encoder import encode_basestring
from typing import Any

from jobs.request import REQUEST_FIELDS, ImageRequest

_SETTERS: dict[str, Callable[[ImageRequest, Any], None]] = {
    name: getattr(ImageRequest, name).__set__ for name in REQUEST_FIELDS
}


quoted: Callable[[str], str] = encode_basestring
"""A prompt as JSON: what a `Mould` hashes."""


class Mould:
    """Makes the requests with the settings of one; its prompt and its seed do not count."""

    def __init__(self, job_name: str, request: ImageRequest) -> None:
        settings = json.loads(request.identity())
        del settings["prompt"], settings["seed"]
        before = _members((name, value) for name, value in settings.items() if name < "prompt")
        between = _members((name, value) for name, value in settings.items() if "prompt" < name < "seed")
        after = _members((name, value) for name, value in settings.items() if name > "seed")
        # Keys are sorted, so that prompt and seed stand between others.
        self._before, self._between, self._after = (
            f'{{{before},"prompt":',
            f',{between},"seed":',
            f",{after}}}",
        )
        self._seed_before = f"[{_json(job_name)},{self._before}"
        self._seed_after = f",{between},{after}}},"
        self._fields = [
            (_SETTERS[name], getattr(request, name))
            for name in REQUEST_FIELDS
            if name not in ("prompt", "seed")
        ]

    def derived_seed(self, quoted: str, ordinal: int) -> int:
        """As `jobs.request.derived_seed` says; `quoted` is the prompt as JSON."""
        text = f"{self._seed_before}{quoted}{self._seed_after}{ordinal}]"
        return int.from_bytes(sha256(text.encode()).digest()[:4], "big")

    def image_id(self, quoted: str, seed: int) -> str:
        """As `ImageRequest.image_id` says; `quoted` is the prompt as JSON."""
        text = f"{self._before}{quoted}{self._between}{seed}{self._after}"
        return sha256(text.encode()).hexdigest()[:16]

    def request(self, prompt: str, seed: int) -> ImageRequest:
        """The request itself."""
        # A frozen dataclass' own constructor takes three times as long: 3 s of a million images' 15.
        request = object.__new__(ImageRequest)
        _SETTERS["prompt"](request, prompt)
        _SETTERS["seed"](request, seed)
        for set_field, value in self._fields:
            set_field(request, value)
        return request


def _members(items: Iterable[tuple[str, Any]]) -> str:
    return ",".join(f"{_json(name)}:{_json(value)}" for name, value in sorted(items))


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
