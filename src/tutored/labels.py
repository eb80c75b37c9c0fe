"""Label spaces (ordered class names) and strict maps of probabilities from one space into another."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from tutored.errors import InputError

VOC_NAMES = (
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike "
    "person pottedplant sheep sofa train tvmonitor"
).split()

COCO_NAMES = (
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,"
    "parking meter,bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,"
    "handbag,tie,suitcase,frisbee,skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,"
    "surfboard,tennis racket,bottle,wine glass,cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,"
    "broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,potted plant,bed,dining table,toilet,tv,laptop,"
    "mouse,remote,keyboard,cell phone,microwave,oven,toaster,sink,refrigerator,book,clock,vase,scissors,"
    "teddy bear,hair drier,toothbrush"
).split(",")

ALIASES: tuple[frozenset[str], ...] = (
    frozenset({"aeroplane", "airplane"}),
    frozenset({"motorbike", "motorcycle"}),
    frozenset({"diningtable", "dining table"}),
    frozenset({"pottedplant", "potted plant"}),
    frozenset({"sofa", "couch"}),
    frozenset({"tvmonitor", "tv"}),
)
"""Names that mean one class: the six of VOC's twenty that COCO spells differently."""

Elsewhere = Literal["background", "ignore"]


@dataclass(frozen=True, slots=True)
class LabelSpace:
    """Ordered class names; index 0 is always "background", one numbering for boxes and pixels."""

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.names or self.names[0] != "background":
            raise InputError(f"a label space begins with 'background', got {self.names[:3]}")
        twice = sorted({name for name in self.names if self.names.count(name) > 1})
        if twice:
            raise InputError(f"a label space names each class once; twice: {', '.join(twice)}")
        if len(self.names) > 255:
            raise InputError(f"a mask holds at most 254 classes beside background, got {len(self.names) - 1}")

    @classmethod
    def of(cls, classes: list[str] | tuple[str, ...]) -> LabelSpace:
        """The label space of these object classes, background put in front."""
        return cls(("background", *classes))

    def __len__(self) -> int:
        return len(self.names)

    @property
    def classes(self) -> tuple[str, ...]:
        """The object classes, without background; class i of the space is `classes[i - 1]`."""
        return self.names[1:]

    def index(self, name: str) -> int:
        """The number of a class. Raises InputError with the nearest names for an unknown one."""
        if name in self.names:
            return self.names.index(name)
        near = difflib.get_close_matches(name, self.names, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"possible: {', '.join(self.classes)}"
        raise InputError(f"unknown class {name!r}; {hint}")


VOC = LabelSpace.of(VOC_NAMES)
COCO = LabelSpace.of(COCO_NAMES)


@dataclass(frozen=True, slots=True)
class ClassMap:
    """How one label space's probabilities fold into another's.

    Attributes:
        source: the tutor's label space.
        target: ours.
        to: for each source class its target class, or None where it has none. `to[0]` is 0.
        elsewhere: what becomes of the probability of classes without a target. "background": it is
            something that our space calls background (VOC's convention). "ignore": it is taken
            away, and the cell or box weighs that much less.
    """

    source: LabelSpace
    target: LabelSpace
    to: tuple[int | None, ...]
    elsewhere: Elsewhere = "background"
    _matrix: Tensor = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.to) != len(self.source) or self.to[0] != 0:
            raise ValueError("a class map gives every source class its target, and background is background")
        matrix = torch.zeros(len(self.target), len(self.source))
        for source, target in enumerate(self.to):
            if target is not None:
                matrix[target, source] = 1
            elif self.elsewhere == "background":
                matrix[0, source] = 1
        object.__setattr__(self, "_matrix", matrix)

    @classmethod
    def by_name(
        cls,
        source: LabelSpace,
        target: LabelSpace,
        *,
        renamed: Mapping[str, str | None] | None = None,
        elsewhere: Elsewhere = "background",
    ) -> ClassMap:
        """Match classes by name, aliases included.

        Args:
            renamed: source name -> target name, or None to drop it; several may share a target.

        Raises:
            InputError: a name in `renamed` is in neither space, or nothing matches at all.
        """
        renamed = dict(renamed or {})
        for name, new in renamed.items():
            source.index(name)
            if new is not None:
                target.index(new)
        to: list[int | None] = [0]
        for name in source.classes:
            if name in renamed:
                new = renamed[name]
                to.append(None if new is None else target.index(new))
            else:
                to.append(same_class(name, target))
        if not any(to):
            raise InputError(
                f"no class of the tutor ({', '.join(source.classes[:5])}, ...) is one of ours "
                f"({', '.join(target.classes[:5])}, ...); give the pairs explicitly"
            )
        return cls(source, target, tuple(to), elsewhere)

    @property
    def unmapped(self) -> tuple[str, ...]:
        """Source classes without a target: their boxes are dropped."""
        return tuple(name for name, to in zip(self.source.names, self.to, strict=True) if to is None)

    @property
    def unreached(self) -> tuple[str, ...]:
        """Target classes that this tutor knows nothing about."""
        return tuple(name for index, name in enumerate(self.target.names) if index not in self.to)

    def fold(self, probs: Tensor, dim: int = -1) -> Tensor:
        """Fold probabilities along `dim` (size: source space) into the target space."""
        if probs.shape[dim] != len(self.source):
            raise ValueError(f"expected {len(self.source)} classes along dimension {dim}, got {tuple(probs.shape)}")
        folded: Tensor = torch.tensordot(self._matrix, probs, dims=([1], [dim]))
        return folded.movedim(0, dim)

    def describe(self) -> str:
        """One line for the user: what is mapped, what is not, and where its probability goes."""
        mapped = sum(to is not None for to in self.to[1:])
        text = f"{mapped} of the tutor's {len(self.source) - 1} classes map to ours"
        if self.unmapped:
            text += f"; the other {len(self.unmapped)} ({', '.join(self.unmapped[:4])}, ...) count as {self.elsewhere}"
        if self.unreached:
            text += f"; it knows nothing about {', '.join(self.unreached)}"
        return text


def same_class(name: str, target: LabelSpace) -> int | None:
    """The number of the class of this name, or of an alias of it, in `target`; None where it has none."""
    if name in target.names:
        return target.names.index(name)
    for alias in ALIASES:
        if name in alias:
            return next((target.names.index(other) for other in sorted(alias) if other in target.names), None)
    return None
