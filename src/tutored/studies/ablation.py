"""Every difference between the recipes, one at a time."""

from __future__ import annotations

from typing import Literal

from tutored.config import THESIS, Augment, Loss, merged
from tutored.studies.beyond import BOTH, FIFTH, GROUND_TRUTH, MASKS_OF_A_FIFTH, TUTORS_ALONE
from tutored.studies.declare import Changes, Row, Study, filled, hidden, supervision, tutor
from tutored.studies.thesis import detection_tutor

TOGETHER = (
    {"box_floor", "ignore_floor", "normaliser"},
    {"map_target", "temperature"},
)
"""Keys of the loss that may hurt together only: weak boxes as positives do harm where each of them is counted whole."""

ALONE = Row("corrected recipe, tutors alone", TUTORS_ALONE)
DRAWN_MAPS = Row("tutors alone, maps from instances", supervision(filled("detection", 1.0), filled("instances", 1.0)))
ZOOMED = Row("tutors alone, zoomed out image by image", {**TUTORS_ALONE, "augment": {"zoom_out": "image"}})
PADDED = Row(
    "both sources, zoomed out image by image, map_target: softmax",
    merged(BOTH.changes, {"augment": {"zoom_out": "image"}, "loss": {"map_target": "softmax"}}),
)
FEW_BOXES = Row("boxes of a twentieth", supervision(hidden(0.95), None))
BASES = {
    "difficult": GROUND_TRUTH,
    "joint": BOTH,
    "untaught": FEW_BOXES,
    "background": DRAWN_MAPS,
    "padding": PADDED,
    "zoom_out": ZOOMED,
}
"""What a key is changed in and held against, where it changes nothing in `ALONE`: there are no ground truth, no image
that nobody teaches, no instances, and no padding if the setting never zooms out. What padding teaches contradicts
itself only where ground truth says background and a tutor's softmax of nothing says "all classes alike"."""


def _differences() -> list[tuple[Row, Row]]:
    """Every difference between the recipes, one at a time, as the thesis has it, with the row it is held against; the
    optimiser's keys are one difference."""
    found: list[tuple[Row, Row]] = []

    def differ(label: str, changes: Changes, base: Row = ALONE) -> None:
        found.append((Row(label, merged(base.changes, changes)), base))

    for section in ("augment", "loss"):
        for key, value in THESIS[section].items():
            differ(f"{section}.{key}: {value}", {section: {key: value}}, BASES.get(key, ALONE))
    for keys in TOGETHER:
        chosen = {key: THESIS["loss"][key] for key in THESIS["loss"] if key in keys}
        text = ", ".join(f"{key}: {value}" for key, value in chosen.items())
        differ(f"loss.{text}", {"loss": chosen})
    kept = {key: value for key, value in THESIS["train"].items() if key not in ("lr", "backbone_lr")}
    differ("the thesis' optimiser and schedule, at our rates", {"train": kept})
    return found


DIFFERENCES = _differences()
WEIGHED = [
    (Row(f"{base.label}, {label}", merged(base.changes, {"loss": {f"{task}_weight": weight}})), base)
    for base, label, task, weight in (
        (GROUND_TRUTH, "boxes weigh .3", "detection", 0.3),
        (GROUND_TRUTH, "maps weigh .17", "segmentation", 0.17),
        (GROUND_TRUTH, "maps weigh 3", "segmentation", 3.0),
        (ALONE, "maps weigh 3", "segmentation", 3.0),
    )
]
RARE = [
    (Row(f"{base.label}, untaught: skipped", {**base.changes, "loss": {"untaught": "skipped"}}, split=base.split), base)
    for base in (FIFTH, MASKS_OF_A_FIFTH)
]
FIXED_HALF, DRAWN_HALF = "half the images by tutors, a fixed half", "half the images by tutors, drawn at every step"

ABLATION = Study(
    "beyond/ablation",
    "Every difference between the recipes, one at a time",
    "Which of the thesis' choices hurt? Each is put into the corrected recipe, with tutors alone for both tasks or, "
    "where it would change nothing there, into another row. Then: is it the mere weight of a task, and are images that "
    "are drawn anew missing at all?",
    {
        "corrected": (
            ALONE,
            GROUND_TRUTH,
            BOTH,
            DRAWN_MAPS,
            ZOOMED,
            PADDED,
            FEW_BOXES,
            FIFTH,
            MASKS_OF_A_FIFTH,
            *(row for row, _ in (*DIFFERENCES, *WEIGHED, *RARE)),
            Row(FIXED_HALF, supervision(filled("detection", 0.5), filled("segmentation", 0.5))),
            Row(
                DRAWN_HALF,
                supervision(*(tutor(name, 0.5, resampled=True) for name in ("detection", "segmentation"))),
            ),
        )
    },
    against=(
        *((row.label, base.label) for row, base in (*DIFFERENCES, *WEIGHED, *RARE)),
        (f"{ALONE.label}, maps weigh 3", f"{GROUND_TRUTH.label}, maps weigh 3"),
        (DRAWN_HALF, FIXED_HALF),
    ),
)

HURT = detection_tutor("thesis")


def _mended(label: str, section: Literal["augment", "loss"], *keys: str) -> Row:
    """The row of the detection tutor with some keys as `corrected` has them."""
    ours = {"augment": Augment(), "loss": Loss()}[section]
    return Row(f"{HURT.label}, {label}", merged(HURT.changes, {section: {key: getattr(ours, key) for key in keys}}))


REPAIRS = (
    _mended("no weak boxes", "loss", "box_floor", "ignore_floor"),
    _mended("divided by weights", "loss", "normaliser"),
    _mended("no weak boxes, divided by weights", "loss", "box_floor", "ignore_floor", "normaliser"),
    _mended("crops follow what is taught", "augment", "crop_guides"),
    _mended("conflicts resolved", "loss", "conflicts"),
    _mended("mined in each image", "loss", "mining"),
)
FEWER = Row(f"{HURT.label}, boxes from .1 on", merged(HURT.changes, {"loss": {"box_floor": 0.1, "ignore_floor": 0.1}}))
"""What YOLOX-nano says so is about as many boxes an image as the thesis' tutor has from .001 on in the one example that
there is (specification, 8.1)."""
MENDED = Study(
    "beyond/mended",
    "The thesis' detection tutor, with one thing mended",
    "Where the detection tutor hurts in the thesis' recipe: which of its choices does it? The ablation the other way "
    "round: one of them at a time is as the corrected recipe has it.",
    {"thesis": (GROUND_TRUTH, HURT, *REPAIRS, FEWER)},
    against=(
        *((row.label, GROUND_TRUTH.label) for row in (HURT, REPAIRS[0], FEWER)),
        *((row.label, HURT.label) for row in (*REPAIRS, FEWER)),
    ),
)
