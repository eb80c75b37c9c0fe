"""Are some runs better than others? From their folders alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tutored.config import flat, make_config
from tutored.errors import InputError
from tutored.evaluate import Interval, Resampled, compare
from tutored.files import FINISHED, read_json, require

SEEDS = ("train.seed", "data.seed")
"""In what the runs of one side may differ."""


class Compared(NamedTuple):
    """Some runs against others.

    Attributes:
        seeds: `train.seed` of the runs; both sides have the same.
        intervals: by figure, such as `TASK/mIoU`, what the runs gain over the others.
        differences: of the configs' keys, a sentence each; keys in which the runs of one side differ begin with
            "within one side".
    """

    seeds: tuple[int, ...]
    intervals: dict[str, Interval]
    differences: tuple[str, ...]


def compare_runs(runs: Sequence[Path], against: Sequence[Path]) -> Compared:
    """Compare finished runs, seed by seed, over images and seeds (`evaluate.compare`).

    Args:
        runs: folders that `train` wrote, the same training with other seeds.
        against: as many, with the same seeds.

    Raises:
        InputError: a folder holds no finished and validated run, a seed is on one side twice or on one alone,
            the runs were validated on different images, the means of a task are over different classes, or
            they have no figure in common.
    """
    mine, theirs = _by_seed(runs), _by_seed(against)
    if mine.keys() != theirs.keys():
        raise InputError(f"seeds {_listed(mine)} against {_listed(theirs)}; give runs of the same seeds on both sides")
    seeds = tuple(sorted(mine))
    first, *others = [*mine.values(), *theirs.values()]
    for other in others:
        both = f"{first.path} and {other.path}"
        for task in filter(other.classes.__contains__, first.classes):
            classes = first.classes[task], other.classes[task]
            if set(classes[0]) != set(classes[1]):
                raise InputError(
                    f"{both}: means over different classes, {' and '.join(map(', '.join, classes))}; "
                    f"compare runs with the same tasks.{task}.reported"
                )
        if other.resampled.images != first.resampled.images:
            raise InputError(f"{both}: validated on different images; compare runs with the same data.val_split")
    intervals = compare(*([side[seed].resampled for seed in seeds] for side in (theirs, mine)))
    if not intervals:
        raise InputError(
            f"{', '.join(map(str, [*runs, *against]))}: no figure that all of them have; compare runs that share "
            "a task which was taught and validated"
        )
    differences = _differences(*([side[seed].config for seed in seeds] for side in (mine, theirs)))
    return Compared(seeds, intervals, differences)


class _Run(NamedTuple):
    """A finished run; `config` is flat, `classes` has by task the classes that its means are over."""

    path: Path
    config: dict[str, Any]
    classes: dict[str, list[str]]
    resampled: Resampled


def _by_seed(paths: Sequence[Path]) -> dict[int, _Run]:
    found: dict[int, _Run] = {}
    for path in paths:
        require(path, FINISHED)
        result = path / FINISHED.file
        try:
            content = read_json(result)
            config, figures = make_config(content["config"], origin=str(result)), content["figures"]
            classes = {task: list(each["classes"]) for task, each in (figures or {}).items()}
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{result}: no result of a run ({error})") from error
        if figures is None:
            raise InputError(f"{path}: not validated, so there is nothing to compare; train it with data.val_split")
        seed = config.train.seed
        if seed in found:
            raise InputError(f"{found[seed].path} and {path} both have train.seed {seed}; give each seed once")
        found[seed] = _Run(path, flat(config.to_dict()), classes, Resampled.load(path / "resamples.npz"))
    return found


def _listed(seeds: Mapping[int, Any]) -> str:
    return ", ".join(map(str, sorted(seeds)))


def _differences(mine: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """Of configs in the order of their seeds."""
    found = []
    for key in dict.fromkeys(name for config in (*mine, *theirs) for name in config):
        pairs = [(here.get(key), there.get(key)) for here, there in zip(mine, theirs, strict=True)]
        alike = all(pair == pairs[0] for pair in pairs)
        if not alike and key not in SEEDS:
            found.append(f"within one side: {key}")
        elif any(here != there for here, there in pairs):
            shown = pairs[:1] if alike else pairs
            found.append(f"{key}: " + ", ".join(f"{here!r} against {there!r}" for here, there in shown))
    return tuple(found)
