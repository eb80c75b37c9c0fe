"""One network for both tasks against what one would take instead: two of its kind, BlitzNet, two of Ultralytics'."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from benchmarks import package
from benchmarks.harness import AbsentError, Table, side_by_side, table
from tutored.export import Options
from tutored.students import preprocess
from tutored.students.backbone import fold

JOINT, PAIR = "joint student", "YOLO11n and YOLO26n-sem"
PEERS = ("yolo11n.yaml", "yolo26n-sem.yaml")


def measure(work: Path, scale: float) -> Iterator[Table]:
    """For each student training steps and predictions; for the default one also pictures to answers."""
    for name, (shape, batch) in package.students(scale).items():
        alone = [package.untrained(shape, (task,)) for task in package.TASKS]
        networks = {JOINT: [package.untrained(shape)], "two students, same backbone": alone}
        size = alone[0].config.size
        if shape["kind"] == "compact":
            networks["BlitzNet, the light one"] = [package.untrained(package.LIGHT | {"size": size})]
        images = torch.rand(max(2, batch // 2), 3, size, size, generator=torch.Generator().manual_seed(0))
        note = f"{size} x {size} pixels into every network, batch {len(images)}, no loader"
        for title, do in (("training step", _step), ("prediction", _answer)):
            things = {who: do(nets, images) for who, nets in networks.items()}
            # What went before, such as a network of another size, weighs less on a thing that has just been done.
            timed = side_by_side(things, len(images), 3, scale=scale, before=lambda who, things=things: things[who]())
            yield table(f"{title}: {name}", timed, JOINT, note)
    for name, (shape, _) in package.students(scale).items():
        if shape["kind"] == "compact":
            yield from _pictures(name, shape, work, scale)


def _step(networks: list[package.Student], images: Tensor) -> Callable[[], None]:
    learning = [[each for each in net.parameters() if each.requires_grad] for net in networks]
    optimizers = [torch.optim.AdamW(each, lr=1e-5, foreach=True) for each in learning]

    def run() -> None:
        for net, optimizer in zip(networks, optimizers, strict=True):
            package.total(net.train()(images)).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return run


def _answer(networks: list[package.Student], images: Tensor) -> Callable[[], None]:
    answering = [deepcopy(net).eval() for net in networks]
    for net in answering:
        fold(net)  # as `tutored.load` does

    @torch.no_grad()
    def run() -> None:
        for net in answering:
            net(images)

    return run


def _pictures(name: str, shape: dict[str, Any], work: Path, scale: float) -> Iterator[Table]:
    """From a picture in memory to boxes and a map; the measuring stick is no dependency of this project."""
    try:
        pair = [import_module("ultralytics").YOLO(each) for each in PEERS]
    except ImportError as error:
        raise AbsentError(f"{error}; pip install ultralytics in an environment of its own") from error
    dataset = package.open_dataset(package.make_data(work, 32, scale)[0], "train")
    pictures = [dataset.image(image_id) for image_id in dataset.ids[:16]]
    predictor, session = package.make_predictor(shape), package.make_session(shape, Options(nms=True, mask=True))
    quick = package.make_predictor(shape, "bf16")
    size = predictor.student.size
    for batch in (1, 16):
        part: list[Image.Image] = pictures[:batch]
        things: dict[str, Callable[[], object]] = {
            PAIR: lambda part=part: [each.predict(part, imgsz=size, verbose=False) for each in pair],
            "the student, eager": partial(predictor, part),
            "the student, eager, bf16": partial(quick, part),
            "the student, ONNX Runtime": lambda part=part: session.run(
                None, {"images": preprocess(part, size).numpy()}
            ),
        }
        note = f"pictures of {part[0].size}; random weights, of which the pair's leave no box to suppress"
        timed = side_by_side(things, batch, scale=scale)
        yield table(f"picture to boxes and map: {name}, batch {batch}", timed, PAIR, note)
