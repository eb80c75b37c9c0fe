"""Training that starts at another student's weights."""

import pytest
import torch

from made import TINY, two_tasks
from tutored.checkpoint import save_checkpoint
from tutored.config import make_config
from tutored.engine import train
from tutored.engine.state import load_state, start_student
from tutored.engine.supervision import open_supervision
from tutored.engine.trainer import Trainer
from tutored.errors import InputError
from tutored.labels import VOC, LabelSpace
from tutored.students import make_student


def config(start=None, data="voc:unread", student=None, **train_keys):
    steps = {"start": start, "epochs": 2, "batch": 4, "workers": 0, "device": "cpu", "threads": 1} | train_keys
    return make_config({"data": {"train": str(data)}, "student": {**TINY, **(student or {})}, "train": steps})


def told(folder, known):
    return tuple(f"{name}: starts from {folder}, which knows {known} classes" for name in two_tasks())


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """`make(labels, **student)`: a folder of a student with random weights, all of them, also the heads' biases."""

    def make(labels=VOC, **student):
        folder = tmp_path_factory.mktemp("start") / "checkpoint"
        torch.manual_seed(7)
        made = config(student=student)
        net = make_student(made.student, two_tasks(labels))
        for name, value in net.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(value)
        save_checkpoint(folder, net, made)
        return str(folder), net.eval()

    return make


@pytest.mark.parametrize("changed", [{}, {"size": 96, "scales": [0.05, 0.1, 0.9], "frozen": 8}])
def test_weights_are_the_other_students(checkpoint, changed):
    folder, other = checkpoint()
    student, notes = start_student(config(folder, student=changed), two_tasks(VOC))
    assert notes == told(folder, "20 of the 20")
    mine = student.state_dict()
    assert all(torch.equal(value, mine[name]) for name, value in other.state_dict().items())
    assert student.config.size == changed.get("size", 64)


def map_weight(student):
    return student.heads["segmentation"].network.logits.weight


def test_classes_go_by_their_names(checkpoint):
    """Shared ones are answered as the other student does, wherever they stand; new ones are as without a start."""
    folder, other = checkpoint(LabelSpace.of(["cat", "dog", "bus"]))
    labels = LabelSpace.of(["zebra", "dog", "cat"])
    torch.manual_seed(0)
    student, notes = start_student(config(folder), two_tasks(labels))
    torch.manual_seed(0)
    plain, _ = start_student(config(), two_tasks(labels))
    assert notes == told(folder, "2 of the 3")
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before, after = other(images), student.eval()(images)
    (boxes, maps), (old_boxes, old_maps) = after.values(), before.values()
    torch.testing.assert_close(boxes.deltas, old_boxes.deltas)
    torch.testing.assert_close(boxes.logits[..., [0, 3, 2]], old_boxes.logits[..., [0, 1, 2]])
    torch.testing.assert_close(maps[:, [0, 3, 2]], old_maps[:, [0, 1, 2]])
    mine, theirs = student.heads["detection"].logits[0].weight, plain.heads["detection"].logits[0].weight
    assert torch.equal(map_weight(student)[1], map_weight(plain)[1])
    assert torch.equal(mine[1::4], theirs[1::4])
    assert not torch.equal(mine[2::4], theirs[2::4])


def test_a_task_that_the_other_student_lacks_begins_at_random(checkpoint):
    folder, other = checkpoint()
    tasks = {"detection": two_tasks(VOC)["detection"], "parts": two_tasks(VOC)["segmentation"]}
    student, notes = start_student(config(folder), tasks)
    assert notes[-1] == f"parts: starts at random, since {folder} has no such task"
    mine, theirs = student.state_dict(), other.state_dict()
    assert all(torch.equal(theirs[name], mine[name]) for name in theirs if not name.startswith("heads.segmentation."))


def test_a_student_built_otherwise_is_refused_by_its_keys(checkpoint):
    folder, _ = checkpoint(up_width=16)
    with pytest.raises(InputError, match=r"train\.start .*built otherwise, with up_width 16 instead of 32; set"):
        start_student(config(folder), two_tasks(VOC))


def test_training_starts_there_and_resumes_from_its_own_state(voc_folder, tmp_path, checkpoint):
    """The folded norms of `freeze_norm` come with the start: no other weights are needed."""
    folder, other = checkpoint(freeze_norm=True)
    given = config(folder, f"voc:{voc_folder}", {"freeze_norm": True}, epochs=1)
    begun = Trainer(given, open_supervision(given), tmp_path / "begun")
    assert all(torch.equal(value, begun.averaged.state_dict()[name]) for name, value in other.state_dict().items())
    result = train(given, tmp_path / "run")
    assert f"starts from {folder}" in result["notes"][-1]
    resumed = Trainer(given, open_supervision(given), tmp_path / "run")
    resumed.load()
    state = load_state(tmp_path / "run")
    assert state is not None
    assert all(torch.equal(value, state[0][name]) for name, value in resumed.student.state_dict().items())
    assert any(not torch.equal(value, other.state_dict()[name]) for name, value in state[0].items())
