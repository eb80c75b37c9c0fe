"""What a config asks for and does not get."""

from __future__ import annotations

from tutored.config import Config, Task
from tutored.errors import InputError
from tutored.evaluate.figures import averaged_classes
from tutored.structures import IGNORE, Dataset

READ_BY = {
    "share": ("replace",),
    "resampled": ("replace",),
    "weights": ("both",),
    **dict.fromkeys(("vetted", "renamed", "elsewhere"), ("fill", "replace", "both")),
}
"""Keys of a task that some policies alone read."""


def idle_notes(config: Config, train: Dataset, val: Dataset | None) -> list[str]:
    """The same, a sentence each. Raises InputError for classes that there are not, or too many."""
    averaged_classes(train.labels, config.data.reported)
    if "segmentation" in config.taught and len(train.labels) > IGNORE:
        raise InputError(
            f"{len(train.labels.classes)} classes are more than a mask can tell apart ({IGNORE - 1}): name fewer as "
            "data.classes, or learn boxes alone (supervision.segmentation.policy: none)"
        )
    notes = [
        f"{name}: the store is not asked, for the policy is '{task.policy}'"
        for name, task in config.supervision.tasks.items()
        if task.store and not task.stores
    ]
    for name, task in config.supervision.tasks.items():
        idle = [key for key, policies in READ_BY.items() if task.policy not in policies and _is_set(task, key)]
        if idle:
            notes.append(f"{name}: the policy '{task.policy}' does not read {', '.join(idle)}")
    boxes = config.supervision.detection
    if boxes.stores and boxes.vetted and config.loss.ignore_floor > config.loss.silent_score:
        notes.append(
            "detection: no score is ignored (loss.ignore_floor is as high as loss.box_floor), so that where a box is "
            "contradicted (vetted), nothing is taken to be there"
        )
    if val is not None and not any(map(val.annotated_tasks, val.ids)):
        notes.append(f"{val.name}: no image has ground truth to validate on, so there will be no figures")
    maps, loss = config.supervision.segmentation, config.loss
    lighter = {"vetted": maps.vetted, "elsewhere": maps.elsewhere == "ignore", "map_weight": loss.map_weight != "mass"}
    if maps.stores and loss.map_target == "softmax" and any(lighter.values()):
        keys = ", ".join(key for key, value in lighter.items() if value)
        notes.append(f"segmentation: loss.map_target 'softmax' teaches every cell at full weight, in spite of {keys}")
    partly = config.data.annotated is not None or config.data.classes is not None or config.data.more
    if maps.policy == "fill" and loss.map_target == "softmax" and partly:
        notes.append(
            "segmentation: loss.map_target 'softmax' also softens what people drew, and teaches their void, where a "
            "data set annotates some of the classes alone; 'power' does not"
        )
    return notes


def _is_set(task: Task, key: str) -> bool:
    return bool(getattr(task, key) != getattr(Task(), key))
