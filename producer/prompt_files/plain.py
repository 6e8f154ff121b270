"""Prompts in .txt: one a line, with the flags of kohya's sd-scripts or of A1111's "prompts from file".

kohya: `a fox --n blurry --w 512 --h 640 --s 30 --l 7.5 --d 1,2 --ss k_euler_a`. A1111: `--prompt a red fox
--negative_prompt blurry --steps 30 --cfg_scale 7 --seed 1 --sampler_name "Euler a" --width 512 --height 512
--n_iter 2`. Blank lines and lines that begin with # are ignored, as kohya does. Or one in a file, as it is.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from jobs.errors import ManifestError
from producer.manifest.prompt_source import PromptSource
from producer.manifest.syntax_marks import OTHER_TOOLS
from producer.manifest.text_lines import MAX_LINE, Record, opened, text_lines, undecodable

COMMENT = "#"
"""How a line begins that is no prompt; what lines of it are counted under."""
KOHYA = {
    "--n": "negative_prompt",
    "--w": "width",
    "--h": "height",
    "--s": "num_inference_steps",
    "--l": "guidance_scale",
    "--g": "guidance_scale",
    "--d": "seeds",
    "--ss": "scheduler",
}
A1111 = {
    "--prompt": "prompt",
    "--negative_prompt": "negative_prompt",
    "--width": "width",
    "--height": "height",
    "--steps": "num_inference_steps",
    "--cfg_scale": "guidance_scale",
    "--seed": "seed",
    "--sampler_name": "scheduler",
    "--n_iter": "images_per_prompt",
    "--batch_size": "images_per_prompt",
}
FLAGS = {"prompt": "prompt", **KOHYA, **A1111}
"""What a line's flags mean here; the prompt itself is `prompt`."""
_TEXTS = ("--prompt", "--negative_prompt")
"""A1111's flags that take every word until the next flag."""
_MIXED_SEEDS = "mixes the noise of two seeds, which no setting here does: remove it"
_RESIZED_SEED = "takes the noise of another size, which no setting here does: remove it"
_KOHYA_REFUSED = {
    "--t": "is the strength of an image to begin with, which a line cannot name: remove it",
    "--i": "names an image to begin with: remove it",
    "--cn": "names an image for ControlNet: remove it",
    "--c": "is a second prompt for CLIP's guidance: remove it",
    "--am": "weighs LoRA networks: remove it",
    "--nl": "is a second guidance scale: remove it",
    "--fs": "is the flow's shift: give it in `arguments` or choose a scheduler",
    **dict.fromkeys(
        ("--ow", "--oh", "--nw", "--nh", "--ct", "--cl"),
        "is SDXL's conditioning: give original_size or crops_coords_top_left in `arguments`",
    ),
    **dict.fromkeys(("--ctr", "--rcfg"), "changes the guidance while it runs: remove it"),
    **dict.fromkeys(("--dsd1", "--dst1", "--dsd2", "--dst2", "--dsr"), "is of Deep Shrink: remove it"),
    **dict.fromkeys(
        ("--glt", "--glr", "--gle", "--gls", "--glsn", "--glus"), "is of Gradual Latent: remove it"
    ),
}
_A1111_REFUSED = {
    "--sd_model": "names a model, and a manifest has one: put the lines of each model in a file of their own",
    "--styles": "names styles that are kept in A1111: write their text into the prompt",
    "--sampler_index": "is a place in A1111's list of samplers: write --sampler_name",
    "--subseed_strength": _MIXED_SEEDS,
    "--seed_resize_from_w": _RESIZED_SEED,
    "--seed_resize_from_h": _RESIZED_SEED,
    "--restore_faces": "paints faces again with a second model: write false",
    "--tiling": "makes pictures that tile: write false",
}
_A1111_IDLE = {
    "--styles": ("", "none"),
    "--subseed_strength": ("0", "0.0"),
    "--seed_resize_from_w": ("0", "-1"),
    "--seed_resize_from_h": ("0", "-1"),
}
"""Flags -> the values, in lower case, with which they change no picture."""
_UNSEEN = {
    "kohya": ("--f",),
    "a1111": (
        "--outpath_samples",
        "--outpath_grids",
        "--prompt_for_display",
        "--do_not_save_samples",
        "--do_not_save_grid",
        # Only --subseed_strength gives it a weight.
        "--subseed",
    ),
}
"""Flags that change no picture."""
_A1111_FLAGS = {*A1111, *_A1111_REFUSED, *_UNSEEN["a1111"]}


def records(file: Path, source: PromptSource, left_out: Counter[str]) -> Iterator[Record]:
    """Each line's prompt and flags, as they are written.

    `left_out` counts the lines that are COMMENT, and each flag that changes no picture.
    """
    for number, text in text_lines(file, source):
        if isinstance(text, ManifestError):
            yield number, text
            continue
        line = text.strip()
        if line == "":
            continue
        if line.startswith(COMMENT):
            left_out[COMMENT] += 1
            continue
        if "--" not in line:
            yield number, {"prompt": line}
            continue
        try:
            if any(word[:2] == "--" and word[2:] in OTHER_TOOLS for word in line.split()):
                # No flag of that line can be told from kohya's: the marks of the text are counted.
                yield number, {"prompt": line}
            elif line.partition(" ")[0] in _A1111_FLAGS:
                yield number, _a1111(line, left_out)
            else:
                yield number, _kohya(line, left_out)
        except (ManifestError, ValueError) as error:
            yield number, ManifestError(str(error))


def one_record(file: Path, source: PromptSource, id: str) -> Iterator[Record]:
    """The whole text of the file as a prompt, without blanks around it.

    None where there is nothing else, unless the source takes empty prompts.
    """
    with opened(file, source, newline=None) as stream:
        text = stream.read(MAX_LINE)
        if len(text) == MAX_LINE:
            raise ManifestError(f"{file}: is longer than {MAX_LINE >> 20} MiB: one prompt is expected")
        undecoded = None if text.isascii() else undecodable(text, stream, source)
        if undecoded is not None:
            yield 1, undecoded
        elif text.strip() or source.empty_prompt is not None:
            yield 1, {"prompt": text.strip(), "id": id}


def _kohya(line: str, left_out: Counter[str]) -> dict[str, str]:
    prompt, *parts = f" {line}".split(" --")
    values = {"prompt": prompt.strip()}
    for part in parts:
        name, _, value = part.strip().partition(" ")
        flag = f"--{name.lower()}"
        if flag in _UNSEEN["kohya"]:
            left_out[flag] += 1
            continue
        _refuse(flag, _KOHYA_REFUSED)
        _put(values, flag, value.strip(), KOHYA)
    return values


def _a1111(line: str, left_out: Counter[str]) -> dict[str, str]:
    values: dict[str, str] = {}
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise ManifestError(
            f'{error}: put the whole prompt in double quotes (--prompt "a cat\'s tail")'
        ) from None
    at = 0
    while at < len(words):
        flag, at = words[at], at + 2
        given = at <= len(words)
        value = words[at - 1] if given else ""
        if flag in _TEXTS:
            if value.startswith("--"):
                raise ManifestError(f"{flag}: has no value: give one, or remove it")
            while at < len(words) and not words[at].startswith("--"):
                value, at = f"{value} {words[at]}", at + 1
        if flag in _UNSEEN["a1111"] or (given and _idle(flag, value)):
            left_out[flag] += 1
            continue
        _refuse(flag, _A1111_REFUSED)
        _put(values, flag, value, A1111)
    # A1111 draws a seed for -1.
    if values.get("--seed") == "-1":
        del values["--seed"]
    times, each = values.get("--n_iter", ""), values.get("--batch_size", "")
    if times.isdecimal() and each.isdecimal():
        values["--n_iter"] = str(int(times) * int(values.pop("--batch_size")))
    return values


def _idle(flag: str, value: str) -> bool:
    """Whether one of A1111's flags changes no picture with that value."""
    if flag in ("--restore_faces", "--tiling"):
        return value.lower() != "true"
    return value.lower() in _A1111_IDLE.get(flag, ())


def _refuse(flag: str, refused: Mapping[str, str]) -> None:
    if flag in refused:
        raise ManifestError(f"{flag}: {refused[flag]}")


def _put(values: dict[str, str], flag: str, value: str, flags: Mapping[str, str]) -> None:
    if flag not in flags:
        what = "no such flag" if flag.startswith("--") else "no flag"
        raise ManifestError(f"{flag}: {what}: use {', '.join(flags)}, or write the prompt in .jsonl")
    if flag in values:
        raise ManifestError(f"{flag}: occurs twice: remove one")
    if value == "" and flag not in ("--n", *_TEXTS):
        raise ManifestError(f"{flag}: has no value: give one, or remove it")
    other = next((one for one in values if flags.get(one) == flags[flag]), None)
    if other is not None and {flag, other} != {"--n_iter", "--batch_size"}:
        raise ManifestError(f"{flag}: means the same as {other} here: remove one")
    values[flag] = value
