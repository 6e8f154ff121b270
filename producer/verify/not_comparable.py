"""An image that cannot be compared."""

from __future__ import annotations


class NotComparable(Exception):
    """An image cannot be rendered again, or not be compared; the message is why, and the remedy."""
