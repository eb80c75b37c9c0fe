"""Label spaces (ordered class names) and strict maps of probabilities from one space into another."""

import difflib
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import torch
from torch import Tensor

from tutored.errors import InputError, is_one_line

HERE = Path(__file__).parent


def _names(file: str) -> list[str]:
    return (HERE / file).read_text(encoding="utf-8").splitlines()


VOC_NAMES, COCO_NAMES = _names("voc.txt"), _names("coco.txt")
COCO_IDS = [number for number in range(1, 91) if number not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]
"""COCO's category numbers of its 80 classes, in their order."""
NO_CLASS = "N/A"
"""The name of outputs that stand for no class; their probability counts as background."""
COCO_BY_NUMBER = ("background", *(dict(zip(COCO_IDS, COCO_NAMES, strict=True)).get(i, NO_CLASS) for i in range(1, 91)))
"""Names of the outputs of networks that count as COCO does: torchvision's detectors, RF-DETR."""

ALIASES: tuple[frozenset[str], ...] = tuple(frozenset(line.split(" = ")) for line in _names("aliases.txt"))
"""Names that mean one class, to the letter: the six of VOC's twenty that COCO spells differently, and the classes of
ADE20K and Open Images that are COCO's. Open Images' `Mouse` is an animal, so capitals are never simply dropped."""
_ALIASES = {name: alias for alias in ALIASES for name in alias}

Elsewhere = Literal["background", "ignore"]
DROPPED = (None, "background", "ignore")
"""What a class may be named that has no target."""
MOST = 65_536
"""Names that a store can number. A mask holds no more than 255."""


@dataclass(frozen=True, slots=True)
class LabelSpace:
    """Ordered class names; index 0 is always "background", one numbering for boxes and pixels.

    Names are kept in Unicode's composed form (NFC), so that two spellings of one letter are one name.
    """

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.names or self.names[0] != "background":
            raise InputError(f"a label space begins with 'background', got {self.names[:3]}")
        if not all(isinstance(name, str) for name in self.names):
            raise InputError(f"the names of a label space are text, got {self.names[:3]}")
        steering = next((name for name in self.names if not is_one_line(name)), None)
        if steering is not None:
            raise InputError(f"a class is called {steering!r}: a name has no control characters; correct it")
        object.__setattr__(self, "names", tuple(map(composed, self.names)))
        twice = sorted(name for name, times in Counter(self.names).items() if times > 1)
        if twice:
            raise InputError(f"a label space names each class once; twice: {', '.join(twice)}")
        if len(self.names) > MOST:
            raise InputError(f"a label space holds at most {MOST} names with background, got {len(self.names)}")

    @classmethod
    def of(cls, classes: list[str] | tuple[str, ...]) -> Self:
        """The label space of these object classes, background put in front; blanks around a name are not part of it."""
        return cls(("background", *(name.strip() if isinstance(name, str) else name for name in classes)))

    def __len__(self) -> int:
        return len(self.names)

    @property
    def classes(self) -> tuple[str, ...]:
        """The object classes, without background; class i of the space is `classes[i - 1]`."""
        return self.names[1:]

    def index(self, name: str) -> int:
        """The number of a class. Raises InputError with the nearest names for an unknown one."""
        name = composed(name)
        if name in self.names:
            return self.names.index(name)
        near = difflib.get_close_matches(name, self.names, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"possible: {', '.join(self.classes) or 'none'}"
        hint = f"classes are given by name, not by number; {hint}" if name.isdecimal() else hint
        raise InputError(f"unknown class {name!r}; {hint}")


def composed(name: str) -> str:
    """The name in Unicode's composed form, in which `ü` is one character; archives made on macOS have it as two."""
    return unicodedata.normalize("NFC", name)


VOC = LabelSpace.of(VOC_NAMES)
COCO = LabelSpace.of(COCO_NAMES)
KNOWN: Mapping[str, LabelSpace] = {"voc": VOC, "coco": COCO} | {
    name: LabelSpace.of(_names(f"{name}.txt")) for name in ("ade20k", "cityscapes", "open-images")
}
"""Label spaces by name: VOC's 20 classes, COCO's 80, ADE20K's 150, Cityscapes' 19, Open Images' 601 with boxes, each in
its data set's own order. ADE20K's and Cityscapes' have no background: every pixel is one of their classes."""


def _index(labels: LabelSpace, name: str, whose: str) -> int:
    try:
        return labels.index(name)
    except InputError as error:
        raise InputError(f"renamed: of the classes that are {whose}, {error}") from error


@dataclass(frozen=True, slots=True)
class ClassMap:
    """How the probabilities of one label space become those of another.

    Attributes:
        to: for each source class its target class, or None where it has none. `to[0]` is 0.
        ignored: source classes without a target whose probability is taken away, so that the cell or box weighs that
            much less. That of the others is background: our space calls them so (VOC's convention).
    """

    source: LabelSpace
    target: LabelSpace
    to: tuple[int | None, ...]
    ignored: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        if len(self.to) != len(self.source) or self.to[0] != 0:
            raise ValueError("a class map gives every source class its target, and background is background")

    @classmethod
    def by_name(
        cls,
        source: LabelSpace,
        target: LabelSpace,
        *,
        renamed: Mapping[str, str | None] | None = None,
        elsewhere: Elsewhere = "background",
    ) -> Self:
        """Match classes by name, aliases included. Raises InputError: a name in `renamed` is in neither space, or
        nothing matches at all.

        Args:
            renamed: source name -> target name; several may share a target. A class without one is dropped: its
                probability goes to "background", to nowhere ("ignore"), or `elsewhere` (None).
            elsewhere: the same for all classes that are not named and have no target.
        """
        renamed = {composed(name): new for name, new in (renamed or {}).items()}
        for name in renamed:
            if _index(source, name, "the tutor's") == 0:
                raise InputError("renamed: background stays background; name classes of the tutor")
        named = {name: None if new in DROPPED else _index(target, str(new), "ours") for name, new in renamed.items()}
        to = (0, *(named[name] if name in named else same_class(name, target) for name in source.classes))
        if not any(to):
            remedy = (
                "give the pairs explicitly" if target.classes else "name them in a file labels.txt in the data folder"
            )
            raise InputError(
                f"no class of the tutor ({_some(source.classes)}) is one of ours ({_some(target.classes)}); {remedy}"
            )
        ignored = {
            number
            for number, (name, place) in enumerate(zip(source.names, to, strict=True))
            if place is None and (renamed.get(name) or elsewhere) == "ignore"
        }
        return cls(source, target, to, frozenset(ignored))

    @property
    def unmapped(self) -> tuple[str, ...]:
        """Source classes without a target: their boxes are dropped."""
        return tuple(name for name, to in zip(self.source.names, self.to, strict=True) if to is None)

    @property
    def unreached(self) -> tuple[str, ...]:
        """Target classes that this tutor knows nothing about."""
        return tuple(name for index, name in enumerate(self.target.names) if index not in self.to)

    def remap(self, probs: Tensor, dim: int = -1) -> Tensor:
        """Remap probabilities along `dim` (size: source space) into the target space."""
        if probs.shape[dim] != len(self.source):
            raise ValueError(f"expected {len(self.source)} classes along dimension {dim}, got {tuple(probs.shape)}")
        heard = [number for number in range(len(self.to)) if number not in self.ignored]
        places = torch.tensor([self.to[number] or 0 for number in heard])
        given = probs.movedim(dim, 0)[heard]
        return given.new_zeros(len(self.target), *given.shape[1:]).index_add_(0, places, given).movedim(0, dim)

    def describe(self) -> str:
        """One line for the user: what is mapped, what is not, and where its probability goes."""
        mapped = sum(to is not None for to in self.to[1:])
        text = f"{mapped} of the tutor's {len(self.source) - 1} classes map to ours"
        lost = [self.source.names[number] for number in sorted(self.ignored)]
        rest = [name for name in self.unmapped if name not in lost]
        for names, fate in ((rest, "count as background"), (lost, "are ignored")):
            if names:
                text += f"; {'the other ' if not (rest and lost) else ''}{len(names)} ({_some(names)}) {fate}"
        if self.unreached:
            text += f"; it knows nothing about {', '.join(self.unreached)}"
        return text


def same_class(name: str, target: LabelSpace) -> int | None:
    """The number of the class of this name, or of an alias of it, in `target`; None where it has none.

    Of a name with synonyms behind commas (ADE20K's "sofa, couch, lounge") the first one counts.
    """
    name = composed(name)
    if name in target.names:
        return target.names.index(name)
    meant = _meant(name)
    return next((number for number, other in enumerate(target.names) if _meant(other) == meant), None)


def _some(names: Sequence[str]) -> str:
    return ", ".join([*names[:4], "..."] if len(names) > 4 else names) or "none"


def _meant(name: str) -> frozenset[str]:
    """All names of the class that this one names."""
    first = name.partition(",")[0]
    return _ALIASES.get(first) or frozenset({first})
