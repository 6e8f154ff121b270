"""Texts as windows of tokens, each token with its weight: what a text encoder gets at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from jobs.errors import RenderError
from jobs.prompt_weights import MOST_CHUNKS, Section
from worker.diffusion.grown_vocabulary import GrownTokenizer

_BACK = 20
"""Tokens that a window gives to the next one, so that it ends at a comma. Source: A1111's setting
`comma_padding_backtrack`, at its default."""


class Window(NamedTuple):
    """As many tokens as an encoder takes, padded, and a weight for each."""

    ids: tuple[int, ...]
    weights: tuple[float, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """A text's windows, one or more, and the end of the text that is in none of them."""

    windows: Sequence[Window]
    left_out: str


def window_of(tokenizer: Any, text_encoder: Any) -> int:
    """The tokens that an encoder takes at a time, those that begin and end a text included."""
    # A tokenizer whose files do not name its window answers 10**30.
    return int(min(tokenizer.model_max_length, text_encoder.config.max_position_embeddings))


def windows_of(sections: Sequence[Section], tokenizer: Any, window: int, *, chunk: bool) -> Windows:
    """The windows of a text: each section begins one, and has more where it is longer and `chunk` allows it.

    Parts are tokenised one by one, as A1111 does. A window that is full ends at a comma among its last 20
    tokens, and what follows that goes into the next one; the vectors of a textual inversion stay together.
    Raises RenderError beyond 32 windows.
    """
    room = window - 2
    windows: list[Window] = []
    left_out: list[str] = []
    for section in sections:
        ids, weights = _tokens(section, tokenizer)
        while True:
            ends = len(ids) if len(ids) <= room else _end(ids, room, tokenizer) if chunk else room
            windows.append(_padded(ids[:ends], weights[:ends], tokenizer, window))
            ids, weights = ids[ends:], weights[ends:]
            if not ids or not chunk:
                break
            if len(windows) == MOST_CHUNKS:
                raise RenderError(
                    f"a text has more than {MOST_CHUNKS} chunks of {room} tokens: shorten it, or set "
                    "long_prompts: cut"
                )
        if ids:
            left_out.append(tokenizer.decode(ids))
    return Windows(windows, " … ".join(left_out))


def empty_window(tokenizer: Any, window: int) -> Window:
    """The window of an empty text."""
    return _padded([], [], tokenizer, window)


def _tokens(section: Section, tokenizer: Any) -> tuple[list[int], list[float]]:
    ids: list[int] = []
    weights: list[float] = []
    tokenised = tokenizer([part.text for part in section], add_special_tokens=False, verbose=False).input_ids
    for part, own in zip(section, tokenised, strict=True):
        ids += own
        weights += [part.weight] * len(own)
    return ids, weights


def _end(ids: Sequence[int], room: int, tokenizer: Any) -> int:
    """How many of the tokens the next window gets."""
    comma = _comma(tokenizer)
    for place in range(room - 1, max(0, room - 1 - _BACK), -1):
        if ids[place] == comma:
            return place + 1
    if isinstance(tokenizer, GrownTokenizer):
        return next((place for place in range(room, 0, -1) if not tokenizer.continues(ids[place])), room)
    return room


def _comma(tokenizer: Any) -> int:
    ids: list[int] = tokenizer(",", add_special_tokens=False).input_ids
    return ids[0]


def _padded(ids: Sequence[int], weights: Sequence[float], tokenizer: Any, window: int) -> Window:
    padding = window - 2 - len(ids)
    begin, end, pad = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    return Window(
        (begin, *ids, end, *[pad] * padding),
        (1.0, *weights, 1.0, *[1.0] * padding),
    )
