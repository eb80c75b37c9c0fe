"""Networks in ONNX files, run by onnxruntime; what their inputs and outputs mean is declared, see `Declaration`."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate, pad

from tutored.data.text import is_background
from tutored.errors import InputError, needing
from tutored.files import regular
from tutored.labels import COCO
from tutored.tasks.instances import Instances
from tutored.tasks.segmentation import SoftMap
from tutored.tutors import OnnxOptions, SessionOptions, outputs
from tutored.tutors import onnx_families as families
from tutored.tutors.onnx_families import Boxed, BoxesAndScores, Cells, FinalBoxes, Masks, Picture, declaration_path
from tutored.types import Size

FLOATS = {"tensor(float16)": np.float16, "tensor(float)": np.float32, "tensor(double)": np.float64}
"""Types of input that pictures are cast to."""
SLACK = 0.01
"""By how much the sum of a cell's probabilities may exceed one."""
FARTHEST = 8.0
"""Strides. The boxes of a YOLOX head are nearer to their cells in the median; coordinates in pixels seem farther."""


class OnnxTutor(outputs.NetworkTutor):
    """Boxes, a map, or both, as a declaration says what the outputs mean."""

    def __init__(self, options: OnnxOptions) -> None:
        """Load the model and try it with its declaration on a black picture. Raises InputError: no such file or device,
        no ONNX model, not what is declared, outputs without names, or onnxruntime is not installed.
        """
        self.options, self._path = options, options.weights
        digest = outputs.files_sha256([self._path, *data_files(self._path)], "the model")
        self._session = open_session(self._path, options)
        about = self._session.get_modelmeta().custom_metadata_map
        given, gives = self._session.get_inputs(), self._session.get_outputs()
        shapes = ({entry.name: entry.shape for entry in each} for each in (given, gives))
        self._declared, family = families.declaration_of(families.Graph(self._path, about, *shapes))
        declared = self._declared
        if family:
            told = declared.model_dump_json(exclude_defaults=True, exclude={"labels"})
            self.notes = (f"{self._path}: read as {family}: {told}; what {declaration_path(self._path)} says wins",)
        self._input, self._side = self._find_input()
        self._outputs = self._name_outputs(self._count_outputs(), about)
        self.labels = self._outputs.labels
        apart = {"labels", "input"} | (set() if declared.instances else {Instances.kind})
        self.identity = {
            "kind": "onnx",
            "tutor": self._path.stem,
            "weights": self._path.name,
            "weights_sha256": digest,
            "preprocessing": f"{self._side[0]} x {self._side[1]}, {declared.input.model_dump_json()}",
            "outputs": declared.model_dump(mode="json", exclude=apart),
            "score_floor": options.score_floor if declared.boxed else None,
            "nms_iou": self._nms_iou(declared.boxed[0]) if declared.boxed else None,
            "max_boxes": options.max_boxes if declared.boxed else None,
            "mask_floor": options.mask_floor if any(head.masks for head in declared.boxed) else None,
            "map_stride": options.stride if declared.segmentation else None,
        }

    def answers(self, image: Image.Image) -> Sequence[Any]:
        size = (image.height, image.width)
        pixels, placed = place(image, self._side, self._declared.input)
        found = self._run(pixels)
        heads = self._declared
        boxes = self._detect(heads.detection, found, placed, size) if heads.detection else ()
        masks = self._detect(heads.instances, found, placed, size)[1:] if heads.instances else ()
        return *boxes, *masks, self._segment(found, placed, size) if heads.segmentation else None

    def _nms_iou(self, head: Boxed) -> float | None:
        return head.nms_iou if self.options.nms_iou is None else self.options.nms_iou

    def _run(self, pixels: Tensor) -> dict[str, Tensor]:
        """The outputs for one picture, cast to the type of the input; float32, by name. Raises InputError: the model
        does not take it.
        """
        given = next(entry.type for entry in self._session.get_inputs() if entry.name == self._input)
        sizes = self._declared.input.sizes
        told = {sizes: np.array([self._side[::-1]])} if sizes else {}
        try:
            values = self._session.run(None, {self._input: pixels.numpy().astype(FLOATS[given])} | told)
            names = [output.name for output in self._session.get_outputs()]
            return {name: torch.from_numpy(value).float() for name, value in zip(names, values, strict=True)}
        except Exception as error:  # onnxruntime has no common base class for its errors
            reason = " ".join(str(error).split())
            raise InputError(
                f"{self._path}: does not take {list(pixels.shape)} as {self._input} alone ({reason}); declare its "
                "`input`, or export it with one input, of floats, for one picture"
            ) from error

    def _raw_boxes(self, head: Boxed, found: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Boxes xyxy [A, 4] in pixels of the network's input, and scores [A, N] of its outputs."""
        if isinstance(head, FinalBoxes):
            boxes, scores = final_boxes(found, head, self._path)
            return _xyxy(boxes, head, self._side), scores
        if isinstance(head, Cells):
            decode = {"yolox": yolox_boxes, "nanodet": nanodet_boxes}[head.kind]
            return decode(found[head.output][0], self._side, self._path)
        boxes, scores = found[head.boxes][0], found[head.scores][0]
        if head.transposed:
            boxes, scores = boxes.T, scores.T
        if head.boxes == head.scores:
            boxes, scores = boxes[:, :4], boxes[:, 4 : boxes.shape[1] - _count_prototypes(found, head.masks)]
            if scores.shape[1] == 2 and not head.objectness and _is_numbered(*scores.unbind(1)):
                raise InputError(
                    f"{self._path}: the last column of {head.scores} holds class numbers, so that its boxes are final "
                    f"ones; declare `detection: {{kind: final_boxes, boxes: {head.scores}}}`"
                )
        probs = self._probabilities(scores, head.activation, 1)
        return _xyxy(boxes, head, self._side), probs[:, :1] * probs[:, 1:] if head.objectness else probs

    def _raw_masks(
        self, head: Boxed, found: Mapping[str, Tensor], boxes: Tensor, rows: Tensor, places: Tensor
    ) -> Tensor:
        """Masks [K, m, m] of the boxes [A, 4] with these rows, in `places` [K, 4], both in pixels of the input."""
        assert isinstance(head, BoxesAndScores | FinalBoxes) and head.masks
        masks = head.masks
        values = found[masks.output]
        if masks.over == "prototypes":
            name = masks.shares or head.boxes
            table = found[name].reshape(found[name].shape[-2:])
            shares = (table.T if isinstance(head, BoxesAndScores) and head.transposed else table)[rows]
            values = torch.einsum("kp,phw->khw", shares[:, -values.shape[1] :], values[0])
        else:
            maps = values.reshape(-1, *values.shape[-2:])
            if len(maps) != len(boxes):
                raise InputError(
                    f"{self._path}: masks {list(values.shape)} of {len(boxes)} boxes; declare other `masks`"
                )
            values = maps[rows]
        values = values.sigmoid() if masks.activation == "sigmoid" else values
        values = outputs.probabilities(values, self._path, "declare `masks.activation`")
        which = torch.arange(len(rows))
        if masks.over != "boxes":
            return outputs.masks_in_boxes(values, places, which, self._side)
        near, far = boxes[rows].chunk(2, dim=1)
        places = (places - near.repeat(1, 2)) / (far - near).repeat(1, 2)
        return outputs.masks_in_boxes(values, places, which, (1, 1))

    def _detect(self, head: Boxed, found: Mapping[str, Tensor], placed: "Placed", size: Size) -> Sequence[Any]:
        boxes, scores = self._raw_boxes(head, found)
        self._check_count(scores.shape[1])
        scores = pad(scores, (0, len(self._outputs) - scores.shape[1]))[:, self._outputs.used]
        corner, scale = (boxes.new_tensor(pair).repeat(2) for pair in (placed.corner, placed.scale))

        def masks(rows: Tensor, places: Tensor) -> Tensor:
            return self._raw_masks(head, found, boxes, rows, places * scale + corner)

        wanted, nms_iou = masks if head.masks else None, self._nms_iou(head)
        return outputs.detected((boxes - corner) / scale, scores, self.options, nms_iou, size, wanted)

    def _check_count(self, count: int) -> None:
        """Refuse a class number beyond the names."""
        if count > len(self._outputs):
            raise InputError(
                f"{self._path}: class {count - 1}, but {len(self._outputs)} names, numbered from 0; name all "
                "classes, `background` included where it has the number 0"
            )

    def _raw_map(self, found: Mapping[str, Tensor]) -> Tensor:
        """Probabilities of the outputs, [N, h, w]; those of sigmoids may exceed one in sum."""
        head = self._declared.segmentation
        assert head is not None
        values = found[head.logits][0]
        if head.activation == "numbers":
            return outputs.one_hot(values, self._path)
        probs = self._probabilities(values, head.activation, 0)
        most = float(probs.sum(0).max())
        if head.activation == "none" and most > 1 + SLACK:
            raise InputError(
                f"{self._path}: {head.logits} sums to {most:.3g} in a cell, not to one; export "
                "what its activation takes, and declare that (`softmax`, `sigmoid`)"
            )
        return probs

    def _segment(self, found: Mapping[str, Tensor], placed: "Placed", size: Size) -> SoftMap:
        head = self._declared.segmentation
        assert head is not None
        raw = self._raw_map(found)
        self._check_count(len(raw))
        probs = self._outputs.remap(pad(raw, (0, 0) * 2 + (0, len(self._outputs) - len(raw))))
        if head.activation != "softmax":
            probs = outputs.with_background(probs)
        if placed.inner != self._side or head.align_corners:
            probs = interpolate(probs[None], self._side, mode="bilinear", align_corners=head.align_corners)[0]
            x, y = placed.corner
            probs = probs[:, y : y + placed.inner[0], x : x + placed.inner[1]]
        return SoftMap(map=outputs.on_cells(probs, size, self.options.stride))

    def _probabilities(self, values: Tensor, activation: str, dim: int) -> Tensor:
        if activation == "softmax" and values.shape[dim] == 1:
            raise InputError(
                f"{self._path}: a softmax over one output is 1 everywhere; declare `activation: sigmoid`, or `none`"
            )
        if activation != "none":
            values = values.softmax(dim) if activation == "softmax" else values.sigmoid()
        return outputs.probabilities(values, self._path, "declare `activation`")

    def _find_input(self) -> tuple[str, tuple[int, int]]:
        """Name and (height, width) of the network's input."""
        declared = self._declared.input
        given = {entry.name: entry.shape for entry in self._session.get_inputs()}
        name, sides = declared.name or next(iter(given), ""), len(declared.layout)
        if name not in given or len(given[name]) != sides:
            raise InputError(f"{self._path}: inputs {given}; declare the name of the picture's, with {sides} sides")
        first = declared.layout.index("h")
        own = given[name][first : first + 2]
        fixed = tuple(own) if all(isinstance(pixels, int) for pixels in own) else None
        side = declared.size or fixed
        if side is None:
            raise InputError(
                f"{self._path}: its input {name} has no fixed size; export it with one, or declare "
                f"`input.size: [height, width]` in {declaration_path(self._path)}"
            )
        if fixed not in (None, side):
            raise InputError(f"{self._path}: its input {name} is {own[0]} x {own[1]}, declared {declared.size}")
        return name, (side[0], side[1])

    def _count_outputs(self) -> int | None:
        """How many classes and others the outputs for a black picture distinguish; final boxes do not tell."""
        weights, declared = self._path, self._declared
        pixels, _ = place(Image.new("RGB", (64, 64)), self._side, declared.input)
        found = self._run(pixels)
        lacking = sorted(declared.names_of_outputs - found.keys())
        if lacking:
            raise InputError(
                f"{weights}: no output {lacking[0]!r}; possible: {', '.join(found)}; say what they mean in "
                f"{declaration_path(weights)}"
            )
        counts = []
        for head in declared.boxed:
            try:
                boxes, scores = self._raw_boxes(head, found)
            except (RuntimeError, IndexError) as error:
                shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in found.items())
                raise InputError(f"{weights}: not the declared boxes and scores ({shapes})") from error
            if boxes.dim() != 2 or boxes.shape[1] != 4 or scores.dim() != 2 or len(scores) != len(boxes):
                raise InputError(
                    f"{weights}: boxes {list(boxes.shape)} and scores {list(scores.shape)}, expected [1, A, 4] and "
                    "[1, A, classes]; `transposed: true` swaps the last two sides"
                )
            counts += [] if isinstance(head, FinalBoxes) else [scores.shape[1]]
        if declared.segmentation:
            logits, numbers = found[declared.segmentation.logits], declared.segmentation.activation == "numbers"
            if logits.dim() != 4 - numbers:
                wanted = "[1, height, width]" if numbers else "[1, classes, height, width]"
                raise InputError(f"{weights}: logits {list(logits.shape)}, expected {wanted}")
            counts += [] if numbers else [len(self._raw_map(found))]
        if len(set(counts)) > 1:
            raise InputError(f"{weights}: heads of {' and '.join(map(str, counts))} classes; one list names all")
        return int(counts[0]) if counts else None

    def _name_outputs(self, count: int | None, about: Mapping[str, str]) -> outputs.ClassOutputs:
        """The classes of the outputs: as the user says, else the declaration, else the model's metadata. Raises
        InputError: they are not named, or there is another number of names.
        """
        wanted = self._declared.labels if self.options.labels is None else self.options.labels
        where = self._declared.background
        if isinstance(wanted, tuple):
            names = list(wanted)
        elif wanted is not None:
            beside = self.options.labels is None and str(wanted) not in outputs.KNOWN_OUTPUTS
            place = self._path.parent / wanted if beside else wanted
            where = where or (None if count is None else "first")
            if count is None and str(place) not in outputs.KNOWN_OUTPUTS:
                names = outputs.read_names(Path(place))
            else:
                names = outputs.read_outputs(place, count)
        else:
            names = families.stated_names(about)
            if not names and isinstance(self._declared.detection, Cells) and count == len(COCO.classes):
                names = list(COCO.classes)
        lacks = len(names) == count - 1 if count else where == "first" and not any(map(is_background, names))
        if names and where and lacks:
            names = ["background", *names] if where == "first" else [*names, "background"]
        if not names or count not in (None, len(names)):
            known = f"{len(names)} names are given" if names else "no names are known"
            raise InputError(
                f"{self._path}: {count or 'final'} outputs, but {known}; give labels=FILE with one name a line, "
                "background included (coco-91: as COCO numbers its classes), or declare `labels`; where its rows are "
                "final boxes (x1, y1, x2, y2, score, class), declare `kind: final_boxes`"
            )
        return outputs.ClassOutputs(names, str(self._path))


class Placed(NamedTuple):
    """Where a picture lies on the network's input: its (x, y) corner and (height, width) there, and (x, y) scale."""

    corner: tuple[int, int]
    inner: tuple[int, int]
    scale: tuple[float, float]


def place(image: Image.Image, side: tuple[int, int], how: Picture) -> tuple[Tensor, Placed]:
    """A picture as the network wants it, float32 [1, 3, *side] or as its layout says, and where it lies."""
    inner, corner, scale = side, (0, 0), (side[1] / image.width, side[0] / image.height)
    if how.fit == "letterbox":
        least = min(side[0] / image.height, side[1] / image.width)
        inner, scale = (max(1, int(image.height * least)), max(1, int(image.width * least))), (least, least)
        if how.corner == "centre":
            corner = ((side[1] - inner[1]) // 2, (side[0] - inner[0]) // 2)
    colour = image.convert("RGB")
    if how.antialias:
        colour = colour.resize(inner[::-1], Image.Resampling.BILINEAR)
    picture = torch.from_numpy(np.array(colour)).permute(2, 0, 1)[None].float()
    if not how.antialias:
        picture = interpolate(picture, inner, mode="bilinear")
    x, y = corner
    picture = picture.flip(1) if how.colours == "bgr" else picture
    canvas = torch.tensor(how.fill).expand(1, 3)[..., None, None].repeat(1, 1, *side)
    canvas[:, :, y : y + inner[0], x : x + inner[1]] = picture
    mean, deviation = (torch.tensor(channels)[:, None, None] for channels in (how.mean, how.deviation))
    if how.white != 255 or mean.any() or (deviation != 1).any():
        canvas = (canvas * (how.white / 255) - mean) / deviation
    laid = canvas.permute(0, 2, 3, 1).contiguous() if how.layout.endswith("hwc") else canvas
    return laid if how.layout.startswith("n") else laid[0], Placed(corner, inner, scale)


def yolox_boxes(output: Tensor, side: tuple[int, int], weights: Path) -> tuple[Tensor, Tensor]:
    """Boxes xyxy [A, 4] in pixels of the network's input, and scores [A, C], of a YOLOX head (Ge et al. 2021). Raises
    InputError: the output has another shape, holds pixels, or no probabilities.

    Args:
        output: [A, 5 + C] over the cells of strides 8, 16, 32: centre offset and log size in units of the stride,
            objectness and class probabilities behind their sigmoids. A class's score is the product of both.
    """
    places, strides = _cells(output, "yolox", 5, side, weights)
    offset = float(output[:, :2].abs().median())
    if offset > FARTHEST:
        raise InputError(
            f"{weights}: half of its boxes are {offset:.0f} strides or more from their cells, as if they were pixels; "
            "export it without --decode_in_inference"
        )
    sure = outputs.probabilities(output[:, 4:], weights, "export the head with its sigmoids")
    centres, halves = (output[:, :2] + places) * strides, output[:, 2:4].exp() * strides / 2
    return torch.cat([centres - halves, centres + halves], dim=1), sure[:, :1] * sure[:, 1:]


def nanodet_boxes(output: Tensor, side: tuple[int, int], weights: Path) -> tuple[Tensor, Tensor]:
    """The same of a NanoDet-Plus head, whose cells lie at their upper left corners.

    Args:
        output: [A, C + 4 * 8] over the cells of strides 8, 16, 32, 64: class probabilities behind their sigmoids, and
            for each side of the box logits of its distance, 0 to 7 strides (Li et al. 2020).
    """
    places, strides = _cells(output, "nanodet", 4 * families.BINS, side, weights)
    sure = outputs.probabilities(output[:, : -4 * families.BINS], weights, "export the head with its sigmoids")
    shares = output[:, -4 * families.BINS :].reshape(-1, 4, families.BINS).softmax(2)
    near, far = (shares @ torch.arange(float(families.BINS))).chunk(2, dim=1)
    return torch.cat([places - near, places + far], dim=1) * strides, sure


def _cells(output: Tensor, kind: str, extra: int, side: tuple[int, int], weights: Path) -> tuple[Tensor, Tensor]:
    """The (x, y) of the cells in units of their strides [A, 2], and the strides [A, 1]."""
    grids = []
    for stride in families.STRIDES[kind]:
        cells = torch.cartesian_prod(*(torch.arange(-(-pixels // stride)) for pixels in side)).flip(1)
        grids.append(torch.cat([cells, torch.full((len(cells), 1), stride)], dim=1))
    cells = torch.cat(grids).float()
    if output.dim() != 2 or len(output) != len(cells) or output.shape[1] <= extra:
        raise InputError(
            f"{weights}: output {[1, *output.shape]}, a head of the kind {kind} gives [1, {len(cells)}, {extra} + "
            f"classes] here; say what other heads mean in {declaration_path(weights)}"
        )
    return cells[:, :2], cells[:, 2:]


def final_boxes(found: Mapping[str, Tensor], head: FinalBoxes, weights: Path) -> tuple[Tensor, Tensor]:
    """Boxes [A, 4] as they are, and scores [A, N], 0 but for each one's own class; N - 1 is the highest class number.
    Raises InputError: an output has another shape, scores that are no probabilities, or class numbers that are none.
    `found` is the model's outputs, see `FinalBoxes`.
    """
    rows, apart = found[head.boxes], [found[name] for name in (head.scores, head.classes) if name]
    more = _count_prototypes(found, head.masks)
    width, count = 6 - len(apart) + more, rows.shape[-2] if rows.dim() > 1 else 0
    if rows.dim() not in (2, 3) or rows.numel() != count * width or any(each.numel() != count for each in apart):
        shapes = " and ".join(str(list(each.shape)) for each in (rows, *apart))
        raise InputError(
            f"{weights}: output {shapes}, final boxes are [1, boxes, {width}]: x1, y1, x2, y2, score and class, as "
            "far as `scores` and `classes` are no outputs of their own"
        )
    rows = rows.reshape(count, width)
    columns = iter(rows[:, 4:].unbind(1))
    scores, numbers = (found[name].flatten() if name else next(columns) for name in (head.scores, head.classes))
    scores = outputs.probabilities(scores, weights, "final boxes have the score in the fifth column")
    return rows[:, :4], (outputs.one_hot(numbers * (scores > 0), weights) * scores).T


def _count_prototypes(found: Mapping[str, Tensor], masks: Masks | None) -> int:
    """How many columns of the boxes' output are shares of prototypes."""
    return found[masks.output].shape[1] if masks and masks.over == "prototypes" and not masks.shares else 0


def _is_numbered(scores: Tensor, numbers: Tensor) -> bool:
    """Whether the second column holds class numbers beside scores, instead of scores of a second class."""
    whole = [bool((column == column.round()).all()) for column in (scores, numbers)]
    return whole == [False, True] and bool((numbers >= 1).any())


def _xyxy(boxes: Tensor, head: BoxesAndScores | FinalBoxes, side: tuple[int, int]) -> Tensor:
    if head.unit == "normalised":
        boxes = boxes * boxes.new_tensor([side[1], side[0]] * 2)
    near, far = boxes[:, :2], boxes[:, 2:]
    if head.format == "cxcywh":
        return torch.cat([near - far / 2, near + far / 2], dim=1)
    return torch.cat([near, near + far], dim=1) if head.format == "xywh" else boxes


def data_files(weights: Path) -> list[Path]:
    """The files that hold a part of a model's weights, by name; none where it can't be read."""
    with needing("the tutor `onnx` needs", "onnx"):
        import onnx
        from google.protobuf.message import DecodeError, Message

    def locations(message: Message) -> Iterator[str]:
        if isinstance(message, onnx.TensorProto):
            yield from (entry.value for entry in message.external_data if entry.key == "location")
        for _, value in message.ListFields():
            for each in [value] if isinstance(value, Message) else value if hasattr(value, "add") else ():
                yield from locations(each)

    try:
        named = {*locations(onnx.ModelProto.FromString(regular(weights).read_bytes()))}
    except (OSError, DecodeError):
        return []
    return [weights.parent / name for name in sorted(named)]


def open_session(weights: Path, options: SessionOptions) -> Any:
    """onnxruntime's session. Raises InputError: no such device, no ONNX model, or onnxruntime is not installed."""
    with needing("the tutor `onnx` needs", "onnx"):
        import onnxruntime
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 3  # errors; a network whose answers have no fixed length warns at each picture
    known = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}
    here = {name: provider for name, provider in known.items() if provider in onnxruntime.get_available_providers()}
    if options.device not in (None, *here):
        raise InputError(f"device {options.device}: onnxruntime has {', '.join(here)} here; give one of them")
    providers = [here[options.device]] if options.device else list(here.values())
    try:
        session = onnxruntime.InferenceSession(str(weights), settings, providers=providers)
        # Read here, because texts that are not UTF-8 fail only now.
        [entry.name for entry in (*session.get_inputs(), *session.get_outputs())]
        session.get_modelmeta()
        return session
    except Exception as error:  # onnxruntime has no common base class for its errors
        raise InputError(f"{weights}: not an ONNX model that onnxruntime can load ({error})") from error
