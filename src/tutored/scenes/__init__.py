"""Composed scenes of VOC's 20 classes, the quickstart's data: nothing is downloaded, every box and mask is exact."""

from tutored.scenes.cutouts import CREDIT
from tutored.scenes.write import make_scenes

__all__ = ["CREDIT", "make_scenes"]
