"""A tokenizer and a text encoder that know a few tokens more for a while; nothing of them stays."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch.nn import functional

from jobs.adapter_files.embedding_file import word_trouble
from jobs.errors import RenderError

_PRIVATE = 0xE000
"""The first of the letters that no script has: no text holds them, and no tokenizer knows them."""
_ANY_PRIVATE = "[\ue000-\uf8ff]"


class GrownTokenizer:
    """What a tokenizer does that takes each of some tokens for as many as it has vectors.

    A text that says `<cat>` is tokenised as if it said `<cat> <cat>2 <cat>3`, with tokens of its own for the
    last two, in upper and lower case alike; what is decoded says `<cat>` again.
    """

    first_id: int
    """The id of the first token that was added; those before it are the model's own."""
    _whole: Mapping[str, str]
    _tokens: re.Pattern[str]
    _beginnings: Mapping[int, int]

    def __call__(self, text: Any, *args: Any, **kwargs: Any) -> Any:
        return super().__call__(self._expanded(text), *args, **kwargs)  # type: ignore[misc]

    def tokenize(self, text: str, *args: Any, **kwargs: Any) -> Any:
        """The tokens of a text, one for each vector."""
        return super().tokenize(self._expanded(text), *args, **kwargs)  # type: ignore[misc]

    def encode(self, text: Any, *args: Any, **kwargs: Any) -> Any:
        """The ids of a text's tokens."""
        return super().encode(self._expanded(text), *args, **kwargs)  # type: ignore[misc]

    def decode(self, token_ids: Any, *args: Any, **kwargs: Any) -> Any:
        """The text of tokens; one of which some vectors are there is named once."""
        if isinstance(token_ids, (list, tuple)) and all(isinstance(one, int) for one in token_ids):
            token_ids = self._named(token_ids)
        return super().decode(token_ids, *args, **kwargs)  # type: ignore[misc]

    def continues(self, token_id: int) -> bool:
        """Whether a token is a further vector of the one before it."""
        return token_id in self._beginnings

    def _named(self, ids: Sequence[int]) -> list[int]:
        named: list[int] = []
        before = -1
        for one in ids:
            begin = self._beginnings.get(one, one)
            if begin == one or begin != before:
                named.append(begin)
            before = begin
        return named

    def _expanded(self, text: Any) -> Any:
        if isinstance(text, str):
            return self._tokens.sub(lambda found: self._whole[found[0].lower()], text)
        return [self._expanded(one) for one in text] if isinstance(text, (list, tuple)) else text


class Grown:
    """A tokenizer that is a GrownTokenizer until `shrink`.

    It is changed in its place, because several pipelines hold it; all that it was is kept aside untouched.
    """

    def __init__(self, tokenizer: Any, counts: Mapping[str, int]) -> None:
        """counts: each token -> its vectors. Raises RenderError for a token that is a word already."""
        for token in counts:
            if (trouble := word_trouble(token, tokenizer.get_vocab())) is not None:
                raise RenderError(f"textual_inversions: token {token}: {trouble}")
        own = copy.deepcopy(tokenizer)
        # Not `<cat>_1`, as diffusers calls them: a pipeline's call would write them into the text once more.
        further = {
            token: [f"{token}{chr(_PRIVATE + number)}" for number in range(1, count)]
            for token, count in counts.items()
        }
        added = [one for token, others in further.items() for one in (token, *others)]
        own.add_tokens(added)
        ids = own.convert_tokens_to_ids(added)
        self.first_id = len(tokenizer)
        """The id of the first token that was added."""
        if ids != list(range(self.first_id, self.first_id + len(ids))):
            raise RenderError(
                "textual_inversions: the model's tokenizer numbers its tokens with gaps: remove them"
            )
        self._tokenizer, self._class, self._before = tokenizer, type(tokenizer), tokenizer.__dict__
        own.__dict__.update(
            first_id=self.first_id,
            _whole={token.lower(): " ".join((token, *others)) for token, others in further.items()},
            _tokens=re.compile("|".join(map(_unexpanded, further)), re.IGNORECASE),
            _beginnings=_beginnings(self.first_id, counts),
        )
        tokenizer.__dict__ = own.__dict__
        tokenizer.__class__ = _class_of(self._class)  # type: ignore[arg-type]

    def shrink(self) -> None:
        """Makes the tokenizer what it was."""
        self._tokenizer.__class__ = self._class
        self._tokenizer.__dict__ = self._before


class GrownEmbedding(torch.nn.Module):
    """The embedding of a text encoder with rows for ids from `first` on; for all others it is `base`."""

    def __init__(self, base: torch.nn.Module, first: int, rows: torch.Tensor) -> None:
        """rows: [n,D], in the device and the dtype of the base's."""
        super().__init__()
        self.base = base
        self.rows = torch.nn.Parameter(rows, requires_grad=False)
        self.first = first

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """[…,D] of ids […]."""
        known: torch.Tensor = self.base(ids.clamp(max=self.first - 1))
        added = functional.embedding((ids - self.first).clamp(min=0), self.rows)
        return torch.where((ids >= self.first)[..., None], added, known)


@lru_cache
def _class_of(tokenizer: type) -> type:
    return type(f"Grown{tokenizer.__name__}", (GrownTokenizer, tokenizer), {})


def _unexpanded(token: str) -> str:
    """Finds a token that stands for all its vectors: what tokenises may call itself with its own result."""
    return f"{re.escape(token)}(?!{_ANY_PRIVATE})(?! {re.escape(token)}{_ANY_PRIVATE})"


def _beginnings(first: int, counts: Mapping[str, int]) -> dict[int, int]:
    """The id of each further vector -> that of its token's first one."""
    found, place = {}, first
    for count in counts.values():
        found.update(dict.fromkeys(range(place + 1, place + count), place))
        place += count
    return found
