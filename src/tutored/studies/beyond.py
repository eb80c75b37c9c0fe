"""What the thesis left open: no ground truth at all, label budgets, other tutors, their doubt, one task."""

from __future__ import annotations

from typing import Any

from tutored.config import merged
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

WHOLE: Changes = {"loss": {"class_target": "soft"}}
LED: Changes = {"loss": {"map_weight": "margin"}}
WHOLE_ALONE = Row("tutors alone, whole distributions", merged(TUTORS_ALONE, WHOLE))
LED_ALONE = Row("tutors alone, unsure cells less", merged(TUTORS_ALONE, LED))
DOUBT_ALONE = Row("tutors alone, doubt in both", merged(merged(TUTORS_ALONE, WHOLE), LED))
DOUBT_BOTH = Row("ground truth and tutors, doubt in both", merged(merged(BOTH.changes, WHOLE), LED))

TECHNIQUES = Study(
    "beyond/techniques",
    "How much of a tutor's doubt is taught",
    "A box can teach the tutor's whole class distribution in the place of its best class, and a cell less where the "
    "likeliest class hardly leads. Does either help, or both, with ground truth too?",
    {
        "corrected": (
            GROUND_TRUTH,
            Row("tutors alone", TUTORS_ALONE),
            WHOLE_ALONE,
            LED_ALONE,
            DOUBT_ALONE,
            BOTH,
            DOUBT_BOTH,
        )
    },
    against=(
        *((row.label, "tutors alone") for row in (WHOLE_ALONE, LED_ALONE, DOUBT_ALONE)),
        (DOUBT_ALONE.label, GROUND_TRUTH.label),
        (DOUBT_BOTH.label, BOTH.label),
        (DOUBT_BOTH.label, GROUND_TRUTH.label),
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

BEYOND_STUDIES = (
    NO_GROUND_TRUTH,
    VOUCHED,
    TECHNIQUES,
    HALF_LABELLED,
    *BUDGETS,
    SEGMENTATION_TUTOR,
    SINGLE_TASK,
)
