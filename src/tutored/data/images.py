"""Pictures that nobody annotated: a folder of them, or a list of paths and addresses."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from PIL import Image

from tutored.data.pictures import picture_size, read_picture
from tutored.data.text import own_name, read_classes, read_lines, refuse_unwritable
from tutored.errors import InputError
from tutored.labels import LabelSpace
from tutored.structures import GroundTruth

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """Pictures without any ground truth, for tutors to answer for. Image ids are their paths without suffix."""

    name: str
    source: str
    split: str
    labels: LabelSpace
    ids: tuple[str, ...]
    _places: Mapping[str, Path | str]
    notes: tuple[str, ...] = ()

    def image(self, image_id: str) -> Image.Image:
        """The RGB picture as stored. Raises InputError, naming the file or address, where it can't be read."""
        return read_picture(self._places[image_id])

    def ground_truth(self, image_id: str) -> GroundTruth:
        """Nothing is annotated. Raises InputError where the picture's size can't be read."""
        return GroundTruth(size=picture_size(self._places[image_id]))

    def annotated_tasks(self, image_id: str) -> tuple[str, ...]:
        return ()

    def problems(self, image_id: str) -> tuple[str, ...]:
        return ()


def open_images(folder: Path, split: str) -> Images:
    """Open FOLDER/SPLIT.txt, a picture a line, or the pictures in and under FOLDER/SPLIT.

    In a folder, links to others of its pictures are left out, and links to folders are followed. A line is a path, seen
    from FOLDER, or an address that fsspec opens, such as https://..., s3://... or gs://... . The classes are those of
    FOLDER/labels.txt; without it there are none.

    Raises:
        InputError: neither is there, it holds no picture, or two pictures have the same name but for the suffix.
    """
    places = _places(folder, split)
    found: dict[str, Path | str] = {}
    for name, place in places:
        path = PurePosixPath(name.lstrip("/"))
        if not path.name:
            raise InputError(f"{folder}/{split}.txt: {name!r} is no picture; correct the line or remove it")
        if ".." in path.parts:
            raise InputError(f"{folder}: {place} climbs out of its folder; give an absolute path")
        image_id = path.with_suffix("").as_posix()
        if image_id in found:
            advice = "list it once" if found[image_id] == place else "rename one"
            raise InputError(f"{found[image_id]} and {place}: both are called {image_id}; {advice}")
        found[image_id] = place
    names = folder / "labels.txt"
    return Images(
        name=f"images:{folder}/{split}",
        source=f"images:{own_name(folder)}",
        split=split,
        labels=read_classes(names) if names.is_file() else LabelSpace.of(()),
        ids=tuple(found),
        _places=found,
    )


def files_in(folder: Path) -> Iterator[Path]:
    """The files in and under a folder, through links too; those of a folder that several ways lead to, once."""
    seen: set[str] = set()
    left = [str(folder)]
    for top in left:
        for place, inside, names in os.walk(top):
            if (real := os.path.realpath(place)) in seen:
                inside.clear()
                continue
            seen.add(real)
            yield from (Path(place, name) for name in names)
            inside[:] = sorted(name for name in inside if not name.startswith("."))
            # Links come last, so that a folder that is there without one keeps its own name.
            left += filter(os.path.islink, (os.path.join(place, name) for name in inside))


def is_hidden(file: Path, folder: Path) -> bool:
    """Whether it, or a folder on the way to it, has a name from a dot on, as what systems put beside pictures has."""
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


def _places(folder: Path, split: str) -> list[tuple[str, Path | str]]:
    listed, inside = folder / f"{split}.txt", folder / split
    if listed.is_file():
        lines = [line.strip() for line in read_lines(listed) if line.strip()]
        places = [(line.partition("://")[2] or line, line if "://" in line else folder / line) for line in lines]
    elif inside.is_dir():
        files = sorted(file for file in files_in(inside) if file.suffix.lower() in SUFFIXES)
        files = [file for file in files if not is_hidden(file, inside)]
        there = {file.resolve() for file in files if not file.is_symlink()}
        files = [file for file in files if not (file.is_symlink() and file.resolve() in there)]
        refuse_unwritable(files)
        places = [(file.relative_to(inside).as_posix(), file) for file in files]
    else:
        possible = sorted(
            {path.stem for path in folder.iterdir() if path.is_dir() or path.suffix == ".txt"} - {"labels"}
        )
        raise InputError(
            f"{folder}: neither {split}.txt, a list of pictures, nor a folder {split}; "
            f"possible: {', '.join(possible) or 'nothing'}"
        )
    if not places:
        raise InputError(f"{listed if listed.is_file() else inside}: no picture; possible: {', '.join(SUFFIXES)}")
    return places
