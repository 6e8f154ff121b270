"""The request of a record, as far as the record still tells it exactly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobs.output.metadata import request_of_record
from jobs.output.picture_file import read_picture
from jobs.request import IMAGE_SETTINGS, ImageRequest
from jobs.wording import shortened, some
from producer.verify.not_comparable import NotComparable


def request_asked(record: Mapping[str, Any]) -> ImageRequest:
    """The request that the record says, with its image_id. Raises NotComparable; OtherId for a record
    whose settings give another image_id."""
    try:
        request = request_of_record(record)
        image_id = request.image_id
    except (KeyError, TypeError, ValueError) as error:
        raise NotComparable(
            f"its settings make no request ({error}): `imagemill doctor` looks into it"
        ) from None
    for name, setting in IMAGE_SETTINGS.items():
        value = getattr(request, name)
        if not setting.is_right(value):
            told = shortened(repr(value))
            raise NotComparable(f"its line says {name} = {told}, which must be {setting.words}")
    if image_id != record["image_id"]:
        raise OtherId(request)
    return request


class OtherId(NotComparable):
    """The settings of a record give another image_id than it says."""

    def __init__(self, request: ImageRequest) -> None:
        super().__init__(f"its settings give image_id {request.image_id}")
        self.request = request

    def told_by(self, picture: bytes | None) -> NotComparable:
        """The same with the settings that differ in the request that the picture's file holds."""
        return NotComparable(f"{self}: its line was changed, {self._settings(picture)}")

    def _settings(self, picture: bytes | None) -> str:
        try:
            held = None if picture is None else read_picture(picture).request
        except ValueError:
            held = None
        if held is None:
            return "and its picture holds no request that says in which setting"
        said, own = self.request.to_mapping(), held.to_mapping()
        others = [
            f"{name} is {shortened(repr(said[name]))} there and {shortened(repr(own[name]))} in its picture"
            for name in said
            if said[name] != own[name]
        ]
        return some(others) if others else "or an earlier version wrote it, whose ids followed from less"
