"""A store's answers for one task, remapped from the tutor's label space into ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from tutored.labels import ClassMap
from tutored.softlabels.store import Store
from tutored.tasks.task import Remap, Task
from tutored.types import SoftLabels


class Remapped(Mapping[str, SoftLabels]):
    """Image id -> soft labels with the one answer of a task, under its kind. Images without an answer are left out.

    Args:
        store: the tutor's answers in the label space `class_map.source`.
        task: in the label space `class_map.target`. Its section says how a map is made of instances or confidences.
        temperature: probabilities become p^(1/T), those of a box for "its class" and "not its class".
        muted: classes of our space that the tutor must not teach, see `Task.mute`.
    """

    def __init__(
        self,
        store: Store,
        class_map: ClassMap,
        task: Task,
        *,
        temperature: float = 1.0,
        muted: Sequence[int] = (),
    ) -> None:
        self.store, self.class_map, self.task = store, class_map, task
        self.temperature, self.muted = temperature, tuple(muted)
        self._remap = remap_of(class_map)

    def __getitem__(self, image_id: str) -> SoftLabels:
        stored = self.store.read(image_id, self.task.answers, self._remap)
        answer = self.task.from_store(stored, self.class_map, self.task.section)
        if answer is None:
            raise KeyError(image_id)
        if self.temperature != 1:
            answer = answer.tempered(self.temperature)
        if self.muted:
            answer = self.task.mute(answer, self.muted)
        return SoftLabels(stored.size, {self.task.kind: answer})

    def __iter__(self) -> Iterator[str]:
        return (image_id for image_id in self.store if image_id in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, image_id: object) -> bool:
        return isinstance(image_id, str) and self.store.answered_by(self.task, image_id)


def remap_of(class_map: ClassMap) -> Remap:
    """A class map in the form that rows of a store are remapped by."""
    # Two numbers beyond the target space collect what has no target: what is ignored, and what is background.
    space = len(class_map.target)
    to = [to if to is not None else space + (number not in class_map.ignored) for number, to in enumerate(class_map.to)]
    reached = [number for number in class_map.to if number is not None]
    unreached = sorted(class_map.target.index(name) for name in class_map.unreached)
    return Remap(tuple(to), space, len(reached) > len(set(reached)), tuple(unreached))
