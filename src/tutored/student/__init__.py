"""The student: pictures to input, BlitzNet from input to raw outputs, outputs to predictions."""

from tutored.student.blitznet import BlitzNet
from tutored.student.decode import decode, soft_decode
from tutored.student.preprocess import preprocess

__all__ = ["BlitzNet", "decode", "preprocess", "soft_decode"]
