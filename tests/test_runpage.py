"""The page of a run: what it shows, when it is written, and that a training goes on without it."""

import csv
import html
import json
import re
import shlex
import shutil

import pytest
import torch

from made import TINY, Repeats, refused
from tutored.cli import main
from tutored.config import make_config
from tutored.data import open_dataset
from tutored.engine import train
from tutored.pages.run import RunPage, write_page
from tutored.tutors.label import label
from tutored.watch import Watcher, Watchers

TRAIN = {"epochs": 3, "batch": 4, "workers": 0, "lr": 1e-3, "device": "cpu", "threads": 1, "val_every": 1}
REPORTED = {name: {"reported": ["cat", "dog"]} for name in ("detection", "segmentation")}


def config(folder, *, data=None, detection=None, **changed):
    tasks = {**REPORTED, "detection": {**REPORTED["detection"], **(detection or {})}}
    given = {"train": f"voc:{folder}", **(data or {})}
    return make_config({"data": given, "student": TINY, "train": {**TRAIN, **changed}, "tasks": tasks})


@pytest.fixture(scope="module")
def made_run(voc_folder, tmp_path_factory):
    """Half of the boxes' ground truth is hidden, a tutor answers for all training images; all masks that there are."""
    dataset = open_dataset(f"voc:{voc_folder}", "train")
    store = label(Repeats(dataset), dataset, tmp_path_factory.mktemp("tutor") / "store")
    out = tmp_path_factory.mktemp("runs") / "a <b> run"
    run = config(voc_folder, detection={"policy": "fill", "hidden": 0.5, "store": str(store)})
    train(run, out, watch=RunPage())
    return out


@pytest.fixture
def run(made_run, tmp_path):
    return shutil.copytree(made_run, tmp_path / made_run.name)


def section(page, title):
    return page.split(f"<h2>{title}</h2>")[1].split("</section>")[0]


def test_the_page_shows_what_the_run_reached(run):
    page = (run / "report.html").read_text()
    figures = json.loads((run / "result.json").read_text())["figures"]
    assert "Run a &lt;b&gt; run</title>" in page
    assert "Finished: 3 epochs" in page and 'http-equiv="refresh"' not in page
    assert f"<b>{figures['segmentation']['mIoU']:.3f}</b>" in page
    headings = re.findall(r"<h3>(.*?)</h3>", section(page, "Curves"))
    assert headings[0] == "loss, all terms" and headings[-2:] == ["learning rate", "images/s"]
    assert {"detection: loss, class", "detection: figures", "segmentation: figures"} < set(headings)
    found = figures["detection"]["per_class"]["AP_voc_area@.5"]
    boxes = section(page, "detection")
    assert boxes.split('class="curves"')[1].count("<polyline") == sum(value is not None for value in found.values())
    assert 'class="matrix"' in section(page, "segmentation")
    assert "epochs: 3" in page and torch.__version__ in page
    assert page.count("data:image/jpeg") == 4 * (1 + 3) + 3 * (2 + 3)  # validation, and training with its tutor


def test_label_coverage_is_counted_and_listed(run):
    """Of 8 images 5 have boxes and 5 a mask; half of the boxes are hidden, the tutor answers for all images."""
    with (run / "page" / "sources.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == [f"train_00{index}" for index in range(8)]
    assert sorted(row["detection"] for row in rows) == ["ground_truth"] * 2 + ["tutor"] * 6
    assert [row["segmentation"] == "nobody" for row in rows] == [index in (3, 4, 7) for index in range(8)]
    found = section((run / "report.html").read_text(), "Who teaches")
    pattern = r"<tr><th scope=\"row\">(\w+)</th><td>(\d)</td><td>(\d)</td><td>(\d)</td><td>(\d)</td>"
    assert re.findall(pattern, found) == [("detection", "2", "6", "0", "0"), ("segmentation", "5", "0", "0", "3")]


def test_the_page_is_made_from_the_folder_alone(run, capsys):
    before = (run / "report.html").read_bytes()
    (run / "report.html").unlink()
    shutil.rmtree(run / "checkpoint")
    shutil.rmtree(run / "state")
    assert main(["report", str(run)]) == 0
    assert f"wrote {run / 'report.html'}" in capsys.readouterr().out
    assert (run / "report.html").read_bytes() == before
    shutil.rmtree(run / "page")
    page = write_page(run).read_text()
    assert "detection: loss, class" in page and torch.__version__ in page
    for absent in ("Who teaches</h2>", 'class="matrix"', "data:image"):
        assert absent not in page


def test_a_folder_without_a_run_or_a_damaged_one_is_named(run, tmp_path):
    refused(r"no run \(it has no config.yaml\)", write_page, tmp_path)
    (run / "log.jsonl").write_text('{"step": 1')
    refused(r"log.jsonl: damaged .* train the run again", write_page, run)


@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (390, "dark")])
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
    assert paper == {"light": "rgb(255, 255, 255)", "dark": "rgb(13, 17, 23)"}[scheme]
    assert (asked, said) == ([], [])


class Stops(Watcher):
    """Keeps the page as it is at a step, and stops the training there."""

    def __init__(self, step, page):
        super().__init__()
        self.step, self.page, self.seen = step, page, None

    def __call__(self, report):
        if report.step == self.step:
            self.seen = self.page.read_text()
            raise KeyboardInterrupt


def test_the_page_renews_itself_and_survives_a_resume(voc_folder, tmp_path):
    out = tmp_path / "run"
    stops = Stops(6, out / "report.html")
    with pytest.raises(KeyboardInterrupt):
        train(config(voc_folder), out, watch=Watchers(RunPage(first=0.0, share=1e9), stops))
    assert '<meta http-equiv="refresh" content="30">' in stops.seen
    assert re.search(r"2 of 3 epochs are trained; about 0:00:\d\d left. This page renews itself", stops.seen)
    stopped = (out / "report.html").read_text()
    assert 'http-equiv="refresh"' not in stopped
    command = html.unescape(re.search("<code>(tutored train .*?)</code>", stopped)[1])
    assert shlex.split(command) == ["tutored", "train", f"{out}/config.yaml", "--out", f"{out}", "--resume"]

    train(config(voc_folder), out, resume=True, watch=RunPage())
    page = (out / "report.html").read_text()
    assert "Finished: 3 epochs" in page
    assert all(f"student, epoch {epoch}" in page for epoch in (1, 2, 3)), "pictures from before and after"


def test_a_page_that_fails_does_no_harm(voc_folder, tmp_path):
    class Spoils(Watcher):
        """Puts a folder where the page is to be written."""

        def begin(self, start):
            (start.out / "report.html").mkdir()

    with pytest.warns(RuntimeWarning, match=r"the run's page failed: .*; training goes on"):
        train(config(voc_folder, epochs=1), tmp_path / "run", watch=Watchers(RunPage(), Spoils()))
    assert (tmp_path / "run" / "result.json").exists()


def test_a_short_run_has_one_page_at_its_end(voc_folder, tmp_path):
    page, seen = tmp_path / "run" / "report.html", []
    watch = Watchers(RunPage(), Watcher(lambda report: seen.append(page.exists())))
    train(config(voc_folder, epochs=1, shown=0, data={"val_split": None}), tmp_path / "run", watch=watch)
    assert page.exists() and seen == [False]
    assert "data:image" not in page.read_text(), "no pictures are asked for"
    assert {path.name for path in (tmp_path / "run" / "page").iterdir()} == {"facts.json", "sources.csv"}
