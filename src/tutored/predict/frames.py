"""Frames of videos and cameras as they come, by FFmpeg (PyAV)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from tutored.errors import InputError
from tutored.files import regular
from tutored.predict.inputs import CAMERA

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
    """Frames as they come. Raises InputError where the video is broken from some frame on.

    Args:
        name: for messages.
        rate: frames a second, of a video that does not say its frames' times.
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
    try:
        import av
    except ImportError as error:
        raise InputError("videos and cameras need av; run `pip install 'tutored[video]'`") from error
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
