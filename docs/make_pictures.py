"""The drawings of the concepts and science pages: `python docs/make_pictures.py`, with the extra `quickstart`. With a
checkpoint and a photograph, `python docs/make_pictures.py RUN/checkpoint chelsea.png`, the picture of the README.

The pictures of our own pages in a browser are made by make_page_pictures.py.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor

import tutored
from tutored.data import open_dataset
from tutored.data.training import ranks, source_weights
from tutored.files import write_text
from tutored.labels import VOC
from tutored.pages import COLOURS, INK, standalone, svg
from tutored.pictures import voc_palette
from tutored.scenes import make_scenes
from tutored.tasks.detection import Detection, Detections, DetectionSection
from tutored.tasks.segmentation import MapTargets, Segmentation, SegmentationSection
from tutored.types import Prediction
from tutored.visualise import draw, grid

PICTURES = Path(__file__).parent / "pictures"
STRIDE = 8
IMAGES = [f"image {number}" for number in range(12)]
CELL = 22
STYLE = (
    "<style>text{font:13px system-ui,sans-serif;fill:#1f2328}.none{fill:none;stroke:#8b949e}"
    ".truth{fill:#0072b2}.tutor{fill:#e69f00}"
    "@media(prefers-color-scheme:dark){text{fill:#d1d7e0}}</style>"
)


def main() -> None:
    PICTURES.mkdir(exist_ok=True)
    answers().save(PICTURES / "answers.jpg", quality=85)
    write_text(PICTURES / "sources.svg", sources())
    write_text(
        PICTURES / "temperature.svg", standalone(svg("What the map target says of a certain cell", temperature, 7))
    )


def each_task(checkpoint: str, photograph: str) -> Image.Image:
    """What one student says of a photograph that may be published, a panel for each of its tasks."""
    found = tutored.load(checkpoint)(photograph)
    shown = found.above(found.scores)
    panels = [draw(found.image, shown, {name: task}) for name, task in found.known.items()]
    sheet = grid([panels], [*found.known])
    return sheet.resize((1200, round(1200 * sheet.height / sheet.width)), Image.Resampling.LANCZOS)


def answers() -> Image.Image:
    """A made-up scene, its ground truth, and what a tutor might say: boxes, and probabilities on a grid."""
    with tempfile.TemporaryDirectory() as folder:
        made = make_scenes(Path(folder) / "scenes", "student", {"train": 17}, seed=3, size=(320, 240))
        dataset = open_dataset(f"voc:{made}", "train")
        image_id = dataset.ids[-1]
        image, truth = dataset.image(image_id).convert("RGB"), dataset.ground_truth(image_id)
    tasks = {task.kind: task(task.kind, VOC) for task in (Detection, Segmentation)}
    drawn, mask = truth.tasks["detection"], truth.tasks["segmentation"].mask
    scores = {"cat": 0.71, "boat": 0.93, "bottle": 0.41}
    boxes = Detections(
        boxes_xyxy=drawn.boxes_xyxy + torch.tensor([3.0, -4.0, 5.0, 2.0]),
        classes=drawn.classes,
        scores=torch.tensor([scores[VOC.names[number]] for number in drawn.classes.tolist()]),
    )
    only_boxes = {"detection": tasks["detection"]}
    said = probabilities(mask, scores)
    weak = Image.blend(image.convert("L").convert("RGB"), Image.new("RGB", image.size, "white"), 0.5)
    cells = Image.fromarray((said @ voc_palette()[: len(VOC)]).astype(np.uint8)).resize(
        image.size, Image.Resampling.NEAREST
    )
    sure = Image.fromarray(((1 - said[..., 0]) * 230).astype(np.uint8)).resize(image.size, Image.Resampling.NEAREST)
    tutor = draw(image, Prediction.of(truth.size, boxes), only_boxes), _enlarged(Image.composite(cells, weak, sure))
    upper = grid([[_enlarged(image), draw(image, truth, tasks)]], ["image", "ground truth"])
    lower = grid([tutor], ["tutor: boxes", "tutor: map"])
    sheet = Image.new("RGB", (upper.width, upper.height + lower.height), "white")
    sheet.paste(upper)
    sheet.paste(lower, (0, upper.height))
    return sheet


def _enlarged(panel: Image.Image) -> Image.Image:
    return panel.resize((400, 300))


def probabilities(mask: Tensor, scores: dict[str, float]) -> Any:
    """[h, w, C+1]: a class map made coarse and unsure, as unsure as the boxes; a fifth of the doubt goes to dogs."""
    height, width = mask.shape
    said = np.zeros((height // STRIDE, width // STRIDE, len(VOC)))
    for name, score in scores.items():
        layer = Image.fromarray(((mask == VOC.index(name)).numpy() * 255).astype(np.uint8))
        layer = layer.filter(ImageFilter.GaussianBlur(STRIDE / 2)).resize(said.shape[1::-1], Image.Resampling.BOX)
        said[..., VOC.index(name)] = np.asarray(layer) / 255 * score
    said[..., VOC.index("dog")] = said[..., VOC.index("cat")] * 0.25
    said[..., 0] = 1 - said.sum(-1)
    return said


def sources() -> str:
    """An SVG: who teaches each of 12 images one task, by the code that decides it in a run."""
    rows: list[dict[str, Any]] = [
        {},
        {"hidden": 0.5},
        {"policy": "fill", "hidden": 0.2},
        {"policy": "fill", "hidden": 0.5},
        {"policy": "fill", "hidden": 0.8},
        {"policy": "replace", "share": 0.5},
        {"policy": "both"},
    ]
    ordered, left, parts = ranks(IMAGES, 0, "detection"), 190, []
    for row, keys in enumerate(rows):
        task = DetectionSection(kind="detection", store="S", **keys)
        title = ", ".join([task.policy, *(f"{key}: {value}" for key, value in keys.items() if key != "policy")])
        top = 8 + row * (CELL + 8)
        parts.append(f'<text x="{left - 12}" y="{top + 15}" text-anchor="end">{title}</text>')
        for column, image in enumerate(IMAGES):
            weights = source_weights(task, ordered[image], drawn=ordered[image] >= task.hidden, answered=True)
            parts.append(square(left + column * CELL, top, *weights))
    top = 8 + len(rows) * (CELL + 8)
    for column, (weights, title) in enumerate((((1, 0), "ground truth"), ((0, 1), "tutor"), ((0, 0), "nobody"))):
        x = left - 60 + column * 120
        parts.append(square(x, top + 10, *weights) + f'<text x="{x + CELL + 4}" y="{top + 25}">{title}</text>')
    width, height = left + len(IMAGES) * CELL + 8, top + 44
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="sources">'
    return head + STYLE + "".join(parts) + "</svg>\n"


def square(x: float, y: float, truth: float, tutor: float) -> str:
    """One image: filled by who teaches it, each as broad as its weight; empty where nobody does."""
    side = CELL - 4
    if truth + tutor == 0:
        return f'<rect class="none" x="{x + 0.5}" y="{y + 0.5}" width="{side - 1}" height="{side - 1}"/>'
    middle = side * truth / (truth + tutor)
    halves = (("truth", x, middle), ("tutor", x + middle, side - middle))
    return "".join(
        f'<rect class="{name}" x="{at:g}" y="{y}" width="{wide:g}" height="{side}"/>'
        for name, at, wide in halves
        if wide
    )


def temperature(panel: Any) -> None:
    """A cell's target for its class, over the temperature, by the code of the loss."""
    steps = np.linspace(0.1, 1, 46)
    for number, certain in enumerate((1.0, 0.7)):
        for recipe, kind, line in (("thesis", "softmax", "-"), ("corrected", "power", "--")):
            values = [target(certain, target=kind, temperature=step) for step in steps]
            title = f"{recipe}, the tutor says {certain:.0%}"
            panel.plot(steps, values, line, color=COLOURS[number], label=title)
    panel.axvline(0.4, color=INK, linewidth=0.8, linestyle=":")
    panel.set(xlabel="temperature T (thesis: 0.4, corrected: 1)", ylabel="target for that class", ylim=(0, 1.05))


def target(certain: float, **keys: Any) -> float:
    """What the student is to say of a class that a tutor of 20 classes is so certain of, the rest on background."""
    said = torch.zeros(1, len(VOC), 1, 1)
    said[0, 0], said[0, 1] = 1 - certain, certain
    inside, unknown = torch.ones(1, 1, 1, dtype=torch.bool), torch.zeros(1, 0, dtype=torch.bool)
    task = Segmentation("segmentation", VOC, SegmentationSection(kind="segmentation", **keys))
    taught = MapTargets(said, inside, unknown, torch.ones(1))
    return float(task.assign(taught, tutor=True).probs[0, 1, 0, 0])


if __name__ == "__main__":
    if len(sys.argv) == 3:
        each_task(*sys.argv[1:]).save(PICTURES / "tasks.jpg", quality=85)
    else:
        main()
