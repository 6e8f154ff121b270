"""How an output names the files of a manifest: so that it tells nothing of who made it, and where.

A file below the manifest's folder is called by its path from there, `prompts/foxes.jsonl`. Any other is
called by its own name, `…/foxes.jsonl`; a second one of that name is `…/foxes.jsonl (2)`. Where they lie is
remembered in the user's cache, so that `imagemill doctor` finds them again.
"""

from __future__ import annotations

import glob
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from jobs.plain_file import MAX_JSON, read_json
from jobs.user_cache import cache_folder, remember
from producer.bucket_files.object_copies import named
from producer.manifest.written_files import WITH_FILES
from producer.manifest.written_pictures import with_pictures

FOLDER: Final = "./"
"""Among what is remembered, the manifest's own folder: what rows name is relative to it."""
ELSEWHERE: Final = "…/"
"""Before the name of a file that does not lie below the manifest's folder."""


class PathNames:
    """The names of the files of one manifest; one that is a name already stays as it is."""

    def __init__(self, folder: Path) -> None:
        """`folder`: the manifest's own, absolute."""
        self.folder = folder
        self.known: dict[str, str] = {}
        """Each name that was given -> the absolute path that it stands for."""
        self._names: dict[str, str] = {}

    def __call__(self, path: str) -> str:
        """The name of an absolute path, which may be a pattern; of a copy, its place in a bucket."""
        path = named(path)
        if not Path(path).is_absolute():
            return path
        if path not in self._names:
            # Before a pattern, brackets in the folder's own name are escaped.
            bases = (self.folder, Path(glob.escape(str(self.folder))))
            below = [Path(path).relative_to(base) for base in bases if Path(path).is_relative_to(base)]
            called = below[0].as_posix() if below else ELSEWHERE + Path(path).name
            name, number = called, 1
            while name in self.known:
                number += 1
                name = f"{called} ({number})"
            self._names[path], self.known[name] = name, path
        return self._names[path]

    def of_model(self, model: str) -> str:
        """The same for a manifest's `model`, where it is a folder."""
        return f"./{self(model)}" if Path(model).is_absolute() else model

    def of_manifest(self, mapping: Mapping[str, Any]) -> dict[str, Any]:
        """A manifest as JSON with the names of its files, and without its output, in which it lies."""
        named = with_paths(mapping, self)
        named.pop("output", None)
        if "model" in mapping:
            named["model"] = self.of_model(mapping["model"])
        if isinstance(several := mapping.get("controlnet"), (list, tuple)):
            named["controlnet"] = [
                {**one, "model": self.of_model(one["model"])} if isinstance(one, dict) else one
                for one in several
            ]
        if isinstance(adapter := named.get("ip_adapter"), dict):
            named["ip_adapter"] = self._of_ip_adapter(adapter)
        return named

    def _of_ip_adapter(self, adapter: Mapping[str, Any]) -> dict[str, Any]:
        """`ip_adapter` of a manifest with the names of the folders that it names."""
        named = dict(adapter)
        if isinstance(model := named.get("model"), str):
            named["model"] = self.of_model(model)
        if isinstance(encoder := named.get("image_encoder"), dict):
            named["image_encoder"] = {**encoder, "model": self.of_model(encoder["model"])}
        return named


def with_paths(mapping: Mapping[str, Any], renamed: Callable[[str], str]) -> dict[str, Any]:
    """A submitted manifest as JSON with other paths of its files and wildcards; the model stays."""
    changed = dict(mapping)
    if isinstance(sources := mapping.get("prompts_from"), (list, tuple)):
        changed["prompts_from"] = [
            {**source, "file": renamed(source["file"])} if isinstance(source, dict) else source
            for source in sources
        ]
    if isinstance(lines := mapping.get("prompts"), (list, tuple)):
        changed["prompts"] = [
            with_pictures(
                _with_lists(
                    {**line, "init_latents": renamed(line["init_latents"])}
                    if isinstance(line, dict) and isinstance(line.get("init_latents"), str)
                    else line,
                    renamed,
                ),
                renamed,
            )
            for line in lines
        ]
    for key in ("settings", "sweep"):
        if key in mapping:
            changed[key] = with_pictures(_with_lists(mapping[key], renamed), renamed)
    if isinstance(folder := mapping.get("lora_folder"), str):
        changed["lora_folder"] = renamed(folder)
    if isinstance(adapter := mapping.get("ip_adapter"), dict) and isinstance(adapter.get("file"), str):
        changed["ip_adapter"] = {**adapter, "file": renamed(adapter["file"])}
    if isinstance(folder := mapping.get("wildcards"), str):
        changed["wildcards"] = renamed(folder)
    if isinstance(files := mapping.get("files"), dict):
        changed["files"] = {renamed(file): sha256 for file, sha256 in files.items()}
    return changed


def _with_lists(part: Any, renamed: Callable[[str], str]) -> Any:
    """The same with other paths of the files in lists that `settings`, `sweep` or a line has."""
    if not isinstance(part, dict):
        return part
    changed: dict[str, Any] = {}
    for name, with_files in WITH_FILES.items():
        given = part.get(name)
        if isinstance(given, str):
            changed[name] = with_files(given, renamed)
        elif isinstance(given, (list, tuple)):
            changed[name] = [with_files(one, renamed) for one in given]
    return {**part, **changed}


def remember_paths(output: str, name: str, names: PathNames) -> None:
    """Remembers in the user's cache what the names in the output's manifests called `name` stand for."""
    remember(_remembered(output, name), json.dumps(names.known | {FOLDER: str(names.folder)}))


def known_paths(output: str, name: str) -> Mapping[str, str]:
    """What `remember_paths` remembered here; nothing where it did not."""
    try:
        known = read_json(_remembered(output, name), MAX_JSON)
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _remembered(output: str, name: str) -> Path:
    digest = hashlib.sha256(f"{output}\0{name}".encode(errors="surrogateescape")).hexdigest()
    return cache_folder("manifests") / f"{digest[:32]}.json"
