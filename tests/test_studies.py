"""Studies: what is declared, what is trained, and that nothing is trained twice or lost."""

import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from filelock import FileLock

from made import TINY, Repeats
from tutored.cli import main
from tutored.config import THESIS, flat
from tutored.data import open_dataset
from tutored.engine.trainer import Trainer
from tutored.errors import InputError
from tutored.evaluate import Resampled
from tutored.studies import choose, gather, load_setting, plan, run_all, studies_of
from tutored.studies.ablation import ABLATION, MENDED
from tutored.studies.beyond import NO_GROUND_TRUTH, SINGLE_TASK
from tutored.studies.declare import Row, Study, filled, supervision
from tutored.studies.folder import Folder, _other, judge_tutors, load_folder, open_folder, work
from tutored.studies.outcome import NEEDED
from tutored.studies.plan import config_of
from tutored.studies.report import write_report
from tutored.studies.run import run_folder, seconds_left
from tutored.studies.thesis import FIGURE_15, FIGURE_16, TABLE_12, TABLE_13, TABLE_17
from tutored.tutors import open_tutor
from tutored.tutors.label import label

VOC = load_setting(None)
REST = dict.fromkeys(NEEDED)
"""Of a result that nobody looks at."""


class KilledError(Exception):
    pass


@pytest.fixture(scope="module")
def setting(tmp_path_factory, voc_folder):
    """A made-up data set whose tutor is an untrained student."""
    from tutored.engine import train

    folder = tmp_path_factory.mktemp("setting")
    given = {
        "name": "made-up",
        "data": f"voc:{voc_folder}",
        "small": "train",
        "large": "train",
        "large_hidden": 0.5,
        "evaluation": "val",
        "tutors": {
            name: str(folder / "store-{split}") for name in ("detection", "segmentation", "instances", "vouched")
        },
        "run": {"student": TINY, "train": {"epochs": 2, "batch": 4, "workers": 0, "device": "cpu", "threads": 1}},
        "scales": {"small": {"train": {"epochs": 1}}},
    }
    (folder / "setting.yaml").write_text(yaml.safe_dump(given))
    loaded = load_setting(folder / "setting.yaml")
    train(config_of(Row("tutor"), "corrected", loaded, 9), folder / "tutor")
    tutor = open_tutor("student", weights=folder / "tutor" / "checkpoint")
    for split in ("train", "val"):
        label(tutor, open_dataset(given["data"], split), folder / f"store-{split}")
    return folder / "setting.yaml"


MINI = Study(
    "mini",
    "Two rows",
    "Any difference?",
    {"corrected": (Row("ground truth"), Row("tutor", supervision(filled("detection", 1.0))))},
    against=(("tutor", "ground truth"),),
)


def test_every_declared_row_is_a_config_of_voc2012() -> None:
    for study in studies_of(VOC):
        labels = [(recipe, row.label) for recipe, rows in study.rows.items() for row in rows]
        assert len(set(labels)) == len(labels), study.name
        for pair in study.against:
            assert all(any(label == name for _, label in labels) for name in pair), (study.name, pair)
        runs = plan([study], VOC, [0])
        assert {run.config.data.val_split for run in runs} == {"Segmentation/val"}
        assert all(bool(run.config.data.held_out) == (study.name == "tune") for run in runs)


def test_the_documented_cost_is_that_of_the_plan() -> None:
    """Images of the splits as the thesis counts them."""
    text = (Path(__file__).parents[1] / "docs" / "studies.md").read_text()
    runs, millions = re.search(r"one seed of everything is (\d+) runs and (\d+) million", text).groups()
    planned = plan(choose(["all"], VOC), VOC, [0])
    images = {"Segmentation/train": 1464, "Main/train": 5717}
    assert int(runs) == len(planned)
    assert int(millions) == round(sum(images[run.config.data.split] * run.config.train.epochs for run in planned) / 1e6)


def test_no_training_is_declared_twice_under_two_ids() -> None:
    """A tutor in the place of a fixed share of the ground truth is one that fills where that share is hidden."""
    trainings: dict[str, str] = {}
    for run in plan(choose(["all"], VOC), VOC, [0]):
        said = run.config.to_dict()
        for task in said["supervision"].values():
            if isinstance(task, dict) and task["policy"] == "replace" and not task["resampled"]:
                task |= {"policy": "fill", "hidden": task["share"], "share": 1.0}
        assert trainings.setdefault(json.dumps(said, sort_keys=True), run.run_id) == run.run_id, run.label
    assert len(trainings) > 100


def test_the_thesis_rows_are_what_the_specification_says() -> None:
    _, masks, boxes = (config_of(row, "thesis", VOC, 0) for row in TABLE_12.rows["thesis"])
    assert masks.supervision.segmentation.policy == "replace" and masks.supervision.segmentation.share == 1
    assert str(masks.supervision.segmentation.store) == "stores/segmentation-Segmentation-train"
    assert (masks.loss.map_target, masks.loss.temperature) == ("softmax", 0.4)
    assert (boxes.loss.box_floor, boxes.loss.confidence) == (0.001, True)
    unfiltered, _, unweighed, _ = (config_of(row, "thesis", VOC, 0) for row in TABLE_13.rows["thesis"])
    assert (unfiltered.loss.box_floor, unfiltered.loss.ignore_floor, unfiltered.loss.confidence) == (0, 0, True)
    assert (unweighed.loss.box_floor, unweighed.loss.confidence) == (0.001, False)
    fifth = config_of(FIGURE_15.rows["thesis"][1], "thesis", VOC, 0).supervision.segmentation
    assert (fifth.share, fifth.resampled) == (0.2, True)
    fifth = config_of(FIGURE_16.rows["corrected"][1], "corrected", VOC, 0).supervision.detection
    assert (fifth.policy, fifth.hidden, fifth.resampled) == ("fill", 0.2, False)
    large = config_of(TABLE_17.rows["thesis"][1], "thesis", VOC, 0)
    assert large.data.split == "Main/train" and large.supervision.segmentation.policy == "fill"


def test_the_ablation_has_every_difference_between_the_recipes_where_it_matters() -> None:
    rows = {row.label: config_of(row, "corrected", VOC, 0).to_dict() for row in ABLATION.rows["corrected"]}
    base = rows["corrected recipe, tutors alone"]
    thesis = config_of(ABLATION.rows["corrected"][0], "thesis", VOC, 0).to_dict()
    held_against = dict(ABLATION.against)
    seen = set()
    for name, changed in rows.items():
        if name in held_against and "weigh" not in name and "half" not in name:
            before = rows[held_against[name]]
            keys = {
                (section, key)
                for section in THESIS
                for key in before[section]
                if changed[section][key] != before[section][key]
            }
            assert keys and changed["supervision"] == before["supervision"]
            seen |= {(section, key) for section, key in keys if changed[section][key] == thesis[section][key]}
    different = {
        (section, key) for section in THESIS for key in base[section] if base[section][key] != thesis[section][key]
    }
    assert seen == different - {("train", "lr"), ("train", "backbone_lr"), ("train", "precision")}
    for key, policy in (("difficult", "ground_truth"), ("joint", "both")):
        name = next(name for name in rows if name.startswith(f"loss.{key}:"))
        assert rows[name]["supervision"]["detection"]["policy"] == policy
    instances = next(row for name, row in rows.items() if name.startswith("loss.background:"))
    assert "instances" in instances["supervision"]["segmentation"]["store"]
    padded = next(row for name, row in rows.items() if name.startswith("loss.padding:"))
    assert padded["augment"]["zoom_out"] == "image"


def test_what_is_mended_of_the_thesis_is_as_the_corrected_recipe_has_it() -> None:
    rows = {row.label: config_of(row, "thesis", VOC, 0) for row in MENDED.rows["thesis"]}
    hurt, ours = rows["detection tutor"], config_of(MENDED.rows["thesis"][0], "corrected", VOC, 0)
    assert hurt.run_id == config_of(TABLE_12.rows["thesis"][2], "thesis", VOC, 0).run_id, "the table's own run"
    changed = {}
    for name, row in rows.items():
        before, after, corrected = (flat(config.to_dict()) for config in (hurt, row, ours))
        changed[name] = {key for key in after if after[key] != before.get(key)}
        if name not in ("ground truth", "detection tutor", "detection tutor, boxes from .1 on"):
            assert changed[name] and all(after[key] == corrected[key] for key in changed[name])
    assert changed["detection tutor, no weak boxes, divided by weights"] == (
        changed["detection tutor, no weak boxes"] | changed["detection tutor, divided by weights"]
    )


def test_a_shared_run_is_planned_once_and_seeds_come_one_after_another() -> None:
    # Tables 12 and 13 share ground truth and detection tutor: 3 + 4 - 2 rows in each of two recipes.
    runs = plan([TABLE_12, TABLE_13], VOC, [0, 1])
    assert len(runs) == 2 * 2 * 5 and len({run.run_id for run in runs}) == len(runs)
    assert [run.seed for run in runs] == [0] * 10 + [1] * 10


def test_run_ids_depend_on_every_key_and_on_nothing_else() -> None:
    row = TABLE_12.rows["thesis"][1]
    run_id = config_of(row, "thesis", VOC, 0).run_id
    assert run_id == config_of(row, "thesis", load_setting(None), 0).run_id
    others = [
        config_of(row, "corrected", VOC, 0),
        config_of(row, "thesis", VOC, 1),
        config_of(row, "thesis", VOC.scaled("small"), 0),
        config_of(row, "thesis", load_setting(None, data="voc:elsewhere"), 0),
    ]
    assert len({run_id, *(other.run_id for other in others)}) == 5


def test_a_scale_wins_over_what_a_setting_gives_a_recipe(setting) -> None:
    """Its keys are for a first look, whatever the recipe's own are; other keys of the recipe stay."""
    own = {"thesis": {"train": {"epochs": 100, "batch": 6}}}
    made = load_setting(setting, recipes=own, scales={"small": {"train": {"epochs": 1}}}).scaled("small")
    train = {recipe: config_of(TABLE_12.rows[recipe][0], recipe, made, 0).train for recipe in ("thesis", "corrected")}
    assert (train["thesis"].epochs, train["thesis"].batch, train["corrected"].epochs) == (1, 6, 1)


def test_hidden_masks_of_the_large_split_add_to_what_a_row_says(setting) -> None:
    made = load_setting(setting)
    fill = config_of(TABLE_17.rows["corrected"][1], "corrected", made, 0).supervision.segmentation
    assert (fill.policy, fill.hidden) == ("fill", 0.5)
    assert config_of(TABLE_12.rows["corrected"][0], "corrected", made, 0).supervision.segmentation.hidden == 0


def test_stopped_after_each_step_a_study_ends_with_the_same_report(setting, tmp_path, monkeypatch) -> None:
    made = load_setting(setting)
    runs = plan([MINI], made, [0])
    run_all(runs, tmp_path / "straight")
    step = Trainer.step

    def stopped(trainer, batch):
        taken = step(trainer, batch)
        signal.raise_signal(signal.SIGTERM)
        return taken

    monkeypatch.setattr(Trainer, "step", stopped)
    stops = 0
    while True:
        try:
            run_all(runs, tmp_path / "stopped")
            break
        except KeyboardInterrupt:
            stops += 1
    assert stops == 2 * 4  # two runs of two epochs with two steps each
    reports = []
    for name in ("straight", "stopped"):
        for path in (tmp_path / name).glob("runs/*/result.json"):
            path.write_text(json.dumps(json.loads(path.read_text()) | {"seconds": 1.0}))
        outcomes = [gather(MINI, made, [0], tmp_path / name)]
        paths = write_report(outcomes, made, tmp_path / f"{name} report", seeds=[0], command=str)
        reports.append([path.read_bytes() for path in paths])
    assert reports[0] == reports[1] and b"2 of 2 finished" in reports[0][1]


def test_killed_at_the_end_of_every_epoch_a_study_ends_with_the_same_results(setting, tmp_path) -> None:
    made = load_setting(setting)
    runs = plan([MINI], made, [0, 1])
    run_all(runs, tmp_path / "straight")
    stops = 0
    while True:

        def stop(standing, at=2 * (stops % 2 + 1)):
            if standing.report.step == at:
                raise KilledError

        try:
            run_all(runs, tmp_path / "stopped", watch=stop)
            break
        except KilledError:
            stops += 1
    assert stops >= len(runs)  # each run was stopped at least once
    whole, resumed = (gather(MINI, made, [0, 1], tmp_path / name) for name in ("straight", "stopped"))
    assert not whole.missing and not resumed.missing
    assert [row.values("mAP") for row in whole.rows] == [row.values("mAP") for row in resumed.rows]
    assert [row.values("mIoU") for row in whole.rows] == [row.values("mIoU") for row in resumed.rows]
    assert whole.comparisons == resumed.comparisons
    run = tmp_path / "stopped" / "runs" / runs[0].run_id
    assert {path.name for path in run.iterdir()} == {
        "answers", "checkpoint", "config.yaml", "log.jsonl", "page", "report.html", "resamples.npz", "result.json",
    }  # fmt: skip
    assert len(json.loads((run / "answers" / "boxes.json").read_text())) == 4


def test_stopped_after_the_last_step_a_run_still_gets_its_answers(setting, tmp_path, monkeypatch) -> None:
    runs = plan([MINI], load_setting(setting).scaled("small"), [0])[:1]
    with monkeypatch.context() as patched:
        patched.setattr("tutored.studies.run.keep_answers", lambda *_: (_ for _ in ()).throw(KilledError))
        with pytest.raises(KilledError):
            run_all(runs, tmp_path)
    run = tmp_path / "runs" / runs[0].run_id
    before = json.loads((run / "result.json").read_text())
    assert run_all(runs, tmp_path) == 1
    assert (run / "answers" / "boxes.json").exists() and not (run / "state").exists()
    assert json.loads((run / "result.json").read_text()) == before


def test_what_another_process_trains_is_left_to_it(setting, tmp_path) -> None:
    runs = plan([MINI], load_setting(setting).scaled("small"), [0])
    (tmp_path / "locks").mkdir()
    with FileLock(tmp_path / "locks" / runs[0].run_id):
        assert run_all(runs, tmp_path) == 1
    assert not (tmp_path / "runs" / runs[0].run_id).exists()
    before = (tmp_path / "runs" / runs[1].run_id / "result.json").stat().st_mtime_ns
    assert run_all(runs, tmp_path) == 2
    assert (tmp_path / "runs" / runs[1].run_id / "result.json").stat().st_mtime_ns == before


def test_a_budget_of_no_time_begins_nothing(setting, tmp_path) -> None:
    assert run_all(plan([MINI], load_setting(setting), [0]), tmp_path, hours=0) == 0
    assert not (tmp_path / "runs").exists()


def test_a_run_that_is_all_but_finished_fits_into_a_short_budget(setting, tmp_path, monkeypatch) -> None:
    runs = plan([MINI], load_setting(setting), [0])
    for run in runs:
        where = run_folder(tmp_path, run)
        (where / "page").mkdir(parents=True)
        (where / "config.yaml").write_text(yaml.safe_dump(run.config.to_dict()))
        (where / "page" / "facts.json").write_text(json.dumps({"epoch_steps": 50}))
        (where / "log.jsonl").write_text(json.dumps({"step": 99, "loss": {}}) + "\n")
    (run_folder(tmp_path, runs[0]) / "result.json").write_text(
        json.dumps({"config": runs[0].config.to_dict(), "seconds": 7200.0})
    )
    begun: list[str] = []
    monkeypatch.setattr("tutored.studies.run.train_one", lambda run, *_: begun.append(run.label))
    run_all(runs, tmp_path, hours=1.5)
    assert begun == []  # nothing was saved: all of its two hours are before it
    (run_folder(tmp_path, runs[1]) / "state").mkdir()
    run_all(runs, tmp_path, hours=1.5)
    assert begun == [runs[1].label]
    assert seconds_left(runs, tmp_path) == {runs[1].run_id: pytest.approx(7200 / 100)}  # one of 2 x 50 steps


def test_what_a_kill_left_of_a_finished_runs_state_is_removed(setting, tmp_path) -> None:
    runs = plan([MINI], load_setting(setting), [0])[:1]
    spent = run_folder(tmp_path, runs[0]) / "spent"
    spent.mkdir(parents=True)
    (spent / "state.safetensors").write_bytes(b"large")
    (spent.parent / "result.json").write_text("{}")
    assert run_all(runs, tmp_path) == 1 and not spent.exists()


@pytest.mark.parametrize("jobs", [1, 2])
def test_the_time_left_is_that_of_all_who_train_here(setting, tmp_path, jobs) -> None:
    runs = plan([MINI], load_setting(setting), [0, 1])
    done = run_folder(tmp_path, runs[0])
    done.mkdir(parents=True)
    (done / "result.json").write_text(json.dumps({"config": runs[0].config.to_dict(), "seconds": 2000.0}))
    seen = []

    def stop(standing):
        seen.append(standing)
        raise KilledError

    with pytest.raises(KilledError):
        run_all(runs, tmp_path, jobs=jobs, watch=stop)
    assert (seen[0].done, seen[0].total) == (1, 4)
    assert seen[0].seconds_left == pytest.approx(3 * 2000 / jobs, abs=60)


def test_a_run_that_diverges_is_noted_and_the_study_goes_on(setting, tmp_path) -> None:
    made = load_setting(setting, recipes={"corrected": {"train": {"lr": 1e30, "clip": None, "warmup": 0.0}}})
    runs = plan([MINI], made, [0])
    assert run_all(runs, tmp_path) == 2
    outcome = gather(MINI, made, [0], tmp_path)
    assert not outcome.missing
    assert "the loss is not finite" in (outcome.rows[0].runs[0].failure or "")
    assert outcome.rows[0].mean("mAP") is None


def test_the_commands(setting, tmp_path, capsys) -> None:
    common = ["--setting", str(setting), "--scale", "small"]
    assert main(["study", "list", *common]) == 0
    assert "thesis/table-12" in capsys.readouterr().out
    out = tmp_path / "study"
    command = ["study", "run", "beyond/single-task", *common, "--seeds", "1", "--out", str(out)]
    assert main([*command, "--hours", "0"]) == 0
    told = capsys.readouterr().out
    assert "0 of 4 runs are done\nthe other 4 did not fit into --hours 0, or went to another process; " in told
    assert main([*command, "--jobs", "2"]) == 0
    assert "4 of 4 runs are done" in capsys.readouterr().out
    folder = load_folder(out)
    assert folder.names == ("beyond/single-task",) and folder.seeds == (0,)
    (out / "tutors" / "another.json").write_text("{}")
    assert set(folder.tutors()) == {"detection", "segmentation", "instances", "vouched"}
    (lost, *_) = (out / "runs").iterdir()
    (lost / "failed.txt").write_text("the loss is not finite")
    assert main(command) == 0
    assert "4 of 4 runs are done, 1 of them failed" in capsys.readouterr().out
    (lost / "failed.txt").unlink()
    (outcome,) = folder.outcomes(folder.names)
    joint = [each for each in outcome.comparisons if each.better == "joint, ground truth"]
    assert set(joint[0].intervals) <= {"mAP", "mIoU", "Δm"} and joint[0].seeds == (0,)
    assert main(["study", "report", str(out)]) == 0
    assert "One network against two" in (out / "report.md").read_text()
    first = (out / "report.html").read_bytes()
    assert main(["study", "report", str(out)]) == 0
    assert (out / "report.html").read_bytes() == first


@pytest.fixture
def single(setting, tmp_path):
    """A setting and a study folder where three rows of `SINGLE_TASK` are finished; all ten resamples are alike."""
    made = load_setting(setting)
    values = {"joint, ground truth": (0.6, 0.45), "boxes alone": (0.5, np.nan), "maps alone": (np.nan, 0.5)}
    for row in SINGLE_TASK.rows["corrected"]:
        if row.label in values:
            config = config_of(row, "corrected", made, 0)
            run = tmp_path / "runs" / config.run_id
            run.mkdir(parents=True)
            (run / "result.json").write_text(json.dumps({**REST, "figures": {}, "config": config.to_dict()}))
            Resampled(np.tile(values[row.label], (11, 1)), "same").save(run / "resamples.npz")
    return made, tmp_path


def test_delta_m_is_the_mean_relative_difference(single) -> None:
    (joint,) = gather(SINGLE_TASK, single[0], [0], single[1]).comparisons
    assert joint.intervals["mAP"].difference == pytest.approx(0.1, abs=1e-6)
    assert joint.intervals["mIoU"].difference == pytest.approx(-0.05, abs=1e-6)
    assert joint.intervals["Δm"].difference == pytest.approx((0.1 / 0.5 - 0.05 / 0.5) / 2, abs=1e-6)


@pytest.mark.filterwarnings("error")
def test_there_is_no_delta_m_where_a_resample_of_the_two_is_nothing(single) -> None:
    made, folder = single
    boxes = config_of(SINGLE_TASK.rows["corrected"][2], "corrected", made, 0)
    kept = folder / "runs" / boxes.run_id / "resamples.npz"
    values = Resampled.load(kept).values
    values[3, 0] = 0
    Resampled(values, "same").save(kept)
    (joint,) = gather(SINGLE_TASK, made, [0], folder).comparisons
    assert set(joint.intervals) == {"mAP", "mIoU"}
    assert joint.intervals["mAP"].high == pytest.approx(0.1 + 0.5 * 0.775, abs=1e-6)  # .6 - 0, of ten: interpolated


def test_a_recipe_without_the_two_networks_has_nothing_held_against_them(single) -> None:
    joint = SINGLE_TASK.rows["corrected"][:1]
    own = replace(SINGLE_TASK, rows={"thesis": joint, **SINGLE_TASK.rows})
    assert [each.recipe for each in gather(own, single[0], [0], single[1]).comparisons] == ["corrected"]
    message = "study beyond/single-task: `single_task` names 'maps only', of no row; possible: 'joint, ground truth', '"
    with pytest.raises(InputError, match=message):
        replace(own, single_task=("boxes alone", "maps only"))
    with pytest.raises(InputError, match="`against` names 'boxes only', of no row; possible: 'joint, ground truth', '"):
        replace(own, against=(("joint, ground truth", "boxes only"),))


def test_a_row_asks_tutors_whatever_else_it_changes_of_supervision() -> None:
    changes = {"supervision": {"seed": 1, "detection": {"policy": "fill", "store": "boxes"}}}
    assert Row("other hidden images", changes).tutors == {"boxes"}


def test_a_result_of_another_config_is_refused(setting, tmp_path) -> None:
    made = load_setting(setting)
    config = config_of(MINI.rows["corrected"][0], "corrected", made, 0)
    run = tmp_path / "runs" / config.run_id
    run.mkdir(parents=True)
    former = config.to_dict()
    former["loss"]["negatives"] = 2.0
    (run / "result.json").write_text(json.dumps({**REST, "figures": {}, "config": former}))
    with pytest.raises(InputError, match="made with another config than ground truth"):
        gather(MINI, made, [0], tmp_path)
    (run / "result.json").write_text("{")
    with pytest.raises(InputError, match="no result of a run"):
        gather(MINI, made, [0], tmp_path)


def test_each_arm_is_trained_with_what_was_chosen_for_it() -> None:
    chosen = {"tutors alone": {"loss": {"segmentation_weight": 3.0}}}
    (study,) = choose(["beyond/tuned"], VOC.model_copy(update={"chosen": chosen}))
    truth, fifth, alone = plan([study], VOC, [0])
    assert [run.config.loss.segmentation_weight for run in (truth, fifth, alone)] == [1, 1, 3]
    assert truth.run_id == plan(choose(["beyond/no-ground-truth"], VOC, "corrected"), VOC, [0])[0].run_id
    assert alone.config.supervision.detection.hidden == 1 and not alone.config.data.held_out
    with pytest.raises(InputError, match="`chosen` names tutor; possible: ground truth, a fifth of the"):
        studies_of(VOC.model_copy(update={"chosen": {"tutor": {}}}))
    with pytest.raises(InputError, match="no study 'beyond/tuned'"):
        choose(["beyond/tuned"], VOC)


def test_a_folder_adds_studies_and_seeds(setting, tmp_path) -> None:
    made = load_setting(setting)
    open_folder(tmp_path / "s", made, ["thesis/table-12"], 1)
    folder = open_folder(tmp_path / "s", made, ["beyond"], 3)
    assert folder.names == ("thesis/table-12", "beyond") and folder.seeds == (0, 1, 2)
    # Table 12 has three rows in each recipe; fewer seeds may be trained than the folder has.
    assert [len(folder.runs(["thesis/table-12"], *only)) for only in ((), ("thesis",), ("thesis", 1))] == [18, 9, 3]
    assert len(choose(folder.names, made)) == 1 + len([s for s in studies_of(made) if s.name.startswith("beyond/")])


def test_a_folder_with_runs_is_not_given_another_setting(setting, tmp_path) -> None:
    made, out = load_setting(setting), tmp_path / "a study"
    open_folder(out, made, ["tune"], 1)
    open_folder(out, made.scaled("small"), ["tune"], 1)  # nothing has been trained yet
    (out / "runs").mkdir()
    with pytest.raises(InputError, match=r"train.epochs is 1 there, 2 is asked for\); .* --setting '.*a study/setting"):
        open_folder(out, made, ["tune"], 1)
    more = {"tutors": {**made.tutors, "third": "store"}, "chosen": {"tutors alone": {}}}
    assert open_folder(out, made.scaled("small").model_copy(update=more), ["tune"], 1).setting.chosen
    with pytest.raises(InputError, match="tutors.third is 'store' there, None is asked for"):
        open_folder(out, made.scaled("small"), ["tune"], 1)


def test_a_setting_in_other_words_stays_as_it_is_and_paths_are_quoted(setting, tmp_path) -> None:
    out = tmp_path / "a study"
    open_folder(out, load_setting(setting), ["tune"], 1)
    text = f"# mine\n{setting.read_text()}"
    (out / "setting.yaml").write_text(text)
    folder = open_folder(out, load_setting(out / "setting.yaml"), ["tune"], 2)
    assert (out / "setting.yaml").read_text() == text
    assert shlex.split(folder.command("tune"))[4:] == [
        "--setting",
        f"{out}/setting.yaml",
        "--seeds",
        "2",
        "--out",
        str(out),
    ]


def test_processes_that_begin_at_once_lose_no_study(setting, tmp_path) -> None:
    made, names = load_setting(setting), ["tune", "thesis", "beyond/single-task", "beyond/ablation"]
    for attempt in range(5):
        with ThreadPool(len(names)) as pool:
            pool.map(lambda name, out=tmp_path / str(attempt): open_folder(out, made, [name], 1), names)
        assert set(load_folder(tmp_path / str(attempt)).names) == set(names)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["study", "run", "thesis/table-99", "--out", "OUT"],
            "no study 'thesis/table-99'; possible: all, tune, thesis/",
        ),
        (["study", "run", "all", "--scale", "tiny", "--out", "OUT"], "has no scale 'tiny'; possible: small"),
        (["study", "run", "all", "--setting", "NO.yaml", "--out", "OUT"], "NO.yaml: can't be read"),
        (["study", "report", "OUT"], "no study folder"),
    ],
)
def test_mistakes_are_told(words, message, tmp_path, capsys) -> None:
    assert main([word.replace("OUT", str(tmp_path / "out")) for word in words]) == 2
    assert message in capsys.readouterr().err


def test_rows_whose_tutor_the_setting_lacks_are_left_out_and_said_so(setting, tmp_path, capsys) -> None:
    poor = load_setting(setting, tutors=dict.fromkeys(("detection", "segmentation"), "store-{split}"))
    study = {each.name: each for each in studies_of(poor)}["beyond/vouched"]
    assert [row.label for row in study.rows["corrected"]] == ["ground truth", "tutors alone", "ground truth and tutors"]
    assert study.lacks == ("vouched",) and gather(study, poor, [0], tmp_path).comparisons == ()
    (tmp_path / "poor.yaml").write_text(yaml.safe_dump(poor.model_dump(mode="json")))
    assert main(["study", "list", "--setting", str(tmp_path / "poor.yaml")]) == 0
    assert "Boxes that maps vouch for (without the rows that need a tutor vouched)" in capsys.readouterr().out
    write_report([gather(study, poor, [0], tmp_path)], poor, tmp_path, seeds=[0], command=str)
    for name in ("report.md", "report.html"):
        assert "Rows that need the tutor vouched are left out" in (tmp_path / name).read_text()


def test_an_unknown_tutor_and_a_broken_setting_are_told(tmp_path) -> None:
    poor = load_setting(None, tutors={"detection": "stores/d-{split}"})
    with pytest.raises(InputError, match="has no tutor 'segmentation', it has detection"):
        plan([NO_GROUND_TRUTH], poor, [0])
    (tmp_path / "setting.yaml").write_text("name: x\nsmal: train\n")
    with pytest.raises(InputError, match="smal: Extra inputs"):
        load_setting(tmp_path / "setting.yaml")
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"run": {"recipe": "corrected"}}, "leave `recipe` out: a study says which of its rows are in which"),
        ({"run": {"data": {"val": "voc:other"}}}, "leave `data.val` out: the setting's `data` says it"),
        (
            {"scales": {"x": {"data": {"val_split": "y"}}}},
            "leave `data.val_split` out: the setting's `evaluation` says it",
        ),
        ({"run": {"train": 5}}, "`train` is 5; a section is a mapping of its keys"),
        ({"candidates": {"fast": {"train": 7}}}, "`train` is 7; a section is a mapping of its keys"),
        ({"run": {"supervision": {"detection": {"store": ["a", "b"]}}}}, "give the name of one tutor"),
        ({"candidates": {"as set": {"loss": {"temperature": 2}}}}, "two candidates of `tune` are called 'as set'"),
        ({"candidates": {"T": {}}, "tutor_candidates": {"T": {}}}, "two candidates of `tune` are called 'T'"),
        ({"tutors": {"../../y": "stores/x"}}, "tutors.../../y"),
    ],
)
def test_a_setting_says_nothing_that_would_be_lost_or_make_figures_of_other_images(given, message) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        load_setting(None, **given)


def test_a_tutor_that_no_run_asks_does_not_stop_them(setting, tmp_path) -> None:
    """Its answers for other images are nothing to be judged by."""
    given = load_setting(setting)
    label(Repeats(open_dataset(given.data, "val")), open_dataset(given.data, "train"), tmp_path / "store-val")
    made = given.model_copy(update={"tutors": given.tutors | {"vouched": str(tmp_path / "store-{split}")}})
    folder = open_folder(tmp_path / "study", made, ["thesis/figure-16"], 1)
    told: list[str] = []
    assert work(folder, ["thesis/figure-16"], recipe="corrected", hours=0, tell=told.append)[0] == 0
    assert len(told) == 1 and "figures of the tutor vouched itself" in told[0] and "no answer for val_000" in told[0]


def test_a_folder_keeps_the_studies_and_the_setting_it_was_asked_for(setting, tmp_path) -> None:
    given = load_setting(setting)
    chosen = given.model_copy(update={"chosen": {"tutors alone": {"loss": {"temperature": 2.0}}}})
    open_folder(tmp_path / "tuned", chosen, ["beyond/tuned"], 1)
    with pytest.raises(InputError, match="was asked for a study that this setting does not make .*'beyond/tuned'"):
        open_folder(tmp_path / "tuned", given, ["tune"], 1)
    with pytest.raises(InputError, match="1001 seeds are not possible; give 1 to 1000"):
        open_folder(tmp_path / "seeds", given, ["tune"], 1001)
    first = open_folder(tmp_path / "two", given, ["thesis/figure-16"], 1)
    open_folder(tmp_path / "two", given.scaled("small"), ["thesis/figure-16"], 1)  # nothing is trained there yet
    with pytest.raises(InputError, match=r"given another setting meanwhile \(run.train.epochs is 2 there, 1 is asked"):
        work(first, ["thesis/figure-16"], hours=0)


def test_stores_that_are_not_there_are_told_before_the_first_run(setting, tmp_path, capsys) -> None:
    given = yaml.safe_load(setting.read_text())
    given["tutors"] |= {"segmentation": str(tmp_path / "gone-{split}"), "instances": str(tmp_path / "none-{split}")}
    (tmp_path / "setting.yaml").write_text(yaml.safe_dump(given))
    words = ["--setting", str(tmp_path / "setting.yaml"), "--seeds", "1", "--out", str(tmp_path / "study")]
    assert main(["study", "run", "thesis/table-12", "--recipe", "corrected", *words]) == 2
    assert f"these runs ask stores that are not there: {tmp_path}/gone-train; " in capsys.readouterr().err
    assert not (tmp_path / "study" / "runs").exists()
    (tmp_path / "gone-train").symlink_to(setting.parent / "store-train")
    told: list[str] = []
    folder = open_folder(tmp_path / "study", load_setting(tmp_path / "setting.yaml"), ["thesis/table-12"], 1)
    assert work(folder, ["thesis/table-12"], recipe="corrected", hours=0, tell=told.append)[0] == 0
    assert [note.split()[8] for note in told] == ["instances", "segmentation"]


def test_processes_that_train_have_readers_of_their_own(setting, tmp_path) -> None:
    """A process that may have no children could not read images in others, as runs do by default."""
    given = yaml.safe_load(setting.read_text())
    given["run"]["train"] |= {"workers": 1, "epochs": 1}
    (tmp_path / "setting.yaml").write_text(yaml.safe_dump(given))
    folder = open_folder(tmp_path / "study", load_setting(tmp_path / "setting.yaml"), ["thesis/table-17"], 1)
    assert work(folder, ["thesis/table-17"], recipe="corrected", jobs=2) == (2, 0, 2)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError("runs/1: can't be written"), "tutored: runs/1: can't be written"),
        (RuntimeError("odd"), "tutored: RuntimeError: odd (a defect; TUTORED_DEBUG=1 shows where)"),
    ],
)
def test_a_process_of_jobs_ends_with_one_message(error, message, tmp_path, monkeypatch) -> None:
    def fails(*_, **__):
        raise error

    monkeypatch.setattr("tutored.studies.folder.run_all", fails)
    monkeypatch.setattr("tutored.studies.folder._end_with_parent", lambda: None)
    with pytest.raises(SystemExit, match=f"^{re.escape(message)}$"):
        _other([], tmp_path, None, torch.get_num_threads())


def test_a_tutor_that_answered_anew_is_judged_anew(setting, tmp_path, voc_folder) -> None:
    given = load_setting(setting)
    stores = {"detection": str(tmp_path / "store-{split}")}
    folder = Folder(tmp_path / "study", given.model_copy(update={"tutors": stores}), (), (0,))
    dataset = open_dataset(given.data, "val")
    seen = []
    for change in (lambda answer, _: answer, lambda answer, _: replace(answer, boxes_xyxy=answer.boxes_xyxy / 2)):
        shutil.rmtree(tmp_path / "store-val", ignore_errors=True)
        label(Repeats(dataset, change), dataset, tmp_path / "store-val")
        for _ in range(2):
            judge_tutors(folder)
        seen.append(folder.tutors()["detection"]["mAP_voc_area@.5"])
    assert seen[0] == 1 and seen[1] != 1


def test_a_killed_study_leaves_no_process_behind(setting, tmp_path) -> None:
    out = tmp_path / "study"
    words = ["study", "run", "beyond/single-task", "--setting", str(setting), "--jobs", "2", "--out", str(out)]
    with subprocess.Popen([sys.executable, "-m", "tutored", *words], stderr=subprocess.DEVNULL) as process:
        while len(list(out.glob("runs/*/config.yaml"))) < 2:  # both are at work
            assert process.poll() is None
            time.sleep(0.1)
        process.kill()
    for lock in (out / "locks").iterdir():
        FileLock(lock, timeout=30).acquire()  # given up by whoever held it
