"""From predictions to figures, and how sure the difference between two predictors is.

`record` compares one image's prediction with its ground truth; `figures` turns the records of a split into a `Result`,
which `table` shows. `resample` keeps what `compare` needs for the interval of a difference. What is measured is the
business of each kind of task (`Task.record`, `Task.figures`, `Task.resampler`).
"""

import hashlib
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from rich.console import Group
from rich.table import Table
from rich.text import Text

from tutored.config import flat, make_config
from tutored.errors import InputError, told_of
from tutored.files import FINISHED, read_json, regular, require, whole_file
from tutored.tasks import Figures, Task
from tutored.types import GroundTruth, Prediction

ENOUGH_SEEDS = 3
"""Two seeds say too little about their spread for a verdict."""
LEVEL = 0.95
"""Of intervals."""


class Record(NamedTuple):
    """What one image tells about its predictor; a few kilobytes.

    Attributes:
        tasks: by task, what `Task.record` returns, for the tasks with both ground truth and an answer.
        unanswered: the tasks with ground truth but without an answer.
    """

    image_id: str
    tasks: dict[str, Any]
    unanswered: tuple[str, ...] = ()


class Result(NamedTuple):
    """The figures of one predictor on one split.

    Attributes:
        tasks: by task, for the tasks that at least one image is annotated and answered for.
        notes: for the reader of the figures, a sentence each.
    """

    images: int
    tasks: dict[str, Figures]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        tasks = {name: each.to_dict() for name, each in self.tasks.items()}
        return {"images": self.images, "tasks": tasks, "notes": list(self.notes)}


def record(image_id: str, truth: GroundTruth, prediction: Prediction, tasks: Mapping[str, Task]) -> Record:
    """Compare one image's prediction with its ground truth, both in the image's own pixels. Raises InputError: naming
    the image; the two differ in size, or an answer is outside the label space or not finite.
    """
    if truth.size != prediction.size:
        sizes = " and ".join(f"{width} x {height}" for height, width in (truth.size, prediction.size))
        raise InputError(
            f"{image_id}: image and prediction differ in size: {sizes} pixels; was it made for this image?"
        )
    annotated = [name for name in tasks if truth.tasks.get(name) is not None]
    answered = [name for name in annotated if prediction.tasks.get(name) is not None]
    found = {}
    for name in answered:
        with told_of(f"{image_id}: {name}"):
            found[name] = tasks[name].record(truth.tasks[name], prediction.tasks[name])
    return Record(image_id, found, tuple(name for name in annotated if name not in answered))


def figures(records: Sequence[Record], tasks: Mapping[str, Task]) -> Result:
    """All figures of one predictor from the records of its images, in any order.

    An image counts for the tasks that it is annotated for; annotated for some classes, it counts for these. Raises
    InputError: no images, an image twice, a task answered for some images only, or an unknown class is reported.
    """
    ordered = _in_order(records)
    found = {
        name: task.figures([each.tasks[name] for each in ordered if name in each.tasks])
        for name, task in tasks.items()
        if any(name in each.tasks for each in ordered)
    }
    return Result(len(ordered), found)


def _in_order(records: Sequence[Record]) -> list[Record]:
    """The records by image id, so that ties between scores never depend on the order of images."""
    if not records:
        raise InputError("no images to evaluate; is the split empty?")
    ordered = sorted(records, key=lambda item: item.image_id)
    for before, after in itertools.pairwise(ordered):
        if before.image_id == after.image_id:
            raise InputError(f"image {after.image_id} is given twice; each image counts once")
    for name in {name for each in ordered for name in each.tasks}:
        missing = [each.image_id for each in ordered if name in each.unanswered]
        if missing:
            raise InputError(
                f"no answer of the task {name} for {len(missing)} of {len(ordered)} images, such as {missing[0]}; "
                "predict all of the split, or evaluate on the images that have an answer"
            )
    return ordered


def table(result: Result) -> Group:
    """For each task the figures of the classes that count, their means in the last row, and what else was measured."""
    return Group(*(part for name, each in result.tasks.items() for part in _task_table(name, each)))


def _task_table(task: str, figures: Figures) -> tuple[Table, Text]:
    """Classes without ground truth, and means that are not the mean of a column, stand below the rows."""
    columns = figures.per_class
    counts = {name: by_class for name, by_class in figures.counts.items() if any(by_class.values())}
    names = [
        name
        for name in dict.fromkeys(itertools.chain(*columns.values()))
        if name in figures.classes or name == "background"
    ]
    absent = [name for name in names if all(by_class.get(name) is None for by_class in columns.values())]
    others = {name: value for name, value in figures.means.items() if name.removeprefix("m") not in columns}

    drawn = Table(title=Text(task), title_justify="left", title_style="bold")
    drawn.add_column("class" if columns else "figure", no_wrap=True, vertical="bottom")
    headings = [name.replace("_", " ") for name in (*counts, *columns)] or [""]
    for heading in headings:
        drawn.add_column(heading, justify="right", vertical="bottom")
    for name in names:
        if name not in absent:
            shares = [_number(by_class.get(name)) for by_class in columns.values()]
            drawn.add_row(Text(name), *(str(by_class.get(name, "")) for by_class in counts.values()), *shares)
    lines = [f"{figures.images:,} image{'s' if figures.images != 1 else ''}"]
    if columns:
        drawn.add_section()
        totals = [str(sum(by_class.get(name, 0) for name in figures.classes)) for by_class in counts.values()]
        means = (figures.means.get(f"m{metric}", figures.means.get(metric)) for metric in columns)
        drawn.add_row("mean", *totals, *map(_number, means), style="bold")
        lines += [f"{name.replace('_', ' ')} {_number(value)}" for name, value in others.items() if value is not None]
    else:
        for name, value in others.items():
            drawn.add_row(name.replace("_", " "), _number(value))
    if absent:
        lines.append(f"without ground truth, not in the mean: {', '.join(absent)}")
    return drawn, Text("\n".join([*lines, *figures.notes]))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


@dataclass(frozen=True, slots=True)
class Resampled:
    """The headline figures of one predictor on the images and on resamples of them, a few kilobytes.

    Attributes:
        values: float64 [samples + 1, n]; row 0 on the images themselves, the others on as many images drawn with
            replacement, the same draws for every predictor. NaN where a figure is unknown.
        names: of the n figures, such as `TASK/mIoU`.
        images: SHA-256 of the image ids and of what decides the draws: equal where two predictors can be compared.
        lower_is_better: names of the figures of which the lower one is better.
    """

    values: NDArray[np.float64]
    names: tuple[str, ...]
    images: str
    lower_is_better: tuple[str, ...] = ()

    def save(self, path: Path) -> None:
        """Write `path`, an npz file, whole or not at all."""
        with whole_file(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(
                file,
                values=self.values.astype(np.float32),
                names=np.array(self.names, np.str_),
                images=np.array(self.images),
                lower_is_better=np.array(self.lower_is_better, np.str_),
            )

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote. Raises InputError where the file is something else."""
        try:
            with np.load(regular(path), allow_pickle=False) as arrays:
                names, lower = (tuple(map(str, arrays[key])) for key in ("names", "lower_is_better"))
                values = arrays["values"].astype(np.float64)
                if values.ndim != 2 or values.shape[1] != len(names):
                    raise ValueError(f"values of shape {values.shape} for {len(names)} figures")
                return cls(values, names, str(arrays["images"]), lower)
        except Exception as error:  # zip files and arrays fail in all sorts of ways
            raise InputError(
                f"{path}: no resampled figures of a run ({error}); remove the run's folder to train it again"
            ) from error


def resample(records: Sequence[Record], tasks: Mapping[str, Task], *, samples: int = 1000, seed: int = 0) -> Resampled:
    """A predictor's headline figures on resamples of its images.

    Predictors evaluated on the same images see the same resamples, whatever the order of their records. Raises
    InputError: as `figures`.
    """
    ordered = _in_order(records)
    measured = {name: task for name, task in tasks.items() if any(name in each.tasks for each in ordered)}
    figures_of = [task.resampler([each.tasks.get(name) for each in ordered]) for name, task in measured.items()]
    once = np.ones(len(ordered), np.int64)
    rng = np.random.default_rng(seed)
    drawn = (once, *(rng.multinomial(len(ordered), once / len(ordered)) for _ in range(samples)))
    values = np.array([[figure(weights) for figure in figures_of] for weights in drawn], np.float64)
    names = {name: f"{name}/{task.headline[0]}" for name, task in measured.items()}
    described = f"{samples} {seed} {' '.join(item.image_id for item in ordered)}"
    lower = tuple(names[name] for name, task in measured.items() if task.lower_is_better)
    return Resampled(values, tuple(names.values()), hashlib.sha256(described.encode()).hexdigest(), lower)


class Interval(NamedTuple):
    """A difference b - a.

    Attributes:
        a, b: the two figures, means over the seeds.
        difference: b - a.
        low, high: the ends of its 95 % interval.
        p: two-sided p-value of "no difference", of the same estimate as the interval.
        lower_is_better: of the figure.
    """

    a: float
    b: float
    difference: float
    low: float
    high: float
    p: float
    lower_is_better: bool = False

    @property
    def verdict(self) -> Literal["better", "worse"] | None:
        """What b is, where the interval, at three digits, excludes zero; otherwise neither of the two is better."""
        if round(self.low, 3) <= 0 <= round(self.high, 3):
            return None
        return "better" if (self.difference < 0) == self.lower_is_better else "worse"

    def within(self, margin: float) -> bool:
        """Whether the two are level: the whole interval lies inside -margin to +margin, a margin stated beforehand."""
        return -margin < self.low and self.high < margin

    def __str__(self) -> str:
        """Such as `+0.012 [-0.003, +0.027]`."""
        return f"{self.difference:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


def compare(a: Sequence[Resampled], b: Sequence[Resampled]) -> dict[str, Interval]:
    """Is b better than a? Each holds one `Resampled` for each training seed, in the same order.

    Figures are means over the seeds. Every seed is judged on the same images, so images and seeds are crossed, and a
    difference varies in three ways: with the images (alike for all seeds), with the seeds (alike for all images), and
    with their interaction. Over I images and S seeds its variance is

        images / I + seeds / S + interaction / (I S).

    The variance over resampled images of the mean over seeds, V_images, estimates images / I + interaction / (I S). The
    variance over seeds divided by S, V_seeds, estimates seeds / S + interaction / (I S). Their sum counts the
    interaction twice, so it is subtracted once: V = V_images + V_seeds - V_both (Cameron, Gelbach and Miller 2011,
    "Robust inference with multiway clustering"). Resampling seeds and images together would count it three times (Owen
    2007, "The pigeonhole bootstrap"). The mean over seeds of each one's own variance over resampled images estimates
    (images + interaction) / I, which exceeds V_images by (S - 1) V_both. A negative V_seeds - V_both counts as zero.

    The interval is difference -+ t sqrt(V). The seeds' own part V_seeds - V_both has S - 1 degrees of freedom, V_images
    from hundreds of images nearly infinitely many, so t has (S - 1) (V / (V_seeds - V_both))^2 (Satterthwaite 1946).
    In our studies a quarter of one seed's variance over images is shared between the seeds, three quarters are
    interaction, and the seeds' own variance is up to half as large: there 4 to 6 of 100 intervals over three seeds miss
    the truth, and 7 where it is as large.

    With one seed, V is V_images alone: the noise of training is not in the interval. Returns intervals by name, for the
    figures that all have. Raises InputError: not as many seeds, none, or different images.
    """
    if len(a) != len(b) or not a:
        raise InputError(f"{len(a)} runs against {len(b)}; compare the same seeds of both, at least one")
    if len({item.images for item in (*a, *b)}) > 1:
        raise InputError("the predictors were evaluated on different images; evaluate both on the same split")
    result = {}
    for name in a[0].names:
        if all(name in item.names for item in (*a, *b)):
            first, second = (np.stack([item.values[:, item.names.index(name)] for item in side]) for side in (a, b))
            ends = float(first[:, 0].mean()), float(second[:, 0].mean())
            if np.isfinite(ends).all():
                result[name] = Interval(*ends, *_estimate(second - first), name in a[0].lower_is_better)
    return result


def _estimate(differences: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """Difference, ends of the interval and p-value, see `compare`. `differences` is float64 [seeds, samples + 1], the
    first column on the images themselves.
    """
    from scipy.special import stdtr, stdtrit

    seeds, sampled, difference = len(differences), differences[:, 1:], float(differences[:, 0].mean())
    variance, freedom = float(np.nanvar(sampled.mean(axis=0), ddof=1)), math.inf
    if seeds > 1:
        both = (np.nanvar(sampled, axis=1, ddof=1).mean() - variance) / (seeds - 1)
        of_seeds = max(float(differences[:, 0].var(ddof=1) / seeds - both), 0.0)
        variance += of_seeds
        if of_seeds:
            freedom = (seeds - 1) * (variance / of_seeds) ** 2
    error = math.sqrt(variance)
    half = float(stdtrit(freedom, (1 + LEVEL) / 2)) * error
    p = float(2 * stdtr(freedom, -abs(difference) / error)) if error else float(difference == 0)
    return difference, difference - half, difference + half, p


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for how many there are: of those up to q, a share of q is expected to be false discoveries.

    Benjamini and Hochberg (1995), for comparisons that are independent or positively dependent.
    """
    count = len(p_values)
    order = np.argsort(p_values)[::-1]
    scaled = np.asarray(p_values, np.float64)[order] * count / np.arange(count, 0, -1)
    adjusted = np.empty(count)
    adjusted[order] = np.minimum.accumulate(np.minimum(scaled, 1.0))
    return [float(each) for each in adjusted]


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
    """Compare finished runs, seed by seed, over images and seeds (`evaluate.compare`). Raises InputError: a folder
    holds no finished and validated run, a seed is on one side twice or on one alone, the runs were validated on
    different images, the means of a task are over different classes, or they have no figure in common.

    Args:
        runs: folders that `train` wrote, the same training with other seeds.
        against: as many, with the same seeds.
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
