"""`tutored data check`: read everything, count it, and name every item that training would stumble over."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import blake2b
from itertools import combinations
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tutored.data.images import DRAWN_TURNED, AnnotationFiles, Images
from tutored.data.text import few, spread
from tutored.errors import InputError, Progress
from tutored.labels import LabelSpace
from tutored.pictures import orientation, pictures_in, stored_orientation
from tutored.types import IGNORE, Dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskReport:
    """What one split holds for one task.

    Attributes:
        images: that are annotated. Ground truth that can't be read counts nowhere.
        counts: by column, such as `objects` or `pixels`, and class, what the annotations say of themselves. Background
            is left out where it has none.
    """

    images: int
    counts: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitReport:
    """What one split holds.

    Attributes:
        complete, none: images that are annotated for every task, and for no task.
        problems: one message for each item that can't be used; it names the file.
        headlines: what must be known first, such as how many images may be empty or not labelled yet.
        notes: what the reader left out, numbers that may mean other classes than the list says, and pictures whose EXIF
            turns them, which nothing here does.
    """

    images: int
    tasks: Mapping[str, TaskReport]
    complete: int
    none: int
    problems: tuple[str, ...]
    headlines: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What `check` found.

    Attributes:
        overlaps: "train & val" -> the ids of the images that are in both; only pairs that share one.
        namesakes: the same for ids that are of another picture in each.
        twins: the same for pictures of the very same pixels under two names, as "a = b".
    """

    splits: Mapping[str, SplitReport]
    overlaps: Mapping[str, Sequence[str]]
    namesakes: Mapping[str, Sequence[str]]
    twins: Mapping[str, Sequence[str]]

    @property
    def ok(self) -> bool:
        """Nothing unreadable, mismatched or out of range, and no id in two splits."""
        return not (self.overlaps or self.namesakes or any(split.problems for split in self.splits.values()))

    def to_dict(self) -> dict[str, Any]:
        """Plain and JSON-ready."""
        return {"ok": self.ok, **asdict(self)}

    def show(self, console: Console, most: int = 20) -> None:
        """Print headlines, images per split, for each task what there is of each class, then `most` lines a list."""
        for line in (line for split in self.splits.values() for line in split.headlines):
            console.print(line, style="bold", markup=False, highlight=False, soft_wrap=True)
        tasks = list(dict.fromkeys(task for split in self.splits.values() for task in split.tasks))
        console.print(self._images(tasks), *(part for task in tasks for part in self._classes(task)))
        lists: dict[str, Sequence[str]] = {}
        for name, split in self.splits.items():
            lists[f"{name}: {len(split.problems)} problems"] = split.problems
            lists[f"{name}: {len(split.notes)} notes"] = split.notes
        for pair, ids in self.overlaps.items():
            lists[f"{pair}: {len(ids)} images are in both"] = ids
        for pair, ids in self.namesakes.items():
            lists[f"{pair}: {len(ids)} names are of different pictures; rename those of one split"] = ids
        for pair, ids in self.twins.items():
            lists[f"{pair}: {len(ids)} pictures are in both, under two names; remove them from one"] = ids
        for title, lines in lists.items():
            if lines:
                console.print(f"\n{title}", style="bold", markup=False, highlight=False)
            more = [f"and {len(lines) - most:,} more; --json lists all"] if len(lines) > most else []
            for line in (*lines[:most], *more):
                console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)

    def _images(self, tasks: Sequence[str]) -> Table:
        table = Table("split", title="Images, and how many of them are annotated")
        for column in ("images", *tasks, "all tasks", "no task", "problems"):
            table.add_column(column, justify="right")
        for name, split in self.splits.items():
            annotated = [split.tasks[task].images if task in split.tasks else 0 for task in tasks]
            row = (split.images, *annotated, split.complete, split.none, len(split.problems))
            table.add_row(Text(name), *(f"{value:,}" for value in row))
        return table

    def _classes(self, task: str) -> Iterator[Table | Text]:
        """What is counted of each class: numbers, or of pixels, which are many, the share; no zeros alone."""
        table = Table("class", title=Text(task))
        columns: list[Mapping[str, str]] = []
        classes: dict[str, bool] = {}
        for name, split in self.splits.items():
            for column, counts in split.tasks[task].counts.items() if task in split.tasks else ():
                classes |= {key: classes.get(key, False) or n > 0 for key, n in counts.items()}
                if not any(counts.values()):
                    continue
                table.add_column(Text(f"{name} {column}"), justify="right")
                share = max(1, sum(counts.values())) if column == "pixels" else None
                columns.append({key: f"{n / share:.2%}" if share else f"{n:,}" for key, n in counts.items()})
        for each in (name for name, there in classes.items() if there):
            table.add_row(Text(each), *(column.get(each, "") for column in columns))
        if table.row_count:
            yield table
        if absent := [name for name, there in classes.items() if not there and name != "ignore"]:
            yield Text(f"{task}, absent classes: {', '.join(absent)}")


def check(dataset_by_split: Mapping[str, Images], progress: Progress | None = None) -> Report:
    """Read every image and every ground truth once."""
    total, done = sum(len(dataset.ids) for dataset in dataset_by_split.values()), 0

    def step() -> None:
        nonlocal done
        done += 1
        if progress:
            progress(done, total)

    pixels: dict[str, dict[str, bytes]] = {split: {} for split in dataset_by_split}
    splits = {name: _check_split(dataset, pixels[name], step) for name, dataset in dataset_by_split.items()}
    overlaps: dict[str, list[str]] = {}
    namesakes: dict[str, list[str]] = {}
    twins: dict[str, list[str]] = {}
    for name, other in combinations(dataset_by_split, 2):
        pair, there = f"{name} & {other}", {digest: image_id for image_id, digest in pixels[other].items()}
        for image_id in sorted({*dataset_by_split[name].ids} & {*dataset_by_split[other].ids}):
            here, unread = pixels[name].get(image_id), image_id not in pixels[other]
            found = overlaps if here is None or unread or here == pixels[other][image_id] else namesakes
            found.setdefault(pair, []).append(image_id)
        for image_id, digest in pixels[name].items():
            if there.get(digest, image_id) != image_id:
                twins.setdefault(pair, []).append(f"{image_id} = {there[digest]}")
    return Report(splits=splits, overlaps=overlaps, namesakes=namesakes, twins=twins)


def _check_split(dataset: Images, pixels: dict[str, bytes], step: Callable[[], None]) -> SplitReport:
    """Args: pixels: is given a digest of those of each picture that can be read, by its image's id."""
    annotated = dict.fromkeys(dataset.labels, 0)
    counts: dict[str, dict[str, Any]] = {task: defaultdict(int) for task in dataset.labels}
    complete = none = 0
    # What formats make of the annotations above needs no second reading; files of its own do.
    further = {kind: each for kind, each in dataset.further.items() if isinstance(each, AnnotationFiles)}
    outlined: Counter[str] = Counter()
    problems: list[tuple[str, str]] = []
    turned: list[str] = []
    several: list[str] = []
    for image_id in dataset.ids:
        try:
            image = dataset.image(image_id)
        except InputError as error:
            problems.append((image_id, str(error)))
        else:
            pixels[image_id] = blake2b(image.tobytes(), digest_size=16).digest()
            turned += [image_id] * (orientation(image) != 1)
            with suppress(InputError):  # a picture need not lie in a file
                several += [image_id] * (pictures_in(dataset.place(image_id)) > 1)
        try:
            truth = dataset.ground_truth(image_id)
        except InputError:
            problems += ((image_id, each) for each in dataset.problems(image_id))
        else:
            complete += len(truth.tasks) == len(dataset.labels) > 0
            none += not truth.tasks
            for task, annotation in truth.tasks.items():
                annotated[task] += 1
                _add(counts[task], annotation, dataset.labels[task])
            for kind, files in further.items():
                if files.has(image_id):
                    outlined[kind] += 1
                    try:
                        files.read(image_id, truth.size)
                    except InputError as error:
                        problems += ((image_id, each) for each in str(error).split("\n"))
        step()
    notes = _oddities(turned, several)
    notes += (f"{count:,} images have {kind}, which a run with a task {kind} reads" for kind, count in outlined.items())
    for task, labels in dataset.labels.items():
        notes += _nothing_drawn(task, annotated[task], counts[task], labels)
    for pair in combinations(dataset.labels, 2):
        if dataset.labels[pair[0]] == dataset.labels[pair[1]]:
            notes += _contrary(pair, dataset.labels[pair[0]], counts)
    return SplitReport(
        images=len(dataset.ids),
        tasks={
            task: TaskReport(images=annotated[task], counts=_by_class(counts[task], space))
            for task, space in dataset.labels.items()
        },
        complete=complete,
        none=none,
        problems=spread(((image_id, each.partition(": ")[0]), each) for image_id, each in problems),
        headlines=dataset.headlines,
        notes=(*dataset.notes[len(dataset.headlines) :], *notes),
    )


def first_look(dataset: Images, most: int = 32) -> tuple[str, ...]:
    """What `check` would note of some annotated images of each task, from first to last, a sentence each."""
    notes: list[str] = []
    for task, labels in dataset.labels.items():
        annotated = [image_id for image_id in dataset.ids if task in dataset.annotated_tasks(image_id)]
        seen, turned, several = 0, list[str](), list[str]()
        counts: dict[str, Any] = defaultdict(int)
        for image_id in annotated[:: -(-len(annotated) // most) or 1]:
            try:
                annotation = dataset.ground_truth(image_id).tasks[task]
            except InputError:
                continue  # where it is used, it is named
            seen += 1
            _add(counts, annotation, labels)
            with suppress(InputError):  # a picture need not lie in a file
                turned += [image_id] * (stored_orientation(dataset.place(image_id)) != 1)
                several += [image_id] * (pictures_in(dataset.place(image_id)) > 1)
        notes += [*_oddities(turned, several), *_nothing_drawn(task, seen, counts, labels)]
    return tuple(dict.fromkeys(notes))


def told_first(dataset: Dataset) -> list[str]:
    """What a command says of a data set before it works on it: its notes and those of `first_look`, a few of many."""
    return few((*dataset.notes, *(first_look(dataset) if isinstance(dataset, Images) else ())))


def _oddities(turned: Sequence[str], several: Sequence[str]) -> list[str]:
    notes = [
        f"{len(turned):,} picture(s), such as {image_id}, say that they are to be turned or mirrored (EXIF): they "
        f"are read as stored, and as tutors and student see them; {DRAWN_TURNED}"
        for image_id in turned[:1]
    ]
    if several:
        such = f"{len(several):,} files, such as that of {several[0]}"
        notes.append(f"{such}, hold several pictures (an animation, or pages): the first of each is taken")
    return notes


def _add(counts: dict[str, Any], annotation: Any, labels: LabelSpace) -> None:
    for column, numbers in annotation.counts(len(labels)).items():
        counts[column] += np.array(numbers)


def _occurring(counts: Mapping[str, Any], labels: LabelSpace) -> list[str]:
    """The classes of which there is something."""
    classes = enumerate(labels.classes, start=1)
    return [name for number, name in classes if any(numbers[number] for numbers in counts.values())]


def _nothing_drawn(task: str, images: int, counts: Mapping[str, Any], labels: LabelSpace) -> list[str]:
    """Whether pixels are annotated, and all of them as background or ignored."""
    ignored = [numbers[len(labels)] for numbers in counts.values() if len(numbers) > len(labels)]
    if not ignored or not labels.classes or _occurring(counts, labels):
        return []
    drawn = f"; all that is drawn has the number {IGNORE}, which means ignored" if any(ignored) else ""
    classes = ", ".join([*labels.classes[:3], "..."] if len(labels.classes) > 3 else labels.classes)
    remedy = f"number the classes ({classes}) from 1 on"
    return [f"{task}: none of {images:,} annotations looked at holds a class{drawn}; {remedy}"]


def _contrary(tasks: Sequence[str], labels: LabelSpace, counts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Whether classes occur in one task's annotations alone, and others in the other's alone."""
    here, there = (_occurring(counts[task], labels) for task in tasks)
    only = [[name for name in mine if name not in other] for mine, other in ((here, there), (there, here))]
    if not all(only):
        return []
    told = "; ".join(f"only for {task}: {', '.join(names)}" for names, task in zip(only, tasks, strict=True))
    return [f"classes occur {told}. Does the list of classes have the order of the numbers in the files?"]


def _by_class(columns: Mapping[str, Sequence[int]], labels: LabelSpace) -> dict[str, dict[str, int]]:
    return {
        column: {
            name: int(number)
            for name, number in zip((*labels.names, "ignore"), numbers, strict=False)
            if number or name != labels.names[0]
        }
        for column, numbers in columns.items()
    }
