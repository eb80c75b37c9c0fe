"""Labelling a split into a store: resumed, shared, refused."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tutored import files
from tutored.errors import InputError
from tutored.labels import LabelSpace
from tutored.softlabels import Store, writer
from tutored.structures import SoftLabels
from tutored.tutors import label as label_module
from tutored.tutors.label import label

COUNT = 23
PART_ROWS = 5


class Pictures:
    name = "voc:nowhere/pets/val"
    labels = LabelSpace.of(["cat", "dog"])
    ids = tuple(f"picture{index:02d}" for index in range(COUNT))

    def image(self, image_id: str) -> Image.Image:
        return Image.new("RGB", (20 + int(image_id[-2:]), 30))

    def ground_truth(self, image_id: str) -> Any:
        raise AssertionError("labelling needs no ground truth")


class Guesser:
    """Answers that are random, but always the same for an image."""

    labels = LabelSpace.of(["cat", "dog"])

    def __init__(self, **identity: Any) -> None:
        self.identity: Mapping[str, Any] = {"kind": "guesser", "weights_sha256": "0", "score_floor": 0.01} | identity
        self.asked: list[str] = []

    def __call__(self, images: Sequence[Image.Image], image_ids: Sequence[str]) -> list[SoftLabels]:
        self.asked += image_ids
        return [self._answer(image, image_id) for image, image_id in zip(images, image_ids, strict=True)]

    def _answer(self, image: Image.Image, image_id: str) -> SoftLabels:
        generator = torch.Generator().manual_seed(int(hashlib.sha256(image_id.encode()).hexdigest()[:8], 16))
        return SoftLabels(
            size=(image.height, image.width),
            boxes_xyxy=torch.rand(4, 4, generator=generator) + torch.tensor([0, 0, 5, 5]),
            classes=torch.tensor([1, 2, 1, 2]),
            probs=torch.rand(4, 3, generator=generator).softmax(1),
            map=torch.rand(3, 4, 3, generator=generator).softmax(0),
        )


class Killed(Guesser):
    """Kills its process when it is asked about this many images, as the power cut does."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after = after

    def __call__(self, images: Sequence[Image.Image], image_ids: Sequence[str]) -> list[SoftLabels]:
        if len(self.asked) >= self.after:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(images, image_ids)


MOMENTS = [("image", 0), ("image", 8), ("before", 1), ("before", 3), ("after", 3), ("before", 7), ("after", 7)]
"""Files get their names in this order: first manifest, five parts, last manifest."""


def kill_all(folder: str) -> None:
    """At each moment a process of its own is killed."""
    for moment, count in MOMENTS:
        child = os.fork()
        if child == 0:
            kill_at(moment, count, Path(folder) / f"{moment}{count}")
            os._exit(1)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL


def kill_at(moment: str, count: int, out: Path) -> None:
    """Label until the moment comes: an image asked about, or a file about to get, or having got, its name."""
    small_parts()
    replace, replaced = os.replace, 0

    def counted(source: Any, target: Any) -> None:
        nonlocal replaced
        replaced += 1
        if moment == "before" and replaced == count:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)
        if moment == "after" and replaced == count:
            os.kill(os.getpid(), signal.SIGKILL)

    files.os.replace = counted
    label(Killed(count) if moment == "image" else Guesser(), Pictures(), out, batch=2)


def small_parts() -> None:
    writer.PART_ROWS = label_module.PART_ROWS = PART_ROWS


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "PART_ROWS", PART_ROWS)
    monkeypatch.setattr(label_module, "PART_ROWS", PART_ROWS)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_store_holds_the_answers(tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    out = label(Guesser(), Pictures(), tmp_path / "store", batch=2, progress=lambda *step: steps.append(step))
    store = Store.open(out)
    store.verify()
    assert tuple(store) == Pictures.ids
    given = Guesser()([Pictures().image("picture07")], ["picture07"])[0]
    assert store["picture07"].size == (30, 27) and torch.equal(store["picture07"].boxes_xyxy, given.boxes_xyxy)
    assert sorted(content(out)) == ["manifest.json", *(f"part-{index:05d}.parquet" for index in range(5))]
    assert steps[0] == (2, COUNT) and steps[-1] == (COUNT, COUNT)
    assert store.identity["kind"] == "guesser" and store.identity["labels"] == ["background", "cat", "dog"]
    assert store.identity["data"] == "voc:pets" and store.identity["split"] == "val", "and no path of this machine"


def test_killed_at_any_moment_and_resumed_the_store_is_the_same_to_the_byte(tmp_path: Path) -> None:
    whole = content(label(Guesser(), Pictures(), tmp_path / "whole", batch=2))
    # Not from here: this process may have threads, which do not survive a fork.
    command = f"from test_label import kill_all; kill_all({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", command], cwd=Path(__file__).parent, check=True, timeout=120)
    left = []
    for moment, count in MOMENTS:
        out, tutor = tmp_path / f"{moment}{count}", Guesser()
        label(tutor, Pictures(), out, batch=2, resume=True)
        assert content(out) == whole
        left.append(len(tutor.asked))
    # What was whole is not asked again: all, all but one part, all, all but one, all but two, nothing, nothing.
    assert left == [23, 18, 23, 18, 13, 0, 0]


def test_two_processes_give_the_same_bytes_as_one(tmp_path: Path) -> None:
    whole = content(label(Guesser(), Pictures(), tmp_path / "one"))
    tutors = [Guesser(), Guesser()]
    for rank in (1, 0):
        label(tutors[rank], Pictures(), tmp_path / "two", rank=rank, processes=2)
    assert content(tmp_path / "two") == whole
    assert len(tutors[0].asked) == 13 and len(tutors[1].asked) == 10, "parts 0, 2, 4 and parts 1, 3"


def test_a_store_is_unfinished_until_its_last_part(tmp_path: Path) -> None:
    label(Guesser(), Pictures(), tmp_path / "two", rank=0, processes=2)
    with pytest.raises(InputError, match="'complete' is false"):
        Store.open(tmp_path / "two")


def test_a_finished_store_is_left_alone(tmp_path: Path) -> None:
    label(Guesser(), Pictures(), tmp_path / "store")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").iterdir()}
    tutor = Guesser()
    label(tutor, Pictures(), tmp_path / "store", resume=True)
    assert tutor.asked == [] and {path: path.stat().st_mtime_ns for path in (tmp_path / "store").iterdir()} == before
    with pytest.raises(InputError, match="already there.*--resume"):
        label(tutor, Pictures(), tmp_path / "store")


def test_a_lost_part_is_made_again(tmp_path: Path) -> None:
    whole = content(label(Guesser(), Pictures(), tmp_path / "store"))
    (tmp_path / "store" / "part-00003.parquet").unlink()
    tutor = Guesser()
    label(tutor, Pictures(), tmp_path / "store", resume=True)
    assert tutor.asked == list(Pictures.ids[15:20]) and content(tmp_path / "store") == whole


@pytest.mark.parametrize("field", ["kind", "weights_sha256", "score_floor", "preprocessing"])
def test_another_tutor_is_refused_by_the_field_that_differs(tmp_path: Path, field: str) -> None:
    label(Guesser(), Pictures(), tmp_path / "store")
    with pytest.raises(InputError, match=f"'{field}' is"):
        label(Guesser(**{field: "other"}), Pictures(), tmp_path / "store", resume=True)


def test_another_split_is_refused(tmp_path: Path) -> None:
    label(Guesser(), Pictures(), tmp_path / "store")
    other = Pictures()
    other.ids = (*Pictures.ids[1:], "picture99")
    with pytest.raises(InputError, match="'ids_sha256' is"):
        label(Guesser(), other, tmp_path / "store", resume=True)


def test_what_can_not_be_labelled_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "holiday.jpg").touch()
    with pytest.raises(InputError, match=r"not empty \(holiday.jpg\)"):
        label(Guesser(), Pictures(), tmp_path / "mine")
    data = Pictures()
    data.ids = ("a", "b", "a")
    with pytest.raises(InputError, match="image a is listed twice"):
        label(Guesser(), data, tmp_path / "store")
    data.ids = ()
    with pytest.raises(InputError, match="no images"):
        label(Guesser(), data, tmp_path / "store")
    with pytest.raises(InputError, match="ranks are 0 to 1"):
        label(Guesser(), Pictures(), tmp_path / "store", rank=2, processes=2)


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = writer.pq.write_table, []

    def full(table: Any, path: Path, **options: Any) -> None:
        calls.append(path)
        if len(calls) == 3:
            path.write_bytes(b"half a part")
            raise OSError(28, "No space left on device", str(path))
        real(table, path, **options)

    whole = content(label(Guesser(), Pictures(), tmp_path / "whole"))
    monkeypatch.setattr(writer.pq, "write_table", full)
    with pytest.raises(OSError, match="No space left"):
        label(Guesser(), Pictures(), tmp_path / "store")
    assert sorted(content(tmp_path / "store")) == ["manifest.json", "part-00000.parquet", "part-00001.parquet"]
    label(Guesser(), Pictures(), tmp_path / "store", resume=True)
    assert content(tmp_path / "store") == whole
