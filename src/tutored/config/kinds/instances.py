"""The config keys of an instance segmentation task."""

from __future__ import annotations

from tutored.config.kinds.detection import Decode, DetectionSection
from tutored.section import Weight


class InstancesSection(DetectionSection):
    """As a detection task's keys, for boxes with masks."""

    mask: Weight = 1.0
    """Of the term of the masks, against those of the boxes and classes that they belong to."""
    decode: Decode = Decode(total=100)
