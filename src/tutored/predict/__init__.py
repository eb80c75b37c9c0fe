"""A trained student on pictures: as a function, and from files, videos and cameras to drawings, JSON and files.

Names are imported when they are asked for, so that a command can look at what it was given before torch is loaded.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tutored.predict.inputs import find_pictures, find_videos, is_result, sort_inputs
    from tutored.predict.pictures import FILMED, KINDS, choose_kinds, predict_files
    from tutored.predict.predictor import Predictor, load
    from tutored.predict.result import Film, Result
    from tutored.predict.video import predict_video

__all__ = [
    "FILMED",
    "KINDS",
    "Film",
    "Predictor",
    "Result",
    "choose_kinds",
    "find_pictures",
    "find_videos",
    "is_result",
    "load",
    "predict_files",
    "predict_video",
    "sort_inputs",
]
MODULES = ("inputs", "result", "predictor", "pictures", "video")
"""From the one that imports least to the one that imports most."""


def __getattr__(name: str) -> Any:
    if name in __all__:
        for module in MODULES:
            found = getattr(import_module(f"tutored.predict.{module}"), name, None)
            if found is not None:
                return found
    raise AttributeError(f"module 'tutored.predict' has no attribute {name!r}")
