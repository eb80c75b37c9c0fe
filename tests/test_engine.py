import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tutored import losses
from tutored.config import Config, make_config
from tutored.data import open_dataset
from tutored.data.training import TrainingSet, collate, epoch_batches
from tutored.engine import train
from tutored.engine.optimise import make_optimizer, rate_factor
from tutored.errors import InputError
from tutored.student import BlitzNet

TINY = {"backbone": "test_resnet", "size": 64, "extra": 2, "extra_width": 32, "up_width": 32, "map_width": 8}


def config(folder: Path, **sections) -> Config:
    plain = {
        "data": {"train": f"voc:{folder}"},
        "student": TINY,
        "train": {"epochs": 2, "batch": 4, "workers": 0, "lr": 1e-3, "device": "cpu", "threads": 1},
    }
    for name, section in sections.items():
        plain[name] = {**plain.get(name, {}), **section}
    return make_config(plain)


def weights(run: Path):
    return load_file(run / "checkpoint" / "model.safetensors")


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_run_leaves_checkpoint_log_and_result(voc_folder, tmp_path):
    reports = []
    result = train(config(voc_folder), tmp_path / "run", watch=reports.append)
    assert reports[-1].step == reports[-1].steps == 4
    assert set(reports[-1].loss) == {"class/ground_truth", "box/ground_truth", "map/ground_truth"}
    assert result == json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["figures"]["images"] == 4
    assert result["config"]["student"]["backbone"] == "test_resnet"
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 4]
    assert "val" in lines[-1]


def test_an_interrupted_run_resumes_to_the_same_weights(voc_folder, tmp_path):
    straight = config(voc_folder, train={"epochs": 3})
    train(straight, tmp_path / "straight")

    class KilledError(Exception):
        pass

    def kill_in_second_epoch(progress):
        if progress.step == 4:
            raise KilledError

    with pytest.raises(KilledError):
        train(straight, tmp_path / "broken", watch=kill_in_second_epoch)
    state = json.loads((tmp_path / "broken" / "state" / "state.json").read_text())
    assert state["done"] == 2
    result = train(straight, tmp_path / "broken", resume=True)
    assert equal(weights(tmp_path / "straight"), weights(tmp_path / "broken"))
    whole = json.loads((tmp_path / "straight" / "result.json").read_text())
    assert result["figures"] == whole["figures"]
    steps = [json.loads(line)["step"] for line in (tmp_path / "broken" / "log.jsonl").read_text().splitlines()]
    assert steps == [2, 4, 6, 6]


def test_seeds_decide_everything(voc_folder, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(config(voc_folder, train={"epochs": 1, "seed": seed}), tmp_path / name)
    assert equal(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert not equal(weights(tmp_path / "a"), weights(tmp_path / "c"))


def test_two_steps_at_a_fixed_seed_give_the_committed_loss(voc_folder):
    """A refactoring must keep these; a change of the recipe may change them, knowingly."""
    run = config(voc_folder)
    dataset = open_dataset(run.data.train, "train")
    torch.manual_seed(0)
    student = BlitzNet(run.student, dataset.labels)
    training = TrainingSet(dataset, run, student.sides[0])
    optimizer = make_optimizer(student, run.train)
    seen = []
    for places in epoch_batches(training.taught(), len(training), 4, seed=0, epoch=0):
        batch = collate([training[place] for place in places])
        assigned = losses.assign(student.anchors_xyxy, batch, run.loss)
        sums = losses.sums(student(batch.images.float() / 255), batch, assigned, run.loss)
        loss = losses.mix(sums, losses.divide(assigned.weights, run.loss))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seen.append(loss.item())
    assert seen == pytest.approx(GOLDEN, rel=1e-3)


GOLDEN = [26.415524, 29.739067]


def test_micro_batches_do_not_change_the_gradient(voc_folder):
    """With batch statistics frozen, since those are of the micro-batch."""
    run = config(voc_folder)
    dataset = open_dataset(run.data.train, "train")
    torch.manual_seed(0)
    student = BlitzNet(run.student, dataset.labels).eval()
    training = TrainingSet(dataset, run, student.sides[0])
    examples = [training[(0, position)] for position in range(8)]

    def gradient(parts):
        batches = [collate([examples[index] for index in part]) for part in parts]
        assigned = [losses.assign(student.anchors_xyxy, batch, run.loss) for batch in batches]
        total = {name: sum(each.weights[name] for each in assigned) for name in assigned[0].weights}
        factors = losses.divide(total, run.loss)
        student.zero_grad()
        for batch, targets in zip(batches, assigned, strict=True):
            sums = losses.sums(student(batch.images.float() / 255), batch, targets, run.loss)
            losses.mix(sums, factors).backward()
        return [parameter.grad.clone() for parameter in student.parameters() if parameter.grad is not None]

    whole, split = gradient([range(8)]), gradient([range(3), [3], range(4, 8)])
    assert len(whole) == len(split)
    for one, other in zip(whole, split, strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-4 * float(one.abs().max()) + 1e-7)


def one_box_a_level(targets, student):
    """Teach boxes that are anchors, one of each level, so that every level's head has something to learn."""
    cells = torch.tensor([0, *[side * side * 6 for side in student.sides[:-1]]]).cumsum(0)
    images, levels = len(targets.map), len(cells)
    classes = torch.ones(images, levels, dtype=torch.int64)
    return targets._replace(
        boxes_xyxy=student.anchors_xyxy[cells].expand(images, -1, -1) + 1.0,
        classes=classes,
        probs=torch.nn.functional.one_hot(classes, len(student.labels)).float(),
        difficult=torch.zeros(images, levels, dtype=torch.bool),
    )


def test_every_parameter_learns_from_the_losses_that_should_reach_it(voc_folder):
    run = config(voc_folder)
    dataset = open_dataset(run.data.train, "val")
    torch.manual_seed(0)
    student = BlitzNet(run.student, dataset.labels)
    for module in student.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # timm starts some at 0, which stops what lies before them
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    training = TrainingSet(dataset, run, student.sides[0])
    batch = collate([training[(0, position)] for position in range(4)])
    batch = batch._replace(ground_truth=one_box_a_level(batch.ground_truth, student))
    assigned = losses.assign(student.anchors_xyxy, batch, run.loss)
    for terms, untouched in ((("class", "box"), "map."), (("map",), "boxes.")):
        student.zero_grad()
        sums = losses.sums(student(batch.images.float() / 255), batch, assigned, run.loss)
        sum(value for name, value in sums.items() if name.split("/")[0] in terms).backward()
        for name, parameter in student.named_parameters():
            reached = parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
            assert reached != name.startswith(untouched), name


def test_schedules_by_hand():
    train_config = Config.model_validate({"data": {"train": "x"}}).train.model_copy(
        update={"warmup": 0.1, "schedule": "cosine"}
    )
    assert [rate_factor(step, 100, train_config) for step in (0, 9, 10, 55)] == pytest.approx([0.1, 1.0, 1.0, 0.5])
    stepped = train_config.model_copy(update={"warmup": 0.0, "schedule": "step", "milestones": (0.5, 0.75)})
    assert [rate_factor(step, 100, stepped) for step in (0, 49, 50, 75)] == pytest.approx([1, 1, 0.1, 0.01])


def test_training_and_validation_must_not_share_images(voc_folder, tmp_path):
    with pytest.raises(InputError, match=r"share 8 images \(train_000"):
        train(config(voc_folder, data={"train": f"voc:{voc_folder}", "val_split": "train"}), tmp_path / "run")


def test_a_run_folder_belongs_to_one_run(voc_folder, tmp_path):
    train(config(voc_folder, train={"epochs": 1}), tmp_path / "run")
    with pytest.raises(InputError, match="holds this run already; add --resume"):
        train(config(voc_folder, train={"epochs": 1}), tmp_path / "run")
    with pytest.raises(InputError, match="holds another run"):
        train(config(voc_folder), tmp_path / "run", resume=True)
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "thing").write_text("x")
    with pytest.raises(InputError, match="not empty"):
        train(config(voc_folder), tmp_path / "strange")


def test_a_loss_that_is_not_finite_stops_with_term_and_images(voc_folder, tmp_path):
    exploding = config(voc_folder, train={"lr": 1e30, "warmup": 0.0, "epochs": 3})
    with pytest.raises(FloatingPointError, match=r"not finite at step \d+: .*ground_truth.*images train_00"):
        train(exploding, tmp_path / "run")
