"""Pictures in files to drawings, masks and JSON."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tutored.data.pictures import read_picture, upright
from tutored.files import write_encoded, write_json
from tutored.predict.inputs import DRAWN, MASK, find_pictures
from tutored.predict.predictor import Predictor
from tutored.predict.results import KINDS, CocoNumbers, box_entries, choose_kinds
from tutored.progress import Progress
from tutored.visualise import draw_small, save_mask

LONGEST = 65_500
"""Most pixels of a JPEG's side."""


def predict_files(
    predictor: Predictor,
    paths: Sequence[Path],
    out: Path,
    score: float = 0.5,
    progress: Progress | None = None,
    *,
    kinds: Collection[str] | None = None,
    under: Path | None = None,
    coco: Path | None = None,
) -> Path:
    """Write for every picture one with boxes and mask drawn in, the mask, and for all of them `predictions.json`.

    The JSON is a list in the manner of COCO results, by image and falling score, an entry per box above the decoding
    floor: `image_id` (`file_name` without suffix), `file_name` (as `find_pictures` names it), `category_id` (1..C),
    `category`, `bbox` (x, y, width, height in pixels), `score`. As in COCO results, a picture in which nothing
    was found has none; its drawing and mask are there. The masks hold class numbers, with VOC's palette.
    A picture is turned upright first where it says how (EXIF). A drawing has sides of at most `LONGEST`.

    Args:
        score: boxes from this score on are drawn.
        kinds: what is written, of `KINDS`; None: all that the student was taught.
        under: see `find_pictures`.
        coco: a COCO instances file that lists the pictures. The JSON then has its image and category numbers, as
            pycocotools' `loadRes` wants them, and pictures are taken as they are stored, as COCO's boxes are drawn.

    Returns:
        The path of `predictions.json`, which is written last; `out` where none is wanted.

    Raises:
        InputError: see `find_pictures`, `CocoNumbers` and `choose_kinds`; or a picture is broken.
    """
    kinds = choose_kinds(kinds, KINDS, predictor.tasks)
    pictures = find_pictures(paths, under)
    labels = predictor.student.labels
    numbers = CocoNumbers.read(coco, labels) if coco else None
    if numbers:
        numbers.refuse_unlisted(pictures)
    names = list(pictures)
    entries: list[dict[str, Any]] = []
    for first in range(0, len(names), predictor.batch):
        part = names[first : first + predictor.batch]
        images = [read_picture(pictures[name]) for name in part]
        if not numbers:
            images = [upright(image) for image in images]
        for name, image, prediction in zip(part, images, predictor(images), strict=True):
            named = {"image_id": Path(name).with_suffix("").as_posix(), "file_name": name}
            found = [named | entry for entry in box_entries(prediction, labels) or []]
            entries += numbers.renumbered(found) if numbers else found
            if "pictures" in kinds:
                drawn = draw_small(image, prediction.above(score), labels, LONGEST)
                write_encoded(out / Path(name).with_suffix(DRAWN), partial(drawn.save, format="JPEG"))
            if "masks" in kinds and prediction.mask is not None:
                save_mask(prediction.mask, out / Path(name).with_suffix(MASK))
        if progress:
            progress(first + len(part), len(names))
    if "json" not in kinds:
        return out
    write_json(out / "predictions.json", entries)
    return out / "predictions.json"
