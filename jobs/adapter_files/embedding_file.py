"""What a safetensors file of a textual inversion holds, by its header alone, and which tokens may call it."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from jobs.model_files.model_folder import PICKLES
from jobs.model_files.safetensors_header import (
    SUFFIX,
    HeaderError,
    SafetensorsHeader,
    StoredTensor,
    header_of,
)

MOST_VECTORS: Final = 75
"""The vectors of an embedding at most: what CLIP's window of 77 tokens has room for."""

_A1111: Final = "emb_params"
"""What A1111, kohya's scripts and InvokeAI call the tensor of a model with one text encoder."""
_XL: Final = ("clip_l", "clip_g")
"""What the tensors of Stable Diffusion XL are called, in the order of its text encoders."""
_FLOATS: Final = frozenset({"F64", "F32", "F16", "BF16"})
_KEPT = re.compile("[0-9a-f]{64}")
"""How an output calls a file that it keeps."""
_SPECIAL: Final = "()[]{}|\\:,\"'"
"""What other syntaxes of prompts give a meaning, or what ends a word in them."""
_MADE_FOR: Final = {
    (768,): "Stable Diffusion 1",
    (1024,): "Stable Diffusion 2",
    (768, 1280): "Stable Diffusion XL",
}


@dataclass(frozen=True, slots=True)
class Vectors:
    """What an embedding gives one text encoder."""

    tensor: str
    """The tensor's name in the file."""
    count: int
    """The tokens that it stands for, 1 to 75."""
    width: int
    """Of each vector."""


@dataclass(frozen=True, slots=True)
class EmbeddingFile:
    """What a file of a textual inversion holds."""

    encoders: tuple[Vectors, ...]
    """For each text encoder of the model that it was made for, in their order."""

    @property
    def widths(self) -> tuple[int, ...]:
        """The width of each text encoder that it was made for."""
        return tuple(vectors.width for vectors in self.encoders)

    @property
    def summary(self) -> str:
        """What it is, for people: `2 vectors of width 768, for Stable Diffusion 1`."""
        most = max(vectors.count for vectors in self.encoders)
        made_for = _MADE_FOR.get(self.widths)
        what = f"{most} vector{'s' if most > 1 else ''} of width {_and(self.widths)}"
        return what if made_for is None else f"{what}, for {made_for}"

    def trouble(self, widths: Sequence[int]) -> str | None:
        """Why a model whose text encoders have these widths does not take it, with the remedy; None where it
        does."""
        if self.widths == tuple(widths):
            return None
        encoders = "text encoder is" if len(widths) == 1 else "text encoders are"
        return (
            f"has {self.summary}, and the model's {encoders} {_and(widths)} wide: name an embedding that was "
            "trained for this model"
        )


def read_embedding(file: Path) -> EmbeddingFile:
    """What a textual inversion's file is, read from its header alone.

    Raises HeaderError that says what is wrong with it, and the remedy, for what is none or cannot be read.
    """
    trouble = name_trouble(file)
    if trouble is not None:
        raise HeaderError(trouble)
    return embedding_of(header_of(file))


def name_trouble(file: Path) -> str | None:
    """What is wrong with an embedding's file by its name, with the remedy; None where its header decides."""
    if file.suffix.lower() in PICKLES:
        return (
            "is a pickle, which runs code when it is loaded: convert it to .safetensors, or name another file"
        )
    if file.suffix == SUFFIX or _KEPT.fullmatch(file.name) is not None:
        return None
    return f"must end in {SUFFIX}: name such a file"


def embedding_of(header: SafetensorsHeader) -> EmbeddingFile:
    """What the header of an embedding's file says. Raises HeaderError for that of another file.

    Source: `load_textual_inversion` of diffusers (a tensor of any name); A1111's textual_inversion.py
    (`emb_params`, and `clip_l` beside `clip_g`).
    """
    tensors = header.tensors
    if all(name in tensors for name in _XL):
        names: tuple[str, ...] = _XL
    elif _A1111 in tensors:
        names = (_A1111,)
    elif len(tensors) == 1 and "clip_g" not in tensors:
        names = tuple(tensors)
    else:
        raise HeaderError(_no_embedding(header))
    return EmbeddingFile(tuple(_vectors(name, tensors[name]) for name in names))


def default_token(file: Path) -> str:
    """What prompts call an embedding that is given no token: its file's name without the suffix."""
    return file.stem


def token_trouble(token: str) -> str | None:
    """Why prompts cannot call an embedding so, with the remedy; None where they can."""
    # Not printable are those too by which a worker names an embedding's further vectors.
    wrong = next((one for one in token if one.isspace() or not one.isprintable() or one in _SPECIAL), None)
    if wrong is not None:
        return f"holds {wrong!r}, which a token may not: give it a token of letters, digits, -, _, < and >"
    return None if token else "is empty: give it a token, such as <cat-toy>"


def tokens_trouble(tokens: Sequence[str]) -> str | None:
    """Why these tokens cannot be told apart in a text, with the remedy; None where they can."""
    for index, token in enumerate(tokens):
        for other in tokens[:index]:
            if token.lower() == other.lower():
                return f"two embeddings have the token {token}: give one of them another token"
            longer, shorter = sorted((token, other), key=len, reverse=True)
            if shorter.lower() in longer.lower():
                return f"the token {longer} holds the token {shorter}: give one of them another token"
    return None


def word_trouble(token: str, vocabulary: Collection[str]) -> str | None:
    """Why a text encoder of this vocabulary cannot tell the token from a word, with the remedy; None where it
    can.

    vocabulary: a tokenizer's, in which the end of a word may be marked by </w>.
    """
    word = token.lower()
    if token in vocabulary or word in vocabulary or f"{word}</w>" in vocabulary:
        return f"is a word that the model knows: give it a token that is none, such as <{word.strip('<>')}>"
    return None


def called(tokens: Sequence[str], texts: Sequence[str]) -> list[str]:
    """Those of the tokens that one of the texts holds; upper and lower case are the same, as to CLIP."""
    lower = [text.lower() for text in texts]
    return [token for token in tokens if any(token.lower() in text for text in lower)]


def _vectors(name: str, tensor: StoredTensor) -> Vectors:
    shape = tensor.shape
    if tensor.dtype not in _FLOATS or len(shape) not in (1, 2) or 0 in shape:
        raise HeaderError(
            f"is no textual inversion: its tensor {name} is {tensor.dtype} {list(shape)}, not floats "
            "[width] or [vectors, width]: name another file"
        )
    count = 1 if len(shape) == 1 else shape[0]
    if count > MOST_VECTORS:
        raise HeaderError(
            f"has {count} vectors in its tensor {name}, and a text has room for {MOST_VECTORS}: name another "
            "file"
        )
    return Vectors(name, count, shape[-1])


def _no_embedding(header: SafetensorsHeader) -> str:
    if not header.tensors:
        return "holds no tensor: name another file"
    lacking = next((name for name in _XL if name not in header.tensors), "")
    if len(header.tensors) == 1 and lacking:
        return f"has clip_g without {lacking}: name a whole embedding of Stable Diffusion XL"
    first = min(header.tensors)
    return (
        f"is no textual inversion: it has {len(header.tensors)} tensors ({first} among them), not one, nor "
        "clip_l and clip_g: name another file"
    )


def _and(widths: Sequence[int]) -> str:
    return " and ".join(map(str, widths))
