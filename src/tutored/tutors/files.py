"""Answers that lie in files already: boxes as COCO results or XML, class maps as arrays, or both."""

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np
import torch
from numpy.lib.npyio import NpzFile
from PIL import Image
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from tutored.data.text import read_xml
from tutored.errors import InputError, told_of
from tutored.files import regular, sha256
from tutored.labels import COCO, VOC, LabelSpace
from tutored.tasks.detection import Detection, SoftBoxes
from tutored.tasks.instances import Instances
from tutored.tasks.segmentation import Segmentation, SoftMap
from tutored.tutors import FilesOptions
from tutored.tutors.files_coco import CocoResults, Found, fit, read_number, read_score, soft_answers
from tutored.tutors.outputs import read_labels
from tutored.types import Dataset, Size, SoftLabels

FORMATS = {
    ".json": "COCO results",
    ".xml": "XML with confidences, a file for each image",
    ".npz": "probability maps, a file for each image",
    ".npy": "probability maps, a file for each image",
}
BOXES = (".json", ".xml")
IN_VOC_PIXELS = "tutored"
"""What `tutored convert --to voc` writes as the source of its annotations."""
KEY = "probs"
"""Of the array in a `.npz` file."""
SLACK = 0.05
"""How far a cell's probabilities may sum from one, for rounding; they are divided by their sum."""
MOST_BYTES = 2**30
"""No map is larger: 1000 x 1000 cells of 268 classes."""
LOOKED_AT = 8
"""Files that decide what the values of a folder are."""


class FilesTutor:
    """Boxes from COCO results or XML, maps from arrays; the formats are recognised by what the folders hold.

    Each box has its score on its class and the rest on background. See `CocoResults`, `ConfidenceXml`, `Maps`.
    """

    notes: Sequence[str] = ()

    def __init__(self, options: FilesOptions, dataset: Dataset | None = None) -> None:
        """Recognise the files and read what belongs to all images. Raises InputError: no known files, twice the same
        task, label spaces that differ, or a broken file.

        Args:
            dataset: the data set that will be labelled. Its classes are the files' where these do not state theirs, a
                COCO data set's ids are those of COCO results, and answers about none of its images are refused.
        """
        found = _recognise(options.folders, () if dataset is None else dataset.ids)
        default = {} if dataset is None else {kind: space for kind, space in dataset.labels.items() if space.classes}
        given = None if options.labels is None else read_labels(options.labels)
        self._missing = options.missing
        self._readers: list[CocoResults | ConfidenceXml | Maps] = []
        for suffix in sorted(found, key=BOXES.count):  # maps first: their channels may tell the classes of boxes
            root, drawn = found[suffix], default.get(Detection.kind)
            if suffix == ".json":
                self._readers.append(CocoResults(root, given, drawn, dataset))
            elif suffix == ".xml":
                self._readers.append(ConfidenceXml(root, given or drawn or VOC))
            else:
                self._readers.append(Maps(root, suffix, given, default.get(Segmentation.kind), options))
                given = self._readers[0].labels
        self.labels: LabelSpace = self._readers[-1].labels
        self.identity: dict[str, Any] = {
            "kind": "files",
            "tutor": " and ".join(reader.meaning for reader in reversed(self._readers)),
            "weights": ", ".join(root.name for root in options.folders),
            "weights_sha256": _digest(found),
            "preprocessing": None,
            "score_floor": None,
            "nms_iou": None,
            "map_stride": options.stride if isinstance(self._readers[0], Maps) else None,
            "missing": options.missing,
        }
        for reader in self._readers:
            self.identity |= reader.facts

    def __call__(self, images: Sequence[Image.Image], image_ids: Sequence[str]) -> list[SoftLabels]:
        sizes = [(image.height, image.width) for image in images]
        return [SoftLabels.of(size, *self._answers(each, size)) for each, size in zip(image_ids, sizes, strict=True)]

    def _answers(self, image_id: str, size: Size) -> Iterator[Any]:
        for reader in self._readers:
            found = reader.read(image_id, size)
            if found is None and self._missing == "refuse":
                raise InputError(
                    f"{reader.lacks(image_id)}; add it, label a split without {image_id}, "
                    'or give --missing allow (missing="allow") if the tutor has no answer for some images'
                )
            yield from reader.nothing if found is None else found


def _recognise(roots: Sequence[Path], image_ids: Collection[str]) -> dict[str, Path]:
    """What is where: suffix -> the JSON file, or the folder under which the files with that suffix are."""
    found: dict[str, Path] = {}
    for root in roots:
        files = sorted(filter(Path.is_file, root.iterdir())) if root.is_dir() else [root]
        suffixes = sorted({path.suffix for path in files} & FORMATS.keys()) or [
            suffix for suffix in FORMATS if any((root / f"{image_id}{suffix}").is_file() for image_id in image_ids)
        ]
        if not suffixes:
            known = "; ".join(f"{suffix}: {text}" for suffix, text in FORMATS.items())
            under = sorted({str(path.parent) for path in root.glob("*/*") if path.suffix in FORMATS})
            hint = f"; perhaps {' or '.join(under[:3])} is meant" if under else ""
            raise InputError(f"{root}: no answers of a tutor here; possible files: {known}{hint}")
        for suffix in suffixes:
            named = [path for path in files if path.suffix == suffix]
            if suffix == ".json" and len(named) > 1:
                raise InputError(f"{root}: {len(named)} JSON files; give the one with the results")
            other = next((other for other in found if (other in BOXES) == (suffix in BOXES)), None)
            if other:
                task = "boxes" if suffix in BOXES else "maps"
                raise InputError(f"{root}: {task} as {suffix}, but {found[other]} holds {task} as {other}; choose one")
            found[suffix] = named[0] if suffix == ".json" else named[0].parent if named else root
    return found


def _digest(found: Mapping[str, Path]) -> str:
    """SHA-256 over the names and the bytes of all files that may be read."""
    digest = hashlib.sha256()
    for suffix, root in sorted(found.items()):
        for path in [root] if not root.is_dir() else sorted(filter(Path.is_file, root.rglob(f"*{suffix}"))):
            name = path.name if path == root else path.relative_to(root).as_posix()
            digest.update(f"{name} {sha256(path)}\n".encode())
    return digest.hexdigest()


class ConfidenceXml:
    """VOC-like XML, a file for each image: `object` with `name`, `confidence` and `bndbox` (specification 8.1).

    Boxes are 0-based float pixels, as the thesis' tutor wrote them; where `source/annotation` is `IN_VOC_PIXELS`, they
    count from 1 and include the last pixel.
    """

    meaning, nothing, facts = "XML with confidences", (), dict[str, str]()

    def __init__(self, folder: Path, labels: LabelSpace) -> None:
        self.folder, self.labels = folder, labels

    def read(self, image_id: str, size: Size) -> tuple[SoftBoxes, Instances | None] | None:
        """The boxes of one image of `size` (height, width); None where there is no file. Raises InputError: the file is
        no such XML, a field is missing, a class unknown, a box outside the image.
        """
        path = self.folder / f"{image_id}.xml"
        if not path.exists():
            return None
        root = read_xml(path)
        first = 1 if root.findtext("source/annotation") == IN_VOC_PIXELS else 0
        found = (
            self._object(element, first, size, f"{path}: object {number}")
            for number, element in enumerate(root.findall("object"), start=1)
        )
        return soft_answers(found, len(self.labels))

    def lacks(self, image_id: str) -> str:
        return f"{self.folder}: no {image_id}.xml"

    def _object(self, element: Element, first: int, size: Size, what: str) -> Found | None:
        with told_of(what, "give labels=FILE with the tutor's classes"):
            index = self.labels.index((element.findtext("name") or "").strip())
        if index == 0:
            raise InputError(f"{what}: background is no object; remove it")
        x1, y1, x2, y2 = (
            read_number(element.findtext(f"bndbox/{field}"), field, what) for field in ("xmin", "ymin", "xmax", "ymax")
        )
        score = read_score(element.findtext("confidence"), "confidence", what)
        box = fit((x1 - first, y1 - first, x2, y2), size, what)
        return None if box is None else Found(box, index, score, None)


class Maps:
    """`<image id>.npz` (key `probs`) or `<image id>.npy`, [h, w, classes] with background first.

    Values are probabilities: floats, or uint8 with p = value / 255; the grid spans the whole image. Or they are
    detection confidences, as in the thesis' H x W x 21 arrays (specification 8.2): v_c where class c was found; channel
    0 is set to 0, since the background is decided when the store is read. Of a map finer than `stride` pixels of the
    image, probabilities are averaged over the cells; confidences, which are constant within an object, are read at the
    cells' centres.
    """

    nothing, facts = (), dict[str, str]()

    def __init__(
        self, folder: Path, suffix: str, labels: LabelSpace | None, default: LabelSpace | None, options: FilesOptions
    ) -> None:
        """Look at the first files. Raises InputError: a file is no such array, or its number of channels fits no label
        space. `labels` are the classes; None: `default`, VOC or COCO, whichever has as many names as the maps have
        channels.
        """
        self.folder, self.suffix, self.stride = folder, suffix, options.stride
        paths = sorted(folder.glob(f"*{suffix}"))[:LOOKED_AT]
        first = [_read_array(path) for path in paths]
        channels = len(first[0])
        spaces = [labels] if labels else [space for space in (default, VOC, COCO) if space]
        fitting = [space for space in spaces if len(space) == channels]
        if not fitting:
            raise InputError(
                f"{paths[0]}: {channels} channels, background included, fit no known classes "
                f"({', '.join(str(len(space)) for space in spaces)} names); give labels=FILE with one class a line"
            )
        self.labels = fitting[0]
        certain = suffix == ".npz" or all(map(_sums_to_one, first))
        auto = "probabilities" if certain else "confidences"
        self.meaning = f"maps of {auto if options.values == 'auto' else options.values}"
        self._confidences = self.meaning.endswith("confidences")

    def read(self, image_id: str, size: Size) -> tuple[SoftMap] | None:
        """The map of an image of `size` (height, width); None where there is no file. Raises InputError: no such array,
        another number of channels, a grid finer than the image, or values that are not what this folder's are.
        """
        path = self.folder / f"{image_id}{self.suffix}"
        if not path.exists():
            return None
        given = _read_array(path)
        if len(given) != len(self.labels):
            raise InputError(f"{path}: {len(given)} channels, expected {len(self.labels)}: background and the classes")
        if given.shape[1] > size[0] or given.shape[2] > size[1]:
            raise InputError(
                f"{path}: a grid of {tuple(given.shape[1:])} for an image of {size}; is it another image's?"
            )
        height, width = (
            min(have, -(-pixels // self.stride)) for have, pixels in zip(given.shape[1:], size, strict=True)
        )
        if self._confidences:
            given[0] = 0
            centres = interpolate(given[None], (height, width), mode="nearest-exact")[0]
            return (SoftMap(map=centres, confidences=True),)
        if not _sums_to_one(given):
            sums = given.sum(0)
            raise InputError(
                f"{path}: the values of a cell sum to {float(sums.min()):.3g} to {float(sums.max()):.3g}, "
                'not to one; normalise them, or give values="confidences" if they are detection scores'
            )
        return (SoftMap(map=adaptive_avg_pool2d(given / given.sum(0), (height, width))),)

    def lacks(self, image_id: str) -> str:
        return f"{self.folder}: no {image_id}{self.suffix}"


def _read_array(path: Path) -> Tensor:
    """An array [h, w, C] as float32 [C, h, w], values 0..1."""
    try:
        content = np.load(regular(path), allow_pickle=False)
        if isinstance(content, NpzFile):
            with content:
                if content.zip and any(entry.file_size > MOST_BYTES for entry in content.zip.infolist()):
                    raise ValueError(f"more than {MOST_BYTES // 2**20} MiB unpacked")
                content = content[KEY]
    except KeyError as error:
        raise InputError(
            f"{path}: holds no array {KEY!r}; save it as np.savez_compressed(file, {KEY}=array)"
        ) from error
    except Exception as error:  # zip files and arrays fail in all sorts of ways
        raise InputError(f"{path}: not an array that can be read without running code ({error})") from error
    kinds = ("uint8", "float16", "float32", "float64")
    if content.ndim != 3 or 0 in content.shape or content.dtype.name not in kinds:
        raise InputError(
            f"{path}: {content.dtype} {list(content.shape)}, expected [height, width, classes] of {', '.join(kinds)}"
        )
    values = content.astype(np.float32) / (255 if content.dtype == np.uint8 else 1)
    if not (values.min() >= 0 and values.max() <= 1.001):  # also true for NaN
        raise InputError(f"{path}: values from {values.min()} to {values.max()}; probabilities lie from 0 to 1")
    return torch.from_numpy(values).permute(2, 0, 1).clamp(max=1)


def _sums_to_one(values: Tensor) -> bool:
    return bool(((values.sum(0) - 1).abs() <= SLACK).all())
