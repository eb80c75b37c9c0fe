"""What the thesis left open: no ground truth at all, label budgets, another tutor, every difference, one task."""

from __future__ import annotations

from typing import Any

from tutored.config import THESIS, merged
from tutored.studies.declare import (
    NOBODY,
    RECIPES,
    Changes,
    Row,
    Study,
    both,
    filled,
    hidden,
    summed,
    supervision,
    tutor,
)
from tutored.studies.thesis import instead

GROUND_TRUTH = Row("ground truth")
FIFTH = Row("a fifth of the ground truth", supervision(hidden(0.8), hidden(0.8)))
TUTORS_ALONE = supervision(filled("detection", 1.0), filled("segmentation", 1.0))
BOTH = Row("ground truth and tutors", supervision(summed("detection"), summed("segmentation")))

NO_GROUND_TRUTH = Study(
    "beyond/no-ground-truth",
    "Without any ground truth",
    "How far do tutors alone carry, for both tasks at once? And ground truth with tutors, or a fifth of it?",
    both(
        GROUND_TRUTH,
        Row("tutors alone", TUTORS_ALONE),
        BOTH,
        FIFTH,
        Row("a fifth, tutors fill the rest", supervision(filled("detection", 0.8), filled("segmentation", 0.8))),
    ),
    against=(
        ("tutors alone", "ground truth"),
        ("ground truth and tutors", "ground truth"),
        ("a fifth, tutors fill the rest", "a fifth of the ground truth"),
        ("a fifth, tutors fill the rest", "ground truth"),
    ),
)

VOUCHED_ALONE = Row("tutors alone, vouched boxes", supervision(filled("vouched", 1.0), filled("segmentation", 1.0)))
VOUCHED_BOTH = Row("ground truth and tutors, vouched boxes", supervision(summed("vouched"), summed("segmentation")))

VOUCHED = Study(
    "beyond/vouched",
    "Boxes that maps vouch for",
    "Where both tutors answer for an image, does it help that the segmentation tutor's map has a say in how sure the "
    "detection tutor's boxes are?",
    {"corrected": (GROUND_TRUTH, Row("tutors alone", TUTORS_ALONE), VOUCHED_ALONE, BOTH, VOUCHED_BOTH)},
    against=(
        (VOUCHED_ALONE.label, "tutors alone"),
        (VOUCHED_ALONE.label, GROUND_TRUTH.label),
        (VOUCHED_BOTH.label, BOTH.label),
        (VOUCHED_BOTH.label, GROUND_TRUTH.label),
    ),
)

MASKS_OF_A_FIFTH = Row("masks of a fifth", split="large")
LARGE = (
    MASKS_OF_A_FIFTH,
    Row(
        "masks of a fifth, tutor fills the rest",
        supervision(None, {"policy": "fill", "store": "segmentation"}),
        split="large",
    ),
    Row(
        "masks of a fifth, tutor vetted by the boxes",
        supervision(None, {"policy": "fill", "store": "segmentation", "vetted": True}),
        split="large",
    ),
    Row("tutors alone", TUTORS_ALONE, split="large"),
    Row(BOTH.label, BOTH.changes, split="large"),
)

HALF_LABELLED = Study(
    "beyond/half-labelled",
    "All boxes, few masks",
    "A larger set lacks four fifths of its masks. Does it help that its boxes say where a tutor's map must be wrong? "
    "And can tutors alone stand in for all that people drew?",
    {"corrected": LARGE},
    against=(
        ("masks of a fifth, tutor fills the rest", "masks of a fifth"),
        ("masks of a fifth, tutor vetted by the boxes", "masks of a fifth"),
        ("masks of a fifth, tutor vetted by the boxes", "masks of a fifth, tutor fills the rest"),
        ("tutors alone", "masks of a fifth"),
        (BOTH.label, "tutors alone"),
    ),
)

SHARES = (1, 5, 10, 20, 50)


def _budget(task: str, title: str, detection: bool, segmentation: bool) -> Study:
    """Curves over the share of ground truth that is left, of one task or of both."""

    def row(share: int, series: str, taught: Any) -> Row:
        left = 1 - share / 100
        changes = supervision(
            taught("detection", left) if detection else None, taught("segmentation", left) if segmentation else None
        )
        return Row(f"{share} %, {series}", changes, series, float(share))

    def nobody(_tutor: str, share: float) -> Changes:
        return hidden(share)

    series = {"tutors fill the rest": filled, "nothing for the rest": nobody}
    rows = [row(share, name, taught) for name, taught in series.items() for share in SHARES]
    whole = [Row(f"100 %, {name}", series=name, x=100.0) for name in series]
    with_tutors, without = series
    return Study(
        f"beyond/budget-{task}",
        title,
        "How much ground truth can tutors replace? The other task's ground truth is whole."
        if task != "both"
        else "How much ground truth of both tasks can tutors replace?",
        {"corrected": tuple(sorted((*rows, *whole), key=lambda each: (each.series, each.x)))},
        against=tuple((f"{share} %, {with_tutors}", f"{share} %, {without}") for share in SHARES),
        axis="ground truth that is left, %",
    )


BUDGETS = (
    _budget("boxes", "Label budget of boxes", True, False),
    _budget("masks", "Label budget of masks", False, True),
    _budget("both", "Label budget of both tasks", True, True),
)

INSTANCES = supervision(None, tutor("instances"))

SEGMENTATION_TUTOR = Study(
    "beyond/segmentation-tutor",
    "Dense probabilities against instances",
    "Is it the kind of segmentation tutor that decides, or how its answer becomes a target? All masks are replaced; "
    "instances are a detector's boxes with soft masks in them.",
    {
        recipe: (
            Row("ground truth"),
            Row("dense probabilities", supervision(None, instead(recipe, "segmentation", 1.0))),
            *(
                Row(f"instances, background {rule}", {**INSTANCES, "loss": {"background": rule}})
                for rule in ("noisy_or", "one", "zero")
            ),
        )
        for recipe in RECIPES
    },
    against=(
        ("dense probabilities", "ground truth"),
        ("instances, background noisy_or", "ground truth"),
        ("instances, background one", "ground truth"),
        ("dense probabilities", "instances, background noisy_or"),
        ("dense probabilities", "instances, background one"),
    ),
)

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

SINGLE_TASK = Study(
    "beyond/single-task",
    "One network against two",
    "What does one joint network gain or lose against a network for each task alone (Δm: the mean relative change)?",
    {
        "corrected": (
            Row("joint, ground truth"),
            Row("joint, tutors alone", TUTORS_ALONE),
            Row("boxes alone", supervision(segmentation=NOBODY)),
            Row("maps alone", supervision(detection=NOBODY)),
        )
    },
    single_task=("boxes alone", "maps alone"),
)

BEYOND_STUDIES = (NO_GROUND_TRUTH, VOUCHED, HALF_LABELLED, *BUDGETS, SEGMENTATION_TUTOR, ABLATION, SINGLE_TASK)
