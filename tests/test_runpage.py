"""The run's page: what it shows of a run, when it is written, and what trackers are told."""

import csv
import html
import json
import math
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from made import TINY
from tutored.cli import main
from tutored.config import make_config
from tutored.data import open_dataset
from tutored.data.training import TrainingSet
from tutored.engine import train
from tutored.engine.sources import count_sources, list_sources
from tutored.engine.supervision import open_supervision
from tutored.engine.track import numbers
from tutored.errors import InputError
from tutored.evaluate import details, record
from tutored.evaluate.detection import Ranked, precisions
from tutored.labels import VOC
from tutored.runpage import content, write_page
from tutored.runpage.charts import POINTS, thinned
from tutored.runpage.read import Run, read_run
from tutored.structures import GroundTruth, Prediction
from tutored.tutors.label import label
from tutored.tutors.student import StudentTutor

TRAIN = {"epochs": 3, "batch": 4, "workers": 0, "lr": 1e-3, "device": "cpu", "threads": 1, "val_every": 1}


def config(folder, *, data=None, supervision=None, **changed):
    given = {"train": f"voc:{folder}", "reported": ["cat", "dog"], **(data or {})}
    sections = {"data": given, "student": TINY, "train": {**TRAIN, **changed}, "supervision": supervision or {}}
    return make_config(sections)


@pytest.fixture(scope="module")
def store(voc_folder, tmp_path_factory):
    """A tutor's answers for all training images."""
    folder = tmp_path_factory.mktemp("tutor")
    train(config(voc_folder, epochs=1, shown=0), folder / "run")
    tutor = StudentTutor(folder / "run" / "checkpoint", score_floor=0.0)
    return label(tutor, open_dataset(f"voc:{voc_folder}", "train"), folder / "store")


@pytest.fixture(scope="module")
def made_run(voc_folder, store, tmp_path_factory):
    """Half of the boxes' ground truth is hidden, a tutor fills in; all masks that there are."""
    supervision = {"detection": {"policy": "fill", "hidden": 0.5, "store": str(store)}}
    out = tmp_path_factory.mktemp("runs") / "a <b> run"
    train(config(voc_folder, supervision=supervision, trackers="tensorboard"), out)
    return out


@pytest.fixture
def run(made_run, tmp_path):
    return shutil.copytree(made_run, tmp_path / made_run.name)


def section(page, title):
    return page.split(f"<h2>{title}</h2>")[1].split("</section>")[0]


def test_the_page_says_what_the_run_says(run):
    page = (run / "report.html").read_text()
    figures = json.loads((run / "result.json").read_text())["figures"]
    assert "Run a &lt;b&gt; run</title>" in page
    assert "Finished: 3 epochs" in page and 'http-equiv="refresh"' not in page
    assert f"<b>{figures['mIoU']:.3f}</b>" in page
    headings = re.findall(r"<h3>(.*?)</h3>", section(page, "Curves"))
    assert headings == [
        "Loss, all terms", "Loss: class", "Loss: box", "Loss: map", "Boxes: mean average precision",
        "Maps: agreement of pixels", "Learning rate", "Images/s",
    ]  # fmt: skip
    assert section(page, "Precision and recall of boxes").count("<polyline") == len(
        [name for name, value in figures["AP_voc_area@.5"].items() if value is not None]
    )
    assert "seed: 0" in page and "epochs: 3" in page and torch.__version__ in page
    assert page.count("data:image/jpeg") == 4 * (1 + 3) + 3 * (2 + 3)  # validation, and training with its tutor


def test_label_coverage_is_counted_and_listed(run):
    """Of 8 images 5 have boxes and 5 a mask; half of the boxes are hidden, the tutor answers for all images."""
    with (run / "page" / "sources.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == [f"train_00{index}" for index in range(8)]
    assert sorted(row["detection"] for row in rows) == ["gt"] * 2 + ["tutor"] * 6
    assert [row["segmentation"] for row in rows] == ["gt"] * 3 + ["none"] * 2 + ["gt"] * 2 + ["none"]
    found = section((run / "report.html").read_text(), "Who teaches")
    assert re.findall(
        r"<tr><th scope=\"row\">(\w+)</th><td>(\d)</td><td>(\d)</td><td>(\d)</td><td>(\d)</td>", found
    ) == [
        ("detection", "2", "6", "0", "0"),
        ("segmentation", "5", "0", "0", "3"),
    ]


def test_the_page_can_be_written_again_from_the_folder_alone(run, capsys):
    before = (run / "report.html").read_bytes()
    (run / "report.html").unlink()
    shutil.rmtree(run / "checkpoint")
    shutil.rmtree(run / "state")
    assert main(["report", str(run)]) == 0
    assert capsys.readouterr().out == f"wrote {run / 'report.html'}\n"
    assert (run / "report.html").read_bytes() == before


def test_a_run_from_before_there_were_pages_gets_one(run):
    shutil.rmtree(run / "page")
    entries = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    for entry in entries:
        entry.pop("lr", None)
    (run / "log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    page = write_page(run).read_text()
    assert "Class by class" in page and "Loss: class" in page and torch.__version__ in page
    for absent in ("Learning rate", "Who teaches</h2>", "Confusion of pixels", "data:image"):
        assert absent not in page


def test_what_is_no_run_or_damaged_is_named(run, tmp_path):
    with pytest.raises(InputError, match=r"no run \(config.yaml is missing\)"):
        write_page(tmp_path)
    (run / "log.jsonl").write_text('{"step": 1')
    with pytest.raises(InputError, match=r"log.jsonl: damaged .* train the run again"):
        write_page(run)


@pytest.mark.parametrize("width", [1200, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_in_a_browser(browser, made_run, width, scheme):
    asked, said = [], []
    with browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme) as context:
        shown = context.new_page()
        shown.on("request", lambda request: asked.append(request.url) if request.url.startswith("http") else None)
        shown.on("console", lambda message: said.append(message.text))
        shown.goto((made_run / "report.html").as_uri())
        assert shown.evaluate("document.documentElement.scrollWidth") == width
        assert shown.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
        paper = shown.evaluate("getComputedStyle(document.body).backgroundColor")
        bar = shown.evaluate("document.querySelector('.sources i').getBoundingClientRect().width")
        whole = shown.evaluate("document.querySelector('.sources').getBoundingClientRect().width")
    assert paper == {"light": "rgb(255, 255, 255)", "dark": "rgb(13, 17, 23)"}[scheme]
    assert bar / whole == pytest.approx(2 / 8, abs=0.01)
    assert (asked, said) == ([], [])


@pytest.fixture
def pages_at_once(monkeypatch):
    monkeypatch.setattr("tutored.engine.journal.FIRST_PAGE", 0.0)
    monkeypatch.setattr("tutored.engine.journal.PAGE_SHARE", math.inf)


def test_it_renews_itself_while_the_run_goes_on(voc_folder, tmp_path, pages_at_once):
    seen = []

    def stop_in_the_third_epoch(report):
        if report.step == 6:
            seen.append((tmp_path / "run" / "report.html").read_text())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config(voc_folder), tmp_path / "run", watch=stop_in_the_third_epoch)
    assert '<meta http-equiv="refresh" content="30">' in seen[0]
    assert re.search(r"2 of 3 epochs are trained; about 0:00:\d\d left. This page renews itself", seen[0])
    stopped = (tmp_path / "run" / "report.html").read_text()
    assert 'http-equiv="refresh"' not in stopped
    assert f"<code>tutored train {tmp_path}/run/config.yaml --out {tmp_path}/run --resume</code> goes on" in stopped


def test_time_left_counts_the_images_that_a_step_has():
    """A batch of 100 has the 8 images that there are; two steps are left, at 4 images/s."""
    config = make_config({"data": {"train": "voc:x"}, "train": {"epochs": 3, "batch": 100}})
    facts = {"epoch_steps": 1, "coverage": {"x": {"detection": {"gt": 5, "none": 3}}}}
    steps = [{"step": 1, "images_per_second": 4.0}]
    assert content.head(Run(Path("run"), config, steps, {}, {}, facts, False))["left"] == "0:00:04"


def test_the_command_to_go_on_is_as_a_shell_takes_it(run):
    (run / "result.json").unlink()
    command = html.unescape(re.search("<code>(tutored train .*?)</code>", write_page(run).read_text())[1])
    assert shlex.split(command) == ["tutored", "train", f"{run}/config.yaml", "--out", f"{run}", "--resume"]


def test_pages_take_a_small_share_of_the_time(voc_folder, tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr("tutored.engine.journal.write_page", lambda run, **given: written.append(given))
    train(config(voc_folder), tmp_path / "short")
    monkeypatch.setattr("tutored.engine.journal.FIRST_PAGE", 0.0)
    monkeypatch.setattr("tutored.engine.journal.PAGE_SHARE", 1e-9)
    train(config(voc_folder), tmp_path / "long")
    assert written == [{}, {"refresh": 30}, {}]  # the short run's at its end; the long one's first and last


def test_a_page_that_fails_is_told_and_does_no_harm(voc_folder, tmp_path, monkeypatch, pages_at_once):
    def fail(*_given, **_more):
        raise KeyError("a defect")

    monkeypatch.setattr("tutored.engine.journal.write_page", fail)
    with pytest.warns(RuntimeWarning, match=r"the run's page failed: KeyError: 'a defect'; training goes on"):
        train(config(voc_folder, epochs=1), tmp_path / "run")
    assert (tmp_path / "run" / "result.json").exists() and not (tmp_path / "run" / "report.html").exists()


def test_no_pictures_where_none_are_asked_for(voc_folder, tmp_path):
    train(config(voc_folder, epochs=1, shown=0, data={"val_split": None}), tmp_path / "run")
    assert "data:image" not in (tmp_path / "run" / "report.html").read_text()
    assert {path.name for path in (tmp_path / "run" / "page").iterdir()} == {"facts.json", "sources.csv"}


def test_precision_at_recalls_by_hand():
    """Two objects; found, missed, found: the envelope is 1 up to recall .5 and 2/3 up to 1."""
    ranked = Ranked(np.zeros(3, np.int64), np.array([True, False, True]), np.array([0, 0, 3]), np.array([[0, 2]]))
    background, cat = precisions(ranked)
    assert np.isnan(background).all()
    assert cat.tolist() == [1.0] * 51 + [pytest.approx(2 / 3)] * 50


def test_details_without_boxes_or_maps_are_none():
    mask = torch.zeros(2, 3, dtype=torch.uint8)
    mask[0] = 8
    said = record("a", GroundTruth(size=(2, 3), mask=mask), Prediction(size=(2, 3), mask=mask * 0), VOC)
    curves, pixels = details([said], VOC)
    assert curves is None
    assert pixels[8, 0] == 3 and pixels[0, 0] == 3 and pixels.sum() == 6


def test_the_confusion_matrix_is_in_shares_of_the_true_class(run):
    (run / "page" / "epoch-0003.json").write_text(
        json.dumps(
            {
                "classes": ["background", "cat", "dog"],
                "precisions": None,
                "confusion": [[90, 10, 0, 0], [2, 6, 0, 0], [0] * 4],
            }
        )
    )
    found = content.confusion(read_run(run))
    assert found["columns"] == ["background", "cat"]
    assert [(row["name"], row["shares"]) for row in found["rows"]] == [
        ("background", [0.9, 0.1]),
        ("cat", [0.25, 0.75]),
    ]


def test_of_many_classes_those_with_the_most_pixels_are_shown(run, monkeypatch):
    monkeypatch.setattr(content, "MOST_CLASSES", 2)
    matrix = [[5, 0, 0, 5, 0], [0, 9, 0, 0, 1], [0, 0, 30, 0, 0], [1, 0, 0, 1, 0]]
    (run / "page" / "epoch-0003.json").write_text(
        json.dumps({"classes": ["background", "a", "b", "c"], "precisions": None, "confusion": matrix})
    )
    found = content.confusion(read_run(run))
    assert found["columns"] == ["background", "b", "other classes", "not annotated"]
    assert found["rows"][0]["shares"] == [0.5, 0, 0.5, 0]
    assert found["others"] == 2


def test_a_long_log_is_drawn_as_means():
    points = [(float(step), 2.0 * step) for step in range(1000)]
    means = thinned(points)
    assert len(means) == POINTS
    assert all(value == pytest.approx(2 * place) for place, value in means)
    assert means[0][0] == pytest.approx(2.5)  # the mean of 0 to 5
    assert thinned(points[:160]) == points[:160]


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ({"policy": "fill"}, {"gt": 5, "tutor": 3}),
        ({"policy": "both"}, {"both": 5, "tutor": 3}),
        ({"policy": "replace", "share": 1.0}, {"tutor": 8}),
        ({"policy": "replace", "share": 0.5, "resampled": True}, {"both": 5, "tutor": 3}),
        ({"policy": "none"}, {"none": 8}),
    ],
)
def test_sources_of_every_policy(voc_folder, store, task, expected):
    run = config(voc_folder, supervision={"detection": {**task, "store": str(store)}})
    opened = open_supervision(run)
    rows = list_sources(TrainingSet(opened.train, run, 8, opened.soft_labels))
    assert count_sources(rows) == {
        f"voc:{voc_folder.name}, train": {"detection": expected, "segmentation": {"gt": 5, "none": 3}}
    }


def test_a_tutor_that_completes_partly_annotated_data_counts_as_both(make_voc, voc_folder, store, tmp_path):
    """The second data set annotates everything and has no answers; in the first one only cats count as annotated."""
    other = make_voc(tmp_path / "other", {"more": ("both", "boxes")})
    more = {"annotated": ["cat"], "more": [{"train": f"voc:{other}", "split": "more"}]}
    run = config(voc_folder, data=more, supervision={"detection": {"policy": "fill", "store": str(store)}})
    opened = open_supervision(run)
    counts = count_sources(list_sources(TrainingSet(opened.train, run, 8, opened.soft_labels)))
    assert counts == {
        f"voc:{voc_folder.name}, train": {"detection": {"both": 5, "tutor": 3}, "segmentation": {"gt": 5, "none": 3}},
        "voc:other, more": {"detection": {"gt": 2}, "segmentation": {"gt": 1, "none": 1}},
    }


def test_tensorboard_is_told_what_the_log_holds(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard" / "tutored")).Reload()
    entries = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    steps = [entry for entry in entries if "loss" in entry]
    for tag, values in (
        ("train/lr", [entry["lr"] for entry in steps]),
        ("train/loss/class/ground_truth", [entry["loss"]["class/ground_truth"] for entry in steps]),
        ("train/loss/all", [sum(entry["loss"].values()) for entry in steps]),
        ("val/mIoU", [entry["val"]["mIoU"] for entry in entries if "val" in entry]),
    ):
        assert [event.step for event in events.Scalars(tag)] == [2, 4, 6]
        assert [event.value for event in events.Scalars(tag)] == pytest.approx(values, rel=1e-6)
    assert "val/mAP_coco_.5_.95" in events.Tags()["scalars"]


def test_trackers_get_means_and_no_counts():
    entry = {"step": 4, "epoch": 2, "val": {"mAP_coco@.5:.95": 0.25, "mIoU": None, "images": 9, "IoU": {"cat": 0.5}}}
    assert numbers(entry) == {"val/mAP_coco_.5_.95": 0.25}


@pytest.mark.parametrize(
    ("missing", "install"),
    [("wandb", "pip install wandb"), ("mlflow", "pip install mlflow"), ("trackio", r"pip install 'tutored\[track\]'")],
)
def test_a_tracker_that_is_not_installed_is_named_before_anything_begins(
    voc_folder, tmp_path, monkeypatch, capsys, missing, install
):
    monkeypatch.setattr("tutored.engine.track.get_available_trackers", lambda: ["tensorboard"])
    with pytest.raises(InputError, match=f"{missing} can't be used, a package is missing; {install}, or leave it out"):
        train(config(voc_folder, trackers=f"tensorboard, {missing}"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_tracker_that_fails_midway_does_no_harm(voc_folder, tmp_path, monkeypatch):
    from accelerate import Accelerator

    def fail(*_given, **_more):
        raise ConnectionError("nobody there")

    monkeypatch.setattr(Accelerator, "log", fail)
    with pytest.warns(RuntimeWarning, match="a tracker failed: ConnectionError: nobody there; training goes on"):
        train(config(voc_folder, epochs=1, trackers=["tensorboard"]), tmp_path / "run")
    assert (tmp_path / "run" / "result.json").exists()


def test_a_tracker_that_can_not_begin_is_a_message(voc_folder, tmp_path, monkeypatch):
    from accelerate import Accelerator

    def fail(*_given, **_more):
        raise RuntimeError("no key")

    monkeypatch.setattr(Accelerator, "init_trackers", fail)
    with pytest.raises(InputError, match=r"tensorboard can't begin \(RuntimeError: no key\)"):
        train(config(voc_folder, epochs=1, trackers=["tensorboard"]), tmp_path / "run")
