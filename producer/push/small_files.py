"""The files beside the shards: the card, what failed, the contact sheet and the job's report."""

from __future__ import annotations

from jobs.output.card import is_ours
from jobs.output.licences import read_licences
from jobs.output.output import CARD, FAILURES, PREVIEW, REPORT, Output
from jobs.plain_file import MAX_JSON
from producer.push.card import Placed, repository_card
from producer.push.gathered import Gathered


def small_files(output: Output, gathered: Gathered, placed: Placed) -> dict[str, bytes]:
    """The contents of those that the output has, by their names. Raises OSError."""
    failed = "".join(f"{failure.to_json()}\n" for failure in gathered.failures).encode()
    files = {FAILURES: failed} if failed else {}
    for name in (PREVIEW, REPORT):
        # In a bucket an empty file stands for one that was taken away.
        if output.store.exists(name) and (contents := output.store.read(name, MAX_JSON)):
            files[name] = contents
    gathered.found.licences = read_licences(output)
    failures = len(gathered.failures)
    card = repository_card(gathered.found, placed, failures=failures, preview=PREVIEW in files)
    return {**files, CARD: card.encode()}


def has_own_card(output: Output) -> bool:
    """Whether somebody wrote a text of their own into the output's README.md."""
    try:
        return not is_ours(output.store.read(CARD).decode(errors="replace"))
    except OSError:
        return False
