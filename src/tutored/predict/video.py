"""Videos and cameras: frames as they come, in batches, to a drawn video, a line of JSON for each, and files.

`NAME.predicted.mp4` (H.264, no sound) shows every frame at its time, in the size and with the pixels' aspect ratio of
the source; as with pictures, a small one is enlarged, and sides are made even, as the codec wants. Frames are turned
upright where the file says how. A line of `NAME.predicted.jsonl` holds `frame` (from 0), `time` (seconds from the first
frame) and `tasks` (see `Task.describe`). The folder `NAME.TASK.predicted` holds one file a frame, of a task that has
files.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tutored.errors import InputError
from tutored.files import whole_file, whole_folder
from tutored.predict.frames import RATE, Frame, frames_of, open_video
from tutored.predict.inputs import CAMERA, RESULT
from tutored.predict.pictures import FILMED, choose_kinds, gives
from tutored.predict.predictor import Predictor
from tutored.predict.result import Result
from tutored.progress import Progress

CLOCK = 90_000
"""Ticks of a second in what is written; the times of all usual frame rates are whole numbers of it."""


def predict_video(
    predictor: Predictor,
    source: Path | str,
    into: Path | str,
    score: float | None = None,
    progress: Progress | None = None,
    *,
    kinds: Collection[str] | None = None,
    stop: Callable[[], bool] = lambda: False,
    found: Callable[[Result], object] = lambda result: None,
) -> list[Path]:
    """Write a video with the answers drawn in, a line of JSON for each frame, and files; memory is that of one batch.

    Args:
        source: a video file, or a camera: `camera:0` (Windows: `camera:NAME`).
        into: results are `into` without suffix and with the endings above, in place of earlier ones.
        score: boxes from this score on are drawn; None: from `Predictor.scores` on.
        kinds: what is written, of `KINDS`; None: of `FILMED`, what the tasks have.
        stop: is asked before each frame; when it says yes the files end there.
        found: is given the result of each frame.

    Returns:
        What was written.

    Raises:
        InputError: av is missing, no such camera, not a video, or a broken one; see `choose_kinds`.
    """
    kinds, tasks, count = choose_kinds(kinds, FILMED, predictor.tasks), predictor.tasks, 0
    into = Path(into)
    endings = {"pictures": "mp4", "json": "jsonl"}
    written = {kind: into.with_suffix(f"{RESULT}.{endings[kind]}") for kind in endings if kind in kinds}
    saving = {
        name: into.with_suffix(f".{name}{RESULT}") for name in tasks if "files" in kinds and gives(tasks[name], "files")
    }
    with ExitStack() as stack:
        container = stack.enter_context(open_video(str(source)))
        stream = container.streams.video[0]
        rate = Fraction(stream.average_rate or RATE)
        length = stream.frames or round((container.duration or 0) / 1_000_000 * rate)
        film = stack.enter_context(_film(written["pictures"], rate)) if "pictures" in kinds else None
        text = stack.enter_context(_text(written["json"])) if "json" in kinds else None
        folders = {name: stack.enter_context(whole_folder(path)) for name, path in saving.items()}
        frames = takewhile(lambda _: not stop(), frames_of(container, str(source), rate))
        # A camera's frames come slowly: each is answered at once.
        at_once = 1 if str(source).startswith(CAMERA) else predictor.batch
        while batch := list(islice(frames, at_once)):
            for frame, result in zip(batch, predictor([frame.image for frame in batch]), strict=True):
                if film:
                    film(frame, result.plot(score))
                if text:
                    text({"frame": count, "time": round(frame.time, 6), "tasks": result.entries()})
                for name, folder in folders.items():
                    tasks[name].save(result.tasks[name], folder / f"{count:06d}")
                found(result)
                count += 1
            if progress:
                progress(count, max(length, count))
        if not count:
            raise InputError(f"{source}: there is no picture in it")
    return [*written.values(), *saving.values()]


@contextmanager
def _film(path: Path, rate: Fraction) -> Iterator[Callable[[Frame, Image.Image], None]]:
    """Give a function that adds a frame's drawing; the file is there at the end, or not at all."""
    import av

    with whole_file(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        stream: Any = None
        ticks = -1

        def add(shown: Frame, image: Image.Image) -> None:
            nonlocal stream, ticks
            if stream is None:
                stream = container.add_stream("h264", rate=rate, options={"crf": "20", "preset": "fast"})
                stream.width, stream.height = (side + side % 2 for side in image.size)
                stream.pix_fmt = "yuv420p"
                stream.codec_context.time_base = Fraction(1, CLOCK)
                stream.codec_context.sample_aspect_ratio = shown.aspect
            frame = av.VideoFrame.from_ndarray(np.asarray(image), format="rgb24")
            frame = frame.reformat(stream.width, stream.height, stream.pix_fmt)
            ticks = max(round(shown.time * CLOCK), ticks + 1)
            frame.pts, frame.time_base = ticks, Fraction(1, CLOCK)
            container.mux(stream.encode(frame))

        yield add
        if stream is not None:
            container.mux(stream.encode())


@contextmanager
def _text(path: Path) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Give a function that adds an object as a line."""
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        yield lambda line: print(json.dumps(line), file=file)
