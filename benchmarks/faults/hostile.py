"""Files made to do harm: to read elsewhere, to run code, to fill the memory, or never to end. Each is tried once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from benchmarks.faults import crafted, kept, readers
from benchmarks.faults.crafted import ALIASES, LAUGHS, NESTED, OUTSIDE, POSTSCRIPT, TAG, archive, changed, png, replaced
from benchmarks.faults.examples import (
    PETS,
    make_coco,
    make_confidences,
    make_list,
    make_onnx,
    make_results,
    make_voc,
    make_weights,
)
from tutored.checkpoint import load_checkpoint
from tutored.config import Student, load_config, make_config
from tutored.data import open_dataset
from tutored.predict import find_pictures
from tutored.softlabels import Store
from tutored.student import BlitzNet
from tutored.studies.setting import load_setting
from tutored.tutors import open_tutor

ANNOTATION, MASK, PICTURE = "Annotations/a.xml", "SegmentationClass/a.png", "JPEGImages/a.jpg"
BOX = {"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 1, 2, 2]}
TERABYTES = {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4 * 10**12]}
SEEDS = "studies: [thesis/table-12]\nseeds: 1000000000\n"

Try = Callable[[Path], object]


class Hostile(NamedTuple):
    """Something tried.

    Attributes:
        try_it: gets a folder of its own; raises InputError that names what is wrong. Where it is `harmless`, it raises
            nothing, and asserts that nothing has happened.
    """

    name: str
    try_it: Try
    harmless: bool = False


def weights(path: Path) -> object:
    """A pickle or safetensors file as a backbone's weights."""
    return BlitzNet(Student.model_validate(kept.CONFIG["student"] | {"weights": str(path)}), PETS)


def columns(**given: Any) -> Try:
    """A store in which columns hold other values, and are of another type if one is named."""

    def change(table: pa.Table) -> pa.Table:
        for name, (values, kind) in given.items():
            table = crafted.column(table, name, values, kind)
        return table

    return partial(crafted.table, change=change)


voc, scan = partial(replaced, make_voc, readers.voc), partial(replaced, make_voc, readers.scan)
answered = partial(replaced, make_confidences, readers.read_answers, "a.xml")
listed = partial(replaced, make_voc, readers.voc, "ImageSets/Main/train.txt")
coco = partial(changed, make_coco, lambda folder: readers.checked(f"coco:{folder}", "val"), "val.json")
described = partial(replaced, kept.make_checkpoint, kept.read_checkpoint, "checkpoint/checkpoint.json")
TENSORS = {
    "checkpoint": partial(replaced, kept.make_checkpoint, kept.read_checkpoint, "checkpoint/model.safetensors"),
    "state of a training": partial(replaced, kept.make_state, kept.read_state, "state/state.safetensors"),
    "backbone": partial(replaced, make_weights, lambda at: weights(at / "w.safetensors"), "w.safetensors"),
}
YAML = {
    "config": partial(replaced, kept.make_run, lambda at: load_config(at / "config.yaml"), "config.yaml"),
    "setting": partial(replaced, kept.make_study, lambda at: load_setting(at / "setting.yaml"), "setting.yaml"),
    "study": partial(replaced, kept.make_study, kept.read_study, "study.yaml"),
    "ONNX declaration": partial(replaced, make_onnx, kept.read_onnx, "m.yaml"),
}
JSON = {
    "COCO": partial(replaced, make_coco, lambda at: readers.checked(f"coco:{at}", "val"), "val.json"),
    "answers": partial(replaced, make_results, readers.read_answers, "results.json"),
    "checkpoint": described,
    "state of a training": partial(replaced, kept.make_state, kept.read_state, "state/state.json"),
    "run's log": partial(replaced, kept.make_run, kept.read_log, "log.jsonl"),
    "run's result": partial(replaced, kept.make_run, kept.read_log, "result.json"),
    "store": partial(replaced, kept.make_store, Store.open, "manifest.json"),
    "store's audit": partial(replaced, kept.make_store, kept.read_audit, "audit.json"),
}
REFUSED: dict[str, Try] = {
    "XML: ten billion laughs": voc(ANNOTATION, LAUGHS),
    "XML: an entity in another file": voc(ANNOTATION, OUTSIDE),
    "XML of answers: ten billion laughs": answered(LAUGHS),
    "XML of answers: an entity in another file": answered(OUTSIDE),
    "PNG of 50,000 x 50,000 pixels": voc(PICTURE, png(50_000, 50_000)),
    "JPEG of 65,500 x 65,500 pixels": voc(PICTURE, crafted.jpeg(65_500)),
    "BMP of 2 billion x 2 billion pixels": voc(PICTURE, crafted.bmp(2**31 - 1)),
    "mask of 50,000 x 50,000 pixels": voc(MASK, png(50_000, 50_000)),
    "mask of no pixel": voc(MASK, png(0, 0)),
    "PNG with 200 MB of packed text": voc(PICTURE, png(10, 8, crafted.packed_text(200))),
    "PostScript called .jpg": voc(PICTURE, POSTSCRIPT),
    "list of a split: ../": listed("a\n../../secret\n"),
    "list of a split: an absolute path": listed("a\n/etc/passwd\n"),
    "list of a split: NUL": listed("a\na\0b\n"),
    "list of a split: 5,000 letters": listed("a\n" + "a" * 5000),
    "COCO: a file name that climbs out": coco(images=[{"id": 1, "file_name": "../../secret.jpg"}]),
    "COCO: a file name that is absolute": coco(images=[{"id": 1, "file_name": "/etc/passwd"}]),
    "COCO: a file name with NUL": coco(images=[{"id": 1, "file_name": "a\0.jpg"}]),
    "COCO: run lengths of a billion rows": coco(
        annotations=[BOX | {"segmentation": {"size": [10**9, 10], "counts": [10**10]}}]
    ),
    "COCO: a run of a billion pixels": coco(annotations=[BOX | {"segmentation": {"size": [8, 10], "counts": [10**9]}}]),
    "list of pictures that climbs out": replaced(
        make_list, lambda at: open_dataset(f"images:{at}", "list"), "list.txt", "../a.png\n"
    ),
    "archive as voc:FOLDER": partial(archive, read=lambda at: open_dataset(f"voc:{at}", "train")),
    "archive as coco:FOLDER": partial(archive, read=lambda at: open_dataset(f"coco:{at}", "train")),
    "archive as images:FOLDER": partial(archive, read=lambda at: open_dataset(f"images:{at}", "train")),
    "archive as pictures to predict": partial(archive, read=lambda at: find_pictures([at])),
    "archive as a folder of answers": partial(archive, read=lambda at: open_tutor("files", folders=at)),
    "archive as a checkpoint": partial(archive, read=load_checkpoint),
    "maps: a pickle in .npz": crafted.pickled_map,
    "maps: .npz that unpacks to a terabyte": crafted.swollen_map,
    "maps: .npy that claims a terabyte": crafted.claimed_map,
    "pickle as a checkpoint": partial(crafted.pickled, read=load_checkpoint),
    "pickle as a backbone's weights": partial(crafted.pickled, read=weights),
    "pickle as a tutor's weights": partial(crafted.pickled, read=kept.read_weights),
    "pickle in torch's archive as a tutor's weights": crafted.torch_pickled,
    "checkpoint of a billion channels": partial(crafted.absurd_student, up_width=10**9),
    "checkpoint for pictures of 1,000,000 x 1,000,000 pixels": partial(crafted.absurd_student, size=10**6),
    "checkpoint of a network to be fetched": partial(crafted.absurd_student, backbone="hf_hub:somebody/something"),
    "study of a billion seeds": replaced(kept.make_study, kept.read_study, "study.yaml", SEEDS),
    "config of NaN": lambda at: make_config(kept.CONFIG | {"train": {"lr": float("nan")}}, origin=str(at)),
    "ONNX: weights in a file outside": partial(crafted.changed_onnx, change=crafted.outside_data),
    **{f"{what}: tensors of terabytes": put(crafted.safetensors(0, weight=TERABYTES)) for what, put in TENSORS.items()},
    **{f"{what}: a header of 2^62 bytes": put(crafted.safetensors(2**62)) for what, put in TENSORS.items()},
    **{f"{what}: a Python tag in YAML": put(TAG) for what, put in YAML.items()},
    **{f"{what}: a trillion aliases in YAML": put(ALIASES) for what, put in YAML.items()},
    **{f"{what}: YAML 100,000 deep": put(NESTED) for what, put in YAML.items()},
    **{f"{what}: JSON 100,000 deep": put(NESTED) for what, put in JSON.items()},
    "store: a part that lies elsewhere": crafted.climbing_part,
    "store: an image twice": columns(image_id=(["a", "a", "c"], None)),
    "store: text for numbers": columns(height=(["8"] * 3, pa.string())),
    "store: a column missing": partial(crafted.table, change=lambda table: table.drop_columns("scores")),
    "store: numbers for ids": columns(image_id=([1, 2, 3], pa.int64())),
    "store: an image without an id": columns(image_id=(["a", None, "c"], None)),
    "store: no ids": partial(crafted.table, change=lambda table: table.drop_columns("image_id")),
    "store: a map of a billion cells": columns(
        map_height=([30_000] * 3, None), map_width=([30_000] * 3, None), map_values=([b""] * 3, None),
        map_classes=([[]] * 3, None),
    ),
    "store: a class that there is not": columns(classes=([[1, 9], [], None], None)),
    "store: scores of 7": columns(scores=([[7.0, 7.0], [], None], None)),
}  # fmt: skip
HARMLESS: dict[str, Try] = {
    "init: ten billion laughs": scan(ANNOTATION, LAUGHS),
    "init: a mask of 50,000 x 50,000 pixels": scan(MASK, png(50_000, 50_000)),
    "init: PostScript called .png": scan(MASK, POSTSCRIPT),
    "ONNX: names 100,000 deep": partial(crafted.changed_onnx, change=crafted.deep_names),
    "a link where a file is to be written": crafted.linked_file,
    "a link where a folder is to be written": crafted.linked_folder,
}
TRIED = (
    *(Hostile(name, try_it) for name, try_it in REFUSED.items()),
    *(Hostile(name, try_it, True) for name, try_it in HARMLESS.items()),
)
