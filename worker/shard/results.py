"""What became of a shard's images: which are done, which failed, and which of the done are doubted."""

from __future__ import annotations

from dataclasses import dataclass, field

from jobs.ledger.shard import Shard
from jobs.output.metadata import Failure


@dataclass(slots=True)
class ShardResults:
    """Results by position in the shard."""

    done: list[int] = field(default_factory=list)
    failed: dict[int, Failure] = field(default_factory=dict)
    flagged: set[int] = field(default_factory=set)
    """Those of the done whose picture is doubted."""
    away: list[int] = field(default_factory=list)
    """Neither: a bucket did not give their files, and they are to be ordered again."""

    @property
    def ended(self) -> set[int]:
        """The positions that are done or failed."""
        return {*self.done, *self.failed}

    def add(self, more: ShardResults) -> None:
        """Takes in the results of other images."""
        self.done += more.done
        self.failed |= more.failed
        self.flagged |= more.flagged

    def in_job(self, shard: Shard) -> tuple[list[int], dict[int, dict[str, object]], set[int]]:
        """The same by index in the job, as the ledger takes it: done, failed, flagged."""
        failed: dict[int, dict[str, object]] = {
            shard.indices[position]: failure.in_ledger() for position, failure in self.failed.items()
        }
        flagged = {shard.indices[position] for position in self.flagged}
        return [shard.indices[position] for position in self.done], failed, flagged
