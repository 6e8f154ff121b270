"""A shard's images on their way to disk: each is durable by itself, then all become visible in one step.

With a bucket the spool lies on the machine of one worker, and is not synced: others render what it loses.

    .imagemill/spool/00003/000002-5f3a9c1e/images/000030000.png   000002-5f3a9c1e names the attempt
    .imagemill/spool/00003/000002-5f3a9c1e/metadata/IMAGE_ID.json this file's rename makes it done on disk

The layout commits (`jobs.output`): one step that the system refuses when the shard is there. An attempt
writes only into a folder that it made itself, so a late or paused one can damage nothing. Metadata
files are named by image_id so that a later attempt, even of another job, finds what it can adopt by listing
names.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from jobs.entry import Entry
from jobs.errors import LeaseLost, OutputError
from jobs.file_hash import file_sha256
from jobs.output.durable import fsync_folder, write_atomically
from jobs.output.metadata import Failure, metadata_record
from jobs.output.output import Output
from jobs.output.shard_names import FLAT
from jobs.output.store import Stage, StageClosed
from jobs.output.stored_shard import LayoutName
from jobs.plain_file import MAX_JSON, read_json, read_plain
from worker.encode import SUFFIXES, Pixels, encode
from worker.engine.renderer import RenderedBy
from worker.stage_seconds import SPENT

_PICTURE = re.compile("[0-9]{9,}[.][a-z]+")


@dataclass(frozen=True, slots=True)
class _Saved:
    """One image in the spool, by its metadata file."""

    image_id: str
    file_name: str
    sha256: str
    rendered: Mapping[str, Any]
    flagged: str | None
    prompt_cut: str | None = None

    def to_json(self) -> str:
        """Its metadata file; `prompt_cut` only where there is one, for the versions that do not know it."""
        said = {name: value for name, value in asdict(self).items() if name != "prompt_cut" or value}
        return json.dumps(said, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Committed:
    """What a committed shard holds."""

    image_ids: Sequence[str]
    """In the shard's order."""
    flagged: Sequence[str]
    """The image_ids of doubtful images among them."""
    failures: Sequence[Failure]


def committed_shard(output: Output, shard: int) -> Committed:
    """What another attempt committed. Raises OutputError when its files cannot be read."""
    records = list(output.records(shard))
    return Committed(
        [str(record["image_id"]) for record in records],
        [str(record["image_id"]) for record in records if record.get("flagged") is not None],
        output.shard_failures(shard),
    )


class ShardStore:
    """One attempt's hold on one shard.

    Order of use: `adopt`, then `save` from any number of threads, then, when all have returned, `commit`.

    Every method raises LeaseLost when another attempt committed the shard and removed the spool. OSErrors
    pass as the system gives them and leave no half file: after ENOSPC or EDQUOT the same call may be made
    again once there is space.
    """

    def __init__(
        self,
        output: Output,
        shard: int,
        attempt: str,
        entries: Sequence[Entry],
        *,
        job_id: str,
        column_names: Sequence[str],
        adopt_below: int,
        layout: LayoutName = "files",
        places: Sequence[int] | None = None,
        confirm: Callable[[], None] = lambda: None,
    ) -> None:
        """`column_names`: the user's columns of the whole job. `adopt_below`: the job's first shard number;
        what lies in the spool below it was left by jobs that ended. `places`: the entries' places in what
        the job asks for; None where it does not say. `confirm` raises where the ledger has given the shard
        to others.

        Raises OutputError where this machine cannot commit in `layout`.
        """
        self._output, self._shard, self._entries = output, shard, entries
        self._stored = output.stored(shard, layout)
        self._job_id, self._columns, self._adopt_below = job_id, column_names, adopt_below
        self._places, self._confirm = places, confirm
        self._saved: dict[int, _Saved] = {}
        self._lock = threading.Lock()
        # Of a machine that lost power others render the shard again: nothing here is waited for by them.
        self._synced = not output.in_bucket
        self.folder = output.spool_folder(shard, attempt)
        self._stored.check_writable(output.private)
        with self._held():
            try:
                self._images.mkdir(parents=True)
            except FileExistsError:
                # Attempts never share a folder, even under the same name.
                self.folder = self.folder.with_name(f"{attempt}-{secrets.token_hex(4)}")
                self._images.mkdir(parents=True)
            self._metadata.mkdir()

    @property
    def _images(self) -> Path:
        return self.folder / "images"

    @property
    def _metadata(self) -> Path:
        return self.folder / "metadata"

    def adopt(self) -> list[int]:
        """Take over what earlier attempts finished; the positions, ascending.

        Looked for in the shard's other spool folders and in those of shards below `adopt_below`. An image is
        taken when its image_id is that of a position here and its file has the SHA-256 that its metadata
        says. Everything else there is ignored.
        """
        wanted = {entry.request.image_id: position for position, entry in enumerate(self._entries)}
        for source in self._earlier_attempts():
            for name in _listing(source / "metadata"):
                position = wanted.get(name.removesuffix(".json"))
                if position is not None and position not in self._saved:
                    self._adopt_one(source, name, position)
        return sorted(self._saved)

    def save(
        self,
        position: int,
        pixels: Pixels,
        rendered_by: RenderedBy,
        flagged: str | None = None,
        prompt_cut: str | None = None,
    ) -> None:
        """Encode the image ([H, W, 3]) and make it done on disk.

        `flagged` says what is odd about it, `prompt_cut` what the model got nothing of. Thread-safe.
        Raises RenderError when the request cannot be written in its format.
        """
        request = self._entries[position].request
        with SPENT.timed("encode"):
            data = encode(pixels, request)
        with SPENT.timed("write"):
            file_name = self._file_name(position)
            digest = hashlib.sha256(data).hexdigest()
            saved = _Saved(request.image_id, file_name, digest, asdict(rendered_by), flagged, prompt_cut)
            with self._held():
                write_atomically(self._images / file_name, data, synced=self._synced)
            self._record(position, saved)

    def flagged(self) -> set[int]:
        """The positions of images that are done but doubtful."""
        with self._lock:
            return {position for position, saved in self._saved.items() if saved.flagged is not None}

    def commit(self, failures: Sequence[Failure]) -> bool:
        """Make the shard appear in the output, whole, and remove its spool.

        False when it is there already: then another attempt committed it and nothing here was used (see
        `committed_shard`). A failure of an image that is done is left out. Raises ValueError when a position
        is neither done nor failed, OutputError when something else stands in the shard's place.
        """
        if self._output.committed(self._shard):
            self._remove_spool()
            return False
        failed = {failure.position: failure for failure in failures if failure.position not in self._saved}
        open_positions = set(range(len(self._entries))) - set(self._saved) - set(failed)
        if open_positions:
            raise ValueError(f"shard {self._shard}: {sorted(open_positions)} are neither done nor failed")
        records = [self._record_of(position) for position in sorted(self._saved)]
        with SPENT.timed("write"), self._held():
            self._remove_strays()
            try:
                own = [failed[position] for position in sorted(failed)]
                stage = Stage(self.folder, f"{FLAT.name(self._shard)}/{self.folder.name}", self._confirm)
                self._stored.commit(self._images, records, own, stage)
            except FileExistsError as error:
                if not self._output.committed(self._shard):
                    raise OutputError(
                        f"{error.filename2 or error.filename} is in the way: it is not a shard that "
                        "imagemill wrote; move it elsewhere"
                    ) from None
                self._remove_spool()
                return False
        self._remove_spool()
        return True

    def _earlier_attempts(self) -> Iterator[Path]:
        own = self.folder.parent
        below = [
            folder
            for name in sorted(_listing(self._output.spool))
            if (number := FLAT.number(name)) is not None
            and number < self._adopt_below
            and (folder := own.with_name(name)) != own
        ]
        for shard_folder in (own, *below):
            for attempt in sorted(_listing(shard_folder)):
                source = shard_folder / attempt
                # A link's target does not belong to this output, and was not checked.
                links = (shard_folder, source, source / "images", source / "metadata")
                if source != self.folder and not any(folder.is_symlink() for folder in links):
                    yield source

    def _adopt_one(self, source: Path, name: str, position: int) -> None:
        saved = _read_saved(source / "metadata" / name)
        if saved is None or saved.image_id != self._entries[position].request.image_id:
            return
        file = source / "images" / saved.file_name
        if file.is_symlink() or not file.is_file():
            return
        own = self._images / self._file_name(position)
        with self._held():
            try:
                os.link(file, own)
            except FileNotFoundError:
                return
            except OSError:
                # A file system without hard links.
                write_atomically(own, read_plain(file), synced=self._synced)
            # Checked only now, on our own file: the earlier attempt may still be writing.
            if file_sha256(own) != saved.sha256:
                own.unlink()
                return
            if self._synced:
                fsync_folder(self._images)
        self._record(position, replace(saved, file_name=own.name))

    def _record(self, position: int, saved: _Saved) -> None:
        data = saved.to_json().encode()
        with self._held():
            write_atomically(self._metadata / f"{saved.image_id}.json", data, synced=self._synced)
        with self._lock:
            self._saved[position] = saved

    def _record_of(self, position: int) -> dict[str, Any]:
        saved = self._saved[position]
        return metadata_record(
            self._entries[position],
            file_name=saved.file_name,
            sha256=saved.sha256,
            job_id=self._job_id,
            rendered=saved.rendered,
            flagged=saved.flagged,
            prompt_cut=saved.prompt_cut,
            column_names=self._columns,
            index=None if self._places is None else self._places[position],
        )

    def _file_name(self, position: int) -> str:
        return self._stored.key(position) + SUFFIXES[self._entries[position].request.image_format]

    def _remove_strays(self) -> None:
        """Remove the pictures of saves that ended before their metadata file was written."""
        expected = {saved.file_name for saved in self._saved.values()}
        for file in self._images.iterdir():
            if file.name not in expected:
                file.unlink()

    def _remove_spool(self) -> None:
        # A late attempt may be writing into its own folder there; what it leaves goes when the job finishes.
        shutil.rmtree(self.folder.parent, ignore_errors=True)

    @contextmanager
    def _held(self) -> Iterator[None]:
        try:
            yield
        except StageClosed as error:
            raise LeaseLost(f"{error.filename}: another job has begun there: {error.strerror}") from None
        except OSError as error:
            if error.errno not in {errno.ENOENT, errno.ESTALE}:
                raise
            # While a spool is being removed, the folder of images may still be there.
            if self._images.exists() and not self._output.committed(self._shard):
                raise
            raise LeaseLost(
                f"shard {self._shard} of {self._output.label}: another attempt committed it and "
                f"removed {self.folder}; its images are in the output"
            ) from None


def _read_saved(file: Path) -> _Saved | None:
    """What the metadata file says; None for anything but a whole one."""
    if file.is_symlink() or not file.is_file():
        return None
    try:
        saved = _Saved(**read_json(file, MAX_JSON))
        RenderedBy(**saved.rendered)
        saved.to_json().encode()
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    texts = (saved.image_id, saved.file_name, saved.sha256)
    sound = all(isinstance(text, str) for text in texts) and _PICTURE.fullmatch(saved.file_name)
    told = isinstance(saved.flagged, str | None) and isinstance(saved.prompt_cut, str | None)
    return saved if sound and told else None


def _listing(folder: Path) -> list[str]:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return [entry.name for entry in folder.iterdir()]
    return []
