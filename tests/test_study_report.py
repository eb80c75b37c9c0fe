"""The report: what it says, what it must not say, and that it only depends on the results."""

import io
import re

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from made import refused
from tutored.evaluate import Interval
from tutored.pages import PAPER
from tutored.studies.folder import Folder
from tutored.studies.report import draw_curve, write_report
from tutored.studies.results import Record, add_record, gather, read_records
from tutored.studies.setting import Row, Setting, Study, load_setting, run_of

SETTING = load_setting(None, name="made <up>", data="voc:/nowhere/VOC2012", reported=["cat", "dog"])
MEASURES = ("detection/mAP_voc_area@.5", "segmentation/mIoU")
COST = {"images": 100, "seconds": 360.0, "device": "cpu (x)", "threads": 1, "versions": {"torch": "2.8"}}
BASE = Row(label="base", printed={"mAP": 0.626, "mIoU": 0.602})
OTHER = Row(label="other", config={"student": {"negatives": 2.0}}, against=("base",))
ODD = Row(label="a < b | c", recipes=("corrected",), config={"student": {"negatives": 1.0}})
TABLE = Study(name="made/table", title="A table", question="Is it?", rows=(BASE, OTHER, ODD))
POINTS = tuple(
    Row(label=f"x = {x}", config={"student": {"negatives": x}}, series="line", x=x, printed={"mIoU": x / 10})
    for x in (1.0, 2.0, 4.0)
)
ASKED = {"title": "A curve", "question": "Where?", "axis": "negatives", "even": "as many as negatives"}
CURVE = Study(name="made/curve", recipes=("corrected",), rows=(BASE, *POINTS), **ASKED)


@pytest.fixture
def finish(tmp_path):
    """Write a run's results by hand; its resamples deviate evenly by `spread`."""

    def write(study, row, recipe, seed, map_area, miou, spread=0.001, **more):
        boxes = {"AP_voc_area@.5": {"cat": map_area, "cow": 0.123}}
        maps = {"IoU": {"background": 0.9, "cat": miou, "cow": None}}
        given = {"detection": {"mAP_voc_area@.5": map_area, "per_class": boxes}}
        given["segmentation"] = {"mIoU": miou, "per_class": maps}
        figures = {task: each for task, each in given.items() if None not in each.values()}
        noise = np.linspace(-spread, spread, 101)[:, None] * [[1.0, 1.0]] * (1 if recipe == "corrected" else -1)
        noise = np.concatenate([np.zeros((1, 2)), noise])
        values = np.array([[map_area, miou]], dtype=np.float64) + noise * (seed + 1)
        key = study.key(recipe, row)
        own = {"setting": SETTING.name, "rows": (key,), "label": row.label, "seed": seed, "commit": "abc1234"}
        own["run"] = run_of(study, row, recipe, SETTING, seed).run_id
        measured = {"measures": MEASURES, "resamples": values.astype(np.float32), "drawn": "the same"}
        add_record(tmp_path, Record(**{**own, **COST, **measured, "figures": figures, **more}))

    return write


@pytest.fixture
def report(tmp_path):
    def write(*studies, seeds=(0, 1), **over):
        outcomes = [gather(study, SETTING, seeds, tmp_path, read_records(tmp_path)) for study in studies]
        given = SETTING.model_dump(mode="json") | over
        folder = Folder(tmp_path, Setting.model_validate(given), (), tuple(seeds))
        return tuple(path.read_text() for path in write_report(folder, outcomes, tmp_path / "out"))

    return write


def test_better_is_said_only_where_the_interval_excludes_zero(finish, report):
    for seed in (0, 1, 2):
        finish(TABLE, BASE, "corrected", seed, 0.50, 0.60)
        # mAP: +.04, +.05 and +.06, all far above the noise. mIoU: +.03, +.00 and -.03.
        finish(TABLE, OTHER, "corrected", seed, 0.54 + 0.01 * seed, 0.63 - 0.03 * seed, spread=0.002)
    page, text = report(TABLE, seeds=(0, 1, 2))
    assert "| other |  | 0.550 ± 0.010 |  | 0.600 ± 0.030 | 3 |" in text
    assert "Comparisons, recipe **corrected**:" in text and "**thesis**:" not in text.partition("Comparisons")[2]
    assert "- **“other” is better than “base” in mAP:** +0.050 [+0.0" in text
    assert "- not resolved: “other” against “base” in mIoU, " in text and "(3 seeds)" in text
    assert page.count('class="better"') == 1 and "0.540, 0.550, 0.560" in page
    assert "better than “base” in mIoU" not in page + text and "Made at: abc1234.\n" in text


@pytest.mark.parametrize(("others", "verdict"), [(3, "“other” seems better than"), (2, "**“other” is better than")])
def test_a_page_of_many_comparisons_asks_more_of_each(finish, report, others, verdict):
    # Of one row against another p is .013; Benjamini and Hochberg's of eight comparisons, of which the other seven say
    # nothing, is .105. Comparisons over two seeds do not count.
    many = Study(name="made/many", title="Many", question="Which?", recipes=("corrected",), rows=(BASE, OTHER))
    for number in (2, 3, 4):
        row = Row(label=f"row {number}", config={"student": {"negatives": 2.0 + number}}, against=("base",))
        many = many.model_copy(update={"rows": (*many.rows, row)})
    few = many.model_copy(update={"rows": many.rows[:2]})
    for seed, away in enumerate((-0.1, 0.0, 0.1)):
        finish(many, BASE, "corrected", seed, 0.50, 0.60)
        finish(many, OTHER, "corrected", seed, 0.54 + 0.01 * seed, 0.60 + away)
        for row in many.rows[2:] if seed < others else ():
            finish(many, row, "corrected", seed, 0.50 + away, 0.60 + away)
    assert "**“other” is better than “base” in mAP:** +0.050" in report(few, seeds=(0, 1, 2))[1]
    assert f"- {verdict} “base” in mAP:" in report(many, seeds=(0, 1, 2))[1]


def test_answers_stand_at_the_head(finish, report):
    asked = {"study": "made/table", "row": "other", "against": "base"}
    both = [{"question": "Is it | better?", **asked}, {"question": "And then?", **asked, "study": "made/later"}]
    told = "| Is it \\| better? | better, +0.050 [+0.050, +0.050] | level, +0.000 [+0.000, +0.000] | 3 | `made/table`"
    for seed in (0, 1, 2):
        finish(TABLE, BASE, "corrected", seed, 0.50, 0.60)
        finish(TABLE, OTHER, "corrected", seed, 0.55, 0.60)
    _, text = report(TABLE, seeds=(0, 1, 2), answers=both)
    assert told in text and text.index(told) < text.index("## A table")
    assert "| And then? | not finished | not finished | 0 | `made/later`, other against base |" in text
    refused(r"answers.*at most 10", load_setting, None, answers=both * 6)


def test_a_further_split_has_columns_of_its_own(finish, report):
    known = {"detection on small": {"mAP_voc_area@.5": 0.25}, "segmentation on small": {"mIoU": 0.75}}
    told = {"detection": {"mAP_voc_area@.5": 0.5}, "segmentation": {"mIoU": 0.6}, **known}
    finish(TABLE, ODD, "corrected", 0, 0.5, 0.6, figures=told)
    _, text = report(TABLE, seeds=(0,), also=["small"])
    assert "mIoU, ours | mAP on small | mIoU on small | seeds |" in text
    assert "| 0.500 |  | 0.600 | 0.250 | 0.750 | 1 |" in text.partition("| a \\<")[2]


def test_one_seed_or_two_only_seem_worse(finish, report):
    for seed in (0, 1, 2):
        finish(TABLE, BASE, "corrected", seed, 0.50, 0.60)
        finish(TABLE, OTHER, "corrected", seed, 0.40, 0.60)
        page, text = report(TABLE, seeds=(0, 1, 2))
        assert ("- “other” seems worse than “base” in mAP: -0.100" in text) == (seed < 2)
        assert page.count('class="worse"') == (seed == 2)
    assert "| base | 0.626 | - | 0.602 | - | 0 |" in text  # the thesis' value stands there without a run


def test_a_row_that_both_recipes_have_is_compared_across_them(finish, report):
    for seed in (0, 1, 2):
        finish(TABLE, BASE, "corrected", seed, 0.50, 0.60, spread=0.002)
        finish(TABLE, BASE, "thesis", seed, 0.46, 0.60, spread=0.002)
    finish(TABLE, OTHER, "corrected", 0, 0.50, 0.60)
    _, text = report(TABLE, seeds=(0, 1, 2))
    between = text.partition("Row by row, recipe **corrected** against recipe **thesis**:")[2]
    assert "- **“base, corrected” is better than “base, thesis” in mAP:** +0.040 [+0.0" in between
    assert "- “base, corrected” is level with “base, thesis”, within 0.02, in mIoU: +0.000" in between
    assert "other, corrected" not in text  # the thesis' run of it is missing


def test_missing_and_failed_runs_are_named(finish, report, tmp_path):
    assert "not known yet" in report(TABLE, CURVE)[0]
    finish(TABLE, BASE, "corrected", 0, 0.5, 0.6)
    failed = gather(TABLE, SETTING, (1,), tmp_path, []).rows[0].missing[0]
    (tmp_path / "runs" / failed.run_id).mkdir(parents=True)
    (tmp_path / "runs" / failed.run_id / "failed.txt").write_text("the loss is not finite at step 3\n")
    page, text = report(TABLE)
    assert "Failed: base (thesis, seed 1): the loss is not finite at step 3. To try it again, remove `runs/" in text
    assert "8 runs are missing; `tutored study run made/table --setting " in text
    assert "- other (thesis, seed 1)\n" in text and "<li>other (thesis, seed 1)</li>" in page
    assert "1 of 10 finished, 1 failed, 8 missing" in page
    assert "base (corrected, seed 0)" not in text.partition("are missing")[2]


def test_tutors_cost_and_names(finish, report, tmp_path):
    for row in CURVE.rows:
        finish(CURVE, row, "corrected", 0, 0.5, 0.6)
    tutors = {"detection": ("mAP_voc_area@.5", 0.8125), "segmentation": ("mIoU", 0.833)}
    for name, (metric, figure) in tutors.items():
        add_record(tmp_path, Record(group="tutors", label=name, run=name, figures={name: {metric: figure}}))
    page, text = report(CURVE, TABLE)
    assert "runs: 4 of 12 finished, 0 failed, 8 missing" in text and "cost: 0.4 hours of training" in text
    assert "- machine: cpu (x), 1 thread\n- versions: torch 2.8\n" in text
    assert "| detection | 0.812 |  | Faster R-CNN: mAP 0.798 |\n| segmentation |  | 0.833 | Mask" in text
    assert "made &lt;up&gt;" in page and "<up>" not in page and "# Studies on made \\<up>" in text
    finish(TABLE, ODD, "corrected", 0, 0.5, 0.6)
    page, text = report(TABLE)
    assert "a &lt; b | c" in page and "a < b" not in page and "| a \\< b \\| c |" in text


def test_the_page_needs_nothing_else_and_is_the_same_each_time(finish, report, tmp_path):
    file = io.BytesIO()
    Image.new("RGB", (30, 20)).save(file, "WEBP")
    pictures = [{"told": "a/x", "file": file.getvalue()}]
    for study in (TABLE, CURVE):
        for row in study.rows:
            finish(study, row, "corrected", 0, 0.5, 0.6, pictures=pictures)
    first = report(TABLE, CURVE)
    charts = {path.name: path.read_text() for path in (tmp_path / "out" / "charts").iterdir()}
    assert first == report(TABLE, CURVE)
    assert charts == {path.name: path.read_text() for path in (tmp_path / "out" / "charts").iterdir()}
    page, text = first
    ids = re.findall(r'<[^>]* id="([^"]*)"', page)
    targets = re.findall(r'<[^>]* (?:xlink:)?(?:href|src)="([^"]*)"', page)
    assert len(ids) == len(set(ids)) and targets
    assert all(target.startswith("data:image/webp;base64,") or target[1:] in ids for target in targets)
    assert page.count("data:image/webp") == 3 and 'alt="other, image a/x"' in page
    assert not re.findall(r"<script|<link|@import|url\((?!#)", page)
    assert set(charts) == {"made-curve-map.svg", "made-curve-miou.svg"}
    assert all(f"](charts/{name})" in text and "prefers-color-scheme" in charts[name] for name in charts)
    assert "nowhere" not in page + text.replace(str(tmp_path), "") and "voc:VOC2012: small split" in page
    assert '<th scope="col">cat</th></tr>' in page and "0.123" not in page  # cow is not reported


def test_a_task_that_was_not_trained_or_validated_has_no_figure(finish, report):
    finish(TABLE, BASE, "corrected", 0, 0.51, None)
    finish(TABLE, OTHER, "corrected", 0, None, None, resamples=None, drawn="")
    _, text = report(TABLE, seeds=(0,))
    assert "| base | 0.626 | 0.510 | 0.602 | not trained | 1 |" in text
    assert "| other |  | not validated |  | not validated | 1 |" in text and "in mIoU" not in text


def test_figures_of_further_tasks_stand_beside_the_two(finish, report):
    for row, depth in ((BASE, 0.5), (OTHER, 0.4)):
        more = {"measures": (*MEASURES, "depth/RMSE"), "lower_is_better": ("depth/RMSE",)}
        more["resamples"] = np.full((101, 3), [0.5, 0.6, depth], np.float32)
        finish(TABLE, row, "corrected", 0, 0.5, 0.6, figures={"depth": {"RMSE": depth}}, **more)
    finish(TABLE, ODD, "corrected", 0, 0.5, 0.6)  # of two tasks
    page, text = report(TABLE, seeds=(0,))
    assert "| taught by | mAP, printed | mAP, ours | mIoU, printed | mIoU, ours | depth/RMSE | seeds |" in text
    assert "| 0.400 | 1 |" in text and "a &lt; b" in page and '<th scope="col">depth/RMSE</th>' in page
    assert "“other” seems better than “base” in depth/RMSE: -0.100 [-0.100, -0.100]" in text, "a lower error"


def test_a_study_that_learnt_nothing_says_so(finish, report):
    nothing = {"per_class": {"AP_voc_area@.5": {"cat": 0.01, "cow": 0.02}}}
    finish(TABLE, BASE, "corrected", 0, 0.015, 0.26, figures={"detection": nothing})
    told = "no student learnt anything: over the objects' classes, the best run has AP 0.015; train longer"
    assert all(told.replace("'", quote) in text for text, quote in zip(report(TABLE), ("&#39;", "'"), strict=True))
    finish(TABLE, BASE, "corrected", 1, 0.01, 0.04)
    assert not any("learnt anything" in text for text in report(TABLE)), "AP is (.01 + .123) / 2"


def test_an_interval_that_ends_at_zero_is_not_resolved():
    found = [Interval(0.5, 0.52, 0.02, low, 0.05, 0.05) for low in (0.0004, 0.0006)]
    assert [str(each) for each in found] == ["+0.020 [+0.000, +0.050]", "+0.020 [+0.001, +0.050]"]
    assert [each.verdict for each in found] == [None, "better"]


def test_a_store_that_changed_between_runs_is_named(finish, report):
    for seed, more in ((0, {}), (1, {"audit": {"temperature": 0.5}}), (2, {"weights": "2", "size": 9})):
        stores = {"stores/boxes": [{"kind": "onnx", "weights": "1", **more}]}
        finish(TABLE, BASE, "corrected", seed, 0.5, 0.6, stores=stores)
    page, text = report(TABLE, seeds=(0, 1, 2))
    assert "- **not the same for all runs**, and what differs: stores/boxes (size, weights)\n" in text
    assert "<dt>not the same for all runs</dt><dd>stores/boxes (size, weights)</dd>" in page
    assert "- audits used: stores/boxes in 1 of 3 runs\n" in text
    assert all("not the same for all runs" not in content for content in report(TABLE, seeds=(0, 1)))


def test_a_curve_has_a_line_for_us_and_one_for_the_thesis(finish, report, tmp_path):
    for seed in (0, 1):
        finish(CURVE, BASE, "corrected", seed, 0.5, 0.6 + 0.02 * seed)
        for row in POINTS[:2]:
            finish(CURVE, row, "corrected", seed, 0.5, 0.1 * row.x + 0.02 * seed)
    finish(CURVE, POINTS[2], "corrected", 0, 0.5, 0.4)
    draw_curve(panel := Figure().subplots(), gather(CURVE, SETTING, (0, 1), tmp_path, read_records(tmp_path)), "mIoU")
    lines = {line.get_label(): line for line in panel.get_lines()}
    ours = lines["corrected: line"].get_xydata()
    assert ours.tolist() == pytest.approx(np.array([[1, 0.11], [2, 0.21], [4, 0.4]]))
    assert lines["printed in the thesis"].get_xdata().tolist() == [1.0, 2.0, 4.0]
    even = lines["as many as negatives"]
    assert (even.get_xy1(), even.get_slope()) == ((1, 1), 1)
    assert {"corrected: base", "printed in the thesis: base"} < set(lines)
    (hollow,) = (line for line in panel.get_lines() if line.get_markerfacecolor() == PAPER)  # a single seed
    assert hollow.get_xydata().tolist() == pytest.approx(np.array([[4, 0.4]]))
    spreads, band = panel.collections
    segments = np.array([[[1, 0.1], [1, 0.12]], [[2, 0.2], [2, 0.22]]])
    assert np.array(spreads.get_segments())[:2] == pytest.approx(segments)
    assert band.get_paths()[0].get_extents().extents.tolist() == pytest.approx([1, 0.1, 2, 0.22])


def test_runs_on_other_images_are_named(finish, report):
    finish(TABLE, BASE, "corrected", 0, 0.5, 0.6)
    finish(TABLE, OTHER, "corrected", 0, 0.5, 0.6, drawn="others")
    refused(r"\(.*, seed 0\) was evaluated on other images than run .*; keep one", report, TABLE, seeds=(0,))
