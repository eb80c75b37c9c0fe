"""Made-up data that several test files share."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

from tutored.labels import VOC

settings.register_profile("repeatable", derandomize=True, deadline=None)
if os.environ.get("CI"):
    settings.load_profile("repeatable")
# A shell has commands in the background ignore Ctrl-C, and whatever they start; tests of stopping send it.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

COLOURS = {"cat": (220, 40, 40), "dog": (40, 200, 60), "person": (50, 80, 230), "bus": (230, 210, 30)}
"""Classes of the made-up objects and the RGB colour each is painted in; the background is grey."""

VOC_SPLITS = {
    "train": ("both", "both", "both", "boxes", "boxes", "masks", "masks", "none"),
    "val": ("both", "both", "both", "both"),
}


@pytest.fixture
def small_files() -> Callable[..., AbstractContextManager[None]]:
    """`small_files(size=4096)`: a context in which the system itself cuts files off there, as a full disk does."""

    @contextmanager
    def limited(size: int = 4096) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited


@pytest.fixture(scope="session")
def make_voc() -> Callable[..., Path]:
    """A factory of small VOC data sets: `make_voc(folder, splits=VOC_SPLITS, seed=0) -> folder`.

    `splits` gives each split the kind of its images: "both", "boxes" (no mask), "masks" (no XML) or "none". Image i
    of split S has the id `S_00i`; `ImageSets/Main` and `ImageSets/Segmentation` list the same ids. Each image is
    about 64 x 48 pixels with one to three rectangles in the colour of their class (`COLOURS`) that never overlap
    and keep one pixel from the borders. Boxes and masks fit them to the pixel; the masks' last row is void (255).
    Every image's second object is difficult. The same arguments give the same files.
    """
    return _make_voc


@pytest.fixture(scope="session")
def voc_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made-up VOC data set to read, not to change: train (3 both, 2 boxes, 2 masks, 1 none) and val (4 both).

    Ids are train_000..train_007 and val_000..val_003. See `make_voc`; call that to get one of your own to break.
    """
    return _make_voc(tmp_path_factory.mktemp("voc"))


def _make_voc(folder: Path, splits: Mapping[str, Sequence[str]] = VOC_SPLITS, seed: int = 0) -> Path:
    for name in ("JPEGImages", "Annotations", "SegmentationClass", "ImageSets/Main", "ImageSets/Segmentation"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for split, kinds in splits.items():
        ids = [f"{split}_{index:03d}" for index in range(len(kinds))]
        for sets in ("Main", "Segmentation"):
            (folder / "ImageSets" / sets / f"{split}.txt").write_text("".join(f"{image_id}\n" for image_id in ids))
        for image_id, kind in zip(ids, kinds, strict=True):
            _draw(folder, image_id, kind, random.Random(f"{seed}/{image_id}"))
    return folder


def _draw(folder: Path, image_id: str, kind: str, rng: random.Random) -> None:
    width, height, count = rng.randint(56, 72), rng.randint(44, 52), rng.randint(1, 3)
    image = np.full((height, width, 3), 128, np.uint8)
    mask = np.zeros((height, width), np.uint8)
    mask[-1] = 255
    objects = ""
    column = (width - 2) // count
    for index in range(count):
        name = rng.choice(list(COLOURS))
        x1 = 1 + index * column + rng.randint(0, column // 4)
        x2 = 1 + (index + 1) * column - rng.randint(0, column // 4)
        y1, y2 = rng.randint(1, height // 3), rng.randint(2 * height // 3, height - 1)
        image[y1:y2, x1:x2] = COLOURS[name]
        mask[y1:y2, x1:x2] = VOC.index(name)
        objects += (
            f"<object><name>{name}</name><difficult>{int(index == 1)}</difficult><bndbox>"
            f"<xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        )
    Image.fromarray(image).save(folder / "JPEGImages" / f"{image_id}.jpg", quality=95, subsampling=0)
    if kind in ("both", "boxes"):
        (folder / "Annotations" / f"{image_id}.xml").write_text(f"<annotation>{objects}</annotation>")
    if kind in ("both", "masks"):
        picture = Image.fromarray(mask)
        picture.putpalette([channel for value in range(256) for channel in (value, value * 5 % 256, value * 11 % 256)])
        picture.save(folder / "SegmentationClass" / f"{image_id}.png")


CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
ALONE = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Playwright's headless Chromium: the one of `CHROMIUM`, of this machine, or Playwright's own."""
    from playwright.sync_api import Error, sync_playwright

    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, CHROMIUM)), None)
    with sync_playwright() as playwright:
        try:
            started = playwright.chromium.launch(executable_path=path, args=list(ALONE))
        except Error as error:
            pytest.skip(f"no browser to look with; set CHROMIUM to one ({error.message.splitlines()[0]})")
        yield started
        started.close()
