"""Pictures without ground truth, and training from tutors alone on them."""

import os
from functools import partial

import fsspec
import pytest

from made import pictures, refused
from tutored.data import open_dataset
from tutored.data.views import relabelled
from tutored.errors import InputError
from tutored.inputs import find_pictures

picture = partial(pictures, size=(8, 6), colour=(200, 0, 0))


def test_a_folder_of_pictures_has_nothing_annotated(tmp_path):
    picture(tmp_path / "new" / "b.png")
    picture(tmp_path / "new" / "deep" / "a.jpg", size=(4, 9))
    (tmp_path / "new" / "notes.txt").write_text("no picture")
    dataset = open_dataset(f"images:{tmp_path}", "new")
    assert dataset.ids == ("b", "deep/a") and dataset.annotated_tasks("b") == ()
    truth = dataset.ground_truth("deep/a")
    assert truth.size == (9, 4) and not truth.tasks and not dataset.problems("b")
    assert dataset.image("b").getpixel((0, 0)) == (200, 0, 0)
    assert [labels.classes for labels in dataset.labels.values()] == [(), ()]
    seen = relabelled(dataset, {"segmentation": ("cat", "dog")})
    assert (seen.labels["detection"].classes, seen.labels["segmentation"].classes) == ((), ("cat", "dog"))


@pytest.mark.tried("noted", "links that lead nowhere, pipes and folders that can't be read among pictures")
def test_what_is_no_file_in_a_folder_is_left_out_and_noted(tmp_path):
    picture(tmp_path / "new" / "b.png")
    os.mkfifo(tmp_path / "new" / "a.jpg")
    dataset = open_dataset(f"images:{tmp_path}", "new")
    assert dataset.ids == ("b",) and dataset.notes == (
        f"1 files, such as {tmp_path / 'new' / 'a.jpg'}, are links that lead nowhere, or pipes: left out",
    )
    notes = []
    assert list(find_pictures([tmp_path / "new"], tell=notes.append)) == ["b.png"]
    assert tuple(notes) == dataset.notes


@pytest.mark.tried("refused by name", "links that lead nowhere, pipes and folders that can't be read among pictures")
def test_a_folder_that_can_t_be_read_is_not_passed_over(tmp_path, monkeypatch):
    picture(tmp_path / "new" / "b.png", tmp_path / "new" / "locked" / "a.png")
    scan = os.scandir

    def locked(place):
        if place.endswith("locked"):
            raise PermissionError(13, "Permission denied", place)
        return scan(place)

    monkeypatch.setattr(os, "scandir", locked)
    with pytest.raises(InputError, match=r"new/locked: the folder can't be read \(Permission denied\); see to its"):
        open_dataset(f"images:{tmp_path}", "new")


def test_a_list_holds_paths_and_addresses(tmp_path):
    near, far = tmp_path / "near.png", tmp_path / "elsewhere" / "far.png"
    picture(near)
    picture(far, size=(5, 5))
    (tmp_path / "mixed.txt").write_text(f"{near.name}\n\n{far}\nfile://{tmp_path}/elsewhere/far.png\n")
    (tmp_path / "labels.txt").write_text("cat\n")
    refused("both are called", open_dataset, f"images:{tmp_path}", "mixed")
    (tmp_path / "mixed.txt").write_text(f"{near.name}\nfile://{tmp_path}/elsewhere/far.png\n")
    dataset = open_dataset(f"images:{tmp_path}", "mixed")
    assert dataset.ids == ("near", str(far.with_suffix("")).lstrip("/"))
    assert [dataset.image(image_id).size for image_id in dataset.ids] == [(8, 6), (5, 5)]
    assert dataset.labels["detection"].classes == ("cat",)


@pytest.mark.tried("noted", "GIF, HEIC, raw or JPEG 2000 among pictures")
def test_pictures_of_other_formats_are_noted(tmp_path):
    picture(tmp_path / "new" / "a.jpg")
    for name in ("b.dng", "c.gif", "d.HEIC", "e.jp2", ".hidden.gif", "notes.txt"):
        (tmp_path / "new" / name).touch()
    (note,) = open_dataset(f"images:{tmp_path}", "new").notes
    assert note.startswith("4 pictures of other formats, such as") and "b.dng, are left out; save them" in note
    (tmp_path / "new" / "a.jpg").unlink()
    refused("no picture; possible: .*; 4 pictures of other formats, such as", open_dataset, f"images:{tmp_path}", "new")


def test_mistakes_are_told(tmp_path, monkeypatch):
    (tmp_path / "train").mkdir()
    refused(r"neither val\.txt.* possible: train", open_dataset, f"images:{tmp_path}", "val")
    refused("no picture", open_dataset, f"images:{tmp_path}", "train")
    (tmp_path / "val.txt").write_text("../x.png\n")
    refused("climbs out", open_dataset, f"images:{tmp_path}", "val")
    for line in (".", "/", "file:///"):
        (tmp_path / "val.txt").write_text(f"{line}\n")
        refused(r"val\.txt: '.*' is no picture; correct the line", open_dataset, f"images:{tmp_path}", "val")
    (tmp_path / "val.txt").write_text("x.png\nx.png\n")
    refused("both are called x; list it once", open_dataset, f"images:{tmp_path}", "val")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "M\udcfcller.jpg").write_bytes(b"")
    refused(r"M\\xfcller\.jpg': a name that is not UTF-8", open_dataset, f"images:{tmp_path}", "old")
    (tmp_path / "val.txt").write_text("file:///nowhere/x.png\n")
    with pytest.raises(InputError, match="there is no such picture"):
        open_dataset(f"images:{tmp_path}", "val").image("nowhere/x")
    picture(tmp_path / "big.png", size=(400, 400))
    fsspec.filesystem("memory").pipe("/big.png", (tmp_path / "big.png").read_bytes())
    (tmp_path / "val.txt").write_text("memory://big.png\n")
    monkeypatch.setattr("tutored.pictures.MOST_BYTES", 100)
    with pytest.raises(InputError, match="can't be read"):
        dataset = open_dataset(f"images:{tmp_path}", "val")
        dataset.image(dataset.ids[0])


@pytest.mark.tried("noted", "links that lead nowhere, pipes and folders that can't be read among pictures")
def test_a_link_that_leads_nowhere_is_left_out_and_noted(tmp_path):
    picture(tmp_path / "new" / "b.png")
    (tmp_path / "new" / "a.jpg").symlink_to(tmp_path / "moved.jpg")
    dataset = open_dataset(f"images:{tmp_path}", "new")
    assert dataset.ids == ("b",) and "a.jpg, are links that lead nowhere" in dataset.notes[0]
    assert list(find_pictures([tmp_path / "new"])) == ["b.png"]


def test_links_to_folders_are_followed_each_once(tmp_path):
    picture(tmp_path / "far" / "deep" / "a.png", tmp_path / "new" / "b.png")
    (tmp_path / "new" / "linked").symlink_to(tmp_path / "far")
    (tmp_path / "far" / "back").symlink_to(tmp_path / "new")
    assert open_dataset(f"images:{tmp_path}", "new").ids == ("b", "linked/deep/a")
