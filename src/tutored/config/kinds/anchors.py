"""The config keys of students whose boxes are learnt by anchors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from tutored.config import Config, StudentSection
from tutored.section import Share


class AnchorSection(StudentSection):
    """Anchors, and what they learn."""

    RECIPES: ClassVar[Mapping[str, Mapping[str, Any]]] = {"thesis": {"normaliser": "positives", "mining": "batch"}}
    FREE: ClassVar[frozenset[str]] = StudentSection.FREE | {
        *("scales", "normaliser", "mining", "negatives", "min_negatives", "match_floor", "forced_floor")
    }

    scales: tuple[float, float, float] = (0.10, 0.20, 0.95)
    """Anchor scales as shares of the side: smallest, min, max.
    BlitzNet's 300 s4 and 512 s8: (.04, .10, .95); 512 s4: (.02, .08, .95)."""
    ratios: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(max_length=16)] = (2.0, 3.0)
    """Aspect ratios of the anchors beside the two squares; each stands for itself and its inverse."""
    normaliser: Literal["weights", "positives"] = "weights"
    """Detection terms are divided by the positives' summed weights, or by their number."""
    mining: Literal["image", "batch"] = "image"
    """Hard negatives are chosen within each image, or over the batch with the thesis' cap (7.3, 23)."""
    negatives: Annotated[float, Field(ge=0)] = 3.0
    """Negatives per positive; at least one of an image that has a positive (`mining: image`)."""
    min_negatives: Annotated[int, Field(ge=0)] = 3
    """Negatives of an image without positives (`mining: image`; a batch without positives has none)."""
    match_floor: Annotated[float, Field(gt=0, le=1)] = 0.5
    """An anchor is positive from this IoU with a box on."""
    forced_floor: Share = 0.0
    """A box's best anchor is forced positive from this IoU on."""

    @field_validator("scales")
    @classmethod
    def _rising(cls, given: tuple[float, float, float]) -> tuple[float, float, float]:
        if not 0 < given[0] <= given[1] <= given[2] <= 2:
            raise ValueError("must rise, from above 0 to 2 at most")
        return given

    @property
    def splittable(self) -> bool:
        return self.mining == "image"

    def check(self, config: Config) -> None:
        if not self.splittable and config.train.micro_batch is not None:
            raise ValueError("student.mining 'batch' needs the whole batch at once; leave train.micro_batch out")
