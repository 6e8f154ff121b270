"""Values in objects of a row, named by their path: `data.prompt` is `prompt` in the object `data`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from jobs.errors import ManifestError


class Paths:
    """The paths of a source; an object that none of them leads into stays as it is."""

    def __init__(self, named: Iterable[str], fields: Iterable[str]) -> None:
        """`named`: what the source names in its files. `fields`: names that are no objects, or are
        taken whole."""
        self._named = frozenset(named)
        self._into = frozenset(
            path[:at] for path in self._named for at, one in enumerate(path) if one == "." and at > 0
        ) - frozenset(fields)

    def __bool__(self) -> bool:
        return bool(self._into)

    def into(self, path: str) -> bool:
        """Whether an object there is opened."""
        return path in self._into

    def whole(self, path: str) -> bool:
        """Whether what is there is named itself."""
        return path in self._named

    def opened(self, row: Mapping[str, Any]) -> dict[str, Any] | ManifestError:
        """The row with a value at each path in place of its objects, or what is wrong with them.

        All that an opened object holds is in the row, unless the object itself is named. A name with a dot is
        a name like any other; one that is a path too, in the same row, is refused.
        """
        found: dict[str, Any] = {}
        try:
            self._put_all("", row, found, around_named=False)
        except ManifestError as error:
            return error
        return found

    def _put_all(
        self, around: str, values: Mapping[str, Any], found: dict[str, Any], *, around_named: bool
    ) -> None:
        for key, value in values.items():
            path = f"{around}{key}"
            named = path in self._named
            if path not in self._into:
                if named or not around_named:
                    self._put(path, value, found)
            elif value is None or isinstance(value, dict):
                if named:
                    self._put(path, value, found)
                # null stands for an object without anything.
                self._put_all(f"{path}.", value or {}, found, around_named=named or around_named)
            elif any(name.startswith(f"{path}.") for name in values):
                self._put(path, value, found)
            else:
                below = min(name for name in self._named if name.startswith(f"{path}."))
                raise ManifestError(f"{path}: is no object, and the manifest names {below} in it")

    def _put(self, path: str, value: Any, found: dict[str, Any]) -> None:
        if path in found:
            raise ManifestError(f"{path}: is a name in this row and a path too: rename one")
        found[path] = value
