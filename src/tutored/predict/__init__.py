"""A trained student on pictures: as a function, over a data set, and from files to drawings, masks and JSON."""

from tutored.predict.files import predict_files
from tutored.predict.inputs import VIDEOS, Inputs, find_pictures, find_videos, sort_inputs
from tutored.predict.predictor import Loaded, Predictor, load, predict_dataset
from tutored.predict.results import FILMED, KINDS, CocoNumbers, box_entries, choose_kinds
from tutored.predict.video import predict_video

__all__ = [
    "FILMED",
    "KINDS",
    "VIDEOS",
    "CocoNumbers",
    "Inputs",
    "Loaded",
    "Predictor",
    "box_entries",
    "choose_kinds",
    "find_pictures",
    "find_videos",
    "load",
    "predict_dataset",
    "predict_files",
    "predict_video",
    "sort_inputs",
]
