"""All that the benchmarks need of tutored: data and a store, a config, a run that is stepped by hand, students."""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any
from unittest import mock

import onnxruntime
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader

from benchmarks.harness import SMALLEST
from tutored.checkpoint import save_checkpoint
from tutored.config import Config, make_config
from tutored.data import open_dataset
from tutored.data.views import Subset
from tutored.engine.supervision import open_supervision
from tutored.engine.trainer import Trainer
from tutored.export import Options, export_onnx
from tutored.labels import VOC, ClassMap
from tutored.predict import Predictor
from tutored.scenes import make_scenes
from tutored.softlabels import Remapped, Store
from tutored.softlabels.writer import finish, look, write_part
from tutored.students import Precision, Student, backbone, make_student
from tutored.tasks import open_task, task_class
from tutored.tasks.detection import SoftBoxes
from tutored.tasks.segmentation import SoftMap
from tutored.tutors import open_tutor
from tutored.tutors.label import label
from tutored.types import IGNORE, SoftLabels

__all__ = ["SoftMap", "Store", "Student", "Subset", "label", "open_dataset", "open_tutor"]

SIZE = (500, 375)
"""Width and height of the made-up scenes: VOC's usual ones."""
SMALL = (160, 120)
STRIDE, PART_ROWS = 8, 64
TASKS = ("detection", "segmentation")
POLICIES = {"ground truth": "ground_truth", "tutors": "replace", "both": "both"}
LIGHT, BLITZNET = ({"kind": "blitznet", "preset": name} for name in ("light", "blitznet300-s8"))
TINY = {"kind": "blitznet", "backbone": "test_resnet", "size": 64}
TINY |= {"extra": 2, "extra_width": 32, "up_width": 16, "map_width": 8}
"""Of tests."""


def students(scale: float) -> dict[str, tuple[dict[str, Any], int]]:
    """By name, the students that are measured, and a batch that suits two cores; a test's below `SMALLEST`."""
    if scale < SMALLEST:
        return {"a test's student, 64 px": (TINY, 2)}
    named: dict[str, tuple[dict[str, Any], int]] = {f"compact, {size} px": (compact(size), 16) for size in (160, 320)}
    return named | {"BlitzNet300-s8, ResNet-50": (BLITZNET, 4)}


def compact(size: int) -> dict[str, Any]:
    """The default student, frozen and folded as with pretrained weights, which are random ones here."""
    weights = Path(tempfile.gettempdir(), "tutored-benchmarks-lite0.safetensors")
    if not weights.exists():
        save_file(timm.create_model("tf_efficientnet_lite0").state_dict(), weights)
    return {"kind": "compact", "size": size, "weights": str(weights)}


class Repeater:
    """A tutor that repeats the ground truth, nine parts in ten, so that a store has the usual shape and size."""

    identity: Mapping[str, Any] = {"kind": "repeater", "score_floor": 0.0}

    def __init__(self, dataset: Any) -> None:
        self.dataset, self.labels = dataset, dataset.labels[TASKS[0]]

    def __call__(self, images: Sequence[Image.Image], image_ids: Sequence[str]) -> list[SoftLabels]:
        return [self._answer(self.dataset.ground_truth(image_id)) for image_id in image_ids]

    def _answer(self, truth: Any) -> SoftLabels:
        (boxes, mask), grid = (truth.tasks[task] for task in TASKS), [-(-side // STRIDE) for side in truth.size]
        drawn = F.one_hot(torch.where(mask.mask == IGNORE, 0, mask.mask).long(), len(self.labels))
        cells = F.interpolate(drawn.permute(2, 0, 1).float()[None], size=grid, mode="area")[0]
        probs = 0.9 * F.one_hot(boxes.classes, len(self.labels)).float()
        probs[:, 0] += 0.1
        soft = SoftBoxes(boxes_xyxy=boxes.boxes_xyxy, classes=boxes.classes, probs=probs)
        return SoftLabels.of(truth.size, soft, SoftMap(map=cells / cells.sum(0)))


def make_data(work: Path, images: int, scale: float = 1.0, *, size: tuple[int, int] = SIZE) -> tuple[str, Path]:
    """A data set such as `voc:FOLDER` with a split `train`, and its store; kept for the next time.

    Args:
        images: how many at scale 1; at least 32, but 8 small ones below `SMALLEST`.
    """
    images, size = (8, SMALL) if scale < SMALLEST else (max(32, round(images * scale)), size)
    name = f"{images}-{size[0]}x{size[1]}"
    scenes, store = work / f"scenes-{name}", work / f"store-{name}"
    if not scenes.exists():
        make_scenes(scenes, "student", {"train": images}, seed=0, size=size)
    dataset = open_dataset(f"voc:{scenes}", "train")
    label(Repeater(dataset), dataset, store, resume=store.exists())
    return f"voc:{scenes}", store


def open_answers(store: Path, kind: str) -> Mapping[str, SoftLabels]:
    """A store's answers for one kind of task by image id, remapped to VOC's classes."""
    opened = Store.open(store)
    return Remapped(opened, ClassMap.by_name(opened.labels, VOC), task_class(kind)(kind, VOC))


def write_rows(path: Path, rows: int) -> None:
    """A store of so many made-up answers, two boxes and a small map each, where it is not there yet."""
    identity = {"kind": "synthetic", "labels": ["background", "cat"], "images": rows}
    if look(path, identity, join=True):
        return
    boxes, probs = torch.tensor([[0.0, 0, 10, 10], [5, 5, 50, 60]]), torch.tensor([[0.2, 0.8], [0.6, 0.4]])
    cells = torch.full((2, 8, 8), 0.5)
    soft = SoftBoxes(boxes_xyxy=boxes, classes=torch.tensor([1, 1]), probs=probs)
    answer = SoftLabels.of((64, 64), soft, SoftMap(map=cells))
    for part, first in enumerate(range(0, rows, PART_ROWS)):
        ids = [row_name(row) for row in range(first, min(first + PART_ROWS, rows))]
        write_part(path, identity, part, ids, [answer] * len(ids))
    finish(path)


def row_name(row: int) -> str:
    return f"image{row:08d}"


def make_run_config(
    spec: str, store: Path, student: Mapping[str, Any], policy: str = "ground_truth", **sections: Mapping[str, Any]
) -> Config:
    """A complete config; both tasks have the same policy, and `sections` change further keys."""
    task = {"policy": policy} | ({} if policy == "ground_truth" else {"store": str(store)})
    changed = {
        "data": {"train": spec, "val_split": None},
        "tasks": dict.fromkeys(TASKS, task),
        "student": student,
        "train": {"workers": 0, "lr": 1e-3, "micro_batch": None, "epochs": 100},
    }
    return make_config({name: {**changed.get(name, {}), **sections.get(name, {})} for name in changed | sections})


class Run:
    """A training that is stepped by hand."""

    def __init__(self, config: Config) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.trainer = Trainer(config, open_supervision(config), Path(self._folder.name))
        self.examples, self.model, self.device = self.trainer.training, self.trainer.model, self.trainer.device
        self.step = self.trainer.step
        self.batch_size: int = config.train.batch

    def batches(self, workers: int = 0) -> Iterator[Any]:
        """The run's batches in its order, without end; the processes that read live on from one pass to the next."""
        how = {"num_workers": workers, "persistent_workers": workers > 0, "pin_memory": self.device.type == "cuda"}
        plan, collate = list(self.trainer.plan), self.examples.collate
        loader: DataLoader[Any] = DataLoader(self.examples, batch_sampler=plan, collate_fn=collate, **how)
        return (batch for _ in cycle([0]) for batch in loader)

    def loop(self, workers: int = 0) -> Callable[[], None]:
        """One step of a training: take a batch and learn from it."""
        batches = self.batches(workers)
        return lambda: self.step(next(batches))

    def resident(self) -> Any:
        """A batch in the device's memory."""
        return next(self.batches()).map(lambda tensor: tensor.to(self.device))

    def gradients(self, batch: Any) -> None:
        """Network, assignment and loss, forward and backward, without an update."""
        self.trainer.backward(batch)
        self.trainer.optimizer.zero_grad(set_to_none=True)

    def network(self, batch: Any, *, update: bool = False) -> None:
        """The bare network, forward and backward on a made-up loss; with `update`, the optimiser's step too."""
        images = batch.images.to(torch.float32, memory_format=torch.channels_last).div_(255)
        self.trainer.accelerator.backward(total(self.model(images)))
        if update:
            self.trainer.optimizer.step()
        self.trainer.optimizer.zero_grad(set_to_none=True)


def in_one_piece(step: Callable[[], object]) -> Callable[[], None]:
    """The step with gradients of depthwise convolutions as torch computes them."""

    def plain(x: Tensor, weight: Tensor, *given: Any) -> Tensor:
        return F.conv2d(x, weight, *given, groups=len(weight))

    def run() -> None:
        with mock.patch.object(backbone._Convolve, "apply", plain):
            step()

    return run


def total(outputs: Any) -> Tensor:
    """The sum of the means of every tensor that a network computed, in whatever dictionaries and tuples."""
    return torch.stack([leaf.float().mean() for leaf in tree_leaves(outputs) if leaf.requires_grad]).sum()


def untrained(shape: Mapping[str, Any], tasks: Sequence[str] = TASKS) -> Student:
    """An untrained student of VOC's classes, with a head for each of these tasks."""
    config = _config_of(shape)
    torch.manual_seed(0)
    return make_student(config.student, {task: open_task(task, VOC, config.tasks[task]) for task in tasks})


def _config_of(shape: Mapping[str, Any]) -> Config:
    # An untrained compact student gives every class .01, the usual floor, so that rounding would decide what is kept.
    tasks = {"detection": {"decode": {"score_floor": 0.02}}, "segmentation": {}}
    return make_config({"data": {"train": "voc:somewhere"}, "student": shape, "tasks": tasks})


def save_untrained(path: Path, shape: Mapping[str, Any]) -> Path:
    """A checkpoint of an untrained student."""
    save_checkpoint(path, untrained(shape), _config_of(shape))
    return path


def make_predictor(shape: Mapping[str, Any], precision: Precision = "fp32") -> Predictor:
    """An untrained student, loaded as users load theirs."""
    with tempfile.TemporaryDirectory() as name:
        return Predictor.load(save_untrained(Path(name, "checkpoint"), shape), "cpu", precision=precision)


def make_session(shape: Mapping[str, Any], options: Options = Options()) -> onnxruntime.InferenceSession:  # noqa: B008
    """The student's ONNX file, opened with as many threads as torch has."""
    session = onnxruntime.SessionOptions()
    session.intra_op_num_threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        export_onnx(save_untrained(folder / "checkpoint", shape), folder / "student.onnx", options)
        content = (folder / "student.onnx").read_bytes()
    return onnxruntime.InferenceSession(content, session, ["CPUExecutionProvider"])
