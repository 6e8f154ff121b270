"""The pictures that a sweep names: which files they are, and what there is to say of those that are used."""

from __future__ import annotations

from itertools import product

from jobs.pipelines.pipeline_task import TASK_PICTURES
from jobs.request import ImageRequest
from producer.manifest.manifest import Manifest
from producer.manifest.picture_files import NAMES, Noted, PictureFiles
from producer.requests.input_files import InputFiles


class SweptPictures:
    """Finds the files of a sweep's combinations, and counts each file that there is something to say of."""

    def __init__(self, manifest: Manifest, files: InputFiles) -> None:
        """`files` hashes them. Raises ManifestError for one that cannot be used."""
        swept, found = manifest.sweep.swept(), PictureFiles.of(manifest)
        files_of = {
            name: [found.found({name: text}, {})[name] for text in swept[name]]
            for name in NAMES
            if name in swept
        }
        self._headers = {name: dict(several) for name, several in files_of.items()}
        paths = {name: tuple(path for path, _ in several) for name, several in files_of.items()}
        tried = {**swept, **paths}
        self._named = [dict(zip(tried, values, strict=True)) for values in product(*tried.values())]
        self.combinations = [files.hashed(values) if paths else values for values in self._named]
        """Every combination of the sweep, with the hash of each picture."""
        self.noted = Noted()
        """What there is to say of the pictures of requests so far, each counted once."""
        self._told = set[tuple[str, ...]]()

    def note(self, number: int, request: ImageRequest) -> None:
        """Takes in what there is to say of a combination's pictures at the size of a request."""
        size = (request.height, request.width)
        for name, headers in self._headers.items():
            path = self._named[number][name]
            header = headers[path]
            self.noted.transparent += header.transparent and self._first("transparent", path)
            self.noted.animated += header.animated and self._first("animated", path)
            other = name in TASK_PICTURES and (header.height, header.width) != size
            if other and self._first("fitted", path, request.fit):
                self.noted.fitted[request.fit] += 1

    def _first(self, *what: str) -> bool:
        before = len(self._told)
        self._told.add(what)
        return len(self._told) > before
