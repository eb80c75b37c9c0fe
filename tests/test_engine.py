import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from made import TINY
from tutored import losses
from tutored.config import Config, make_config
from tutored.data import open_dataset
from tutored.data.training import TrainingSet, collate, epoch_batches
from tutored.engine import train
from tutored.engine.batches import split
from tutored.engine.optimise import load_optimizer, make_optimizer, rate_factor
from tutored.engine.state import load_state, save_state
from tutored.engine.supervision import open_supervision
from tutored.engine.trainer import Trainer
from tutored.errors import InputError
from tutored.labels import VOC
from tutored.student import BlitzNet
from tutored.tutors.label import label
from tutored.tutors.student import StudentTutor


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


def test_the_log_has_the_heads_learning_rate(voc_folder, tmp_path):
    """Four steps of a cosine without warm-up; entries after the second and the fourth, of their last step."""
    train(config(voc_folder, train={"warmup": 0.0}), tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    rates = [line["lr"] for line in lines if "loss" in line]
    assert rates == pytest.approx([1e-3 * (2 + 2**0.5) / 4, 1e-3 * (2 - 2**0.5) / 4])


def test_keys_of_the_page_leave_former_run_ids_as_they_are(voc_folder):
    assert config("x", train={"shown": 6, "trackers": []}).run_id == config("x").run_id == "ddc78161aa8f"


def test_reported_losses_are_means_over_the_steps_since_the_last_report(voc_folder, tmp_path, monkeypatch):
    """Four epochs of two steps, a report every third step and at each epoch's end."""
    monkeypatch.setattr("tutored.engine.trainer.LOG_EVERY", 3)
    seen, means = [], {}
    step = Trainer.step

    def spy(trainer, batch):
        values = step(trainer, batch)
        seen.append(sum(float(value) for value in values.values()))
        return values

    monkeypatch.setattr(Trainer, "step", spy)
    train(
        config(voc_folder, train={"epochs": 3}),
        tmp_path / "run",
        watch=lambda r: means.update({r.step: sum(r.loss.values())}),
    )
    assert means == pytest.approx({2: sum(seen[:2]) / 2, 3: seen[2], 4: seen[3], 6: sum(seen[4:]) / 2}, rel=1e-4)


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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_it_saves_the_step_at_hand(voc_folder, tmp_path, monkeypatch, number):
    monkeypatch.setattr("tutored.engine.trainer.LOG_EVERY", 1)
    run = config(voc_folder, train={"epochs": 3})
    train(run, tmp_path / "straight")
    before = signal.getsignal(number)

    def ask_in_second_epoch(progress):
        if progress.step == 3:
            os.kill(os.getpid(), number)

    with pytest.raises(KeyboardInterrupt):
        train(run, tmp_path / "stopped", watch=ask_in_second_epoch)
    assert json.loads((tmp_path / "stopped" / "state" / "state.json").read_text())["done"] == 3
    assert signal.getsignal(number) is before
    train(run, tmp_path / "stopped", resume=True)
    assert equal(weights(tmp_path / "straight"), weights(tmp_path / "stopped"))


def test_a_stopped_run_without_averages_keeps_what_it_learnt(voc_folder, tmp_path, monkeypatch):
    """`ema: 0`: the checkpoint has the weights of the step at hand, not those of the last epoch's end."""

    monkeypatch.setattr("tutored.engine.trainer.LOG_EVERY", 1)
    run = config(voc_folder, train={"epochs": 1, "ema": 0.0, "batch": 2})
    begun = Trainer(run, open_supervision(run), tmp_path / "begun")
    initial = {name: value.clone() for name, value in begun.student.state_dict().items()}
    with pytest.raises(KeyboardInterrupt):
        train(run, tmp_path / "run", watch=lambda _: os.kill(os.getpid(), signal.SIGTERM))
    state = load_state(tmp_path / "run")
    assert state is not None
    kept = weights(tmp_path / "run")
    assert all(torch.equal(kept[name], state[0][name]) for name in kept)
    assert any(not torch.equal(kept[name], initial[name]) for name in kept)


def test_what_would_be_kept_must_have_been_loaded(voc_folder, tmp_path):
    for key, value in (("frozen", 8), ("freeze_norm", True)):
        with pytest.raises(InputError, match=rf"student\.{key} keeps what .* would bring; give one"):
            train(config(voc_folder, student={key: value}), tmp_path / "run")


def test_asked_twice_it_stops_at_once(voc_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("tutored.engine.trainer.LOG_EVERY", 1)

    def insist(progress):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(config(voc_folder, train={"epochs": 3}), tmp_path / "run", watch=insist)
    assert not (tmp_path / "run" / "state").exists()


def test_a_process_of_several_trainings_stops_as_often_as_it_is_asked_after_its_step(voc_folder, tmp_path, monkeypatch):
    """Ctrl-C reaches all processes of `--jobs`, and the first of them then ends the others."""
    monkeypatch.setattr("tutored.engine.trainer.LOG_EVERY", 1)
    monkeypatch.setattr("tutored.engine.trainer.multiprocessing.parent_process", object)

    def insist(progress):
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), number)

    with pytest.raises(KeyboardInterrupt):
        train(config(voc_folder, train={"epochs": 3}), tmp_path / "run", watch=insist)
    assert json.loads((tmp_path / "run" / "state" / "state.json").read_text())["done"] == 1


def test_seeds_decide_everything(voc_folder, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(config(voc_folder, train={"epochs": 1, "seed": seed}), tmp_path / name)
    assert equal(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert not equal(weights(tmp_path / "a"), weights(tmp_path / "c"))


def test_two_steps_at_a_fixed_seed_give_the_committed_loss(voc_folder):
    """A refactoring must keep these; a change of the recipe may change them, knowingly."""
    torch.set_num_threads(1)  # several sum in another order, and the second loss shows it
    run = config(voc_folder)
    dataset = open_dataset(run.data.train, "train")
    student = BlitzNet(run.student, dataset.labels)
    draw = np.random.default_rng(0)  # torch's own truncated normal draws otherwise from version to version
    with torch.no_grad():
        for kernel in (p for p in student.parameters() if p.dim() > 1):
            kernel.copy_(torch.from_numpy(draw.normal(0, kernel[0].numel() ** -0.5, kernel.shape)))
    training = TrainingSet(dataset, run, student.sides[0])
    optimizer = make_optimizer(student, run.train, torch.device("cpu"))
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


GOLDEN = [40.334801, 21.403664]


@pytest.mark.parametrize("size", [2, 4])
def test_micro_batches_do_not_change_the_gradient(voc_folder, tmp_path, size):
    """With batch statistics frozen, since those are of the micro-batch."""
    gradients = []
    for micro_batch in (None, size):
        run = config(voc_folder, train={"batch": 8, "micro_batch": micro_batch})
        trainer = Trainer(run, open_supervision(run), tmp_path / "run")
        trainer.model.eval()
        (places,) = list(trainer.plan)[:1]
        trainer.backward(collate([trainer.training[place] for place in places]))
        gradients.append({name: p.grad.clone() for name, p in trainer.student.named_parameters() if p.grad is not None})
    whole, split = gradients
    assert whole.keys() == split.keys()
    for name, one in whole.items():
        assert torch.allclose(one, split[name], rtol=1e-3, atol=1e-4 * float(one.abs().max()) + 1e-7), name


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


def test_no_part_of_a_batch_is_a_single_image(voc_folder, tmp_path):
    """Batch statistics of one image's coarsest map, of one cell, are none."""
    run = config(voc_folder, train={"batch": 7, "micro_batch": None})
    trainer = Trainer(run, open_supervision(run), tmp_path / "run")
    batch = collate([trainer.training[0, position] for position in range(7)])
    assert [len(part.image_ids) for part in split(batch, 2)] == [2, 2, 3]
    assert [len(part.image_ids) for part in split(batch, 3)] == [2, 2, 3]
    assert [len(part.image_ids) for part in split(batch, 4)] == [3, 4]
    assert [len(part.image_ids) for part in split(batch, None)] == [7]


def test_the_speed_is_of_the_images_that_were_seen(voc_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("tutored.engine.trainer.time.monotonic", iter(range(10**6)).__next__)
    reports = []
    train(config(voc_folder, train={"batch": 32, "epochs": 1}), tmp_path / "run", watch=reports.append)
    assert reports[-1].images_per_second == 8, "a batch of all eight in the clock's one second"


def test_more_classes_than_a_mask_can_tell_apart_can_learn_boxes_alone(make_voc, tmp_path):
    folder = make_voc(tmp_path / "voc", {"train": ("boxes",) * 4, "val": ("boxes",) * 2})
    names = [*VOC.classes, *(f"c{number}" for number in range(300))]
    (folder / "labels.txt").write_text("\n".join(names))
    with pytest.raises(InputError, match=r"320 classes are more than a mask can tell apart \(254\): name fewer as"):
        open_supervision(config(folder))
    run = config(folder, supervision={"segmentation": {"policy": "none"}}, train={"epochs": 1})
    assert train(run, tmp_path / "run")["figures"]["images"] == 2


def test_half_precision_on_a_cpu_is_said_not_to_be(voc_folder, tmp_path):
    notes = []
    train(config(voc_folder, train={"precision": "fp16", "epochs": 1}), tmp_path / "run", tell=notes.append)
    assert "train.precision fp16: a CPU computes in fp32 instead" in notes


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


def test_on_a_gpu_the_optimiser_is_fused_and_takes_the_same_steps_also_when_resumed(voc_folder, tmp_path):
    """Its fused kernels are there for CPUs too: four steps, and two with the state written and read between them."""
    run = config(voc_folder)
    student = BlitzNet(run.student, open_dataset(run.data.train, "train").labels)
    start = {name: value.clone() for name, value in student.state_dict().items()}

    def steps(device: str, halt: int | None = None) -> dict[str, torch.Tensor]:
        student.load_state_dict(start)
        optimizer = make_optimizer(student, run.train, torch.device(device))
        assert optimizer.param_groups[0]["fused"] == (True if device == "cuda" else None)
        for step in range(4):
            if step == halt:
                save_state(tmp_path, {}, {}, optimizer.state_dict(), {})
                optimizer = make_optimizer(student, run.train, torch.device(device))
                load_optimizer(optimizer, load_state(tmp_path)[2])
            for number, parameter in enumerate(student.parameters()):
                parameter.grad = (parameter.detach() + number + step).sin()
            optimizer.step()
        return {name: value.clone() for name, value in student.state_dict().items()}

    plain, fused = steps("cpu"), steps("cuda")
    assert all(torch.allclose(plain[name], fused[name], rtol=1e-5, atol=1e-6) for name in start)
    assert not equal(start, fused)
    assert equal(steps("cuda", halt=2), fused)


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
    with pytest.raises(InputError, match="holds another run, with train.epochs 1 instead of 2"):
        train(config(voc_folder), tmp_path / "run", resume=True)
    more = config(voc_folder, train={"epochs": 1}, supervision={"detection": {"renamed": {"cat": "cats"}}})
    train(more, tmp_path / "more")
    with pytest.raises(InputError, match=r"supervision\.detection\.renamed\.cat 'cats' instead of None;"):
        train(config(voc_folder, train={"epochs": 1}), tmp_path / "more")
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "thing").write_text("x")
    with pytest.raises(InputError, match="not empty"):
        train(config(voc_folder), tmp_path / "strange")


def test_a_finished_run_without_its_state_is_not_trained_over(voc_folder, tmp_path):
    run = config(voc_folder, train={"epochs": 1})
    train(run, tmp_path / "run")
    before = (tmp_path / "run" / "result.json").read_text()
    assert train(run, tmp_path / "run", resume=True)["figures"] == json.loads(before)["figures"]
    shutil.rmtree(tmp_path / "run" / "state")
    with pytest.raises(InputError, match="holds this run, finished, and nothing to go on from"):
        train(run, tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "result.json").exists()


def test_a_loss_that_is_not_finite_stops_with_term_and_images(voc_folder, tmp_path):
    exploding = config(voc_folder, train={"lr": 1e30, "warmup": 0.0, "epochs": 3})
    with pytest.raises(FloatingPointError, match=r"not finite at step \d+: .*ground_truth.*images train_00"):
        train(exploding, tmp_path / "run")


def test_a_wrong_config_leaves_no_run_folder_behind(voc_folder, tmp_path):
    with pytest.raises(InputError, match="share 8 images"):
        train(config(voc_folder, data={"train": f"voc:{voc_folder}", "val_split": "train"}), tmp_path / "run")
    train(config(voc_folder, train={"epochs": 1}), tmp_path / "run")


def test_a_broken_file_is_one_message_from_a_workers_process_too(make_voc, tmp_path):
    folder = make_voc(tmp_path / "voc")
    picture = folder / "JPEGImages" / "train_001.jpg"
    picture.write_bytes(picture.read_bytes()[:200])
    with pytest.raises(InputError) as caught:
        train(config(folder, train={"workers": 1}), tmp_path / "run")
    assert "train_001.jpg" in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_a_store_that_changed_is_not_taken_up_again(voc_folder, tmp_path):
    run = config(voc_folder, train={"epochs": 1})
    train(run, tmp_path / "run")
    model, average, optimizer, facts = load_state(tmp_path / "run")
    save_state(tmp_path / "run", model, average, optimizer, {**facts, "stores": {"detection": [{"weights": "x"}]}})
    with pytest.raises(InputError, match=r"a store has changed .*differs in weights\)"):
        train(run, tmp_path / "run", resume=True)
    (tmp_path / "run" / "state" / "state.safetensors").write_bytes(b"broken")
    with pytest.raises(InputError, match="damaged training state"):
        train(run, tmp_path / "run", resume=True)


def test_images_that_changed_are_not_gone_on_with(make_voc, tmp_path):
    folder = make_voc(tmp_path / "voc", {"train": ("both",) * 8, "val": ("both",) * 2})
    run = config(folder, train={"epochs": 1})
    train(run, tmp_path / "run")
    mask = folder / "SegmentationClass" / "train_000.png"
    mask.rename(tmp_path / "mask.png")
    with pytest.raises(InputError, match=r"which of them have ground truth, have changed .*\(8 then, 8 now\)"):
        train(run, tmp_path / "run", resume=True)
    (tmp_path / "mask.png").rename(mask)
    assert train(run, tmp_path / "run", resume=True)["images"] == 8
    for path in folder.glob("ImageSets/*/train.txt"):
        path.write_text("train_000\ntrain_001\ntrain_002\ntrain_003\n")
    with pytest.raises(InputError, match=r"have changed since the run began \(8 then, 4 now\); bring them back"):
        train(run, tmp_path / "run", resume=True)


def test_a_run_is_trained_by_one_command_at_a_time(voc_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("tutored.engine.WAIT", 0.1)
    run = config(voc_folder, train={"epochs": 1})

    def again(_progress):
        for _ in range(2):  # who is refused must not free it for the next one
            with pytest.raises(InputError, match="run: another process trains this run; wait for its end"):
                train(run, tmp_path / "run", resume=True)

    train(run, tmp_path / "run", watch=again)
    assert train(run, tmp_path / "run", resume=True)["images"] == 8, "and it is free when that one has ended"


def test_what_a_page_shows_of_an_epoch_is_there_before_the_epoch_is_saved(voc_folder, tmp_path, monkeypatch):
    run = config(voc_folder, train={"epochs": 1})
    train(run, tmp_path / "whole")
    monkeypatch.setattr(Trainer, "save", lambda self: (_ for _ in ()).throw(OSError("killed")))
    with pytest.raises(OSError, match="killed"):
        train(run, tmp_path / "run")
    there = {path.name for path in (tmp_path / "whole" / "page").glob("*0001*")}
    assert there and {path.name for path in (tmp_path / "run" / "page").glob("*0001*")} == there


def test_two_runs_of_different_precision_in_one_process(voc_folder, tmp_path):
    train(config(voc_folder, train={"epochs": 1}), tmp_path / "full")
    train(config(voc_folder, train={"epochs": 1, "precision": "bf16"}), tmp_path / "half")
    assert not equal(weights(tmp_path / "full"), weights(tmp_path / "half"))


def test_two_processes_train_one_run(voc_folder, tmp_path):
    """Each sees its half of every batch; they divide by the weights of both."""
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config(voc_folder, train={"epochs": 1}).to_dict()))
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "tutored", "train"]
    done = subprocess.run(
        [sys.executable, *command, str(tmp_path / "run.yaml"), "--out", str(tmp_path / "run")],
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["figures"]["images"] == 4
    assert "Finished: 1 epoch in" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.parametrize(
    "task",
    [
        {"policy": "replace", "share": 0.5, "resampled": True},
        {"policy": "both"},
        {"policy": "fill", "hidden": 0.5},
    ],
)
@pytest.mark.parametrize("recipe", ["thesis", "corrected"])
def test_both_recipes_train_from_every_mixture_of_sources(voc_folder, tmp_path, recipe, task):
    train(config(voc_folder, train={"epochs": 1}), tmp_path / "tutor")
    tutor = StudentTutor(tmp_path / "tutor" / "checkpoint")
    store = label(tutor, open_dataset(f"voc:{voc_folder}", "train"), tmp_path / "store")
    section = {**task, "store": str(store)}
    mixed = config(voc_folder, supervision={"detection": section, "segmentation": section}, train={"epochs": 1})
    mixed = make_config({**mixed.model_dump(mode="json", exclude_unset=True), "recipe": recipe})
    reports = []
    result = train(mixed, tmp_path / "run", watch=reports.append)
    assert result["stores"]["detection"][0]["kind"] == "student"
    assert {"class/tutor", "map/tutor"} <= {name for report in reports for name in report.loss}


@pytest.mark.parametrize("freeze_norm", [False, True])
@pytest.mark.parametrize("backbone", ["test_resnet", "tf_efficientnet_lite0"])
def test_a_step_moves_what_learns_and_leaves_the_frozen_to_the_bit(voc_folder, tmp_path, backbone, freeze_norm):
    shape = {"backbone": backbone, "frozen": 8, "freeze_norm": freeze_norm}
    run = config(voc_folder, student=shape, train={"warmup": 0.0, "weight_decay": 1.0})
    trainer = Trainer(run, open_supervision(run), tmp_path / "run")
    student = trainer.student
    for module in student.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # timm starts some at 0, which stops what lies before them
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    batch = collate([trainer.training[place] for place in next(iter(trainer.plan))])
    before = {name: parameter.detach().clone() for name, parameter in student.named_parameters()}
    trainer.step(batch._replace(ground_truth=one_box_a_level(batch.ground_truth, student)))
    moved = {name for name, parameter in student.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved == {name for name, parameter in student.named_parameters() if parameter.requires_grad}
    stem, last = ("conv1", "layer4") if backbone == "test_resnet" else ("conv_stem", "blocks.6")
    assert f"backbone.net.{stem}.weight" not in moved
    assert any(name.startswith(f"backbone.net.{last}.") for name in moved)


@pytest.mark.parametrize(("precision", "seen"), [("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_the_network_computes_in_the_precision_that_is_asked_for(voc_folder, tmp_path, monkeypatch, precision, seen):
    """Whatever accelerate's own settings on this machine say."""
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    run = config(voc_folder, train={"precision": precision})
    trainer = Trainer(run, open_supervision(run), tmp_path / "run")
    found = set()
    trainer.student.map.logits.register_forward_hook(lambda _module, _inputs, output: found.add(output.dtype))
    trainer.step(collate([trainer.training[place] for place in next(iter(trainer.plan))]))
    assert found == {seen}
    assert {parameter.dtype for parameter in trainer.student.parameters()} == {torch.float32}
