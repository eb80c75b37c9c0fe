import errno
import os
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from safetensors.numpy import save_file

from tutored.errors import InputError
from tutored.files import former, whole_file, whole_folder, write_encoded, write_text


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "file.txt"
    write_text(path, "first")
    with pytest.raises(OSError, match="disk full"), whole_file(path) as temporary:
        temporary.write_text("half of the sec")
        raise OSError("disk full")
    assert path.read_text() == "first"
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "folder"
    with whole_folder(path) as folder:
        (folder / "a").write_text("1")
    with pytest.raises(OSError, match="disk full"), whole_folder(path) as folder:
        (folder / "b").write_text("2")
        raise OSError("disk full")
    assert [item.name for item in path.iterdir()] == ["a"]
    with whole_folder(path) as folder:
        (folder / "c").write_text("3")
    assert [item.name for item in path.iterdir()] == ["c"]
    assert not former(path).exists()


def test_a_link_is_replaced_and_where_it_leads_stays(tmp_path):
    path, disk = tmp_path / "run" / "state", tmp_path / "disk"
    path.parent.mkdir()
    disk.mkdir()
    (disk / "mine").touch()
    path.symlink_to(disk)
    for name in ("a", "b"):
        with whole_folder(path) as folder:
            (folder / name).touch()
    assert [item.name for item in path.iterdir()] == ["b"] and list(path.parent.iterdir()) == [path]
    assert [item.name for item in disk.iterdir()] == ["mine"]


def test_the_current_folder_is_not_replaced(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = r"^\.: is the folder that you are in; give one of its own, such as new"
    with pytest.raises(InputError, match=told), whole_folder(Path()):
        pass
    write_text(Path("a"), "1")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    with pytest.raises(InputError, match="something else is there"):
        write_text(Path(), "1")


def write_parquet(path):
    pq.write_table(pa.table({"a": np.random.default_rng(0).random(10_000)}), path)


def write_tensors(path):
    save_file({"a": np.zeros(10_000)}, path)


@pytest.mark.parametrize("write", [write_parquet, write_tensors])
@pytest.mark.parametrize("whole", ["file", "folder"])
def test_errors_of_the_disk_name_the_file_and_the_remedy(tmp_path, write, whole, small_files):
    path = tmp_path / "store"
    with pytest.raises(OSError, match=r"^/.*/store: can't be written \(.*File too large.*\); make room.* --resume\)$"):
        if whole == "file":
            with whole_file(path) as temporary, small_files():
                write(temporary)
        else:
            with whole_folder(path) as folder, small_files():
                write(folder / "part")
    assert list(tmp_path.iterdir()) == []


NOISE = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    "write",
    [
        partial(Image.fromarray(NOISE).save, format="JPEG"),
        partial(Image.fromarray(NOISE).save, format="PNG"),
        partial(np.save, arr=NOISE),
    ],
)
def test_what_a_library_writes_is_whole_or_not_there(tmp_path, write, small_files):
    path = tmp_path / "written"
    write_encoded(path, write)
    whole = path.read_bytes()
    path.unlink()
    for size in (1, 1000, len(whole) // 2, len(whole) - 1):
        with pytest.raises(OSError, match=r"written: can't be written \(File too large\)"), small_files(size):
            write_encoded(path, write)
        assert list(tmp_path.iterdir()) == []
    with small_files(len(whole)):
        write_encoded(path, write)
    assert path.read_bytes() == whole


@pytest.mark.parametrize("whole", [whole_file, whole_folder])
def test_a_pipe_is_never_replaced(tmp_path, whole):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="pipe: something else is there"), whole(tmp_path / "pipe"):
        pass
    assert (tmp_path / "pipe").is_fifo() and len(list(tmp_path.iterdir())) == 1


def test_a_folder_of_the_users_beside_it_is_left_alone(tmp_path):
    (tmp_path / "folder.old").mkdir()
    for _ in range(2):
        with whole_folder(tmp_path / "folder"):
            pass
    assert {path.name for path in tmp_path.iterdir()} == {"folder", "folder.old"}


def test_a_disk_that_is_full_at_the_last_moment_is_named_too(tmp_path, monkeypatch):
    def full(*_paths):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tutored.files.os.replace", full)
    with pytest.raises(OSError, match=r"notes\.txt: can't be written \(No space left on device\); make room") as caught:
        write_text(tmp_path / "notes.txt", "text")
    assert caught.value.errno == errno.ENOSPC
    with pytest.raises(FileNotFoundError), whole_file(tmp_path / "swept") as temporary:
        temporary.unlink(missing_ok=True)
        raise FileNotFoundError(errno.ENOENT, "swept away")


def test_a_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"file/notes\.txt: can't be written \((File exists|Not a directory)\)"):
        write_text(tmp_path / "file" / "notes.txt", "text")
