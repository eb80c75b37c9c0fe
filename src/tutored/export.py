"""A student for use without our package: ONNX or `torch.export`, refused unless it computes the same."""

import io
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from tutored.checkpoint import load_checkpoint
from tutored.config import Config
from tutored.data import open_dataset
from tutored.errors import InputError, needing, told_of
from tutored.files import whole_file
from tutored.pictures import read_picture, upright
from tutored.students import Student, preprocess
from tutored.tasks import DenseTask
from tutored.tasks.detection.decode import BoxExport
from tutored.tasks.instances import InstanceExport, InstanceSegmentation

__all__ = ["NotEqualError", "Options", "Parity", "export_onnx", "export_program"]


class Options(NamedTuple):
    """What an exported network does beyond giving raw outputs.

    Attributes:
        nms: final boxes in the place of all candidates.
        mask: final maps of the S x S input, such as the class of each pixel, in the place of raw ones.
        half: computes in float16; inputs and outputs stay float32.
    """

    nms: bool = False
    mask: bool = False
    half: bool = False


class MapExport:
    """One dense task of an exported student; members as those of `BoxExport`."""

    option: ClassVar[str] = "mask"
    gives: ClassVar[str] = "maps"
    most_apart: ClassVar[tuple[float, float]] = (1e-4, 1e-2)

    def __init__(self, task: DenseTask, side: int) -> None:
        self.task, self.side = task, side
        self.facts = task.facts
        name, _, meaning = task.onnx(torch.zeros(1, task.channels, 1, 1), side)
        self.meanings = {"map": "on a grid over the whole input, as the head gives it (classes: logits)", name: meaning}

    def raw(self, raw: Tensor) -> dict[str, Tensor]:
        return {"map": raw.float()}

    def final(self, raw: Mapping[str, Tensor]) -> dict[str, Tensor]:
        name, value, _ = self.task.onnx(raw["map"], self.side)
        return {name: value}

    def apart(self, final: Mapping[str, Tensor], raw: Mapping[str, Tensor], tolerance: float) -> tuple[int, int]:
        ((name, want),) = self.final(raw).items()
        bound = tolerance * max(1.0, float(want.abs().max())) if want.is_floating_point() else 0
        return int(((final[name].double() - want.double()).abs() > bound).sum()), want.numel()


class Network(nn.Module):
    """A student's copy that answers as its exported file does: float32 [B, 3, S, S] to the outputs `names`, each with
    its meaning. Raises InputError: a task can't be exported, or an option asks for answers that no task gives.
    """

    def __init__(self, student: Student, tasks: Sequence[str], options: Options) -> None:
        super().__init__()
        self.student = deepcopy(student).to(memory_format=torch.contiguous_format).eval()
        self.options, self.size = options, student.size
        self.exports = {name: _export(self.student, name) for name in tasks}
        for export in (BoxExport, MapExport):
            if getattr(options, export.option) and not any(isinstance(each, export) for each in self.exports.values()):
                raise InputError(f"no task that was taught gives {export.gives}; export it without {export.option}")
        if options.half:
            # What is no weight, such as anchors, stays: float16 has steps of a quarter of a pixel from 256 on.
            weights = self.student.state_dict()
            fixed = {name: each for name, each in self.student.named_buffers() if name not in weights}
            self.student.half()
            for name, each in fixed.items():
                place, _, leaf = name.rpartition(".")
                setattr(self.student.get_submodule(place), leaf, each)
        with torch.no_grad():
            found = self.answers(torch.zeros(1, 3, self.size, self.size))
        self.names = {
            f"{task}_{name}": f"{str(value.dtype)[6:]} {['B', *value.shape[1:]]}: {self.exports[task].meanings[name]}"
            for task, values in found.items()
            for name, value in values.items()
        }

    def is_final(self, task: str) -> bool:
        """Whether a task has final outputs in the place of raw ones."""
        return bool(getattr(self.options, self.exports[task].option))

    def answers(self, images: Tensor) -> dict[str, dict[str, Tensor]]:
        """The outputs by task and name."""
        raw = self.student(images.half() if self.options.half else images)
        found = {task: export.raw(raw[task]) for task, export in self.exports.items()}
        return {
            task: self.exports[task].final(values) if self.is_final(task) else values for task, values in found.items()
        }

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(value for values in self.answers(images).values() for value in values.values())


def _export(student: Student, task: str) -> BoxExport | MapExport:
    head: Any = student.heads[task]
    if isinstance(head.task, InstanceSegmentation):
        return InstanceExport(head, student.size)
    if hasattr(head, "boxes_and_probs"):
        return BoxExport(head, student.size)
    if isinstance(head.task, DenseTask):
        return MapExport(head.task, student.size)
    raise InputError(f"the task {task}: answers of kind {head.task.kind} can't be exported yet")


TOLERANCE, TOLERANCE_HALF = 1e-4, 1e-2
"""Largest difference, as a share of the output's largest value (of 1, if that is less)."""
COUNT = 8
"""Pictures to check on, where the user names none."""
BATCH = 3


class NotEqualError(RuntimeError):
    """An exported network computes something else than PyTorch."""


class Sample(NamedTuple):
    """Pictures, and in words where they are from."""

    pictures: Sequence[Image.Image]
    words: str

    def batches(self, size: int) -> Iterator[Tensor]:
        """The first picture alone, the others in batches, as the network takes them."""
        pictures = self.pictures if len(self.pictures) > 1 else [*self.pictures] * BATCH
        for first in (0, *range(1, len(pictures), BATCH)):
            yield preprocess(pictures[first : first + BATCH if first else 1], size)


def choose_sample(config: Config, files: Sequence[Path | str]) -> Sample:
    """These pictures; without any, some that the run validates on; where they can't be read here, noise. Raises
    InputError: one of `files` is no picture.
    """
    if files:
        return Sample([upright(read_picture(file)) for file in files], f"{len(files)} picture(s)")
    data = config.data
    place, split = data.train, data.split
    if data.val_split and not data.held_out:
        place, split = data.val or data.train, data.val_split
    try:
        dataset = open_dataset(place, split)
        count = min(COUNT, len(dataset.ids))
        ids = [dataset.ids[index * len(dataset.ids) // count] for index in range(count)]
        return Sample([dataset.image(image_id) for image_id in ids], f"{len(ids)} image(s) of {dataset.source}/{split}")
    except InputError:
        side = config.student.size
        noise = np.random.default_rng(0).integers(0, 256, (COUNT, side, side, 3), dtype=np.uint8)
        return Sample([Image.fromarray(pixels) for pixels in noise], "noise: the run's images are not here")


class Parity(NamedTuple):
    """How far an exported network is from the student.

    Attributes:
        sample: the pictures it was measured on, in words.
        differences: raw output -> largest difference.
        largest: raw output -> its largest value in PyTorch.
        final: by task with final answers, how many of them (boxes, pixels) are others than PyTorch's, and how many
            there are.
    """

    sample: str
    tolerance: float
    differences: dict[str, float]
    largest: dict[str, float]
    final: dict[str, tuple[int, int]]

    def lines(self) -> list[str]:
        """The same for people."""
        found = [
            f"{name}: differ by up to {difference:.1g}, the largest value is {self.largest[name]:.3g}"
            for name, difference in self.differences.items()
        ]
        return found + [
            f"{task}: {apart} of {count} final answers differ" for task, (apart, count) in self.final.items()
        ]


def check(
    reference: Network, network: Network, answer: Callable[[Tensor], Mapping[str, NDArray[Any]]], sample: Sample
) -> Parity:
    """Compare `answer`, what was written, with the student: raw outputs with those of `reference`, which has no
    options, and final ones with what our decoding gives. Raises NotEqualError: too large a difference, or too many.
    """
    half = network.options.half
    tolerance = TOLERANCE_HALF if half else TOLERANCE
    parity = Parity(sample.words, tolerance, {}, {}, {})
    for images in sample.batches(network.size):
        with torch.no_grad():
            wanted = reference.answers(images)
        values = {name: torch.from_numpy(value) for name, value in answer(images).items()}
        for task, raw in wanted.items():
            prefix, export = f"{task}_", network.exports[task]
            if network.is_final(task):
                got = {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}
                before = parity.final.get(task, (0, 0))
                apart, count = export.apart(got, raw, tolerance)
                parity.final[task] = (before[0] + apart, before[1] + count)
                continue
            for name, want in raw.items():
                difference = float((values[prefix + name] - want).abs().nan_to_num(torch.inf).max())
                for table, value in ((parity.differences, difference), (parity.largest, float(want.abs().max()))):
                    table[prefix + name] = max(table.get(prefix + name, 0.0), value)
    where = f"on {sample.words}; nothing was written"
    for name, difference in parity.differences.items():
        if difference > tolerance * max(1.0, parity.largest[name]):
            raise NotEqualError(
                f"the exported network's {name} differ from PyTorch's by up to {difference:.2g}, the largest value is "
                f"{parity.largest[name]:.3g}, {where}"
            )
    for task, (apart, count) in parity.final.items():
        if apart > network.exports[task].most_apart[half] * count:
            raise NotEqualError(
                f"of the exported network's final answers for {task} {apart} differ from PyTorch's {count}, {where}"
            )
    return parity


OPSET = 17
ABOUT = "tutored.json"
"""The extra file of a program of `torch.export` that holds its metadata."""


def export_onnx(
    checkpoint: Path | str, out: Path | str, options: Options | None = None, pictures: Sequence[Path | str] = ()
) -> Parity:
    """Write a checkpoint's student as one ONNX file, any batch size; refused unless it computes the same.

    Input `images`: float32 [B, 3, S, S], RGB in 0..1. Outputs, for each task that was taught:

    - of boxes `{task}_candidates` float32 [B, A, 4], xyxy in pixels of the S x S input, not clipped, and `{task}_probs`
      float32 [B, A, C+1], class 0 background; with `nms` instead `{task}_boxes` [B, N, 4], clipped, by falling score,
      `{task}_scores` [B, N], `{task}_classes` int64 [B, N], 1..C, and `{task}_count` int64 [B], how many of the N rows
      (`decode.total`) hold a box;
    - of a dense task `{task}_map` float32 [B, channels, h, w]; with `mask` instead its final form, such as
      `{task}_mask` uint8 [B, S, S].

    What else is needed to use them stands in the file's metadata. Returns how far it is from PyTorch. Raises
    InputError: no checkpoint, a task of it can't be exported or gives no such answers, no picture, or `onnx` and
    `onnxruntime` are not installed. Raises NotEqualError: it differs from PyTorch, see `check`; nothing is written.

    Args:
        options: see `Options`; None gives raw outputs in float32.
        pictures: files to check it on; without any, see `choose_sample`.
    """
    with needing("exporting to ONNX needs", "onnx"):
        import onnx
        import onnxruntime
    config, reference, network = _networks(checkpoint, options or Options())
    model = trace(network)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])

    def answer(images: Tensor) -> dict[str, Any]:
        return dict(zip(network.names, session.run(list(network.names), {"images": images.numpy()}), strict=True))

    parity = check(reference, network, answer, choose_sample(config, pictures))
    onnx.helper.set_model_props(model, _about(network, config, parity))
    with whole_file(Path(out)) as temporary:
        temporary.write_bytes(model.SerializeToString())
    return parity


def export_program(
    checkpoint: Path | str, out: Path | str, *, half: bool = False, pictures: Sequence[Path | str] = ()
) -> Parity:
    """Write a checkpoint's student for `torch.export.load`, any batch size; refused unless it computes the same.

    Input and outputs are those of `export_onnx` without options, in a tuple; what else is needed to use them stands in
    the file's `tutored.json`, an extra file. Raises InputError: no checkpoint, a task of it can't be exported, or no
    picture. Raises NotEqualError: it differs from PyTorch, see `check`; nothing is written.

    Args:
        half: see `Options`.
        pictures: files to check it on; without any, see `choose_sample`.
    """
    config, reference, network = _networks(checkpoint, Options(half=half))
    sample = choose_sample(config, pictures)
    with torch.no_grad():
        program = torch.export.export(
            network,
            (torch.rand(2, 3, network.size, network.size),),
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
        )

    def saved(about: dict[str, str]) -> bytes:
        buffer = io.BytesIO()
        torch.export.save(program, buffer, extra_files={ABOUT: json.dumps(about)})
        return buffer.getvalue()

    # Our own file of a moment ago: no other is loaded this way, because what is loaded may hold pickles.
    loaded = torch.export.load(io.BytesIO(saved({}))).module()

    def answer(images: Tensor) -> dict[str, Any]:
        with torch.no_grad():
            return dict(zip(network.names, (output.numpy() for output in loaded(images)), strict=True))

    parity = check(reference, network, answer, sample)
    with whole_file(Path(out)) as temporary:
        temporary.write_bytes(saved(_about(network, config, parity)))
    return parity


def _networks(checkpoint: Path | str, options: Options) -> tuple[Config, Network, Network]:
    """The run's config, and the student without options and with them, for the tasks that were taught."""
    student, config = load_checkpoint(checkpoint)
    with told_of(checkpoint):
        return config, Network(student, config.taught, Options()), Network(student, config.taught, options)


def trace(network: Network) -> Any:
    """The network as an ONNX model."""
    import onnx

    buffer, images = io.BytesIO(), torch.rand(2, 3, network.size, network.size)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        # The newer exporter (dynamo=True) gives the same numbers at the same speed, but takes 20 s for this one's 1 s,
        # and another package, onnxscript.
        torch.onnx.export(
            network,
            (images,),
            buffer,  # type: ignore[arg-type]
            dynamo=False,
            opset_version=OPSET,
            input_names=["images"],
            output_names=list(network.names),
            dynamic_axes={name: {0: "batch"} for name in ("images", *network.names)},
        )
        shapes = [answer.shape for answer in network(images)]
    traced = onnx.load_from_string(buffer.getvalue())
    for output, (_, *sides) in zip(traced.graph.output, shapes, strict=True):
        for dimension, side in zip(output.type.tensor_type.shape.dim[1:], sides, strict=True):
            dimension.dim_value = side
    return traced


def _about(network: Network, config: Config, parity: Parity) -> dict[str, str]:
    """What using the file takes: text, or JSON where it is a list or dictionary."""
    tasks = {
        name: {"kind": task.kind, "names": task.labels.names} | network.exports[name].facts
        for name, task in network.student.tasks.items()
        if name in network.exports
    }
    size = network.size
    return {
        "tasks": json.dumps(tasks),
        "scores": json.dumps({name: network.student.scores[name] for name in tasks}),
        "preprocessing": f"RGB in 0..1, resized to {size} x {size} (bilinear with antialias, aspect ratio not kept)",
        "outputs": json.dumps(network.names),
        "precision": "float16, inputs and outputs float32" if network.options.half else "float32",
        "checked": json.dumps(parity._asdict()),
        "run_id": config.run_id,
        "made_by": f"tutored {version('tutored')}",
    }
