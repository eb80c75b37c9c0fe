"""Tutors that are made of stores: instances of boxes and maps, boxes rescored by maps, several tutors joined."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.nn.functional import one_hot

from tutored.data.training import annotations_sha256
from tutored.errors import InputError
from tutored.labels import ClassMap, LabelSpace, same_class
from tutored.softlabels import Remapped, Store
from tutored.softlabels.advice import read_sidecar
from tutored.tasks import Task, task_class
from tutored.tasks.detection import Detection, SoftBoxes
from tutored.tasks.instances import Instances
from tutored.tasks.segmentation import Segmentation, SoftMap
from tutored.tutors import BoxesOptions, InstancesOptions, JoinedOptions, RescoredOptions
from tutored.tutors.fuse import LIMIT, OVERLAP, fuse
from tutored.tutors.outputs import MASK_SIDE, masks_in_boxes, with_masks
from tutored.types import Dataset, Size, SoftLabels

DRAWN = "ground_truth"
"""Given for `boxes`: those that people drew."""


class Source:
    """A store's answers for one task in a label space, matched by name. `kind` is the class of the task; of a
    segmentation, confidences and instances are made maps as `Remapped` does.
    """

    def __init__(self, store: Store, kind: type[Task], labels: LabelSpace) -> None:
        self.store, self.kind = store, kind.kind
        self.class_map = ClassMap.by_name(store.labels, labels)
        self._answers = Remapped(store, self.class_map, kind(kind.kind, labels))

    def answer(self, image_id: str, size: Size) -> Any | None:
        """The answer for an image of `size` (height, width); None where the tutor was not asked about this task. Raises
        InputError: the store lacks the image, or its tutor saw an image of another size.
        """
        if image_id not in self.store:
            raise InputError(f"store {self.store.path} has no answer for {image_id}; label this split with its tutor")
        answer = self._answers.get(image_id)
        if answer is not None and answer.size != size:
            raise InputError(
                f"store {self.store.path}: its tutor saw {image_id} with {answer.size[1]} x {answer.size[0]} pixels, "
                f"here it has {size[1]} x {size[0]}; label these very images with it first"
            )
        return None if answer is None else answer.tasks[self.kind]


def refuse_strangers(options: InstancesOptions | RescoredOptions, boxes: LabelSpace, maps: LabelSpace) -> None:
    """Raises InputError where boxes and maps have no class in common."""
    if all(same_class(name, boxes) is None for name in maps.classes):
        raise InputError(
            f"{options.boxes} and {options.maps} have no class in common: {', '.join(boxes.classes[:5])}, ... and "
            f"{', '.join(maps.classes[:5])}, ...; give stores of the same classes"
        )


def identity_of(stores: Mapping[str, Store], **facts: Any) -> dict[str, Any]:
    """The identity of a tutor that is made of stores: its own facts, and the stores' under `part.name`.

    Name by name, so that a message about another identity names the one field that differs. A fact that every tutor has
    and `facts` does not is None.
    """
    of_networks = ("weights", "weights_sha256", "preprocessing", "score_floor", "nms_iou", "map_stride")
    theirs = {f"{part}.{name}": value for part, store in stores.items() for name, value in store.identity.items()}
    return dict.fromkeys(of_networks) | facts | theirs


class StoresTutor:
    """A tutor that answers by an image's id and size."""

    labels: LabelSpace
    identity: Mapping[str, Any]
    notes: Sequence[str] = ()

    def __call__(self, images: Sequence[Image.Image], image_ids: Sequence[str]) -> list[SoftLabels]:
        sizes = [(image.height, image.width) for image in images]
        return [SoftLabels.of(size, *self.answers(each, size)) for each, size in zip(image_ids, sizes, strict=True)]

    def answers(self, image_id: str, size: Size) -> Sequence[Any]:
        """The soft answers for an image of `size` (height, width). Raises InputError, see `Source.answer`."""
        raise NotImplementedError


class DrawnBoxes:
    """A data set's boxes in another label space, as certain answers; those of other classes are left out."""

    def __init__(self, dataset: Dataset, labels: LabelSpace) -> None:
        self.dataset, self.space = dataset, len(labels)
        self.to = [same_class(name, labels) or 0 for name in dataset.labels[Detection.kind].names]

    def answer(self, image_id: str, size: Size) -> SoftBoxes | None:
        """The boxes; None where nobody drew any."""
        truth = self.dataset.ground_truth(image_id).tasks.get(Detection.kind)
        if truth is None:
            return None
        boxes = truth.relabelled(self.to, None)
        probs = one_hot(boxes.classes, self.space).float()
        return SoftBoxes(boxes_xyxy=boxes.boxes_xyxy, classes=boxes.classes, probs=probs)


class Boxes:
    """The boxes that `BoxesOptions` name.

    Attributes:
        told: whose they are.
        stores, facts: what belongs to the identity of a tutor that uses them.
    """

    def __init__(self, options: BoxesOptions, dataset: Dataset | None) -> None:
        """Open them. Raises InputError: no such store or class, it answers with no boxes, or nobody drew any."""
        self._floor = options.score_floor
        self.stores: dict[str, Store] = {}
        self.facts: dict[str, Any] = {"score_floor": options.score_floor}
        if str(options.boxes) != DRAWN:
            detector = self.stores["boxes"] = Store.teaching(Path(options.boxes), Detection)
            self.labels, self.told = detector.labels, f"of {detector.identity.get('tutor')}"
            self._open: Callable[[LabelSpace], Source | DrawnBoxes] = partial(Source, detector, Detection)
        elif dataset is None or Detection.kind not in dataset.labels:
            raise InputError(f"boxes: {DRAWN}: the data set has no boxes; give a detector's store")
        else:
            self.facts["boxes_sha256"] = annotations_sha256(dataset)
            self.labels, self.told = dataset.labels[Detection.kind], "drawn"
            self._open = partial(DrawnBoxes, dataset)
        if options.classes:
            lacking = next((name for name in options.classes if same_class(name, self.labels) is None), None)
            if lacking is not None:
                raise InputError(f"classes: no boxes of {lacking!r}; possible: {', '.join(self.labels.classes)}")
            self.labels = LabelSpace.of(options.classes)

    def remap(self, labels: LabelSpace) -> Callable[[str, Size], SoftBoxes | None]:
        """A function from an image's id and size to its boxes in a label space, from the floor on (`Source.answer`)."""
        source = self._open(labels)

        def boxes_of(image_id: str, size: Size) -> SoftBoxes | None:
            boxes: SoftBoxes | None = source.answer(image_id, size)
            return boxes and boxes.chosen(boxes.scores >= self._floor)

        return boxes_of


class InstancesTutor(StoresTutor):
    """Boxes, each with the probability of its class that a map has inside it, as Mask R-CNN gives them.

    With a detector's boxes a dense map can teach in Mask R-CNN's form: outside of boxes there is nothing, and one class
    and one score hold for a whole box. With drawn ones, boxes and a map make instance masks. The map does not tell
    objects of one class apart: a neighbour that reaches into a box is in its mask. An image for which one of the two
    has no answer gets none.

    Attributes:
        labels: the classes of the maps that the boxes know too, in the maps' order; both are remapped into it by name,
            and boxes of other classes are dropped.
    """

    def __init__(self, options: InstancesOptions, dataset: Dataset | None = None) -> None:
        """Open the stores. Raises InputError: no such store, it does not answer the task, no drawn boxes, or no class
        in common. `dataset` has the images that are labelled, and the boxes of `boxes: ground_truth`.
        """
        mapper, boxes = Store.teaching(options.maps, Segmentation), Boxes(options, dataset)
        refuse_strangers(options, boxes.labels, mapper.labels)
        self.labels = LabelSpace.of(
            tuple(name for name in mapper.labels.classes if same_class(name, boxes.labels) is not None)
        )
        self._boxes, self._maps = boxes.remap(self.labels), Source(mapper, Segmentation, self.labels)
        self.identity = identity_of(
            {**boxes.stores, "maps": mapper},
            kind="instances",
            tutor=f"boxes {boxes.told}, masks of {mapper.identity.get('tutor')}",
            mask_side=MASK_SIDE,
            **boxes.facts,
        )

    def answers(self, image_id: str, size: Size) -> Sequence[Instances]:
        boxes = self._boxes(image_id, size)
        soft: SoftMap | None = self._maps.answer(image_id, size)
        if boxes is None or soft is None:
            return ()
        return (with_masks(boxes, masks_in_boxes(soft.map, boxes.boxes_xyxy, boxes.classes, size)),)


class RescoredTutor(StoresTutor):
    """A detector's boxes, whose scores become the geometric mean of what the detector and a map say.

    What the map says about a box is the mean probability of the box's class inside it, over `full` and at most one. So
    a weak box on a region of its class rises, and a sure one where the map sees nothing falls. The other classes of a
    box share the remaining probability in the proportions they had. Boxes of classes that the maps don't know stay as
    they are. An image for which one of the two stores has no answer gets none.
    """

    def __init__(self, options: RescoredOptions) -> None:
        """Open both stores. Raises InputError: see `InstancesTutor`."""
        detector, mapper = Store.teaching(options.boxes, Detection), Store.teaching(options.maps, Segmentation)
        refuse_strangers(options, detector.labels, mapper.labels)
        self.labels, self._full = detector.labels, options.full
        self._boxes = Source(detector, Detection, self.labels)
        self._maps = Source(mapper, Segmentation, self.labels)
        self._known = torch.tensor([name not in self._maps.class_map.unreached for name in self.labels.names])
        self.identity = identity_of(
            {"boxes": detector, "maps": mapper},
            kind="rescored",
            tutor=f"boxes of {detector.identity.get('tutor')}, rescored by maps of {mapper.identity.get('tutor')}",
            full=options.full,
        )

    def answers(self, image_id: str, size: Size) -> Sequence[SoftBoxes]:
        boxes: SoftBoxes | None = self._boxes.answer(image_id, size)
        soft: SoftMap | None = self._maps.answer(image_id, size)
        if boxes is None or soft is None:
            return ()
        inside = masks_in_boxes(soft.map, boxes.boxes_xyxy, boxes.classes, size).mean(dim=(1, 2))
        agreed = (boxes.scores * (inside / self._full).clamp(max=1)).sqrt()
        return (boxes.rescored(torch.where(self._known[boxes.classes], agreed, boxes.scores)),)


def _audited(stores: Sequence[Store]) -> list[float]:
    """Shares by audits: the odds of each store's mean figure, so that .8 counts four times as much as .5.

    Empty where a store has no audit, or they were audited on other images or for other kinds of task.
    """
    parts = [sidecar.tasks.values() if (sidecar := read_sidecar(store)) else () for store in stores]
    if any(len(each) != 1 for each in parts):
        return []
    (first, *others) = (part for each in parts for part in each)
    if any((each.kind, each.ids) != (first.kind, first.ids) for each in others):
        return []
    figures = [part.figures.get(task_class(part.kind).headline[1]) for part in (first, *others)]
    shares = [min(max(each, 0.01), 0.99) for each in figures if each is not None]
    return [round(each / (1 - each), 4) for each in shares] if len(shares) == len(figures) else []


class JoinedTutor(StoresTutor):
    """The mean of several stores: boxes by weighted box fusion, maps by the mean of their probabilities.

    An image for which only some of the stores have an answer gets the mean of those.

    Attributes:
        labels: the classes that all stores know, in the first one's order and spelling; the stores are remapped into it
            by name, and what else they say counts as background.
    """

    def __init__(self, options: JoinedOptions) -> None:
        """Open the stores. Raises InputError: fewer than two stores, no such store, shares that don't fit, no task in
        common or no class.
        """
        paths: tuple[Path, ...] = options.join
        if len(paths) < 2:
            raise InputError(f"join: give two stores or more, got {len(paths)}")
        stores = [Store.open(path) for path in paths]
        shares = list(options.shares or _audited(stores) or [1.0] * len(paths))
        if len(shares) != len(paths) or not 0 < min(shares) <= sum(shares) < math.inf:
            raise InputError(f"shares {shares}: give one positive number for each of the {len(paths)} stores")
        tasks = [task for task in (Detection, Segmentation) if all(store.teaches(task) for store in stores)]
        if not tasks:
            told = ", ".join(f"{store.path}: {' and '.join(store.kinds) or 'nothing'}" for store in stores)
            raise InputError(f"the stores answer no task in common ({told}); join tutors of one task")
        first, *others = [store.labels for store in stores]
        common = [name for name in first.classes if all(same_class(name, other) is not None for other in others)]
        if not common:
            raise InputError(
                f"the stores {', '.join(map(str, paths))} have no class in common; join tutors of one task"
            )
        self.labels = LabelSpace.of(common)
        self._sources = [[Source(store, task, self.labels) for task in tasks] for store in stores]
        self._shares = [share / sum(shares) for share in shares]
        self.identity = identity_of(
            {str(number): store for number, store in enumerate(stores, start=1)},
            kind="joined",
            tutor=" and ".join(str(store.identity.get("tutor")) for store in stores),
            max_boxes=LIMIT,
            fusion_iou=OVERLAP,
            shares=shares,
        )

    def answers(self, image_id: str, size: Size) -> Sequence[Any]:
        given = [SoftLabels.of(size, *(each.answer(image_id, size) for each in tasks)) for tasks in self._sources]
        return tuple(fuse(given, self._shares, limit=LIMIT, floor=0).tasks.values())
