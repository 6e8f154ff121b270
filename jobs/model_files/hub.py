"""The Hugging Face hub: the commit of a name, and the small files of a repository, from it or its cache."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from jobs.errors import ModelError
from jobs.plain_file import read_config, read_plain
from jobs.strict_json import strict_json
from jobs.user_cache import cache_folder, remember

HUB_TIMEOUT: Final = 5.0
"""Seconds to wait for the hub."""

_COMMIT = re.compile(r"[0-9a-f]{40}")
_MAX_REF: Final = 4096
"""Bytes of what the cache says of a branch or a tag."""


def is_commit(revision: str | None) -> bool:
    """Whether a revision is a commit, which never changes, and not a branch or a tag."""
    return revision is not None and _COMMIT.fullmatch(revision) is not None


def cached_repository(model: str) -> Path:
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE) / ("models--" + model.replace("/", "--"))


def hub_commit(model: str, revision: str | None) -> str:
    """The commit that a branch or tag of a hub repository stands at."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    named = "main" if revision is None else revision
    try:
        commit = HfApi().model_info(model, revision=revision, timeout=HUB_TIMEOUT).sha
    except GatedRepoError:
        raise ModelError(
            f"model = {model}: is gated: accept its terms on huggingface.co and set HF_TOKEN"
        ) from None
    except RepositoryNotFoundError:
        raise ModelError(
            f"model = {model}: the hub knows no such repository: check the name, or set HF_TOKEN"
            " if it is private"
        ) from None
    except RevisionNotFoundError:
        raise ModelError(f"revision = {revision}: {model} has none of that name on the hub") from None
    except Exception as error:
        if not of_the_hub(error):
            raise
        return _cached_commit(model, named, error)
    if commit is None:
        raise ModelError(f"model = {model}: the hub names no commit: give `revision: <commit>`")
    return str(commit)


def _cached_commit(model: str, named: str, error: Exception) -> str:
    """The commit that the local hub cache last saw at `named`, because the hub could not be asked."""
    refs = cached_repository(model) / "refs"
    ref = refs / named
    if ref.resolve().is_relative_to(refs.resolve()) and ref.is_file():
        commit = cached_commit(ref)
        if _COMMIT.fullmatch(commit):
            return commit
    why = _first_line(error)
    raise ModelError(
        f"model = {model}: the hub cannot be asked which commit {named} is ({why}) and the local cache"
        " does not know: give `revision: <commit>` (40 hex digits), or name a folder"
    )


def cached_commit(ref: Path) -> str:
    """What a file of the hub's cache says that a branch or a tag stands at; empty where it cannot be read."""
    try:
        return read_plain(ref, _MAX_REF).decode("ascii").strip()
    except (OSError, ValueError):
        return ""


@dataclass(slots=True)
class HubFiles:
    """Reads JSON files of a hub repository at a commit: from the hub's local cache, from our own, or from the
    hub, asked once; a file of a commit never changes. KeyError for one that is not at hand."""

    model: str
    commit: str
    why: str = field(default="", init=False)
    """Why the last file could not be had from the hub; no other is asked for then."""

    def __call__(self, name: str) -> Any:
        """The JSON value in the file `name`."""
        own = cache_folder("hub") / self.model / self.commit / name
        for path in (cached_repository(self.model) / "snapshots" / self.commit / name, own):
            try:
                return read_config(path)
            except (OSError, ValueError):
                continue
        if self.why:
            raise KeyError(name)
        text = self._fetched(name)
        try:
            value = strict_json(text)
        except ValueError:
            raise KeyError(name) from None
        remember(own, text.decode())
        return value

    def _fetched(self, name: str) -> bytes:
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

        # hf_hub_download repeats for half a minute where there is no network.
        url = hf_hub_url(self.model, name, revision=self.commit)
        try:
            answer = get_session().get(
                url, headers=build_hf_headers(), timeout=HUB_TIMEOUT, follow_redirects=True
            )
            hf_raise_for_status(answer)
        except Exception as error:
            if not of_the_hub(error):
                raise
            self.why = _first_line(error)
            raise KeyError(name) from None
        content: bytes = answer.content
        return content


def hub_file(model: str, name: str, commit: str) -> Path:
    """A file of a hub repository at a commit, from the hub's local cache, or fetched into it.

    Raises ModelError.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    cached = cached_repository(model) / "snapshots" / commit / name
    if cached.is_file():
        return cached
    try:
        # hf_hub_download repeats for half a minute where there is no network.
        get_hf_file_metadata(hf_hub_url(model, name, revision=commit), timeout=HUB_TIMEOUT)
        return Path(hf_hub_download(model, name, revision=commit))
    except Exception as error:
        if not of_the_hub(error):
            raise
        raise ModelError(
            f"{model}/{name}: is not in the hub's cache, and cannot be fetched ({_first_line(error)}): "
            "correct it, or name a file"
        ) from None


def of_the_hub(error: Exception) -> bool:
    """Whether an error is one of asking the hub.

    Each release of the hub's client raises its HTTP library's own errors (requests', httpx', …).
    """
    from huggingface_hub.errors import HfHubHTTPError

    return isinstance(error, (HfHubHTTPError, OSError)) or "http" in type(error).__module__


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
