"""An entry of `prompts_from` as YAML, to be pasted into the manifest."""

from __future__ import annotations

from typing import Any

import yaml

from producer.manifest.prompt_source import PromptSource


def in_yaml(value: object) -> str:
    """A value as YAML on one line: `{file: a.csv, columns: [b]}`."""
    text: str = yaml.safe_dump(
        value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=1 << 30
    )
    return text.strip()


def keys_given(source: PromptSource) -> dict[str, Any]:
    """The entry as the manifest writes it, without what is empty or off."""
    given = {key: value for key, value in source.model_dump(mode="json").items() if value}
    return given | {"file": source.file_as_written}


def key_offer(source: PromptSource, key: str) -> str:
    """How to add a key, with its value, to the entry: ``add `separator: ";"`, as in prompts_from: {…}``."""
    given = keys_given(source)
    given.pop(key.partition(":")[0], None)
    return f"add `{key}`, as in prompts_from: {in_yaml(given).removesuffix('}')}, {key}}}"
