"""UberNet: its size, its pyramid, and when which of its parameters are updated, on numbers worked by hand."""

import json
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from made import LABELS, two_tasks
from test_engine import at_step, equal, weights
from tutored.checkpoint import save_checkpoint
from tutored.config import Loss, StudentSection, make_config
from tutored.engine import train
from tutored.engine.optimise import Gathered
from tutored.engine.state import start_student
from tutored.errors import InputError
from tutored.labels import VOC, LabelSpace
from tutored.students import Student
from tutored.students.ubernet import UberNet, UberNetSection
from tutored.types import Batch

SMALL = {"kind": "ubernet", "backbone": "test_resnet", "weights": "random", "size": 64, "width": 8}


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(("pyramid", "norms", "maps"), [(1, 512, 256 * 21 + 21), (3, 3 * 512, 3 * (256 * 21 + 21))])
def test_its_size_on_the_usual_trunk(pyramid, norms, maps):
    """Maps: 64 channels of 24, 40, 112 and 320. Boxes: 3x3 convolutions, then six anchors a cell on five levels."""
    with torch.device("meta"):
        student = UberNet(UberNetSection(kind="ubernet", weights="random", size=160, pyramid=pyramid), two_tasks(VOC))
    assert count(student.backbone) == 2_958_848
    assert count(student.heads["segmentation"]) == 64 * (24 + 40 + 112 + 320) + norms + maps
    boxes = 9 * 64 * (40 + 112 + 3 * 320) + 5 * 2 * 64 + 5 * 65 * 6 * (4 + 21)
    assert count(student.heads["detection"]) == boxes == 689_902
    assert student.heads["detection"].anchors_xyxy.shape == (6 * (20**2 + 10**2 + 5**2 + 3**2 + 2**2), 4)


def test_tasks_share_nothing_but_the_trunk_the_pyramid_too():
    student = UberNet(UberNetSection(**SMALL, pyramid=2), two_tasks(LABELS)).train()
    seen = []
    student.backbone.register_forward_hook(lambda _, images, __: seen.append(images[0].shape[-1]))
    found = student(torch.rand(2, 3, 64, 64))
    assert seen == [64, 32] and found["segmentation"].shape == (2, 4, 16, 16)
    found["segmentation"].square().mean().backward(retain_graph=True)
    untaught = [name for name, each in student.named_parameters() if each.grad is None]
    assert all(name.startswith("heads.detection.") for name in untaught) and untaught
    (found["detection"].deltas.sum() + found["detection"].logits.sum()).backward()
    assert [name for name, each in student.named_parameters() if each.grad is None] == []


def test_a_training_may_start_from_it_with_other_classes(tmp_path):
    config = {"data": {"train": "voc:unread"}, "student": {**SMALL, "pyramid": 2}}
    given = UberNet(UberNetSection(**config["student"]), two_tasks(LABELS))
    save_checkpoint(tmp_path / "there", given, make_config(config))
    config["student"]["task_images"], config["train"] = 0, {"start": str(tmp_path / "there")}
    started, notes = start_student(make_config(config), two_tasks(LabelSpace.of(["fox", "horse"])))
    for image in range(2):
        own, theirs = (each.heads["segmentation"].network.logits[image].weight for each in (started, given))
        assert torch.equal(own[[0, 2]], theirs[[0, 3]]), "background and horses are known"
    assert torch.equal(started.heads["detection"].deltas[4].weight, given.heads["detection"].deltas[4].weight)
    assert any("knows 1 of the 2 classes" in note for note in notes)


# --- Updates


class Scales(Student):
    """A number of each task, and one that they share; a task waits for three of its images, that one for eight."""

    update_after = {"a": 3, "": 8}  # noqa: RUF012

    def __init__(self):
        super().__init__(StudentSection(kind="scales"), {})
        self.heads["a"], self.heads["b"] = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        self.backbone = nn.Linear(1, 1, bias=False)
        for parameter in self.parameters():
            nn.init.zeros_(parameter)


def batch(taught):
    """Four images, of which these teach `a`, some by both sources; all teach `b`."""
    both = {source: SimpleNamespace(weight=torch.tensor(taught)) for source in ("ground_truth", "tutor")}
    return Batch(tuple("wxyz"), torch.zeros(4), {"a": both, "b": {"tutor": SimpleNamespace(weight=torch.ones(4))}})


def steps(counted, *batches):
    """The weights of `a`, `b` and the trunk after each batch; each image that teaches has a gradient of its own."""
    student = Scales()
    gathered = Gathered(student, Loss(untaught="counted" if counted else "skipped"), Accelerator(cpu=True))
    optimizer = torch.optim.SGD(student.parameters(), lr=1.0)
    after = []
    for taught, gradients in batches:
        own = [gradient for weight, gradient in zip(taught, gradients, strict=True) if weight]
        means = (sum(own) / (4 if counted else max(len(own), 1)), sum(gradients) / 4, sum(gradients) / 4)
        parameters = (student.heads["a"].weight, student.heads["b"].weight, student.backbone.weight)
        for parameter, mean in zip(parameters, means, strict=True):
            parameter.grad = (parameter.grad if parameter.grad is not None else 0) + torch.full((1, 1), float(mean))
        with gathered.due(batch(taught)):
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        after.append(tuple(-parameter.item() for parameter in parameters))
    return after


def test_an_update_is_the_mean_over_the_images_that_taught():
    """`a`: 2 and 4 of the first batch, 9 of the third: an update by 5. What all share: means of eight images."""
    first, second, third, fourth = (1, 0, 1, 0), (0, 0, 0, 0), (0, 1, 0, 0), (1, 1, 1, 1)
    after = steps(True, (first, (2, 8, 4, 2)), (second, (0, 0, 8, 0)), (third, (1, 9, 1, 1)), (fourth, (4, 4, 4, 8)))
    assert [a for a, _, _ in after] == pytest.approx([0, 0, 5, 10])
    assert [b for _, b, _ in after] == pytest.approx([4, 6, 9, 14])
    assert [trunk for _, _, trunk in after] == pytest.approx([0, 3, 3, 7])


def test_batches_that_count_their_labels_alone_weigh_alike():
    """Under `loss.untaught: skipped` a batch's gradient is a mean over its labels: of 3 and 9, which is 6."""
    after = steps(False, ((1, 0, 1, 0), (2, 8, 4, 2)), ((0, 0, 0, 0), (0, 0, 8, 0)), ((0, 1, 0, 0), (1, 9, 1, 1)))
    assert [a for a, _, _ in after] == pytest.approx([0, 0, 6])


def test_scaled_gradients_are_not_added_up():
    with pytest.raises(InputError, match="train.precision fp16: .* take bf16 or fp32"):
        Gathered(Scales(), Loss(), SimpleNamespace(scaler=object()))


def test_killed_while_gradients_wait_it_goes_on_alike(voc_folder, tmp_path):
    """Batches of four of eight images, of which five have boxes: an update of that head takes more than a step."""
    steps = {"epochs": 3, "batch": 4, "workers": 0, "device": "cpu", "threads": 1, "clip": 1.0}
    student = {**SMALL, "task_images": 6, "trunk_images": 12}
    run = make_config({"data": {"train": f"voc:{voc_folder}", "val_split": None}, "student": student, "train": steps})
    train(run, tmp_path / "straight")

    class KilledError(Exception):
        pass

    def kill():
        raise KilledError

    with pytest.raises(KilledError):
        train(run, tmp_path / "broken", watch=at_step(4, kill))
    state = json.loads((tmp_path / "broken" / "state" / "state.json").read_text())
    assert state["done"] == 2 and state["gathered"][""] == [8, 2.0]
    train(run, tmp_path / "broken", resume=True)
    assert equal(weights(tmp_path / "straight"), weights(tmp_path / "broken"))
