"""The codec, the store and the folding of soft labels."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np

from tutored.errors import InputError
from tutored.labels import COCO, VOC, ClassMap, LabelSpace
from tutored.softlabels import Folded, Store, draw_map
from tutored.softlabels.block import Block
from tutored.softlabels.codec import SCHEMA, quantise, to_table
from tutored.softlabels.decode import from_table
from tutored.softlabels.index import Index
from tutored.softlabels.manifest import read_manifest
from tutored.softlabels.store import indexed_ids
from tutored.softlabels.writer import claim, finish, look, write_part
from tutored.structures import Instances, SoftLabels

PETS = LabelSpace.of(["cat", "dog"])
IDENTITY = {"kind": "made", "weights_sha256": "ab", "score_floor": 0.01, "labels": list(PETS.names), "images": 3}


def boxes(*rows: tuple[list[float], int, list[float]]) -> dict[str, torch.Tensor]:
    return {
        "boxes_xyxy": torch.tensor([row[0] for row in rows], dtype=torch.float32).reshape(-1, 4),
        "classes": torch.tensor([row[1] for row in rows], dtype=torch.int64),
        "probs": torch.tensor([row[2] for row in rows], dtype=torch.float32).reshape(-1, 3),
    }


def instances(*rows: tuple[list[float], int, float, torch.Tensor]) -> Instances:
    return Instances(
        boxes_xyxy=torch.tensor([row[0] for row in rows], dtype=torch.float32).reshape(-1, 4),
        classes=torch.tensor([row[1] for row in rows], dtype=torch.int64),
        scores=torch.tensor([row[2] for row in rows], dtype=torch.float32),
        masks=torch.stack([row[3] for row in rows]) if rows else torch.zeros(0, 4, 4),
    )


ANSWERS = {
    "full": SoftLabels(
        size=(40, 60),
        **boxes(([1.5, 2, 33.125, 40], 1, [0.1, 0.7, 0.2]), ([0, 0, 60, 40], 2, [0.9996, 0.0003, 0.0001])),
        map=torch.tensor([[[1.0, 0.5]], [[0.0, 0.25]], [[0.0, 0.25]]]),
        instances=instances(([2, 2, 10, 10], 1, 0.7, torch.full((4, 4), 0.6))),
    ),
    "nothing": SoftLabels(size=(4, 6), **boxes(), map=torch.tensor([[[1.0]], [[0]], [[0]]]), instances=instances()),
    "unasked": SoftLabels(size=(4, 6)),
}


def make_store(folder: Path, answers: dict[str, SoftLabels] = ANSWERS, **identity: object) -> Path:
    facts, ids = {**IDENTITY, "images": len(answers), **identity}, list(answers)
    for index in range(0, len(ids), 64):
        part = ids[index : index + 64]
        write_part(folder, facts, index // 64, part, [answers[image_id] for image_id in part])
    assert finish(folder)
    return folder


def test_largest_remainder_by_hand() -> None:
    # 255 / 3 = 85 each; of 2.5 and 1.5 levels and 251 the first of equal remainders gets the missing one.
    assert quantise(np.array([1 / 3, 1 / 3, 1 / 3]), 255).tolist() == [85, 85, 85]
    assert quantise(np.array([2.5, 1.5, 251]) / 255, 255).tolist() == [3, 1, 251]
    # A cell that says only half of everything keeps that; one that says nothing stays silent.
    assert quantise(np.array([[0.25, 0.25], [0, 0]]), 100).tolist() == [[25, 25], [0, 0]]


@given(st_np.arrays(np.float64, st.tuples(st.integers(1, 5), st.integers(2, 21)), elements=st.floats(1e-9, 1)))
def test_quantised_distributions_sum_exactly_stay_near_and_keep_their_order(weights: np.ndarray) -> None:
    probs = weights / weights.sum(-1, keepdims=True)
    for levels in (255, 65535):
        counts = quantise(probs.astype(np.float32), levels)
        assert (counts.sum(-1) == levels).all()
        assert (np.abs(counts / levels - probs) < 1.001 / levels).all()
        first, second = np.sort(probs, axis=-1)[:, ::-1][:, :2].T
        clear = first - second > 1.001 / levels
        assert (counts.argmax(-1) == probs.argmax(-1))[clear].all()


@given(st.lists(st.integers(0, 255), min_size=2, max_size=9))
def test_what_was_quantised_before_comes_back_to_the_bit(counts: list[int]) -> None:
    counts = [*counts[:-1], 0] if sum(counts) == 0 else counts
    whole = quantise(np.array(counts) / max(sum(counts), 1), 255)
    assert (quantise(whole.astype(np.float32) / 255, 255) == whole).all()


@pytest.mark.parametrize("wrong", [[0.5, 0.6], [-0.1, 1.1], [float("nan"), 0.5]])
def test_what_is_no_distribution_is_not_stored(wrong: list[float]) -> None:
    with pytest.raises(ValueError, match="probabilities"):
        quantise(np.array(wrong), 255)


def test_round_trip(tmp_path: Path) -> None:
    store = Store.open(make_store(tmp_path / "store"))
    assert list(store) == ["full", "nothing", "unasked"] and len(store) == 3 and "other" not in store
    given, read = ANSWERS["full"], store["full"]
    assert read.size == (40, 60)
    assert torch.equal(read.boxes_xyxy, given.boxes_xyxy) and torch.equal(read.classes, given.classes)
    assert torch.equal(read.scores, given.scores), (
        "scores rank boxes over a data set: exact, also below the tail's floor"
    )
    assert read.probs[0] == pytest.approx(torch.tensor([0.1, 0.7, 0.2]), abs=1 / 65535)
    assert read.probs[1] == pytest.approx(torch.tensor([0.9999, 0, 0.0001]), abs=2 / 65535), "the tail is background"
    assert read.map.shape == (3, 1, 2) and read.map == pytest.approx(given.map, abs=1 / 255)
    assert read.map.sum(0) == pytest.approx(torch.ones(1, 2), abs=1e-6)
    assert read.instances.masks == pytest.approx(given.instances.masks, abs=0.5 / 255)
    assert torch.equal(read.instances.boxes_xyxy, given.instances.boxes_xyxy)
    assert read.instances.scores.tolist() == given.instances.scores.tolist()


def test_nothing_there_is_not_the_same_as_not_asked(tmp_path: Path) -> None:
    store = Store.open(make_store(tmp_path / "store"))
    nothing, unasked = store["nothing"], store["unasked"]
    assert nothing.boxes_xyxy.shape == (0, 4) and nothing.probs.shape == (0, 3)
    assert nothing.instances.masks.shape == (0, 4, 4)
    assert nothing.map.tolist() == [[[1]], [[0]], [[0]]]
    assert unasked == SoftLabels(size=(4, 6))


def test_plain_pandas_reads_a_store(tmp_path: Path) -> None:
    table = pandas.read_parquet(make_store(tmp_path / "store") / "part-00000.parquet").set_index("image_id")
    row = table.loc["full"]
    assert row["probs_class"][0].tolist() == [0, 1, 2] and row["probs_class"][1].tolist() == [0, 2]
    assert [int(values.sum()) for values in row["probs_value"]] == [65535, 65535]
    assert row["map_classes"].tolist() == [0, 1, 2]
    values = np.frombuffer(row["map_values"], np.uint8).reshape(3, 1, 2)
    assert values.tolist() == [[[255, 127]], [[0, 64]], [[0, 64]]], "127.5 and twice 63.75 levels"
    assert len(table.loc["nothing", "classes"]) == 0 and table.loc["unasked", "classes"] is None


def test_reading_a_store_leaves_pandas_alone(tmp_path: Path) -> None:
    make_store(tmp_path / "store")
    script = """
import sys
from pathlib import Path
from tutored.softlabels import Store
store = Store.open(Path(sys.argv[1]))
assert store["full"].boxes_xyxy is not None and store["full"].map is not None and store.answers("full", "detection")
sys.exit("pandas" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path / "store")], check=False).returncode == 0


def test_a_store_goes_to_other_processes(tmp_path: Path) -> None:
    store = Store.open(make_store(tmp_path / "store"))
    assert store["full"].size == (40, 60)
    assert pickle.loads(pickle.dumps(store))["full"].size == (40, 60)


def test_random_access_over_many_parts(tmp_path: Path) -> None:
    answers = {
        f"{index:04d}": SoftLabels(size=(4, index + 1), **boxes(([0, 0, index + 1, 4], 1, [0.5, 0.5, 0])))
        for index in range(150)
    }
    store = Store.open(make_store(tmp_path / "store", answers))
    for index in (149, 0, 64, 63, 71, 72, 128):
        assert store[f"{index:04d}"].boxes_xyxy.tolist() == [[0, 0, index + 1, 4]]
    with pytest.raises(KeyError):
        store["0150"]


def test_verify_names_the_damaged_part(tmp_path: Path) -> None:
    folder = make_store(tmp_path / "store")
    Store.open(folder).verify()
    part = folder / "part-00000.parquet"
    content = bytearray(part.read_bytes())
    boxes_column = pq.read_metadata(part).row_group(0).column(3)
    content[boxes_column.data_page_offset + boxes_column.total_compressed_size - 1] ^= 1
    part.write_bytes(content)
    with pytest.raises(InputError, match=r"part-00000\.parquet.*sha256.*--resume"):
        Store.open(folder).verify()


def test_a_damaged_block_is_named_when_it_is_read(tmp_path: Path) -> None:
    folder = make_store(tmp_path / "store")
    part = folder / "part-00000.parquet"
    boxes = pq.read_metadata(part).row_group(0).column(3)
    content = bytearray(part.read_bytes())
    content[boxes.data_page_offset : boxes.data_page_offset + boxes.total_compressed_size] = (
        b"\xff" * boxes.total_compressed_size
    )
    part.write_bytes(content)
    store = Store.open(folder)
    with pytest.raises(InputError, match=r"part-00000\.parquet: it can't be read.*--resume"):
        store["full"]


def test_which_tasks_a_store_answers(tmp_path: Path) -> None:
    silent = {f"u{index}": ANSWERS["unasked"] for index in range(64)}
    for name, answers, tasks in (
        ("both", ANSWERS, ("detection", "segmentation")),
        ("silent", silent, ()),
        ("boxes", {**silent, "a": SoftLabels(size=(4, 6), **boxes())}, ("detection",)),
        ("maps", {"a": SoftLabels(size=(4, 6), map=torch.ones(3, 1, 1) / 3)}, ("segmentation",)),
        ("instances", {"a": SoftLabels(size=(4, 6), instances=instances())}, ("segmentation",)),
    ):
        assert Store.open(make_store(tmp_path / name, answers)).tasks == tasks


def test_a_store_says_for_which_images_it_answers_a_task(tmp_path: Path) -> None:
    """An image that the tutor was not asked about has a row, too."""
    kinds = {
        "boxes": SoftLabels(size=(4, 6), **boxes()),
        "map": SoftLabels(size=(4, 6), map=torch.tensor([[[1.0]], [[0]], [[0]]])),
        "instances": SoftLabels(size=(4, 6), instances=instances()),
        "unasked": SoftLabels(size=(4, 6)),
    }
    answers = {f"{kind}{index}": answer for index in range(20) for kind, answer in kinds.items()}
    store = Store.open(make_store(tmp_path / "store", answers))
    assert not store.answers("other", "detection")
    for task, expected in (("detection", ["boxes"]), ("segmentation", ["map", "instances"])):
        said = [image_id for image_id in store if store.answers(image_id, task)]
        assert said == [f"{kind}{index}" for index in range(20) for kind in expected]
        folded = Folded(store, ClassMap.by_name(PETS, VOC), task=task)
        assert list(folded) == said and len(folded) == len(said) and "unasked3" not in folded and 3 not in folded
        assert folded.get("unasked3") is None and folded["instances3" if task == "segmentation" else "boxes3"]
        assert list(Folded(dict(answers), ClassMap.by_name(PETS, VOC), task=task)) == said
    assert len(Folded(store, ClassMap.by_name(PETS, VOC))) == 80


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "part-00000.parquet").unlink(), r"part-00000\.parquet: it is missing"),
        (
            lambda folder: (folder / "part-00000.parquet").write_bytes(b"PAR1"),
            r"part-00000\.parquet: 4 bytes, .*'bytes' says",
        ),
        (lambda folder: edit(folder, version=2), r"'version' is 2.*update tutored"),
        (lambda folder: edit(folder, format="x"), r"not a store"),
        (lambda folder: edit(folder, complete=False), r"'complete' is false.*--resume"),
        (lambda folder: (folder / "manifest.json").write_text("{"), r"manifest\.json: can't be read"),
        (lambda folder: (folder / "manifest.json").unlink(), r"tutored label. makes one"),
    ],
)
def test_a_broken_store_is_refused(tmp_path: Path, change, message: str) -> None:
    folder = make_store(tmp_path / "store")
    change(folder)
    with pytest.raises(InputError, match=message):
        Store.open(folder)


def edit(folder: Path, **fields: object) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_expect_names_the_fields_that_differ(tmp_path: Path) -> None:
    store = Store.open(make_store(tmp_path / "store"))
    store.expect(kind="made", weights_sha256="ab")
    with pytest.raises(InputError, match=r"'weights_sha256' is 'ab' there, 'cd' is asked for; 'split' is 'not stated'"):
        store.expect(kind="made", weights_sha256="cd", split="val")


@pytest.mark.parametrize("field", ["kind", "weights_sha256", "score_floor", "labels", "images", "new"])
def test_another_identity_may_not_go_on_with_a_store(tmp_path: Path, field: str) -> None:
    folder = make_store(tmp_path / "store")
    with pytest.raises(InputError, match=f"'{field}' is"):
        claim(folder, {**IDENTITY, field: ["background", "x"]}, join=True)


def test_damage_is_not_blessed_when_a_lost_part_is_made_again(tmp_path: Path) -> None:
    answers = {f"{index:03d}": SoftLabels(size=(4, 6)) for index in range(70)}
    folder = make_store(tmp_path / "store", answers)
    before = (folder / "manifest.json").read_bytes()
    (folder / "part-00001.parquet").unlink()
    identity = {**IDENTITY, "images": 70}
    assert not finish(folder) and not look(folder, identity, join=True)
    with (folder / "part-00000.parquet").open("ab") as file:
        file.write(b"x")
    write_part(folder, identity, 1, list(answers)[64:], [SoftLabels(size=(4, 6))] * 6)
    assert finish(folder) and (folder / "manifest.json").read_bytes() == before


def reference_map(instances: Instances, size: tuple[int, int], classes: int, grid: tuple[int, int], rule: str):
    """Cell by cell and instance by instance, masks read by hand between their own cell centres."""
    drawn = np.zeros((classes, *grid))
    for row in range(grid[0]):
        for column in range(grid[1]):
            y, x = (row + 0.5) * size[0] / grid[0], (column + 0.5) * size[1] / grid[1]
            absent, best = np.ones(classes), np.zeros(classes)
            for box, index, score, mask in zip(
                instances.boxes_xyxy.tolist(), instances.classes, instances.scores, instances.masks, strict=True
            ):
                value = read_mask(mask.numpy(), (x - box[0]) / (box[2] - box[0]), (y - box[1]) / (box[3] - box[1]))
                absent[index] *= 1 - float(score) * value
                best[index] = max(best[index], float(score) * (value > 0.5))
            if rule == "noisy_or":
                probs = np.concatenate([[absent.prod()], 1 - absent[1:]])
                drawn[:, row, column] = probs / probs.sum()
            else:
                background = {"one": float(best.max() == 0), "complement": 1 - best.max(), "zero": 0.0}[rule]
                drawn[:, row, column] = [background, *best[1:]]
    return drawn


def read_mask(mask: np.ndarray, across: float, down: float) -> float:
    side = len(mask)
    padded = np.pad(mask, 1)
    u, v = across * side + 0.5, down * side + 0.5
    if not (0 <= u < side + 1 and 0 <= v < side + 1):
        return 0.0
    left, top = int(u), int(v)
    patch = padded[top : top + 2, left : left + 2]
    return float(np.array([1 - (v - top), v - top]) @ patch @ np.array([1 - (u - left), u - left]))


@pytest.mark.parametrize("rule", ["noisy_or", "one", "complement", "zero"])
def test_maps_drawn_from_instances_equal_the_slow_loop(rule: str) -> None:
    generator = torch.Generator().manual_seed(3)
    corner = torch.rand(6, 2, generator=generator) * 30
    side = 8 + torch.rand(6, 2, generator=generator) * 30
    made = Instances(
        boxes_xyxy=torch.cat([corner, corner + side], 1),
        classes=torch.tensor([1, 2, 1, 3, 2, 1]),
        scores=torch.rand(6, generator=generator),
        masks=torch.rand(6, 5, 5, generator=generator),
    )
    drawn = draw_map(made, (50, 64), 4, (13, 16), rule)
    assert drawn.numpy() == pytest.approx(reference_map(made, (50, 64), 4, (13, 16), rule), abs=1e-5)


def test_noisy_or_and_the_thesis_rules_by_hand() -> None:
    # Two cats (.8, .5) and a dog (.5) over the whole of a one-cell image, masks all one.
    whole, ones = [0, 0, 8, 8], torch.ones(4, 4)
    made = instances((whole, 1, 0.8, ones), (whole, 1, 0.5, ones), (whole, 2, 0.5, ones))
    # Nobody: .2 * .5 * .5 = .05; a cat: 1 - .2 * .5 = .9; a dog: .5; together 1.45.
    cell = draw_map(made, (8, 8), 3, (1, 1), "noisy_or")[:, 0, 0]
    assert cell == pytest.approx(torch.tensor([0.05, 0.9, 0.5]) / 1.45)
    assert draw_map(made, (8, 8), 3, (1, 1), "one")[:, 0, 0].tolist() == pytest.approx([0, 0.8, 0.5])
    assert draw_map(made, (8, 8), 3, (1, 1), "complement")[:, 0, 0].tolist() == pytest.approx([0.2, 0.8, 0.5])
    assert draw_map(made, (8, 8), 3, (1, 1), "zero")[:, 0, 0].tolist() == pytest.approx([0, 0.8, 0.5])
    for rule, background in (("noisy_or", 1), ("one", 1), ("complement", 1), ("zero", 0)):
        assert draw_map(instances(), (8, 8), 3, (1, 1), rule)[:, 0, 0].tolist() == [background, 0, 0]


def test_masks_are_pasted_as_torchvision_does() -> None:
    from torchvision.models.detection.roi_heads import paste_masks_in_image

    y, x = torch.meshgrid(torch.linspace(-1, 1, 28), torch.linspace(-1, 1, 28), indexing="ij")
    masks = torch.stack([(1 - x**2) * (1 - y**2), 0.6 * (1 - x**2) * (1 - y**2)])
    found = [[3, 5, 31, 33], [20, 10, 48, 38]]
    made = instances((found[0], 1, 1.0, masks[0]), (found[1], 2, 1.0, masks[1]))
    pasted = paste_masks_in_image(masks[:, None], made.boxes_xyxy, (60, 50))[:, 0]
    drawn = draw_map(made, (60, 50), 3, (60, 50), "noisy_or")
    both = torch.stack([(1 - pasted).prod(0), *pasted])
    # torchvision counts box sides with the old + 1, which puts masks up to a pixel away: the slope is at most .14.
    assert (drawn - both / both.sum(0)).abs().max() < 0.15


def test_folding_into_our_classes() -> None:
    # COCO cat 16, dog 17, horse 18 into VOC cat 8, dog 12 with no horse.
    ours = LabelSpace.of(["cat", "dog"])
    probs = torch.zeros(3, 81)
    probs[0, [0, 16, 17]] = torch.tensor([0.1, 0.6, 0.3])
    probs[1, [0, 18]] = torch.tensor([0.2, 0.8])
    probs[2, [0, 17, 18]] = torch.tensor([0.1, 0.5, 0.4])
    soft_map = torch.zeros(81, 1, 2)
    soft_map[0], soft_map[18, 0, 0], soft_map[16, 0, 1] = 0.25, 0.75, 0.75
    answer = SoftLabels(
        size=(10, 20),
        boxes_xyxy=torch.tensor([[0, 0, 5, 5], [1, 1, 6, 6], [2, 2, 7, 7.0]]),
        classes=torch.tensor([16, 18, 17]),
        probs=probs,
        map=soft_map,
    )
    folded = Folded({"a": answer}, ClassMap.by_name(COCO, ours))
    assert list(folded) == ["a"] and "a" in folded and len(folded) == 1
    read = folded["a"]
    assert read.boxes_xyxy.tolist() == [[0, 0, 5, 5], [2, 2, 7, 7]] and read.classes.tolist() == [1, 2]
    assert torch.allclose(read.probs, torch.tensor([[0.1, 0.6, 0.3], [0.5, 0, 0.5]]))
    assert read.map[:, 0].T.tolist() == [[1, 0, 0], [0.25, 0.75, 0]]
    less = Folded({"a": answer}, ClassMap.by_name(COCO, ours, elsewhere="ignore"))["a"]
    assert torch.allclose(less.probs, torch.tensor([[0.1, 0.6, 0.3], [0.1, 0, 0.5]]))
    assert less.map[:, 0].T.tolist() == [[0.25, 0, 0], [0.25, 0.75, 0]]


def test_two_classes_that_become_one_do_not_count_an_object_twice() -> None:
    animal = LabelSpace.of(["animal"])
    class_map = ClassMap.by_name(PETS, animal, renamed={"cat": "animal", "dog": "animal"})
    answer = SoftLabels(size=(9, 9), **boxes(([0, 0, 5, 5], 1, [0.1, 0.6, 0.3]), ([0, 0, 5, 5], 2, [0.1, 0.6, 0.3])))
    read = Folded({"a": answer}, class_map)["a"]
    assert read.classes.tolist() == [1] and read.probs[0].tolist() == pytest.approx([0.1, 0.9])


def test_classes_that_become_one_are_no_surer_than_sure(tmp_path: Path) -> None:
    """A store keeps the best class exactly and rounds the others, so that their sum may exceed 1."""
    animal = LabelSpace.of(["animal"])
    class_map = ClassMap.by_name(PETS, animal, renamed={"cat": "animal", "dog": "animal"})
    others = [(number + 0.7) / 65535 for number in range(9000, 9060)]
    rows = [([0, 0, 5, 5 + place], 1, [0.0, 1 - other, other]) for place, other in enumerate(others)]
    answer = SoftLabels(size=(99, 99), **boxes(*rows))
    store = Store.open(make_store(tmp_path / "store", {"a": answer}))
    found = Folded(store, class_map, nms_iou=1.0, temperature=1.5)["a"]
    assert len(found.classes) == len(rows) and bool((found.scores <= 1).all()), "NaN, where 1 - p was negative"


def test_instances_are_drawn_in_our_classes() -> None:
    made = instances(([0, 0, 16, 16], 1, 0.8, torch.ones(4, 4)), ([0, 0, 16, 16], 2, 0.5, torch.ones(4, 4)))
    answer = SoftLabels(size=(16, 16), instances=made)
    ours = LabelSpace.of(["cat"])
    read = Folded({"a": answer}, ClassMap.by_name(PETS, ours), stride=16)["a"]
    assert read.instances is None and read.map[:, 0, 0].tolist() == pytest.approx([0.2, 0.8])
    # Ignored, the dog keeps its share of the cell: .2 * .5, .8, .5 of 1.4.
    ignoring = ClassMap.by_name(PETS, ours, elsewhere="ignore")
    read = Folded({"a": answer}, ignoring, stride=16)["a"]
    assert read.map[:, 0, 0].tolist() == pytest.approx([0.1 / 1.4, 0.8 / 1.4])
    thesis = Folded({"a": answer}, ClassMap.by_name(PETS, ours), background="one", stride=8)["a"]
    assert thesis.map.shape == (2, 2, 2) and thesis.map[:, 0, 0].tolist() == pytest.approx([0, 0.8])


def test_a_map_that_is_there_is_not_drawn_again() -> None:
    answer = replace(ANSWERS["full"], map=torch.tensor([[[0.5]], [[0.5]], [[0]]]))
    assert Folded({"a": answer}, ClassMap.by_name(PETS, VOC))["a"].map[:, 0, 0].nonzero()[:, 0].tolist() == [0, 8]


def test_without_its_index_a_store_reads_its_parts(tmp_path: Path) -> None:
    answers = {f"{index:03d}": SoftLabels(size=(4, 6)) for index in range(70)}
    folder = make_store(tmp_path / "store", answers)
    assert indexed_ids(folder, read_manifest(folder)).to_pylist() == list(answers)
    for change in (lambda: (folder / "index.arrow").write_bytes(b"x"), (folder / "index.arrow").unlink):
        change()
        assert indexed_ids(folder, read_manifest(folder)) is None
        assert tuple(Store.open(folder)) == tuple(answers)
        with pytest.raises(InputError, match=r"index\.arrow"):
            Store.open(folder).verify()


def test_ids_of_one_key_are_told_apart() -> None:
    # CRC-32 of "plumless" and "buckeroo" is 0x4DDB0C25: the well-known pair.
    index = Index(pa.array(["first", "plumless", "émile", "buckeroo"]))
    assert [index.find(name) for name in index] == [0, 1, 2, 3]
    assert index.find("last") is None and index.find("\ud800") is None
    assert Index(pa.array([], pa.string())).find("first") is None


def test_a_store_that_says_what_it_answers_reads_no_other_columns(tmp_path: Path) -> None:
    answers = {"a": SoftLabels(size=(4, 6), **boxes(([0, 0, 6, 4], 1, [0.5, 0.5, 0])))}
    folder = make_store(tmp_path / "store", answers)
    assert json.loads((folder / "manifest.json").read_text())["parts"][0]["answers"] == ["boxes"]
    store = Store.open(folder)
    store["a"]
    box_columns = ["classes", "boxes_xyxy", "scores", "probs_class", "probs_value"]
    assert store._part(0).columns == ["height", "width", *box_columns]
    older = json.loads((folder / "manifest.json").read_text())
    del older["parts"][0]["answers"]
    edit(folder, parts=older["parts"])
    assert Store.open(folder).tasks == ("detection",) and torch.equal(Store.open(folder)["a"].probs, store["a"].probs)


def test_a_store_that_fits_is_decoded_by_parts_and_a_larger_one_by_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = ANSWERS["nothing"], ANSWERS["full"]
    # Of a size of its own each, so that no row can stand for another.
    answers = {f"{index:03d}": replace(kinds[index % 2], size=(100 + index, 60)) for index in range(70)}
    folder = make_store(tmp_path / "store", answers)
    by_part = Store.open(folder)
    monkeypatch.setattr("tutored.softlabels.store.CACHED_BLOCKS", 8)
    by_block = Store.open(folder)
    for image_id in ("000", "009", "063", "069"):
        one, other = by_part[image_id], by_block[image_id]
        assert one.size == other.size == (100 + int(image_id), 60)
        assert torch.equal(one.boxes_xyxy, other.boxes_xyxy) and torch.equal(one.probs, other.probs)
        assert torch.equal(one.map, other.map)
    assert by_part._block.cache_info().currsize == 2  # of 64 images and of 6
    assert by_block._block.cache_info().currsize == 4  # of eight images each


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        # The second row has one entry too few and the third one too many: together they are as many as before.
        ("scores", [[0.5], [], [0.5, 0.5], None], "other lengths"),
        ("probs_class", [[[0, 1]], [], [[0, 2]], None], "other lengths"),
        ("probs_class", [[[0]], [[0, 1]], [[0, 1, 2]], None], "other lengths"),
        ("probs_class", [[[0, 1]], [[0, 3]], [[0, 2]], None], r"a class outside 0\.\.2"),
        ("probs_value", [[[32768, 32767]], [[65535, 32767]], [[1, 1]], None], "sum to more than one"),
        ("probs_value", [[[32768, 32767]], [[32768, None]], [[1, 1]], None], "missing"),
        ("probs_value", [[[32768, 32767]], None, [[1, 1]], None], "boxes of which a part is missing|other lengths"),
        ("classes", [[1], [0], [2], None], r"a class outside 1\.\.2"),
        ("classes", [[1], [None], [2], None], "missing"),
        ("boxes_xyxy", [[0, 0, 1, 1], [0, 0, 1, float("nan")], [0, 0, 1, 1], None], "not finite"),
        ("boxes_xyxy", [[0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 1, 1], []], "a part is missing"),
        ("height", [4, -1, 4, 4], "-1 x 6 pixels"),
        ("map_classes", [[0], [0, 1], [3], None], r"a class outside 0\.\.2"),
        ("map_classes", [[0], [0], [0, 1], None], "reshape"),
        ("map_values", [b"\xff", b"\xff\x03", b"\xff", None], "probabilities of a cell that sum to more than one"),
        ("map_width", [1, 7, 1, None], "a map of 1 x 7 cells for 4 x 6 pixels"),
    ],
)
def test_one_wrong_row_is_refused(column: str, values: list[object], message: str) -> None:
    one = SoftLabels(size=(4, 6), **boxes(([0, 0, 6, 4], 1, [0.5, 0.5, 0])), map=torch.tensor([[[1.0]], [[0]], [[0]]]))
    two = replace(one, map=torch.tensor([[[0.5]], [[0.5]], [[0.0]]]))
    table = to_table("abcd", [one, two, one, SoftLabels(size=(4, 6))])
    assert from_table(table, 3).cut(2).scores.tolist() == [0.5]
    broken = table.set_column(
        table.schema.get_field_index(column), SCHEMA.field(column), pa.array(values, SCHEMA.field(column).type)
    )
    with pytest.raises(ValueError, match=message):
        from_table(broken, 3)


def test_the_last_of_a_class_that_a_box_has_twice_counts() -> None:
    table = to_table("a", [SoftLabels(size=(4, 6), **boxes(([0, 0, 6, 4], 1, [0.5, 0.4, 0.1])))])
    for name, values in (("probs_class", [[[2, 0, 2]]]), ("probs_value", [[[65535, 13107, 26214]]])):
        place = table.schema.get_field_index(name)
        table = table.set_column(place, SCHEMA.field(name), pa.array(values, SCHEMA.field(name).type))
    assert from_table(table, 3).cut(0).probs[0].tolist() == pytest.approx([0.2, 0.4, 0.4])


def test_folding_many_images_at_once_is_folding_each() -> None:
    generator = torch.Generator().manual_seed(0)
    answers = []
    for count in (3, 0, 5, 1):
        corners = torch.rand(count, 2, generator=generator) * 5
        answers.append(
            SoftLabels(
                size=(16, 16),
                boxes_xyxy=torch.cat([corners, corners + 8], dim=1),
                classes=torch.randint(1, 81, (count,), generator=generator),
                probs=torch.rand(count, 81, generator=generator).softmax(1),
            )
        )
    answers.insert(2, SoftLabels(size=(16, 16)))
    animals = dict.fromkeys(COCO.classes[:40], "cat")
    for class_map in (ClassMap.by_name(COCO, PETS), ClassMap.by_name(COCO, PETS, renamed=animals)):
        folded = Folded({}, class_map)._fold
        block = from_table(to_table("abcde", answers), 81)
        together = block.fold(folded)
        for row in range(5):
            alone = Block.of(block.cut(row), 81).fold(folded).cut(0)
            for name in ("boxes_xyxy", "classes", "probs"):
                mine, other = getattr(together.cut(row), name), getattr(alone, name)
                assert (mine is None) == (other is None) == (row == 2)
                assert mine is None or torch.equal(mine, other)
    assert len(together.cut(3).boxes_xyxy) < len(answers[3].boxes_xyxy), "overlapping boxes of one class became one"


def test_a_table_may_have_no_rows() -> None:
    """All images of a part can be broken."""
    table = to_table([], [])
    assert table.schema == SCHEMA and len(table) == 0
