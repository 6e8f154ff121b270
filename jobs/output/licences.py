"""The licences of the models that made an output's pictures, as their cards on the hub tell them.

    OUT/.imagemill/licences.json    {"org/model@COMMIT": "creativeml-openrail-m"}

A worker that finishes a job has the model's card in its cache; once found, a licence stays with the output.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from jobs.model_files.hub import cached_repository, is_commit
from jobs.output.output import Output
from jobs.plain_file import MAX_CONFIG, read_plain

_FILE = ".imagemill/licences.json"
_LICENCE = re.compile(r"""^(license|license_name):[ \t]*["']?([^\s"'\[{#|>&*!-][^\n#"']*)""", re.MULTILINE)
Model = tuple[str, str]
"""A model's name and its revision."""


def read_licences(output: Output) -> dict[Model, str]:
    """What is known of an output's models; nothing where the file is not there or not ours."""
    try:
        found = output.read_json(_FILE)
        return {_model(name): str(licence) for name, licence in found.items()}
    except (OSError, ValueError, AttributeError):
        return {}


def keep_licences(output: Output, models: Iterable[Model]) -> dict[Model, str]:
    """The same, with what this machine's cache of the hub tells of `models`; keeps what is new."""
    known = read_licences(output)
    new = {model: licence for model in sorted(models) if model not in known and (licence := _cached(*model))}
    if new:
        said = {"@".join(model): licence for model, licence in sorted((known | new).items())}
        output.store.replace(_FILE, f"{json.dumps(said, ensure_ascii=False, indent=2)}\n".encode())
    return known | new


def licence_of_card(readme: str) -> str:
    """The licence in the front matter of a model's card; empty where it names none.

    Its own name where `license` is "other". A list of licences counts as none.
    """
    head, mark, rest = readme.partition("---\n")
    front = rest.partition("\n---")[0] if mark and not head.strip() else ""
    said: dict[str, str] = {name: value.strip() for name, value in _LICENCE.findall(front)}
    licence = said.get("license", "")
    return said.get("license_name", licence) if licence == "other" else licence


def _cached(model: str, revision: str) -> str:
    if not is_commit(revision):
        return ""
    try:
        card = cached_repository(model) / "snapshots" / revision / "README.md"
        return licence_of_card(read_plain(card, MAX_CONFIG).decode())
    except (OSError, ValueError):
        return ""


def _model(name: str) -> Model:
    model, _, revision = name.rpartition("@")
    return model, revision
