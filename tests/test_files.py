import errno
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from tutored.files import former, whole_file, whole_folder, write_text


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


@pytest.fixture
def small_files() -> Callable[..., object]:
    """A context in which the system itself refuses files of more than 4 kB."""

    @contextmanager
    def limited() -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited


def write_plain(path: Path) -> None:
    path.write_text("x" * 100_000)


def write_parquet(path: Path) -> None:
    pq.write_table(pa.table({"a": np.random.default_rng(0).random(10_000)}), path)


def write_tensors(path: Path) -> None:
    save_file({"a": np.zeros(10_000)}, path)


@pytest.mark.parametrize("write", [write_plain, write_parquet, write_tensors])
@pytest.mark.parametrize("whole", ["file", "folder"])
def test_errors_of_the_disk_name_the_file_the_reason_and_what_to_do(tmp_path, write, whole, small_files):
    path = tmp_path / "store"
    with pytest.raises(OSError, match=r"^/.*/store: can't be written \(.*File too large.*\); make room.* --resume\)$"):
        if whole == "file":
            with whole_file(path) as temporary, small_files():
                write(temporary)
        else:
            with whole_folder(path) as folder, small_files():
                write(folder / "part")
    assert list(tmp_path.iterdir()) == []


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
