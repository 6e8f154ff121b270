"""The initial latents that a manifest names: read, checked at each size that uses them, kept by hash."""

from __future__ import annotations

from itertools import product
from pathlib import Path

from jobs.errors import InputError, LatentsError
from jobs.models.models import ModelRef
from producer.bucket_files.fetched_files import near
from producer.manifest.manifest import Manifest
from producer.manifest.parts import PromptLine


def gather_latents(manifest: Manifest, model: ModelRef, folder: Path | None = None) -> dict[str, str]:
    """Read and check every file of initial latents that `manifest` names: its path -> its SHA-256.

    Each is checked against `model` at the size of every line that uses it; with `folder`, all are kept there
    by their hashes once all are right. Raises LatentsError naming the manifest's line, and OSError for
    `folder`.
    """
    uses: dict[str, dict[tuple[int, int], int]] = {}
    usual, swept = manifest.settings.of_images(model.defaults), manifest.sweep.swept()
    for index, line in enumerate(manifest.prompts):
        if isinstance(line, PromptLine) and line.init_latents is not None:
            own = usual | line.own_settings(manifest.settings)
            for size in product(*(swept.get(side, (own[side],)) for side in ("height", "width"))):
                uses.setdefault(line.init_latents, {}).setdefault(size, index)
    if not uses:
        return {}
    # numpy, which nearly no manifest needs.
    from jobs.inputs.latents import check_latents, latents_sha256, read_latents, write_input

    hashes = {}
    for name, sizes in uses.items():
        index = next(iter(sizes.values()))
        try:
            latents = read_latents(near(name))
            for (height, width), index in sizes.items():  # noqa: B007 - the message below names this line
                check_latents(Path(name), latents, model, height, width)
        except (LatentsError, InputError) as error:
            raise LatentsError(f"{manifest.place('prompts', index, 'init_latents')} = {error}") from None
        hashes[name] = latents_sha256(latents)
    if folder is not None:
        for name in uses:
            if write_input(folder, read_latents(near(name))) != hashes[name]:
                raise LatentsError(f"{name}: changed while it was read: submit again")
    return hashes
