"""Servers of tests that run while a `with` block does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Started(ABC):
    """Starts with its block, and stops however that ends."""

    @abstractmethod
    def start(self) -> None:
        """Starts it; returns when it can be used."""

    @abstractmethod
    def stop(self) -> None:
        """Ends it, whatever state it is in."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
