"""`tutored compare` on runs with known figures."""

import json
from pathlib import Path

import numpy as np
import pytest

from tutored.cli import main
from tutored.config import make_config
from tutored.evaluate import Resampled


@pytest.fixture
def run(tmp_path):
    """A finished run's folder with these figures on the images and on every resample of them."""

    def make(
        name: str, seed: int, figures: tuple[float, float], images: str = "val", hides: int = 0, **train: int
    ) -> Path:
        train["seed"] = seed
        config = make_config({"data": {"train": "voc:data"}, "train": train, "supervision": {"seed": hides}})
        folder = tmp_path / name
        folder.mkdir()
        (folder / "result.json").write_text(json.dumps({"config": config.to_dict(), "figures": {}}))
        Resampled(np.full((1001, 2), figures), images).save(folder / "resamples.npz")
        return folder

    return make


def compared(*words: object) -> int:
    return main(["compare", *map(str, words)])


def test_three_seeds_against_three(run, tmp_path, capsys):
    # mAP gains .1 with every seed; mIoU gains 0, .1 and .2: the interval is .1 -+ .1 sqrt(3/2), as in test_evaluate.
    mine = [run(f"mine-{seed}", seed, (0.5 + seed / 10, 0.6 + seed / 10), epochs=30) for seed in (2, 0, 1)]
    theirs = [run(f"theirs-{seed}", seed, (0.4 + seed / 10, 0.6), epochs=10) for seed in (0, 1, 2)]
    assert compared(*mine, "--against", *theirs, "--json", tmp_path / "found.json") == 0
    assert capsys.readouterr().out.splitlines() == [
        "mAP_voc_area@.5: 0.600 against 0.500, +0.100 [+0.100, +0.100] is better",
        "mIoU: 0.700 against 0.600, +0.100 [-0.022, +0.222] not resolved",
        "95 % intervals over images and seeds 0, 1, 2",
        "differs: train.epochs: 30 against 10",
        f"wrote {tmp_path / 'found.json'}",
    ]
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["seeds"] == [0, 1, 2] and found["differences"] == ["train.epochs: 30 against 10"]
    assert found["intervals"]["mIoU"]["b"] == pytest.approx(0.7)


def test_one_seed_only_seems(run, capsys):
    assert compared(run("mine", 4, (0.3, float("nan"))), "--against", run("theirs", 4, (0.4, 0.5))) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == "mAP_voc_area@.5: 0.300 against 0.400, -0.100 [-0.100, -0.100] seems worse"
    assert "over images alone: with one seed" in second


def test_two_seeds_only_seem(run, capsys):
    mine = [run(f"mine-{seed}", seed, (0.6, 0.5)) for seed in (0, 1)]
    theirs = [run(f"theirs-{seed}", seed, (0.4, 0.5)) for seed in (0, 1)]
    assert compared(*mine, "--against", *theirs) == 0
    first, _, third = capsys.readouterr().out.splitlines()
    assert first.endswith("+0.200 [+0.200, +0.200] seems better")
    assert third == "95 % intervals over images and seeds 0, 1: two say little of seeds' spread; train three of each"


def test_runs_of_one_side_that_are_not_alike_are_named(run, capsys):
    mine = run("a", 0, (0.5, 0.5)), run("b", 1, (0.5, 0.5), epochs=2)
    theirs = run("c", 0, (0.5, 0.5)), run("d", 1, (0.5, 0.5))
    assert compared(*mine, "--against", *theirs) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "differs: within one side: train.epochs"


def test_other_hidden_images_are_named_where_the_two_sides_differ_in_them(run, capsys):
    mine = [run(f"mine-{seed}", seed, (0.5, 0.5), hides=seed) for seed in (0, 1)]
    alike = [run(f"alike-{seed}", seed, (0.5, 0.5), hides=seed) for seed in (0, 1)]
    others = [run(f"others-{seed}", seed, (0.5, 0.5)) for seed in (0, 1)]
    assert compared(*mine, "--against", *alike) == 0
    assert "differs" not in capsys.readouterr().out
    assert compared(*mine, "--against", *others) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "differs: supervision.seed: 0 against 0, 1 against 0"


def test_runs_without_a_common_figure_are_told(run, capsys):
    boxes, maps = run("boxes", 0, (0.5, float("nan"))), run("maps", 0, (float("nan"), 0.5))
    assert compared(boxes, "--against", maps) == 2
    told = capsys.readouterr()
    assert f"{boxes}, {maps}: no figure that all of them have; mAP is there where boxes were taught" in told.err
    assert told.out == ""


def test_the_order_of_classes_is_no_difference(run, capsys):
    folders = [run("mine", 0, (0.5, 0.5)), run("theirs", 0, (0.5, 0.5))]
    for folder, classes in zip(folders, (["cat", "dog"], ["dog", "cat"]), strict=True):
        written = json.loads((folder / "result.json").read_text())
        (folder / "result.json").write_text(json.dumps({**written, "figures": {"classes": classes}}))
    assert compared(folders[0], "--against", folders[1]) == 0


def test_what_can_not_be_compared(run, tmp_path, capsys):
    one, other, elsewhere = run("a", 0, (0.5, 0.5)), run("b", 1, (0.5, 0.5)), run("c", 0, (0.5, 0.5), images="test")

    def complaint(*words: object) -> str:
        assert compared(*words) == 2
        return capsys.readouterr().err

    assert "result.json is missing" in complaint(tmp_path / "nowhere", "--against", one)
    assert "seeds 1 against 0; give runs of the same seeds" in complaint(other, "--against", one)
    assert "both have train.seed 0; give each seed once" in complaint(one, elsewhere, "--against", one, other)
    assert f"{elsewhere} and {one}: validated on different images" in complaint(elsewhere, "--against", one)
    (elsewhere / "resamples.npz").unlink()
    assert "no resampled figures of a run" in complaint(elsewhere, "--against", one)
    for content, message in (("{}", "no result of a run"), ('{"config": {"data": {"train": "voc:x"}}}', "'figures'")):
        (elsewhere / "result.json").write_text(content)
        assert message in complaint(elsewhere, "--against", one)
    (elsewhere / "result.json").write_text('{"config": {"data": {"train": "voc:x"}}, "figures": null}')
    assert "not validated" in complaint(elsewhere, "--against", one)
    assert "required: --against" in complaint(one)


def test_means_over_different_classes_are_not_compared(run, capsys):
    one, other = run("a", 0, (0.5, 0.5)), run("b", 0, (0.6, 0.5))
    for folder, classes in ((one, ["cat", "dog"]), (other, ["bus"])):
        content = json.loads((folder / "result.json").read_text())
        (folder / "result.json").write_text(json.dumps(content | {"figures": {"classes": classes}}))
    assert compared(one, "--against", other) == 2
    assert "means over different classes, cat, dog and bus; compare runs with the same data.reported" in (
        capsys.readouterr().err
    )
