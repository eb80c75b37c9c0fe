"""Labelling where pictures are broken, in several processes, and on a cluster."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest
import torch
from PIL import Image

from made import Repeats
from test_label import PART_ROWS, Guesser, Pictures, small_parts
from tutored.checkpoint import save_checkpoint
from tutored.cli import main, progress
from tutored.config import make_config
from tutored.data import open_dataset
from tutored.errors import InputError
from tutored.judge import judge
from tutored.labels import LabelSpace
from tutored.softlabels import Store, writer
from tutored.structures import SoftLabels
from tutored.student import BlitzNet
from tutored.tutors import label as label_module
from tutored.tutors.label import label
from tutored.tutors.student import StudentTutor

TINY = {"backbone": "mobilenetv3_small_050", "size": 64, "extra_width": 32, "up_width": 16, "map_width": 8}
IMAGES = 150
KILLS = 20


def content(store: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in store.iterdir()}


@pytest.fixture(scope="module")
def work(make_voc, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data` (150 images: three parts), a `student` and the `store` that one process makes."""
    root = tmp_path_factory.mktemp("scale")
    make_voc(root / "data", {"train": ("none",) * IMAGES})
    torch.manual_seed(0)
    config = make_config({"data": {"train": "voc:somewhere"}, "student": TINY})
    save_checkpoint(root / "student", BlitzNet(config.student, LabelSpace.of(["cat", "dog"])).eval(), config)
    label(StudentTutor(root / "student"), open_dataset(f"voc:{root / 'data'}", "train"), root / "store")
    return root


def words(work: Path, out: Path) -> list[str]:
    data = ["--data", f"voc:{work / 'data'}", "--split", "train"]
    return ["label", "student", "--weights", str(work / "student"), "--device", "cpu", *data, "--out", str(out)]


def test_broken_pictures_are_recorded_and_tried_again(work: Path, tmp_path: Path, capsys) -> None:
    dataset = open_dataset(f"voc:{work / 'data'}", "train")
    picture = next((work / "data" / "JPEGImages").glob(f"{dataset.ids[70]}.*"))
    whole = picture.read_bytes()
    try:
        picture.write_bytes(whole[:100])
        assert main(words(work, tmp_path / "strict")) == 2
        assert dataset.ids[70] in capsys.readouterr().err
        assert main([*words(work, tmp_path / "store"), "--skip-broken"]) == 0
        said = capsys.readouterr().out
        assert f"{IMAGES - 1} images" in said and "1 others could not be read" in said
        store = Store.open(tmp_path / "store")
        assert len(store) == IMAGES - 1 and list(store.failed) == [dataset.ids[70]]
        assert dataset.ids[70] not in store and dataset.ids[71] in store
        store.verify()
    finally:
        picture.write_bytes(whole)
    assert main([*words(work, tmp_path / "store"), "--resume"]) == 0
    assert content(tmp_path / "store") == content(work / "store")


def test_a_store_without_broken_pictures_is_not_judged_and_says_why(make_voc, tmp_path: Path) -> None:
    folder = make_voc(tmp_path / "voc", {"val": ("both",) * 3})
    dataset = open_dataset(f"voc:{folder}", "val")
    picture = folder / "JPEGImages" / "val_001.jpg"
    whole = picture.read_bytes()
    picture.write_bytes(whole[:100])
    label(Repeats(dataset), dataset, tmp_path / "store", skip_broken=True)
    picture.write_bytes(whole)
    with pytest.raises(
        InputError, match=r"no answer for 1 images .*val_001\.jpg: .*; then label with --resume, or take"
    ):
        judge(tmp_path / "store", f"voc:{folder}", "val")


def test_the_next_batch_is_read_while_the_tutor_answers(work: Path, tmp_path: Path) -> None:
    """The tutor waits for an image of the batch after its own to be asked for: it would wait in vain otherwise."""
    import threading

    dataset = open_dataset(f"voc:{work / 'data'}", "train")
    asked: dict[str, threading.Event] = {image_id: threading.Event() for image_id in dataset.ids}

    class Watched:
        name, source, split, ids, labels = dataset.name, dataset.source, dataset.split, dataset.ids, dataset.labels

        def image(self, image_id: str):
            asked[image_id].set()
            return dataset.image(image_id)

    tutor = StudentTutor(work / "student")
    seen = []

    class Waiting:
        labels, identity = tutor.labels, tutor.identity

        def __call__(self, images, image_ids):
            after = dataset.ids.index(image_ids[-1]) + 1
            if after % label_module.PART_ROWS and after < IMAGES:
                seen.append(asked[dataset.ids[after]].wait(10))
            return tutor(images, image_ids)

    label(Waiting(), Watched(), tmp_path / "store", batch=16)
    assert seen == [True] * 7
    assert content(tmp_path / "store") == content(work / "store")


@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_torchruns_processes_share_the_work(work: Path, tmp_path: Path, processes: int) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    subprocess.run([*command, "-m", "tutored", *words(work, tmp_path / "store")], check=True, timeout=300)
    assert content(tmp_path / "store") == content(work / "store")


@pytest.mark.slow
def test_rays_workers_make_the_same_store(work: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    command = [sys.executable, "-m", "tutored", *words(work, tmp_path / "store"), "--engine", "ray", "--workers", "2"]
    subprocess.run(command, check=True, timeout=300)
    assert content(tmp_path / "store") == content(work / "store")
    (tmp_path / "store" / "part-00001.parquet").unlink()
    subprocess.run([*command, "--resume"], check=True, timeout=300)
    assert content(tmp_path / "store") == content(work / "store")


class Noting(Guesser):
    """Notes what it is asked in a file that outlives it."""

    def __init__(self, notes: Path) -> None:
        super().__init__()
        self.notes = notes

    def __call__(self, images: Sequence[Image.Image], image_ids: Sequence[str]) -> list[SoftLabels]:
        with self.notes.open("a") as file:
            file.writelines(f"{image_id}\n" for image_id in image_ids)
        return super().__call__(images, image_ids)


def begin(out: Path, notes: Path) -> int:
    """A process that labels, or goes on."""
    notes.write_text("")
    child = os.fork()
    if child == 0:
        label(Noting(notes), Pictures(), out, batch=2, resume=True)
        os._exit(0)
    return child


def kill_at_random(folder: str) -> None:
    """`store0`, `store1`, ... are killed again and again, each until it is finished; 20 kills in all."""
    import pandas  # noqa: F401  # pyarrow would, in each child

    small_parts()
    root, notes, rng = Path(folder), Path(folder) / "asked", Random(0)
    for name in ("first", "whole"):
        started = time.monotonic()
        assert os.waitpid(begin(root / name, notes), 0)[1] == 0
    seconds = time.monotonic() - started
    store = killed = 0
    while killed < KILLS:
        out = root / f"store{store}"
        before = {path.name for path in out.glob("part-*")}
        child = begin(out, notes)
        time.sleep(rng.uniform(0, seconds))
        os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        assert status in (0, signal.SIGKILL)
        assert before <= {path.name for path in out.glob("part-*")}, "nothing that was whole is lost"
        asked = notes.read_text().split()
        again = {f"part-{Pictures.ids.index(image_id) // PART_ROWS:05d}.parquet" for image_id in asked}
        assert not again & before, "nor asked about twice"
        killed += status == signal.SIGKILL
        store += status == 0


def test_killed_at_twenty_random_moments_it_goes_on_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not from here: this process may have threads, which do not survive a fork.
    command = f"from test_label_scale import kill_at_random; kill_at_random({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", command], cwd=Path(__file__).parent, check=True, timeout=300)
    monkeypatch.setattr(writer, "PART_ROWS", PART_ROWS)
    monkeypatch.setattr(label_module, "PART_ROWS", PART_ROWS)
    stores = sorted(tmp_path.glob("store*"))
    assert stores
    for out in stores:
        for left_over in out.glob(".*.new"):
            os.utime(left_over, (0, 0))  # killed an hour ago
        label(Guesser(), Pictures(), out, batch=2, resume=True)
        assert content(out) == content(tmp_path / "whole")
    assert tuple(Store.open(stores[0])) == Pictures.ids


@pytest.mark.parametrize(("rank", "lines"), [("0", "labelling: 1 of 2"), ("1", "")])
def test_of_several_processes_one_shows_progress(
    rank: str, lines: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setattr(progress, "LINE_SECONDS", -1)
    with progress.bar("labelling") as step:
        step(1, 2)
    assert capsys.readouterr().err.split(", ")[0] == lines
