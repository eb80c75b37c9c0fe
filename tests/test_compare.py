"""`tutored compare` on runs with known figures."""

import json

import numpy as np
import pytest

from tutored.cli import main
from tutored.config import make_config
from tutored.errors import InputError
from tutored.evaluate import Resampled, compare_runs

NAMES = ("detection/mAP_voc_area@.5", "segmentation/mIoU")


@pytest.fixture
def run(tmp_path):
    """A finished run's folder with these figures on the images and on every resample of them."""

    def make(name, seed, figures=(0.5, 0.5), *, images="val", names=NAMES, classes=("cat",), **keys):
        given = {"data": {"train": "voc:data"}, **keys}
        config = make_config(given | {"train": {**given.get("train", {}), "seed": seed}})
        told = {name.partition("/")[0]: {"classes": list(classes)} for name in names}
        folder = tmp_path / name
        folder.mkdir()
        (folder / "result.json").write_text(json.dumps({"config": config.to_dict(), "figures": told}))
        Resampled(np.full((101, len(names)), figures[: len(names)]), names, images).save(folder / "resamples.npz")
        return folder

    return make


def test_three_seeds_against_three(run, tmp_path, capsys):
    # mAP gains .1 with every seed; mIoU gains 0, .1 and .2: .1 -+ 4.303 * .1 / sqrt(3), as in test_evaluate.
    long, short = ({"train": {"epochs": epochs}} for epochs in (30, 10))
    mine = [run(f"mine-{seed}", seed, (0.5 + seed / 10, 0.6 + seed / 10), **long) for seed in (2, 0, 1)]
    theirs = [run(f"theirs-{seed}", seed, (0.4 + seed / 10, 0.6), **short) for seed in (0, 1, 2)]
    words = [*mine, *(word for each in theirs for word in ("--against", each)), "--json", tmp_path / "found.json"]
    assert main(["compare", *map(str, words)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "detection/mAP_voc_area@.5: 0.600 against 0.500, +0.100 [+0.100, +0.100] is better" in lines
    assert "segmentation/mIoU: 0.700 against 0.600, +0.100 [-0.148, +0.348] not resolved" in lines
    assert "95 % intervals over images and seeds 0, 1, 2" in lines
    assert "differs: train.epochs: 30 against 10" in lines
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["seeds"] == [0, 1, 2] and found["differences"] == ["train.epochs: 30 against 10"]
    assert found["intervals"]["segmentation/mIoU"]["p"] == pytest.approx(0.2254, abs=1e-4)


@pytest.mark.parametrize(("seeds", "told"), [((4,), "over images alone: with one seed"), ((0, 1), "two say little")])
def test_few_seeds_only_seem(run, capsys, seeds, told):
    mine = [run(f"mine-{seed}", seed, (0.6, 0.5)) for seed in seeds]
    theirs = [run(f"theirs-{seed}", seed, (0.4, 0.5)) for seed in seeds]
    against = [str(word) for each in theirs for word in ("--against", each)]
    assert main(["compare", *map(str, mine), *against]) == 0
    out = capsys.readouterr().out
    assert "+0.200 [+0.200, +0.200] seems better" in out and told in out


def test_a_difference_in_hidden_images_is_named(run):
    mine, alike = ([run(f"{s}-{i}", i, data={"train": "voc:data", "seed": i}) for i in (0, 1)] for s in "ab")
    others = [run(f"c-{i}", i) for i in (0, 1)]
    assert compare_runs(mine, alike).differences == ()
    assert compare_runs(mine, others).differences == ("data.seed: 0 against 0, 1 against 0",)


def test_only_figures_that_all_have_are_compared(run):
    both, boxes, maps = run("both", 0), run("boxes", 0, names=NAMES[:1]), run("maps", 0, names=NAMES[1:])
    assert list(compare_runs([both], [boxes]).intervals) == [NAMES[0]]
    with pytest.raises(InputError, match="no figure that all of them have"):
        compare_runs([boxes], [maps])


def test_what_can_not_be_compared(run, tmp_path):
    one, other, elsewhere = run("a", 0), run("b", 1), run("c", 0, images="test")

    def refused(message, runs, against):
        with pytest.raises(InputError, match=message):
            compare_runs(runs, against)

    refused("no finished run", [tmp_path / "nowhere"], [one])
    refused("seeds 1 against 0; give runs of the same seeds", [other], [one])
    refused("both have train.seed 0; give each seed once", [one, elsewhere], [one, other])
    refused("validated on different images", [elsewhere], [one])
    (elsewhere / "resamples.npz").unlink()
    refused("no resampled figures of a run", [elsewhere], [one])
    config = '"config": {"data": {"train": "voc:x"}}'
    for content, message in (
        ("{}", "no result of a run"),
        (f"{{{config}}}", "'figures'"),
        (f'{{{config}, "figures": {{"detection": 1}}}}', "no result of a run"),
        (f'{{{config}, "figures": null}}', "not validated"),
    ):
        (elsewhere / "result.json").write_text(content)
        refused(message, [elsewhere], [one])
