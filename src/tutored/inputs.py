"""What is predicted: picture files, videos and cameras, and the frames of the latter."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from PIL import Image

from tutored.errors import InputError, needing
from tutored.files import is_special, regular

VIDEOS = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".mts", ".m2ts")
CAMERA = "camera:"
RESULT = ".predicted"
"""In the name of every result before its suffix; no picture with such a name is taken from a folder."""


class Inputs(NamedTuple):
    """What a user named.

    Attributes:
        pictures: folders, and files that are no videos.
        videos: files, by their suffix.
        under: where paths came as a list, the folder that all of them lie in; else None.
    """

    pictures: list[Path]
    videos: list[Path]
    cameras: list[str]
    under: Path | None = None


def sort_inputs(words: Sequence[str], lines: Iterable[str]) -> Inputs:
    """Pictures and folders, videos and cameras; `-` alone stands for the paths in `lines`, one a line. Raises
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

    The name is the file's, or its path inside the given folder; it says what `predict_files` calls its results. Raises
    InputError: a path is missing or no picture, a folder has none, or two names differ in their suffix only.

    Args:
        under: a folder, normalised as by `os.path.abspath`, that all of `paths` lie in; names are the paths from there.
        tell: is given a sentence on what is left out of a folder.
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
    """The same for videos, which are taken one by one: folders are not searched for them. Raises InputError: a file is
    missing, or two names differ in their suffix only.
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


RATE = 30
"""Frames a second where a file does not say."""
CAMERAS = {"linux": ("v4l2", "/dev/video{}"), "darwin": ("avfoundation", "{}"), "win32": ("dshow", "video={}")}
"""FFmpeg's input device of each system, and how it names a camera."""
WAIT = 10.0
"""Seconds to wait for a camera."""


class Frame(NamedTuple):
    """A frame at a time in seconds from the first one: the picture, upright, RGB, and its pixels' width by height."""

    time: float
    image: Image.Image
    aspect: Fraction


def read_frames(source: Path | str) -> Iterator[Image.Image]:
    """The pictures of a video file. Raises InputError as `open_video` and `frames_of`."""
    with open_video(str(source)) as container:
        for frame in frames_of(container, str(source), Fraction(RATE)):
            yield frame.image


def frames_of(container: Any, name: str, rate: Fraction) -> Iterator[Frame]:
    """Frames as they come. Raises InputError where the video is broken from some frame on. A video that
    does not say its frames' times has `rate` of them a second.
    """
    import av

    count, start, aspect = 0, None, container.streams.video[0].sample_aspect_ratio or Fraction(1)
    try:
        for frame in container.decode(video=0):
            seconds = float(count / rate) if frame.time is None else frame.time
            start = seconds if start is None else start
            image = frame.to_image().rotate(frame.rotation, expand=True)
            yield Frame(seconds - start, image, 1 / aspect if frame.rotation % 180 else aspect)
            count += 1
    except (av.error.FFmpegError, OSError) as error:
        raise InputError(
            f"{name}: can't be read past frame {count} ({error.strerror}); fetch or record it again"
        ) from error


def open_video(name: str) -> Any:
    """FFmpeg's container of a video or camera. Raises InputError where av or the video is missing, or it is none."""
    with needing("videos and cameras need", "video"):
        import av
    # Before a colon, FFmpeg expects the name of a protocol.
    device, place, why, wait = None, f"file:{name}", "not a video that can be read", None
    if name.startswith(CAMERA):
        device, place = _camera(name)
        why, wait = "there is no such camera, or another program has it", WAIT
    try:
        if device is None:
            regular(Path(name))
        container = av.open(place, format=device, timeout=wait)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise InputError(f"{name}: {why} ({error})") from error
    if not container.streams.video:
        container.close()
        raise InputError(f"{name}: there is no picture in it; give a video")
    container.streams.video[0].thread_type = "AUTO"
    return container


def _camera(name: str) -> tuple[str, str]:
    """FFmpeg's input device, and what it calls the camera."""
    given = name.removeprefix(CAMERA)
    if sys.platform not in CAMERAS:
        raise InputError(f"{name}: no cameras on {sys.platform}; possible: {', '.join(CAMERAS)}")
    if sys.platform != "win32" and not given.isdecimal():
        raise InputError(f"{name}: give a camera's number, such as camera:0")
    device, called = CAMERAS[sys.platform]
    return device, called.format(given)
