"""A shard on the wire: up to `shard_size` entries as one zstd-compressed blob (the claim-check pattern).

What can be derived is left out: settings equal to the job's own, indices that follow one another, seeds
that `derived_seed` gives. 1M prompts of a real list cost about 35 MB.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import zstandard

from jobs.bounds import Sha256, plain_text
from jobs.columns import INDEX, MAX_DEPTH, column_trouble, deeper_than, plain_cell
from jobs.entry import Entry
from jobs.errors import BrokenShard, LedgerError
from jobs.output.shard_names import SHARD_LIMIT
from jobs.request import IMAGE_SETTINGS, SETTINGS, ImageRequest, quoted, settings_of
from jobs.request_template import RequestTemplate
from jobs.strict_json import strict_json
from jobs.wording import shortened

WIRE_VERSION = 1
LATER_VERSION = 2
"""Of a shard with a setting or files that version 1 does not know: its readers refuse the job then, where an
unknown setting would look like damage."""
_LATER = frozenset(SETTINGS[SETTINGS.index("image") :])
"""The settings that version 1 does not know."""
_MAX_BYTES = 100 << 20
"""What a blob may unpack to: a shard is full at 8 million characters of text, and its last line has 16
million at most, of four bytes each at most."""
_NUMBERS = range(2**32)
"""The numbers of the bits at one key of Redis."""
_PLAIN: dict[str, Callable[[Any], Any]] = {
    "id": plain_text,
    **{
        name: setting.values.plain
        for name, setting in IMAGE_SETTINGS.items()
        if setting.places != {"manifest"}
    },
}
"""What a line may say, and a function that gives None for a value that no manifest has. The rest is the job's
own."""
_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class Shard:
    """Entries and, for each, its index in the job: the number of its done bit."""

    indices: Sequence[int]
    entries: Sequence[Entry]
    in_order: bool = False
    """Whether an index is the line's place in what the job asks for. Not in a job of an earlier version,
    whose indices number the lines as they were packed."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """The SHA-256 of files that the output does not keep -> the absolute path of each."""


def encode_shard(shard: Shard, base: ImageRequest) -> bytes:
    """The shard as a blob; `base` holds the job's own settings."""
    usual = settings_of(base)
    last, own, lines, usual_prompt = usual, "", list[str](), quoted(base.prompt)
    last_columns: Mapping[str, Any] | None = None
    columns, later = "", bool(shard.inputs)
    for entry in shard.entries:
        # The JSON is put together here, from prompts that are JSON already: a dict a line would take longer.
        settings, ordinal = entry.settings, entry.seed_ordinal
        if settings is not last and settings != last:
            last = settings
            pairs = zip(SETTINGS, settings, usual, strict=True)
            given = [(name, value) for name, value, default in pairs if value != default]
            own = "".join(f',"{name}":{_json(value)}' for name, value in given)
            later = later or any(name in _LATER for name, _value in given)
        line = own
        if entry.quoted != usual_prompt:
            line += f',"prompt":{entry.quoted}'
        if ordinal is None:
            line += f',"seed":{entry.seed}'
        elif ordinal > 0:
            line += f',"seed_ordinal":{ordinal}'
        if entry.id is not None:
            line += f',"id":{quoted(entry.id)}'
        if entry.columns:
            if entry.columns is not last_columns:
                last_columns, columns = entry.columns, f',"columns":{_json(entry.columns)}'
            line += columns
        lines.append(f"{{{line[1:]}}}")
    first = shard.indices[0]
    consecutive = list(shard.indices) == list(range(first, first + len(shard.indices)))
    indices = _json(first if consecutive else list(shard.indices))
    order = ',"in_order":true' if shard.in_order else ""
    order += f',"inputs":{_json(dict(shard.inputs))}' if shard.inputs else ""
    version = LATER_VERSION if later else WIRE_VERSION
    text = f'{{"v":{version},"indices":{indices}{order},"rows":[{",".join(lines)}]}}'
    return zstandard.ZstdCompressor(level=3).compress(text.encode())


def read_base(values: Mapping[str, Any]) -> ImageRequest:
    """The request that a job's lines are told by, as its spec has it: held to what its lines are held to.

    Raises ValueError that names the setting and its value.
    """
    for name, value in values.items():
        setting = IMAGE_SETTINGS.get(name)
        if setting is None:
            raise ValueError(f"base: there is no setting {shortened(name)}")
        if not setting.is_right(value):
            raise ValueError(f"base: {name} = {shortened(repr(value))}: must be {setting.words}")
    for name, setting in IMAGE_SETTINGS.items():
        if setting.required and name not in values:
            raise ValueError(f"base: {name} is missing")
    return ImageRequest.from_mapping(values)


def decode_shard(blob: bytes, base: ImageRequest, job_name: str) -> Shard:
    """The shard that `encode_shard` packed.

    Raises BrokenShard for what no version can read, LedgerError for another wire version.
    """
    try:
        if zstandard.frame_content_size(blob) > _MAX_BYTES:  # max_output_size counts where no size is stated
            raise ValueError(f"it would unpack to more than {_MAX_BYTES >> 20} MiB")
        head = strict_json(zstandard.ZstdDecompressor().decompress(blob, max_output_size=_MAX_BYTES))
        if head["v"] not in (WIRE_VERSION, LATER_VERSION):
            raise LedgerError(
                f"a shard is of wire version {shortened(repr(head['v']))}, and this imagemill reads"
                f" {WIRE_VERSION} and {LATER_VERSION}: submit with the version that the workers run"
            )
        if not 0 < len(head["rows"]) <= SHARD_LIMIT:
            raise ValueError(f"it has {len(head['rows']):,} lines")
        lines = _Lines(base, job_name)
        entries = [lines.entry(line) for line in head["rows"]]
        first = head["indices"]
        indices = list(range(first, first + len(entries))) if type(first) is int else first
        if not 0 < len(entries) == len(indices) == len(set(indices)) <= SHARD_LIMIT:
            raise ValueError("each of its lines needs an index of its own")
        if not all(type(index) is int and index in _NUMBERS for index in indices):
            raise ValueError("an index is no bit that Redis has")
        in_order = head.get("in_order", False)
        if type(in_order) is not bool:
            raise ValueError(f"in_order = {shortened(repr(in_order))}")
        inputs = head.get("inputs", {})
        for sha256, path in inputs.items():
            if Sha256().plain(sha256) is None or not plain_text(path) or not path.startswith("/"):
                raise ValueError(f"inputs = {shortened(repr(path))}")
    except (
        zstandard.ZstdError, ValueError, KeyError, TypeError, AttributeError, RecursionError
    ) as error:  # fmt: skip
        what = shortened(str(error), 200)
        raise BrokenShard(f"a shard in Redis cannot be read ({what}): submit the manifest again") from None
    return Shard(indices, entries, in_order, inputs)


@lru_cache(1024)
def _names_a_column(name: str) -> bool:
    # A job from before the metadata had an index may have a column of that name.
    return name == INDEX or column_trouble(name, None) is None


class _Lines:
    """Reads the lines of one shard. Most have the same settings, which are checked once."""

    def __init__(self, base: ImageRequest, job_name: str) -> None:
        self._base, self._job_name = base, job_name
        # By the settings' repr, which tells 1 from 1.0 and from true.
        self._requests: dict[str, tuple[ImageRequest, tuple[Any, ...]]] = {}
        self._templates: dict[str, RequestTemplate] = {}

    def entry(self, line: dict[str, Any]) -> Entry:
        """The line's entry. Raises ValueError, KeyError, TypeError or AttributeError for what is none."""
        columns = line.pop("columns", {})
        ordinal = None if "seed" in line else line.pop("seed_ordinal", 0)
        if ordinal is not None and (type(ordinal) is not int or ordinal not in _NUMBERS):
            raise ValueError(f"seed_ordinal = {shortened(repr(ordinal))}")
        own: dict[str, Any] = {name: line.pop(name) for name in ("prompt", "seed", "id") if name in line}
        _check(own)
        for name, value in columns.items():
            odd = plain_cell(value) is None and (
                deeper_than(MAX_DEPTH, value) or column_trouble("value", value)
            )
            if odd or not _names_a_column(name):
                raise ValueError(f"column {shortened(name)} = {shortened(str(value)[:100])}")
        named = repr(line)
        known = self._requests.get(named)
        if known is None:
            _check(line)
            request = replace(self._base, **line)
            known = self._requests[named] = (request, settings_of(request))
        request, settings = known
        prompt = quoted(own.get("prompt", request.prompt))
        if ordinal is None:
            seed = own["seed"]
        else:
            template = self._templates.get(named)
            if template is None:
                template = self._templates[named] = RequestTemplate(self._job_name, request)
            seed = template.derived_seed(prompt, ordinal)
        return Entry(prompt, seed, settings, own.get("id"), columns, ordinal)


def _check(values: Mapping[str, Any]) -> None:
    """Raises ValueError for a value that no manifest has, KeyError for a setting that no line may name."""
    for name, value in values.items():
        if _PLAIN[name](value) is None:
            raise ValueError(f"{name} = {shortened(repr(value))}")
