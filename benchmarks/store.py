"""The store against the thesis' files, on photographs with answers of YOLOX-nano and DeepLab: bytes, and reading."""

from __future__ import annotations

import gc
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch
from xml.etree import ElementTree

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.data import real
from benchmarks.timing import Timed, side_by_side, table
from tutored.data import open_dataset
from tutored.data.part import Part
from tutored.labels import ClassMap
from tutored.softlabels import Folded, Store, store
from tutored.structures import SoftLabels
from tutored.tutors import open_tutor
from tutored.tutors.label import label

ROUNDS = 3
ARRAYS, COMPRESSED = "the thesis' files: .npy and XML", "the thesis' files: .npz and XML"
FIRST, NEXT = "our stores, first pass", "our stores, next passes"
ALONE = "our stores, each block for one image"
NOTE = (
    "boxes and maps of an image, in random order; ours with opening and the fold into our classes, the thesis' as they "
    "are. A pass decodes and folds each part of 64 images once; a store of more than 4,096 images is decoded by "
    "blocks of eight, and the larger it is, the more often a block is decoded for one of them alone"
)


def measure(folder: Path, scale: float) -> list[dict[str, Any]]:
    """Answers that are ready for training, from files that the system has in memory, or that it has to fetch."""
    dataset = open_dataset(f"voc:{real('data', 'voc2012-animals')}", "train_small")
    some = Part(dataset, "some", dataset.ids[: max(64, round(256 * scale))])
    boxes = open_tutor("onnx", weights=real("weights", "yolox_nano.onnx"), score_floor=1e-4)
    maps = open_tutor("files", folders=[real("data", "voc2012-animals-deeplab")], default_labels=dataset.labels)
    class_maps = {
        label(tutor, some, folder / f"real-{name}-{len(some.ids)}", resume=True): ClassMap.by_name(
            tutor.labels, dataset.labels
        )
        for name, tutor in (("boxes", boxes), ("maps", maps))
    }
    thesis = folder / f"real-thesis-{len(some.ids)}"
    _write_thesis(thesis, some.ids, _opened(class_maps))
    order = random.Random(0).sample(some.ids, len(some.ids))
    ways: dict[str, Callable[[], None]] = {
        ARRAYS: lambda: _read_thesis(thesis, order, ".npy"),
        COMPRESSED: lambda: _read_thesis(thesis, order, ".npz"),
        FIRST: lambda: _read_all(_opened(class_maps), order),
        ALONE: lambda: _read_all(_opened(class_maps, blocks=0), order),
    }
    ours = [file for path in class_maps for file in path.iterdir()]
    files = {name: [thesis / f"{each}{end}" for each in order for end in (name[19:23], ".xml")] for name in ways}
    files |= dict.fromkeys((FIRST, ALONE, NEXT), ours)
    kept = _opened(class_maps)
    warm = side_by_side({**ways, NEXT: lambda: _read_all(kept, order)}, len(order), ROUNDS)
    tables = [
        table("answers for training, files in memory", warm, ARRAYS, "images/s", NOTE),
        table("answers for training, files evicted", _evicted(ways, files, len(order)), ARRAYS, "images/s", NOTE),
    ]
    for row in (row for each in tables for row in each["rows"]):
        row["kB an image"] = round(sum(file.stat().st_size for file in files[row["name"]]) / len(order) / 1000, 2)
    return tables


def _opened(class_maps: Mapping[Path, ClassMap], blocks: int = store.CACHED_BLOCKS) -> list[Folded]:
    with patch.object(store, "CACHED_BLOCKS", blocks):
        return [Folded(Store.open(path), class_map) for path, class_map in class_maps.items()]


def _read_all(stores: Sequence[Folded], ids: Sequence[str]) -> None:
    for image_id in ids:
        for each in stores:
            each[image_id]


def _write_thesis(folder: Path, ids: Sequence[str], stores: Sequence[Folded]) -> None:
    """float32 [H, W, 21] of the picture's own size, plain and compressed, and an XML file of boxes (section 3.5)."""
    folder.mkdir(parents=True, exist_ok=True)
    for image_id in ids:
        if not (folder / f"{image_id}.xml").exists():
            boxes, maps = (each[image_id] for each in stores)
            assert maps.map is not None
            full = F.interpolate(maps.map[None], size=maps.size, mode="bilinear", align_corners=False)[0]
            dense = full.permute(1, 2, 0).contiguous().numpy()
            np.save(folder / f"{image_id}.npy", dense)
            np.savez_compressed(folder / f"{image_id}.npz", probs=dense)
            (folder / f"{image_id}.xml").write_bytes(_xml(boxes))


def _xml(answer: SoftLabels) -> bytes:
    root = ElementTree.Element("annotation")
    assert answer.boxes_xyxy is not None and answer.classes is not None
    rows = zip(answer.boxes_xyxy.tolist(), answer.classes.tolist(), answer.scores.tolist(), strict=True)
    for corners, number, score in rows:
        found = ElementTree.SubElement(root, "object")
        for name, value in {"name": number, "confidence": score}.items():
            ElementTree.SubElement(found, name).text = str(value)
        box = ElementTree.SubElement(found, "bndbox")
        for name, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True):
            ElementTree.SubElement(box, name).text = f"{value:.2f}"
    return ElementTree.tostring(root)


def _read_thesis(folder: Path, ids: Sequence[str], ending: str) -> None:
    for image_id in ids:
        dense = np.load(folder / f"{image_id}{ending}", allow_pickle=False)
        torch.from_numpy(dense if ending == ".npy" else dense["probs"])
        objects = ElementTree.parse(folder / f"{image_id}.xml").getroot()
        torch.tensor([[float(side.text or 0) for side in each[2]] for each in objects])
        torch.tensor([[float(each[0].text or 0), float(each[1].text or 0)] for each in objects])


def _evicted(
    ways: Mapping[str, Callable[[], None]], files: Mapping[str, Sequence[Path]], count: int
) -> dict[str, Timed]:
    """As `side_by_side`, but before each turn the system is asked to drop the files from its memory."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, do in ways.items():
            gc.collect()  # what is still mapped is not dropped
            for file in files[name]:
                opened = os.open(file, os.O_RDONLY)
                os.fsync(opened)
                os.posix_fadvise(opened, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(opened)
            started = time.perf_counter()
            do()
            seconds[name].append(time.perf_counter() - started)
    return {name: Timed(tuple(each), count) for name, each in seconds.items()}
