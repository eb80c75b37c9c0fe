"""Images of one split with annotations by task, the shape in which every format is read; and folders of bare pictures.

A format is a list of images and, for each kind of task that it can annotate, an `Annotations`. A run takes them under
the names of its tasks, and further ones from folders with one file an image (`with_tasks`).
"""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, NamedTuple

from PIL import Image

from tutored.config import ClassSection
from tutored.config.entries import DEFAULT_TASKS
from tutored.config.training import Empty
from tutored.data.text import CLASS_FILES, gather, own_classes, own_name, read_classes, read_lines, refuse_unwritable
from tutored.errors import InputError, is_one_line, told_of
from tutored.files import is_special
from tutored.labels import LabelSpace, composed
from tutored.pictures import SUFFIXES, UNREAD, picture_size, read_picture, stored_orientation
from tutored.tasks import task_class
from tutored.types import GroundTruth, Size

LISTS = "give a file with one class a line, in the order of their numbers"
DRAWN_TURNED = (
    "what was drawn on the turned picture needs a picture that is stored so: turn the pixels, such as by "
    "`mogrify -auto-orient *.jpg` (ImageMagick) on a copy of the pictures"
)


@dataclass(frozen=True, kw_only=True)
class Annotations:
    """The annotations of one task; as it stands, nobody annotated anything.

    Attributes:
        labels: the classes that annotations are in.
        notes: what was left out or changed, a line each that names the file.
        states_classes: whether the annotations say themselves what their numbers or names mean.
    """

    states_classes: ClassVar[bool] = False
    labels: LabelSpace
    notes: tuple[str, ...] = ()

    def has(self, image_id: str) -> bool:
        """Whether the image is annotated, found without reading the annotation."""
        return False

    def is_blank(self, image_id: str) -> bool:
        """Whether there is a place for the image's objects, and none in it: the image is empty, or not labelled yet.

        A reader whose format leaves that open answers True here, also for a file of objects that is missing, and True
        in `has`; what it then reads has no object. `Images.empty` decides whether that is taken.
        """
        return False

    def files(self, image_id: str) -> tuple[Path, ...]:
        """Those that hold the image's annotation, and perhaps others'."""
        return ()

    def read(self, image_id: str, size: Size) -> Any:
        """The annotation of an image that has one. Raises InputError, a line for each fault, naming file and object."""
        raise LookupError(image_id)


@dataclass(frozen=True, kw_only=True)
class AnnotationFiles(Annotations):
    """One file an image, in the first of `folders` that has one; each kind of task reads its own."""

    kind: str
    folders: tuple[Path, ...]
    suffixes: tuple[str, ...]

    def path(self, image_id: str) -> Path | None:
        return first_file(self.folders, image_id, self.suffixes)

    def files(self, image_id: str) -> tuple[Path, ...]:
        path = self.path(image_id)
        return () if path is None else (path,)

    def has(self, image_id: str) -> bool:
        return self.path(image_id) is not None

    def read(self, image_id: str, size: Size) -> Any:
        path = self.path(image_id)
        assert path is not None
        return task_class(self.kind).read(path, size, self.labels)

    def unpaired(self, names: Set[str]) -> tuple[str, ...]:
        """Of each folder a sentence on the files that have none of the pictures' `names`, and on those of other
        formats.
        """
        notes = []
        for folder in self.folders:
            names_of = {path: _name(path, folder) for path in files_in(folder)}
            files = [path for path in names_of if path.suffix.lower() in self.suffixes]
            lost = [path for path in files if names_of[path] not in names]
            unread = names - {names_of[path] for path in files}
            others = [path for path in names_of if names_of[path] in unread]
            if others:
                notes.append(
                    f"{folder}: {len(others):,} files, such as {min(others).name}, have the name of a picture and are "
                    f"not read; possible: {', '.join(self.suffixes)}"
                )
            if lost:
                notes.append(
                    f"{folder}: {len(lost):,} of {len(files):,} files, such as {min(lost).name}, have the name of no "
                    "picture and annotate nothing; a file belongs to the picture of its very name: rename them"
                )
        return tuple(notes)


@dataclass(frozen=True, kw_only=True, eq=False)
class Images:
    """Images of one split; see `types.Dataset`.

    Attributes:
        format: such as `voc`.
        folder: of the data set.
        classes: the classes that the folder states.
        place: the file or address of an image's picture by its id; an absent one raises when it is read.
        tasks: annotations by the names of tasks, as a format gives them by the names of kinds.
        further: annotations of kinds that are read only where a run has such a task.
        pictures: the folder that holds nothing but pictures by the names of images, those of other splits too.
        remarks: what should be known of the whole, such as what was not taken as a picture, a sentence each.
        unread: the same of annotations that are there and are not read, or not as they are.
        empty: what an image is that has no object (`Annotations.is_blank`); `unannotated` ones are not annotated.
    """

    format: str
    folder: Path
    split: str
    classes: LabelSpace
    ids: tuple[str, ...]
    place: Callable[[str], Path | str]
    tasks: Mapping[str, Annotations]
    further: Mapping[str, Annotations] = field(default_factory=dict)
    pictures: Path | None = None
    remarks: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    empty: Empty = "unannotated"

    @property
    def name(self) -> str:
        return f"{self.format}:{self.folder}/{self.split}"

    @property
    def source(self) -> str:
        return f"{self.format}:{own_name(self.folder)}"

    @property
    def labels(self) -> Mapping[str, LabelSpace]:
        return {name: each.labels for name, each in self.tasks.items()}

    @cached_property
    def blank(self) -> tuple[str, ...]:
        """The images that are empty or not labelled yet; see `Annotations.is_blank`."""
        return tuple(each for each in self.ids if any(task.is_blank(each) for task in self.tasks.values()))

    @cached_property
    def headlines(self) -> tuple[str, ...]:
        """What must be known before anything else, a sentence each; the first of `notes`."""
        if not self.blank or self.empty == "annotated":
            return self.unread
        return (
            *self.unread,
            f"{self.name}: {len(self.blank):,} of {len(self.ids):,} images, such as {self.blank[0]}, have no object: "
            "nothing there, or not labelled yet? They count as not labelled and teach nothing; if they show nothing, "
            "say so: `data.empty: annotated`",
        )

    @cached_property
    def notes(self) -> tuple[str, ...]:
        notes = [*self.headlines, *self.remarks, *(note for each in self.tasks.values() for note in each.notes)]
        if self.pictures:
            files = list(files_in(self.pictures))
            notes += left_out_of(files)
            twice = Counter(_name(path, self.pictures) for path in files if path.suffix.lower() in SUFFIXES)
            notes += [
                f"{self.pictures}: {name} is the name of {count} pictures, of which {self.place(name)} is read"
                for name, count in twice.items()
                if count > 1
            ]
            names = {_name(path, self.pictures) for path in files if path.suffix.lower() in (*SUFFIXES, *UNREAD)}
            for each in self.tasks.values():
                notes += each.unpaired(names) if isinstance(each, AnnotationFiles) and not each.notes else ()
        return tuple(dict.fromkeys(notes))

    def files(self, image_id: str) -> tuple[Path | str, ...]:
        return self.place(image_id), *(file for each in self.tasks.values() for file in each.files(image_id))

    def image(self, image_id: str) -> Image.Image:
        """The RGB picture as stored. Raises InputError, naming the file or address, where it can't be read."""
        return read_picture(self.place(image_id))

    def size(self, image_id: str) -> Size:
        return picture_size(self.place(image_id))

    def ground_truth(self, image_id: str) -> GroundTruth:
        """The annotations in the stored pixels of the image, whose size is read from its own file. Raises InputError: a
        line for each fault, naming the file and the object that is impossible.
        """
        size = self.size(image_id)
        there = self._annotations(image_id)
        try:
            found = gather(partial(each.read, image_id, size) for each in there.values())
        except InputError as error:
            # Whatever the kind of annotation, its message names the size that it has or lacks.
            sizes = (f"{size[1]}x{size[0]}", f"{size[0]}x{size[1]}")
            place = self.place(image_id)
            if any(each in str(error) for each in sizes) and stored_orientation(place) != 1:
                raise InputError(f"{error}; {place} is turned by its EXIF, and {DRAWN_TURNED}") from error
            raise
        return GroundTruth(size, dict(zip(there, found, strict=True)))

    def annotated_tasks(self, image_id: str) -> tuple[str, ...]:
        return tuple(self._annotations(image_id))

    def _annotations(self, image_id: str) -> dict[str, Annotations]:
        """Of the tasks that the image is annotated for."""
        there = {name: each for name, each in self.tasks.items() if each.has(image_id)}
        if self.empty == "annotated":
            return there
        return {name: each for name, each in there.items() if not each.is_blank(image_id)}

    def problems(self, image_id: str) -> tuple[str, ...]:
        """Every fault of the annotations; where the picture has no size to compare with, that one alone."""
        try:
            self.ground_truth(image_id)
        except InputError as error:
            return tuple(str(error).split("\n"))
        return ()


class TaskSource(NamedTuple):
    """Where a run's task has its annotations in a data set.

    Attributes:
        kind: of the task.
        folder: in the data set's folder, with one annotation file an image, or in FOLDER/SPLIT, or with a folder for
            each split in it; None: where the format has them.
        labels: file with the classes of the annotations, in the data set's folder or a path; None: those that the
            data set states.
        required: whether the format must be able to annotate this kind of task; False where a tutor teaches it, and no
            image need be annotated.
    """

    kind: str
    folder: str | None = None
    labels: Path | None = None
    required: bool = True


def with_tasks(dataset: Images, sources: Mapping[str, TaskSource]) -> Images:
    """The data set, as its format has it, with the annotations of a run's tasks under the names of these. Raises
    InputError: naming the task's key; a kind that the format does not annotate, or that has no files of its own, a
    folder or file with classes that is absent, or no class at all.
    """
    return replace(dataset, tasks={name: _annotations(dataset, name, source) for name, source in sources.items()})


def _annotations(dataset: Images, name: str, source: TaskSource) -> Annotations:
    every = {**dataset.tasks, **dataset.further}
    kind = source.kind if source.kind in every else task_class(source.kind).kind
    own = every.get(kind)
    labels = _labels(dataset, own, name, source)
    if source.folder is None:
        annotated = [kind for kind, each in every.items() if type(each) is not Annotations]
        if own is None and annotated and source.required:
            raise InputError(
                f"tasks.{name}: {dataset.name} has no annotations of kind {kind!r}; possible: {', '.join(annotated)}; "
                f"or let tasks.{name}.from name a folder with one file an image"
            )
        return Annotations(labels=labels) if own is None else replace(own, labels=labels)
    folder = dataset.folder / Path(source.folder).expanduser()
    by_split = (folder / dataset.split, dataset.folder / dataset.split / source.folder)
    folder = next((each for each in by_split if each.is_dir()), folder)
    if not folder.is_dir():
        there = sorted(path.name for path in dataset.folder.iterdir() if path.is_dir())
        raise InputError(f"tasks.{name}.from: there is no folder {folder}; possible: {', '.join(there) or 'none'}")
    if isinstance(own, AnnotationFiles):
        files = replace(own, kind=source.kind, folders=(folder,), labels=labels)
    else:
        suffixes = task_class(source.kind).suffixes
        files = AnnotationFiles(kind=source.kind, folders=(folder,), suffixes=suffixes, labels=labels)
    if not files.suffixes:
        raise InputError(
            f"tasks.{name}.from: of kind {kind!r} there are no files for single images here; leave the key out"
        )
    if any(map(files.has, dataset.ids)):
        return files
    example = f"{dataset.ids[0]}{files.suffixes[0]}"
    note = f"{folder}: no annotation of tasks.{name} for any of {len(dataset.ids):,} images, such as {example}"
    return replace(files, notes=(note,))


def _labels(dataset: Images, own: Annotations | None, name: str, source: TaskSource) -> LabelSpace:
    """The classes of a task's annotations."""
    key, place = f"tasks.{name}.labels", source.labels
    has_classes = own is not None or issubclass(task_class(source.kind).Section, ClassSection)
    if place is None:
        space = LabelSpace.of(()) if not has_classes else dataset.classes if own is None else own.labels
    elif own is not None and own.states_classes and source.folder is None:
        raise InputError(
            f"{key}: {dataset.name} states its classes itself; leave the key out, or choose by tasks.{name}.classes"
        )
    else:
        path = next((path for path in (dataset.folder / place, place) if path.is_file()), None)
        if path is None:
            raise InputError(
                f"{key}: there is no file {place}, neither in {dataset.folder} nor seen from here; {LISTS}"
            )
        with told_of(key):
            space = read_classes(path)
    if has_classes and not space.classes and source.folder:
        raise InputError(f"{key}: {dataset.name} names no class; {LISTS}")
    return space


def first_file(folders: Sequence[Path], image_id: str, suffixes: Sequence[str]) -> Path | None:
    """The first of an image's possible files that is there.

    Cameras write suffixes in capitals, and archives made on macOS hold names in another Unicode form than lists do.
    """
    either = (*suffixes, *(suffix.upper() for suffix in suffixes))
    paths = (folder / f"{name}{suffix}" for folder in folders for name in _forms(image_id) for suffix in either)
    return next((path for path in paths if os.path.exists(path)), None)  # False for impossible names, too


def place_of(folder: Path, name: str) -> Path:
    """The path of a picture in a folder, in the Unicode form that is there."""
    if name.isascii():
        return folder / name
    return next((path for form in _forms(name) if os.path.exists(path := folder / form)), folder / name)


def _forms(name: str) -> Iterable[str]:
    return dict.fromkeys((name, composed(name), unicodedata.normalize("NFD", name)))


def open_images(folder: Path, split: str) -> Images:
    """Open FOLDER/SPLIT.txt, a picture a line, or the pictures in and under FOLDER/SPLIT; nothing is annotated.

    In a folder, links to others of its pictures are left out, and links to folders are followed. A line is a path, seen
    from FOLDER, or an address that fsspec opens, such as https://..., s3://... or gs://... . Image ids are these paths
    without suffix. The classes are those that FOLDER lists (`CLASS_FILES`); without a list there are none. Raises
    InputError: neither is there, it holds no picture, or the names of two pictures differ in the suffix alone.
    """
    found: dict[str, Path | str] = {}
    pictures, left_out = _pictures(folder, split)
    for name, place in pictures:
        path = PurePosixPath(name.lstrip("/"))
        if not path.name or not is_one_line(name):
            raise InputError(f"{folder}/{split}.txt: {name!r} is no picture; correct the line or remove it")
        if ".." in path.parts:
            raise InputError(f"{folder}: {place} climbs out of its folder; give an absolute path")
        image_id = composed(path.with_suffix("").as_posix())
        if image_id in found:
            advice = "list it once" if found[image_id] == place else "rename one"
            raise InputError(f"{found[image_id]} and {place}: both are called {image_id}; {advice}")
        found[image_id] = place
    labels, _ = own_classes(folder) or (LabelSpace.of(()), None)
    return Images(
        format="images",
        folder=folder,
        split=split,
        classes=labels,
        ids=tuple(found),
        place=found.__getitem__,
        tasks=dict.fromkeys(DEFAULT_TASKS, Annotations(labels=labels)),
        remarks=left_out,
    )


def left_out_of(files: Sequence[Path]) -> list[str]:
    """Sentences on the files that seem to be pictures and are not read."""
    notes, special = [], sorted(file for file in files if is_special(file))
    if special:
        notes.append(f"{len(special):,} files, such as {special[0]}, are links that lead nowhere, or pipes: left out")
    others = sorted(file for file in files if file.suffix.lower() in UNREAD)
    if others:
        notes.append(
            f"{len(others):,} pictures of other formats, such as {others[0]}, are left out; save them as JPEG or PNG"
        )
    return notes


def _name(path: Path, folder: Path) -> str:
    """A file's path in a folder, without suffix."""
    return composed(path.relative_to(folder).with_suffix("").as_posix())


def _pictures(folder: Path, split: str) -> tuple[list[tuple[str, Path | str]], tuple[str, ...]]:
    """Name and place of each picture, and what was left out."""
    listed, inside = folder / f"{split}.txt", folder / split
    if listed.is_file():
        lines = [line.strip() for line in read_lines(listed) if line.strip()]
        places = [
            (line.partition("://")[2] or line, line if "://" in line else place_of(folder, line)) for line in lines
        ]
        left_out: tuple[str, ...] = ()
    elif inside.is_dir():
        seen = sorted(files_in(inside))
        files = [file for file in seen if file.suffix.lower() in SUFFIXES and not is_special(file)]
        left_out = tuple(left_out_of(seen))
        there = {file.resolve() for file in files if not file.is_symlink()}
        files = [file for file in files if not (file.is_symlink() and file.resolve() in there)]
        refuse_unwritable(files)
        places = [(file.relative_to(inside).as_posix(), file) for file in files]
    else:
        possible = sorted(
            path.name if path.is_dir() else path.stem
            for path in folder.iterdir()
            if path.is_dir() or (path.suffix == ".txt" and path.name not in CLASS_FILES)
        )
        raise InputError(
            f"{folder}: neither {split}.txt, a list of pictures, nor a folder {split}; "
            f"possible: {', '.join(possible) or f'its pictures as the split {folder.name} of {folder.parent}'}"
        )
    if not places:
        told = "; ".join((f"possible: {', '.join(SUFFIXES)}", *left_out))
        raise InputError(f"{listed if listed.is_file() else inside}: no picture; {told}")
    return places, left_out


def _refuse_unreadable(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise InputError(f"{error.filename}: the folder can't be read ({error.strerror}); see to its rights") from error


def files_in(folder: Path) -> Iterator[Path]:
    """The files in and under a folder, through links too, without hidden ones (`.name`, or in a folder `.name`).

    A folder that several links lead to is read once.
    """
    seen: set[str] = set()
    left = [str(folder)]
    for top in left:
        for place, inside, names in os.walk(top, onerror=_refuse_unreadable):
            if (real := os.path.realpath(place)) in seen:
                inside.clear()
                continue
            seen.add(real)
            yield from (Path(place, name) for name in names if not name.startswith("."))
            inside[:] = sorted(name for name in inside if not name.startswith("."))
            # Links come last, so that a folder that is there without one keeps its own name.
            left += filter(os.path.islink, (os.path.join(place, name) for name in inside))
