"""Instance segmentation: annotations, targets, the mask term, decoding and average precision, on numbers by hand."""

import json
import random
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import onnxruntime
import pyarrow as pa
import pytest
import torch
from PIL import Image
from pycocotools import mask as reference

import tutored
from made import LABELS, TINY, boxed, chosen, coco_file, coco_precision, pictures
from tutored.checkpoint import load_checkpoint, save_checkpoint
from tutored.cli import main
from tutored.config import Augment, make_config
from tutored.config.entries import STUDENTS, section_of
from tutored.data import open_dataset
from tutored.data.check import check
from tutored.data.images import TaskSource, with_tasks
from tutored.errors import InputError
from tutored.geometry import Geometry, draw_geometry, whole
from tutored.labels import ClassMap, LabelSpace
from tutored.softlabels import Store
from tutored.students import make_student
from tutored.students.heads import InstanceHead, InstanceOutputs, mask_logits
from tutored.tasks.instances import InstanceMasks, Instances, InstanceSegmentation, InstanceTargets, Objects
from tutored.tasks.instances.types import cells_inside
from tutored.tutors import open_tutor
from tutored.types import SoftLabels

SMALL = {
    "blitznet": {key: TINY[key] for key in ("extra", "extra_width", "up_width", "map_width")},
    "compact": {"width": 16, "map_width": 8},
    "ubernet": {"width": 8},
}


def task_of(**keys):
    section = InstanceSegmentation.Section.model_validate({"kind": "instances", **keys})
    return InstanceSegmentation("instances", LABELS, section)


def student_of(kind, task=None):
    shape = {"kind": kind, "backbone": "test_resnet", "weights": "random", "size": 64, "prototypes": 4, **SMALL[kind]}
    torch.manual_seed(0)
    section = section_of(kind, STUDENTS, "student").model_validate(shape)
    return make_student(section, {"instances": task or task_of()}).eval()


def objects(masks, classes=None, difficult=None):
    """Objects whose boxes fit their masks."""
    masks = torch.as_tensor(np.asarray(masks), dtype=torch.uint8)
    boxes = []
    for mask in masks:
        y, x = (mask == 1).nonzero().unbind(1)
        boxes.append([x.min(), y.min(), x.max() + 1, y.max() + 1])
    count = len(masks)
    return boxed(Objects, boxes, classes or [1] * count, difficult=difficult or [False] * count, masks=masks)


def found(masks, scores, classes=None):
    drawn = objects(masks, classes)
    boxes, classes = drawn.boxes_xyxy.tolist(), drawn.classes.tolist()
    return boxed(InstanceMasks, boxes, classes, scores=torch.as_tensor(scores).float(), masks=drawn.masks.bool())


# Measured


def pairs_of(seed, images=12):
    """Objects, some of them crowds, and answers: objects moved a little, at random scores."""
    rng, pairs = np.random.default_rng(seed), []
    for _ in range(images):
        masks, moved, classes, guessed = [], [], [], []
        for _ in range(5):
            x, y, w, h = (int(value) for value in rng.integers((0, 0, 8, 8), (30, 30, 20, 20)))
            mask = np.zeros((50, 50), np.uint8)
            mask[y : y + h, x : x + w] = rng.random((h, w)) < 0.9
            for _ in range(2):
                moved.append(np.roll(mask, rng.integers(-3, 4, 2), (0, 1)))
            masks.append(mask)
            classes.append(int(rng.integers(1, 3)))
            guessed += [classes[-1], int(rng.integers(1, 3))]
        crowds = (rng.random(5) < 0.2).tolist()
        pairs.append((objects(masks, classes, crowds), found(moved, rng.random(10), guessed)))
    return pairs


def entries(side, field):
    found = []
    values = side.scores if field == "score" else side.difficult.int()
    for mask, number, value in zip(side.masks, side.classes.tolist(), values.tolist(), strict=True):
        runs = reference.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))
        places = {"bbox": reference.toBbox(runs).tolist(), "area": float(reference.area(runs)), "segmentation": runs}
        found.append({"category_id": number, field: value, **places})
    return found


def test_mask_ap_equals_pycocotools():
    pairs = pairs_of(0)
    drawn, said = ([entries(pair[place], field) for pair in pairs] for place, field in ((0, "iscrowd"), (1, "score")))
    precision = coco_precision("segm", drawn, said)[..., :2]
    task = task_of()
    figures = task.figures([task.record(*pair) for pair in pairs])
    assert 0.05 < precision.mean() < 0.95
    for number, name in enumerate(LABELS.classes[:2]):
        assert figures.per_class["AP_coco@.5:.95"][name] == pytest.approx(precision[:, :, number].mean(), abs=1e-12)
        assert figures.per_class["AP_coco@.5"][name] == pytest.approx(precision[0, :, number].mean(), abs=1e-12)


# Annotations


def outlined(folder):
    """Object numbers for every image of a made-up VOC folder that has an XML, drawn as the boxes are."""
    (folder / "SegmentationObject").mkdir()
    for xml in (folder / "Annotations").glob("*.xml"):
        with Image.open(folder / "JPEGImages" / f"{xml.stem}.jpg") as picture:
            numbers = np.zeros((picture.height, picture.width), np.uint8)
        numbers[-1] = 255
        for number, box in enumerate(ElementTree.parse(xml).iter("bndbox"), start=1):
            x1, y1, x2, y2 = (int(box.findtext(side) or 0) for side in ("xmin", "ymin", "xmax", "ymax"))
            numbers[y1 - 1 : y2, x1 - 1 : x2] = number
        Image.fromarray(numbers).save(folder / "SegmentationObject" / f"{xml.stem}.png")
    return folder


def seen(folder, split="val"):
    return with_tasks(open_dataset(f"voc:{folder}", split), {"instances": TaskSource("instances")})


def test_voc_objects_are_numbered_as_in_their_xml(make_voc, tmp_path):
    dataset = seen(outlined(make_voc(tmp_path / "voc")), "train")
    annotated = [image_id for image_id in dataset.ids if dataset.annotated_tasks(image_id)]
    assert annotated == [f"train_00{n}" for n in range(5)], "both files are needed"
    truth = dataset.ground_truth("train_000").tasks["instances"]
    for mask, box in zip(truth.masks, truth.boxes_xyxy.long().tolist(), strict=True):
        x1, y1, x2, y2 = box
        assert (mask[y1:y2, x1:x2] == 1).all() and int((mask == 1).sum()) == (x2 - x1) * (y2 - y1)
        assert (mask[-1] == 255).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda numbers: np.where(numbers == 1, 9, numbers), "pixels of object 9, but "),
        (lambda numbers: np.where(numbers == 1, 0, numbers), "no pixel of object 1 ("),
        (lambda numbers: numbers[:, :-1], "make both the same size"),
    ],
)
def test_objects_that_do_not_fit_their_xml_are_refused(make_voc, tmp_path, change, message):
    folder = outlined(make_voc(tmp_path / "voc"))
    path = folder / "SegmentationObject/val_000.png"
    with Image.open(path) as picture:
        numbers = np.array(picture)
    Image.fromarray(change(numbers).astype(np.uint8)).save(path)
    with pytest.raises(InputError, match=r"SegmentationObject/val_000\.png: ") as caught:
        seen(folder).ground_truth("val_000")
    assert message in str(caught.value)
    report = check({"val": open_dataset(f"voc:{folder}", "val")}).splits["val"]
    assert report.problems == (str(caught.value),), "before a training does"
    assert "4 images have instances, which a run with a task instances reads" in report.notes


def test_coco_objects_may_overlap(tmp_path):
    pictures(tmp_path / "val/a.png")
    shapes = [[0, 0, 6, 0, 6, 8, 0, 8], [4, 0, 10, 0, 10, 8, 4, 8]]
    annotations = [{"bbox": [min(each[::2]), 0, 6, 8], "segmentation": [each]} for each in shapes]
    coco_file(tmp_path / "val.json", *annotations, images=["a.png"])
    dataset = with_tasks(open_dataset(f"coco:{tmp_path}", "val"), {"instances": TaskSource("instances")})
    masks = dataset.ground_truth("a").tasks["instances"].masks
    assert masks.sum(dim=(1, 2)).tolist() == [48, 48] and int((masks.sum(dim=0) == 2).sum()) == 16


# Targets


def certain(truth):
    """What a tutor says that knows all: square boxes, a cell of the mask a pixel."""
    side = int(truth.boxes_xyxy[0, 2] - truth.boxes_xyxy[0, 0])
    masks = [
        (mask == 1).float()[y : y + side, x : x + side]
        for mask, (x, y, _, _) in zip(truth.masks, truth.boxes_xyxy.long().tolist(), strict=True)
    ]
    ones = torch.ones(len(truth.classes))
    return Instances(boxes_xyxy=truth.boxes_xyxy, classes=truth.classes, scores=ones, masks=torch.stack(masks))


def squares():
    """Two round objects of 16 pixels in an image of 40 x 50."""
    y, x = np.mgrid[:40, :50]
    return objects([(y - cy) ** 2 + (x - cx) ** 2 < 64 for cx, cy in ((12, 12), (32, 24))], [1, 3])


def test_the_truthful_tutor_teaches_what_ground_truth_does():
    truth, task, rng = squares(), task_of(), random.Random(0)
    side = int(truth.boxes_xyxy[0, 2] - truth.boxes_xyxy[0, 0])
    assert ((truth.boxes_xyxy[:, 2:] - truth.boxes_xyxy[:, :2]) == side).all()
    kept = 0
    for _ in range(40):
        geometry = draw_geometry((40, 50), truth.boxes_xyxy, 64, Augment(), rng, zoom_out=rng.random() < 0.5)
        mine = task.teach(truth, (40, 50), geometry, 16)
        theirs = task.teach_soft(certain(truth), (40, 50), geometry, 16)
        for one, other in zip((*mine.boxes, mine.masks), (*theirs.boxes, theirs.masks), strict=True):
            assert torch.equal(one, other)
        kept += len(mine.masks)
    assert kept > 40


def test_masks_of_another_number_than_boxes_are_not_read():
    answer = boxed(Instances, [[0, 0, 4, 4]] * 2, [1, 1], scores=torch.ones(2), masks=torch.ones(2, 4, 4))
    columns = {field.name: pa.array([answer.encode()[field.name]], field.type) for field in Instances.fields}
    assert Instances.decode(pa.table(columns), [(8, 8)], 4, None)[0].masks.sum() == 32
    columns["instance_masks"] = pa.array([bytes(16)])
    with pytest.raises(ValueError, match="masks of another number than its 2 boxes"):
        Instances.decode(pa.table(columns), [(8, 8)], 4, None)


# The mask term


def test_the_mask_term_by_hand():
    # One object on the left half of a map of 4 x 4 cells; one place learns it, whose prototype is 0 everywhere.
    task, student = task_of(), student_of("compact")
    head = student.heads["instances"]
    places = len(head.boxes.points_xyxy)
    masks = torch.zeros(1, 1, 4, 4)
    masks[..., :2, 0] = 1
    box, probs, nobody = torch.tensor([[[0.0, 0, 32, 64]]]), torch.tensor([[[0.0, 1, 0, 0]]]), torch.zeros(1, 1).bool()
    targets = InstanceTargets(box, torch.tensor([[1]]), probs, nobody, nobody[:, :0], torch.ones(1), masks)
    learned = head.assign(targets, tutor=False)
    count = int(learned.positive.sum())
    raw = InstanceOutputs(None, torch.ones(1, places, 4), torch.zeros(1, 4, 4, 4))
    # In the box are 8 cells, 2 of them the object's. Everywhere .5: log 2, and a + b - |a - b| = 2 x 2 x .5 of
    # a + b + |a - b| = 2 x (2 x 1 + 6 x .5).
    expected = count * (np.log(2) + 1 - 2 / 10)
    assert float(head.mask_sum(raw, targets, learned)) == pytest.approx(expected, rel=1e-5)
    # A cell that nobody knows does not count: 7 cells, and 2 of 2 x (2 + 5 x .5).
    masks[..., 3, 1] = torch.nan
    expected = count * (np.log(2) + 1 - 2 / 9)
    assert float(head.mask_sum(raw, targets, learned)) == pytest.approx(expected, rel=1e-5)
    assert task.section.mask == 1


@pytest.mark.parametrize("kind", SMALL)
def test_a_student_learns_masks(kind):
    task = task_of()
    student = student_of(kind, task).train()
    head = student.heads["instances"]
    assert isinstance(head, InstanceHead)
    truth = squares()
    row = task.teach(truth, (40, 50), whole((40, 50), 64), head.grid)
    targets = task.stack([row, row], torch.ones(2))
    images = torch.zeros(2, 3, 64, 64)
    for box, colour in zip(row.boxes.boxes_xyxy.long().tolist(), (0, 2), strict=True):
        images[:, colour, box[1] : box[3], box[0] : box[2]] = 1.0
    learned = head.assign(targets, tutor=False)
    optimizer, losses = torch.optim.AdamW(student.parameters(), lr=1e-2), []
    for _ in range(30):
        raw = student(images)["instances"]
        terms = [term.sum(raw, targets, learned) / term.weight(targets, learned) for term in head.terms.values()]
        losses.append([float(each.detach()) for each in terms])
        optimizer.zero_grad()
        sum(terms).backward()
        optimizer.step()
    assert list(head.terms) == ["class", "box", "mask"]
    assert losses[-1][2] < 0.5 * losses[0][2]


# Answers


def test_decoded_is_the_sum_of_prototypes_cut_at_the_box():
    student = student_of("compact")
    head = student.heads["instances"]
    places, grid = len(head.boxes.points_xyxy), head.grid
    logits = torch.full((1, places, 3), -9.0)
    distances = torch.full((1, places, 4), 16.0)
    place = int(((head.boxes.points_xyxy[:, :2] + head.boxes.points_xyxy[:, 2:]) / 2 - 36).abs().sum(1).argmin())
    logits[0, place, 1] = 9.0
    centre = float((head.boxes.points_xyxy[place, 0] + head.boxes.points_xyxy[place, 2]) / 2)
    prototypes = torch.full((1, 4, grid, grid), -5.0)
    prototypes[0, :, : grid // 2] = 5.0
    raw = InstanceOutputs(type("Raw", (), {})(), torch.full((1, places, 4), 0.25), prototypes)
    raw.boxes.distances, raw.boxes.logits = distances, logits
    (answer,) = head.decode(raw, [(64, 128)])
    assert answer.classes.tolist() == [2] and answer.scores[0] > 0.99
    assert answer.boxes_xyxy.tolist() == [[2 * (centre - 16), centre - 16, 2 * (centre + 16), centre + 16]]
    rows, columns = answer.masks[0].nonzero().unbind(1)
    assert [int(rows.min()), int(rows.max()) + 1] == pytest.approx([centre - 16, 32], abs=1)
    assert [int(columns.min()), int(columns.max()) + 1] == pytest.approx([2 * (centre - 16), 2 * (centre + 16)], abs=1)


def test_its_exported_file_gives_boxes_and_masks(tmp_path):
    shape = {"kind": "compact", "backbone": "test_resnet", "weights": "random", "size": 64, **SMALL["compact"]}
    config = make_config({"data": {"train": "voc:unread"}, "tasks": {"instances": {}}, "student": shape})
    torch.manual_seed(0)
    made = make_student(config.student, {"instances": task_of()})
    torch.nn.init.normal_(made.heads["instances"].boxes.logits.last.weight, std=0.3)
    torch.nn.init.zeros_(made.heads["instances"].boxes.logits.last.bias)
    save_checkpoint(tmp_path / "best", made, config)
    assert main(["export", str(tmp_path / "best"), "--out", str(tmp_path / "best.onnx"), "--nms"]) == 0
    student, _ = load_checkpoint(tmp_path / "best")
    image = torch.rand(1, 3, 64, 64)
    session = onnxruntime.InferenceSession(tmp_path / "best.onnx", providers=["CPUExecutionProvider"])
    names = [f"instances_{name}" for name in ("boxes", "masks", "count")]
    boxes, masks, count = session.run(names, {"images": image.numpy()})
    with torch.no_grad():
        raw = student(image)["instances"]
    (kept,) = student.heads["instances"].boxes.kept(raw.boxes, [(64, 64)])
    assert count[0] == len(kept.rows) > 0
    inside = cells_inside(kept.boxes.boxes_xyxy, (torch.arange(16) + 0.5) * 4)
    expected = mask_logits(raw.coefficients[0, kept.rows], raw.prototypes[0]).sigmoid() * inside
    # Of equal scores either may come first; what is found at one box is one mask.
    apart = np.abs(boxes[0, : count[0], None] - kept.boxes.boxes_xyxy.numpy()).max(axis=2)
    assert apart.min(axis=1).max() < 1e-3
    np.testing.assert_allclose(masks[0, : count[0]], expected[apart.argmin(axis=1)], atol=1e-3)
    assert not masks[0, count[0] :].any()

    assert main(["export", str(tmp_path / "best"), "--out", str(tmp_path / "raw.onnx")]) == 0
    picture = Image.fromarray((image[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)).resize((90, 50))
    students = [tutored.load(tmp_path / name, "cpu") for name in ("best", "best.onnx", "raw.onnx")]
    found = [each(picture).tasks["instances"] for each in students]
    for each in found[1:]:
        assert each.masks.shape == (len(each.scores), 50, 90) and len(each.scores) == len(found[0].scores) > 3
        assert abs(int(each.masks.sum()) - int(found[0].masks.sum())) < 0.1 * int(found[0].masks.sum()) > 0

    tutors = [open_tutor(f"student:{tmp_path / 'best'}"), open_tutor(f"onnx:{tmp_path / 'raw.onnx'}", nms_iou=0.45)]
    checkpoint, export = (each([picture], ["a"])[0].tasks for each in tutors)
    assert set(checkpoint) == set(export) == {"instances"}
    own, theirs = (each["instances"] for each in (checkpoint, export))
    apart = (theirs.boxes_xyxy[:, None] - own.boxes_xyxy).abs().amax(dim=2)
    same = apart.min(dim=1).values < 0.01
    assert same.float().mean() > 0.9 and len(theirs.scores) > 3
    pooled = torch.nn.functional.avg_pool2d(own.masks[apart.argmin(dim=1)[same]], 2)
    assert (pooled - theirs.masks[same]).abs().max() < 0.02, "read on 28 cells in the place of 56"


# From folder to figures


def test_trained_evaluated_and_predicted(make_voc, tmp_path, monkeypatch):
    folder = outlined(make_voc(tmp_path / "voc"))
    monkeypatch.chdir(tmp_path)
    config = {
        "data": {"train": f"voc:{folder}"},
        "tasks": {"detection": {}, "instances": {"reported": None}},
        "student": {**TINY, "weights": "random"},
        "train": {"epochs": 1, "batch": 4, "workers": 0},
    }
    Path("run.yaml").write_text(json.dumps(config))
    assert main(["train", "run.yaml", "--out", "run"]) == 0
    figures = json.loads(Path("run/result.json").read_text())["figures"]["instances"]
    assert "mAP_coco@.5:.95" in figures and figures["images"] == 4
    assert main(["predict", "run/checkpoint", str(folder / "JPEGImages/val_000.jpg"), "--out", "seen"]) == 0
    labelled = ["label", "student", "--weights", "run/checkpoint", "--data", f"voc:{folder}", "--split", "val"]
    assert main([*labelled, "--tasks", "instances", "--out", "store"]) == 0
    assert Store.open("store").kinds == ("instances",)
    judged = ["evaluate", "store", "--data", f"voc:{folder}", "--split", "val", "--json", "judged.json"]
    assert main(judged) == 0
    assert json.loads(Path("judged.json").read_text())["tasks"]["instances"]["images"] == 4


def test_drawn_boxes_and_a_map_give_masks(make_voc, tmp_path, monkeypatch, capsys):
    folder = make_voc(tmp_path / "voc")
    monkeypatch.chdir(tmp_path)
    Path("maps").mkdir()
    dataset = open_dataset(f"voc:{folder}", "val")
    for image_id in dataset.ids:
        mask = dataset.ground_truth(image_id).tasks["segmentation"].mask
        one_hot = np.eye(256, dtype=np.float32)[mask.numpy()][..., :21]
        np.savez(f"maps/{image_id}.npz", probs=np.where(one_hot.sum(2, keepdims=True) > 0, one_hot, 1 / 21))
    data = ["--data", f"voc:{folder}", "--split", "val"]
    assert main(["label", "files", "--from", "maps", "--labels", "voc", *data, "--out", "stored"]) == 0
    assert main(["label", "instances", "--boxes", "ground_truth", "--maps", "stored", *data, "--out", "made"]) == 0
    store = Store.open("made")
    assert store.identity["tutor"].startswith("boxes drawn, masks of ")
    truth = dataset.ground_truth("val_000").tasks["detection"]
    answer = store["val_000"].tasks["instances"]
    assert torch.equal(answer.boxes_xyxy, truth.boxes_xyxy) and answer.scores.tolist() == [1.0] * len(truth.classes)
    assert answer.masks.mean() > 0.8
    shown = dataset.labels["detection"].names[int(truth.classes[0])]
    drawn = ["label", "instances", "--boxes", "ground_truth", "--maps", "stored", *data, "--out", "one", "--classes"]
    assert main([*drawn, shown]) == 0
    one = Store.open("one")
    assert one.labels.classes == (shown,) and one["val_000"].tasks["instances"].masks.mean() > 0.8
    assert main([*drawn[:-3], "--out", "none", "--classes", "zebra"]) == 2
    assert "classes: no boxes of 'zebra'; possible: " in capsys.readouterr().err


def test_pixels_that_nobody_knows_are_left_out():
    # The object has three pixels and one more that is not known; of the answer's four known pixels two are right.
    drawn = objects([[[1, 1, 1, 255, 0, 0]]])
    said = found([[[0, 1, 1, 1, 1, 1]]], [0.9])
    record = task_of().record(drawn, said)
    assert record.overlaps.tolist() == [] and record.hits.tolist() == [0], "two of five"
    said = found([[[1, 1, 1, 1, 1, 0]]], [0.9])
    assert task_of().record(drawn, said).overlaps.tolist() == [3 / 4]


def test_a_difficult_object_need_not_be_outlined(make_voc, tmp_path):
    folder = outlined(make_voc(tmp_path / "voc"))
    dataset = seen(folder)
    image_id = next(each for each in dataset.ids if len(dataset.ground_truth(each).tasks["instances"].classes) > 1)
    path = folder / f"SegmentationObject/{image_id}.png"
    with Image.open(path) as picture:
        numbers = np.array(picture)
    Image.fromarray(np.where(numbers == 2, 0, numbers)).save(path)
    truth = dataset.ground_truth(image_id).tasks["instances"]
    assert truth.difficult.tolist()[:2] == [False, True]
    assert (truth.masks[1] == 255).all() and (truth.masks[0] == 1).any()


def test_masks_move_with_the_image():
    truth = squares()
    task = task_of()
    plain = task.teach(truth, (40, 50), whole((40, 50), 40), 40).masks
    flipped = task.teach(truth, (40, 50), Geometry((0.0, 0.0, 50.0, 40.0), flip=True, size=40), 40).masks
    assert torch.equal(plain, flipped.flip(2))
    assert torch.equal(plain[0, :, 5], (truth.masks[0, :, 6] == 1).float()), "cell 5's centre is at pixel 6.875"


def test_the_tutor_fills_classes_that_nobody_annotated():
    task, truth = task_of(), squares()
    mine = chosen(truth, slice(1), annotated=(1,))
    geometry = whole((40, 50), 64)
    answer = task.unannotated(certain(truth), mine)
    assert answer.classes.tolist() == [3]
    both = task.complete(task.teach(mine, (40, 50), geometry, 16), task.teach_soft(answer, (40, 50), geometry, 16))
    assert both.boxes.classes.tolist() == [1, 3]
    assert torch.equal(both.masks, task.teach(truth, (40, 50), geometry, 16).masks)


def test_a_store_is_seen_in_the_labels_of_the_task(tmp_path):
    foreign = LabelSpace.of(["horse", "tree", "cat"])
    masks = torch.rand(3, 4, 4)
    answer = SoftLabels.of((8, 8), boxed(Instances, [[0, 0, 4, 4]] * 3, [1, 2, 3], scores=torch.ones(3), masks=masks))
    seen_here = InstanceSegmentation.from_store(answer, ClassMap.by_name(foreign, LABELS), task_of().section)
    assert seen_here.classes.tolist() == [3, 1] and torch.equal(seen_here.masks, masks[[0, 2]])
    assert seen_here.unknown == (2,), "the tutor knows no dogs"


def test_a_mask_becomes_the_pixels_whose_centres_it_covers():
    masks = torch.zeros(1, 2, 2)
    masks[0, :, 0] = 1.0
    soft = boxed(Instances, [[2, 1, 10, 5]], [1], scores=torch.ones(1), masks=masks)
    expected = torch.zeros(6, 12, dtype=torch.bool)
    expected[1:5, 2:6] = True
    assert torch.equal(soft.final((6, 12)).masks[0], expected)
