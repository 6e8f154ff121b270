"""What a push did, for people; as JSON its fields are."""

from __future__ import annotations

from dataclasses import dataclass

import click

from jobs.wording import counted
from producer.push.paths import FormName


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """What was pushed, or with `dry_run` would be."""

    output: str
    repository: str
    to: FormName
    private: bool
    images: int
    failed: int
    """Images of the output that could not be rendered."""
    files: int
    bytes: int
    """Of these files; with `dry_run` and parquet, about so many."""
    commits: int
    there: int
    """Files that were there already."""
    removed: int
    dry_run: bool
    notes: tuple[str, ...]


def report(pushed: Pushed) -> None:
    """Prints what was pushed, and what to know of it."""
    would = "would push" if pushed.dry_run else "pushed"
    about = "about " if pushed.dry_run and pushed.to == "parquet" else ""
    kind = "private" if pushed.private else "public"
    parts = [
        f"{pushed.repository} ({kind}): {would} {counted(pushed.files, 'file')}, {about}"
        f"{_size(pushed.bytes)}, in {counted(pushed.commits, 'commit')}",
        f"{counted(pushed.there, 'file')} there already",
        counted(pushed.images, "image"),
    ]
    if pushed.removed:
        parts.append(f"{counted(pushed.removed, 'file')} removed")
    if pushed.failed:
        parts.append(f"{pushed.failed:,} failed")
    click.echo("; ".join(parts))
    for note in pushed.notes:
        click.echo(f"note: {note}")


def _size(size: int) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"
