"""The thesis' tables and figures, with its printed values (specification, section 6)."""

from __future__ import annotations

from collections.abc import Mapping

from tutored.studies.declare import RECIPES, Changes, Recipe, Row, Study, both, filled, summed, supervision, tutor

GROUND_TRUTH = Row("ground truth", printed={"mAP": 0.626, "mIoU": 0.602})
"""E1, the thesis' baseline: both tasks from ground truth on the small split."""


def instead(recipe: Recipe, name: str, share: float) -> Changes:
    """A tutor in the place of ground truth on a share of the images.

    The thesis draws the images anew at every step, so that each is seen with its ground truth too (7.1, 3); the
    corrected recipe hides the ground truth of a fixed subset.
    """
    return tutor(name, share, resampled=share < 1) if recipe == "thesis" else filled(name, share)


def _segmentation(recipe: Recipe, **sections: Changes) -> Changes:
    return supervision(segmentation=instead(recipe, "segmentation", 1.0), **sections)


def _detection(recipe: Recipe, **sections: Changes) -> Changes:
    return supervision(detection=instead(recipe, "detection", 1.0), **sections)


def detection_tutor(recipe: Recipe) -> Row:
    return Row("detection tutor", _detection(recipe), printed={"mAP": 0.640, "mIoU": 0.634})


TABLE_12 = Study(
    "thesis/table-12",
    "Table 12: one task's ground truth replaced by its tutor",
    "Can a tutor take the place of all ground truth of one task?",
    {
        recipe: (
            GROUND_TRUTH,
            Row("segmentation tutor", _segmentation(recipe), printed={"mAP": 0.624, "mIoU": 0.523}),
            detection_tutor(recipe),
        )
        for recipe in RECIPES
    },
    against=(("segmentation tutor", "ground truth"), ("detection tutor", "ground truth")),
)

TABLE_13 = Study(
    "thesis/table-13",
    "Table 13: the detection tutor's weak boxes and its confidences",
    "Does the student need weak boxes removed, and losses weighed by the tutor's confidence?",
    {
        recipe: (
            Row(
                "every box, weighed",
                _detection(recipe, loss={"box_floor": 0.0, "ignore_floor": 0.0}),
                printed={"mAP": 0.610, "mIoU": 0.599},
            ),
            detection_tutor(recipe),
            Row(
                "detection tutor, not weighed",
                _detection(recipe, loss={"confidence": False}),
                printed={"mAP": 0.414, "mIoU": 0.543},
            ),
            GROUND_TRUTH,
        )
        for recipe in RECIPES
    },
    against=(
        ("detection tutor", "every box, weighed"),
        ("detection tutor", "detection tutor, not weighed"),
        ("detection tutor", "ground truth"),
    ),
)

FIGURE_14 = Study(
    "thesis/figure-14",
    "Figure 14: the segmentation tutor's temperature",
    "Which temperature suits the segmentation tutor? The thesis divides confidences by it and takes their softmax; the "
    "corrected recipe raises probabilities to its inverse.",
    {
        recipe: (
            GROUND_TRUTH,
            *(
                Row(
                    f"T = {temperature}",
                    _segmentation(recipe, loss={"temperature": temperature}),
                    series="segmentation tutor",
                    x=temperature,
                    printed={"mIoU": printed} if printed else {},
                )
                for temperature, printed in (
                    (0.25, 0.532), (0.35, 0.512), (0.4, 0.555), (0.45, 0.512), (0.5, 0.539), (0.75, 0.516),
                    (1.0, 0.479), *(((2.0, None),) if recipe == "corrected" else ()),
                )
            ),
        )
        for recipe in RECIPES
    },
    axis="temperature",
    figures=("mIoU",),
)  # fmt: skip


def _share(number: int, task: str, noun: str, figure: str, printed: Mapping[int, float]) -> Study:
    """A curve over the share of images that the tutor of one task answers for, in %."""

    def row(recipe: Recipe, share: int) -> Row:
        changes = supervision(**{task: instead(recipe, task, share / 100)}) if share else {}
        return Row(f"{share} %", changes, f"{task} tutor", float(share), printed={figure: printed[share]})

    return Study(
        f"thesis/figure-{number}",
        f"Figure {number}: share of images with the {task} tutor",
        f"How much of the {noun} can the tutor replace?",
        {recipe: tuple(row(recipe, share) for share in printed) for recipe in RECIPES},
        against=tuple((f"{share} %", "0 %") for share in printed if share),
        axis=f"images without {'a mask' if noun == 'masks' else noun} of ground truth, %",
        figures=(figure,),
    )


FIGURE_15 = _share(15, "segmentation", "masks", "mIoU", {0: 0.602, 20: 0.553, 50: 0.589, 80: 0.580, 100: 0.555})
FIGURE_16 = _share(16, "detection", "boxes", "mAP", {0: 0.626, 20: 0.631, 50: 0.643, 80: 0.651, 100: 0.640})

FIFTH_OF_MASKS = Row("masks of a fifth", split="large", printed={"mAP": 0.726, "mIoU": 0.646})
"""E18, the baseline on the large split: boxes of ground truth, and what masks there are."""

TABLE_17 = Study(
    "thesis/table-17",
    "Table 17: a larger set that lacks four fifths of its masks",
    "Does a segmentation tutor help where most masks are missing?",
    both(
        FIFTH_OF_MASKS,
        Row(
            "masks of a fifth, tutor fills the rest",
            supervision(segmentation={"policy": "fill", "store": "segmentation"}),
            split="large",
            printed={"mAP": 0.702, "mIoU": 0.644},
        ),
    ),
    against=(("masks of a fifth, tutor fills the rest", "masks of a fifth"),),
)

TABLE_19 = Study(
    "thesis/table-19",
    "Table 19: the sum of both losses",
    "Do ground truth and both tutors together teach more than ground truth alone?",
    both(
        Row(
            "small split: ground truth and both tutors",
            supervision(summed("detection"), summed("segmentation")),
            printed={"mAP": 0.636, "mIoU": 0.55},
        ),
        Row("small split: ground truth", printed=GROUND_TRUTH.printed),
        Row(
            "large split: ground truth and both tutors",
            supervision(summed("detection"), summed("segmentation")),
            split="large",
            printed={"mAP": 0.736, "mIoU": 0.629},
        ),
        Row("large split: ground truth", split="large", printed=FIFTH_OF_MASKS.printed),
    ),
    against=(
        ("small split: ground truth and both tutors", "small split: ground truth"),
        ("large split: ground truth and both tutors", "large split: ground truth"),
    ),
)

THESIS_STUDIES = (TABLE_12, TABLE_13, FIGURE_14, FIGURE_15, FIGURE_16, TABLE_17, TABLE_19)
