"""The config keys of a semantic segmentation task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from tutored.config import ClassSection, Config
from tutored.section import Weight


class SegmentationSection(ClassSection):
    """What a tutor's map teaches."""

    RECIPES: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "thesis": {"target": "softmax", "temperature": 0.4, "background": "one", "padding": "background"}
    }
    OWN_SCALE: ClassVar[tuple[str, ...]] = ("temperature", "target")
    VETTING: ClassVar[tuple[str, ...]] = ("detection",)

    target: Literal["power", "softmax"] = "power"
    """`power`: p^(1/T), renormalised; `softmax`: softmax(p/T), as the thesis has it."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """T of `target`: below 1 sharper, above 1 softer."""
    cell_weight: Literal["mass", "margin"] = "mass"
    """Of a tutor's cell: what its probabilities sum to, or that times the lead of the likeliest class over the next, so
    that cells of which the tutor is unsure teach less."""
    background: Literal["noisy_or", "one", "complement", "zero"] = "noisy_or"
    """Channel 0 of a map drawn from instances. `noisy_or`: soft masks with an explicit background; the others:
    the box score where a binary mask is positive, and 1, 1 - max, or 0 elsewhere."""
    overlap: Weight = 0.0
    """Of a term that asks for the overlap (IoU) of each class in each image, against that of each cell's class."""
    padding: Literal["ignore", "background"] = "ignore"
    """Pixels outside the image: no loss, or background (ground truth) and uniform (tutor, `softmax`)."""

    def idle(self, config: Config) -> list[str]:
        notes = []
        lighter = {
            "vetted_by": self.vetted_by,
            "elsewhere": self.elsewhere == "ignore",
            "cell_weight": self.cell_weight != "mass",
        }
        if self.stores and self.target == "softmax" and any(lighter.values()):
            keys = ", ".join(key for key, value in lighter.items() if value)
            notes.append(f"target 'softmax' teaches every cell at full weight, in spite of {keys}")
        partly = config.data.annotated is not None or self.classes is not None or config.data.more
        if self.policy == "fill" and self.target == "softmax" and partly:
            notes.append(
                "target 'softmax' also softens what people drew, and teaches their void, where a data set annotates "
                "only some of the classes; 'power' does not"
            )
        return notes
