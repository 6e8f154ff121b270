"""Prompts in .txt: one a line, with the flags of kohya's sd-scripts or of A1111's "prompts from file".

kohya: `a fox --n blurry --w 512 --h 640 --s 30 --l 7.5 --d 1,2 --ss k_euler_a`. A1111: `--prompt "a fox"
--negative_prompt blurry --steps 30 --cfg_scale 7 --seed 1 --sampler_name "Euler a" --width 512 --height 512
--n_iter 2`. Blank lines and lines that begin with # are ignored, as kohya does.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from jobs.errors import ManifestError
from producer.manifest.text_lines import Record, text_lines

KOHYA = {
    "--n": "negative_prompt",
    "--w": "width",
    "--h": "height",
    "--s": "num_inference_steps",
    "--l": "guidance_scale",
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
}
FLAGS = {"prompt": "prompt", **KOHYA, **A1111}
"""What a line's flags mean here; the prompt itself is `prompt`."""


def records(file: Path) -> Iterator[Record]:
    """Each line's prompt and flags, as they are written."""
    for number, text in text_lines(file):
        if isinstance(text, ManifestError):
            yield number, text
            continue
        line = text.strip()
        if line == "" or line.startswith("#"):
            continue
        if "--" not in line:
            yield number, {"prompt": line}
            continue
        try:
            yield number, _a1111(line) if line.partition(" ")[0] in A1111 else _kohya(line)
        except (ManifestError, ValueError) as error:
            yield number, ManifestError(str(error))


def _kohya(line: str) -> dict[str, str]:
    prompt, *parts = f" {line}".split(" --")
    values = {"prompt": prompt.strip()}
    for part in parts:
        flag, _, value = part.strip().partition(" ")
        _put(values, f"--{flag.lower()}", value.strip(), KOHYA)
    return values


def _a1111(line: str) -> dict[str, str]:
    values: dict[str, str] = {}
    words = iter(shlex.split(line))
    for flag in words:
        value = next(words, "")
        _put(values, flag, value, A1111)
    # A1111 draws a seed for -1.
    if values.get("--seed") == "-1":
        del values["--seed"]
    return values


def _put(values: dict[str, str], flag: str, value: str, flags: dict[str, str]) -> None:
    if flag not in flags:
        what = "no such flag" if flag.startswith("--") else "no flag"
        raise ManifestError(f"{flag}: {what}: use {', '.join(flags)}, or write the prompt in .jsonl")
    if flag in values:
        raise ManifestError(f"{flag}: occurs twice: remove one")
    if value == "" and flag not in ("--n", "--prompt", "--negative_prompt"):
        raise ManifestError(f"{flag}: has no value: give one, or remove it")
    values[flag] = value
