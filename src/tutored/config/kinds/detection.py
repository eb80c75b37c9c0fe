"""The config keys of a detection task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from tutored.config import ClassSection, Config
from tutored.section import Positive, Section, Share


class Decode(Section):
    """From raw outputs to final boxes."""

    score_floor: Share = 0.01
    """Weaker boxes are dropped."""
    nms_iou: Share = 0.45
    """Of boxes of one class that overlap more, the best stays."""
    top_k: Positive = 400
    """Boxes of each class that suppression sees."""
    per_class: Positive = 50
    """Boxes of each class that an image keeps."""
    total: Positive = 200
    """Boxes that an image keeps."""


class DetectionSection(ClassSection):
    """Which of a tutor's boxes teach what, and which of the student's are kept."""

    RECIPES: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "thesis": {"box_floor": 0.001, "ignore_floor": 0.001, "conflicts": "keep", "difficult": "train"}
    }
    OWN_SCALE: ClassVar[tuple[str, ...]] = ("box_floor", "ignore_floor")
    VETTING: ClassVar[tuple[str, ...]] = ("segmentation",)

    box_floor: Share = 0.5
    """Tutor boxes from this score on are positives."""
    ignore_floor: Share = 0.1
    """What lies on tutor boxes between this score and `box_floor` is neither positive nor negative."""
    class_target: Literal["hard", "soft"] = "hard"
    """Of a tutor box: its best class, or its whole class distribution."""
    confidence: bool = True
    """Weigh a tutor box's class and box loss by its score."""
    conflicts: Literal["score", "keep"] = "score"
    """`score`: of tutor boxes on one object the best-scored stays; `keep`: all compete by IoU alone."""
    conflict_iou: Share = 0.6
    """From this overlap on, tutor boxes are taken to be on one object."""
    difficult: Literal["train", "ignore"] = "ignore"
    """Objects that VOC marks difficult: positives, or neither positive nor negative."""
    decode: Decode = Decode()

    @property
    def silent_score(self) -> float:
        """The highest score of a box that must not teach; from `ignore_floor` on, what lies on it is ignored."""
        return 0.999 * self.box_floor

    def idle(self, config: Config) -> list[str]:
        if self.stores and self.vetted_by and self.ignore_floor > self.silent_score:
            return [
                "no score is ignored (ignore_floor is as high as box_floor), so that where a box is contradicted "
                "(vetted_by), nothing is taken to be there"
            ]
        return []
