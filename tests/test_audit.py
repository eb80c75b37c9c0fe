"""The audit of a tutor's store: planted faults are caught by name."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from made import LABELS, MadeDataset, Repeats
from tutored.audit import Advice, agreement, audit, read_sidecar, write_sidecar
from tutored.audit.agree import kappa
from tutored.audit.calibrate import crossings, ece, fit_temperature, reliability, tempered, wilson
from tutored.audit.figures import Rate, calibrate
from tutored.audit.page import write_page
from tutored.cli import main
from tutored.data import open_dataset
from tutored.data.visible import Visible
from tutored.errors import InputError
from tutored.evaluate import figures, record
from tutored.evaluate.result import AP_AREA, IOU
from tutored.judge import predictions_of
from tutored.labels import VOC, ClassMap, LabelSpace
from tutored.softlabels import Store
from tutored.structures import BACKGROUND, GroundTruth, Instances, SoftLabels
from tutored.tutors.joined import JoinedTutor
from tutored.tutors.label import label

CAT, DOG, HORSE = 1, 2, 3


class Crowd(MadeDataset):
    """Ten objects an image, side by side: boxes enough to speak of calibration. Nothing is below the 40th row."""

    def ground_truth(self, image_id):
        classes = torch.from_numpy(np.random.default_rng(int(image_id.removeprefix("made"))).integers(1, 4, 10))
        boxes = torch.tensor([[12.0 * column, 4, 12 * column + 10, 30] for column in range(10)])
        mask = torch.zeros(48, 120, dtype=torch.uint8)
        for (x1, y1, x2, y2), number in zip(boxes.int().tolist(), classes, strict=True):
            mask[y1:y2, x1:x2] = number
        return GroundTruth(
            size=(48, 120), boxes_xyxy=boxes, classes=classes, difficult=torch.zeros(10, dtype=torch.bool), mask=mask
        )


@pytest.fixture(scope="module")
def made():
    return Crowd(60)


@pytest.fixture(scope="module")
def audited(made, tmp_path_factory):
    """`audited(change)` labels, opens and audits a store of the tutor with this fault."""

    def make(change=lambda answer, image_id: answer):
        folder = tmp_path_factory.mktemp("store") / "store"
        store = Store.open(label(Repeats(made, change), made, folder))
        return store, audit(store, made)

    return make


def exchange(to):
    """The answer with class i called `to[i]`."""
    order = torch.tensor(to)

    def change(answer, image_id):
        drawn = torch.zeros_like(answer.map).index_add_(0, order, answer.map)
        probs = torch.zeros_like(answer.probs).index_add_(1, order, answer.probs)
        return replace(answer, classes=order[answer.classes], probs=probs, map=drawn)

    return change


def kinds(found, task):
    return [(each.kind, each.name) for each in found.sidecar.tasks[task].findings if each.complaint]


def test_a_perfect_tutor_gives_no_complaint(audited):
    _, found = audited()
    for task in ("detection", "segmentation"):
        part = found.sidecar.tasks[task]
        assert kinds(found, task) == []
        assert part.advice == Advice()
        assert [row["AP" if task == "detection" else "IoU"] for row in part.figures["classes"]][-3:] == [1, 1, 1]
        assert part.figures["calibration"]["ece"] == 0
        assert found.worst(task, 5) == []


def test_a_swap_of_two_classes_is_named_with_the_renaming_that_mends_it(audited, made):
    store, found = audited(exchange([0, DOG, CAT, HORSE]))
    for task in ("detection", "segmentation"):
        swaps = {each.name: each for each in found.sidecar.tasks[task].findings if each.kind == "swap"}
        assert set(swaps) == {"cat", "dog"}
        assert {kind for kind, name in kinds(found, task) if name} == {"swap"}
        assert "the tutor says cat where the ground truth says dog" in swaps["cat"].text
        assert swaps["cat"].renamed == {"cat": "dog"}
        assert set(found.sidecar.tasks[task].advice.muted) == {"cat", "dog"}
    objects = sum(int((made.ground_truth(each).classes == DOG).sum()) for each in made.ids)
    assert (
        f"({objects} of {objects} objects)"
        in next(each for each in found.sidecar.tasks["detection"].findings if each.name == "cat").text
    )

    mended = {"cat": "dog", "dog": "cat"}
    again = audit(store, made, renamed=mended)
    assert kinds(again, "detection") == kinds(again, "segmentation") == []
    advice = found.sidecar.tasks["detection"].advice
    assert advice.muted_in(ClassMap.by_name(LABELS, LABELS)) == (CAT, DOG)
    assert advice.muted_in(ClassMap.by_name(LABELS, LABELS, renamed=mended)) == ()


def test_a_class_that_is_called_another_is_a_swap_and_the_other_is_not_blamed_on_it(audited):
    """Horses are called cats, cats are called dogs, dogs horses: three one-way swaps."""
    _, found = audited(exchange([0, DOG, HORSE, CAT]))
    swaps = {each.name: each.renamed for each in found.sidecar.tasks["detection"].findings if each.kind == "swap"}
    assert swaps == {"dog": {"dog": "cat"}, "horse": {"horse": "dog"}, "cat": {"cat": "horse"}}


def test_a_blind_tutor_is_named_and_muted_for_the_class(audited):
    def blind(answer, image_id):
        seen = answer.classes != HORSE
        drawn = answer.map.clone()
        drawn[BACKGROUND] += drawn[HORSE]
        drawn[HORSE] = 0
        return replace(
            answer,
            boxes_xyxy=answer.boxes_xyxy[seen],
            classes=answer.classes[seen],
            probs=answer.probs[seen],
            map=drawn,
        )

    _, found = audited(blind)
    assert kinds(found, "detection") == [("blind", "horse")]
    # A sixth of the pixels is horse, and there it is certain of background.
    assert kinds(found, "segmentation") == [("blind", "horse"), ("miscalibrated", None)]
    for task in ("detection", "segmentation"):
        assert set(found.sidecar.tasks[task].advice.muted) == {"horse"}
    assert "does not find" in found.worst("detection", 1)[0][2]
    assert "drawn is horse" in found.worst("segmentation", 1)[0][2]


def test_a_tutor_that_answers_one_class_anywhere_is_worse_than_useless_for_it(audited):
    def everywhere(answer, image_id):
        """Twelve dog boxes where no object is, and the lower rows all dog."""
        strays = torch.tensor([[10.0 * column, 40, 10 * column + 10, 48] for column in range(12)])
        drawn = answer.map.clone()
        drawn[:, 16:] = 0
        drawn[DOG, 16:] = 1
        return replace(
            answer,
            boxes_xyxy=torch.cat([answer.boxes_xyxy, strays]),
            classes=torch.cat([answer.classes, torch.full((12,), DOG)]),
            probs=torch.cat([answer.probs, torch.eye(4)[[DOG] * 12]]),
            map=drawn,
        )

    _, found = audited(everywhere)
    assert ("wrong", "dog") in kinds(found, "detection")
    assert ("wrong", "dog") in kinds(found, "segmentation")
    assert "muted" in next(each.text for each in found.sidecar.tasks["detection"].findings if each.kind == "wrong")
    assert found.worst("detection", 1)[0][1] == 12


@pytest.mark.parametrize(("temperature", "least"), [(0.4, 0.3), (2.5, 0.03)])
def test_a_miscalibrated_tutor_is_named_with_the_temperature_that_mends_it(tmp_path, temperature, least):
    """A tutor that means its probabilities says p^(1/T) instead; p^(T) of that is what it meant."""

    def change(answer, image_id):
        rng = np.random.default_rng([7, int(image_id.removeprefix("made"))])
        meant = rng.uniform(least, 0.98, len(answer.classes))
        # Whether a box is right is drawn with the probability that the tutor means: a wrong one is put elsewhere.
        wrong = torch.from_numpy(rng.random(len(meant)) > meant)
        boxes = answer.boxes_xyxy.clone()
        boxes[wrong] = torch.tensor([[0.0, 40.0, 10.0, 48.0]])
        said = tempered(np.stack([1 - meant, meant], axis=1), temperature)[:, 1]
        probs = torch.zeros(len(meant), len(LABELS))
        probs[:, BACKGROUND] = torch.from_numpy(1 - said).float()
        probs.scatter_(1, answer.classes[:, None], torch.from_numpy(said).float()[:, None])
        cells = rng.uniform(least, 0.98, answer.map.shape[1:])
        right = torch.from_numpy(rng.random(cells.shape) < cells)
        truth = answer.map.argmax(0)
        top = torch.where(right, truth, (truth + 1) % 4)
        certain = torch.from_numpy(tempered(np.stack([cells, 1 - cells]).transpose(1, 2, 0), temperature)).float()
        drawn = torch.zeros_like(answer.map)
        drawn.scatter_(0, top[None], certain[None, ..., 0])
        drawn.scatter_add_(0, torch.where(right, (truth + 1) % 4, truth)[None], certain[None, ..., 1])
        return replace(answer, boxes_xyxy=boxes, probs=probs, map=drawn)

    crowd = Crowd(100)
    found = audit(Store.open(label(Repeats(crowd, change), crowd, tmp_path / "store")), crowd)
    for task in ("detection", "segmentation"):
        part = found.sidecar.tasks[task]
        assert ("miscalibrated", None) in kinds(found, task)
        assert part.figures["calibration"]["ece"] > 0.1
        assert part.figures["calibration"]["ece_with_temperature"] < 0.06
        assert part.advice.temperature == pytest.approx(1 / temperature, rel=0.2)
        text = next(each.text for each in part.findings if each.kind == "miscalibrated")
        assert ("too sure" in text) == (temperature < 1)
        assert f"temperature {part.advice.temperature:.2f} brings it to" in text


@given(seed=st.integers(0, 10**6), temperature=st.floats(0.4, 2.5))
@settings(max_examples=15, deadline=None)
def test_a_calibrated_tutor_has_a_small_error_and_a_tempered_one_is_brought_back(seed, temperature):
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.full(4, 0.5), 20_000)
    right = (probs.cumsum(1) < rng.random(20_000)[:, None]).sum(1).clip(0, 3)
    top = probs.argmax(1)
    assert ece(reliability(probs.max(1), top == right)) < 0.02
    assert fit_temperature(tempered(probs, temperature), right, 1e-4) == pytest.approx(1 / temperature, rel=0.06)


def test_numbers_of_calibration_by_hand():
    confidence = np.repeat([0.2, 0.9], 100)
    right = np.concatenate([np.arange(100) < 30, np.arange(100) < 70])
    bins = reliability(confidence, right)
    assert [(each.confidence, each.right, each.total) for each in bins] == [
        (pytest.approx(0.2), 0.3, 100),
        (pytest.approx(0.9), 0.7, 100),
    ]
    assert ece(bins) == pytest.approx((0.1 + 0.2) / 2)
    assert crossings(bins, (0.1, 0.5, 0.8)) == [(0.2, True), (0.9, False), None]
    low, high = wilson(0, 40)
    assert low == 0
    assert high == pytest.approx(0.0876, abs=1e-4)
    assert wilson(0, 0) == (0, 1)
    assert ece([]) is None
    # Of a violated order the two are one pool: .6 and .4 of equal counts are .5.
    swapped = reliability(confidence, np.concatenate([np.arange(100) < 60, np.arange(100) < 40]))
    assert crossings(swapped, (0.5, 0.6)) == [(0.2, True), None]


def test_what_lies_in_one_image_counts_little_more_than_once():
    nobody, everybody = np.zeros(0, np.int64), np.arange(40)
    assert Rate.of(nobody, everybody) == (0, 40, wilson(0, 40))
    assert Rate.of(nobody, np.zeros(40, np.int64)) == (0, 40, wilson(0, 1)), "a flock of forty in one picture"
    flocks = np.repeat(np.arange(10), 10)
    # Three of ten are found: 10000 * .3 * .7 over (3 * 7^2 + 7 * 3^2) * 10 / 9.
    assert Rate.of(flocks[flocks < 3], flocks).interval == pytest.approx(wilson(2.7, 9))
    halves = np.repeat(np.arange(20), 2)
    assert Rate.of(halves[::2], halves).interval == wilson(20, 40), "half of each: no image varies"
    assert Rate.of(nobody, nobody) == (0, 0, (0, 1))


def test_too_few_answers_get_no_temperature():
    """Always .9 and right half of the time, over 19 and over 20 images of 20 answers each in the half that judges."""
    sure = np.repeat([[0.1, 0.9]], 20, axis=0)
    half_right = np.arange(20) % 2
    images = [(sure, half_right, np.ones(20, np.int64), fitted) for fitted in (True, False) for _ in range(20)]
    found = calibrate(images[1:], 1e-4)
    assert found.enough
    assert found.temperature == found.fitted == 10
    few = calibrate(images[:-1], 1e-4)
    assert not few.enough
    assert (few.temperature, few.fitted, few.images) == (1, 10, 19)


def test_precision_and_recall_of_boxes_by_hand(tmp_path):
    """Every third of 60 images has no box; in every fourth of the others the ten boxes lie elsewhere."""

    def change(answer, image_id):
        number = int(image_id.removeprefix("made"))
        boxes = answer.boxes_xyxy.clone()
        if number % 4 == 1:
            boxes[:, 1], boxes[:, 3] = 40, 48
        kept = torch.full((10,), number % 3 != 1)
        return replace(answer, boxes_xyxy=boxes[kept], classes=answer.classes[kept], probs=answer.probs[kept])

    crowd = Crowd(60)
    found = audit(Store.open(label(Repeats(crowd, change), crowd, tmp_path / "store")), crowd)
    part = found.sidecar.tasks["detection"].figures
    assert part["objects"] == 600
    assert part["curve"][-1] == [0.95, 0.75, 0.5]
    assert part["coverage"] == {"images": 60, "images_with_a_box": 0.66667, "boxes_per_image": 6.66667}
    assert sum(row["boxes"] for row in part["classes"]) == 400
    assert sum(row["precision"] * row["boxes"] for row in part["classes"]) == pytest.approx(300, abs=0.01)
    assert sum(row["recall"] * row["objects"] for row in part["classes"]) == pytest.approx(300, abs=0.01)
    # Ten wrong boxes of score 1, and ten missed objects of 10 x 26 pixels in a frame of 118 x 30.
    assert found.worst("detection", 1)[0][1] == pytest.approx(10 + 10 * 10 * 260 / 3540)


def test_ap_and_iou_are_those_of_evaluate(tmp_path):
    """A tutor whose boxes and pixels are some columns off, with scores of its own."""

    def change(answer, image_id):
        number = int(image_id.removeprefix("made"))
        scores = torch.linspace(0.2, 0.9, 10).roll(number)[:, None]
        shift = torch.tensor([number % 8, 0, number % 8, 0])
        probs = torch.cat([1 - scores, scores * answer.probs[:, 1:]], dim=1)
        moved = answer.map.roll(number % 8, dims=2)
        return replace(answer, boxes_xyxy=(answer.boxes_xyxy + shift).clamp(max=120), probs=probs, map=moved)

    crowd = Crowd(40)
    store = Store.open(label(Repeats(crowd, change), crowd, tmp_path / "store"))
    found = audit(store, crowd)
    records = [
        record(image_id, crowd.ground_truth(image_id), prediction, LABELS)
        for image_id, prediction in predictions_of(found.folded, crowd, store.path)
    ]
    judged = figures(records, LABELS)
    for task, figure, metric in (("detection", "AP", AP_AREA), ("segmentation", "IoU", IOU)):
        rows = {row["class"]: row[figure] for row in found.sidecar.tasks[task].figures["classes"]}
        assert rows == pytest.approx(judged.per_class[metric], abs=1e-5)
        assert 0 < rows["cat"] < 1
    assert found.sidecar.tasks["detection"].figures["mAP"] == pytest.approx(judged.map_area, abs=1e-5)
    assert found.sidecar.tasks["segmentation"].figures["mIoU"] == pytest.approx(judged.miou, abs=1e-5)


def test_kappa_by_hand():
    assert kappa(np.array([[40, 10], [20, 30]])) == pytest.approx(0.4)
    assert kappa(np.array([[5, 0], [0, 0]])) is kappa(np.zeros((2, 2), int)) is None


def test_instances_are_audited_and_shown_as_the_run_draws_them(made, tmp_path, monkeypatch):
    """Sure masks of boxes of .4: by noisy-or .6 of each cell is background; `one` has none where an object is."""
    drawn = []
    monkeypatch.setattr("tutored.visualise.draw", lambda ground, shown, labels: drawn.append(shown) or ground)

    def as_instances(answer, _):
        count = len(answer.classes)
        sizes = {"scores": torch.full((count,), 0.4), "masks": torch.ones(count, 8, 8)}
        found = Instances(boxes_xyxy=answer.boxes_xyxy, classes=answer.classes, **sizes)
        return SoftLabels(size=answer.size, instances=found)

    store = Store.open(label(Repeats(made, as_instances), made, tmp_path / "store"))
    for rule, seen in (("noisy_or", False), ("one", True)):
        found = audit(store, made, background=rule)
        part = found.sidecar.tasks["segmentation"]
        assert part.background == rule
        ious = [row["IoU"] for row in part.figures["classes"][-3:]]
        assert [iou > 0.3 if seen else iou == 0 for iou in ious] == [True] * 3, "of cells of 8 pixels on objects of 10"
        write_page(found, store.path, tmp_path / "page.html", worst=1)
        truth, answer = drawn[-2:]
        assert truth.mask.any() and bool(answer.mask.any()) == seen


def test_two_tutors_agree_with_themselves_and_less_with_a_swapped_one(tmp_path):
    made = Crowd(6)
    one = Store.open(label(Repeats(made), made, tmp_path / "one"))
    other = Store.open(label(Repeats(made, exchange([0, DOG, CAT, HORSE])), made, tmp_path / "other"))
    same = agreement(one, one, made.labels, made.ids)
    assert same["boxes_all"]["f1"] == same["kappa"] == 1
    differing = agreement(one, other, made.labels, made.ids)
    assert differing["boxes"]["cat"]["f1"] == 0
    assert differing["boxes"]["horse"]["f1"] == 1
    assert differing["maps"]["horse"] == 1
    assert differing["maps"]["dog"] == 0


def test_what_only_one_tutor_knows_counts_for_no_agreement_of_maps(tmp_path):
    """On columns 60 to 119 the second one sees dogs, of which the first knows nothing."""

    def store(*columns):
        class Painted:
            labels, identity = LabelSpace.of(["cat", "dog"][: max(columns)]), {"kind": "painted", "columns": columns}

            def __call__(self, images, image_ids):
                stripes = torch.eye(len(self.labels))[torch.tensor(columns).repeat_interleave(30)]
                return [SoftLabels(size=(48, 120), map=stripes.T[:, None].repeat(1, 48, 1))] * len(images)

        return Store.open(label(Painted(), made, tmp_path / "".join(map(str, columns))))

    made = Crowd(2)
    one, other = store(CAT, 0, 0, 0), store(CAT, CAT, DOG, DOG)
    for pair in ((one, other), (other, one)):
        found = agreement(*pair, made.labels, made.ids)
        assert found["classes"] == ["cat"] and found["maps"]["cat"] == 0.5
        assert found["kappa"] == 0, "half of the pixels that are left agree, as by chance"
    assert agreement(one, store(CAT, 0, DOG, DOG), made.labels, made.ids)["maps"] == {"background": 1, "cat": 1}


@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_what_a_tutor_does_not_know_is_no_mistake_of_it(made, tmp_path, task):
    """It knows cats alone, where and where not they are with .97; two of three objects are dogs and horses."""

    class Cats:
        labels, identity = LabelSpace.of(["cat"]), {"kind": "cats"}

        def __call__(self, images, image_ids):
            return [self.answer(made.ground_truth(each)) for each in image_ids]

        def answer(self, truth):
            seen, cat = truth.classes == CAT, (truth.mask == CAT).float()
            boxes = {"boxes_xyxy": truth.boxes_xyxy[seen], "classes": truth.classes[seen]}
            probs = torch.tensor([0.03, 0.97]).repeat(int(seen.sum()), 1)
            return SoftLabels(size=truth.size, **boxes, probs=probs, map=0.03 + 0.94 * torch.stack([1 - cat, cat]))

    found = audit(Store.open(label(Cats(), made, tmp_path / "store")), made)
    calibration = found.sidecar.tasks[task].figures["calibration"]
    assert kinds(found, task) == []
    assert found.worst(task, 3) == []
    assert calibration["ece"] == pytest.approx(0.03, abs=0.002)
    assert calibration["fitted_temperature"] < 1, "it could be surer"


def test_of_more_classes_than_a_mask_can_tell_apart_boxes_alone_are_looked_at(make_voc, tmp_path, capsys):
    folder = make_voc(tmp_path / "voc", {"train": ("both",) * 4})
    (folder / "labels.txt").write_text("\n".join([*VOC.classes, *(f"more{number}" for number in range(235))]))
    dataset = open_dataset(f"voc:{folder}", "train")
    assert len(dataset.labels.classes) == 255
    store = Store.open(label(Repeats(dataset), dataset, tmp_path / "store"))
    assert [*audit(store, dataset).sidecar.tasks] == ["detection"]
    found = agreement(store, store, dataset.labels, dataset.ids)
    assert found["boxes_all"]["f1"] == 1 and "maps" not in found
    for more in ([], ["--against", str(store.path)]):
        assert main(["audit", str(store.path), "--data", f"voc:{folder}", "--split", "train", *more]) == 0
        assert "note: 255 classes are more than a mask can tell apart (254): boxes" in capsys.readouterr().out
    with pytest.raises(InputError, match="boxes alone are looked at, and the tutor has none; name fewer"):
        audit(store, dataset, tasks=["segmentation"])


def test_few_objects_say_nothing(tmp_path):
    few = MadeDataset(6, void=False)
    store = Store.open(label(Repeats(few, exchange([0, DOG, CAT, HORSE])), few, tmp_path / "store"))
    found = audit(store, few)
    assert kinds(found, "detection") == kinds(found, "segmentation") == []
    assert any(each.kind == "few" for each in found.sidecar.tasks["detection"].findings)


def test_a_class_without_objects_is_judged_by_its_answers(tmp_path):
    """Half of the cats and dogs are called horses, of which there are none: 100 answers of horse, all wrong."""

    class Pets(Crowd):
        def ground_truth(self, image_id):
            return replace(super().ground_truth(image_id), classes=torch.tensor([CAT, DOG] * 5))

    def change(answer, _):
        classes = torch.tensor([HORSE, HORSE] * 2 + [CAT, DOG] * 2 + [HORSE, DOG])
        probs = torch.zeros_like(answer.probs)
        probs[torch.arange(10), classes] = 1
        return replace(answer, classes=classes, probs=probs, map=None)

    made = Pets(20)
    found = audit(Store.open(label(Repeats(made, change), made, tmp_path / "store")), made)
    texts = {each.kind: each.text for each in found.sidecar.tasks["detection"].findings}
    assert texts["wrong"].startswith("horse: 0 % (at most 16 %, 0 of 100) of its boxes are right; muted")
    assert "horse" not in texts.get("few", "")


def test_a_store_without_ground_truth_points_to_another_tutor(tmp_path):
    made = MadeDataset(4)
    store = Store.open(label(Repeats(made), made, tmp_path / "store"))
    bare = Visible(made, dict.fromkeys(("detection", "segmentation"), made.ids))
    with pytest.raises(InputError, match="--against OTHER_STORE"):
        audit(store, bare)


def test_the_sidecar_disturbs_nothing_and_belongs_to_one_labelling(audited, made, tmp_path):
    store, found = audited()
    write_sidecar(store, found.sidecar)
    store.verify()
    assert read_sidecar(store) == found.sidecar
    assert label(Repeats(made), made, store.path, resume=True) == store.path
    assert read_sidecar(Store.open(store.path)) == found.sidecar

    part = store.path / store.manifest["parts"][0]["file"]
    part.unlink()
    label(Repeats(made, exchange([0, DOG, CAT, HORSE])), made, store.path, resume=True)
    with pytest.raises(InputError, match="labelled anew since this audit"):
        read_sidecar(Store.open(store.path))
    (store.path / "audit.json").write_text(json.dumps({"format": "tutored-audit"}))
    with pytest.raises(InputError, match="no audit that this tutored reads"):
        read_sidecar(Store.open(store.path))


def test_an_audit_of_one_task_leaves_that_of_the_other(audited, made):
    store, found = audited()
    hidden = dict.fromkeys(("detection", "segmentation"), ())
    maps, boxes = (
        audit(store, Visible(made, {**hidden, task: made.ids}), elsewhere="ignore").sidecar for task in hidden
    )
    write_sidecar(store, found.sidecar)
    write_sidecar(store, maps)
    assert read_sidecar(store).tasks == found.sidecar.tasks | maps.tasks
    write_sidecar(store, boxes)
    assert [part.elsewhere for part in read_sidecar(store).tasks.values()] == ["ignore", "ignore"]


def test_an_audit_of_version_1_is_read(audited):
    """It told once for both tasks what they were held against, and not what is not annotated."""
    store, found = audited()
    written = json.loads(write_sidecar(store, found.sidecar).read_text())
    told = {"data": "made", "split": "all", "renamed": {}, "elsewhere": "background", "background": "noisy_or"}
    parts = {
        task: {name: value for name, value in part.items() if name not in {*told, "unannotated"}}
        for task, part in written["tasks"].items()
    }
    (store.path / "audit.json").write_text(json.dumps({**written, "version": 1, **told, "tasks": parts}))
    assert read_sidecar(store) == found.sidecar
    (store.path / "audit.json").write_text(json.dumps({**written, "version": 1, "tasks": {"detection": []}}))
    with pytest.raises(InputError, match="no audit that this tutored reads"):
        read_sidecar(store)


def test_an_audit_holds_for_another_store_of_the_same_tutor_alone(audited, tmp_path):
    _, found = audited()
    elsewhere = MadeDataset(5)
    same = Store.open(label(Repeats(elsewhere), elsewhere, tmp_path / "same"))
    write_sidecar(same, found.sidecar)
    assert read_sidecar(same).tasks == found.sidecar.tasks
    other = Store.open(label(Repeats(elsewhere, kind="another"), elsewhere, tmp_path / "other"))
    with pytest.raises(InputError, match="another tutor than the audited one \\(kind differ"):
        write_sidecar(other, found.sidecar)


def test_an_audit_holds_for_another_split_of_a_tutor_made_of_stores(tmp_path):
    folders = {}
    for count in (5, 6):
        made = MadeDataset(count)
        parts = [label(Repeats(made, kind=kind), made, tmp_path / f"{kind}{count}") for kind in ("one", "other")]
        folders[count] = label(JoinedTutor(parts), made, tmp_path / f"joined{count}")
    same, another = Store.open(folders[5]), Store.open(folders[6])
    assert same.identity["1.ids_sha256"] != another.identity["1.ids_sha256"]
    found = audit(same, MadeDataset(5))
    assert "1.kind" in found.sidecar.tutor
    write_sidecar(another, found.sidecar)
    assert read_sidecar(another).tasks == found.sidecar.tasks


def test_another_tutors_store_is_refused_before_anything_is_written(voc_folder, tmp_path, capsys):
    dataset = open_dataset(f"voc:{voc_folder}", "train")
    for kind in ("one", "another"):
        label(Repeats(dataset, kind=kind), dataset, tmp_path / kind)
    words = ["--data", f"voc:{voc_folder}", "--split", "train", "--for", str(tmp_path / "another")]
    assert main(["audit", str(tmp_path / "one"), *words]) == 2
    assert "another: another tutor than the audited one (kind differ)" in capsys.readouterr().err
    assert not list(tmp_path.glob("*/audit.*"))


def test_the_command_says_what_it_found_and_writes_a_page(voc_folder, tmp_path, capsys, browser):
    dataset = open_dataset(f"voc:{voc_folder}", "train")
    label(Repeats(dataset), dataset, tmp_path / "store")
    page = tmp_path / "page.html"
    words = ["--data", f"voc:{voc_folder}", "--split", "train", "--page", str(page), "--json", str(tmp_path / "a.json")]
    assert main(["audit", str(tmp_path / "store"), *words]) == 0
    said = capsys.readouterr().out
    assert "detection, 5 images:" in said
    assert "audit.json; training uses it" in said
    assert "with this store in supervision.detection and supervision.segmentation" in said
    assert json.loads((tmp_path / "a.json").read_text())["tasks"]["detection"]["split"] == "train"
    assert str(tmp_path) not in page.read_text()
    for width, scheme in ((1200, "light"), (390, "dark")):
        tab = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        errors = []
        asked = []
        tab.on("pageerror", lambda error, seen=errors: seen.append(error))
        tab.on("request", lambda request, seen=asked: seen.append(request.url))
        tab.goto(page.as_uri())
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        assert tab.locator("h2").all_inner_texts()[0] == "Verdicts"
        assert errors == []
        assert [url for url in asked if not url.startswith("data:")] == [page.as_uri()]
        tab.close()

    assert main(["audit", str(tmp_path / "store"), "--against", str(tmp_path / "store"), *words[:4]]) == 0
    assert "boxes: F1 1.000" in capsys.readouterr().out
    assert (tmp_path / "store" / "agreement.html").exists()
    Store.open(tmp_path / "store").verify()


def test_wrong_words_are_told(tmp_path, voc_folder, capsys):
    dataset = open_dataset(f"voc:{voc_folder}", "train")
    label(Repeats(dataset), dataset, tmp_path / "store")
    assert main(["audit", str(tmp_path / "store")]) == 2
    assert "give --data FORMAT:FOLDER and --split" in capsys.readouterr().err
    words = ["--data", f"voc:{voc_folder}", "--split", "train", "--renamed", "cat"]
    assert main(["audit", str(tmp_path / "store"), *words]) == 2
    assert "couch=sofa" in capsys.readouterr().err
    words = [*words[:4], "--renamed", "cat=dog", "--against", str(tmp_path / "store")]
    assert main(["audit", str(tmp_path / "store"), *words]) == 2
    assert "--renamed is not for --against, which compares two stores by class names" in capsys.readouterr().err
    for more in (["--photos"], ["--worst", "0"], ["--for", "other"]):
        assert main(["audit", str(tmp_path / "store"), *words[:4], *words[6:], *more]) == 2
        assert f"{more[0]} is not for --against" in capsys.readouterr().err
    assert not (tmp_path / "store" / "agreement.html").exists()


def test_what_is_not_annotated_counts_neither_for_nor_against(tmp_path):
    """Only cats are annotated: the tutor's dogs and horses are no contradiction."""

    class Partial(MadeDataset):
        def ground_truth(self, image_id):
            truth = super().ground_truth(image_id)
            cats = truth.classes == CAT
            return GroundTruth(
                size=truth.size,
                boxes_xyxy=truth.boxes_xyxy[cats],
                classes=truth.classes[cats],
                difficult=truth.difficult[cats],
                mask=torch.where(truth.mask == CAT, truth.mask, 0).to(torch.uint8),
                annotated=(CAT,),
            )

    whole = MadeDataset(60, void=False)
    store = Store.open(label(Repeats(whole), whole, tmp_path / "store"))
    found = audit(store, Partial(60, void=False))
    for task in ("detection", "segmentation"):
        assert kinds(found, task) == []
        assert found.worst(task, 3) == []
        assert found.sidecar.tasks[task].figures["calibration"]["ece"] == pytest.approx(0, abs=1e-6)
    assert not math.isnan(found.sidecar.tasks["segmentation"].figures["mIoU"])
    assert LabelSpace.of(["cat"]).classes == ("cat",)
