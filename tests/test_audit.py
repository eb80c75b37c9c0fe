"""The audit of a tutor's store: planted faults are named, and figures are those that a person can check."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from made import LABELS, MadeDataset, Repeats, chosen, refused, two_tasks
from tutored.audit import agreement, as_a_run_sees, audit, write_page
from tutored.cli import main
from tutored.data import open_dataset
from tutored.data.views import Visible
from tutored.errors import InputError
from tutored.evaluate import figures, record
from tutored.labels import VOC, ClassMap, LabelSpace
from tutored.softlabels import Store
from tutored.softlabels.advice import read_sidecar, write_sidecar
from tutored.tasks import Task
from tutored.tasks.audit import Advice
from tutored.tasks.calibrate import Answers, Rate, calibrate, crossings, ece, reliability, tempered, wilson
from tutored.tasks.detection import Boxes, SoftBoxes
from tutored.tasks.instances import Instances
from tutored.tasks.segmentation import ClassMask, SoftMap
from tutored.tasks.segmentation.audit import kappa
from tutored.tutors.label import label
from tutored.types import GroundTruth, Prediction, SoftLabels

CAT, DOG, HORSE = 1, 2, 3
TASKS = ("detection", "segmentation")


class Crowd(MadeDataset):
    """Ten objects an image, side by side: boxes enough to speak of calibration. Nothing is below the 40th row."""

    def ground_truth(self, image_id):
        classes = torch.from_numpy(np.random.default_rng(int(image_id.removeprefix("made"))).integers(1, 4, 10))
        boxes = torch.tensor([[12.0 * column, 4, 12 * column + 10, 30] for column in range(10)])
        mask = torch.zeros(48, 120, dtype=torch.uint8)
        for (x1, y1, x2, y2), number in zip(boxes.int().tolist(), classes, strict=True):
            mask[y1:y2, x1:x2] = number
        drawn = Boxes(boxes_xyxy=boxes, classes=classes, difficult=torch.zeros(10, dtype=torch.bool))
        return GroundTruth.of((48, 120), drawn, ClassMask(mask=mask))


@pytest.fixture(scope="module")
def made():
    return Crowd(60)


@pytest.fixture
def labelled(tmp_path):
    """`labelled(dataset, boxes, maps)`: a store of a tutor whose answers these change; None: it does not answer."""
    count = iter(range(99))

    def make(dataset, boxes=lambda answer, _: answer, maps=lambda answer, _: answer, **more):
        def change(answer, image_id):
            kinds = zip(TASKS, (boxes, maps), strict=True)
            found = {kind: each(answer.tasks[kind], image_id) for kind, each in kinds if each}
            return SoftLabels.of(answer.size, *found.values())

        return Store.open(label(Repeats(dataset, change, **more), dataset, tmp_path / f"store{next(count)}"))

    return make


def exchange(to):
    """Boxes and maps with class i called `to[i]`."""
    order = torch.tensor(to)

    def boxes(answer, _):
        probs = torch.zeros_like(answer.probs).index_add_(1, order, answer.probs)
        return replace(answer, classes=order[answer.classes], probs=probs)

    def maps(answer, _):
        return replace(answer, map=torch.zeros_like(answer.map).index_add_(0, order, answer.map))

    return boxes, maps


SWAPPED = exchange([0, DOG, CAT, HORSE])


def complaints(found, task):
    return [(each.kind, each.name) for each in found.sidecar.tasks[task].findings if each.complaint]


def test_a_perfect_tutor_gives_no_complaint(made, labelled):
    found = audit(labelled(made), made)
    for task, figure in zip(TASKS, ("AP", "IoU"), strict=True):
        part = found.sidecar.tasks[task]
        assert complaints(found, task) == []
        assert part.advice == Advice()
        assert [row[figure] for row in part.figures["classes"]][-3:] == [1, 1, 1]
        assert part.figures["calibration"]["ece"] == 0
        assert found.tasks[task].worst(5) == []


def test_a_swap_is_named_with_what_corrects_it(made, labelled):
    store = labelled(made, *SWAPPED)
    found = audit(store, made)
    for task in TASKS:
        swaps = {each.name: each for each in found.sidecar.tasks[task].findings if each.kind == "swap"}
        assert {name: each.renamed for name, each in swaps.items()} == {"cat": {"cat": "dog"}, "dog": {"dog": "cat"}}
        assert {kind for kind, name in complaints(found, task) if name} == {"swap"}
        assert "the tutor answers cat where the ground truth has dog" in swaps["cat"].text
        assert set(found.sidecar.tasks[task].advice.muted) == {"cat", "dog"}
    objects = sum(int((made.ground_truth(each).tasks["detection"].classes == DOG).sum()) for each in made.ids)
    texts = [each.text for each in found.sidecar.tasks["detection"].findings if each.name == "cat"]
    assert f"({objects} of {objects} objects)" in texts[0]

    corrected = {"cat": "dog", "dog": "cat"}
    sections = as_a_run_sees(store, {name: task.section for name, task in two_tasks().items()}, corrected)
    again = audit(store, made, sections)
    assert complaints(again, "detection") == complaints(again, "segmentation") == []
    advice = found.sidecar.tasks["detection"].advice
    assert advice.muted_in(ClassMap.by_name(LABELS, LABELS)) == (CAT, DOG)
    assert advice.muted_in(ClassMap.by_name(LABELS, LABELS, renamed=corrected)) == ()


def test_a_blind_tutor_is_named_and_muted_for_the_class(made, labelled):
    def no_horse(answer, _):
        drawn = answer.map.clone()
        drawn[0] += drawn[HORSE]
        drawn[HORSE] = 0
        return replace(answer, map=drawn)

    found = audit(labelled(made, lambda answer, _: answer.chosen(answer.classes != HORSE), no_horse), made)
    assert complaints(found, "detection") == [("blind", "horse")]
    # A sixth of the pixels is horse, and there the tutor is certain of background.
    assert complaints(found, "segmentation") == [("blind", "horse"), ("miscalibrated", None)]
    for task in TASKS:
        assert set(found.sidecar.tasks[task].advice.muted) == {"horse"}
    assert "does not find" in found.tasks["detection"].worst(1)[0][2]
    assert "says background on horse" in found.tasks["segmentation"].worst(1)[0][2]


@pytest.mark.parametrize(("temperature", "least"), [(0.4, 0.3), (2.5, 0.03)])
def test_a_miscalibrated_tutor_gets_a_temperature(labelled, temperature, least):
    """A tutor that means its probabilities says p^(1/T) instead; p^(T) of that is what it meant."""

    def boxes(answer, image_id):
        rng = np.random.default_rng([7, int(image_id.removeprefix("made"))])
        meant = rng.uniform(least, 0.98, len(answer.classes))
        # Whether a box is right is drawn with the probability that the tutor means: a wrong one is put elsewhere.
        corners = answer.boxes_xyxy.clone()
        corners[torch.from_numpy(rng.random(len(meant)) > meant)] = torch.tensor([[0.0, 40.0, 10.0, 48.0]])
        said = torch.from_numpy(tempered(np.stack([1 - meant, meant], axis=1), temperature)[:, 1]).float()
        return replace(answer, boxes_xyxy=corners).rescored(said)

    def maps(answer, image_id):
        rng = np.random.default_rng([8, int(image_id.removeprefix("made"))])
        meant = rng.uniform(least, 0.98, answer.map.shape[1:])
        right = torch.from_numpy(rng.random(meant.shape) < meant)
        truth = answer.map.argmax(0)
        said = torch.from_numpy(tempered(np.stack([meant, 1 - meant]).transpose(1, 2, 0), temperature)).float()
        drawn = torch.zeros_like(answer.map)
        other = (truth + 1) % 4
        for channel, choice in enumerate((torch.where(right, truth, other), torch.where(right, other, truth))):
            drawn.scatter_add_(0, choice[None], said[None, ..., channel])
        return replace(answer, map=drawn)

    crowd = Crowd(100)
    found = audit(labelled(crowd, boxes, maps), crowd)
    for task in TASKS:
        part = found.sidecar.tasks[task]
        assert ("miscalibrated", None) in complaints(found, task)
        assert part.figures["calibration"]["ece"] > 0.1
        assert part.figures["calibration"]["ece_with_temperature"] < 0.06
        assert part.advice.temperature == pytest.approx(1 / temperature, rel=0.2)
        text = next(each.text for each in part.findings if each.kind == "miscalibrated")
        assert ("too sure" in text) == (temperature < 1)
        assert f"temperature {part.advice.temperature:.2f} brings it to" in text


def test_numbers_of_calibration_by_hand():
    confidence = np.repeat([0.2, 0.9], 100)
    bins = reliability(confidence, np.concatenate([np.arange(100) < 30, np.arange(100) < 70]))
    assert [each.right for each in bins] == [0.3, 0.7]
    assert [each.confidence for each in bins] == pytest.approx([0.2, 0.9])
    assert ece(bins) == pytest.approx((0.1 + 0.2) / 2)
    assert ece([]) is None
    assert crossings(bins, (0.1, 0.5, 0.8)) == [(0.2, True), (0.9, False), None]
    # Where more confidence means less right, the two bins are one: .6 and .4 of equal counts are .5.
    swapped = reliability(confidence, np.concatenate([np.arange(100) < 60, np.arange(100) < 40]))
    assert crossings(swapped, (0.5, 0.6)) == [(0.2, True), None]
    assert wilson(0, 40) == (0, pytest.approx(0.0876, abs=1e-4))
    assert wilson(0, 0) == (0, 1)


def test_the_band_is_where_boxes_begin_to_be_right(made, labelled):
    """Boxes of .9 are right, and so is every other one of .3; none of .06 is."""

    def boxes(answer, image_id):
        scores = torch.tensor([0.9, 0.3, 0.3, 0.06, 0.06]).repeat(2)
        corners = answer.boxes_xyxy.clone()
        corners[[2, 3, 4, 7, 8, 9]] = torch.tensor([0.0, 40, 10, 48])
        return replace(answer, boxes_xyxy=corners).rescored(scores)

    part = audit(labelled(made, boxes), made).sidecar.tasks["detection"]
    temperature, band = part.advice.temperature, part.advice.band
    floor = tempered(np.array([0.7, 0.3]), temperature)[1]
    assert band["ignore_floor"] <= band["box_floor"] == pytest.approx(floor, abs=0.01)
    assert any(each.kind == "band" and "right half of the time" in each.text for each in part.findings)


def test_ap_and_iou_are_those_of_an_evaluation(labelled):
    """A tutor whose boxes and pixels are some columns off, with scores of its own."""

    def boxes(answer, image_id):
        number = int(image_id.removeprefix("made"))
        shift = torch.tensor([number % 8, 0, number % 8, 0])
        moved = replace(answer, boxes_xyxy=(answer.boxes_xyxy + shift).clamp(max=120))
        return moved.rescored(torch.linspace(0.2, 0.9, 10).roll(number))

    def maps(answer, image_id):
        return replace(answer, map=answer.map.roll(int(image_id.removeprefix("made")) % 8, dims=2))

    crowd, tasks = Crowd(40), two_tasks()
    found = audit(labelled(crowd, boxes, maps), crowd)
    records = []
    for image_id in crowd.ids:
        answers = {name: each.answers[image_id].tasks[name] for name, each in found.tasks.items()}
        final = {name: tasks[name].final(answer, (48, 120)) for name, answer in answers.items()}
        records.append(record(image_id, crowd.ground_truth(image_id), Prediction((48, 120), final), tasks))
    judged = figures(records, tasks)
    known = (("detection", "AP", "AP_voc_area@.5", "mAP"), ("segmentation", "IoU", "IoU", "mIoU"))
    for task, column, metric, mean in known:
        part, evaluated = found.sidecar.tasks[task].figures, judged.tasks[task]
        rows = {row["class"]: row[column] for row in part["classes"]}
        assert rows == pytest.approx(evaluated.per_class[metric], abs=1e-5)
        assert 0 < rows["cat"] < 1
        assert part[mean] == pytest.approx(evaluated.means[f"m{metric}"], abs=1e-5)


def test_tutors_agree_with_themselves_less_with_others(labelled):
    made = Crowd(6)
    one, other = labelled(made), labelled(made, *SWAPPED)
    same = agreement(one, one, made)
    assert [part["value"] for part in same["tasks"].values()] == [1, 1]
    differing = agreement(one, other, made)["tasks"]
    by_class = {kind: {row["class"]: row for row in part["rows"]} for kind, part in differing.items()}
    assert [by_class["detection"][name]["F1"] for name in ("cat", "horse")] == [0, 1]
    assert [by_class["segmentation"][name]["IoU"] for name in ("dog", "horse")] == [0, 1]
    assert kappa(np.array([[40, 10], [20, 30]])) == pytest.approx(0.4)
    assert kappa(np.array([[5, 0], [0, 0]])) is kappa(np.zeros((2, 2), int)) is None


@pytest.mark.parametrize("task", TASKS)
def test_a_class_that_the_tutor_does_not_know_is_no_fault(made, tmp_path, task):
    """It knows cats alone, where and where not they are with .97; two of three objects are dogs and horses."""

    class Cats:
        labels, identity = LabelSpace.of(["cat"]), {"kind": "cats"}

        def __call__(self, images, image_ids):
            return [self.answer(made.ground_truth(each)) for each in image_ids]

        def answer(self, truth):
            boxes, cat = truth.tasks["detection"], (truth.tasks["segmentation"].mask == CAT).float()
            corners = boxes.boxes_xyxy[boxes.classes == CAT]
            probs = torch.tensor([0.03, 0.97]).repeat(len(corners), 1)
            found = SoftBoxes(boxes_xyxy=corners, classes=torch.ones(len(corners), dtype=torch.int64), probs=probs)
            return SoftLabels.of(truth.size, found, SoftMap(map=0.03 + 0.94 * torch.stack([1 - cat, cat])))

    found = audit(Store.open(label(Cats(), made, tmp_path / "store")), made)
    calibration = found.sidecar.tasks[task].figures["calibration"]
    assert complaints(found, task) == []
    assert found.tasks[task].worst(3) == []
    assert calibration["ece"] == pytest.approx(0.03, abs=0.002)
    assert calibration["fitted_temperature"] < 1, "it could be surer"


def test_few_objects_are_uncertain(labelled):
    few = MadeDataset(6, void=False)
    found = audit(labelled(few, *SWAPPED), few)
    assert complaints(found, "detection") == complaints(found, "segmentation") == []
    text = next(each.text for each in found.sidecar.tasks["detection"].findings if each.text.startswith("unc"))
    # Wilson's interval of 0 of 3 images ends at 3.84 / 6.84, that of 2 of 2 begins at 2 / 5.84.
    cat = "cat (0 to 56 % of its boxes are right, 0 to 56 % of its objects are found)"
    assert text.startswith(f"uncertain, with fewer than 20 objects: {cat}")
    assert text.endswith("horse (34 to 100 % of its boxes are right, 34 to 100 % of its objects are found)")


def test_without_ground_truth_another_tutor_is_pointed_to(labelled):
    made = MadeDataset(4)
    with pytest.raises(InputError, match="--against OTHER_STORE"):
        audit(labelled(made), Visible(made, dict.fromkeys(TASKS, frozenset(made.ids))))


def test_the_sidecar_belongs_to_one_labelling(made, labelled):
    store = labelled(made)
    found = audit(store, made)
    write_sidecar(store, found.sidecar)
    store.verify()
    assert label(Repeats(made), made, store.path, resume=True) == store.path
    assert read_sidecar(Store.open(store.path)) == found.sidecar
    section = two_tasks(segmentation={"elsewhere": "ignore"})["segmentation"].section
    write_sidecar(store, audit(store, made, {"segmentation": section}).sidecar)
    settings = [part.settings["elsewhere"] for part in read_sidecar(store).tasks.values()]
    assert settings == ["background", "ignore"], "the audit of the other task stays"

    (store.path / store.manifest["parts"][0]["file"]).unlink()
    label(Repeats(made, lambda answer, _: answer.without("segmentation")), made, store.path, resume=True)
    with pytest.raises(InputError, match="labelled anew since this audit"):
        read_sidecar(Store.open(store.path))
    (store.path / "audit.json").write_text(json.dumps({"format": "tutored-audit"}))
    refused("no audit that this version of tutored reads", read_sidecar, store)


def test_an_audit_holds_for_stores_of_the_same_tutor(made, labelled):
    sidecar = audit(labelled(made), made).sidecar
    elsewhere = MadeDataset(5)
    same, other = labelled(elsewhere), labelled(elsewhere, kind="another")
    write_sidecar(same, sidecar)
    assert read_sidecar(same).tasks == sidecar.tasks
    refused(r"another tutor than the audited one \(kind differ", write_sidecar, other, sidecar)


def test_the_command_writes_audit_and_page(voc_folder, labelled, tmp_path, capsys, browser):
    store = labelled(open_dataset(f"voc:{voc_folder}", "train"))
    page = tmp_path / "page.html"
    words = ["--data", f"voc:{voc_folder}", "--split", "train", "--page", str(page), "--json", str(tmp_path / "a.json")]
    assert main(["audit", str(store.path), *words]) == 0
    said = capsys.readouterr().out
    assert "audit of detection, 5 images with ground truth:" in said and "audit.json; training uses it" in said
    assert json.loads((tmp_path / "a.json").read_text())["tasks"]["detection"]["split"] == "train"
    assert str(tmp_path) not in page.read_text()
    for width, scheme in ((1200, "light"), (390, "dark")):
        with browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme) as context:
            tab, errors, asked = context.new_page(), [], []
            tab.on("pageerror", lambda error, errors=errors: errors.append(error))
            tab.on("request", lambda request, asked=asked: asked.append(request.url))
            tab.goto(page.as_uri())
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            assert tab.locator("h2").all_inner_texts()[0] == "Verdicts"
            assert errors == []
            assert [url for url in asked if not url.startswith("data:")] == [page.as_uri()]

    assert main(["audit", str(store.path), "--against", str(store.path), *words[:4]]) == 0
    assert "F1 1.000" in capsys.readouterr().out
    assert "F1 1.000" in (store.path / "agreement.html").read_text()
    Store.open(store.path).verify()


def test_three_one_way_swaps_blame_nobody_else(made, labelled):
    """Cats are called dogs, dogs horses, horses cats."""
    found = audit(labelled(made, *exchange([0, DOG, HORSE, CAT])), made)
    swaps = {each.name: each.renamed for each in found.sidecar.tasks["detection"].findings if each.kind == "swap"}
    assert swaps == {"dog": {"dog": "cat"}, "horse": {"horse": "dog"}, "cat": {"cat": "horse"}}


def test_a_class_that_is_mostly_answered_wrongly_is_muted(made, labelled):
    def boxes(answer, _):
        """Twelve dog boxes where no object is."""
        strays = torch.tensor([[10.0 * column, 40, 10 * column + 10, 48] for column in range(12)])
        return SoftBoxes(
            boxes_xyxy=torch.cat([answer.boxes_xyxy, strays]),
            classes=torch.cat([answer.classes, torch.full((12,), DOG)]),
            probs=torch.cat([answer.probs, torch.eye(4)[[DOG] * 12]]),
        )

    def maps(answer, _):
        drawn = answer.map.clone()
        drawn[:, 16:] = 0
        drawn[DOG, 16:] = 1
        return replace(answer, map=drawn)

    found = audit(labelled(made, boxes, maps), made)
    for task in TASKS:
        assert ("wrong", "dog") in complaints(found, task)
        assert "dog" in found.sidecar.tasks[task].advice.muted
    assert found.tasks["detection"].worst(1)[0][1] == 12


def test_many_answers_in_one_image_count_little_more_than_one():
    each, none = np.ones(40), np.zeros(40)
    assert Rate.of(none, each) == (0, 40, *wilson(0, 40))
    assert Rate.of(np.zeros(1), np.array([40])) == (0, 40, *wilson(0, 1)), "forty in one picture"
    tens = np.full(10, 10)
    # All are found in three of ten images: 10000 * .3 * .7 over (3 * 7^2 + 7 * 3^2) * 10 / 9.
    assert Rate.of(tens * (np.arange(10) < 3), tens)[2:] == pytest.approx(wilson(2.7, 9))
    assert Rate.of(np.ones(20), np.full(20, 2))[2:] == wilson(20, 40), "half of each: no image varies"
    assert Rate.of(none, none) == (0, 0, 0, 1)


def test_too_few_answers_get_no_temperature():
    """Always .9 and right half of the time, over 20 and over 19 images of 20 answers each in the half that judges."""
    images = [Answers(np.repeat([[0.1, 0.9]], 20, axis=0), np.arange(20) % 2, np.ones(20, np.int64))] * 20
    found = calibrate(images, images, 1e-4)
    assert found.enough and found.temperature == found.fitted_temperature == 10
    few = calibrate(images, images[1:], 1e-4)
    assert not few.enough
    assert (few.temperature, few.fitted_temperature, few.images) == (1, 10, 19)


def test_precision_and_recall_of_boxes_by_hand(made, labelled):
    """Every third of 60 images has no box; in every fourth of the others the ten boxes lie elsewhere."""

    def boxes(answer, image_id):
        number = int(image_id.removeprefix("made"))
        corners = answer.boxes_xyxy.clone()
        if number % 4 == 1:
            corners[:, 1], corners[:, 3] = 40, 48
        return replace(answer, boxes_xyxy=corners).chosen(torch.full((10,), number % 3 != 1))

    found = audit(labelled(made, boxes), made)
    part = found.sidecar.tasks["detection"].figures
    assert part["objects"] == 600
    assert [round(row["curve"][-1][1], 5) for row in part["classes"]] == [row["precision"] for row in part["classes"]]
    assert part["coverage"] == {"images": 60, "images_with_a_box": 0.66667, "boxes_per_image": 6.66667}
    assert sum(row["boxes"] for row in part["classes"]) == 400
    assert sum(row["precision"] * row["boxes"] for row in part["classes"]) == pytest.approx(300, abs=0.01)
    assert sum(row["recall"] * row["objects"] for row in part["classes"]) == pytest.approx(300, abs=0.01)
    # Ten wrong boxes of score 1, and ten missed objects of 10 x 26 pixels in a frame of 118 x 30.
    assert found.tasks["detection"].worst(1)[0][1] == pytest.approx(10 + 10 * 10 * 260 / 3540)


def test_maps_of_instances_are_audited_as_the_run_makes_them(made, labelled, tmp_path):
    """Sure masks of boxes of .4: by noisy-or .6 of each cell is background; by `one` there is none on an object."""

    def instances(answer, _):
        count = len(answer.classes)
        sure = {"scores": torch.full((count,), 0.4), "masks": torch.ones(count, 8, 8)}
        return Instances(boxes_xyxy=answer.boxes_xyxy, classes=answer.classes, **sure)

    store = labelled(made, instances, None)
    for rule, seen in (("noisy_or", False), ("one", True)):
        section = two_tasks(segmentation={"background": rule})["segmentation"].section
        found = audit(store, made, {"segmentation": section})
        part = found.sidecar.tasks["segmentation"]
        assert part.settings == {"elsewhere": "background", "background": rule}
        ious = [row["IoU"] for row in part.figures["classes"][-3:]]
        assert [iou > 0.3 if seen else iou == 0 for iou in ious] == [True] * 3, "of cells of 8 pixels on objects of 10"
        write_page(found, tmp_path / f"{rule}.html", worst=1)
    assert (tmp_path / "one.html").read_text() != (tmp_path / "noisy_or.html").read_text()
    plain = audit(labelled(made), made)
    assert plain.sidecar.tasks["segmentation"].settings == {"elsewhere": "background"}


def test_agreement_leaves_out_what_only_one_tutor_knows(tmp_path):
    """On columns 60 to 119 the second tutor sees dogs, about which the first one knows nothing."""
    made = Crowd(2)

    def store(*columns):
        class Painted:
            labels, identity = LabelSpace.of(["cat", "dog"][: max(columns)]), {"kind": "painted", "columns": columns}

            def __call__(self, images, image_ids):
                stripes = torch.eye(len(self.labels))[torch.tensor(columns).repeat_interleave(30)]
                return [SoftLabels.of((48, 120), SoftMap(map=stripes.T[:, None].repeat(1, 48, 1)))] * len(images)

        return Store.open(label(Painted(), made, tmp_path / "".join(map(str, columns))))

    one, other = store(CAT, 0, 0, 0), store(CAT, CAT, DOG, DOG)
    for pair in ((one, other), (other, one)):
        found = agreement(*pair, made)["tasks"]["segmentation"]
        assert found["classes"] == ["cat"]
        assert {row["class"]: row["IoU"] for row in found["rows"]}["cat"] == 0.5
        assert found["value"] == 0, "half of the pixels that are left agree, as by chance"


def test_a_class_that_is_not_annotated_is_no_fault(labelled):
    """Only cats are annotated: the tutor's dogs and horses are no contradiction."""

    class Partial(MadeDataset):
        def ground_truth(self, image_id):
            truth = super().ground_truth(image_id)
            boxes, mask = truth.tasks["detection"], truth.tasks["segmentation"].mask
            drawn = chosen(boxes, boxes.classes == CAT, annotated=(CAT,))
            return GroundTruth.of(truth.size, drawn, ClassMask(mask=mask * (mask == CAT), annotated=(CAT,)))

    found = audit(labelled(MadeDataset(60, void=False)), Partial(60, void=False))
    for task in TASKS:
        assert complaints(found, task) == []
        assert found.tasks[task].worst(3) == []
        assert found.sidecar.tasks[task].figures["calibration"]["ece"] == pytest.approx(0, abs=1e-6)
        assert found.sidecar.tasks[task].unannotated == ("dog", "horse")


def test_a_mask_can_not_tell_more_than_254_classes_apart(make_voc, labelled, tmp_path):
    folder = make_voc(tmp_path / "voc", {"train": ("both",) * 4})
    (folder / "labels.txt").write_text("\n".join([*VOC.classes, *(f"more{number}" for number in range(235))]))
    dataset = open_dataset(f"voc:{folder}", "train")
    store = labelled(dataset)
    found = audit(store, dataset)
    assert [*found.sidecar.tasks] == ["detection"]
    assert "255 classes are more than a mask can tell apart (254)" in found.notes[0]
    agreed = agreement(store, store, dataset)
    assert [*agreed["tasks"]] == ["detection"] and agreed["notes"]
    section = two_tasks()["segmentation"].section
    refused(r"name fewer as tasks.segmentation.classes", audit, store, dataset, {"segmentation": section})


def test_a_kind_without_an_auditor_is_named():
    with pytest.raises(InputError, match="tasks of kind detection can't be audited yet; leave detection out"):
        Task.auditor(two_tasks()["detection"])


def test_a_class_without_objects_is_judged_by_its_answers(labelled):
    """Half of the cats and dogs are called horses, of which there are none: 100 answers of horse, all wrong."""

    class Pets(Crowd):
        def ground_truth(self, image_id):
            truth = super().ground_truth(image_id)
            pets = replace(truth.tasks["detection"], classes=torch.tensor([CAT, DOG] * 5))
            return replace(truth, tasks={**truth.tasks, "detection": pets})

    def boxes(answer, _):
        classes = torch.tensor([HORSE, HORSE] * 2 + [CAT, DOG] * 2 + [HORSE, DOG])
        return replace(answer, classes=classes, probs=torch.eye(4)[classes])

    pets = Pets(20)
    found = audit(labelled(pets, boxes, None), pets)
    texts = {each.kind: each.text for each in found.sidecar.tasks["detection"].findings}
    assert texts["wrong"].startswith("horse: 0 % (at most 16 %, 0 of 100) of its boxes are right; muted")
    assert "horse" not in texts.get("few", "")


def test_an_audit_is_found_by_the_tasks_name_or_kind(made, labelled):
    sidecar = audit(labelled(made), made).sidecar
    task, own = two_tasks()["segmentation"], sidecar.tasks["segmentation"]
    parts = type(task)("parts", LABELS)
    assert sidecar.of(task) is own and sidecar.of(parts) is own
    other = own.model_copy(update={"split": "other"})
    named = sidecar.model_copy(update={"tasks": {**sidecar.tasks, "parts": other}})
    assert named.of(parts) is other and named.of(task) is own


def test_another_tutors_store_is_refused_before_writing(voc_folder, labelled, capsys):
    dataset = open_dataset(f"voc:{voc_folder}", "train")
    one, other = labelled(dataset), labelled(dataset, kind="another")
    words = ["--data", f"voc:{voc_folder}", "--split", "train", "--for", str(other.path)]
    assert main(["audit", str(one.path), *words]) == 2
    assert "another tutor than the audited one (kind differ)" in capsys.readouterr().err
    assert not list(one.path.parent.glob("*/audit.*"))
