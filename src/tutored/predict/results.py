"""How predictions look in JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from tutored.data.text import read_json
from tutored.errors import InputError
from tutored.labels import LabelSpace, same_class
from tutored.structures import Prediction

KINDS = ("pictures", "json", "masks")
"""What can be written."""
NEEDED = {"json": "detection", "masks": "segmentation"}
"""The task whose answers a kind holds."""
FILMED = ("pictures", "json")
"""What is written of a video unless more is asked for: a mask a frame makes very many files."""


def choose_kinds(wanted: Collection[str] | None, usual: Collection[str], tasks: Collection[str]) -> tuple[str, ...]:
    """What is to be written for a student that was taught `tasks`; None: of the usual kinds those that it can give.

    Raises:
        InputError: none is wanted, an unknown one, or one of a task that the student was not taught.
    """
    possible = [kind for kind in KINDS if NEEDED.get(kind) in (None, *tasks)]
    if wanted is None:
        return tuple(kind for kind in usual if kind in possible)
    if not wanted or not set(wanted) <= set(possible):
        untaught = [f"it was not taught {NEEDED[kind]}" for kind in wanted if kind in KINDS and kind not in possible]
        why = untaught[0] if untaught else "not possible"
        raise InputError(f"results {','.join(wanted) or 'of no kind'}: {why}; give some of {','.join(possible)}")
    return tuple(wanted)


def box_entries(prediction: Prediction, labels: LabelSpace) -> list[dict[str, Any]] | None:
    """A dictionary for each box, as it is sorted: `category_id` (1..C), `category`, `bbox`, `score`.

    `bbox` is (x, y, width, height) in the image's pixels, as in COCO. None where the predictor does no detection.
    """
    if prediction.boxes_xyxy is None or prediction.classes is None or prediction.scores is None:
        return None
    return [
        {
            "category_id": number,
            "category": labels.names[number],
            "bbox": [round(value, 2) for value in (x1, y1, x2 - x1, y2 - y1)],
            "score": round(score, 5),
        }
        for (x1, y1, x2, y2), number, score in zip(
            prediction.boxes_xyxy.tolist(), prediction.classes.tolist(), prediction.scores.tolist(), strict=True
        )
    ]


class CocoNumbers(NamedTuple):
    """The numbers that a COCO file gives to images and categories, so that COCO's own tools take our results.

    Attributes:
        file: named in messages.
        images: number by `file_name` without suffix.
        stems: the same by its last part, where no other image has it.
        categories: number by our class; classes that the file does not know are missing.
    """

    file: Path
    images: Mapping[str, Any]
    stems: Mapping[str, Any]
    categories: Mapping[int, Any]

    @classmethod
    def read(cls, file: Path, labels: LabelSpace) -> CocoNumbers:
        """From an instances file; classes are matched by name, aliases included.

        Raises:
            InputError: it lacks `images` or `categories`, or knows none of `labels`.
        """
        content = read_json(file)
        try:
            images = {_bare(image["file_name"]): image["id"] for image in content["images"]}
            names = {item["name"]: item["id"] for item in content["categories"]}
            theirs = LabelSpace.of(list(names))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{file}: no COCO instances with images and categories ({error!r})") from error
        pairs = ((number, same_class(name, theirs)) for number, name in enumerate(labels.classes, start=1))
        categories = {number: names[theirs.names[other]] for number, other in pairs if other}
        if not categories:
            raise InputError(f"{file}: has none of the classes {', '.join(labels.classes)}; give the data's own file")
        often = Counter(PurePath(name).name for name in images)
        stems = {stem: number for name, number in images.items() if often[stem := PurePath(name).name] == 1}
        return cls(file, images, stems, categories)

    def refuse_unlisted(self, names: Collection[str]) -> None:
        """Raise InputError, naming a picture that the file does not list, or of whose name it has several."""
        for name in names:
            if self._number(name) is None:
                raise InputError(
                    f"{name}: is not among the images of {self.file}, or one of several; give the folder that its "
                    "names start from, or predict it without --coco"
                )

    def _number(self, name: str) -> Any:
        return self.images.get(_bare(name), self.stems.get(PurePath(name).stem))

    def renumbered(self, entries: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        """Entries, each with its `file_name`, with the file's numbers; classes that it does not know are left out."""
        return [
            entry
            | {
                "image_id": self._number(entry["file_name"]),
                "category_id": self.categories[entry["category_id"]],
            }
            for entry in entries
            if entry["category_id"] in self.categories
        ]


def _bare(name: str) -> str:
    return PurePath(name).with_suffix("").as_posix()
