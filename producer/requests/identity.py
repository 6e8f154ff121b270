"""Entries that differ in prompt and seed alone, of which a job has millions: their image_ids and seeds.

What those hash is `ImageRequest.identity`; here the JSON around the prompt and the seed is written once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from struct import Struct
from typing import Any

from jobs.request import SETTINGS, Entry, ImageRequest, settings_of

_first_32_bits = Struct(">I").unpack_from


class RequestTemplate:
    """Makes the entries with the settings of one request, whose prompt and seed do not count."""

    def __init__(self, job_name: str, request: ImageRequest) -> None:
        settings = json.loads(request.identity())
        del settings["prompt"], settings["seed"]
        before = _members((name, value) for name, value in settings.items() if name < "prompt")
        between = _members((name, value) for name, value in settings.items() if "prompt" < name < "seed")
        after = _members((name, value) for name, value in settings.items() if name > "seed")
        # Keys are sorted, so that prompt and seed stand between others.
        opening = f'{{{before},"prompt":'
        self._before, self._between, self._after = (
            sha256(opening.encode()),
            f',{between},"seed":',
            f",{after}}}",
        )
        self._seed_before = sha256(f"[{_json(job_name)},{opening}".encode())
        self._seed_after = f",{between},{after}}},"
        self.settings = settings_of(request)
        self.size = (request.height, request.width)

    def derived_seed(self, quoted: str, ordinal: int) -> int:
        """As `jobs.request.derived_seed` says; `quoted` is the prompt as JSON."""
        text = self._seed_before.copy()
        text.update(f"{quoted}{self._seed_after}{ordinal}]".encode())
        seed: int = _first_32_bits(text.digest())[0]
        return seed

    def image_id(self, quoted: str, seed: int) -> str:
        """As `ImageRequest.image_id` says; `quoted` is the prompt as JSON."""
        text = self._before.copy()
        text.update(f"{quoted}{self._between}{seed}{self._after}".encode())
        return text.hexdigest()[:16]

    def entry(
        self, quoted: str, seed: int, id: str | None, columns: Mapping[str, Any], seed_ordinal: int | None
    ) -> Entry:
        """The entry itself; `quoted` is the prompt as JSON."""
        # A frozen dataclass' own constructor takes three times as long.
        cast: Cast = object.__new__(Cast)
        _set_mould(cast, self)
        _set_quoted(cast, quoted)
        _set_seed(cast, seed)
        _set_id(cast, id)
        _set_columns(cast, columns)
        _set_seed_ordinal(cast, seed_ordinal)
        return cast


class Cast(Entry):
    """An entry out of a mould: its request is made when it is looked at, and whoever packs it never does."""

    __slots__ = ("mould", "quoted", "seed")
    mould: RequestTemplate
    quoted: str
    seed: int

    def __new__(cls, **fields: Any) -> Entry:  # type: ignore[misc]
        """With other fields than its mould's it is an entry like any other."""
        return Entry(**fields)

    @property
    def request(self) -> ImageRequest:
        """Another one each time; they are equal."""
        settings = dict(zip(SETTINGS, self.mould.settings, strict=True))
        return ImageRequest(prompt=json.loads(self.quoted), seed=self.seed, **settings)

    @property
    def settings(self) -> tuple[Any, ...]:
        return self.mould.settings

    @property
    def size(self) -> tuple[int, int]:
        return self.mould.size


def _setter(kind: type[Entry], name: str) -> Callable[[Entry, Any], None]:
    setter: Callable[[Entry, Any], None] = getattr(kind, name).__set__
    return setter


_set_mould, _set_quoted, _set_seed = (_setter(Cast, name) for name in ("mould", "quoted", "seed"))
_set_id, _set_columns, _set_seed_ordinal = (
    _setter(Entry, name) for name in ("id", "columns", "seed_ordinal")
)


def _members(items: Iterable[tuple[str, Any]]) -> str:
    return ",".join(f"{_json(name)}:{_json(value)}" for name, value in sorted(items))


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
