"""Videos and cameras: frames as they come, in batches, to a drawn video and a line of JSON each."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tutored.errors import InputError
from tutored.files import whole_file, whole_folder
from tutored.predict.inputs import CAMERA
from tutored.predict.predictor import Predictor
from tutored.predict.results import FILMED, box_entries, choose_kinds
from tutored.progress import Progress
from tutored.visualise import draw, save_mask

CLOCK = 90_000
"""Ticks of a second in what is written; the times of all usual frame rates are whole numbers of it."""
RATE = 30
"""Frames a second where a file does not say."""
CAMERAS = {"linux": ("v4l2", "/dev/video{}"), "darwin": ("avfoundation", "{}"), "win32": ("dshow", "video={}")}
"""FFmpeg's input device of each system, and how it names a camera."""
WAIT = 10.0
"""Seconds to wait for a camera."""


def predict_video(
    predictor: Predictor,
    source: Path | str,
    into: Path,
    score: float = 0.5,
    progress: Progress | None = None,
    *,
    kinds: Collection[str] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> list[Path]:
    """Write a video with boxes and mask drawn in, and a line of JSON for each frame; memory is that of one batch.

    The drawn video (H.264, no sound) shows every frame at its time, in the size of the source; as with pictures, a
    small one is enlarged, and sides are made even, as the codec wants. Frames are turned upright where the file says
    how. A line holds `frame` (from 0), `time` (seconds from the first frame) and `boxes` (see `box_entries`).

    Args:
        source: a video file, or a camera: `camera:0` (Windows: `camera:NAME`).
        into: results are `into` without suffix and with `.predicted.mp4`, `.predicted.jsonl` and, a folder with a mask
            per frame, `.masks`, in place of an earlier one.
        score: boxes from this score on are drawn.
        kinds: what is written, of `KINDS`; None: of `FILMED`, what the student was taught.
        stop: is asked before each frame; when it says yes the files end there.

    Returns:
        What was written.

    Raises:
        InputError: av is missing, no such camera, not a video, or a broken one; see `choose_kinds`.
    """
    kinds = choose_kinds(kinds, FILMED, predictor.tasks)
    labels, count = predictor.student.labels, 0
    drawn, lines, masks = (into.with_suffix(end) for end in (".predicted.mp4", ".predicted.jsonl", ".masks"))
    with ExitStack() as stack:
        video = stack.enter_context(_open(source))
        film = stack.enter_context(_film(drawn, video.rate)) if "pictures" in kinds else None
        text = stack.enter_context(_text(lines)) if "json" in kinds else None
        folder = stack.enter_context(whole_folder(masks)) if "masks" in kinds else None
        frames = video.frames(stop)
        # A camera's frames come slowly: each is answered at once.
        while part := list(islice(frames, 1 if video.live else predictor.batch)):
            for (time, image), prediction in zip(part, predictor([image for _, image in part]), strict=True):
                if film:
                    film(time, draw(image, prediction.above(score), labels))
                if text:
                    text({"frame": count, "time": round(time, 6), "boxes": box_entries(prediction, labels)})
                if folder and prediction.mask is not None:
                    save_mask(prediction.mask, folder / f"{count:06d}.png")
                count += 1
            if progress:
                progress(count, max(video.length, count))
        if not count:
            raise InputError(f"{source}: there is no picture in it")
    written = {"pictures": drawn, "json": lines, "masks": masks}
    return [path for kind, path in written.items() if kind in kinds]


class Video:
    """An open video or camera.

    Attributes:
        live: whether it is a camera.
        rate: frames a second, on the whole.
        length: frames, as far as the file says; else 0.
    """

    def __init__(self, container: Any, name: str, live: bool) -> None:
        if not container.streams.video:
            raise InputError(f"{name}: there is no picture in it; give a video")
        self._container, self._name, self.live = container, name, live
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        self.rate = Fraction(stream.average_rate or RATE)
        seconds = (container.duration or 0) / 1_000_000
        self.length = stream.frames or round(seconds * self.rate)

    def frames(self, stop: Callable[[], bool]) -> Iterator[tuple[float, Image.Image]]:
        """Seconds from the first frame, and the frame, upright, RGB."""
        import av

        count, start = 0, None
        try:
            for frame in self._container.decode(video=0):
                if stop():
                    return
                seconds = float(count / self.rate) if frame.time is None else frame.time
                start = seconds if start is None else start
                yield seconds - start, frame.to_image().rotate(frame.rotation, expand=True)
                count += 1
        except (av.error.FFmpegError, OSError) as error:
            raise InputError(
                f"{self._name}: can't be read past frame {count} ({error.strerror}); fetch or record it again"
            ) from error


@contextmanager
def _open(source: Path | str) -> Iterator[Video]:
    try:
        import av
    except ImportError as error:
        raise InputError("videos and cameras need av; run `pip install 'tutored[video]'`") from error
    name = str(source)
    live = name.startswith(CAMERA)
    # Before a colon, FFmpeg expects the name of a protocol.
    called, device = _camera(name) if live else (f"file:{name}", None)
    try:
        container = av.open(called, format=device, timeout=WAIT if live else None)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        told = "there is no such camera, or another program has it" if live else "not a video that can be read"
        raise InputError(f"{name}: {told} ({error})") from error
    with container:
        yield Video(container, name, live)


def _camera(name: str) -> tuple[str, str]:
    """What FFmpeg calls the camera, and its input device."""
    given = name.removeprefix(CAMERA)
    if sys.platform not in CAMERAS:
        raise InputError(f"{name}: no cameras on {sys.platform}; possible: {', '.join(CAMERAS)}")
    if sys.platform != "win32" and not given.isdecimal():
        raise InputError(f"{name}: give a camera's number, such as camera:0")
    device, called = CAMERAS[sys.platform]
    return called.format(given), device


@contextmanager
def _film(path: Path, rate: Fraction) -> Iterator[Callable[[float, Image.Image], None]]:
    """Give a function that adds a picture at a time in seconds; the file is there at the end, or not at all."""
    import av

    with whole_file(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        stream: Any = None
        ticks = -1

        def add(time: float, image: Image.Image) -> None:
            nonlocal stream, ticks
            if stream is None:
                stream = container.add_stream("h264", rate=rate, options={"crf": "20", "preset": "fast"})
                stream.width, stream.height = (side + side % 2 for side in image.size)
                stream.pix_fmt = "yuv420p"
                stream.codec_context.time_base = Fraction(1, CLOCK)
            frame = av.VideoFrame.from_ndarray(np.asarray(image), format="rgb24").reformat(
                stream.width, stream.height, stream.pix_fmt
            )
            ticks = max(round(time * CLOCK), ticks + 1)
            frame.pts, frame.time_base = ticks, Fraction(1, CLOCK)
            container.mux(stream.encode(frame))

        yield add
        if stream is not None:
            container.mux(stream.encode())


@contextmanager
def _text(path: Path) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Give a function that adds an object as a line."""
    with whole_file(path) as temporary, temporary.open("w") as file:
        yield lambda line: print(json.dumps(line), file=file)
