"""Prediction: eager, compiled and ONNX; the network alone, and to boxes and masks; a map to its mask."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from torch.nn import functional as F

from benchmarks.harness import SMALLEST, Table, side_by_side, table
from benchmarks.package import SIZE, make_data, make_predictor, make_session, open_dataset, students
from tutored.geometry import likeliest


def measure(work: Path, scale: float) -> Iterator[Table]:
    """A table for each student and batch, and one of maps alone."""
    data, _ = make_data(work, 32, scale)
    dataset = open_dataset(data, "train")
    pictures = [dataset.image(image_id) for image_id in dataset.ids[:16]]
    for name, (shape, _) in students(scale).items():
        predictor, session = make_predictor(shape), make_session(shape)
        network = predictor.student
        compiled = None if scale < SMALLEST else torch.compile(network)
        size = session.get_inputs()[0].shape[2]
        for batch in (1,) if scale < SMALLEST else (1, 16):
            images = torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(0))
            part: list[Image.Image] = pictures[:batch]
            things: dict[str, Callable[[], object]] = {
                "network, eager": partial(network, images),
                "network, ONNX Runtime": partial(session.run, None, {"images": images.numpy()}),
                "picture to result, eager": partial(predictor, part),
            }
            if compiled is not None:
                things["network, compiled"] = partial(compiled, images)
            with torch.no_grad():
                timed = side_by_side(things, batch, scale=scale)
            note = f"pictures of {part[0].size} in memory; random weights, which leave the most boxes to suppress"
            yield table(f"prediction: {name}, batch {batch}", timed, "network, eager", note)
    yield _enlarged(scale)


def _enlarged(scale: float) -> Table:
    """What becomes of a batch's maps, one after the other: large regions, as trained students find, and noise."""
    regions, noise = (
        F.interpolate(torch.randn(4, 21, cells, cells), (40, 40), mode="bilinear").to(memory_format=torch.channels_last)
        for cells in (4, 40)
    )
    size = SIZE[::-1]
    things: dict[str, Callable[[], object]] = {
        "interpolate, argmax": lambda: [F.interpolate(each[None], size, mode="bilinear").argmax(1) for each in regions],
        "ours, of regions": lambda: [likeliest(each, size) for each in regions],
        "ours, of noise": lambda: [likeliest(each, size) for each in noise],
    }
    note = f"maps of 21 classes on 40 x 40 cells, as a network gives them (channels last), to masks of {SIZE} pixels"
    timed = side_by_side(things, len(regions), scale=scale)
    return table("maps to masks", timed, "interpolate, argmax", note, "maps/s")
