"""What is told of texts that a model's window has no room for."""

from __future__ import annotations


def told_cut(prompt: str, negative_prompt: str) -> str | None:
    """What was left out of a prompt and its negative prompt, as the metadata tells it; None for nothing."""
    ends = [prompt] if prompt else []
    if negative_prompt:
        ends.append(f"negative prompt: {negative_prompt}")
    return "\n".join(ends) if ends else None
