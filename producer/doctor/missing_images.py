"""Images that were asked for and are not there: an output held against the manifests submitted for it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from jobs.errors import ImagemillError, LatentsError, ManifestError
from jobs.file_hash import file_sha256
from jobs.models.models import FurtherRef, ModelRef
from jobs.output.lines import line_key
from jobs.output.output import JOBS, REPORT, Output
from jobs.pipelines.pipeline_class import NO_GUIDANCE
from jobs.plain_file import MAX_JSON, open_plain
from jobs.strict_json import strict_json
from jobs.wording import counted, shown, some
from producer.doctor.findings import Problem
from producer.doctor.soundness import file_problem
from producer.manifest.latents import gather_latents
from producer.manifest.parts import PromptLine
from producer.manifest.path_names import ELSEWHERE, known_paths, with_paths
from producer.manifest.prompt_source import PromptSource
from producer.manifest.source_files import files_of, source_trouble
from producer.manifest.submitted import INPUTS, Change, SubmittedManifest
from producer.manifest.written_pictures import ANY_SUFFIX, fields_of
from producer.prompt_files.reading import Reading
from producer.requests.expand import EqualLine, Identified, Repeats, identify, narrowed
from producer.requests.input_files import InputFiles

_NAMED = 3
"""Images, and files, that are named in one line."""


@dataclass(slots=True)
class Missing:
    """What an output lacks of what was asked for."""

    images: dict[str, int] = field(default_factory=dict)
    """The newest job of each manifest's name -> images it asked for that are neither there nor failed."""
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class There(NamedTuple):
    """What an output has of what was asked for."""

    images: Collection[str]
    """The image_ids of its pictures."""
    failed: Collection[str]
    """Those of images that failed."""
    lines: Collection[int]
    """The keys of its lines."""


@dataclass(slots=True)
class _Tally:
    """One submission, counted."""

    asked: int = 0
    lost: int = 0
    """Images that are neither there nor failed."""
    tried: int = 0
    """Images that failed."""
    unlisted: int = 0
    """Lines of pictures that are there with another id or other columns."""
    named: list[str] = field(default_factory=list)
    """The first of the lost."""
    zero_lost: bool = False
    """Whether a lost one has a guidance_scale of 0."""


def missing_images(output: Output, there: There) -> Missing:
    """What the newest submission of each manifest asked for and is not there.

    A manifest whose files changed since asked for other images than it would now: what it lacks cannot be
    known, and a note says so.
    """
    found = Missing()
    names = _kept_manifests(output)
    if not names:
        found.notes.append("no manifest is kept in .imagemill/jobs: what is missing cannot be known")
    for name in names:
        try:
            job_id, kept = _read(output, name)
        except OSError as error:
            found.problems.append(file_problem(output.named(name), name, error))
            continue
        except (ManifestError, ValueError, TypeError, KeyError) as error:
            what = f"is not a manifest as it was submitted ({shown(str(error).splitlines()[0])})"
            remedy = "submit the manifest again: its newest submission is compared"
            found.problems.append(Problem(kind="report", file=name, what=what, remedy=remedy))
            continue
        try:
            kept = kept.located(known_paths(output.label, kept.manifest.name))
            if kept.manifest.folder is None:
                # The note below says to run doctor there, and all that is named is looked for first.
                kept = replace(kept, manifest=kept.manifest.in_folder(Path.cwd()))
            if _is_elsewhere(kept):
                found.notes.append(
                    f"{name}: what is missing cannot be known here: an output does not tell where the files "
                    "of a manifest lie; run `imagemill doctor` in the manifest's folder, or `imagemill plan "
                    "FILE`"
                )
                continue
            _compare(job_id, name, kept, there, found)
        except (ImagemillError, OSError) as error:  # OSError: a prompt file's name is too long
            found.notes.append(f"{name}: cannot be compared with the output: {error}")
    return found


def _kept_manifests(output: Output) -> list[str]:
    """What the manifest of each name's newest job is called, by name; job.json where none is."""
    newest: dict[str, int] = {}
    for entry in output.store.list(JOBS):
        stem, _, ending = entry.name.rpartition(".")
        name, dash, number = stem.rpartition("-")
        if ending == "json" and dash and number.isdecimal():
            newest[name] = max(newest.get(name, 0), int(number))
    if not newest and output.store.exists(REPORT):
        return [REPORT]
    return sorted(f"{JOBS}/{name}-{number}.json" for name, number in newest.items())


def _is_elsewhere(kept: SubmittedManifest) -> bool:
    """Whether a file of the submission has a name here and no known place."""
    names: list[str] = []

    def noted(name: str) -> str:
        names.append(name)
        return name

    with_paths(kept.to_json(), noted)
    return any(
        name.startswith(ELSEWHERE) or (not Path(name).is_absolute() and not _is_here(name))
        for name in names
        if name not in ("", INPUTS)
    )


def _is_here(name: str) -> bool:
    """Whether a file, a folder or a pattern means something in the current folder."""
    if Path(name).exists() or files_of(PromptSource(file=name)):
        return True
    # Of a picture's name that each line fills in, the folder is known.
    filled_in = bool(fields_of(name)) or name.endswith(ANY_SUFFIX)
    return filled_in and Path(name.partition("{")[0].rpartition("/")[0]).is_dir()


def _read(output: Output, name: str) -> tuple[str, SubmittedManifest]:
    """The job and the manifest in a file of the output, which may be job.json.

    Raises OSError, and for anything else ManifestError, ValueError, TypeError or KeyError.
    """
    text = output.store.read(name, MAX_JSON)
    if name != REPORT:
        return Path(name).stem, SubmittedManifest.parse(text)
    report = strict_json(text)
    return shown(str(report["job_id"])), SubmittedManifest.from_json(report["manifest"])


def _compare(
    job_id: str,
    name: str,
    kept: SubmittedManifest,
    there: There,
    found: Missing,
) -> None:
    """Add to `found` what the submission asked for and is not there. Raises ImagemillError and OSError
    where a file that it names is gone or wrong: its contents at that time are not known."""
    reading = Reading()
    changed = list(_changed(kept))
    inputs = InputFiles()
    tally = _Tally() if changed else _tally(kept, there, reading, inputs)
    if tally.zero_lost:
        # Where a class takes 1 at least, a row's guidance_scale of 0 was read as 1. The class is not kept.
        other = _tally(kept, there, reading, inputs, least_guidance=NO_GUIDANCE)
        tally = other if other.lost < tally.lost else tally
    if kept.files is not None:
        # What was not read just now counts as it was.
        digest = inputs.digest()
        now = {} if digest is None else {INPUTS: digest}
        changed += kept.changed_files({**kept.files, **reading.sha256, **now})
    if changed:
        listed = some([str(change) for change in changed], _NAMED)
        found.notes.append(
            f"{name}: what is missing cannot be known: since {job_id} was submitted, {listed}; "
            "`imagemill submit FILE` renders the difference "
            "(`imagemill plan FILE` shows it)"
        )
        return
    if tally.tried:
        found.notes.append(
            f"{job_id}: {tally.tried} of {counted(tally.asked, 'image')} failed: see failures.jsonl"
        )
    if tally.unlisted:
        found.notes.append(
            f"{job_id}: {counted(tally.unlisted, 'line')} of pictures that are there with another id or "
            "other columns: submit the manifest again, which adds them without a rendering"
        )
    if tally.lost:
        found.images[job_id] = tally.lost
        more = ", …" if tally.lost > _NAMED else ""
        what = (
            f"{tally.lost:,} of {counted(tally.asked, 'image')} are not there: {', '.join(tally.named)}{more}"
        )
        remedy = f"if its job has ended, submit it again, or `imagemill retry {job_id}`"
        found.problems.append(Problem(kind="missing", file=name, what=what, remedy=remedy))


def _tally(
    kept: SubmittedManifest,
    there: There,
    reading: Reading,
    inputs: InputFiles,
    least_guidance: float | None = None,
) -> _Tally:
    """Holds what the submission asked for against what is there. Raises as `_entries` does."""
    tally = _Tally()
    for keyed in _entries(kept, reading, inputs, least_guidance):
        image_id, entry = keyed
        if image_id in there.images and line_key(image_id, entry.id, entry.columns) not in there.lines:
            tally.unlisted += 1
        if type(keyed) is EqualLine:
            continue
        tally.asked += 1
        if image_id in there.failed:
            tally.tried += 1
        elif image_id not in there.images:
            tally.lost += 1
            tally.zero_lost |= entry.request.guidance_scale == 0
            if tally.lost <= _NAMED:
                tally.named.append(f"{image_id} {_shortened(entry.request.prompt)!r}")
    return tally


def _entries(
    kept: SubmittedManifest, reading: Reading, inputs: InputFiles, least_guidance: float | None
) -> Iterable[Identified]:
    """What the submission asked for, by its prompt files and latents as they are now. Raises ImagemillError
    when one of them is gone or wrong."""
    manifest = kept.manifest
    for source in manifest.prompts_from:
        if (trouble := source_trouble(source)) is not None:
            raise ManifestError(f"prompts_from = {source.file}: {trouble}")
    # The revision was settled when it was submitted; image_id depends on nothing else of the model.
    revision, adapter = manifest.revision or "", manifest.ip_adapter
    model = ModelRef(
        manifest.model,
        manifest.model,
        revision,
        None,
        None,
        pipeline=kept.pipeline or None,
        # Of ControlNets and the IP-Adapter, too, image_id depends on the revision and on its scale alone.
        controlnets=tuple(
            FurtherRef(one.model, one.model, one.revision or "", one.scale) for one in manifest.controlnet
        ),
        ip_adapter_ref=None if adapter is None else adapter.kept(kept.files or {}),
        least_guidance=least_guidance,
    )
    entries = identify(
        manifest,
        model,
        latents=gather_latents(manifest, model),
        reading=reading,
        repeats=Repeats(),
        inputs=inputs,
    )
    return narrowed(iter(entries), kept.limit, kept.sample, manifest.name)


def _changed(kept: SubmittedManifest) -> Iterator[Change]:
    """The files of the submission that are not as they were."""
    latents = {line.init_latents for line in kept.manifest.prompts if isinstance(line, PromptLine)}
    for name, sha256 in ({} if kept.files is None else kept.files).items():
        if name == INPUTS:
            continue  # compared once all lines were read
        try:
            now = _latents_sha256(Path(name)) if name in latents else _sha256(Path(name))
        except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: such a name has no file
            yield Change(name, "is gone", is_file=True)
        except OSError as error:
            yield Change(name, f"cannot be read any more ({error.strerror})", is_file=True)
        except LatentsError:
            yield Change(name, "changed", is_file=True)
        else:
            if now != sha256:
                yield Change(name, "changed", is_file=True)


def _sha256(path: Path) -> str:
    """The SHA-256 of the file. Raises OSError, also for what is not a plain file."""
    return file_sha256(path)


def _latents_sha256(path: Path) -> str:
    """The SHA-256 of the initial latents in a file, as `_sha256`. Raises LatentsError when there are none."""
    from jobs.inputs.latents import latents_sha256, read_latents

    open_plain(path).close()  # what is none did not change
    return latents_sha256(read_latents(path))


def _shortened(prompt: str) -> str:
    return prompt if len(prompt) <= 40 else f"{prompt[:39]}…"
