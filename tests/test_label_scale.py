"""Labelling where pictures are broken, in several processes, and on a cluster."""

import subprocess
import sys

import pytest
import torch
from PIL import Image

from made import TINY, Repeats
from tutored.checkpoint import save_checkpoint
from tutored.cli import main
from tutored.config import make_config
from tutored.data import open_dataset
from tutored.errors import InputError
from tutored.judge import judge
from tutored.labels import LabelSpace
from tutored.softlabels import Store
from tutored.students import make_student
from tutored.tasks import open_task
from tutored.tutors import open_tutor
from tutored.tutors.label import label

IMAGES = 150


def content(store):
    return {path.name: path.read_bytes() for path in store.iterdir()}


@pytest.fixture(scope="module")
def work(make_voc, tmp_path_factory):
    """A folder with `data` (150 images: three parts), a `student` and the `store` that one process makes."""
    root = tmp_path_factory.mktemp("scale")
    make_voc(root / "data", {"train": ("none",) * IMAGES})
    torch.manual_seed(0)
    config = make_config({"data": {"train": "voc:somewhere"}, "student": TINY})
    labels = LabelSpace.of(["cat", "dog"])
    tasks = {name: open_task(name, labels, section) for name, section in config.tasks.items()}
    save_checkpoint(root / "student", make_student(config.student, tasks).eval(), config)
    tutor = open_tutor("student", weights=root / "student", device="cpu")
    label(tutor, open_dataset(f"voc:{root / 'data'}", "train"), root / "store")
    return root


def words(work, out):
    data = ["--data", f"voc:{work / 'data'}", "--split", "train"]
    return ["label", f"student:{work / 'student'}", "--device", "cpu", *data, "--out", str(out)]


def test_a_student_answers_the_tasks_that_are_named(work):
    image, student = Image.new("RGB", (70, 50)), work / "student"
    both = open_tutor(f"student:{student}", device="cpu")
    assert set(both([image], ["a"])[0].tasks) == {"detection", "segmentation"}
    assert both.labels.classes == ("cat", "dog") and both.identity["score_floor"] == 0.01
    one = open_tutor(f"student:{student}", device="cpu", tasks=["detection"], score_floor=0.5)
    assert set(one([image], ["a"])[0].tasks) == {"detection"}
    assert one.identity["score_floor"] == 0.5 and one.identity["input_map_stride"] is None
    with pytest.raises(InputError, match="was not taught 'depth'; possible: detection, segmentation"):
        open_tutor(f"student:{student}", tasks=["depth"])
    with pytest.raises(InputError, match="max_boxes: unknown"):
        open_tutor(f"student:{student}", max_boxes=3)


def test_tasks_with_other_classes_need_a_choice(tmp_path):
    config = make_config({"data": {"train": "voc:somewhere"}, "student": TINY})
    spaces = {"detection": LabelSpace.of(["cat", "dog"]), "segmentation": LabelSpace.of(["cat"])}
    tasks = {name: open_task(name, spaces[name], section) for name, section in config.tasks.items()}
    save_checkpoint(tmp_path / "student", make_student(config.student, tasks).eval(), config)
    with pytest.raises(InputError, match="tasks: .*detection, segmentation are of one kind or have other classes"):
        open_tutor("student", weights=tmp_path / "student")
    assert open_tutor("student", weights=tmp_path / "student", tasks=["segmentation"]).labels.classes == ("cat",)


def test_broken_pictures_are_recorded_and_tried_again(work, tmp_path, capsys):
    dataset = open_dataset(f"voc:{work / 'data'}", "train")
    picture = next((work / "data" / "JPEGImages").glob(f"{dataset.ids[70]}.*"))
    whole = picture.read_bytes()
    try:
        picture.write_bytes(whole[:100])
        assert main(words(work, tmp_path / "strict")) == 2
        assert dataset.ids[70] in capsys.readouterr().err
        assert main([*words(work, tmp_path / "store"), "--skip-broken"]) == 0
        told = capsys.readouterr().out
        assert f"{IMAGES - 1} images" in told and "1 others could not be read" in told
        store = Store.open(tmp_path / "store")
        assert len(store) == IMAGES - 1 and list(store.failed) == [dataset.ids[70]]
        assert dataset.ids[70] not in store and dataset.ids[71] in store
        store.verify()
    finally:
        picture.write_bytes(whole)
    assert main([*words(work, tmp_path / "store"), "--resume"]) == 0
    assert content(tmp_path / "store") == content(work / "store")


def test_a_store_without_broken_pictures_is_not_judged(make_voc, tmp_path):
    folder = make_voc(tmp_path / "voc", {"val": ("both",) * 3})
    dataset = open_dataset(f"voc:{folder}", "val")
    picture = folder / "JPEGImages" / "val_001.jpg"
    whole = picture.read_bytes()
    picture.write_bytes(whole[:100])
    label(Repeats(dataset), dataset, tmp_path / "store", skip_broken=True)
    picture.write_bytes(whole)
    with pytest.raises(InputError, match=r"no answer for 1 .*val_001\.jpg: .*; then label with --resume, or take"):
        judge(tmp_path / "store", f"voc:{folder}", "val")


@pytest.mark.slow
def test_rays_workers_make_the_same_store(work, tmp_path):
    pytest.importorskip("ray")
    command = [sys.executable, "-m", "tutored", *words(work, tmp_path / "store"), "--engine", "ray", "--workers", "2"]
    subprocess.run(command, check=True, timeout=300)
    assert content(tmp_path / "store") == content(work / "store")
    (tmp_path / "store" / "part-00001.parquet").unlink()
    subprocess.run([*command, "--resume"], check=True, timeout=300)
    assert content(tmp_path / "store") == content(work / "store")
