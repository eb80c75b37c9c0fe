"""Training images that are kept out of training, to choose settings on."""

import pytest

from made import TINY, MadeDataset
from tutored.config import make_config
from tutored.data.part import hold_out
from tutored.data.sources import ranks
from tutored.data.training import TrainingSet
from tutored.engine import train
from tutored.engine.supervision import open_supervision
from tutored.errors import InputError

WHOLE = MadeDataset(100)


@pytest.fixture(scope="module")
def folder(make_voc, tmp_path_factory):
    return make_voc(tmp_path_factory.mktemp("held-out"), {"train": ("both",) * 10, "val": ("both",) * 2})


def config(folder, held_out=0.3, data=None, **sections):
    plain = {"epochs": 1, "batch": 4, "workers": 0, "device": "cpu", "threads": 1}
    return make_config(
        {
            "data": {"train": f"voc:{folder}", "held_out": held_out, **(data or {})},
            "student": TINY,
            **sections,
            "train": {**plain, **sections.get("train", {})},
        }
    )


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.99])
def test_the_two_parts_are_the_whole_in_its_order(share):
    left, out = hold_out(WHOLE, share, seed=0)
    assert len(out.ids) == round(100 * share)
    assert not set(left.ids) & set(out.ids)
    for part in (left, out):
        assert part.ids == tuple(image_id for image_id in WHOLE.ids if image_id in part.ids)
    assert set(left.ids) | set(out.ids) == set(WHOLE.ids)


def test_a_larger_share_holds_out_a_superset():
    held = [set(hold_out(WHOLE, share, seed=0)[1].ids) for share in (0.1, 0.2, 0.5, 0.9)]
    assert held[0] < held[1] < held[2] < held[3]
    assert held[2] != set(hold_out(WHOLE, 0.5, seed=1)[1].ids)


def test_a_part_shows_what_the_whole_has():
    left, out = hold_out(WHOLE, 0.2, seed=0)
    image_id = out.ids[0]
    assert out.image(image_id).tobytes() == WHOLE.image(image_id).tobytes()
    assert out.ground_truth(image_id).boxes_xyxy.equal(WHOLE.ground_truth(image_id).boxes_xyxy)
    assert out.annotated_tasks(image_id) == ("detection", "segmentation")
    assert (left.labels, left.source) == (WHOLE.labels, WHOLE.source)
    assert (left.name, out.name) == ("made (without the held-out part)", "made (held out)")
    assert left.split != out.split, "a result says which part it is of"


@pytest.mark.parametrize(("images", "share"), [(1, 0.1), (2, 0.6), (10, 0.95)])
def test_a_share_that_leaves_nothing_is_refused(images, share):
    with pytest.raises(InputError, match=f"made: {share:.0%} of {images} images can't be held out; give another share"):
        hold_out(MadeDataset(images), share, seed=0)


@pytest.mark.parametrize("share", [1.0, -0.1])
def test_a_share_that_is_none_is_refused(folder, share):
    with pytest.raises(InputError, match=f"data.held_out: .*got {share}"):
        config(folder, share)


def test_every_seed_of_training_holds_out_the_same_and_validates_on_it(folder):
    opened = [open_supervision(config(folder, train={"seed": seed})) for seed in (0, 1, 2)]
    assert {each.val.ids for each in opened} == {opened[0].val.ids}
    assert {each.train.ids for each in opened} == {opened[0].train.ids}
    assert len(opened[0].val.ids) == 3 and len(opened[0].train.ids) == 7
    other = [open_supervision(config(folder, supervision={"seed": seed})).val.ids for seed in range(5)]
    assert other[0] == opened[0].val.ids and len(set(other)) > 1


@pytest.mark.parametrize("data", [{"val_split": None}, {"val_split": "train"}, {"val": "voc:absent"}])
def test_the_held_out_part_takes_the_place_of_val(folder, data):
    held_out = open_supervision(config(folder, data=data)).val
    assert all(image_id.startswith("train") for image_id in held_out.ids)
    assert open_supervision(config(folder, 0.0)).val.ids == ("val_000", "val_001")


def test_a_run_is_validated_on_the_held_out_part(folder, tmp_path):
    result = train(config(folder), tmp_path / "run")
    assert result["figures"]["images"] == 3


def test_images_are_hidden_among_those_that_are_left_nested_and_in_the_wholes_order():
    left, out = hold_out(WHOLE, 0.2, seed=0)
    hidden = []
    for share in (0.25, 0.5):
        task = {"hidden": share}
        run = make_config({"data": {"train": "made"}, "supervision": {"detection": task}, "train": {"seed": 7}})
        drawn = TrainingSet(left, run, 8).drawn["detection"]
        assert not drawn & set(out.ids)
        hidden.append(set(left.ids) - drawn)
    assert [len(each) for each in hidden] == [20, 40]
    places = ranks(WHOLE.ids, 0, "detection")
    order = sorted(left.ids, key=lambda image_id: places[image_id])
    assert hidden == [set(order[:20]), set(order[:40])]
