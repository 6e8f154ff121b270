"""The textual inversions that a model's text encoders know for a while."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from jobs.adapter_files.embedding_file import embedding_of, tokens_trouble
from jobs.adapters import TextualInversion
from jobs.errors import RenderError
from jobs.inputs.inputs import Inputs
from jobs.model_files.safetensors_header import HeaderError, header_of
from worker.diffusion.grown_vocabulary import Grown, GrownEmbedding

_PAIRS = (("tokenizer", "text_encoder"), ("tokenizer_2", "text_encoder_2"))


_KEPT = 256
"""Files whose vectors stay in memory, a few kB each; an image has 64 at most."""


@dataclass(frozen=True, slots=True, eq=False)
class _Encoder:
    """A tokenizer and its text encoder, as they were loaded."""

    tokenizer: Any
    module: Any
    embedding: torch.nn.Module
    """What the module gives each token."""

    @property
    def width(self) -> int:
        """Of each token's vector."""
        return int(next(self.embedding.parameters()).shape[-1])


class TextualInversions:
    """Puts embeddings beside a model's own, and takes them away: what has none keeps its bytes.

    A tokenizer is changed in its place, for all that hold it, and a text encoder gets an embedding that has
    the model's own within; `put_on([])` makes both what they were.
    """

    def __init__(self, holder: Any, forget_texts: Callable[[], None]) -> None:
        """holder: has tokenizer and text_encoder as attributes, perhaps tokenizer_2 and text_encoder_2.

        forget_texts: called after each change, because a text then means something else.
        """
        self._forget_texts = forget_texts
        pairs = [(getattr(holder, one, None), getattr(holder, other, None)) for one, other in _PAIRS]
        self._encoders = [
            _Encoder(tokenizer, module, module.get_input_embeddings())
            for tokenizer, module in pairs
            if tokenizer is not None and module is not None
        ]
        self._grown: list[Grown] = []
        self._read: OrderedDict[str, list[torch.Tensor]] = OrderedDict()
        """The vectors of files by their hash, those for each text encoder; the longest unused first."""
        self.on: tuple[tuple[str, str], ...] = ()
        """Token and SHA-256 of those that are known now."""

    def put_on(self, embeddings: Sequence[TextualInversion], inputs: Inputs) -> None:
        """Makes the text encoders know these embeddings and no others.

        inputs: where the files are. Raises RenderError for a file that is none of this model's, and what
        `Inputs.private_copy` raises; none is known then.
        """
        wanted = tuple((one.token, one.sha256) for one in embeddings)
        if wanted == self.on:
            return
        self._put_off()
        if not wanted:
            return
        trouble = tokens_trouble([one.token for one in embeddings])
        if trouble is not None:
            raise RenderError(f"textual_inversions: {trouble}")
        given = {one.token: self._vectors(one, inputs) for one in embeddings}
        try:
            for index, encoder in enumerate(self._encoders):
                self._grow(encoder, {token: each[index] for token, each in given.items()})
        except BaseException:
            self._put_off()
            raise
        self.on = wanted
        self._forget_texts()

    def _put_off(self) -> None:
        if not self._grown:
            return
        for grown in self._grown:
            grown.shrink()
        for encoder in self._encoders:
            encoder.module.set_input_embeddings(encoder.embedding)
        self._grown, self.on = [], ()
        self._forget_texts()

    def _vectors(self, one: TextualInversion, inputs: Inputs) -> list[torch.Tensor]:
        """An embedding's vectors [n,D] for each text encoder; a file that was read is not asked for again."""
        if one.sha256 not in self._read:
            with inputs.private_copy(one.sha256) as file:
                self._read[one.sha256] = self._of_file(one, file)
            if len(self._read) > _KEPT:
                self._read.popitem(last=False)
        self._read.move_to_end(one.sha256)
        return self._read[one.sha256]

    def _of_file(self, one: TextualInversion, file: Path) -> list[torch.Tensor]:
        try:
            found = embedding_of(header_of(file))
        except HeaderError as error:
            raise RenderError(f"textual_inversions: {one.name}: {error}") from None
        if (trouble := found.trouble([encoder.width for encoder in self._encoders])) is not None:
            raise RenderError(f"textual_inversions: {one.name}: {trouble}")
        tensors = load_file(file)
        if not all(bool(tensors[vectors.tensor].isfinite().all()) for vectors in found.encoders):
            raise RenderError(
                f"textual_inversions: {one.name}: holds numbers that are not finite: name another file"
            )
        return [tensors[vectors.tensor].reshape(vectors.count, vectors.width) for vectors in found.encoders]

    def _grow(self, encoder: _Encoder, given: Mapping[str, torch.Tensor]) -> None:
        """Makes a text encoder know tokens, each with its vectors [n,D]."""
        grown = Grown(encoder.tokenizer, {token: len(rows) for token, rows in given.items()})
        self._grown.append(grown)
        own = next(encoder.embedding.parameters())
        rows = torch.cat([rows.to(own.device, own.dtype) for rows in given.values()])
        encoder.module.set_input_embeddings(GrownEmbedding(encoder.embedding, grown.first_id, rows))
