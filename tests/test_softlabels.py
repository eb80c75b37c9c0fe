"""Soft labels in columns, the store, and a store's answers in our label spaces."""

import json
import pickle
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np

from made import boxed
from tutored.errors import InputError
from tutored.labels import COCO, VOC, ClassMap, LabelSpace
from tutored.softlabels import Index, Remapped, Store
from tutored.softlabels.writer import finish, look, to_table, write_part
from tutored.tasks.columns import quantise
from tutored.tasks.detection import Detection, SoftBoxes
from tutored.tasks.instances import Instances
from tutored.tasks.segmentation import Segmentation, SoftMap
from tutored.tasks.segmentation.types import rasterize
from tutored.types import SoftLabels

PETS = LabelSpace.of(["cat", "dog"])
IDENTITY = {"kind": "made", "weights_sha256": "ab", "score_floor": 0.01, "labels": list(PETS.names), "images": 3}


def boxes(*rows, space=3):
    corners, numbers, probs = zip(*rows, strict=True) if rows else ((), (), ())
    return boxed(SoftBoxes, corners, numbers, probs=torch.tensor(probs).reshape(-1, space))


def cells(*values, confidences=False):
    """A map from the rows of each class."""
    return SoftMap(map=torch.tensor(values, dtype=torch.float32), confidences=confidences)


def instances(*rows):
    corners, numbers, scores, masks = zip(*rows, strict=True) if rows else ((), (), (), torch.zeros(0, 4, 4))
    return boxed(Instances, corners, numbers, scores=[*scores], masks=torch.stack([*masks]) if rows else masks)


NOTHING = SoftLabels((4, 6))
ANSWERS = {
    "full": SoftLabels.of(
        (40, 60),
        boxes(([1.5, 2, 33.125, 40], 1, [0.1, 0.7, 0.2]), ([0, 0, 60, 40], 2, [0.9996, 0.0003, 0.0001])),
        cells([[1.0, 0.5]], [[0.0, 0.25]], [[0.0, 0.25]]),
        instances(([2, 2, 10, 10], 1, 0.7, torch.full((4, 4), 0.6))),
    ),
    "nothing": SoftLabels.of((4, 6), boxes(), cells([[1.0]], [[0]], [[0]]), instances()),
    "unasked": NOTHING,
}


def make_store(folder, answers=ANSWERS, **identity):
    facts, ids = {**IDENTITY, "images": len(answers), **identity}, list(answers)
    for index in range(0, len(ids), 64):
        part = ids[index : index + 64]
        write_part(folder, facts, index // 64, part, [answers[image_id] for image_id in part])
    assert finish(folder)
    return folder


# --- Columns


@given(st_np.arrays(np.float64, st.tuples(st.integers(1, 5), st.integers(2, 21)), elements=st.floats(1e-9, 1)))
def test_quantised_sums_are_exact_and_keep_their_order(weights):
    probs = weights / weights.sum(-1, keepdims=True)
    for levels in (255, 65535):
        counts = quantise(probs.astype(np.float32), levels)
        assert (counts.sum(-1) == levels).all()
        assert (np.abs(counts / levels - probs) < 1.001 / levels).all()
        first, second = np.sort(probs, axis=-1)[:, ::-1][:, :2].T
        clear = first - second > 1.001 / levels
        assert (counts.argmax(-1) == probs.argmax(-1))[clear].all()


def test_an_impossible_answer_is_refused_by_name(tmp_path):
    impossible = SoftLabels.of((4, 6), boxes(([0, 0, 6, 4], 1, [0.5, 0.6, 0])))
    with pytest.raises(InputError, match=f"^{tmp_path}: a tutor's answer for one of a, ... is impossible: .*prob"):
        write_part(tmp_path, IDENTITY, 0, ["a"], [impossible])
    assert list(tmp_path.iterdir()) == []


ROW = SoftLabels.of((4, 6), boxes(([0, 0, 6, 4], 1, [0.5, 0.5, 0])), cells([[1.0]], [[0]], [[0]]))
OTHER = SoftLabels.of((4, 6), ROW.tasks["detection"], cells([[0.5]], [[0.5]], [[0]]))


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        # The second row has one entry too few and the third one too many: together they are as many as before.
        ("scores", [[0.5], [], [0.5, 0.5], None], "other lengths"),
        ("probs_class", [[[0, 1]], [], [[0, 2]], None], "other lengths"),
        ("probs_class", [[[0, 1]], [[0, 3]], [[0, 2]], None], r"a class outside 0\.\.2"),
        ("probs_value", [[[32768, 32767]], [[65535, 32767]], [[1, 1]], None], "sum to more than one"),
        ("probs_value", [[[32768, 32767]], [[32768, None]], [[1, 1]], None], "missing"),
        ("probs_value", [[[32768, 32767]], None, [[1, 1]], None], "a part is missing|other lengths"),
        ("classes", [[1], [0], [2], None], r"a class outside 1\.\.2"),
        ("boxes_xyxy", [[0, 0, 1, 1], [0, 0, 1, float("nan")], [0, 0, 1, 1], None], "not finite"),
        ("boxes_xyxy", [[0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 1, 1], []], "a part is missing"),
        ("map_classes", [[0], [0, 1], [3], None], r"a class outside 0\.\.2"),
        ("map_values", [b"\xff", b"\xff\x03", b"\xff", None], "probabilities of a cell that sum to more than one"),
        ("map_width", [1, 7, 1, None], "a map of 1 x 7 cells for 4 x 6 pixels"),
    ],
)
def test_one_wrong_row_is_refused(column, values, message):
    def decode(table):
        return [each.decode(table, [(4, 6)] * 4, 3, None) for each in (SoftBoxes, SoftMap)]

    table = to_table("abcd", [ROW, OTHER, ROW, NOTHING], [SoftBoxes, SoftMap])
    assert decode(table)[0][2].scores.tolist() == [0.5] and decode(table)[1][3] is None
    place = table.schema.get_field_index(column)
    field = table.schema.field(place)
    with pytest.raises(ValueError, match=message):
        decode(table.set_column(place, field, pa.array(values, field.type)))


# --- The store


def test_round_trip(tmp_path):
    store = Store.open(make_store(tmp_path / "store"))
    assert list(store) == ["full", "nothing", "unasked"] and len(store) == 3 and "other" not in store
    given, read = ANSWERS["full"].tasks, store["full"].tasks
    assert store["full"].size == (40, 60)
    drawn, found = given["detection"], read["detection"]
    assert torch.equal(found.boxes_xyxy, drawn.boxes_xyxy) and torch.equal(found.classes, drawn.classes)
    assert torch.equal(found.scores, drawn.scores), "scores rank boxes over a data set: exact, also the smallest"
    assert found.probs[0] == pytest.approx(torch.tensor([0.1, 0.7, 0.2]), abs=1 / 65535)
    assert found.probs[1] == pytest.approx(torch.tensor([0.9999, 0, 0.0001]), abs=2 / 65535), "the tail is background"
    seen = read["segmentation"].map
    assert seen.shape == (3, 1, 2) and seen == pytest.approx(given["segmentation"].map, abs=1 / 255)
    assert seen.sum(0) == pytest.approx(torch.ones(1, 2), abs=1e-6)
    mine, theirs = read["instances"], given["instances"]
    assert mine.masks == pytest.approx(theirs.masks, abs=0.5 / 255)
    assert torch.equal(mine.boxes_xyxy, theirs.boxes_xyxy) and torch.equal(mine.scores, theirs.scores)
    assert pickle.loads(pickle.dumps(store))["full"].size == (40, 60), "and in another process"


def test_nothing_there_is_not_the_same_as_not_asked(tmp_path):
    store = Store.open(make_store(tmp_path / "store"))
    nothing = store["nothing"].tasks
    assert nothing["detection"].boxes_xyxy.shape == (0, 4) and nothing["detection"].probs.shape == (0, 3)
    assert nothing["instances"].masks.shape == (0, 4, 4)
    assert nothing["segmentation"].map.tolist() == [[[1]], [[0]], [[0]]]
    assert store["unasked"] == NOTHING


def test_plain_pandas_reads_a_store(tmp_path):
    table = pandas.read_parquet(make_store(tmp_path / "store") / "part-00000.parquet").set_index("image_id")
    row = table.loc["full"]
    assert row["probs_class"][0].tolist() == [0, 1, 2] and row["probs_class"][1].tolist() == [0, 2]
    assert [int(values.sum()) for values in row["probs_value"]] == [65535, 65535]
    assert row["map_classes"].tolist() == [0, 1, 2]
    values = np.frombuffer(row["map_values"], np.uint8).reshape(3, 1, 2)
    assert values.tolist() == [[[255, 127]], [[0, 64]], [[0, 64]]], "127.5 and twice 63.75 levels"
    assert len(table.loc["nothing", "classes"]) == 0 and table.loc["unasked", "classes"] is None


@pytest.mark.parametrize("cached", [512, 8])
def test_random_access_in_small_and_large_stores(tmp_path, monkeypatch, cached):
    """Small ones are decoded in whole parts, larger ones in blocks of a few images."""
    monkeypatch.setattr("tutored.softlabels.CACHED_BLOCKS", cached)
    answers = {
        f"{index:04d}": SoftLabels.of((4, index + 1), boxes(([0, 0, index + 1, 4], 1, [0.5, 0.5, 0])))
        for index in range(150)
    }
    store = Store.open(make_store(tmp_path / "store", answers))
    for index in (149, 0, 64, 63, 71, 72, 128):
        answer = store[f"{index:04d}"]
        assert answer.size == (4, index + 1)
        assert answer.tasks["detection"].boxes_xyxy.tolist() == [[0, 0, index + 1, 4]]
    with pytest.raises(KeyError):
        store["0150"]


def test_a_store_says_what_it_answers_and_for_which_images(tmp_path):
    """An image that the tutor was not asked about has a row, too."""
    kinds = {
        "boxes": SoftLabels.of((4, 6), boxes()),
        "map": SoftLabels.of((4, 6), cells([[1.0]], [[0]], [[0]])),
        "instances": SoftLabels.of((4, 6), instances()),
        "unasked": NOTHING,
    }
    answers = {f"{kind}{index}": answer for index in range(20) for kind, answer in kinds.items()}
    store = Store.open(make_store(tmp_path / "store", answers))
    assert store.kinds == ("detection", "instances", "segmentation")
    assert not store.answered_by(Detection, "other")
    for task, expected in ((Detection, ["boxes"]), (Segmentation, ["map", "instances"])):
        said = [image_id for image_id in store if store.answered_by(task, image_id)]
        assert said == [f"{kind}{index}" for index in range(20) for kind in expected]
        seen = Remapped(store, ClassMap.by_name(PETS, VOC), task(task.kind, VOC))
        assert list(seen) == said and len(seen) == len(said) and "unasked3" not in seen and 3 not in seen
        assert seen.get("unasked3") is None and seen["boxes3" if task is Detection else "instances3"]
    silent = {f"u{index}": NOTHING for index in range(64)}
    for name, found, teaches in (
        ("silent", silent, [False, False]),
        ("boxes", {**silent, "a": kinds["boxes"]}, [True, False]),
        ("instances", {"a": kinds["instances"]}, [False, True]),
    ):
        other = Store.open(make_store(tmp_path / name, found))
        assert [other.teaches(task) for task in (Detection, Segmentation)] == teaches


@dataclass(frozen=True)
class Numbers:
    """A user's own kind of answer."""

    kind: ClassVar[str] = "numbers"
    fields: ClassVar[Any] = (pa.field("numbers", pa.binary()),)
    values: bytes

    def encode(self):
        return {"numbers": self.values}

    @classmethod
    def decode(cls, table, sizes, space, remap):
        return [value and cls(value) for value in table.column("numbers").to_pylist()]


def test_a_store_keeps_answers_of_a_users_own_kind(tmp_path):
    answers = {"a": SoftLabels.of((4, 6), Numbers(b"12"), boxes()), "b": SoftLabels.of((4, 6), boxes())}
    store = Store.open(make_store(tmp_path / "store", answers))
    assert store.kinds == ("detection", "numbers")
    assert [store.read(name, (Numbers,)).tasks for name in "ab"] == [{"numbers": Numbers(b"12")}, {}]
    assert list(store["a"].tasks) == ["detection"]


def test_verify_names_the_damaged_part(tmp_path):
    folder = make_store(tmp_path / "store")
    Store.open(folder).verify()
    part = folder / "part-00000.parquet"
    content = bytearray(part.read_bytes())
    column = pq.read_metadata(part).row_group(0).column(3)
    start, size = column.data_page_offset, column.total_compressed_size
    part.write_bytes(content[: start + size - 1] + bytes([content[start + size - 1] ^ 1]) + content[start + size :])
    with pytest.raises(InputError, match=r"part-00000\.parquet.*sha256.*--resume"):
        Store.open(folder).verify()
    part.write_bytes(content[:start] + b"\xff" * size + content[start + size :])
    with pytest.raises(InputError, match=r"part-00000\.parquet: it can't be read.*--resume"):
        Store.open(folder)["full"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "part-00000.parquet").unlink(), r"part-00000\.parquet: it is missing"),
        (lambda folder: (folder / "part-00000.parquet").write_bytes(b"PAR1"), r"part-00000\.parquet: 4 bytes,"),
        (lambda folder: edit(folder, version=99), r"'version' is 99.*update tutored"),
        (lambda folder: edit(folder, format="x"), r"not a store"),
        (lambda folder: edit(folder, complete=False), r"'complete' is false.*--resume"),
        (lambda folder: edit(folder, parts=[{"file": "../part-00000.parquet"}]), r"'parts\.0\.file': .*label again"),
        (lambda folder: (folder / "manifest.json").write_text("{"), r"manifest\.json: can't be read"),
        (lambda folder: (folder / "manifest.json").unlink(), r"tutored label. writes one"),
    ],
)
def test_a_broken_store_is_refused(tmp_path, change, message):
    folder = make_store(tmp_path / "store")
    change(folder)
    with pytest.raises(InputError, match=message):
        Store.open(folder)


def edit(folder, **fields):
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_without_its_index_a_store_reads_its_parts(tmp_path):
    answers = {f"{index:03d}": NOTHING for index in range(70)}
    folder = make_store(tmp_path / "store", answers)
    for change in (lambda: (folder / "index.arrow").write_bytes(b"x"), (folder / "index.arrow").unlink):
        change()
        assert tuple(Store.open(folder)) == tuple(answers)
        with pytest.raises(InputError, match=r"index\.arrow"):
            Store.open(folder).verify()


# --- Maps that are rasterized from instances


def test_noisy_or_and_the_thesis_rules_by_hand():
    # Two cats (.8, .5) and a dog (.5) over the whole of a one-cell image, masks all one.
    whole, ones = [0, 0, 8, 8], torch.ones(4, 4)
    made = instances((whole, 1, 0.8, ones), (whole, 1, 0.5, ones), (whole, 2, 0.5, ones))
    # Nobody: .2 * .5 * .5 = .05; a cat: 1 - .2 * .5 = .9; a dog: .5; together 1.45.
    cell = rasterize(made, (8, 8), 3, (1, 1), "noisy_or")[:, 0, 0]
    assert cell == pytest.approx(torch.tensor([0.05, 0.9, 0.5]) / 1.45)
    for rule, background, nothing in (("one", 0, 1), ("complement", 0.2, 1), ("zero", 0, 0)):
        cell = rasterize(made, (8, 8), 3, (1, 1), rule)[:, 0, 0]
        assert cell.tolist() == pytest.approx([background, 0.8, 0.5])
        assert rasterize(instances(), (8, 8), 3, (1, 1), rule)[:, 0, 0].tolist() == [nothing, 0, 0]
    assert rasterize(instances(), (8, 8), 3, (1, 1), "noisy_or")[:, 0, 0].tolist() == [1, 0, 0]


# --- Answers in our label space


def remapped(folder, answer, class_map, kind, temperature=1.0, **keys):
    """The answer for one kind of task, from a store."""
    store = Store.open(make_store(folder, {"a": answer}, labels=list(class_map.source.names)))
    task = kind(kind.kind, class_map.target, kind.Section(kind=kind.kind, **keys))
    seen = Remapped(store, class_map, task, temperature=temperature)
    assert list(seen) == ["a"] and list(seen["a"].tasks) == [kind.kind]
    return seen["a"].tasks[kind.kind]


def test_boxes_and_maps_of_coco_in_two_classes(tmp_path):
    # COCO cat 16, dog 17, horse 18 into cat and dog, with no horse.
    probs = torch.zeros(3, 81)
    probs[0, [0, 16, 17]] = torch.tensor([0.1, 0.6, 0.3])
    probs[1, [0, 18]] = torch.tensor([0.2, 0.8])
    probs[2, [0, 17, 18]] = torch.tensor([0.1, 0.5, 0.4])
    seen = torch.zeros(81, 1, 2)
    seen[0], seen[18, 0, 0], seen[16, 0, 1] = 0.2, 0.8, 0.8  # 51 and 204 of 255 levels
    corners = torch.tensor([[0, 0, 5, 5], [1, 1, 6, 6], [2, 2, 7, 7.0]])
    found = SoftBoxes(boxes_xyxy=corners, classes=torch.tensor([16, 18, 17]), probs=probs)
    answer = SoftLabels.of((10, 20), found, SoftMap(map=seen))
    for elsewhere, background, mass in (("background", 0.5, 1.0), ("ignore", 0.1, 0.2)):
        class_map = ClassMap.by_name(COCO, PETS, elsewhere=elsewhere)
        read = remapped(tmp_path / f"{elsewhere}-boxes", answer, class_map, Detection)
        assert read.boxes_xyxy.tolist() == [[0, 0, 5, 5], [2, 2, 7, 7]] and read.classes.tolist() == [1, 2]
        assert torch.allclose(read.probs, torch.tensor([[0.1, 0.6, 0.3], [background, 0, 0.5]]), atol=1e-4)
        read = remapped(tmp_path / f"{elsewhere}-map", answer, class_map, Segmentation)
        assert torch.allclose(read.map[:, 0].T, torch.tensor([[mass, 0, 0], [0.2, 0.8, 0]]))
    assert ClassMap.by_name(PETS, VOC).to == (0, 8, 12)
    read = remapped(tmp_path / "pets", ANSWERS["full"], ClassMap.by_name(PETS, VOC), Segmentation)
    assert read.map[:, 0, 1].nonzero()[:, 0].tolist() == [0, 8, 12], "a map that is there is not made of instances"


ANIMAL = ClassMap.by_name(PETS, LabelSpace.of(["animal"]), renamed={"cat": "animal", "dog": "animal"})


def test_merged_classes_do_not_count_an_object_twice(tmp_path):
    answer = SoftLabels.of((9, 9), boxes(([0, 0, 5, 5], 1, [0.1, 0.6, 0.3]), ([0, 0, 5, 5], 2, [0.1, 0.6, 0.3])))
    read = remapped(tmp_path, answer, ANIMAL, Detection)
    assert read.classes.tolist() == [1] and read.probs[0].tolist() == pytest.approx([0.1, 0.9], abs=1e-4)


@pytest.mark.parametrize("renamed", [{}, dict.fromkeys(COCO.classes[:40], "cat")])
def test_a_block_is_remapped_as_each_of_its_images(tmp_path, renamed):
    generator = torch.Generator().manual_seed(0)
    answers = {"none": NOTHING}
    for count in (3, 0, 5, 1):
        corners = torch.rand(count, 2, generator=generator) * 5
        numbers = torch.randint(1, 81, (count,), generator=generator)
        probs = torch.rand(count, 81, generator=generator).softmax(1)
        found = SoftBoxes(boxes_xyxy=torch.cat([corners, corners + 8], dim=1), classes=numbers, probs=probs)
        answers[str(count)] = SoftLabels.of((16, 16), found)
    class_map = ClassMap.by_name(COCO, PETS, renamed=renamed)
    together = Store.open(make_store(tmp_path / "all", answers, labels=list(COCO.names)))
    seen = Remapped(together, class_map, Detection("detection", PETS))
    assert list(seen) == ["3", "0", "5", "1"]
    for name in seen:
        alone = remapped(tmp_path / name, answers[name], class_map, Detection)
        for field in ("boxes_xyxy", "classes", "probs"):
            assert torch.equal(getattr(seen[name].tasks["detection"], field), getattr(alone, field))
    if renamed:
        assert len(seen["5"].tasks["detection"].classes) < 5, "overlapping boxes of one class became one"


def test_largest_remainder_by_hand():
    # 255 / 3 = 85 each; of 2.5 and 1.5 levels and 251 the first of equal remainders gets the missing one.
    assert quantise(np.array([1 / 3, 1 / 3, 1 / 3]), 255).tolist() == [85, 85, 85]
    assert quantise(np.array([2.5, 1.5, 251]) / 255, 255).tolist() == [3, 1, 251]
    # A cell that says only half of everything keeps that; one that says nothing stays silent.
    assert quantise(np.array([[0.25, 0.25], [0, 0]]), 100).tolist() == [[25, 25], [0, 0]]


@given(st.lists(st.integers(0, 255), min_size=2, max_size=9))
def test_what_was_quantised_before_comes_back_to_the_bit(counts):
    counts = [*counts[:-1], 0] if sum(counts) == 0 else counts
    whole = quantise(np.array(counts) / max(sum(counts), 1), 255)
    assert (quantise(whole.astype(np.float32) / 255, 255) == whole).all()


@pytest.mark.parametrize("wrong", [[0.5, 0.6], [-0.1, 1.1], [float("nan"), 0.5]])
def test_impossible_probabilities_are_not_stored(wrong):
    with pytest.raises(ValueError, match="probabilities"):
        quantise(np.array(wrong), 255)


def test_an_image_has_a_size(tmp_path):
    store = Store.open(make_store(tmp_path / "store", {"a": SoftLabels((-1, 6))}))
    with pytest.raises(InputError, match=r"part-00000\.parquet: .*an image of -1 x 6 pixels"):
        store["a"]


def test_ids_of_one_key_are_told_apart():
    # CRC-32 of "plumless" and "buckeroo" is 0x4DDB0C25: the well-known pair.
    index = Index(pa.array(["first", "plumless", "émile", "buckeroo"]))
    assert [index.find(name) for name in index] == [0, 1, 2, 3]
    assert index.find("last") is None and index.find("\ud800") is None
    assert Index(pa.array([], pa.string())).find("first") is None


def test_damage_is_not_blessed_when_a_lost_part_is_made_again(tmp_path):
    answers = {f"{index:03d}": NOTHING for index in range(70)}
    folder = make_store(tmp_path / "store", answers)
    before = (folder / "manifest.json").read_bytes()
    (folder / "part-00001.parquet").unlink()
    identity = {**IDENTITY, "images": 70}
    assert not finish(folder) and not look(folder, identity, join=True)
    with (folder / "part-00000.parquet").open("ab") as file:
        file.write(b"x")
    write_part(folder, identity, 1, list(answers)[64:], [NOTHING] * 6)
    assert finish(folder) and (folder / "manifest.json").read_bytes() == before


def test_a_mask_is_read_between_its_own_cells_by_hand():
    """Two by two cells over eight pixels, with centres at 2 and 6; a mask fades out over half a cell around its box."""
    made = instances(([0, 0, 8, 8], 1, 1.0, torch.tensor([[0.8, 0.4], [0.2, 0.6]])))
    seen = rasterize(made, (8, 16), 2, (8, 16), "noisy_or")[1]
    assert seen[0, 0].item() == pytest.approx(0.8 * 0.625**2), "the edge's outer side counts as 0"
    assert seen[7, 0].item() == pytest.approx(0.2 * 0.625**2)
    inside = 0.625**2 * 0.8 + 0.625 * 0.375 * (0.4 + 0.2) + 0.375**2 * 0.6
    assert seen[3, 3].item() == pytest.approx(inside)
    assert seen[0, 8].item() == pytest.approx(0.4 * 0.625 * 0.375) and not seen[:, 10:].any()
    binary = rasterize(made, (8, 16), 2, (8, 16), "zero")[1]
    assert torch.equal(binary, (seen > 0.5).float())


def test_merged_classes_are_no_surer_than_sure(tmp_path):
    """A store keeps the best class exactly and rounds the others, so that their sum may exceed 1."""
    others = [(number + 0.7) / 65535 for number in range(9000, 9060)]
    rows = [([9 * place, 0, 9 * place + 5, 5], 1, [0.0, 1 - other, other]) for place, other in enumerate(others)]
    read = remapped(tmp_path, SoftLabels.of((99, 999), boxes(*rows)), ANIMAL, Detection, temperature=1.5)
    assert len(read.classes) == len(rows) and bool((read.scores <= 1).all()), "NaN, where 1 - p was negative"


def test_instances_and_confidences_become_maps_of_our_classes(tmp_path):
    whole, ones = [0, 0, 16, 16], torch.ones(4, 4)
    drawn = SoftLabels.of((16, 16), instances((whole, 1, 0.8, ones), (whole, 2, 0.4, ones)))
    said = SoftLabels.of((16, 16), cells([[0.0]], [[0.8]], [[0.4]], confidences=True))
    for number, answer in enumerate((drawn, said)):

        def cell(class_map: ClassMap, number: int = number, answer: SoftLabels = answer, **keys: Any) -> list[float]:
            read = remapped(tmp_path / f"{number}{class_map.ignored}{keys}", answer, class_map, Segmentation, **keys)
            return read.map[:, 0, 0].tolist()

        both, cat = ClassMap.by_name(PETS, PETS), ClassMap.by_name(PETS, LabelSpace.of(["cat"]))
        assert cell(both) == pytest.approx([0.12 / 1.32, 0.8 / 1.32, 0.4 / 1.32], abs=1e-6), ".2 * .6, .8, .4"
        assert cell(both, background="one") == pytest.approx([0, 0.8, 0.4], abs=1e-6)
        # Ignored, the dog keeps its share of the cell; otherwise it is as if it were not there.
        ignoring = ClassMap.by_name(PETS, cat.target, elsewhere="ignore")
        assert cell(ignoring) == pytest.approx([0.12 / 1.32, 0.8 / 1.32], abs=1e-6)
        (folder,) = (tmp_path / f"{number}{cat.ignored}alone",)
        read = remapped(folder, answer, cat, Segmentation)
        assert read.map[:, 0, 0].tolist() == pytest.approx([0.2, 0.8], abs=1e-6)
