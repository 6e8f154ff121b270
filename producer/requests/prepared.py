"""A checked manifest: errors in it, its model or its latents are raised before anything else is done."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from jobs.entry import Entry
from jobs.errors import ManifestError, OutputError
from jobs.models.models import ModelRef
from jobs.output.card import is_pattern
from jobs.output.job_files import JobFiles, next_job_number
from jobs.output.output import Output
from jobs.output.output_root import check_output_within
from jobs.settings import Settings
from producer.bucket_files.object_copies import named
from producer.manifest.jpeg_check import check_jpegs
from producer.manifest.latents import gather_latents
from producer.manifest.manifest import Manifest, load_manifest
from producer.manifest.path_names import PathNames
from producer.manifest.picture_files import check_pictures
from producer.manifest.pinned_loras import with_lora_commits
from producer.manifest.pipeline_check import check_pipeline
from producer.prompt_files.reading import Reading
from producer.requests.expand import Identified, Repeats, identify, narrowed
from producer.requests.input_files import InputFiles
from producer.requests.shard_size import ShardSize, shard_size


@dataclass(frozen=True, slots=True)
class Prepared:
    """A manifest that was checked; its prompt files have not been read yet."""

    manifest: Manifest
    model: ModelRef
    latents: dict[str, str]
    """Each file of initial latents -> the SHA-256 of its contents."""
    inputs: InputFiles
    """The pictures and adapters that lines name, as far as they were read."""
    output: Output
    limit: int | None
    sample: int | None
    folder: Path
    """The manifest's own, absolute."""
    remark: str = ""
    """What people should know before they look at the pictures; empty when there is nothing."""

    @property
    def pinned(self) -> Manifest:
        """The manifest with the revision that its model has now, and with the model's defaults for what it
        leaves open: as it is kept and compared."""
        return self.manifest.pinned(self.model)

    def referenced(self, entries: Iterable[Entry]) -> dict[str, str]:
        """The files of entries that are to be rendered and that the output is not to keep: SHA-256 ->
        absolute path. Those that it is to keep are marked."""
        if not self.inputs.some:
            return {}
        hashes = dict.fromkeys(chain.from_iterable(entry.inputs for entry in entries))
        if self.manifest.inputs == "copy":
            self.inputs.want(hashes)
            return {}
        found = {sha256: self.inputs.path_of(sha256) for sha256 in hashes}
        paths = {sha256: path for sha256, path in found.items() if path is not None}
        far = next((place for path in paths.values() if (place := named(path)) != path), None)
        if far is not None:
            raise ManifestError(
                f"inputs: reference, and {far} is in a bucket, of which workers read nothing: leave `inputs` "
                "out, so that the output keeps its files"
            )
        return paths

    def shard_size(self, below: int | None = None) -> ShardSize:
        """How many pictures the job's shards get. `below` and errors as of `shard_size`."""
        manifest = self.manifest
        most = (manifest.pictures_a_shard, manifest.bytes_a_shard)
        return shard_size(self.output, most, manifest.image_format, below)

    @property
    def narrowed(self) -> str:
        """The option that narrows the submission, as it was given; empty without one."""
        if self.limit is not None:
            return f"--limit {self.limit}"
        return f"--sample {self.sample}" if self.sample is not None else ""

    def entries(
        self,
        on_duplicate: Callable[[Entry], None] | None = None,
        reading: Reading | None = None,
        repeats: Repeats | None = None,
    ) -> Iterable[Identified]:
        """The requests of the submission, in order; with `repeats` its lines, as `identify` gives them.

        `reading` records what the prompt files held. Raises ManifestError for what is wrong in them.
        """
        entries = identify(
            self.manifest,
            self.model,
            on_duplicate,
            latents=self.latents,
            reading=reading,
            repeats=repeats,
            inputs=self.inputs,
        )
        return narrowed(entries, self.limit, self.sample, self.manifest.name)


def prepare(
    path: Path, settings: Settings, *, limit: int | None = None, sample: int | None = None
) -> Prepared:
    """Reads and checks a manifest, its model and its latents; writes nothing. Raises ImagemillError."""
    manifest = with_lora_commits(load_manifest(path))
    model = manifest.resolve_model()
    check_pipeline(manifest, model)
    check_jpegs(manifest, model)
    check_pictures(manifest)
    latents = gather_latents(manifest, model)
    output = Output.at(manifest.output)
    if settings.output_root is not None:
        check_output_within(output, settings.output_root)
    folder = path.parent.absolute()
    remarks = [model.remark, other_size(manifest, model), other_defaults(manifest, model, output, folder)]
    if not output.in_bucket and is_pattern(output.path):
        remarks.append(
            f"output {output.path}: `load_dataset` takes * ? [ in a path for a pattern: name a folder "
            "without them, or load it as its card says"
        )
    remark = "; ".join(remark for remark in remarks if remark)
    return Prepared(manifest, model, latents, InputFiles(), output, limit, sample, folder, remark)


def other_size(manifest: Manifest, model: ModelRef) -> str:
    """That the model was trained for another size than the one that the manifest leaves to it; else empty."""
    left_open = {"height", "width"} & (manifest.settings.left_open() - manifest.sweep.swept().keys())
    if model.trained_size is None or not left_open:
        return ""
    height, width = model.trained_size
    return (
        f"{model.label} was trained for {height}x{width}, and gets {model.defaults.height}x"
        f"{model.defaults.width}: give height and width in `settings`"
    )


def other_defaults(manifest: Manifest, model: ModelRef, output: Output, folder: Path) -> str:
    """Which settings the manifest leaves open and its last submission to the output had with other values,
    with the remedy; empty when there are none. Without this, pictures would be rendered again silently.

    `folder`: the manifest's own.
    """
    try:
        job_id = f"{manifest.name}-{next_job_number(output, manifest.name) - 1}"
        kept = output.read_json(JobFiles(output, job_id).manifest)
        same = kept["model"] in (manifest.model, PathNames(folder).of_model(manifest.model))
        then = kept["settings"] if same else {}
        left_open = manifest.settings.left_open() - manifest.sweep.swept().keys()
        changed = [
            f"{name} = {now} (was {then[name]})"
            for name, now in manifest.settings.of_images(model.defaults).items()
            if name in left_open and name in then and then[name] != now
        ]
    except (OSError, OutputError, ValueError, KeyError, TypeError):
        return ""
    if not changed:
        return ""
    return (
        f"the model's own settings differ from those of {job_id}: {', '.join(changed)}; give the former ones"
        " in `settings` to keep its pictures"
    )
