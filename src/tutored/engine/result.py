"""What a finished run says about itself."""

from __future__ import annotations

import platform
from typing import Any

import timm
import torch
import torchvision

from tutored.config import Config
from tutored.engine.supervision import OpenSupervision


def make_result(
    config: Config, supervision: OpenSupervision, device: torch.device, seconds: float, figures: dict[str, Any] | None
) -> dict[str, Any]:
    """Figures, the complete config, cost and versions of a run; JSON-ready.

    Args:
        seconds: spent in training steps, over all resumptions; validation not counted.
        figures: the last validation's, or None.
    """
    facts = make_facts(config, supervision, device)
    return {
        "run_id": facts.pop("run_id"),
        "figures": figures,
        "images": facts.pop("images"),
        "seconds": round(seconds, 1),
        **facts,
        "config": config.to_dict(),
    }


def make_facts(config: Config, supervision: OpenSupervision, device: torch.device) -> dict[str, Any]:
    """What is known of a run before its first step; JSON-ready."""
    return {
        "run_id": config.run_id,
        "images": len(supervision.train.ids),
        "device": _device_name(device),
        "threads": torch.get_num_threads(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "timm": timm.__version__,
        },
        "stores": supervision.stores,
        "notes": list(supervision.notes),
    }


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({platform.machine()})"
