"""The report: what it says, what it must not say, and that it only depends on the results."""

import json
import re

import numpy as np
import pytest

from tutored.evaluate import Resampled
from tutored.studies import Row, Study, gather, load_setting
from tutored.studies.plan import config_of
from tutored.studies.report import write_report

SETTING = load_setting(None, name="made <up>", reported=["cat", "dog"])
TABLE = Study(
    "made/table",
    "A table",
    "Is it?",
    {
        "thesis": (Row("base", printed={"mAP": 0.626, "mIoU": 0.602}), Row("other", {"loss": {"negatives": 2.0}})),
        "corrected": (
            Row("base"),
            Row("other", {"loss": {"negatives": 2.0}}),
            Row("a < b | c", {"loss": {"negatives": 1.0}}),
        ),
    },
    against=(("other", "base"),),
)
CURVE = Study(
    "made/curve",
    "A curve",
    "Where?",
    {
        "corrected": tuple(
            Row(f"x = {x}", {"loss": {"negatives": x}}, "line", x, printed={"mIoU": x / 10}) for x in (1.0, 2.0, 3.0)
        )
    },
    axis="negatives",
    figures=("mIoU",),
)


def finish(folder, row, recipe, seed, map_area, miou, spread=0.001):
    """Write a run's results by hand; its resamples deviate evenly by `spread`."""
    config = config_of(row, recipe, SETTING, seed)
    run = folder / "runs" / config.run_id
    run.mkdir(parents=True, exist_ok=True)
    by_class = {"cat": map_area, "dog": map_area, "cow": None}
    figures = {
        "classes": ["cat", "dog"],
        "mAP_voc_area@.5": map_area,
        "mIoU": miou,
        "AP_voc_area@.5": by_class,
        "IoU": {"background": 0.9, **by_class},
        "objects": {"cat": 3, "dog": 4, "cow": 0},
    }
    result = {
        "figures": figures,
        "images": 100,
        "seconds": 360.0,
        "device": "cpu (x)",
        "threads": 1,
        "versions": {"python": "3.11", "torch": "2.8"},
        "config": config.to_dict(),
    }
    (run / "result.json").write_text(json.dumps(result))
    noise = np.linspace(-spread, spread, 101)[:, None] * [[1.0, 1.0]]
    noise = np.concatenate([np.zeros((1, 2)), noise if recipe == "corrected" else -noise])
    Resampled(np.array([[map_area, miou]]) + noise * (seed + 1), "the same").save(run / "resamples.npz")
    return run


@pytest.fixture
def report(tmp_path):
    def write(*studies, seeds=(0, 1)):
        outcomes = [gather(study, SETTING, seeds, tmp_path) for study in studies]
        tutors = {"detection": {"mAP_voc_area@.5": 0.8125}, "segmentation": {"mIoU": 0.833}}
        command = "tutored study run NAME --out S"
        paths = write_report(outcomes, SETTING, tmp_path / "out", seeds=seeds, command=command, tutors=tutors)
        return tuple(path.read_text() for path in paths)

    return tmp_path, write


def test_better_is_said_only_where_the_interval_excludes_zero(report):
    folder, write = report
    base, other, _ = TABLE.rows["corrected"]
    for seed in (0, 1):
        finish(folder, base, "corrected", seed, 0.50, 0.60)
        # mAP: +.03 and +.05, both far above the noise. mIoU: +.03 and -.02.
        finish(folder, other, "corrected", seed, 0.53 + 0.02 * seed, 0.63 - 0.05 * seed, spread=0.002)
    page, text = write(TABLE)
    assert "| other | 0.540 ± 0.014 | 0.605 ± 0.035 | 2 |" in text
    assert "- mAP, corrected: **“other” is better than “base”**, +0.040 [+0.0" in text
    assert "- mIoU, corrected: “other” against “base”: not resolved, +0.005 [-0.0" in text
    assert "(2 seeds)" in text
    assert page.count('class="better"') == 1 and "0.530, 0.550" in page


def test_one_seed_and_worse(report):
    folder, write = report
    base, other, _ = TABLE.rows["corrected"]
    finish(folder, base, "corrected", 0, 0.50, 0.60)
    finish(folder, other, "corrected", 0, 0.40, 0.60)
    _, text = write(TABLE)
    assert "**“other” is worse than “base”**, -0.100" in text
    assert "(one seed, so the interval holds the images' noise only)" in text
    assert "| base | 0.626 |" in text  # the thesis' value stands there without a run


def test_what_is_missing_and_failed_is_named(report):
    folder, write = report
    run = finish(folder, TABLE.rows["corrected"][0], "corrected", 0, 0.5, 0.6)
    (run / "result.json").unlink()
    (run / "failed.txt").write_text("the loss is not finite at step 3\n")
    page, text = write(TABLE)
    assert "Failed: base (corrected, seed 0) (the loss is not finite at step 3)" in text
    assert "9 runs are missing; `tutored study run made/table --out S` makes them." in text
    assert "other (thesis, seed 1)" in page


def test_names_are_escaped(report):
    folder, write = report
    finish(folder, TABLE.rows["corrected"][2], "corrected", 0, 0.5, 0.6)
    page, text = write(TABLE)
    assert "made &lt;up&gt;" in page and "<up>" not in page
    assert "a &lt; b | c" in page and "| a < b \\| c |" in text


def test_the_same_results_give_the_same_bytes_and_the_page_needs_nothing_else(report):
    folder, write = report
    for recipe, rows in TABLE.rows.items():
        for row in rows:
            finish(folder, row, recipe, 0, 0.5, 0.6)
    for row in CURVE.rows["corrected"]:
        finish(folder, row, "corrected", 0, 0.5, 0.6)
    first = write(TABLE, CURVE)
    assert first == write(TABLE, CURVE)
    page, text = first
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    charts = {path.name for path in (folder / "out" / "charts").iterdir()}
    assert charts == {
        "made-curve.svg", "made-table-corrected-ap.svg", "made-table-corrected-iou.svg", "made-table-thesis-ap.svg",
        "made-table-thesis-iou.svg",
    }  # fmt: skip
    assert all(f"charts/{name}" in text for name in charts)
    assert "0.812" in text and "Faster R-CNN: mAP 0.798" in text
    assert "runs: 5 of 10 finished" in text and "cost: 0.5 hours of training" in text  # the curve's are the table's
    assert str(folder) not in page + text


def test_a_curve_has_a_line_for_us_and_one_for_the_thesis(report):
    folder, write = report
    for seed in (0, 1):
        for row in CURVE.rows["corrected"]:
            finish(folder, row, "corrected", seed, 0.5, 0.1 * row.x + 0.01 * seed)
    write(CURVE)
    svg = (folder / "out" / "charts" / "made-curve.svg").read_text()
    assert "corrected: line" in svg and "thesis (VOC2012)" in svg and "negatives" in svg
    assert "var(--ink)" in svg and "prefers-color-scheme" in svg
    assert svg.count("FillBetween") + svg.count("PolyCollection") >= 1


def test_answers_are_shown_without_photographs(report):
    import torch

    from tutored.visualise import save_mask

    folder, write = report
    run = finish(folder, TABLE.rows["corrected"][0], "corrected", 0, 0.5, 0.6)
    mask = torch.zeros(40, 60, dtype=torch.uint8)
    mask[10:20, 10:30] = 1
    save_mask(mask, run / "answers" / "x.png")
    boxes = {"x": {"size": [40, 60], "boxes_xyxy": [[10, 10, 30, 20]], "classes": [1], "scores": [0.9]}}
    (run / "answers" / "boxes.json").write_text(json.dumps(boxes))
    page, _ = write(TABLE)
    assert page.count("data:image/jpeg") == 1 and "photographs left out" in page
