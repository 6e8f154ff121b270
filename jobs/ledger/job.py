"""What the ledger knows about a job: its settings, its submission, the claims on it, and its status."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jobs.location import names_bucket

if TYPE_CHECKING:
    # What it imports takes as long as a status of 500 jobs.
    from jobs.output.stored_shard import LayoutName

LeaseState = Literal["held", "lost", "ending"]
"""The answer to a renewal. lost: another attempt has the lease; ending: it is held, its job ends early."""

Controlled = Literal["ok", "ended", "dropped"]
"""What became of a job that was steered. ended: at once, since no worker can write its report; dropped:
nothing is left of it in Redis, since it could not be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """What a worker must know about a job besides its shards; fixed when the job is created."""

    manifest: Mapping[str, Any]
    """The manifest without its prompts, which are in the shards; job.json has it where the output's own copy
    is gone, so it names no folders."""
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
    """Every user column of the manifest: all records of a dataset have the same keys."""
    shard_size: int
    priority: int
    max_failures: int | None
    retention: int
    """Seconds that the finished job stays in Redis."""
    mode: Literal["exact", "fast"] = "exact"
    """exact: an image's bytes follow from its request. fast: they may differ in a bit, and it ends sooner."""
    layout: LayoutName = "files"
    """How its shards are stored in the output: `jobs.output`."""
    narrowed: str = ""
    """How the submission was narrowed: "--limit 10", or nothing."""
    further_models: Sequence[Sequence[str]] = ()
    """Role, model and revision of each model that works beside its own, in their order: ControlNets."""
    shard_bytes: int = 0
    """Bytes of a shard's pictures at most, by estimate; 0: as many as `shard_size` pictures take."""

    def __post_init__(self) -> None:
        if not (names_bucket(self.output) or Path(self.output).is_absolute()):
            raise ValueError(f"output {self.output!r}: must be absolute, or in a bucket")

    @property
    def pipeline(self) -> str:
        """Model, revision, precision and further models as one key: what a worker must have loaded."""
        further = [list(map(list, self.further_models))] if self.further_models else []
        return json.dumps([self.model, self.revision, self.precision, *further])

    def to_mapping(self) -> dict[str, Any]:
        """As JSON values, without what a job of an earlier version cannot have."""
        mapping = asdict(self)
        if not self.further_models:
            del mapping["further_models"]
        if not self.shard_bytes:
            del mapping["shard_bytes"]
        return mapping


@dataclass(frozen=True, slots=True)
class SlotsKey:
    """What the best number of slots depends on."""

    device: str
    """The kind of device: a GPU's name, a CPU's instructions and threads."""
    precision: str
    """Never auto."""
    revision: str
    """The model's revision."""
    height: int
    width: int

    @property
    def kind(self) -> str:
        """What an image's bytes depend on besides its request, the number of slots and the versions."""
        return f"{self.device} in {self.precision}"

    @property
    def of_picture(self) -> str:
        """The size of a picture."""
        return f"{self.height}x{self.width}"

    @property
    def remembered(self) -> str:
        """The field under which a measurement is remembered."""
        return json.dumps([self.device, self.precision, self.revision, self.height, self.width])


@dataclass(frozen=True, slots=True)
class Submission:
    """How far the submission of a job has come; what `add` needs to continue it."""

    incarnation: str
    state: str
    cursor: int
    """How many lines of the expanded manifest are in the ledger."""
    images: int
    shards: int
    first_shard: int
    """The number of its first shard; -1 if there is none yet."""


@dataclass(frozen=True, slots=True)
class NewShard:
    """A shard that is stored for the first time."""

    number: int
    images: int
    blob: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Addition:
    """The next shards of a submission, and how far it has come with them."""

    cursor: int
    """How many lines of the expanded manifest are in the ledger before it."""
    new_cursor: int
    """And after it."""
    held: int = 0
    """Lines between the two that the output has already, so that no shard has them."""
    seal: bool
    """Whether they are the last."""
    shards: Sequence[NewShard]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerState:
    """What decides which shard suits a worker that asks for one."""

    loaded: str = ""
    """The `JobSpec.pipeline` that it has loaded; "" for none."""
    idle_ms: int = 0
    """Milliseconds since it last had work for that."""
    load_ms: int = 0
    """Milliseconds that it takes to load one."""
    models: Sequence[str] = ()
    """Those that it renders; empty for any."""


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
    """Images, by index in the job, that are rendered alone because a worker may have died of them."""
    all_suspect: bool = False
    """Whether all images of the shard are suspects; for a finishing, whether workers died of it."""
    condemned: frozenset[int] = frozenset()
    """Images, by index in the job, that are not rendered again: workers died of them alone."""

    @property
    def fence(self) -> Fence:
        """What keeps later calls out once another attempt holds the shard."""
        return Fence(self.job_id, self.incarnation, self.shard, self.attempt)


@dataclass(frozen=True, slots=True)
class Outlook:
    """What may still come to the workers of a host. The counts are whole only if nothing is left."""

    left: bool
    """Whether a job may give them a shard or its finishing, now or when the leases of others run out."""
    growth: int
    """A number that changes as long as jobs that have no shard yet are being submitted."""
    open: int
    """How many jobs have no shard to render, and no end of their submission yet."""
    paused: int
    """How many jobs that they would take are paused."""
    refused: int
    """How many unfinished jobs all of them have refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    """A job as Redis holds it. Times are seconds since 1970, 0.0 for what has not happened yet."""

    job_id: str
    state: Literal["open", "sealed", "finishing", "finished"]
    """open: still being submitted; sealed: all shards are stored; finishing: nothing is left to render."""
    outcome: str
    """complete, failures, cancelled or stopped; empty while something is left to render."""
    ending: str
    """cancelled or stopped if the job ends early, else empty."""
    reason: str
    paused: bool
    priority: int
    run: int
    total: int
    left: int
    done: int
    failed: int
    flagged: int
    """Done and kept, but doubted: the picture is one flat colour."""
    cut: int = 0
    """Done, but with a prompt longer than the model's window; counted when the job is finished."""
    shards: int
    shards_ready: int
    shards_leased: int
    created: float
    started: float
    ended: float
    """When nothing was left to render."""
    finished: float
    last_moved: float = 0.0
    """When something of it was claimed or rendered last, or it began to wait."""
    images_per_second: float
    output: str
    model: str
    held: int
    """Images of the manifest that the output held before, so that they are not in the job."""
    refusals: Mapping[str, str]
    """Worker -> why it does not take the job now."""
    refused_by: Mapping[str, str] = field(default_factory=dict)
    """Worker -> why it did not take the job, also where it may try again: it has rendered nothing since."""
    workers: Sequence[str]
    """Workers that hold one of its shards now."""
    notices: Mapping[str, str]
    """Worker -> what it waits for, such as room on a full disk."""
    loading: Mapping[str, str]
    """Worker -> what it does to load the model: "downloading org/m: 3 of 12 files, 4.1 of 23.8 GB, 41 s"."""
    broken: Mapping[int, str]
    """Shard that cannot be read -> why; its images count as left."""
    trouble: str = ""
    """What is wrong with the job's keys in Redis, and the command that leads out; empty as a rule."""

    @property
    def eta_seconds(self) -> float | None:
        """Seconds until the last image at the present rate; None if there is no rate yet, and for a job that
        is paused, all of whose workers wait, or that ends without its last image."""
        if self.state == "finished" or self.paused or self.ending or self.images_per_second <= 0:
            return None
        if self.workers and all(name in self.notices for name in self.workers):
            return None
        return self.left / self.images_per_second


@dataclass(frozen=True, slots=True)
class UnreadableJob:
    """A job whose keys are damaged, or are of another version."""

    job_id: str
    reason: str
    """What cannot be read, and the command that leads out."""


class Bits:
    """One bit for each image of a job, by its index; `bytes(bits)` has the order of Redis' SETBIT."""

    def __init__(self, bits: bytes = b"") -> None:
        self._bits = bytearray(bits)

    def __getitem__(self, index: int) -> bool:
        return index // 8 < len(self._bits) and bool(self._bits[index // 8] & 128 >> index % 8)

    def __bytes__(self) -> bytes:
        return bytes(self._bits)

    def turn(self, index: int) -> bool:
        """Sets the bit; returns whether it was 0."""
        if self[index]:
            return False
        if index // 8 >= len(self._bits):
            self._bits.extend(bytes(index // 8 + 1 - len(self._bits)))
        self._bits[index // 8] |= 128 >> index % 8
        return True

    def count(self) -> int:
        """How many bits are 1."""
        return int.from_bytes(self._bits).bit_count()


@dataclass(frozen=True, slots=True)
class Staged:
    """Shards that are stored for a job but are not yet part of it (`Ledger.stage`)."""

    word: str
    """The random word that their key has in place of the job's id."""
    shards: int
    first_waiting: int
    """The number of the first shard that is to be rendered."""
    waiting: int
    """How many are to be rendered; their numbers are consecutive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """A job that Redis lost, as its output shows it."""

    staged: Staged
    """All its shards; their word becomes its incarnation."""
    total: int
    held: int
    done: bytes
    """The `Bits` of images that the output holds."""
    flagged: bytes
    """The `Bits` of those of `done` that are doubted."""
    failures: Mapping[int, str]
    """By `failures_as_json`."""


def failures_as_json(failed: Mapping[int, Mapping[str, Any]]) -> dict[int, str]:
    """Failures as Redis keeps them: image -> JSON."""
    return {image: json.dumps(failure, ensure_ascii=False) for image, failure in failed.items()}
