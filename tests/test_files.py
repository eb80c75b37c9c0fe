import pytest

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
