"""The pictures of a request, as a pipeline's call takes them, and what is painted laid over the original."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
from PIL.Image import Image

from jobs.bounds import Fit
from jobs.errors import InputError
from jobs.inputs.input_picture import read_picture, read_whole_picture
from jobs.inputs.inputs import Inputs
from jobs.pipelines.pipeline_class import PipelineClass
from jobs.request import ImageRequest


@dataclass(frozen=True, slots=True, eq=False)
class GivenPictures:
    """The pictures of one request."""

    by_setting: Mapping[str, Image]
    """Those of its task, of the size that is painted: `image` and `control_image` in RGB, `mask_image` in
    shades of grey."""
    followed: Image | None
    """What its IP-Adapter follows, in RGB and of its own size: the image encoder's processor fits it."""

    @classmethod
    def of(cls, request: ImageRequest, kind: PipelineClass, inputs: Inputs) -> GivenPictures:
        """Those that the class `kind` paints from, and the IP-Adapter's.

        Raises InputError, and OutputError as `Inputs` does.
        """
        hashes = {setting: getattr(request, setting) for setting in kind.pictures}
        given = {setting: sha256 for setting, sha256 in hashes.items() if sha256 is not None}
        followed = request.ip_adapter_image
        return cls(
            {setting: _read(request, setting, sha256, inputs) for setting, sha256 in given.items()},
            None if followed is None else _read(request, "ip_adapter_image", followed, inputs),
        )

    def arguments(self, kind: PipelineClass, controlnets: int = 1) -> dict[str, Image | list[Image]]:
        """The pictures by the names that the call of `kind` has for them; several ControlNets follow one."""
        followed = {} if self.followed is None else {"ip_adapter_image": self.followed}
        return followed | {
            kind.pictures[setting]: [picture] * controlnets
            if setting == "control_image" and controlnets > 1
            else picture
            for setting, picture in self.by_setting.items()
        }

    def laid_over(self, values: np.ndarray) -> np.ndarray:
        """What was painted [H,W,3], 0..1, over the original, by the mask's shades; all of it without a mask.

        A pipeline decodes what is to be kept from latents as well, and an autoencoder gives no picture back
        as it was.
        """
        mask = self.by_setting.get("mask_image")
        # Where there is no image, the one that a ControlNet follows is painted again within the mask.
        original = self.by_setting.get("image", self.by_setting.get("control_image"))
        if mask is None or original is None:
            return values
        kept, shades = (np.asarray(picture, dtype="float32") / 255 for picture in (original, mask))
        shade = shades[..., None]
        return np.asarray(values * shade + kept * (1 - shade), dtype="float32")


def _read(request: ImageRequest, setting: str, sha256: str, inputs: Inputs) -> Image:
    contents = inputs.contents(sha256)
    try:
        if setting == "ip_adapter_image":
            return read_whole_picture(contents)
        return read_picture(
            contents, request.height, request.width, cast(Fit, request.fit), mask=setting == "mask_image"
        )
    except InputError as error:
        raise InputError(f"{setting}: the file of SHA-256 {sha256} {error}") from None
