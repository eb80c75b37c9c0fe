"""Answers written to files: of folders of pictures, and of videos."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from fractions import Fraction
from functools import partial
from itertools import islice, takewhile
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from tutored.data.text import is_background
from tutored.errors import InputError, Progress
from tutored.files import read_json, whole_file, whole_folder, write_encoded
from tutored.inputs import CAMERA, RATE, RESULT, Frame, find_pictures, frames_of, open_video
from tutored.labels import LabelSpace, composed, same_class
from tutored.pictures import read_picture, upright
from tutored.predict import Predictor, Result
from tutored.tasks import Task
from tutored.visualise import lacking_letters

KINDS = ("pictures", "json", "files")
"""What can be written: drawings, `Task.describe`, `Task.save`."""
FILMED = ("pictures", "json")
"""What is written of a video by default: a file a frame makes very many files."""
LONGEST = 65_500
"""Most pixels of a JPEG's side."""


def choose_kinds(wanted: Collection[str] | None, usual: Collection[str], tasks: Mapping[str, Task]) -> tuple[str, ...]:
    """What is to be written; None: of the usual kinds those that these tasks have. Raises InputError: nothing is
    wanted, an unknown kind, or one that no task has.
    """
    possible = [kind for kind in KINDS if any(gives(task, kind) for task in tasks.values())]
    if wanted is None:
        return tuple(kind for kind in usual if kind in possible)
    wrong = [kind for kind in wanted if kind not in possible]
    if wrong or not wanted:
        why = f"{', '.join(tasks)} gives no such results" if wrong and wrong[0] in KINDS else "not possible"
        raise InputError(f"results {','.join(wrong) or 'of no kind'}: {why}; give some of {','.join(possible)}")
    return tuple(wanted)


def gives(task: Task, kind: str) -> bool:
    """Whether a task's answers have this form, one of `KINDS`."""
    form = {"pictures": Task.draw, "json": Task.describe, "files": Task.save}[kind]
    return getattr(type(task), form.__name__) is not form


def predict_files(
    predictor: Predictor,
    paths: Sequence[Path | str],
    out: Path | str,
    score: float | None = None,
    progress: Progress | None = None,
    *,
    kinds: Collection[str] | None = None,
    under: Path | None = None,
    coco: Path | None = None,
    tell: Callable[[str], object] = lambda note: None,
    found: Callable[[str, Result], object] = lambda name, result: None,
) -> Path:
    """Write the results of pictures; memory is that of one batch. Raises InputError: see `find_pictures`, `CocoNumbers`
    and `choose_kinds`; or a picture is broken.

    Args:
        score: boxes from this score on are drawn; None: from `Predictor.scores` on.
        kinds: what is written, of `KINDS`; None: all that there is.
        under, tell: see `find_pictures`.
        coco: a COCO instances file that lists the pictures. The JSON then has the boxes alone, with the file's image
            and category numbers, as pycocotools' `loadRes` wants them. Pictures are taken as they are stored then, as
            COCO's boxes are drawn; else they are turned upright first where their EXIF asks for it.
        tell: is given what the user should know, a sentence each.
        found: is given each picture's name and result, when they are written.

    Returns:
        The path of `predictions.json`, which is written last; `out` without JSON.
    """
    kinds = choose_kinds(kinds, KINDS, predictor.tasks)
    pictures, out = find_pictures([Path(path) for path in paths], under, tell), Path(out)
    if "pictures" in kinds:
        for note in lacking_letters(predictor.tasks):
            tell(note)
    numbers = None
    if coco:
        numbers = CocoNumbers.read(coco, {name for task in predictor.tasks.values() for name in task.labels.classes})
        for name in pictures:
            numbers.image(name)
    names, listed = list(pictures), out / "predictions.json"
    with _json_list(listed) if "json" in kinds else nullcontext() as add:
        for first in range(0, len(names), predictor.batch):
            batch = names[first : first + predictor.batch]
            images = [read_picture(pictures[name]) for name in batch]
            if not numbers:
                images = [upright(image) for image in images]
            seen = [np.asarray(image) for image in images]
            for name, result in zip(batch, predictor(seen), strict=True):
                stem = PurePath(name).with_suffix("").as_posix()
                if add:
                    entries = [{"file_name": name, **entry} for entry in result.to_coco(stem)]
                    for entry in numbers.renumbered(entries) if numbers else entries:
                        add(entry)
                if "pictures" in kinds:
                    drawn = result.plot(score, at_most=LONGEST)
                    write_encoded(out / f"{stem}{RESULT}.jpg", partial(drawn.save, format="JPEG"))
                for task, answer in result.tasks.items() if "files" in kinds else ():
                    predictor.tasks[task].save(answer, out / f"{stem}.{task}{RESULT}")
                found(name, result)
            if progress:
                progress(first + len(batch), len(names))
    return listed if "json" in kinds else out


@contextmanager
def _json_list(path: Path) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Give a function that adds an entry to a list in a file, which is there at the end, or not at all."""
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        separator = "[\n"

        def add(entry: dict[str, Any]) -> None:
            nonlocal separator
            file.write(separator + json.dumps(entry))
            separator = ",\n"

        yield add
        file.write("[]\n" if separator == "[\n" else "\n]\n")


class CocoNumbers(NamedTuple):
    """The numbers that a COCO file gives to images and categories, so that COCO's own tools take our results.

    Attributes:
        file: named in messages.
        images: number by `file_name` without suffix, and by `*/` and its last part where no other image has that.
        categories: number by the name of our class; classes that the file does not know are missing.
    """

    file: Path
    images: Mapping[str, Any]
    categories: Mapping[str, Any]

    @classmethod
    def read(cls, file: Path, classes: Collection[str]) -> CocoNumbers:
        """From an instances file; classes are matched by name, aliases included. Raises InputError: it lacks `images`
        or `categories`, or knows none of `classes`.
        """
        content = read_json(file)
        try:
            files = {composed(image["file_name"]): image["id"] for image in content["images"]}
            paths = {PurePath(name).with_suffix(""): number for name, number in files.items()}
            named = [(item["name"], item["id"]) for item in content["categories"] if not is_background(item["name"])]
            theirs, ids = LabelSpace.of([name for name, _ in named]), [number for _, number in named]
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{file}: no COCO instances with images and categories ({error!r})") from error
        places = {name: same_class(name, theirs) for name in classes}
        categories = {name: ids[place - 1] for name, place in places.items() if place}
        if not categories:
            raise InputError(f"{file}: has none of the classes {', '.join(sorted(classes))}; give the data's own file")
        often = Counter(path.name for path in paths)
        unique = {f"*/{path.name}": number for path, number in paths.items() if often[path.name] == 1}
        return cls(file, unique | {path.as_posix(): number for path, number in paths.items()}, categories)

    def image(self, name: str) -> Any:
        """The number of a picture. Raises InputError where the file does not list it, or has several of its name."""
        path = PurePath(composed(name)).with_suffix("")
        found = self.images.get(path.as_posix(), self.images.get(f"*/{path.name}"))
        if found is None:
            raise InputError(
                f"{name}: is not among the images of {self.file}, or one of several; give the folder that its "
                "names start from, or predict it without --coco"
            )
        return found

    def renumbered(self, entries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """The boxes of classes that the file knows, with the file's numbers."""
        return [
            {
                **entry,
                "image_id": self.image(entry["file_name"]),
                "category_id": self.categories[entry["category"]],
            }
            for entry in entries
            if "bbox" in entry and entry.get("category") in self.categories
        ]


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
    Raises InputError: av is missing, no such camera, not a video, or a broken one; see `choose_kinds`.

    Args:
        source: a video file, or a camera: `camera:0` (Windows: `camera:NAME`).
        into: results are `into` without suffix and with the endings above, in place of earlier ones.
        score: boxes from this score on are drawn; None: from `Predictor.scores` on.
        kinds: what is written, of `KINDS`; None: of `FILMED`, what the tasks have.
        stop: is asked before each frame; when it says yes the files end there.
        found: is given the result of each frame.

    Returns:
        What was written.
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
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        yield lambda line: print(json.dumps(line), file=file)
