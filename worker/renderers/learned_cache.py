"""What was learned of a pipeline, kept in the user's cache for the next worker that loads the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from jobs.plain_file import read_json
from jobs.user_cache import cache_folder, remember
from worker.diffusion.call_rules import from_json, to_json
from worker.renderers.learning import Learned

_FORM = 2
"""Counts how often what is kept came to mean something else."""
_COUNTS = range(1, 64 + 1)
"""Slots that a call of one image may have."""


class LearnedCache:
    """The entry of one pipeline: by all that its calls, and their bytes, depend on."""

    def __init__(self, circumstances: Mapping[str, Any]) -> None:
        """circumstances, as JSON values: class, revision, precision, device, versions."""
        key = json.dumps({**circumstances, "form": _FORM}, sort_keys=True)
        self._file = cache_folder("batching") / f"{hashlib.sha256(key.encode()).hexdigest()}.json"

    def load(self) -> Learned | None:
        """What was kept; None where there is nothing that can be read."""
        try:
            kept = read_json(self._file)
            rules = {name: from_json(of_one) for name, of_one in kept["rules"].items()}
            if kept["batching"] not in ("exact", "fast", "alone"):
                return None
            unguided, guided = (_COUNTS[_COUNTS.index(count)] for count in kept["slots"])
            return Learned(kept["batching"], rules, (unguided, guided), str(kept["reason"]))
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return None

    def keep(self, learned: Learned) -> None:
        """Keeps it; where the cache cannot be written, it is learned again the next time."""
        rules = {name: to_json(of_one) for name, of_one in learned.rules.items()}
        kept = {
            "batching": learned.batching,
            "rules": rules,
            "slots": learned.slots,
            "reason": learned.reason,
        }
        remember(self._file, json.dumps(kept))
