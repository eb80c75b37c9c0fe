"""Decoded pictures and annotations on disk, a memory-mapped file an image, for all processes that read a data set."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor
from torch.utils.data import get_worker_info

from tutored.data.training import pixels
from tutored.data.views import View
from tutored.errors import InputError
from tutored.files import whole_file
from tutored.types import Dataset, GroundTruth

PICTURE, SUFFIX = "picture", ".image"


class Packed(View):
    """A data set whose images are read from a folder once they were read by anybody; the same to the bit.

    A file's name is a digest of the image's own files, by path, length and time of change, and of `about`: what has
    changed has another name and is read anew. A file appears whole or not at all, and one that is damaged is replaced.
    Images with an address have no file, since nothing tells that they changed.

    Args:
        folder: of the files; others may lie there, and other data sets may share it.
        gigabytes: that the files of all may take. Those of no image here make room, the oldest first, where they and
            the others take more than half of that.
        about: what else decides how annotations are read.
        processes: that read at the same time, each with readers of its own.

    Raises:
        InputError: annotations of a kind that can't be kept, or that can't be read.
    """

    def __init__(self, inner: Dataset, folder: Path, gigabytes: float, about: str, *, processes: int = 1) -> None:
        super().__init__(inner)
        self.kinds: dict[str, type] = {}
        for name in inner.labels:
            first = next((image_id for image_id in inner.ids if name in inner.annotated_tasks(image_id)), None)
            if first is not None:
                self._learn(name, inner.ground_truth(first).tasks[name])
        about = json.dumps([about, metadata.version("tutored"), [[k, v.names] for k, v in inner.labels.items()]])
        keys = {image_id: self._key(image_id, about) for image_id in inner.ids}
        self.places = {image_id: folder / f"{key}{SUFFIX}" for image_id, key in keys.items() if key}
        most = gigabytes * 1e9
        self.room = (most - _make_room(folder, {*self.places.values()}, most)) / processes
        self._last: tuple[str, Tensor, GroundTruth] | None = None

    def image(self, image_id: str) -> Image.Image:
        return Image.fromarray(self.pixels(image_id).numpy())

    def pixels(self, image_id: str) -> Tensor:
        """uint8 [H, W, 3], which lie in the mapped file."""
        return self._read(image_id)[1] if image_id in self.places else pixels(self.inner, image_id)

    def ground_truth(self, image_id: str) -> GroundTruth:
        return self._read(image_id)[2] if image_id in self.places else self.inner.ground_truth(image_id)

    def _learn(self, name: str, annotation: Any) -> None:
        try:
            self.kinds[name] = type(annotation)
            _decode(self.kinds, *_encode({name: annotation}))
        except (TypeError, ValueError) as error:
            raise InputError(f"data.cache: annotations of {name} can't be kept ({error}); leave the key out") from error

    def _key(self, image_id: str, about: str) -> str | None:
        files = self.inner.files(image_id)
        if not files or any("://" in str(file) for file in files):
            return None
        try:
            stats = [(os.path.abspath(file), (found := os.stat(file)).st_size, found.st_mtime_ns) for file in files]
        except OSError:
            return None  # whoever reads it says what is missing
        return hashlib.sha256(json.dumps([about, image_id, stats]).encode()).hexdigest()

    def _read(self, image_id: str) -> tuple[str, Tensor, GroundTruth]:
        """An image is read in two steps, its annotations and its picture, one after the other."""
        if self._last is None or self._last[0] != image_id:
            try:
                self._last = image_id, *self._kept(self.places[image_id])
            except (OSError, SafetensorError, AttributeError, KeyError, TypeError, ValueError):  # not there, or damaged
                truth = self.inner.ground_truth(image_id)
                self._last = image_id, pixels(self.inner, image_id), truth
                self._keep(self.places[image_id], *self._last[1:])
        return self._last

    def _kept(self, place: Path) -> tuple[Tensor, GroundTruth]:
        with safe_open(place, "pt") as file:
            tensors, said = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
        pixels = tensors.pop(PICTURE)
        return pixels, GroundTruth((pixels.shape[0], pixels.shape[1]), _decode(self.kinds, tensors, said))

    def _keep(self, place: Path, pixels: Tensor, truth: GroundTruth) -> None:
        if any(type(annotation) is not self.kinds.get(name) for name, annotation in truth.tasks.items()):
            return
        tensors, said = _encode(truth.tasks)
        arrays = {name: np.ascontiguousarray(each) for name, each in tensors.items()}
        content = save(arrays | {PICTURE: pixels.numpy()}, said)
        worker = get_worker_info()
        taken = len(content) * (worker.num_workers if worker else 1)  # of the room of all readers
        if taken <= self.room:
            self.room -= taken
            with suppress(OSError), whole_file(place) as temporary:  # a full disk is no reason to stop
                temporary.write_bytes(content)


def _make_room(folder: Path, mine: set[Path], most: float) -> int:
    """Remove files of others, the oldest first, until half of the room is free; returns the bytes that are left."""
    found = [(path, path.stat()) for path in folder.glob(f"*{SUFFIX}") if path.exists()]
    taken = sum(stat.st_size for _, stat in found)
    for path, stat in sorted(found, key=lambda each: each[1].st_mtime):
        if path not in mine and taken > most / 2:
            path.unlink(missing_ok=True)
            taken -= stat.st_size
    return taken


def _encode(annotations: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by task and field, and by task all else as JSON. Raises TypeError where that is not possible."""
    tensors: dict[str, Tensor] = {}
    said: dict[str, str] = {}
    for name, annotation in annotations.items():
        values = {each.name: getattr(annotation, each.name) for each in fields(annotation)}
        tensors |= {f"{name}/{key}": value for key, value in values.items() if isinstance(value, Tensor)}
        said[name] = json.dumps({key: value for key, value in values.items() if not isinstance(value, Tensor)})
    return tensors, said


def _decode(kinds: Mapping[str, type], tensors: Mapping[str, Tensor], said: Mapping[str, str]) -> dict[str, Any]:
    annotations = {}
    for name, text in said.items():
        values = {key: tuple(value) if isinstance(value, list) else value for key, value in json.loads(text).items()}
        found = {key.partition("/")[2]: each for key, each in tensors.items() if key.partition("/")[0] == name}
        annotations[name] = kinds[name](**values, **found)
    return annotations
