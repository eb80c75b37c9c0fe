"""What there is to predict: pictures, folders of them, videos, cameras, and what the results of each are called."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePath
from typing import NamedTuple

from tutored.errors import InputError
from tutored.files import is_special

VIDEOS = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".mts", ".m2ts")
CAMERA = "camera:"
RESULT = ".predicted"
"""In the name of every result before its suffix; no picture with such a name is taken from a folder."""


class Inputs(NamedTuple):
    """What a user named.

    Attributes:
        pictures: folders, and files that are no videos.
        videos: files, by their suffix.
        cameras: such as `camera:0`.
        under: where paths came as a list, the folder that all of them lie in; else None.
    """

    pictures: list[Path]
    videos: list[Path]
    cameras: list[str]
    under: Path | None = None


def sort_inputs(words: Sequence[str], lines: Iterable[str]) -> Inputs:
    """Pictures and folders, videos and cameras; `-` alone stands for the paths in `lines`, one a line.

    Raises:
        InputError: `-` is not alone, or there is no line.
    """
    under = None
    if "-" in words:
        if len(words) > 1:
            raise InputError("`-` reads the list of pictures from standard input and stands alone; put all on the list")
        words = [line for line in (line.rstrip("\r\n") for line in lines) if line.strip()]
        if not words:
            raise InputError("-: standard input is empty; give it a path a line, such as `ls *.jpg | tutored ...`")
        under = Path(os.path.commonpath([os.path.dirname(os.path.abspath(word)) for word in words]))
    cameras = [word for word in words if word.startswith(CAMERA)]
    paths = [Path(word) for word in words if word not in cameras]
    videos = [path for path in paths if path.suffix.lower() in VIDEOS and not os.path.isdir(path)]
    return Inputs([path for path in paths if path not in videos], videos, cameras, under)


def find_pictures(
    paths: Sequence[Path], under: Path | None = None, tell: Callable[[str], object] = lambda note: None
) -> dict[str, Path]:
    """Pictures by name: files as given, folders with all the pictures in and under them, linked folders included.

    The name is the file's, or its path inside the given folder; it says what `predict_files` calls its results.

    Args:
        under: a folder, normalised as by `os.path.abspath`, that all of `paths` lie in; names are the paths from there.
        tell: is given a sentence on what is left out of a folder.

    Raises:
        InputError: a path is missing or no picture, a folder has none, or two names differ in their suffix only.
    """
    from tutored.data.images import files_in, left_out_of
    from tutored.pictures import SUFFIXES, picture_size, pictures_in

    found: list[tuple[Path, Path]] = []
    for path in paths:
        inside = [path]
        if os.path.isdir(path):
            files = [file for file in files_in(path) if not is_result(file.relative_to(path))]
            inside = sorted(file for file in files if file.suffix.lower() in SUFFIXES and not is_special(file))
            videos = [file for file in files if file.suffix.lower() in VIDEOS]
            left_out = left_out_of(files)
            if videos:
                left_out.append(f"{len(videos):,} videos, such as {videos[0]}, are left out; name each by itself")
            if not inside:
                told = "; ".join((f"possible: {', '.join(SUFFIXES)}", *left_out))
                raise InputError(f"{path}: no picture in this folder; {told}")
            for note in left_out:
                tell(note)
        for file in inside:
            picture_size(file)
            if pictures_in(file) > 1:
                tell(f"{file}: holds several pictures, of which the first is taken")
            found.append((_name(file, under or (path if os.path.isdir(path) else None)), file))
    return _distinct(found)


def find_videos(paths: Sequence[Path], under: Path | None = None) -> dict[str, Path]:
    """The same for videos, which are taken one by one: folders are not searched for them.

    Raises:
        InputError: a file is missing, or two names differ in their suffix only.
    """
    for path in paths:
        if not path.exists():
            raise InputError(f"{path}: there is no such video; correct its name or take it off the list")
    return _distinct([(_name(path, under), path) for path in paths])


def is_result(path: PurePath) -> bool:
    """Whether a file has the name of a result, or lies in a folder that has."""
    return any(RESULT in part for part in path.parts)


def _name(file: Path, folder: Path | None) -> Path:
    """The file's name, or its path inside `folder`; without `..`, so that results stay in the folder for them."""
    return Path(os.path.relpath(file, folder)) if folder else Path(file.name)


def _distinct(named: Iterable[tuple[Path, Path]]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    stems: dict[Path, Path] = {}
    for name, file in named:
        other = stems.setdefault(name.with_suffix(""), file)
        if other != file:
            raise InputError(f"{other} and {file}: their results would have the same name; predict them separately")
        found[name.as_posix()] = file
    return found
