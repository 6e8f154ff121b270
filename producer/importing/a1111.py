"""Pictures of AUTOMATIC1111's web UI and of what writes its text: Forge, SD.Next, Civitai, imagemill.

The text is the prompt, `Negative prompt: …` and a last line of `Key: value` pairs. Source: A1111's
`infotext_utils`; `jobs.output.metadata.parameters_text` writes the same form.
"""

from __future__ import annotations

import re
from json import JSONDecoder
from typing import Final

from jobs.models.models import is_path, name_trouble
from jobs.prompt_weights import Part, PromptSyntaxError, a1111_sections, weights_trouble
from jobs.wording import shortened
from producer.importing.recipe import NO_EQUAL, Draft, NamedModel
from producer.manifest.lora_tags import TagError, untagged

_NEGATIVE: Final = "Negative prompt:"
_KEY = re.compile(r'\s*+([^:,"\n]{1,60}):[ \t]*+')
_FEWEST_PAIRS: Final = 3
"""A last line with fewer is part of the prompt, as A1111 reads it."""
_MOST_BROKEN: Final = 8
"""Values that are no JSON after all: each may be searched for its end up to the end of the text."""
_DECODER = JSONDecoder(strict=False)
_SETTINGS: Final = {"Steps": "num_inference_steps", "CFG scale": "guidance_scale", "Seed": "seed"}
_READ: Final = frozenset({*_SETTINGS, "Sampler", "Schedule type", "Size", "Model", "Model hash", "RNG"})
_WITHOUT_EFFECT: Final = frozenset({"Version", "Hashes", "User"})
_USUAL: Final = {"Clip skip": "1", "Eta": "0", "Emphasis": "Original"}
"""Values that are A1111's defaults, and ours."""
_NO_ENSD: Final = "imagemill adds nothing to the seed of an ancestral sampler, and the picture will differ"
_REMEDIES: Final = {
    "Clip skip": "imagemill takes the text encoder's last layer, and the picture will differ",
    "Denoising strength": "a second pass or another picture is below it, which imagemill does not do",
    "ENSD": _NO_ENSD,
    "Eta noise seed delta": _NO_ENSD,
    "VAE": "imagemill takes the model's own autoencoder: name a model that has this one",
    "Lora hashes": "imagemill takes the file of that name in `lora_folder`, whatever its hash",
    "TI hashes": "imagemill takes the embeddings that `textual_inversions` names: write their files there",
}
_NO_WEIGHTS: Final = frozenset({"None", "Ignore"})
"""Values of "Emphasis" with which A1111 applies none."""
_REFUSED: Final = ", and the picture will differ: `syntax: a1111` refuses one of the two texts"
_NETWORK = re.compile(r"<(?:(?i:lora)|lyco|hypernet):[^<>\n]{1,200}>")
_WEIGHT = re.compile(r"(?<!\\)[(\[][^()\[\]\n]{1,400}[)\]]")
_BREAK = re.compile(r"\bBREAK\b")


def read_parameters(text: str) -> Draft:
    """What A1111's text says. Raises Untold where it holds no prompt that can be written."""
    prompt, negative_prompt, pairs = split_parameters(text)
    own = pairs.get("Version", "").startswith("imagemill")
    draft = Draft("imagemill" if own else "A1111")
    draft.take_texts(prompt, negative_prompt)
    for key, name in _SETTINGS.items():
        draft.take(name, pairs.get(key), key)
    draft.take_sampler(pairs.get("Sampler"), pairs.get("Schedule type"))
    width, _, height = pairs.get("Size", "").partition("x")
    draft.take("width", width, "Size, its width,")
    draft.take("height", height, "Size, its height,")
    # Only imagemill names a model as a manifest does: SwarmUI's org/name is a path.
    name = pairs.get("Model", "")
    usable = own and not is_path(name) and name_trouble(name) is None
    draft.model = NamedModel(name, pairs.get("Model hash", ""), name if usable else None)
    for key, value in pairs.items():
        if key not in _READ and key not in _WITHOUT_EFFECT and _USUAL.get(key) != value:
            draft.lose(f"{key}: {shortened(value)}", _REMEDIES.get(key, NO_EQUAL))
    if not own:
        _take_syntax(draft, pairs.get("Emphasis", "Original"))
        if pairs.get("RNG", "").upper() != "CPU":
            draft.lose(
                "noise of a GPU",
                "A1111 draws it there unless its text says `RNG: CPU`, imagemill on the CPU: equal seeds give"
                " other pictures",
                of_program=True,
            )
    return draft


def split_parameters(text: str) -> tuple[str, str, dict[str, str]]:
    """The prompt, the negative prompt, and the settings by their keys."""
    lines = text.rstrip("\r\n \0").split("\n")
    at = len(lines) - 1
    pairs = _pairs(lines[at])
    if len(pairs) < _FEWEST_PAIRS:
        # Extensions append lines of their own, a template for one.
        steps = [number for number, line in enumerate(lines) if line.startswith("Steps: ")]
        at = steps[-1] if steps else len(lines)
        pairs = _pairs(lines[at]) if steps else {}
        for line in lines[at + 1 :]:
            key, _, value = line.partition(":")
            pairs.setdefault(key.strip(), value.strip())
    head = lines[:at]
    begin = next((number for number, line in enumerate(head) if line.startswith(_NEGATIVE)), len(head))
    negative_prompt = "\n".join(head[begin:])[len(_NEGATIVE) :]
    return "\n".join(head[:begin]), negative_prompt.removeprefix(" "), pairs


def _pairs(line: str) -> dict[str, str]:
    """`Key: value, …`; a value that begins with a quote or a bracket is JSON, and may hold commas."""
    found: dict[str, str] = {}
    at = broken = 0
    while at < len(line):
        key = _KEY.match(line, at)
        if key is not None:
            at = key.end()
            value, end = None, at
            if broken < _MOST_BROKEN and line[at : at + 1] in ('"', "{", "["):
                try:
                    value, end = _DECODER.raw_decode(line, at)
                except (ValueError, RecursionError):
                    broken += 1
        comma = line.find(",", at if key is None else end)
        after = len(line) if comma < 0 else comma
        if key is not None:
            written = line[at:after].strip() if value is None else value
            found.setdefault(key[1].strip(), written if isinstance(written, str) else line[at:end])
        at = after + 1
    return found


def _take_syntax(draft: Draft, emphasis: str) -> None:
    """Set `syntax: a1111` for texts that mean something in it; name what of them is read as words."""
    texts = [draft.prompt, draft.settings.get("negative_prompt", "")]
    if _has_loras(texts[0]):
        left = [untagged(texts[0]).prompt, texts[1]]
        weighed = emphasis not in _NO_WEIGHTS or all(_is_plain(text) for text in left)
        if weighed and all(weights_trouble(text, "a1111") is None for text in left):
            draft.settings["syntax"] = "a1111"
            return
    for name in dict.fromkeys(name for text in texts for name in _NETWORK.findall(text)):
        draft.lose(name, "no network is loaded of this text, and it is read as words")
    if emphasis in _NO_WEIGHTS or all(_is_plain(text) for text in texts):
        return
    if all(weights_trouble(text, "a1111") is None for text in texts):
        draft.settings["syntax"] = "a1111"
        return
    for text in texts:
        weight, parted = _WEIGHT.search(text), _BREAK.search(text)
        if weight is not None:
            draft.lose(weight[0], f"imagemill reads brackets as words here{_REFUSED}")
        if parted is not None:
            draft.lose("BREAK", f"imagemill reads it as a word here{_REFUSED}")


def _has_loras(prompt: str) -> bool:
    """Whether a prompt names LoRAs, each in a way that is read."""
    try:
        return bool(untagged(prompt).tags)
    except TagError:
        return False


def _is_plain(text: str) -> bool:
    """Whether A1111's syntax makes of a text nothing but the text."""
    try:
        return a1111_sections(text) == ((Part(text, 1.0),),)
    except PromptSyntaxError:
        return False
