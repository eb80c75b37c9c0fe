"""The student: pictures to input, BlitzNet from input to raw outputs, outputs to predictions."""

from tutored.config import Student
from tutored.student.blitznet import BlitzNet
from tutored.student.decode import decode, soft_decode
from tutored.student.preprocess import preprocess

PRESETS = {
    "blitznet300-s8": Student(),
    "blitznet300-s4": Student(stride=4, scales=(0.04, 0.10, 0.95)),
    "blitznet512-s8": Student(size=512, extra=4, scales=(0.04, 0.10, 0.95)),
    "blitznet512-s4": Student(size=512, stride=4, extra=4, scales=(0.02, 0.08, 0.95)),
    "light": Student(backbone="tf_efficientnet_lite0", size=160, extra_width=256, up_width=96, map_width=32),
}
"""Named shapes (specification 1.5): the original's four on ResNet-50, and one for CPUs."""

__all__ = ["PRESETS", "BlitzNet", "decode", "preprocess", "soft_decode"]
