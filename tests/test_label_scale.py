"""Labelling where pictures are broken, in several processes, and on a cluster."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tutored.checkpoint import save_checkpoint
from tutored.cli import main
from tutored.config import make_config
from tutored.data import open_dataset
from tutored.labels import LabelSpace
from tutored.softlabels import Store
from tutored.student import BlitzNet
from tutored.tutors import label as label_module
from tutored.tutors.label import label
from tutored.tutors.student import StudentTutor

TINY = {"backbone": "mobilenetv3_small_050", "size": 64, "extra_width": 32, "up_width": 16, "map_width": 8}
IMAGES = 150


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
        assert "1 of them could not be read" in capsys.readouterr().out
        store = Store.open(tmp_path / "store")
        assert len(store) == IMAGES - 1 and list(store.failed) == [dataset.ids[70]]
        assert dataset.ids[70] not in store and dataset.ids[71] in store
        store.verify()
    finally:
        picture.write_bytes(whole)
    assert main([*words(work, tmp_path / "store"), "--resume"]) == 0
    assert content(tmp_path / "store") == content(work / "store")


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
