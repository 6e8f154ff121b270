"""The commented manifest that `imagemill init` gives to a newcomer."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from jobs.errors import ManifestError


def starter_text() -> str:
    """The YAML text of the manifest, a packaged example: 8 pictures by the built-in model `shapes`."""
    return (resources.files("jobs.examples") / "starter.yaml").read_text("utf-8")


def write_starter(file: Path) -> None:
    """Writes the manifest to a new file. Raises ManifestError where there is one already."""
    try:
        with file.open("x", encoding="utf-8") as stream:
            stream.write(starter_text())
    except FileExistsError:
        raise ManifestError(f"{file}: exists already, and is not overwritten: give another name") from None
    except OSError as error:
        raise ManifestError(f"{file}: cannot be written: {error.strerror}") from None
