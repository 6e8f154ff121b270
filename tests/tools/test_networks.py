from __future__ import annotations

import random

from tools.shapes.draw import draw_crowd
from tools.shapes.networks import to_images, to_tensor


def test_pictures_become_tensors_and_pictures_again_bit_for_bit() -> None:
    picture = draw_crowd(random.Random(0))
    assert to_images(to_tensor([picture]))[0].tobytes() == picture.tobytes()
