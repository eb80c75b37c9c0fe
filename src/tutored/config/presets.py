"""Named shapes of the student: keys that belong together."""

from __future__ import annotations

from typing import Any, Literal

Preset = Literal["blitznet300-s8", "blitznet300-s4", "blitznet512-s8", "blitznet512-s4", "light"]

PRESETS: dict[str, dict[str, Any]] = {
    "blitznet300-s8": {"size": 300, "stride": 8, "extra": 3, "scales": (0.10, 0.20, 0.95)},
    "blitznet300-s4": {"size": 300, "stride": 4, "extra": 3, "scales": (0.04, 0.10, 0.95)},
    "blitznet512-s8": {"size": 512, "stride": 8, "extra": 4, "scales": (0.04, 0.10, 0.95)},
    "blitznet512-s4": {"size": 512, "stride": 4, "extra": 4, "scales": (0.02, 0.08, 0.95)},
    "light": {"backbone": "tf_efficientnet_lite0", "size": 160, "extra_width": 256, "up_width": 96, "map_width": 32},
}
"""What `student.preset` sets: the original's four on ResNet-50 (specification 1.5), and one for CPUs."""
