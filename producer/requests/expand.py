"""A manifest's lines into image requests, in order, each with its seed; no clock or chance is involved."""

from __future__ import annotations

import hashlib
import heapq
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, NamedTuple

from jobs.entry import Entry
from jobs.errors import LatentsError
from jobs.models.models import ModelRef
from jobs.output.compact_counter import CompactCounter
from jobs.pipelines.pipeline_task import meant, settled
from jobs.request import ImageRequest, quoted
from jobs.request_template import RequestTemplate
from jobs.wording import some
from producer.manifest.base_request import usual_request
from producer.manifest.line import Line
from producer.manifest.manifest import Manifest
from producer.manifest.pipeline_check import PipelineCheck
from producer.manifest.single_arguments import folded
from producer.manifest.vain_settings import LORA_FOLDER, vain_settings
from producer.prompt_files.reading import Reading
from producer.prompt_files.sources import lines
from producer.requests.input_files import InputFiles
from producer.requests.line_embeddings import LineEmbeddings
from producer.requests.line_loras import LineLoras
from producer.requests.swept_pictures import SweptPictures

Identified = tuple[str, Entry]
"""An entry after its image_id, which costs more than all the rest."""


class EqualLine(NamedTuple):
    """A further line that asks for an image, with another id or other columns than those before it."""

    image_id: str
    entry: Entry


@dataclass(slots=True)
class Repeats:
    """What a pass over the lines of a manifest finds said more than once."""

    ids: int = 0
    """Lines whose id another prompt has, too."""
    first_ids: list[str] = field(default_factory=list)
    """The first of those ids."""
    _prompts: CompactCounter = field(default_factory=CompactCounter)
    """Each id, by 64 bits of its hash, and 32 bits of that of its first prompt."""

    def note(self, id: str, prompt: str) -> None:
        """Takes in the id of a line."""
        said = hash(prompt) & 0xFFFF_FFFF | 1
        before = self._prompts.mark(hash(id) & _64_BITS, said)
        if before not in (0, said):
            self.ids += 1
            if len(self.first_ids) < _NAMED and id not in self.first_ids:
                self.first_ids.append(id)


_GIVEN, _DERIVED, _NO_PLAIN, _BITS = 1, 2, 4, 3
_64_BITS = 0xFFFF_FFFF_FFFF_FFFF
_NAMED = 3
_TEMPLATES = 1024
"""Combinations of settings that are kept: a file may have other ones on each of its rows."""


def identify(
    manifest: Manifest,
    model: ModelRef,
    on_duplicate: Callable[[Entry], None] | None = None,
    *,
    latents: Mapping[str, str] | None = None,
    reading: Reading | None = None,
    repeats: Repeats | None = None,
    inputs: InputFiles | None = None,
) -> Iterator[Identified]:
    """Every image request of `manifest` with its image_id, each once; `on_duplicate` gets the others.

    With `repeats`, which takes in what is said more than once, a line that asks for an image of another line
    with another id or other columns is yielded too, as an EqualLine in its place.

    The order: the prompts of the manifest, then its files row by row; of each prompt the combinations of its
    variables (the last in the prompt fastest), of those the combinations of the sweep (the last setting of
    `Sweep` fastest), of those the seeds. The order of keys in YAML does not count.

    A line without a seed gets derived ones: they depend on the manifest's name, the line's settings and its
    number among equals, so inserting a line changes no other picture. `latents` gives the SHA-256 of each
    file of initial latents, as `producer.manifest.latents` returns it; a manifest that names such files
    needs it (LatentsError). `inputs` hashes the pictures and takes the LoRAs that lines name. `reading`
    records what the prompt files held, and what there is to say of LoRAs. Raises ManifestError as `lines`
    does.
    """
    hashes = {} if latents is None else latents
    files = InputFiles() if inputs is None else inputs
    base, swept = usual_request(manifest, model), SweptPictures(manifest, files)
    # For each way in which lines are set, a template for each combination, with its first seed if it has one.
    templates: dict[tuple[object, ...], list[tuple[RequestTemplate, int | None]]] = {}
    settle = _Settle(model)
    seen = _Seen(on_duplicate, every_line=repeats is not None)
    check = PipelineCheck.of(manifest, model)
    loras = LineLoras(manifest, check.loras)
    embeddings = LineEmbeddings(manifest, check.embeddings)
    if reading is not None:
        reading.adapters = check.adapters.paths
        reading.remarks = check.adapters.remarks
        reading.swept = swept.noted
    for sha256, path in check.adapters.new():
        files.take(path, sha256)
    for written in lines(manifest, reading, check):
        # What most manifests do not use costs each of a million lines its time.
        line, of_tags = loras.untagged(written) if loras.tags else (written, "")
        if repeats is not None and line.id is not None:
            repeats.note(line.id, line.prompt)
        given = files.hashed(line.settings) if line.settings else line.settings
        called = embeddings.called(line) if embeddings.everywhere or line.settings else ()
        key: tuple[object, ...] = (line.init_latents, *given.items()) if given or line.init_latents else ()
        if of_tags or called:
            key = (*key, of_tags, called)
        made = templates.get(key)
        if made is None:
            if len(templates) == _TEMPLATES:
                templates.clear()
            own = replace(base, init_latents=_hash(manifest, line, hashes), **given)
            made = templates[key] = []
            for number, settings in enumerate(swept.combinations):
                tried = folded(settings, own.arguments)
                adapters = loras.of(line, tried, of_tags) | embeddings.of(line, tried, called)
                request = settle(own, tried | adapters)
                swept.note(number, request)
                made.append((RequestTemplate(manifest.name, request), settings.get("seed")))
            for sha256, path in check.adapters.new():
                files.take(path, sha256)
        for template, first_seed in made:
            seeds = line.seeds if first_seed is None else range(first_seed, first_seed + line.images)
            yield from seen.derived(line, template) if seeds is None else seen.given(line, template, seeds)
    if reading is not None:
        reading.vain = _in_vain(manifest, check, settle.used)


class _Seen:
    """What a job has asked for so far: 11 bytes an image, with a prompt of any length, and as many for each
    line with an id or columns."""

    def __init__(self, on_duplicate: Callable[[Entry], None] | None, *, every_line: bool) -> None:
        self._on_duplicate, self._every_line = on_duplicate, every_line
        # For each image_id (its 64 bits) how its seed came about, whether all its lines have an id or
        # columns, and for the first image of a line without a seed, above those bits, how many numbers among
        # equals are taken.
        self._tally = CompactCounter()
        self._named = CompactCounter()
        self._columns: Mapping[str, Any] | None = None
        self._columns_text: str | None = None

    def given(self, line: Line, template: RequestTemplate, seeds: Iterable[int]) -> Iterator[Identified]:
        """One image for each seed."""
        prompt, name = quoted(line.prompt), self._name(line)
        bits = _GIVEN if name is None else _GIVEN | _NO_PLAIN
        for seed in seeds:
            image_id = template.image_id(prompt, seed)
            before = self._tally.mark(int(image_id, 16), bits)
            entry = template.entry(prompt, seed, line.id, line.columns, None)
            if before == 0:
                if name is not None:
                    self._first(image_id, name)
                yield image_id, entry
            elif (equal := self._equal(entry, image_id, before, name)) is not None:
                yield equal

    def derived(self, line: Line, template: RequestTemplate) -> Iterator[Identified]:
        """As many images as the line asks for, with the next seeds that its equals have left."""
        tally, ordinal, first, prompt = self._tally, 0, None, quoted(line.prompt)
        name = self._name(line)
        bits = _DERIVED if name is None else _DERIVED | _NO_PLAIN
        for _ in range(line.images):
            # Derived seeds have 32 bits: among many equals two can meet, and then the next one is taken.
            while True:
                seed = template.derived_seed(prompt, ordinal)
                image_id = template.image_id(prompt, seed)
                key = int(image_id, 16)
                before = tally.mark(key, bits)
                if name is not None and before and not before & _NO_PLAIN:
                    tally.set(key, tally.get(key) & ~_NO_PLAIN)
                ordinal += 1
                if first is None:
                    first = key
                    ordinal = max(ordinal, before >> _BITS)
                if not before & _DERIVED:
                    break
            entry = template.entry(prompt, seed, line.id, line.columns, ordinal - 1)
            if not before & _GIVEN:
                if name is not None:
                    self._first(image_id, name)
                yield image_id, entry
            elif (equal := self._equal(entry, image_id, before, name)) is not None:
                yield equal
        # The next of its equals continues from here, and need not count all of them.
        if first is not None and ordinal > 1:
            tally.set(first, tally.get(first) & (_GIVEN | _DERIVED | _NO_PLAIN) | ordinal << _BITS)

    def _name(self, line: Line) -> int | None:
        """What tells a line from others of its image; None without an id and columns, and where it does not
        matter."""
        if not self._every_line or (line.id is None and not line.columns):
            return None
        if line.columns is not self._columns:
            # All lines that are drawn from one template have the same.
            self._columns = line.columns
            self._columns_text = json.dumps(dict(line.columns), sort_keys=True) if line.columns else None
        return hash((line.id, self._columns_text))

    def _first(self, image_id: str, name: int) -> None:
        """Takes in the first line of an image, one with an id or columns."""
        self._named.mark(hash((image_id, name)) & _64_BITS, 1)

    def _equal(self, entry: Entry, image_id: str, before: int, name: int | None) -> EqualLine | None:
        """A further line of an image where it is new; else None, and it is told as a duplicate."""
        if self._is_new(image_id, before, name):
            return EqualLine(image_id, entry)
        if self._on_duplicate is not None:
            self._on_duplicate(entry)
        return None

    def _is_new(self, image_id: str, before: int, name: int | None) -> bool:
        """Whether a further line of an image differs from those before it. `before`: the image's tally."""
        if not self._every_line:
            return False
        if name is not None:
            if not before & _NO_PLAIN:
                key = int(image_id, 16)
                self._tally.set(key, self._tally.get(key) & ~_NO_PLAIN)
            return self._named.mark(hash((image_id, name)) & _64_BITS, 1) == 0
        if before & _NO_PLAIN:
            key = int(image_id, 16)
            self._tally.set(key, self._tally.get(key) & ~_NO_PLAIN)
        return bool(before & _NO_PLAIN)


def _in_vain(manifest: Manifest, check: PipelineCheck, used: set[str]) -> list[str]:
    """What means nothing to any line, all of which were read."""
    if check.loras.folder is not None and check.loras.folder.searched:
        used = used | {LORA_FOLDER}
    vain = [f"{manifest.place(*path)}: {what}" for path, what in vain_settings(manifest, used)]
    uncalled = check.embeddings.uncalled
    if uncalled:
        what = f"no text of a line that lists it holds {some(uncalled, _NAMED)}: write it there, or remove it"
        vain.append(f"textual_inversions: {what}")
    return vain


class _Settle:
    """Makes requests without what means nothing to them."""

    def __init__(self, model: ModelRef) -> None:
        self._pipeline = model.pipeline_class
        self.used = set[str]()
        """What meant something to a request."""

    def __call__(self, own: ImageRequest, swept: Mapping[str, Any]) -> ImageRequest:
        """The request with what is swept."""
        whole = replace(own, **swept)
        values = whole.to_mapping()
        self.used |= meant(self._pipeline, values)
        return replace(whole, **settled(self._pipeline, values))


def _hash(manifest: Manifest, line: Line, hashes: Mapping[str, str]) -> str | None:
    file = line.init_latents
    if file is None or file in hashes:
        return None if file is None else hashes[file]
    files = [None if isinstance(one, str) else one.init_latents for one in manifest.prompts]
    where = manifest.place("prompts", files.index(file), "init_latents")
    raise LatentsError(f"{where} = {file}: has not been read: read it before expanding")


def narrowed(
    entries: Iterator[Identified], limited: int | None, sampled: int | None, name: str
) -> Iterator[Identified]:
    """The first `limited` entries, or `sampled` of them drawn for `name`, or all."""
    if limited is not None:
        return islice(entries, limited)
    return entries if sampled is None else iter(sample(entries, sampled, name))


def sample(entries: Iterable[Identified], count: int, name: str) -> list[Identified]:
    """`count` entries drawn at random, in their order; the same ones each time for the same `name`.

    The draw depends on each image's own id, so a manifest that grows keeps most of its sample.
    """

    def lot(numbered: tuple[int, Identified]) -> bytes:
        return hashlib.sha256(f"{name}\0{numbered[1][0]}".encode()).digest()

    drawn = heapq.nsmallest(count, enumerate(entries), key=lot)
    return [entry for _, entry in sorted(drawn, key=lambda numbered: numbered[0])]
