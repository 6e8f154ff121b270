"""What the ledger tells of a job: what it is, how far it was submitted, who renders what, how it stands."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jobs.output.stored_shard import LayoutName

LeaseState = Literal["held", "lost", "ending"]
"""What a renewal says: still ours, another attempt's by now, or ours while the job ends early."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """What a worker must know of a job beside its shards; fixed when the job is made."""

    manifest: Mapping[str, Any]
    """The manifest as it was read, with resolved paths, without its prompts: those are in the shards."""
    base: Mapping[str, Any]
    """An ImageRequest with the job's own settings, as a mapping; its prompt is empty and its seed 0."""
    name: str
    output: str
    """Absolute path."""
    model: str
    """What a worker loads: a hub id, a built-in name or an absolute folder."""
    revision: str
    precision: str
    column_names: Sequence[str]
    """Every user column of the manifest: all slots of a dataset have the same keys."""
    shard_size: int
    priority: int
    max_failures: int | None
    retention: int
    """Seconds that the finished job stays in Redis."""
    mode: Literal["exact", "fast"] = "exact"
    """exact: an image's bytes follow from its request; fast: they may differ in a bit, for a faster end."""
    layout: LayoutName = "files"
    """How its shards lie in the output: `jobs.output`."""
    narrowed: str = ""
    """How the submission was narrowed: "--limit 10", or nothing."""

    def __post_init__(self) -> None:
        if not Path(self.output).is_absolute():
            raise ValueError(f"output {self.output!r}: must be absolute")

    @property
    def pipeline(self) -> str:
        """What must be loaded for the job: model, revision and precision, as one key."""
        return json.dumps([self.model, self.revision, self.precision])


@dataclass(frozen=True, slots=True)
class SlotsKey:
    """What the best number of slots depends on."""

    device: str
    """The kind of device: a GPU's name, a CPU's instructions and threads."""
    precision: str
    """Never auto."""
    revision: str
    """Of the model."""
    height: int
    width: int

    @property
    def kind(self) -> str:
        """What bytes depend on beside slots and versions."""
        return f"{self.device} in {self.precision}"

    @property
    def of_picture(self) -> str:
        """The size of a picture."""
        return f"{self.height}x{self.width}"

    @property
    def remembered(self) -> str:
        """What a measurement is remembered under."""
        return json.dumps([self.device, self.precision, self.revision, self.height, self.width])


@dataclass(frozen=True, slots=True)
class Submission:
    """How far the submission of a job has come; what `add` needs to go on with it."""

    incarnation: str
    state: str
    cursor: int
    """Lines of the expanded manifest taken so far."""
    images: int
    shards: int
    first_shard: int
    """The number of its first shard; -1 as long as there is none."""


@dataclass(frozen=True, slots=True)
class Fence:
    """What a script compares before it changes anything: another attempt may hold the shard by now."""

    job_id: str
    incarnation: str
    shard: str
    """Its number, or "finish"."""
    attempt: str


@dataclass(frozen=True, slots=True)
class Claim:
    """A lease on one shard, or on the finishing of a job (`kind`)."""

    kind: Literal["shard", "finish"]
    job_id: str
    incarnation: str
    shard: str
    attempt: str
    blob: bytes
    suspects: frozenset[int] = frozenset()
    """Images of the job, by index, that are rendered alone: a worker died with them, or may have."""
    all_suspect: bool = False
    """Whether all of the shard's are; of a finishing, whether workers died of it."""
    condemned: frozenset[int] = frozenset()
    """Images of the job that are not rendered again: workers died of them alone."""

    @property
    def fence(self) -> Fence:
        """What keeps later calls out once another attempt holds the shard."""
        return Fence(self.job_id, self.incarnation, self.shard, self.attempt)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    """A job as Redis holds it. Times are seconds since 1970, 0.0 when not yet."""

    job_id: str
    state: Literal["open", "sealed", "finishing", "finished"]
    """open: still being submitted; sealed: all shards are stored; finishing: nothing is left to render."""
    outcome: str
    """complete, failures, cancelled or stopped; empty until nothing is left to render."""
    ending: str
    """cancelled or stopped while a job ends early, else empty."""
    reason: str
    paused: bool
    priority: int
    run: int
    total: int
    left: int
    done: int
    failed: int
    flagged: int
    """Done and kept, but doubted: one flat colour."""
    shards: int
    shards_ready: int
    shards_leased: int
    created: float
    started: float
    ended: float
    """When nothing was left to render."""
    finished: float
    images_per_second: float
    output: str
    model: str
    held: int
    """Images of the manifest that the output held already, so that they are not in the job."""
    refusals: Mapping[str, str]
    """Workers that do not take the job, and why."""
    workers: Sequence[str]
    """Workers that hold a shard of it now."""
    notices: Mapping[str, str]
    """What those workers wait for, when they do: a full disk."""
    broken: Mapping[int, str]
    """Shards that cannot be read, and why; their images are left."""

    @property
    def eta_seconds(self) -> float | None:
        """Seconds until the last image at the present rate; None when there is none to tell from."""
        if self.state == "finished" or self.images_per_second <= 0:
            return None
        return self.left / self.images_per_second


class Bits:
    """One bit for each image of a job, by its index; `bytes` of it are as Redis' SETBIT leaves them."""

    def __init__(self, bits: bytes = b"") -> None:
        self._bits = bytearray(bits)

    def __getitem__(self, index: int) -> bool:
        return index // 8 < len(self._bits) and bool(self._bits[index // 8] & 128 >> index % 8)

    def __bytes__(self) -> bytes:
        return bytes(self._bits)

    def turn(self, index: int) -> bool:
        """Sets the bit; whether it was 0."""
        if self[index]:
            return False
        if index // 8 >= len(self._bits):
            self._bits.extend(bytes(index // 8 + 1 - len(self._bits)))
        self._bits[index // 8] |= 128 >> index % 8
        return True

    def count(self) -> int:
        """How many are 1."""
        return int.from_bytes(self._bits).bit_count()


@dataclass(frozen=True, slots=True)
class Staged:
    """Shards that were stored for a job that does not hold them yet (`Ledger.stage`)."""

    word: str
    """What stands in place of the job's id in their key."""
    shards: int
    first_waiting: int
    """The number of the first that is to be rendered."""
    waiting: int
    """How many are; their numbers follow one another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """A job that Redis lost, as its output tells of it."""

    staged: Staged
    """All its shards; their word will be its incarnation."""
    total: int
    held: int
    done: Bits
    """Images that the output holds."""
    flagged: Bits
    """Those of them that are doubted."""
    failures: Mapping[int, Mapping[str, Any]]
    """As `LedgerView.failures` tells them."""
