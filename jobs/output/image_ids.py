"""A set of image ids, for outputs of millions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set

from jobs.output.compact_counter import CompactCounter


class ImageIds(Set[str]):
    """Ids of images, each 16 hex digits: 11 bytes for each where a set takes 100."""

    def __init__(self, ids: Iterable[str] = ()) -> None:
        self._tally, self._count = CompactCounter(), 0
        for image_id in ids:
            self._count += self._tally.mark(int(image_id, 16), 1) == 0

    def __contains__(self, image_id: object) -> bool:
        return isinstance(image_id, str) and self._tally.get(int(image_id, 16)) > 0

    def __iter__(self) -> Iterator[str]:
        return (f"{key:016x}" for key in self._tally)

    def __len__(self) -> int:
        return self._count
