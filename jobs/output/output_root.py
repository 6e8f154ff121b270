"""Whether an output lies below IMAGEMILL_OUTPUT_ROOT, where workers write alone.

Each worker asks before it writes: a manifest may name any folder, and what is a link may lead anywhere.
"""

from __future__ import annotations

import os
from pathlib import Path

from jobs.errors import OutputError
from jobs.location import BucketPlace, NoLocation, names_bucket
from jobs.output.output import Output


def check_output_within(output: Output, root: Path | str) -> None:
    """Raises OutputError where the output is neither `root` nor below it.

    `root`: a folder or a place in a bucket. Of folders symbolic links are resolved, also those in what
    imagemill keeps in the output.
    """
    if names_bucket(str(root)) or output.in_bucket:
        _check_place(output, str(root))
        return
    for folder in (output.path, output.private):
        check_path_within(folder, Path(root))
    for folder in (output.private, output.spool):
        try:
            links = [entry for entry in folder.iterdir() if entry.is_symlink()] if folder.is_dir() else []
        except OSError as error:
            raise OutputError(
                f"output {output.path} cannot be read ({error.strerror}: {error.filename}): make it "
                "readable for this user, or name another output"
            ) from None
        for link in links:
            check_path_within(link, Path(root))


def check_path_within(path: Path, root: Path) -> Path:
    """The path with its symbolic links resolved, which is `root` or below it.

    Raises OutputError where it is not, or cannot be a path. Neither needs to exist.
    """
    try:
        real, real_root = path.resolve(), root.resolve()
        os.fsencode(real)
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a NUL, half of a surrogate pair
        raise OutputError(f"output {str(path)!r} cannot be a path ({error}): name another output") from None
    if real != real_root and real_root not in real.parents:
        raise OutputError(
            f"output {path}{'' if real == path else f' (really {real})'} lies outside "
            f"IMAGEMILL_OUTPUT_ROOT = {real_root}: "
            "name a folder below it, or start the workers with another IMAGEMILL_OUTPUT_ROOT"
        )
    return real


def _check_place(output: Output, root: str) -> None:
    within = False
    if output.in_bucket and names_bucket(root):
        try:
            within = BucketPlace.parse(output.label).is_within(BucketPlace.parse(root))
        except NoLocation as error:
            raise OutputError(f"IMAGEMILL_OUTPUT_ROOT = {root}: {error}") from None
    if not within:
        raise OutputError(
            f"output {output.label} lies outside IMAGEMILL_OUTPUT_ROOT = {root}: name an output below it, "
            "or start the workers with another IMAGEMILL_OUTPUT_ROOT, which takes a folder or "
            "s3://BUCKET/PREFIX"
        )
