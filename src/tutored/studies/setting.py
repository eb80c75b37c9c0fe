"""Studies (rows of runs that differ in a few keys of the config, and the comparisons that answer a question), the
setting that they run in (a data set, the tutors' stores, the config that all runs share), and which runs that makes.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, ValidationInfo, field_validator, model_validator

from tutored.config import ClassSection, Config, make_config, merged, read_yaml
from tutored.config.entries import DEFAULT_TASKS, STUDENTS, TASKS, USUAL_STUDENT, imported, section_of
from tutored.errors import InputError
from tutored.section import Section, Text, validated

Recipe = Literal["thesis", "corrected"]
RECIPES: tuple[Recipe, ...] = ("thesis", "corrected")
Changes = Mapping[str, Any]
"""Sections of a config and their keys. A task's `store` names one of the setting's tutors."""


class Row(Section):
    """One line of a table or one point of a curve: one run for each seed.

    Attributes:
        label: what is special about these runs, in a few words.
        recipes: the recipes that have this row.
        config: the keys in which the runs differ from the setting's, in every recipe; a task that is null is left out.
            It may be given as several mappings, of which later ones win; so may the next two.
        thesis: further keys in the recipe `thesis`.
        corrected: further keys in the recipe `corrected`.
        against: labels of the rows to compare it with: is this one better?
        split: which of the setting's training splits.
        series: the curve that a point belongs to.
        x: its place on the study's axis; None: a row of a table, or a level drawn across a figure.
        printed: the thesis' own figures, "mAP" and "mIoU", shares in 0..1.
    """

    label: str
    recipes: tuple[Recipe, ...] = RECIPES
    config: dict[str, dict[str, Any]] = Field(default_factory=dict)
    thesis: dict[str, dict[str, Any]] = Field(default_factory=dict)
    corrected: dict[str, dict[str, Any]] = Field(default_factory=dict)
    against: tuple[str, ...] = ()
    split: Literal["small", "large"] = "small"
    series: str = ""
    x: float | None = None
    printed: dict[str, float] = Field(default_factory=dict)

    @field_validator("config", "thesis", "corrected", mode="before")
    @classmethod
    def _merge(cls, given: Any) -> Any:
        if not isinstance(given, list) or not all(isinstance(each, Mapping) for each in given):
            return given
        found: Mapping[str, Any] = {}
        for each in given:
            found = merged(found, each)
        return found

    def changes(self, recipe: Recipe) -> Changes:
        """All keys in which the runs of one recipe differ from the setting's."""
        return merged(self.config, {"thesis": self.thesis, "corrected": self.corrected}[recipe])

    @property
    def tutors(self) -> set[str]:
        """The names of the tutors that it needs."""
        tasks = [task for recipe in RECIPES for task in self.changes(recipe).get("tasks", {}).values()]
        return {task["store"] for task in tasks if task and "store" in task}

    @property
    def needs(self) -> set[str]:
        """What it asks of a setting: `the tutor NAME`, and `student.KEY` for keys of the setting's student."""
        students = [self.changes(recipe).get("student", {}) for recipe in RECIPES]
        keys = {f"student.{key}" for each in students if "kind" not in each for key in each}
        return keys | {f"the tutor {name}" for name in self.tutors}


class Study(Section):
    """One table or figure, of rows that a setting makes into runs.

    Attributes:
        name: such as `thesis/table-12`.
        title: one line.
        question: what it answers, a sentence or two.
        recipes: the recipes in which its rows are trained.
        axis: what `x` means, for a figure; None: a table.
        even: what it means where a figure equals `x`; such a line is drawn.
        figures: the figures that are drawn, in this order.
        single_task: labels of the row that is taught boxes alone and of the row that is taught maps alone; every other
            row is compared with these two.
        lacks: what the setting does not have of `Row.needs`; the rows that need it are left out.
    """

    name: str
    title: str
    question: str
    recipes: tuple[Recipe, ...] = RECIPES
    rows: tuple[Row, ...]
    axis: str | None = None
    even: str | None = None
    figures: tuple[Literal["mAP", "mIoU"], ...] = ("mAP", "mIoU")
    single_task: tuple[str, str] | None = None
    lacks: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _check_labels(self) -> Self:
        labels = [row.label for row in self.rows]
        twice = [label for label in labels if labels.count(label) > 1]
        if twice:
            raise ValueError(f"study {self.name}: two rows are called {twice[0]!r}")
        named = [("against", name) for row in self.rows for name in row.against]
        for key, name in [*named, *(("single_task", name) for name in self.single_task or ())]:
            if name not in labels:
                raise ValueError(f"study {self.name}: `{key}` names {name!r}; possible: {', '.join(map(repr, labels))}")
        return self

    def of(self, recipe: Recipe) -> tuple[Row, ...]:
        """The rows of one recipe."""
        return tuple(row for row in self.rows if recipe in row.recipes and recipe in self.recipes)

    def within(self, has: Collection[str]) -> Self:
        """The same study with only the rows that need nothing else (`Row.needs`)."""
        lacks = {need for row in self.rows for need in row.needs} - set(has)
        rows = tuple(row for row in self.rows if not row.needs & lacks)
        return self.model_copy(update={"rows": rows, "lacks": tuple(sorted(lacks))})

    def key(self, recipe: Recipe, row: Row) -> str:
        """What names a row in the results, such as `thesis/table-12 | corrected | ground truth`."""
        return f"{self.name} | {recipe} | {row.label}"


class Answer(Section):
    """A line at the head of a report: a question, and the comparison of two rows that answers it.

    Attributes:
        question: in one sentence.
        study: the name of the study that has both rows.
        row: label of the row that is asked about.
        against: label of the row that it is held to; `row` has it among its own `against`.
    """

    question: str
    study: str
    row: str
    against: str
    recipe: Recipe = "corrected"


def _declared(file: str) -> tuple[Study, ...]:
    return tuple(Study.model_validate(each) for each in read_yaml(Path(__file__).with_name(file))["studies"])


DECLARED = (*_declared("thesis.yaml"), *_declared("beyond.yaml"))
"""The thesis' studies, and those beyond."""


Split = Literal["small", "large"]
AS_SET = "as set"
"""What `tune` calls the setting without a candidate."""
WORDS = {"train": "data", "split": "small, large", "val": "data", "val_split": "evaluation"}
"""Keys of a config's `data` for which a setting has keys of its own."""
(_NO_GROUND_TRUTH,) = (study for study in DECLARED if study.name == "beyond/no-ground-truth")
ARMS = {
    label: next(row.config for row in _NO_GROUND_TRUTH.rows if row.label == label)
    for label in ("ground truth", "a fifth of the ground truth", "tutors alone")
}
"""The arms in which `tune` tries the candidates."""


class Setting(Section):
    """One data set on which any study runs. Read from a YAML file of these keys; see `VOC2012` for one.

    Attributes:
        name: for the report, and to find the setting's runs among the results.
        data: such as `voc:FOLDER`.
        small: a split whose images have boxes and masks.
        large: a larger split of which many images lack masks, for table 17.
        large_hidden: share of the masks of `large` that are hidden, where the data set has more of them than that.
        evaluation: the split on which figures are computed. Nothing is chosen on it.
        also: further splits whose figures the report shows in columns of their own; its intervals are of `evaluation`.
        margin: two rows are level where the interval of their difference lies inside -margin to +margin.
        reported: the classes over which means are taken; null: all. A task with `labels` of its own has other classes,
            and its means are over all of them.
        tutors: by name (`detection`, `segmentation`, `instances`, `vouched`), the store's folder; `{split}` in it
            stands for the split's name, with `-` for `/`.
        run: keys of the config that all runs share.
        recipes: by recipe, further keys.
        scales: by name, further keys of the config, such as fewer epochs for a first look.
        held_out: share of the training images on which `tune` compares the candidates.
        candidates: by name, keys of the config that `tune` tries, the same in every arm.
        tutor_candidates: the same for keys that matter only where tutors teach, such as a temperature.
        chosen: by arm of `tune`, the keys that were best there; `beyond/tuned` trains the arms with them in the recipe
            `corrected`.
        studies: studies of one's own, in the form of those in `thesis.yaml` and `beyond.yaml`; or `python:MODULE:NAME`,
            one or several in Python.
        answers: at most ten lines at the head of the report.
        photos: the results keep the students' answers drawn on the photographs, not on a plain ground.
    """

    name: str
    data: str
    small: Text
    large: Text
    large_hidden: Annotated[float, Field(ge=0, lt=1)] = 0.0
    evaluation: Text
    also: tuple[Text, ...] = ()
    margin: Annotated[float, Field(gt=0, lt=1)] = 0.02
    reported: tuple[Text, ...] | None = None
    tutors: dict[Annotated[str, StringConstraints(pattern=r"^\w[\w. -]*$")], str]
    run: dict[str, Any] = Field(default_factory=dict)
    recipes: dict[Literal["thesis", "corrected"], dict[str, Any]] = Field(default_factory=dict)
    scales: dict[str, dict[str, Any]] = Field(default_factory=dict)
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.2
    candidates: dict[str, dict[str, Any]] = Field(default_factory=dict)
    tutor_candidates: dict[str, dict[str, Any]] = Field(default_factory=dict)
    chosen: dict[str, dict[str, Any]] = Field(default_factory=dict)
    studies: tuple[Study, ...] = ()
    answers: Annotated[tuple[Answer, ...], Field(max_length=10)] = ()
    photos: bool = False

    @field_validator("run", "recipes", "scales", "candidates", "tutor_candidates", "chosen")
    @classmethod
    def _check_sections(cls, given: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        for sections in [given] if info.field_name == "run" else given.values():
            _refuse_lost_keys(sections)
        return given

    @field_validator("studies", mode="before")
    @classmethod
    def _import_own(cls, given: Any) -> Any:
        found: list[Any] = []
        for each in given if isinstance(given, list | tuple) else [given]:
            own = imported(each.removeprefix("python:"), "study") if isinstance(each, str) else each
            found += own if isinstance(own, list | tuple) else [own]
        return found

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        names = [AS_SET, *self.candidates, *self.tutor_candidates]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two candidates of `tune` are called {twice!r}; give each a name of its own")
        unknown = self.chosen.keys() - ARMS.keys()
        if unknown:
            raise ValueError(f"`chosen` names {', '.join(sorted(unknown))}; possible: {', '.join(ARMS)}")
        return self

    def store(self, tutor: str, split: Split | Literal["evaluation"]) -> str:
        """The store of a tutor's answers for a split. Raises InputError for an unknown tutor."""
        if tutor not in self.tutors:
            raise InputError(
                f"setting {self.name} has no tutor {tutor!r}, it has {', '.join(self.tutors)}; "
                f"name the store under `tutors: {tutor}:`"
            )
        return self.tutors[tutor].replace("{split}", getattr(self, split).replace("/", "-"))

    def scaled(self, scale: str | None) -> Self:
        """The same setting with the keys of a scale. Raises InputError for an unknown scale."""
        if scale is None:
            return self
        if scale not in self.scales:
            raise InputError(
                f"setting {self.name} has no scale {scale!r}; possible: {', '.join(self.scales) or 'none'}"
            )
        keys = self.scales[scale]
        recipes = {recipe: merged(own, keys) for recipe, own in self.recipes.items()}
        return self.model_copy(update={"run": merged(self.run, keys), "recipes": recipes})


def _refuse_lost_keys(given: dict[str, Any]) -> None:
    """Keys that can't be merged into a config section by section, or that would change the evaluated images."""
    if "recipe" in given:
        raise ValueError("leave `recipe` out: each study declares rows for each recipe")
    for name, section in given.items():
        if not isinstance(section, dict):
            raise ValueError(f"`{name}` is {section!r}; a section is a mapping of its keys")
    for key in WORDS.keys() & given.get("data", {}).keys():
        raise ValueError(f"leave `data.{key}` out: it follows from the setting's `{WORDS[key]}`")
    for name, task in given.get("tasks", {}).items():
        if isinstance(task, dict) and "reported" in task and "labels" not in task:
            raise ValueError(f"leave `tasks.{name}.reported` out: it follows from the setting's `reported`")
        if isinstance(task, dict) and not isinstance(task.get("store", ""), str):
            raise ValueError(f"`store` is {task['store']!r}; give the name of one tutor")


VOC2012: dict[str, Any] = {
    "name": "VOC2012",
    "data": "voc:VOCdevkit/VOC2012",
    "small": "Segmentation/train",
    "large": "Main/train",
    "evaluation": "Segmentation/val",
    "tutors": {name: f"stores/{name}-{{split}}" for name in ("detection", "segmentation", "instances", "vouched")},
    "run": {
        "student": {"kind": "blitznet", "weights": "timm"},
        "train": {"epochs": 200, "precision": "bf16", "workers": 8},
    },
    "recipes": {"thesis": {"train": {"precision": "fp32"}}},
    "scales": {"small": {"train": {"epochs": 20}}},
    "candidates": {f"lr {rate}": {"train": {"lr": rate}} for rate in (2.5e-4, 5e-4, 1e-3)},
    "tutor_candidates": {f"T = {value}": {"tasks": {"segmentation": {"temperature": value}}} for value in (0.5, 2.0)},
}
"""The thesis' own: 1,464 images with masks, 5,717 with boxes (4,566 of them without masks), 1,449 for evaluation."""


def load_setting(path: Path | None, **over: Any) -> Setting:
    """Read a setting's YAML; without a path, VOC2012's. `over` replaces single keys. Raises InputError: the file can't
    be read, or a key or value is not possible.
    """
    given: Any = VOC2012
    if path is not None:
        given = read_yaml(path)
        if not isinstance(given, dict):
            raise InputError(f"{path}: a setting is a mapping with {', '.join(Setting.model_fields)}")
    chosen = {key: value for key, value in over.items() if value is not None}
    return validated(Setting, given | chosen, str(path or "setting"))


def studies_of(setting: Setting) -> tuple[Study, ...]:
    """Every declared study, with the rows for which the setting has the tutors and its student the keys.

    `tune` tries the setting's candidates; `beyond/tuned` exists once some were chosen.
    """
    chosen = [_tuned(setting)] if setting.chosen else []
    declared = (_tune(setting), *DECLARED, *chosen, *setting.studies)
    kind = setting.run.get("student", {}).get("kind", USUAL_STUDENT["corrected"])
    keys = section_of(str(kind), STUDENTS, "student").model_fields
    has = {*(f"the tutor {name}" for name in setting.tutors), *(f"student.{key}" for key in keys)}
    return tuple(study.within(has) for study in declared)


def choose(names: Sequence[str], setting: Setting, recipe: Recipe | None = None) -> list[Study]:
    """Studies by name, or by the part before the slash, in the order given; `all` means every one except `tune`. Raises
    InputError: no study has such a name. With `recipe`, without the other recipe's rows.
    """
    declared = studies_of(setting)
    chosen: dict[str, Study] = {}
    for name in names:
        found = [
            study
            for study in declared
            if study.name == name or study.name.startswith(f"{name}/") or (name == "all" and study.name != "tune")
        ]
        if not found:
            raise InputError(f"no study {name!r}; possible: all, {', '.join(study.name for study in declared)}")
        chosen |= {study.name: study for study in found}
    if recipe is None:
        return list(chosen.values())
    return [study.model_copy(update={"recipes": tuple({recipe} & {*study.recipes})}) for study in chosen.values()]


def only(labels: Sequence[str], studies: Sequence[Study]) -> list[Study]:
    """Studies without the rows that are called otherwise. Raises InputError: no row is called so."""
    known = list(dict.fromkeys(row.label for study in studies for row in study.rows))
    unknown = [label for label in labels if label not in known]
    if unknown:
        raise InputError(f"no row is called {unknown[0]!r}; possible: {', '.join(map(repr, known))}")
    return [
        study.model_copy(update={"rows": tuple(row for row in study.rows if row.label in labels)}) for study in studies
    ]


def _tune(setting: Setting) -> Study:
    """The setting's candidates in all arms and both recipes, validated on held-out training images."""
    held_out = {"data": {"held_out": setting.held_out}}
    everywhere = {AS_SET: {}, **setting.candidates}
    tried = dict.fromkeys(ARMS, everywhere) | {"tutors alone": {**everywhere, **setting.tutor_candidates}}
    return Study(
        name="tune",
        title="Settings tried on held-out training images",
        question=f"Which settings suit each arm? Figures are on {100 * setting.held_out:.0f} % of the training images, "
        "which these runs did not see; the evaluation split plays no part.",
        rows=tuple(
            Row(label=f"{arm}: {name}", config=merged(merged(taught, candidate), held_out))
            for arm, taught in ARMS.items()
            for name, candidate in tried[arm].items()
        ),
    )


def _tuned(setting: Setting) -> Study:
    """The arms, each with what `tune` found best for it, on all training images and the evaluation split."""
    rows = [Row(label=arm, config=merged(taught, setting.chosen.get(arm, {}))) for arm, taught in ARMS.items()]
    others = tuple(arm for arm in ARMS if arm != "tutors alone")
    return Study(
        name="beyond/tuned",
        title="Each arm with settings chosen for it",
        question="Is an arm ahead because the common settings suit it? Here each arm has the settings that were best "
        "for it on held-out training images.",
        recipes=("corrected",),
        rows=tuple(row.model_copy(update={"against": others}) if row.label not in others else row for row in rows),
    )


@dataclass(frozen=True, slots=True)
class Run:
    """One training. Rows of several studies may share it.

    Attributes:
        label: row, recipe and seed in words.
        rows: the keys (`Study.key`) of all rows that it serves; `recipe` and `row` are those of the first.
    """

    config: Config
    setting: Setting
    recipe: Recipe
    row: Row
    seed: int
    rows: tuple[str, ...]

    @property
    def run_id(self) -> str:
        return self.config.run_id

    @property
    def split(self) -> str:
        """The name of the training split."""
        return str(getattr(self.setting, self.row.split))

    @property
    def label(self) -> str:
        return f"{self.row.label} ({self.recipe}, seed {self.seed})"


def config_of(row: Row, recipe: Recipe, setting: Setting, seed: int) -> Config:
    """The complete config of one run.

    The recipe's defaults are overridden by the setting's keys, then its keys for this recipe, the row's, and the seed.
    Raises InputError: the setting lacks a tutor that the row needs, or a key or value is not possible.
    """
    data = {"train": setting.data, "split": getattr(setting, row.split), "val_split": setting.evaluation}
    given = merged({"recipe": recipe, "data": data, "tasks": {name: {} for name in DEFAULT_TASKS}}, setting.run)
    given = merged(given, setting.recipes.get(recipe, {}))
    if row.split == "large" and setting.large_hidden:
        given = merged(given, {"tasks": {"segmentation": {"hidden": setting.large_hidden}}})
    given = merged(merged(given, row.changes(recipe)), {"train": {"seed": seed}})
    given["tasks"] = {name: task for name, task in given["tasks"].items() if task is not None}
    for name, task in given["tasks"].items():
        if not isinstance(task, dict):
            continue  # refused below
        kind = section_of(str(task.get("kind", name)), TASKS, "kind of task")
        of_data = issubclass(kind, ClassSection) and "labels" not in task
        store = {"store": setting.store(task["store"], row.split)} if "store" in task else {}
        given["tasks"][name] = {**({"reported": setting.reported} if of_data else {}), **task, **store}
    return make_config(given, origin=f"{setting.name}, {row.label}")


def run_of(study: Study, row: Row, recipe: Recipe, setting: Setting, seed: int) -> Run:
    """The run of one row. Raises InputError as `config_of`."""
    return Run(config_of(row, recipe, setting, seed), setting, recipe, row, seed, (study.key(recipe, row),))


def plan(studies: Sequence[Study], setting: Setting, seeds: Iterable[int]) -> list[Run]:
    """Every distinct run of the studies: first all runs of the first seed, study by study, then those of the next."""
    distinct: dict[str, Run] = {}
    for seed in seeds:
        for study in studies:
            for recipe in study.recipes:
                for row in study.of(recipe):
                    run = run_of(study, row, recipe, setting, seed)
                    known = distinct.get(run.run_id)
                    distinct[run.run_id] = replace(known, rows=(*known.rows, *run.rows)) if known else run
    return list(distinct.values())
