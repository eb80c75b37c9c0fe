"""Every reader of users' files: a valid example of each, and what a valid answer is."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import httpx

from benchmarks.faults.damage import Damage, damage_array, damage_bytes, damage_json, damage_text, damage_xml
from benchmarks.faults.examples import (
    PETS,
    SIZE,
    make_coco,
    make_confidences,
    make_list,
    make_maps,
    make_results,
    make_upload,
    make_voc,
    picture,
)
from tutored.data import open_dataset
from tutored.data.check import check
from tutored.data.pictures import picture_size, read_picture
from tutored.errors import InputError
from tutored.init import init
from tutored.labels import VOC, LabelSpace
from tutored.predict import find_pictures, sort_inputs
from tutored.serve.app import make_app
from tutored.structures import Dataset, GroundTruth, Prediction, SoftLabels
from tutored.tutors import open_tutor


class Reader(NamedTuple):
    """One reader and a file that it reads.

    Attributes:
        name: for the table.
        file: the one that is damaged, in a folder of its own.
        make: fills the folder with valid files.
        read: reads them; asserts that what it got is valid, and gives what can be compared.
        damage: what is done to the file.
        sealed: only the very content that was written may be read.
        weight: of how often, against the others.
    """

    name: str
    file: str
    make: Callable[[Path], object]
    read: Callable[[Path], object]
    damage: Damage
    sealed: bool = False
    weight: float = 1.0


def valid_truth(truth: GroundTruth, labels: LabelSpace) -> tuple[Any, ...]:
    """Assert that boxes and mask are possible; they, as plain values."""
    assert truth.size == SIZE or truth.boxes_xyxy is not None or truth.mask is not None
    height, width = truth.size
    if truth.boxes_xyxy is not None and truth.classes is not None:
        boxes = truth.boxes_xyxy
        assert bool((boxes >= 0).all() and (boxes[:, 2] <= width).all() and (boxes[:, 3] <= height).all())
        assert bool((truth.classes > 0).all() and (truth.classes < len(labels)).all())
    if truth.mask is not None:
        assert bool(((truth.mask < len(labels)) | (truth.mask == 255)).all())
    return tuple(None if each is None else each.tolist() for each in (truth.boxes_xyxy, truth.classes, truth.mask))


def valid_dataset(dataset: Dataset) -> list[Any]:
    """Assert that every image and its ground truth are possible."""
    found = []
    for image_id in dataset.ids:
        dataset.problems(image_id)
        truth = dataset.ground_truth(image_id)
        assert dataset.image(image_id).size == truth.size[::-1]
        found.append((image_id, valid_truth(truth, dataset.labels)))
    return found


def valid_answer(answer: SoftLabels, classes: int, *, sums: bool = True) -> tuple[Any, ...]:
    """Assert that soft labels hold probabilities, whose `sums` are at most one, and boxes within reach."""
    given = [each for each in (answer.probs, answer.map) if each is not None]
    if answer.instances is not None:
        given += [answer.instances.scores, answer.instances.masks]
        assert bool(((answer.instances.classes > 0) & (answer.instances.classes < classes)).all())
    for values in given:
        assert bool(((values >= 0) & (values <= 1)).all())
    if answer.boxes_xyxy is not None and answer.classes is not None and answer.probs is not None:
        assert bool(answer.boxes_xyxy.isfinite().all()) and answer.probs.shape[1] == classes
        assert bool(((answer.classes > 0) & (answer.classes < classes)).all())
        assert bool((answer.probs.sum(1) <= 1.01).all())
    if answer.map is not None:
        assert len(answer.map) == classes and (not sums or bool((answer.map.sum(0) <= 1.01).all()))
    assert min(answer.size) > 0
    every = (answer.boxes_xyxy, answer.classes, answer.probs, answer.map)
    return tuple(None if each is None else each.tolist() for each in every)


def read_answers(folder: Path) -> object:
    """As `tutored label files` reads them."""
    tutor = open_tutor("files", folders=folder, default_labels=VOC)
    (answer,) = tutor([picture()], ["a"])
    return valid_answer(answer, len(tutor.labels), sums="map_values" not in tutor.identity)


def read_image(file: Path) -> object:
    """Its size and its pixels."""
    size = picture_size(file)
    read = read_picture(file)
    assert read.mode == "RGB" and read.size == size[::-1]
    return read.tobytes()


def read_list(folder: Path) -> object:
    """As `tutored predict CHECKPOINT -` reads standard input."""
    with (folder / "list.txt").open(errors="surrogateescape") as lines:
        inputs = sort_inputs(["-"], (line if os.path.isabs(line) else f"{folder}/{line}" for line in lines))
    return [*find_pictures(inputs.pictures, inputs.under)]


def read_upload(folder: Path) -> object:
    """The page's answer, as `tutored serve` gives it."""

    async def ask() -> httpx.Response:
        app = make_app(lambda image: Prediction(size=(image.height, image.width)), PETS, megabytes=1)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            form = {"content-type": "multipart/form-data; boundary=x"}
            return await client.post("/predict", content=(folder / "body").read_bytes(), headers=form)

    with ThreadPoolExecutor(1) as thread:  # whose event loop is free
        answer = thread.submit(anyio.run, ask).result()
    if answer.status_code >= 400:
        assert answer.status_code in (400, 413, 415, 422) and answer.json()["error"], answer.text
        raise RefusedUploadError(answer.json()["error"])
    return answer.json()["width"], answer.json()["height"]


class RefusedUploadError(Exception):
    """The server said no, with a message."""


def scan(folder: Path) -> object:
    """As `tutored init` looks at a folder."""
    out = folder.parent / f"{folder.name}.yaml"
    out.unlink(missing_ok=True)
    shutil.rmtree(out.with_name(f"{out.stem}-data"), ignore_errors=True)
    return init(folder, out).layout.what


def checked(spec: str, split: str) -> object:
    """As training reads a data set; `tutored data check` must find a fault where, and only where, that raises one."""
    dataset = open_dataset(spec, split)
    report = check({split: dataset})
    try:
        found = valid_dataset(dataset)
    except InputError:
        assert not report.ok, "the check finds nothing"
        raise
    assert report.ok, "the check finds a fault that nobody else does"
    return found


def voc(folder: Path) -> object:
    return checked(f"voc:{folder}", "train")


def _picture(suffix: str) -> Reader:
    file = f"a{suffix}"
    kind = suffix.removeprefix(".").upper()
    return Reader(
        f"{kind} picture", file, lambda at: picture().save(at / file), lambda at: read_image(at / file), damage_bytes
    )


READERS = (
    *(_picture(suffix) for suffix in (".jpg", ".png", ".bmp", ".webp")),
    Reader("VOC: annotation (XML)", "Annotations/a.xml", make_voc, voc, damage_xml),
    Reader("VOC: mask (PNG)", "SegmentationClass/a.png", make_voc, voc, damage_bytes),
    Reader("VOC: list of a split", "ImageSets/Main/train.txt", make_voc, voc, damage_text),
    Reader("VOC: class names", "labels.txt", make_voc, voc, damage_text),
    Reader("COCO: instances (JSON)", "val.json", make_coco, lambda at: checked(f"coco:{at}", "val"), damage_json),
    Reader("images: list of pictures", "list.txt", make_list, lambda at: checked(f"images:{at}", "list"), damage_text),
    Reader("answers: COCO results (JSON)", "results.json", make_results, read_answers, damage_json),
    Reader("answers: XML with confidences", "a.xml", make_confidences, read_answers, damage_xml),
    Reader("answers: maps (.npz)", "a.npz", partial(make_maps, packed=True), read_answers, damage_array),
    Reader("answers: maps (.npy)", "a.npy", partial(make_maps, packed=False), read_answers, damage_array),
    Reader("predict: list on standard input", "list.txt", make_list, read_list, damage_text),
    Reader("serve: body of a request", "body", make_upload, read_upload, damage_bytes, weight=0.3),
    Reader("init: annotation in a folder", "Annotations/a.xml", make_voc, scan, damage_xml, weight=0.15),
    Reader("init: mask in a folder", "SegmentationClass/a.png", make_voc, scan, damage_bytes, weight=0.15),
    Reader("init: instances in a folder", "val.json", make_coco, scan, damage_json, weight=0.15),
)
