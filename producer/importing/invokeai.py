"""Pictures of InvokeAI: `invokeai_metadata` (3 and later), `sd-metadata` (2), `Dream`, a command line (1).

Source: InvokeAI's `metadata.py` (core metadata), its former `pngwriter.py` and `ldm/invoke/args.py`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any, Final

from jobs.wording import shortened
from producer.importing.json_text import json_object
from producer.importing.recipe import NO_EQUAL, Draft, NamedModel, Untold

_SETTINGS: Final = {
    "steps": "num_inference_steps",
    "cfg_scale": "guidance_scale",
    "seed": "seed",
    "width": "width",
    "height": "height",
}
_SILENT: Final = frozenset(
    {
        *_SETTINGS, "positive_prompt", "negative_prompt", "model", "scheduler", "rand_device", "app_version",
        "generation_mode", "prompt", "sampler", "type", "canvas_v2_metadata", "ref_images", "image_size",
    }
)  # fmt: skip
_NOTHING: Final[tuple[object, ...]] = (None, "", False, 0, [], {}, "none")
_TEXT_TO_IMAGE: Final = "txt2img"
_FLAGS: Final = {
    "-s": "steps", "-S": "seed", "-W": "width", "-H": "height", "-C": "cfg_scale", "-A": "sampler",
    "--steps": "steps", "--seed": "seed", "--width": "width", "--height": "height",
    "--cfg_scale": "cfg_scale", "--sampler": "sampler", "--sampler_name": "sampler",
}  # fmt: skip
_MOST_DREAM: Final = 1 << 20
"""Characters; shlex takes seconds for more."""
_BRACKETS = re.compile(r"\[([^\[\]]*)\]")
"""In InvokeAI 1 and 2, what the picture should not show stands within the prompt."""


def read_metadata(text: str) -> Draft:
    """InvokeAI 3 and later."""
    said = json_object(text)
    draft = Draft("InvokeAI")
    draft.take_texts(said.get("positive_prompt"), said.get("negative_prompt"))
    _take(draft, said, said.get("scheduler"))
    model = said.get("model")
    if isinstance(model, dict):
        draft.model = NamedModel(
            _text(model.get("name")) or _text(model.get("model_name")), _text(model.get("hash"))
        )
    mode = _text(said.get("generation_mode"))
    if mode and not mode.endswith(_TEXT_TO_IMAGE):
        draft.lose(
            f"generation_mode: {mode}", "it was painted over another picture, which its file does not hold"
        )
    if said.get("rand_device", "cpu") != "cpu":
        draft.lose("rand_device: cuda", "its noise was drawn on a GPU, and imagemill draws it on the CPU")
    return draft


def read_sd_metadata(text: str) -> Draft:
    """InvokeAI 2."""
    said = json_object(text)
    image = said.get("image")
    if not isinstance(image, dict):
        raise Untold("its settings hold no `image`")
    draft = Draft("InvokeAI")
    prompt = image.get("prompt")
    if isinstance(prompt, list):
        parts = [one.get("prompt") for one in prompt if isinstance(one, dict)]
        if len(parts) > 1:
            draft.lose(
                "several prompts with weights", "they are written as one prompt, and the picture will differ"
            )
        prompt = " ".join(one for one in parts if isinstance(one, str))
    _take_bracketed(draft, prompt)
    _take(draft, image, image.get("sampler"))
    draft.model = NamedModel(_text(said.get("model_weights")), _text(said.get("model_hash"))[:10])
    kind = _text(image.get("type"))
    if kind and kind != _TEXT_TO_IMAGE:
        draft.lose(f"type: {kind}", "it was painted over another picture, which its file does not hold")
    return draft


def read_dream(text: str) -> Draft:
    """InvokeAI 1: `"a red fox [blurry]" -s 50 -S 1 -W 512 -H 512 -C 7.5 -A k_lms`."""
    if len(text) > _MOST_DREAM:
        raise Untold("its command line is too long to be one")
    try:
        prompt, *rest = shlex.split(text)
    except ValueError:
        raise Untold("its command line cannot be read") from None
    draft = Draft("InvokeAI")
    _take_bracketed(draft, prompt)
    said: dict[str, Any] = {}
    words = iter(rest)
    for word in words:
        # -s50 and -s 50 are the same.
        flag = word if word.startswith("--") else word[:2]
        if flag not in _FLAGS:
            draft.lose(shortened(word), NO_EQUAL)
            continue
        said.setdefault(_FLAGS[flag], word[len(flag) :] or next(words, ""))
    _take(draft, said, said.get("sampler"))
    return draft


def _take(draft: Draft, said: Mapping[str, Any], sampler: object) -> None:
    for key, name in _SETTINGS.items():
        value = said.get(key)
        draft.take(name, value if type(value) in (int, float, str) else None, key)
    draft.take_sampler(sampler)
    for key, value in said.items():
        if key not in _SILENT and value not in _NOTHING:
            draft.lose(f"{shortened(key)}: {shortened(str(value))}", NO_EQUAL)


def _take_bracketed(draft: Draft, prompt: object) -> None:
    text = prompt if isinstance(prompt, str) else ""
    unwanted = ", ".join(one.strip(" ,") for one in _BRACKETS.findall(text))
    wanted = " ".join(_BRACKETS.sub(" ", text).split()) if unwanted else text
    draft.take_texts(wanted if isinstance(prompt, str) else None, unwanted)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
