"""Studies: what is declared, what is trained, and that nothing is trained twice or lost."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from filelock import FileLock

from made import PARTS, TINY, Repeats, refused, with_parts
from tutored.cli import main
from tutored.config import flat
from tutored.data import open_dataset
from tutored.errors import InputError
from tutored.studies.folder import judge_tutors, load_folder, open_folder, run_all, unfinished, work
from tutored.studies.report import write_report
from tutored.studies.results import FILE, Record, add_record, gather, read_records, rows_of, show
from tutored.studies.setting import Row, Study, choose, config_of, load_setting, plan, studies_of
from tutored.tutors import open_tutor
from tutored.tutors.label import label
from tutored.types import SoftLabels

VOC = load_setting(None)
DECLARED = {study.name: study for study in studies_of(VOC)}
SINGLE_TASK = DECLARED["beyond/single-task"]
FILLED = {"tasks": {"detection": {"policy": "fill", "store": "detection", "hidden": 1.0}}}
ROWS = (Row(label="ground truth"), Row(label="tutor", config=FILLED, against=("ground truth",)))
MINI = Study(name="mini", title="Two rows", question="Any difference?", recipes=("corrected",), rows=ROWS)


@pytest.fixture(scope="module")
def setting(tmp_path_factory, voc_folder):
    """A made-up data set whose tutor is an untrained student."""
    from tutored.engine import train

    folder = tmp_path_factory.mktemp("setting")
    stores = dict.fromkeys(("detection", "segmentation", "instances", "vouched"), str(folder / "store-{split}"))
    splits = {"small": "train", "large": "train", "evaluation": "val", "also": ["train"], "large_hidden": 0.5}
    given = {"name": "made-up", "data": f"voc:{voc_folder}", "tutors": stores, **splits}
    given["scales"] = {"small": {"train": {"epochs": 1}}}
    training = {"epochs": 2, "batch": 4, "workers": 0, "device": "cpu", "threads": 1}
    given["run"] = {"student": TINY, "train": training}
    (folder / "setting.yaml").write_text(yaml.safe_dump(given))
    loaded = load_setting(folder / "setting.yaml")
    train(config_of(Row(label="tutor"), "corrected", loaded, 9), folder / "tutor")
    tutor = open_tutor("student", weights=folder / "tutor" / "checkpoint")
    for split in ("train", "val"):
        label(tutor, open_dataset(given["data"], split), folder / f"store-{split}")
    return folder / "setting.yaml"


def keys(row, recipe, setting=VOC, seed=0):
    """The complete config of a run, with dotted keys."""
    return flat(config_of(row, recipe, setting, seed).to_dict())


@pytest.mark.parametrize(
    "folder", sorted(Path(__file__).parents[1].glob("results/**/study.yaml")), ids=lambda path: path.parent.name
)
def test_committed_results_fit_todays_settings(folder):
    kept = load_folder(folder.parent)
    assert kept.runs(kept.names), "tutored study report makes their page from these rows"


def test_a_declared_row_is_a_config_and_no_training_has_two_ids():
    """A tutor that replaces a fixed share of the ground truth is one that fills where that share is hidden."""
    trainings = {}
    each = [(study, recipe, row) for study in DECLARED.values() for recipe in study.recipes for row in study.of(recipe)]
    for study, recipe, row in each:
        config = keys(row, recipe)
        assert config["data.val_split"] == "Segmentation/val"
        assert bool(config["data.held_out"]) == (study.name == "tune")
        changes = json.loads(json.dumps(row.changes(recipe)))
        for task in changes.get("tasks", {}).values():
            if task.get("policy") == "replace" and not task.pop("resampled", False):
                task |= {"policy": "fill", "hidden": task.pop("share", 1.0)}
        training = json.dumps([recipe, row.split, changes], sort_keys=True)
        run_id = config_of(row, recipe, VOC, 0).run_id
        assert trainings.setdefault(training, run_id) == run_id, row.label
    assert len(trainings) > 100


def test_the_ablation_has_every_difference_between_the_recipes():
    ours, theirs = (keys(Row(label="x"), recipe) for recipe in ("corrected", "thesis"))
    rates = {key for key in ours if key.startswith("train.") and key.endswith("lr")}
    differing = {key for key in ours if ours[key] != theirs[key]} - rates - {"recipe", "train.precision"}
    rows = DECLARED["beyond/ablation"].rows
    ablated = {row.label: keys(row, "corrected") for row in rows}
    pairs = [(ablated[row.label], ablated[than]) for row in rows for than in row.against]
    assert differing == {key for key in differing if any(a[key] == theirs[key] != b[key] for a, b in pairs)}
    mended = {row.label: keys(row, "thesis") for row in DECLARED["beyond/mended"].rows}
    hurt = mended.pop("detection tutor")
    for name in set(mended) - {"ground truth", "detection tutor, boxes from .1 on"}:
        changed = {key for key in hurt if mended[name][key] != hurt[key]}
        assert changed and all(mended[name][key] == ours[key] for key in changed), name


@pytest.mark.parametrize(
    ("row", "reported"),
    [
        ({}, {"detection": ("cat",)}),
        ({"segmentation": {}}, {"detection": ("cat",), "segmentation": ("cat",)}),
        ({"detection": None, "instances": {}}, {"instances": ("cat",)}),
        ({"parts": {"kind": "segmentation", "labels": "parts.txt"}}, {"detection": ("cat",), "parts": None}),
    ],
)
def test_a_row_may_add_tasks_and_leave_some_out(row, reported):
    """`reported` is of the data set's classes; a task with classes of its own reports them all."""
    made = load_setting(None, reported=["cat"], run={"tasks": {"segmentation": None}})
    row = Row(label="x", config={"tasks": row})
    tasks = config_of(row, "corrected", made, 0).tasks
    assert {name: task.reported for name, task in tasks.items()} == reported and not row.tutors


def test_a_shared_run_is_planned_once_seed_by_seed():
    # Tables 12 and 13 share ground truth and detection tutor: 3 + 4 - 2 rows in each of two recipes.
    runs = plan(choose(["thesis/table-12", "thesis/table-13"], VOC), VOC, [0, 1])
    assert len(runs) == 2 * 2 * 5 and len({run.run_id for run in runs}) == len(runs)
    assert [run.seed for run in runs] == [0] * 10 + [1] * 10
    assert runs[0].rows == ("thesis/table-12 | thesis | ground truth", "thesis/table-13 | thesis | ground truth")


def test_killed_at_every_epoch_a_study_ends_the_same(setting, tmp_path):
    runs = plan([MINI], load_setting(setting), [0, 1])[1:3]  # each row, each seed
    run_all(runs, tmp_path / "straight")
    stops = 0
    while True:

        def stop(standing, at=2 * (stops % 2 + 1)):
            if standing.report.step == at:
                raise RuntimeError

        try:
            run_all(runs, tmp_path / "stopped", watch=stop)
            break
        except RuntimeError:
            stops += 1
    assert stops >= len(runs)  # each run was stopped at least once
    whole, resumed = (read_records(tmp_path / name) for name in ("straight", "stopped"))
    assert len(whole) == len(resumed) == 2
    for one, other in zip(whole, resumed, strict=True):
        assert (one.rows, one.seed, one.figures, one.drawn) == (other.rows, other.seed, other.figures, other.drawn)
        assert np.array_equal(one.resamples, other.resamples, equal_nan=True)
        assert len(other.pictures) == (4 if other.seed == 0 else 0)
    assert not [*(tmp_path / "stopped" / "runs").iterdir()]


def test_a_finished_run_is_one_row_of_a_parquet_file(setting, tmp_path):
    made = load_setting(setting).scaled("small")
    (run,) = plan(choose(["beyond/single-task"], made), made, [0])[:1]
    assert run_all([run], tmp_path, keep=True) == 1
    (row,) = pq.read_table(tmp_path / FILE).to_pylist()
    assert "beyond/single-task | corrected | joint, ground truth" in row["rows"]
    assert "beyond/ablation | corrected | ground truth" in row["rows"]
    assert (row["setting"], row["seed"], row["split"], row["images"] > 0) == ("made-up", 0, "train", True)
    figures = json.loads(row["figures"])
    assert figures["detection"]["mAP_voc_area@.5"] >= 0 and figures["segmentation"]["mIoU"] >= 0
    assert [figures[name]["images"] for name in ("detection", "detection on train")] == [4, 5]
    assert row["measures"] == ["detection/mAP_voc_area@.5", "segmentation/mIoU"] and len(row["resamples"]) == 2 * 1001
    assert json.loads(row["config"]) == run.config.to_dict() and row["commit"]
    kept = tmp_path / "runs" / run.run_id
    assert (kept / "checkpoint").exists() and not (kept / "state").exists()


def test_processes_that_add_at_once_lose_no_run(tmp_path):
    records = [Record(rows=(f"x | y | {index}",), run=str(index), seed=index) for index in range(12)]
    with ThreadPool(6) as pool:
        pool.map(lambda record: add_record(tmp_path, record), records)
    assert {record.run for record in read_records(tmp_path)} == {str(index) for index in range(12)}
    add_record(tmp_path, replace(records[3], label="anew"))
    assert [record.label for record in read_records(tmp_path)].count("anew") == 1
    assert len(read_records(tmp_path)) == 12


def test_what_another_process_trains_is_left_to_it(setting, tmp_path):
    runs = plan([MINI], load_setting(setting).scaled("small"), [0])
    (tmp_path / "locks").mkdir()
    with FileLock(tmp_path / "locks" / runs[0].run_id):
        assert run_all(runs, tmp_path) == 1
    assert [record.run for record in read_records(tmp_path)] == [runs[1].run_id]
    assert run_all(runs, tmp_path) == 2


def test_budget_and_time_left_go_by_what_finished_runs_took(setting, tmp_path):
    runs = plan([MINI], load_setting(setting), [0, 1])
    assert run_all(runs, tmp_path, hours=0) == 0 and not (tmp_path / "runs").exists()
    done = Record(setting="made-up", rows=runs[0].rows, run=runs[0].run_id, seed=0, split="train", seconds=7200.0)
    add_record(tmp_path, done)
    assert unfinished(runs, tmp_path) == dict.fromkeys((run.run_id for run in runs[1:]), 7200)
    assert run_all(runs, tmp_path, hours=1.9) == 1

    def stop(standing):
        assert (standing.done, standing.total) == (1, 4)
        assert standing.seconds_left == pytest.approx(3 * 7200 / 2, abs=60)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        run_all(runs, tmp_path, jobs=2, watch=stop)


def test_a_run_that_diverges_is_noted_and_the_study_goes_on(setting, tmp_path):
    made = load_setting(setting, recipes={"corrected": {"train": {"lr": 1e30, "clip": None, "warmup": 0.0}}})
    runs = plan([MINI], made, [0])
    assert run_all(runs, tmp_path) == 2 and not read_records(tmp_path)
    outcome = gather(MINI, made, [0], tmp_path, [])
    ((run, reason),) = outcome.rows[0].failed
    assert run.label == "ground truth (corrected, seed 0)" and "the loss is not finite" in reason
    assert not outcome.missing and outcome.rows[0].mean("mAP") is None


def test_the_commands(setting, tmp_path, capsys):
    given = yaml.safe_load(setting.read_text())
    given["run"]["train"]["workers"] = 1  # processes that may have no children could not read images in others
    given["studies"] = [MINI.model_dump(mode="json")]
    (tmp_path / "setting.yaml").write_text(yaml.safe_dump(given))
    common = ["--setting", str(tmp_path / "setting.yaml"), "--scale", "small"]
    assert main(["study", "list", *common]) == 0
    assert "thesis/table-12" in capsys.readouterr().out
    out = tmp_path / "study"
    command = ["study", "run", "mini", *common, "--seeds", "1", "--out", str(out)]
    assert main([*command, "--hours", "0"]) == 0
    told = capsys.readouterr().out
    assert "0 of 2 runs are done\nthe other 2 did not fit into --hours 0, or went to another process; " in told
    assert main([*command, "--jobs", "2"]) == 0
    assert "2 of 2 runs are done" in capsys.readouterr().out
    folder = load_folder(out)
    assert folder.names == ("mini",) and folder.seeds == (0,)
    written = (out / FILE).read_bytes()
    assert main(command) == 0 and (out / FILE).read_bytes() == written  # nothing is trained twice
    assert main(["study", "report", str(out)]) == 0
    assert "## Two rows" in (out / "report.md").read_text()
    first = (out / "report.html").read_bytes()
    assert main(["study", "report", str(out)]) == 0
    assert (out / "report.html").read_bytes() == first
    capsys.readouterr()
    assert main(["study", "show", str(out), "mini", "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and lines[0].startswith("mini | corrected | ground truth: mAP 0.")
    assert json.loads(lines[1])["seed"] == 0
    assert main(["study", "show", str(out), "mini", "--against", "tutors | | detection"]) == 0
    assert ": nothing to compare\n" in capsys.readouterr().out
    assert main(["study", "show", str(out), "--against", "mini"]) == 2
    assert "--against 'mini' is part of 2 rows; " in capsys.readouterr().err


def resampled(*figures):
    """Columns of a record whose ten resamples are all alike."""
    values = np.tile(np.float32(figures), (11, 1))
    return {"resamples": values, "drawn": "the same", "measures": ["detection/mAP_voc_area@.5", "segmentation/mIoU"]}


def test_show_compares_shared_seeds_and_a_tutor_with_all():
    def record(key, seed, *figures):
        named = {"detection": {"mAP_voc_area@.5": figures[0]}, "segmentation": {"mIoU": figures[1]}}
        return Record(rows=(key,), seed=seed, figures=named, **resampled(*figures))

    runs = [record("a | b | ours", seed, 0.5 + seed / 10, 0.6) for seed in (1, 0)]
    rows = rows_of([*runs, record("a | b | base", 0, 0.4, 0.6), record("tutors | | boxes", None, 0.8, np.nan)])
    ours, base, tutor = rows["a | b | ours"], rows["a | b | base"], rows["tutors | | boxes"]
    assert show(ours) == "mAP 0.550 ± 0.071 (0.500, 0.600), mIoU 0.600 ± 0.000 (0.600, 0.600) (seeds 0, 1)"
    assert show(ours, base) == "mAP +0.100 [+0.100, +0.100], mIoU +0.000 [+0.000, +0.000] (seed 0)"
    assert show(ours[:1], tutor) == "mAP -0.300 [-0.300, -0.300] (seed 0)"
    measured = Record(rows=("measured | | x",), figures={"measured": {"right": 0.25, "names": ["x"]}})
    assert show([measured]) == "right 0.250" and show([measured], base) == "nothing to compare"
    four = Record(seed=0, figures={"instances": {"images": 196}, "keypoints": {"images": 297, "PCK": 0.5}})
    assert show([four]) == "instances/images 196.000, keypoints/images 297.000, keypoints/PCK 0.500 (seed 0)"
    assert [*rows_of(runs, ["b | ours"])] == ["a | b | ours"]
    refused("no row is called 'theirs'", rows_of, runs, ["theirs"])


def single(lowest=0.5):
    """The outcome of three rows of `SINGLE_TASK`; all ten resamples are alike, except one of "boxes alone"."""
    values = {"joint, ground truth": (0.6, 0.45), "boxes alone": (0.5, np.nan), "maps alone": (np.nan, 0.5)}
    given = {name: resampled(*own) for name, own in values.items()}
    given["boxes alone"]["resamples"][3, 0] = lowest
    rows = {name: (f"{SINGLE_TASK.name} | corrected | {name}",) for name in given}
    records = [Record(setting="VOC2012", rows=rows[name], seed=0, run=name, **each) for name, each in given.items()]
    return gather(SINGLE_TASK, VOC, [0], Path("nowhere"), records)


def test_delta_m_is_the_mean_relative_difference():
    (joint,) = single().comparisons
    differences = {name: interval.difference for name, interval in joint.intervals.items()}
    expected = {"mAP": 0.1, "mIoU": -0.05, "Δm": (0.1 / 0.5 - 0.05 / 0.5) / 2}
    assert differences == pytest.approx(expected, abs=1e-6)


def test_each_arm_is_trained_with_what_was_chosen_for_it():
    made = load_setting(None, chosen={"tutors alone": {"tasks": {"segmentation": {"temperature": 3.0}}}})
    truth, fifth, alone = plan(choose(["beyond/tuned"], made), made, [0])
    assert [run.config.tasks["segmentation"].temperature for run in (truth, fifth, alone)] == [1, 1, 3]
    assert truth.run_id == plan(choose(["beyond/no-ground-truth"], VOC, "corrected"), VOC, [0])[0].run_id
    refused("`chosen` names tutor; possible: ground truth, a fifth of the", load_setting, None, chosen={"tutor": {}})
    refused("no study 'beyond/tuned'", choose, ["beyond/tuned"], VOC)


def test_a_study_in_python_is_named_by_its_import_path():
    both = load_setting(None, studies=["python:test_studies:MINI", MINI.model_dump() | {"name": "other"}])
    assert [study.name for study in both.studies] == ["mini", "other"] and both.studies[0] == MINI
    assert plan(choose(["mini"], both), both, [0])[0].label == "ground truth (corrected, seed 0)"
    assert load_setting(None, studies=both.model_dump(mode="json")["studies"]) == both, "a study folder keeps all of it"


def test_a_folder_adds_studies_and_seeds(setting, tmp_path):
    made = load_setting(setting)
    out = tmp_path / "a study"
    open_folder(out, made, ["thesis/table-12"], 1)
    text = f"# mine\n{setting.read_text()}"
    (out / "setting.yaml").write_text(text)
    folder = open_folder(out, made, ["beyond"], 3)
    assert (out / "setting.yaml").read_text() == text
    assert folder.names == ("thesis/table-12", "beyond") and folder.seeds == (0, 1, 2)
    words = ["--setting", f"{out}/setting.yaml", "--seeds", "3", "--out", str(out)]
    assert shlex.split(folder.command("tune"))[4:] == words
    # Table 12 has three rows in each recipe; fewer seeds may be trained than the folder has.
    assert [len(folder.runs(["thesis/table-12"], *only)) for only in ((), ("thesis",), ("thesis", 1))] == [18, 9, 3]
    refused("1001 seeds are not possible; give 1 to 1000", open_folder, out, made, ["tune"], 1001)


def test_a_folder_with_runs_is_not_given_another_setting(setting, tmp_path):
    made, out = load_setting(setting), tmp_path / "a study"
    open_folder(out, made, ["tune"], 1)
    open_folder(out, made.scaled("small"), ["tune"], 1)  # nothing has been trained yet
    add_record(out, Record(setting=made.name, rows=("x | y | z",), run="x", seed=0))
    with pytest.raises(InputError, match=r"train.epochs is 1 there, 2 is asked for\); .* --setting '.*a study/setting"):
        open_folder(out, made, ["tune"], 1)
    more = {"tutors": {**made.tutors, "third": "store"}, "chosen": {"tutors alone": {}}}
    assert open_folder(out, made.scaled("small").model_copy(update=more), ["tune"], 1).setting.chosen
    with pytest.raises(InputError, match="tutors.third is 'store' there, None is asked for"):
        open_folder(out, made.scaled("small"), ["tune"], 1)


def test_rows_whose_tutor_the_setting_lacks_are_left_out(setting, tmp_path, capsys):
    poor = load_setting(setting, tutors=dict.fromkeys(("detection", "segmentation"), "store-{split}"))
    (study,) = choose(["beyond/vouched"], poor)
    assert [row.label for row in study.rows] == ["ground truth", "tutors alone", "ground truth and tutors"]
    assert study.lacks == ("the tutor vouched",) and gather(study, poor, [0], tmp_path, []).comparisons == ()
    (tmp_path / "poor.yaml").write_text(yaml.safe_dump(poor.model_dump(mode="json")))
    assert main(["study", "list", "--setting", str(tmp_path / "poor.yaml")]) == 0
    assert "Boxes that maps vouch for (without the rows that need the tutor vouched)" in capsys.readouterr().out
    refused("has no tutor 'vouched', it has detection", plan, [DECLARED["beyond/vouched"]], poor, [0])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"smal": "train"}, "smal: unknown; possible: name, data, small"),
        ({"studies": [{"rows": [{"label": "x", "lable": "y"}]}]}, "studies.0.rows.0.lable: Extra inputs"),
        ({"studies": ["python:test_studies:NONE"]}, "study 'test_studies:NONE': can't be imported"),
        ({"run": {"tasks": {"detection": {"reported": ["cat"]}}}}, "leave `tasks.detection.reported` out: it follows"),
        ({"run": {"recipe": "corrected"}}, "leave `recipe` out: each study declares rows for each recipe"),
        ({"run": {"data": {"val": "voc:other"}}}, "leave `data.val` out: it follows from the setting's `data`"),
        ({"run": {"train": 5}}, "`train` is 5; a section is a mapping of its keys"),
        ({"candidates": {"T": {}}, "tutor_candidates": {"T": {}}}, "two candidates of `tune` are called 'T'"),
        ({"tutors": {"../../y": "stores/x"}}, "tutors.../../y"),
    ],
)
def test_an_impossible_setting_is_refused(given, message):
    refused(re.escape(message), load_setting, None, **given)


def test_stores_that_do_not_exist_are_told_before_the_first_run(setting, tmp_path, capsys):
    given = yaml.safe_load(setting.read_text())
    given["tutors"] |= {"segmentation": str(tmp_path / "gone-{split}"), "instances": str(tmp_path / "none-{split}")}
    (tmp_path / "setting.yaml").write_text(yaml.safe_dump(given))
    words = ["--setting", str(tmp_path / "setting.yaml"), "--seeds", "1", "--out", str(tmp_path / "study")]
    assert main(["study", "run", "thesis/table-12", "--recipe", "corrected", *words]) == 2
    assert f"these runs need stores that do not exist: {tmp_path}/gone-train; " in capsys.readouterr().err
    assert not (tmp_path / "study" / "runs").exists()
    (tmp_path / "gone-train").symlink_to(setting.parent / "store-train")
    told = []
    folder = open_folder(tmp_path / "study", load_setting(tmp_path / "setting.yaml"), ["thesis/table-12"], 1)
    assert work(folder, ["thesis/table-12"], recipe="corrected", hours=0, tell=told.append)[0] == 0
    assert [note.split()[8] for note in told] == ["instances", "segmentation"]


def test_a_single_row_is_chosen_by_its_label(setting, tmp_path, capsys):
    folder = open_folder(tmp_path / "study", load_setting(setting), ["thesis/table-12"], 2)
    runs = folder.runs(["thesis/table-12"], "corrected", 1, ["segmentation tutor"])
    assert [run.label for run in runs] == ["segmentation tutor (corrected, seed 0)"]
    assert len(folder.runs(["thesis/table-12"], labels=["segmentation tutor", "ground truth"])) == 8
    words = ["--row", "tutor", "--setting", str(setting), "--out", str(tmp_path / "study")]
    assert main(["study", "run", "thesis/table-12", *words]) == 2
    assert "no row is called 'tutor'; possible: 'ground truth', " in capsys.readouterr().err


def test_a_tutor_of_a_rows_own_task_is_judged_by_the_tasks_folder(make_voc, tmp_path):
    """It calls all of an image head, of which one half is."""
    folder = with_parts(make_voc(tmp_path / "voc", {"train": ("both",), "val": ("both",)}), "val", tmp_path / "parts")
    row = {"label": "parts", "config": {"tasks": {"parts": PARTS}}}
    studies = [{"name": "own/parts", "title": "P", "question": "Q?", "recipes": ["corrected"], "rows": [row]}]
    splits = {"small": "train", "large": "train", "evaluation": "val"}
    tutors = {"parts": str(tmp_path / "parts")}
    own = load_setting(None, name="own", data=f"voc:{folder}", tutors=tutors, studies=studies, reported=None, **splits)
    found = open_folder(tmp_path / "study", own, ["own"], 1)
    assert judge_tutors(found) == {}
    (record,) = read_records(found.path)
    assert record.measures == ["parts/mIoU"] and record.figures["parts"]["per_class"]["IoU"]["tail"] == 0
    page, text = write_report(found, found.outcomes(found.names), tmp_path)
    assert f"| parts |  |  | {record.figure('parts/mIoU'):.3f} |" in text.read_text()
    assert '<th scope="col">parts/mIoU</th>' in page.read_text()


def test_a_tutor_that_answered_anew_is_judged_anew(setting, tmp_path):
    given = load_setting(setting, tutors={"detection": str(tmp_path / "store-{split}")})
    folder = open_folder(tmp_path / "study", given, ["tune"], 1)
    dataset = open_dataset(given.data, "val")

    def halved(answer, image_id):
        boxes = answer.tasks["detection"]
        return SoftLabels.of(answer.size, replace(boxes, boxes_xyxy=boxes.boxes_xyxy / 2))

    for tutor in (Repeats(dataset), Repeats(dataset, halved)):
        label(tutor, dataset, tmp_path / "store-val")
        assert judge_tutors(folder) == judge_tutors(folder) == {}
        (record,) = read_records(folder.path)
        assert (record.figure("mAP") == 1) == (tutor.change is not halved)
        shutil.rmtree(tmp_path / "store-val")
    assert [*judge_tutors(folder)] == ["detection"]
    assert read_records(folder.path)[0].figures == {}  # the figures were of other answers


def test_a_killed_study_leaves_no_process_behind(setting, tmp_path):
    out, given = tmp_path / "study", yaml.safe_load(setting.read_text())
    given["tutors"], given["run"]["train"]["epochs"] = {}, 1000  # neither process ends before both have begun
    (tmp_path / "setting.yaml").write_text(yaml.safe_dump(given))
    words = ["thesis/table-12", "--setting", str(tmp_path / "setting.yaml"), "--jobs", "2", "--out", str(out)]
    command = [sys.executable, "-m", "tutored", "study", "run", *words]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        while len(list(out.glob("runs/*/config.yaml"))) < 2:  # both are at work
            assert process.poll() is None
            time.sleep(0.1)
        process.kill()
    for lock in (out / "locks").iterdir():
        FileLock(lock, timeout=30).acquire()  # given up by the process that held it
