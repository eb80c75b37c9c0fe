"""Where a training starts from: another student's weights, or its own state, which goes on to the same bits."""

import json
from collections.abc import Mapping, Sequence
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tutored.checkpoint import load_checkpoint
from tutored.config import Config
from tutored.config.students import RANDOM_COST, StudentSection
from tutored.errors import InputError, instead
from tutored.files import former, regular, seal, whole_folder
from tutored.labels import LabelSpace, same_class
from tutored.softlabels import changed
from tutored.students import Head, Student, make_student
from tutored.tasks import Task


def start_student(config: Config, tasks: Mapping[str, Task]) -> tuple[Student, tuple[str, ...]]:
    """A student to train, with the weights of `train.start`, if given.

    What its heads know of a class is found by the class's name, or an alias. Classes and tasks that the other student
    does not know begin at random, as everything does without one. Raises InputError: no checkpoint there, or its
    student is built otherwise; see the student's class. Returns the student, and what the user should know, a sentence
    each.
    """
    student = make_student(config.student, tasks)
    if config.train.start is None:
        alone = f"student.weights random: the backbone begins with nothing; {RANDOM_COST} than with ImageNet's weights"
        return student, (alone,) if config.student.weights == "random" else ()
    start = Path(config.train.start)
    given, others = load_checkpoint(start)
    _check_alike(config.student, others.student, start)
    shared = [name for name in tasks if name in given.tasks and given.tasks[name].kind == tasks[name].kind]
    own, weights = student.state_dict(), {}
    for key, value in given.state_dict().items():
        _, _, rest = key.partition("heads.")
        name, _, inside = rest.partition(".")
        if not rest:
            weights[key] = value
        elif name in shared:
            head = student.heads[name]
            assert isinstance(head, Head)
            labels, known = tasks[name].labels, given.tasks[name].labels
            weights[key] = _by_name(own[key], value, labels, known) if inside.startswith(head.by_class) else value
    student.load_state_dict(own | weights)
    notes = [f"{name}: starts from {start}, {_known(tasks[name].labels, given.tasks[name].labels)}" for name in shared]
    new = [name for name in tasks if name not in shared]
    return student, (*notes, *(f"{name}: starts at random, since {start} has no such task" for name in new))


def _known(labels: LabelSpace, known: LabelSpace) -> str:
    shared = sum(same_class(name, known) is not None for name in labels.classes)
    return f"which knows {shared} of the {len(labels.classes)} classes"


def _check_alike(here: StudentSection, there: StudentSection, start: Path) -> None:
    keys = [key for key in type(here).model_fields if key not in here.FREE]
    differing = instead(*({key: getattr(each, key, None) for key in keys} for each in (there, here)))
    if differing:
        raise InputError(
            f"train.start {start}: a student built otherwise, with {differing}; set student.* alike, "
            "or give another checkpoint"
        )


def _by_name(own: Tensor, other: Tensor, labels: LabelSpace, others: LabelSpace) -> Tensor:
    """Rows of a layer of class logits, whose first axis is [anchors of a cell x classes], or classes alone."""
    rows = own.reshape(-1, len(labels), *own.shape[1:]).clone()
    known = {number: same_class(name, others) for number, name in enumerate(labels.names)}
    mine, theirs = zip(*((number, place) for number, place in known.items() if place is not None), strict=True)
    rows[:, mine] = other.reshape(-1, len(others), *other.shape[1:])[:, theirs]
    return rows.reshape(own.shape)


STATE = "state"
Stores = Mapping[str, Sequence[Mapping[str, Any]]]


def save_state(
    run: Path, model: dict[str, Tensor], average: dict[str, Tensor], optimizer: dict[str, Any], facts: dict[str, Any]
) -> None:
    """Write `run/state` whole or not at all; the last good one stays until the new one is complete. `facts` are
    JSON-ready: the step, the run id, the scaler's state.
    """
    tensors = {f"model/{name}": value for name, value in model.items()}
    tensors |= {f"average/{name}": value for name, value in average.items()}
    for index, slots in optimizer["state"].items():
        tensors |= {f"optimizer/{index}/{slot}": torch.as_tensor(value) for slot, value in slots.items()}
    with whole_folder(run / STATE) as folder:
        whole = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        save_file(whole, folder / "state.safetensors")
        written = {**facts, "groups": optimizer["param_groups"]}
        written["sha256"] = seal(written, folder / "state.safetensors")
        (folder / "state.json").write_text(json.dumps(written, indent=1), encoding="utf-8")


def load_state(run: Path) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Any], dict[str, Any]] | None:
    """The parts that `save_state` was given, or None where nothing was saved yet. Raises InputError: the saved state is
    damaged.
    """
    places = (run / STATE, former(run / STATE))
    folder = next((place for place in places if (place / "state.json").exists()), None)
    if folder is None:
        return None
    try:
        return _read(folder)
    except Exception as error:
        raise InputError(f"{folder}: damaged training state ({error}); delete the run folder to start anew") from error


def check_stores(run: Path, began: Stores, now: Stores) -> None:
    """Raise InputError where a run does not go on with the stores, by task, that it began with: in which fields."""
    none: dict[str, Any] = {}
    pairs = chain.from_iterable(zip_longest(began.get(task, []), now[task], fillvalue=none) for task in now)
    fields = sorted({name for one, other in pairs for name in changed(one, other)})
    if fields:
        raise InputError(
            f"{run}: a store has changed since the run began (its identity differs in {', '.join(fields)}); "
            "bring the former store back, or train into another --out"
        )


def check_images(run: Path, began: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise InputError where a run does not go on with the images that it began with. Both are of
    `TrainingSet.fingerprint`.
    """
    if began != now:
        raise InputError(
            f"{run}: the training images, or their ground truth, have changed since the run began "
            f"({began['count']} then, {now['count']} now); bring them back, or train into another --out, as with "
            f"--train.start {run / 'checkpoint'}"
        )


def _read(folder: Path) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Any], dict[str, Any]]:
    facts = json.loads(regular(folder / "state.json").read_bytes())
    tensors = load_file(regular(folder / "state.safetensors"))
    if facts.pop("sha256", None) != seal(facts, folder / "state.safetensors"):
        raise ValueError("'sha256' differs from its content")
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "average": {}}
    slots: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        kind, _, rest = name.partition("/")
        if kind == "optimizer":
            index, _, slot = rest.partition("/")
            slots.setdefault(int(index), {})[slot] = value
        else:
            parts[kind][rest] = value
    optimizer = {"state": slots, "param_groups": facts.pop("groups")}
    return parts["model"], parts["average"], optimizer, facts
