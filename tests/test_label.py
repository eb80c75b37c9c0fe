"""Labelling a split into a store: resumed, shared between processes, refused."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from made import boxed, refused
from tutored import files
from tutored.data import open_dataset
from tutored.errors import InputError
from tutored.labels import LabelSpace
from tutored.softlabels import Store, writer
from tutored.tasks.detection import SoftBoxes
from tutored.tasks.segmentation import SoftMap
from tutored.tutors import label as label_module
from tutored.tutors.label import label
from tutored.types import SoftLabels

COUNT = 23
PART_ROWS = 5


class Pictures:
    name, source, split, notes = "voc:nowhere/pets/val", "voc:pets", "val", ()
    ids = tuple(f"picture{index:02d}" for index in range(COUNT))

    def __init__(self, *broken, ids=ids):
        self.broken, self.ids = broken, tuple(ids)

    def image(self, image_id):
        if image_id in self.broken:
            raise InputError(f"{image_id}: broken")
        return Image.new("RGB", (20 + int(image_id[-2:]), 30))


class Guesser:
    """Answers that are random, but always the same for an image."""

    labels = LabelSpace.of(["cat", "dog"])

    def __init__(self, **identity):
        self.identity = {"kind": "guesser", "weights_sha256": "0", "score_floor": 0.01} | identity
        self.asked = []

    def __call__(self, images, image_ids):
        self.asked += image_ids
        return [self.answer(image, image_id) for image, image_id in zip(images, image_ids, strict=True)]

    def answer(self, image, image_id):
        generator = torch.Generator().manual_seed(int(hashlib.sha256(image_id.encode()).hexdigest()[:8], 16))
        corners = (torch.rand(4, 4, generator=generator) + torch.tensor([0, 0, 5, 5])).tolist()
        boxes = boxed(SoftBoxes, corners, [1, 2, 1, 2], probs=torch.rand(4, 3, generator=generator).softmax(1))
        soft_map = SoftMap(map=torch.rand(3, 4, 3, generator=generator).softmax(0))
        return SoftLabels.of((image.height, image.width), boxes, soft_map)


class Killed(Guesser):
    """Kills its process when it is asked about this many images, as a power cut does."""

    def __init__(self, after):
        super().__init__()
        self.after = after

    def __call__(self, images, image_ids):
        if len(self.asked) >= self.after:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(images, image_ids)


MOMENTS = [("image", 0), ("image", 8), ("before", 1), ("before", 5), ("after", 5), ("before", 12), ("after", 12)]
"""Files get their names in this order: first manifest, hash and part five times, index, last manifest."""


def kill_all(folder):
    """At each moment a process of its own is killed."""
    for moment, count in MOMENTS:
        child = os.fork()
        if child == 0:
            kill_at(moment, count, Path(folder) / f"{moment}{count}")
            os._exit(1)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL


def kill_at(moment, count, out):
    """Label until the moment comes: an image asked about, or a file about to get, or having got, its name."""
    small_parts()
    replace, replaced = os.replace, 0

    def counted(source, target):
        nonlocal replaced
        replaced += 1
        if moment == "before" and replaced == count:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)
        if moment == "after" and replaced == count:
            os.kill(os.getpid(), signal.SIGKILL)

    files.os.replace = counted
    label(Killed(count) if moment == "image" else Guesser(), Pictures(), out, batch=2)


def small_parts():
    writer.PART_ROWS = label_module.PART_ROWS = PART_ROWS


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch):
    monkeypatch.setattr(writer, "PART_ROWS", PART_ROWS)
    monkeypatch.setattr(label_module, "PART_ROWS", PART_ROWS)


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def whole(tmp_path):
    """The files of a store that one process makes."""
    return content(label(Guesser(), Pictures(), tmp_path / "whole", batch=2))


def half(folder):
    """An unfinished store of the parts 0, 2 and 4."""
    return label(Guesser(), Pictures(), folder, rank=0, processes=2)


def test_a_store_holds_the_answers(tmp_path):
    steps = []
    out = label(Guesser(), Pictures(), tmp_path / "store", batch=2, progress=lambda *step: steps.append(step))
    store = Store.open(out)
    store.verify()
    assert tuple(store) == Pictures.ids
    given = Guesser()([Pictures().image("picture07")], ["picture07"])[0].tasks["detection"]
    assert store["picture07"].size == (30, 27)
    assert torch.equal(store["picture07"].tasks["detection"].boxes_xyxy, given.boxes_xyxy)
    parts = [f"part-{index:05d}.parquet" for index in range(5)]
    assert sorted(content(out)) == ["index.arrow", "manifest.json", *parts]
    assert steps[0] == (2, COUNT) and steps[-1] == (COUNT, COUNT)
    assert store.identity["kind"] == "guesser" and store.identity["labels"] == ["background", "cat", "dog"]
    assert store.identity["data"] == "voc:pets" and store.identity["split"] == "val", "and no path of this machine"


def test_killed_and_resumed_the_bytes_are_the_same(tmp_path, whole):
    # In a new process: this one may have threads, which do not survive a fork.
    command = f"import test_label; test_label.kill_all({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", command], cwd=Path(__file__).parent, check=True, timeout=600)
    left = []
    for moment, count in MOMENTS:
        out, tutor = tmp_path / f"{moment}{count}", Guesser()
        for left_over in out.glob(".*.new"):
            os.utime(left_over, (0, 0))  # the power came back an hour later
        label(tutor, Pictures(), out, batch=2, resume=True)
        assert content(out) == whole
        left.append(len(tutor.asked))
    # What was whole is not asked again: all, all but one part, all, all but one, all but two, nothing, nothing.
    assert left == [23, 18, 23, 18, 13, 0, 0]


def test_two_processes_give_the_same_bytes_as_one(tmp_path, whole):
    tutors = [Guesser(), Guesser()]
    label(tutors[1], Pictures(), tmp_path / "two", rank=1, processes=2)
    refused("'complete' is false", Store.open, tmp_path / "two")
    label(tutors[0], Pictures(), tmp_path / "two", rank=0, processes=2)
    assert content(tmp_path / "two") == whole
    assert len(tutors[0].asked) == 13 and len(tutors[1].asked) == 10, "parts 0, 2, 4 and parts 1, 3"
    few = Pictures(ids=Pictures.ids[:5])
    for rank in (1, 0):
        label(Guesser(), few, tmp_path / "few", rank=rank, processes=2)
    assert tuple(Store.open(tmp_path / "few")) == few.ids, "of two processes one has no part"


def test_a_try_that_fails_leaves_the_folder_free(tmp_path, whole):
    class Fails(Guesser):
        def __call__(self, images, image_ids):
            raise InputError("no entry for picture00")

    for number, options in enumerate(({}, {"resume": True}, {"processes": 2, "rank": 0})):
        out = tmp_path / str(number)
        with pytest.raises(InputError, match="no entry"):
            label(Fails(score_floor=0.5), Pictures(), out, **options)
        assert content(out) == {}
        assert content(label(Guesser(), Pictures(), out)) == whole


def test_a_retry_that_ends_halfway_is_gone_on_with(tmp_path, whole):
    broken, out = ("picture01", "picture07"), tmp_path / "store"  # in parts 0 and 1
    label(Guesser(), Pictures(*broken), out, skip_broken=True)
    assert tuple(Store.open(out).failed) == broken
    with pytest.raises(InputError, match="picture07: broken"):  # when part 0 has its answer already
        label(Guesser(), Pictures("picture07"), out, resume=True)
    refused("labelling did not finish.*--resume", Store.open, out)
    label(Guesser(), Pictures("picture07"), out, resume=True, skip_broken=True)
    store = Store.open(out)
    store.verify()
    assert tuple(store.failed) == ("picture07",)
    label(Guesser(), Pictures(), out, resume=True)
    assert content(out) == whole


def test_a_lost_or_damaged_part_is_made_again(tmp_path, whole):
    (tmp_path / "whole" / "part-00003.parquet").unlink()
    tutor = Guesser()
    label(tutor, Pictures(), tmp_path / "whole", resume=True)
    assert tutor.asked == list(Pictures.ids[15:20]) and content(tmp_path / "whole") == whole
    part = half(tmp_path / "half") / "part-00002.parquet"
    size = part.stat().st_size
    # Pages have checksums of their own; what lies between and behind them has none.
    for place in (*range(0, size, size // 12), *range(size - 12, size, 3)):
        out = tmp_path / "damaged"
        shutil.copytree(tmp_path / "half", out)
        changed = bytearray(part.read_bytes())
        changed[place] ^= 1
        (out / part.name).write_bytes(changed)
        tutor = Guesser()
        label(tutor, Pictures(), out, resume=True)
        assert tutor.asked == [*Pictures.ids[5:20]] and content(out) == whole
        shutil.rmtree(out)
    (tmp_path / "half" / "part-00000.parquet").unlink()
    (tmp_path / "half" / ".part-00004.sha256").write_bytes(b"\xff")
    tutor = Guesser()
    label(tutor, Pictures(), tmp_path / "half", resume=True)
    assert [name for name in Pictures.ids if name not in tutor.asked] == list(Pictures.ids[10:15])
    assert content(tmp_path / "half") == whole


def test_another_tutor_or_split_is_refused_by_its_field(tmp_path):
    label(Guesser(), Pictures(), tmp_path / "store")
    for field in ("kind", "weights_sha256", "score_floor", "preprocessing"):
        with pytest.raises(InputError, match=f"'{field}' is"):
            label(Guesser(**{field: "other"}), Pictures(), tmp_path / "store", resume=True)
    with pytest.raises(InputError, match="'ids_sha256' is"):
        label(Guesser(), Pictures(ids=(*Pictures.ids[1:], "picture99")), tmp_path / "store", resume=True)


def test_what_can_not_be_labelled_is_refused(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "holiday.jpg").touch()
    with pytest.raises(InputError, match=r"not empty \(holiday.jpg\)"):
        label(Guesser(), Pictures(), tmp_path / "mine")
    with pytest.raises(InputError, match="image a is listed twice"):
        label(Guesser(), Pictures(ids=("a", "b", "a")), tmp_path / "store")
    with pytest.raises(InputError, match="no images"):
        label(Guesser(), Pictures(ids=()), tmp_path / "store")
    with pytest.raises(InputError, match="ranks are 0 to 1"):
        label(Guesser(), Pictures(), tmp_path / "store", rank=2, processes=2)

    class Turned(Guesser):
        def answer(self, image, image_id):
            return super().answer(image.transpose(Image.Transpose.ROTATE_90), image_id)

    with pytest.raises(InputError, match=r"picture00: the tutor answers for \(height, width\) \(20, 30\), the image"):
        label(Turned(), Pictures(), tmp_path / "store")


def test_only_a_store_with_a_part_is_somebodys(tmp_path, whole):
    first = dict(Store.open(tmp_path / "whole").identity)
    writer.claim(tmp_path / "store", first | {"kind": "killed"}, join=False)
    assert content(label(Guesser(), Pictures(), tmp_path / "store")) == whole
    half(tmp_path / "half")
    for resume, message in ((True, "'kind' is 'guesser' there, 'other' is asked for"), (False, "already there")):
        with pytest.raises(InputError, match=message):
            label(Guesser(kind="other"), Pictures(), tmp_path / "half", resume=resume)


def test_of_two_tutors_the_first_to_write_has_the_folder(tmp_path, whole):
    class Overtaken(Guesser):
        def __call__(self, images, image_ids):
            if not self.asked:
                label(Guesser(), Pictures(), tmp_path / "store", rank=1, processes=2)
            return super().__call__(images, image_ids)

    with pytest.raises(InputError, match="'kind' is 'guesser' there, 'other' is asked for"):
        label(Overtaken(kind="other"), Pictures(), tmp_path / "store")
    label(Guesser(), Pictures(), tmp_path / "store", rank=0, processes=2)
    assert content(tmp_path / "store") == whole


def test_the_identity_has_the_split_as_it_was_written(tmp_path, voc_folder):
    for number, split in enumerate(("train", "Main/train", "val+Main/train")):
        dataset = open_dataset(f"voc:{voc_folder}", split)
        found = Store.open(label(Guesser(), dataset, tmp_path / str(number))).identity
        assert (found["data"], found["split"]) == (f"voc:{voc_folder.name}", split)


def test_a_finished_store_is_left_alone(tmp_path):
    label(Guesser(), Pictures(), tmp_path / "store")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").iterdir()}
    tutor = Guesser()
    label(tutor, Pictures(), tmp_path / "store", resume=True)
    assert tutor.asked == [] and {path: path.stat().st_mtime_ns for path in (tmp_path / "store").iterdir()} == before
    with pytest.raises(InputError, match="already there.*--resume"):
        label(tutor, Pictures(), tmp_path / "store")


def test_a_part_that_is_damaged_meanwhile_is_refused(tmp_path, whole):
    out = half(tmp_path / "store")
    part = out / "part-00002.parquet"
    part.write_bytes(part.read_bytes()[:-1] + b"?")
    with pytest.raises(InputError, match=r"part-00002\.parquet: the bytes are not those that were written.*--resume"):
        label(Guesser(), Pictures(), out, rank=1, processes=2)
    label(Guesser(), Pictures(), out, resume=True)
    assert content(out) == whole


def test_a_full_disk_leaves_nothing_half_written(tmp_path, whole, small_files):
    with small_files(2048), pytest.raises(OSError, match="File too large"):
        label(Guesser(), Pictures(), tmp_path / "store")
    assert not list((tmp_path / "store").glob("part-*")), "every part is larger"
    label(Guesser(), Pictures(), tmp_path / "store", resume=True)
    assert content(tmp_path / "store") == whole
