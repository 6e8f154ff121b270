"""What the tokenizers of a pipeline's call leave out of its texts, whatever the pipeline is."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase, ProcessorMixin

from jobs.request import ImageRequest
from worker.diffusion.stand_ins import StandIn
from worker.diffusion.told_cuts import told_cut

_FORM = frozenset(
    {"padding", "pad_to_multiple_of", "truncation", "max_length"}
    | {"return_tensors", "return_length", "return_attention_mask"}
)
"""Arguments of a tokenizer's call that say how long its result is, and of which type."""


_LAST = 20
"""Letters by which the end of a text is found within a template."""


@dataclass(frozen=True, slots=True)
class _Tokenised:
    tokenizer: str
    text: str
    left_out: str
    """The end of the text that the tokenizer cut off; empty where it cut nothing off."""
    cutting: bool
    """Whether it was asked to cut what is too long."""


class TextCuts:
    """Collects what the tokenizers of one image's call cut off."""

    def __init__(self) -> None:
        self._calls: list[_Tokenised] = []

    def watched(self, name: str, component: Any) -> Any | None:
        """What stands in for a tokenizer, or for a processor that has one; None for anything else."""
        if isinstance(component, PreTrainedTokenizerBase):
            return WatchedTokenizer(name, component, self)
        if isinstance(component, ProcessorMixin) and hasattr(component, "tokenizer"):
            own = copy.copy(component)
            own.__dict__["tokenizer"] = WatchedTokenizer(f"{name}.tokenizer", component.tokenizer, self)
            return own
        return None

    def note(self, tokenizer: str, text: str, left_out: str, *, cutting: bool) -> None:
        """Notes what became of one text."""
        self._calls.append(_Tokenised(tokenizer, text, left_out, cutting))

    def told(self, request: ImageRequest) -> str | None:
        """What no encoder got of the request's texts; None where each text was whole for one of them.

        A text that a tokenizer cuts is whole where another one gets all of it, perhaps within a template: the
        T5 of FLUX reads what its CLIP has no room for.
        """
        of_prompt: list[_Tokenised] = []
        of_negative: list[_Tokenised] = []
        for one in self._counted():
            (of_negative if _is_negative(one.text, request) else of_prompt).append(one)
        return told_cut(_end(of_prompt, request.prompt), _end(of_negative, request.negative_prompt))

    def _counted(self) -> list[_Tokenised]:
        """The calls whose tokens are encoded: pipelines make another, without a cut, to warn of one."""
        cutting = {one.tokenizer for one in self._calls if one.cutting}
        return [one for one in self._calls if one.cutting or one.tokenizer not in cutting]


def _is_negative(text: str, request: ImageRequest) -> bool:
    """Whether a tokenised text is the negative prompt rather than the prompt, perhaps within a template."""
    prompt, negative = request.prompt, request.negative_prompt
    if text in (prompt, negative):
        return text != prompt
    return negative in text and (prompt not in text or len(negative) > len(prompt))


def _end(calls: Sequence[_Tokenised], text: str) -> str:
    """The shortest end that was cut off a text; empty where each was whole for one of the tokenizers.

    What a template puts after the text is left out, where the text's own last letters are found.
    """
    ends = [min((other.left_out for other in calls if one.text in other.text), key=len) for one in calls]
    shortest = min((end for end in ends if end), key=len, default="")
    if text == "":
        return shortest
    own, last, _template = shortest.rpartition(text[-_LAST:])
    return own + last if last else shortest


class WatchedTokenizer(StandIn):
    """A tokenizer that notes what it cuts off."""

    def __init__(self, name: str, tokenizer: Any, cuts: TextCuts) -> None:
        super().__init__(name, tokenizer)
        self.__dict__["_cuts"] = cuts

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._module, name, value)  # such as padding_side, which each call of the pipeline sets

    def __len__(self) -> int:
        return len(self._module)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        tokenised = self._module(*args, **kwargs)
        given = args[0] if args else kwargs.get("text")
        texts = [given] if isinstance(given, str) else given
        if isinstance(texts, (list, tuple)) and all(isinstance(text, str) for text in texts):
            self._note(list(texts), tokenised, kwargs)
        return tokenised

    def apply_chat_template(self, *args: Any, **kwargs: Any) -> Any:
        """As the tokenizer's own, whose call of itself is watched."""
        return type(self._module).apply_chat_template(self, *args, **kwargs)

    def _note(self, texts: list[str], tokenised: Any, kwargs: dict[str, Any]) -> None:
        if not kwargs.get("truncation"):
            for text in texts:
                self._cuts.note(self._name, text, "", cutting=False)
            return
        form = {name: value for name, value in kwargs.items() if name not in {*_FORM, "text"}}
        whole = self._module(texts, **form, verbose=False)["input_ids"]
        kept = tokenised["input_ids"]
        rows = [kept] if len(texts) == 1 and isinstance(kept[0], int) else kept
        for text, ids, row in zip(texts, whole, rows, strict=False):
            self._cuts.note(self._name, text, self._left_out(ids, [int(one) for one in row]), cutting=True)

    def _left_out(self, whole: list[int], kept: list[int]) -> str:
        if len(whole) <= len(kept):
            return ""
        same = next(
            (place for place, (a, b) in enumerate(zip(whole, kept, strict=False)) if a != b), len(kept)
        )
        return str(self._module.decode(whole[same:], skip_special_tokens=True))
