"""The report: what it says, what it must not say, and that it only depends on the results."""

import json
import re

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from tutored.data import open_dataset
from tutored.errors import InputError
from tutored.evaluate import Interval, Resampled
from tutored.page import PAPER
from tutored.studies import Row, Study, gather, load_setting
from tutored.studies.declare import NOBODY, supervision
from tutored.studies.outcome import Comparison
from tutored.studies.plan import config_of
from tutored.studies.report import write_report
from tutored.studies.report.charts import bars, draw_curve
from tutored.studies.report.content import sentences
from tutored.studies.run import seconds_left
from tutored.visualise import save_mask

SETTING = load_setting(None, name="made <up>", data="voc:/nowhere/VOC2012", reported=["cat", "dog"])
VERSIONS = {"python": "3.11", "torch": "2.8"}
COST = {"images": 100, "seconds": 360.0, "device": "cpu (x)", "threads": 1, "versions": VERSIONS}
BASE, OTHER = Row("base"), Row("other", {"loss": {"negatives": 2.0}})
ODD = Row("a < b | c", {"loss": {"negatives": 1.0}})
PRINTED = Row("base", printed={"mAP": 0.626, "mIoU": 0.602})
TABLE = Study(
    "made/table",
    "A table",
    "Is it?",
    {"thesis": (PRINTED, OTHER), "corrected": (BASE, OTHER, ODD)},
    against=(("other", "base"),),
)
POINTS = tuple(
    Row(f"x = {x}", {"loss": {"negatives": x}}, "line", x, printed={"mIoU": x / 10}) for x in (1.0, 2.0, 4.0)
)
CURVE = Study("made/curve", "A curve", "Where?", {"corrected": (PRINTED, *POINTS)}, axis="negatives")
BOXES = Row("boxes alone", supervision(segmentation=NOBODY))
MAPS = Row("maps alone", supervision(detection=NOBODY))
ONE_TASK = Study("made/one-task", "One task", "Alone?", {"corrected": (Row("both"), BOXES, MAPS)})


def finish(folder, row, recipe, seed, map_area, miou, spread=0.001):
    """Write a run's results by hand; its resamples deviate evenly by `spread`."""
    config = config_of(row, recipe, SETTING, seed)
    run = folder / "runs" / config.run_id
    run.mkdir(parents=True, exist_ok=True)
    figures = {"classes": ["cat", "dog"], "objects": {"cat": 3, "dog": 4, "cow": 0}}
    if map_area is not None:
        figures |= {"mAP_voc_area@.5": map_area, "AP_voc_area@.5": {"cat": map_area, "dog": map_area, "cow": None}}
    if miou is not None:
        figures |= {"mIoU": miou, "IoU": {"background": 0.9, "cat": miou, "dog": miou, "cow": 0.123}}
    (run / "result.json").write_text(json.dumps({"figures": figures, "config": config.to_dict(), **COST}))
    noise = np.linspace(-spread, spread, 101)[:, None] * [[1.0, 1.0]]
    noise = np.concatenate([np.zeros((1, 2)), noise if recipe == "corrected" else -noise])
    means = np.array([[map_area, miou]], dtype=np.float64)
    Resampled(means + noise * (seed + 1), "the same").save(run / "resamples.npz")
    return run


def answer(run, *, boxes=True, mask=True):
    """Keep a cat on image `a/x`, as a student of one task or both would."""
    (run / "answers").mkdir()
    if mask:
        drawn = torch.zeros(40, 60, dtype=torch.uint8)
        drawn[10:20, 10:30] = 1
        save_mask(drawn, run / "answers" / "a-x.png")
    found = {"a/x": {"size": [40, 60], "boxes_xyxy": [[10, 10, 30, 20]], "classes": [1], "scores": [0.9]}}
    (run / "answers" / "boxes.json").write_text(json.dumps(found if boxes else {}))


@pytest.fixture
def report(tmp_path):
    def write(*studies, seeds=(0, 1), **given):
        outcomes = [gather(study, SETTING, seeds, tmp_path) for study in studies]
        tutors = {"segmentation": {"mIoU": 0.833}, "detection": {"mAP_voc_area@.5": 0.8125}}
        given = {"tutors": tutors, **given}
        paths = write_report(
            outcomes, SETTING, tmp_path / "out", seeds=seeds, command="tutored study run {} --out S".format, **given
        )
        return tuple(path.read_text() for path in paths)

    return tmp_path, write


def test_better_is_said_only_where_the_interval_excludes_zero(report):
    folder, write = report
    for seed in (0, 1, 2):
        finish(folder, BASE, "corrected", seed, 0.50, 0.60)
        # mAP: +.03, +.05 and +.07, all far above the noise. mIoU: +.03, +.00 and -.03.
        finish(folder, OTHER, "corrected", seed, 0.53 + 0.02 * seed, 0.63 - 0.03 * seed, spread=0.002)
    page, text = write(TABLE, seeds=(0, 1, 2))
    assert "| other | 0.550 ± 0.020 | 0.600 ± 0.030 | 3 |" in text
    assert "Comparisons, recipe **corrected**:" in text and "**thesis**:" not in text.partition("Comparisons")[2]
    assert "- **“other” is better than “base” in mAP:** +0.050 [+0.0" in text
    assert "- not resolved: “other” against “base” in mIoU, " in text and "(3 seeds)" in text
    assert page.count('class="better"') == 1 and "0.530, 0.550, 0.570" in page
    assert "better than “base” in mIoU" not in page + text


def test_a_store_that_changed_between_two_runs_is_named(report):
    folder, write = report
    filled = Row("filled", {"supervision": {"detection": {"policy": "fill", "store": "detection"}}})
    table = Study("made/filled", "Filled", "Who?", {"corrected": (filled,)})
    for seed, more in ((0, {}), (1, {"audit": {"temperature": 0.5}}), (2, {"weights": "2", "size": 9})):
        run = finish(folder, filled, "corrected", seed, 0.5, 0.6)
        result = json.loads((run / "result.json").read_text())
        result["stores"] = {"detection": [{"kind": "onnx", "weights": "1", **more}], "segmentation": []}
        (run / "result.json").write_text(json.dumps(result))
    page, text = write(table, seeds=(0, 1, 2))
    told = "stores/detection-Segmentation-train (size, weights)"
    assert f"- **not the same for all runs**, and what differs: {told}\n" in text
    assert f"<dt>not the same for all runs</dt><dd>{told}</dd>" in page
    assert "- audits used: stores/detection-Segmentation-train in 1 of 3 runs\n" in text
    assert "<dt>audits used</dt><dd>stores/detection-Segmentation-train in 1 of 3 runs</dd>" in page
    assert all("not the same for all runs" not in content for content in write(table, seeds=(0, 1)))


def test_an_interval_that_ends_at_a_printed_zero_is_not_resolved():
    found = [
        sentences(Comparison("corrected", "a", "b", (0, 1), {"mAP": Interval(0.5, 0.52, 0.02, low, 0.05)}))[0]
        for low in (0.0004, 0.0006)
    ]
    assert [each["verdict"] for each in found] == [None, "better"]
    assert [each["numbers"] for each in found] == ["+0.020 [+0.000, +0.050]", "+0.020 [+0.001, +0.050]"]


def test_a_row_that_both_recipes_have_is_compared_across_them(report):
    folder, write = report
    for seed in (0, 1, 2):
        finish(folder, BASE, "corrected", seed, 0.50, 0.60, spread=0.002)
        finish(folder, BASE, "thesis", seed, 0.46, 0.60, spread=0.002)
    finish(folder, OTHER, "corrected", 0, 0.50, 0.60)
    page, text = write(TABLE, seeds=(0, 1, 2))
    between = text.partition("Row by row, recipe **corrected** against recipe **thesis**:")[2]
    assert "- **“base, corrected” is better than “base, thesis” in mAP:** +0.040 [+0.0" in between
    assert "- not resolved: “base, corrected” against “base, thesis” in mIoU, +0.000" in between
    assert "other, corrected" not in text  # the thesis' run of it is missing
    assert page.count("<h3>Row by row, recipe corrected against recipe thesis</h3>") == 1


def test_one_seed_or_two_and_worse(report):
    folder, write = report
    finish(folder, BASE, "corrected", 0, 0.50, 0.60)
    finish(folder, OTHER, "corrected", 0, 0.40, 0.60)
    page, text = write(TABLE)
    assert "- “other” seems worse than “base” in mAP: -0.100" in text
    assert "(one seed: only the images' noise is in the interval)" in text
    assert "seems worse" in page and 'class="worse"' not in page + text
    for seed in (1, 2):
        assert 'class="worse"' not in write(TABLE, seeds=(0, 1, 2))[0]
        finish(folder, BASE, "corrected", seed, 0.50, 0.60)
        finish(folder, OTHER, "corrected", seed, 0.40, 0.60)
    page, text = write(TABLE, seeds=(0, 1, 2))
    assert "- **“other” is worse than “base” in mAP:** -0.100" in text and page.count('class="worse"') == 1
    assert "| base | 0.626 | - | 0.602 | - | 0 |" in text  # the thesis' value stands there without a run


def test_what_is_missing_and_failed_is_named(report):
    folder, write = report
    run = finish(folder, BASE, "corrected", 0, 0.5, 0.6)
    (run / "result.json").unlink()
    (run / "failed.txt").write_text("the loss is not finite at step 3\n")
    page, text = write(TABLE)
    assert "- base (corrected, seed 0): the loss is not finite at step 3\n" in text
    assert "9 runs are missing; `tutored study run made/table --out S` makes them." in text
    assert "- other (thesis, seed 1)\n" in text and "<li>other (thesis, seed 1)</li>" in page
    assert "0 of 10 finished, 1 failed, 9 missing" in page
    assert "base (corrected, seed 0)" not in text.partition("are missing")[2]


def test_nothing_is_there_yet(report):
    _, write = report
    page, text = write(TABLE, CURVE, ONE_TASK, tutors=None, photos=True)
    assert "not known yet" in page and "<svg" not in page and "](charts/" not in text
    assert "The tutors themselves" not in page + text


def test_names_are_escaped(report):
    folder, write = report
    answer(finish(folder, ODD, "corrected", 0, 0.5, 0.6))
    page, text = write(TABLE)
    assert "made &lt;up&gt;" in page and "<up>" not in page
    assert "a &lt; b | c" in page and "a < b" not in page
    assert "| a \\< b \\| c |" in text and "# Studies on made \\<up>" in text


def test_the_same_results_give_the_same_bytes_and_the_page_needs_nothing_else(report):
    folder, write = report
    for study in (TABLE, CURVE):
        for recipe, rows in study.rows.items():
            for row in rows:
                finish(folder, row, recipe, 0, 0.5, 0.6)
    answer(finish(folder, BASE, "corrected", 0, 0.5, 0.6))
    first = write(TABLE, CURVE)
    charts = {path.name: path.read_text() for path in (folder / "out" / "charts").iterdir()}
    assert first == write(TABLE, CURVE)
    assert charts == {path.name: path.read_text() for path in (folder / "out" / "charts").iterdir()}
    page, text = first
    ids = re.findall(r'<[^>]* id="([^"]*)"', page)
    targets = re.findall(r'<[^>]* (?:xlink:)?(?:href|src)="([^"]*)"', page)
    assert len(ids) == len(set(ids)) and len(targets) > 50
    assert all(target.startswith("data:image/jpeg;base64,") or target[1:] in ids for target in targets)
    assert not re.findall(r"<script|<link|@import|url\((?!#)", page)
    assert set(charts) == {
        "made-curve-map.svg", "made-curve-miou.svg", "made-table-corrected-ap.svg", "made-table-corrected-iou.svg",
        "made-table-thesis-ap.svg", "made-table-thesis-iou.svg",
    }  # fmt: skip
    assert all(f"](charts/{name})" in text for name in charts)
    assert all("var(--ink)" in svg and "prefers-color-scheme" in svg for svg in charts.values())
    assert str(folder) not in page + text and "nowhere" not in page + text and "voc:VOC2012: small split" in page


def test_tutors_and_cost(report):
    folder, write = report
    for row in CURVE.rows["corrected"]:
        finish(folder, row, "corrected", 0, 0.5, 0.6)
    _, text = write(CURVE, TABLE)
    # 8 runs of the curve and 10 of the table, of which the table's three corrected rows are also the curve's.
    assert "runs: 4 of 12 finished, 0 failed, 8 missing" in text
    epochs = SETTING.run["train"]["epochs"]
    assert f"cost: 0.4 hours of training, {96 * epochs / 360:.0f} images/s a process (median)" in text
    assert "- machine: cpu (x), 1 thread\n- versions: python 3.11, torch 2.8\n" in text
    assert (
        "| detection | 0.812 |  | Faster R-CNN: mAP 0.798 |\n| segmentation |  | 0.833 | Mask R-CNN: mIoU 0.756 |"
        in text
    )


def test_a_curve_has_a_line_for_us_and_one_for_the_thesis(report):
    folder, write = report
    for seed in (0, 1):
        finish(folder, BASE, "corrected", seed, 0.5, 0.6 + 0.02 * seed)
        for row in POINTS[:2]:
            finish(folder, row, "corrected", seed, 0.5, 0.1 * row.x + 0.02 * seed)
    write(CURVE)
    panel = Figure().subplots()
    draw_curve(panel, gather(CURVE, SETTING, (0, 1), folder), "mIoU")
    lines = {line.get_label(): line for line in panel.get_lines()}
    assert set(lines) == {"corrected: line", "corrected: base", "printed in the thesis", "printed in the thesis: base"}
    assert lines["corrected: line"].get_xydata().tolist() == pytest.approx(np.array([[1, 0.11], [2, 0.21]]))
    assert lines["printed in the thesis"].get_xdata().tolist() == [1.0, 2.0, 4.0]
    spreads, band = panel.collections
    assert np.array(spreads.get_segments()) == pytest.approx(np.array([[[1, 0.1], [1, 0.12]], [[2, 0.2], [2, 0.22]]]))
    assert band.get_paths()[0].get_extents().extents.tolist() == pytest.approx([1, 0.1, 2, 0.22])
    draw_curve(level := Figure().subplots(), gather(CURVE, SETTING, (2,), folder), "mIoU")
    assert len(level.get_lines()) == 2  # without a run, what is printed alone
    svg = (folder / "out" / "charts" / "made-curve-miou.svg").read_text()
    assert svg.count(">corrected: line<") == 1 and ">negatives<" in svg and 'aria-label="A curve: mIoU"' in svg


def test_a_point_with_one_seed_is_hollow_and_without_a_band(report):
    folder, _ = report
    for row, seeds in zip(POINTS, (2, 2, 1), strict=True):
        for seed in range(seeds):
            finish(folder, row, "corrected", seed, 0.5, 0.1 * row.x + 0.02 * seed)
    draw_curve(panel := Figure().subplots(), gather(CURVE, SETTING, (0, 1), folder), "mIoU")
    line, hollow = panel.get_lines()[:2]
    assert line.get_xdata().tolist() == [1, 2, 4]
    assert hollow.get_xydata().tolist() == pytest.approx(np.array([[4, 0.4]])) and hollow.get_markerfacecolor() == PAPER
    _, band = panel.collections
    assert [path.get_extents().extents.tolist() for path in band.get_paths()] == [pytest.approx([1, 0.1, 2, 0.22])]


def test_a_task_that_was_not_trained_has_no_figures_and_its_row_is_still_shown(report):
    folder, write = report
    answer(finish(folder, BASE, "corrected", 0, 0.5, 0.6))
    answer(finish(folder, BOXES, "corrected", 0, 0.51, None), mask=False)
    answer(finish(folder, MAPS, "corrected", 0, None, 0.61), boxes=False)
    page, text = write(ONE_TASK, seeds=(0,))
    assert "| boxes alone | 0.510 | not trained | 1 |\n| maps alone | not trained | 0.610 | 1 |" in text
    assert page.count("data:image/jpeg") == 3
    assert 'aria-label="maps alone, image a-x: cat"' in page and "photographs and ground truth are left out" in page
    # The third row's colour is the third in both charts, though the second has no maps.
    overlap = (folder / "out" / "charts" / "made-one-task-corrected-iou.svg").read_text()
    assert "#0072b2" in overlap and "#d55e00" not in overlap and "#009e73" in overlap
    assert "0.123" not in page  # cow is not reported


def test_a_run_that_was_validated_on_nothing_is_told_and_the_report_goes_on(report):
    folder, write = report
    run = finish(folder, BASE, "corrected", 0, 0.5, 0.6)
    result = json.loads((run / "result.json").read_text())
    (run / "result.json").write_text(json.dumps({**result, "figures": None}))
    (run / "resamples.npz").unlink()
    finish(folder, OTHER, "corrected", 0, 0.53, 0.63)
    page, text = write(TABLE, ONE_TASK, seeds=(0,))
    assert "| base | not validated | not validated | 1 |\n| other | 0.530 | 0.630 | 1 |" in text
    assert page.count("<td>not validated</td>") == 4 and "Comparisons" not in text


def test_a_shared_run_is_drawn_once_and_photographs_need_the_data_set(report):
    folder, write = report
    answer(finish(folder, BASE, "corrected", 0, 0.5, 0.6))
    page, _ = write(TABLE, ONE_TASK, seeds=(0,))
    assert page.count("data:image/jpeg") == 1 and page.count('href="#picture-0"') == 2
    # VOC's first colour for the one class that was drawn, under each of the two tables.
    assert page.count('<span><i style="background: rgb(128, 0, 0)"></i>cat</span>') == page.count("<i style=") == 2
    with pytest.raises(InputError, match="no folder"):
        write(TABLE, photos=True)


def test_photographs_and_ground_truth_are_shown_only_where_they_are_asked_for(report, voc_folder):
    folder, write = report
    run = finish(folder, BASE, "corrected", 0, 0.5, 0.6)
    answer(run)
    assert "photographs and ground truth are left out" in write(TABLE)[0]
    there = SETTING.model_copy(update={"data": f"voc:{voc_folder}", "evaluation": "Segmentation/val"})
    shown = open_dataset(there.data, there.evaluation).ids[0]
    height, width = open_dataset(there.data, there.evaluation).ground_truth(shown).size
    (run / "answers" / "a-x.png").unlink()
    boxes = {"size": [height, width], "boxes_xyxy": [], "classes": [], "scores": []}
    (run / "answers" / "boxes.json").write_text(json.dumps({shown: boxes}))
    outcomes = [gather(TABLE, SETTING, (0,), folder)]
    pages = [
        write_report(outcomes, there, folder / str(photos), seeds=(0,), command=str, photos=photos)[0].read_text()
        for photos in (False, True)
    ]
    plain, photographed = pages
    assert plain.count("data:image/jpeg") == 1 and "drawn by people" not in plain
    assert "photographs and ground truth are left out" in plain
    assert photographed.index(f'aria-label="drawn by people, image {shown}: ') < photographed.index(
        f'"base, image {shown}: nothing"'
    )
    assert photographed.count("data:image/jpeg") == 2 and "left out" not in photographed
    assert str(voc_folder) not in photographed


def test_a_damaged_run_is_named_with_what_to_do(report):
    folder, write = report
    base, other = (finish(folder, row, "corrected", 0, 0.5, 0.6) for row in (BASE, OTHER))
    answer(other)
    write(TABLE, seeds=(0,))
    boxes = other / "answers" / "boxes.json"
    boxes.write_text(boxes.read_text()[:20])
    with pytest.raises(InputError, match=r"answers/boxes\.json: not readable as JSON"):
        write(TABLE, seeds=(0,))
    boxes.unlink()
    kept = Resampled.load(base / "resamples.npz")
    Resampled(kept.values, "others").save(base / "resamples.npz")
    with pytest.raises(InputError, match=f"{other}: validated on other images than {base}; remove the folder"):
        write(TABLE, seeds=(0,))
    (base / "resamples.npz").unlink()
    with pytest.raises(InputError, match="resamples.npz: no resampled figures of a run .*; remove the run's folder"):
        write(TABLE, seeds=(0,))
    for content in (
        "{}",
        "null",
        json.dumps({**json.loads((base / "result.json").read_text()), "images": 0})[:-1] + "x",
    ):
        (base / "result.json").write_text(content)
        assert seconds_left([], folder) == {}, "what is no result tells nothing"
        with pytest.raises(InputError, match=rf"{base}/result\.json: no(t readable| result)"):
            write(TABLE, seeds=(0,))


def test_a_training_that_two_rows_share_is_missing_once(tmp_path):
    twice = Study("made/twice", "Two", "Same?", {"corrected": (BASE, Row("again"), OTHER)})
    assert len(gather(twice, SETTING, (0, 1), tmp_path).missing) == 4


def test_names_of_many_classes_stand_upright():
    for count, slanted in ((6, True), (80, False)):
        classes = [f"class {number}" for number in range(count)]
        drawn = bars({"row": dict.fromkeys(classes, 0.5)}, classes, "AP", "corrected", "made")
        upright = drawn.count("rotate(-90 ") - 1  # the axis' own name
        assert (drawn.count("rotate(-30 "), upright) == ((count, 0) if slanted else (0, count))
