"""Takes the pictures of the pages that the documents show: `python -m tools.screenshots FOLDER`.

A real worker renders jobs of the built-in model into FOLDER. The pictures name it, so it should be one such
as /srv/mill. Two prompts of the job that is shown fail, as in the tests. Look at each picture afterwards.
"""

from __future__ import annotations

import argparse
import io
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from PIL import Image
from playwright.sync_api import Browser, Page

from jobs.settings import Settings
from producer.embedded_redis import EmbeddedRedis
from producer.serve.opened import site_of
from producer.serve.server import listen, serving
from tests.browser import chromium, visiting
from tests.farm import Farm
from tests.trouble import TROUBLED
from tests.waiting import wait_until

DOCUMENTS: Final = Path(__file__).resolve().parent.parent / "docs"
COLOURS: Final = ("red", "orange", "yellow", "green", "blue", "purple")
SHAPES: Final = ("star", "heart", "circle", "triangle", "square", "cross")
GROUNDS: Final = ("sky", "white", "mint", "pink", "lavender")
DRAWN: Final = (
    "() => [...document.images].every((one) => one.complete || one.getBoundingClientRect().top > innerHeight)"
)
SETTINGS: Final = {"num_inference_steps": 20, "guidance_scale": 3, "scheduler": "DDIM"}


def scenes() -> Iterator[str]:
    """Prompts that the built-in model follows, each another one."""
    for round_, number in itertools.product(range(12), range(30)):
        colour, shape = COLOURS[(number + round_) % 6], SHAPES[(2 * number + number // 6 + round_) % 6]
        other, form = COLOURS[(number + 3) % 6], SHAPES[(number + 2) % 6]
        ground = GROUNDS[(number + round_) % 5]
        article = "an" if colour == "orange" else "a"
        yield (
            f"{article} {colour} {shape} in the middle on a {ground} background",
            f"two {colour} {shape}s on a {ground} background".replace("crosss", "crosses"),
            f"{article} {colour} {shape} at the left and {'an' if other == 'orange' else 'a'} {other} {form} "
            f"at the right on a {ground} background",
        )[number % 3]


@contextmanager
def shot(browser: Browser, name: str, width: int, height: int, *, dark: bool = False) -> Iterator[Page]:
    """A page to be gone to; what it shows in the end is docs/NAME.png."""
    with visiting(browser, width=width, height=height, dark=dark) as visit:
        yield visit.page
        visit.page.wait_for_load_state("networkidle")
        visit.page.wait_for_function(DRAWN)
        picture = Image.open(io.BytesIO(visit.page.screenshot())).convert("RGB")
        picture.quantize(256, dither=Image.Dither.NONE).save(DOCUMENTS / f"{name}.png", optimize=True)


def take(browser: Browser, address: str, farm: Farm, job_id: str) -> None:
    """All pictures, while a job renders."""
    wait_for(farm, lambda: farm.status(job_id).done > 60 and farm.status(job_id).images_per_second)
    with shot(browser, "job", 1100, 1071, dark=True) as page:
        page.goto(f"{address}/jobs/{job_id}")
    with shot(browser, "jobs", 1100, 760) as page:
        page.goto(address)
    with shot(browser, "gallery", 1280, 860) as page:
        page.goto(address)
        page.get_by_role("listitem").filter(has_text=job_id).get_by_text("pictures").click()
        page.locator(".jump").wait_for()
    with shot(browser, "picture", 1280, 900) as page:
        page.goto(address)
        page.get_by_role("listitem").filter(has_text=job_id).get_by_text("pictures").click()
        page.locator(".tile a").nth(1).click()
        page.locator(".whole img").wait_for()


def wait_for(farm: Farm, enough: Callable[[], object]) -> None:
    """Waits until there is enough to be seen."""
    wait_until(enough, "a job renders", progress=lambda: farm.log("mill"))


def main() -> None:
    """Renders, looks, and writes docs/*.png."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where the jobs write; must be empty")
    folder = parser.parse_args().folder.absolute()
    folder.mkdir(parents=True)
    prompts: list[object] = [*scenes()]
    with EmbeddedRedis(folder / "redis") as redis:
        farm = Farm(folder, redis)
        environment = farm.environment
        farm.environment = lambda **given: environment(**given) | TROUBLED  # type: ignore[method-assign]

        def submit(name: str, some: list[object], **keys: object) -> str:
            given = {"name": name, "model": "shapes", "output": str(folder / name), "settings": SETTINGS}
            return farm.submit(some, **(given | keys))

        try:
            hearts = submit("hearts", prompts[300:], shard_size=8)
            farm.start_worker("mill", "--batch-size", "16")
            farm.finished(hearts)
            shown = [*prompts[:300]]
            for place in (3, 9):
                shown[place] = f"!nan {shown[place]}"
            job_id = submit("shapes", shown, shard_size=12)
            farm.ledger.control(submit("stars", prompts[:64], shard_size=16), "pause")
            listener = listen("127.0.0.1", 0)
            settings = Settings.model_validate({"redis_url": redis.url})
            with serving(listener, lambda: site_of(settings, [])), chromium() as browser:
                take(browser, listener.url, farm, job_id)
        finally:
            farm.stop()


if __name__ == "__main__":
    main()
