"""Why images cannot share forwards."""

from __future__ import annotations


class CannotShare(Exception):
    """Calls of images cannot share forwards."""

    def __init__(self, what: str) -> None:
        """what: the reason; the message adds what can be done for an image whose call it is."""
        super().__init__(f"{what}: leave out the `arguments` that ask for it, or report it")
        self.what = what


class Unlearnable(CannotShare):
    """What the slots of a call are cannot be said."""


class UnknownCall(CannotShare):
    """A call holds something that no call did from which the rules were learned."""


class Refused(CannotShare):
    """The pipeline changes something that the images of a forward share."""
