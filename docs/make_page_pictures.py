"""The documentation's pictures of our own pages in a browser: `python docs/make_page_pictures.py`.

With the extras `quickstart` and `serve`, and Playwright; `CHROMIUM` names a browser, if it is not Playwright's own.
"""

from __future__ import annotations

import os
import tempfile
import threading
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
import uvicorn
import yaml
from PIL import Image
from playwright.sync_api import sync_playwright

from tutored.cli import main
from tutored.data import open_dataset
from tutored.predict import Result
from tutored.scenes import make_scenes
from tutored.serve.app import answer, make_app
from tutored.tasks.detection import Detection, Detections
from tutored.tasks.segmentation import ClassMap, Segmentation
from tutored.types import IGNORE, Prediction

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "pictures"


def report_and_run(browser: Any, folder: Path) -> None:
    """The main study's report, and the page of a run on made-up scenes."""
    assert main(["study", "report", str(ROOT / "results" / "study"), "--out", str(folder)]) == 0
    take(browser, (folder / "report.html").as_uri() + "#thesis-table-12", "study-report.png", 1000)
    scenes = make_scenes(folder / "scenes", "student", {"train": 300, "val": 30}, seed=4, size=(320, 240))
    config = {
        "data": {"train": f"voc:{scenes}"},
        "tasks": {"detection": {}, "segmentation": {"hidden": 0.5}},
        "student": {"size": 128},
        "augment": {"colour": False, "crop": False, "zoom_out": "never"},
        "train": {"epochs": 16, "batch": 8, "backbone_lr": 0.1, "val_every": 4, "threads": 1, "workers": 0},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(config))
    assert main(["train", str(folder / "run.yaml"), "--out", str(folder / "first")]) == 0
    take(browser, (folder / "first" / "report.html").as_uri(), "run-page.png", 1100)


def served(browser: Any, folder: Path) -> None:
    """A made-up scene on the page of `tutored serve`; it shows the scene's own ground truth, every score 1."""
    make_scenes(folder / "shown", "student", {"val": 8}, seed=7, size=(640, 480))
    dataset = open_dataset(f"voc:{folder / 'shown'}", "val")
    truths = {image_id: dataset.ground_truth(image_id) for image_id in dataset.ids}
    shown = max(truths, key=lambda image_id: len(truths[image_id].tasks["detection"].classes))
    boxes, mask = (truths[shown].tasks[name] for name in ("detection", "segmentation"))
    scored = Detections(boxes_xyxy=boxes.boxes_xyxy, classes=boxes.classes, scores=torch.ones(len(boxes.classes)))
    known = {kind.kind: kind(kind.kind, dataset.labels[kind.kind]) for kind in (Detection, Segmentation)}

    def predict(image: Image.Image, size: tuple[int, int]) -> Result:
        told = Prediction.of(size, scored, ClassMap(mask=mask.mask * (mask.mask != IGNORE)))
        return Result(told.size, told.tasks, known=known, scores=dict.fromkeys(known, 0.5), source=image)

    app = make_app(partial(answer, predict, 600), {name: task.labels.classes for name, task in known.items()})
    server = uvicorn.Server(uvicorn.Config(app, port=8765, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    page = browser.new_page(viewport={"width": 1100, "height": 700})
    page.goto("http://127.0.0.1:8765")
    page.set_input_files("#file", folder / "shown" / "JPEGImages" / f"{shown}.jpg")
    page.wait_for_selector("#tables table")
    page.screenshot(path=PICTURES / "serve.png", full_page=True)
    server.should_exit = True
    thread.join()


def take(browser: Any, url: str, name: str, height: int) -> None:
    page = browser.new_page(viewport={"width": 1000, "height": height}, color_scheme="light")
    page.goto(url)
    Image.open(BytesIO(page.screenshot())).quantize(256).save(PICTURES / name, optimize=True)


if __name__ == "__main__":
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as made:
        chromium = playwright.chromium.launch(executable_path=os.environ.get("CHROMIUM"), args=["--no-sandbox"])
        served(chromium, Path(made))
        report_and_run(chromium, Path(made))
