import json
import os
import shutil
import signal

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from made import COMPACT, TINY, refused
from tutored import losses
from tutored.config import Train, make_config
from tutored.data import open_dataset
from tutored.data.training import TrainingSet, epoch_batches
from tutored.engine import train
from tutored.engine.optimise import load_optimizer, make_optimizer, rate_factor
from tutored.engine.state import load_state, save_state
from tutored.engine.supervision import open_supervision
from tutored.engine.trainer import Trainer
from tutored.errors import InputError
from tutored.processes import allow_files
from tutored.students import make_student
from tutored.tasks import DenseTask
from tutored.tasks.detection import measure
from tutored.tasks.segmentation import Segmentation
from tutored.tutors import open_tutor
from tutored.tutors.label import label
from tutored.watch import Watcher

TRUTH = ("detection/class/ground_truth", "detection/box/ground_truth", "segmentation/map/ground_truth")


def config(folder, **sections):
    plain = {
        "data": {"train": f"voc:{folder}"},
        "student": TINY,
        "train": {"epochs": 2, "batch": 4, "workers": 0, "lr": 1e-3, "device": "cpu", "threads": 1},
    }
    for name, section in sections.items():
        changes = isinstance(section, dict) and "kind" not in section
        plain[name] = {**plain.get(name, {}), **section} if changes else section
    return make_config(plain)


def weights(run):
    return load_file(run / "checkpoint" / "model.safetensors")


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def log_of(run):
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def at_step(number, do):
    """A watcher that does something after a step."""
    return Watcher(lambda report: do() if report.step == number else None)


@pytest.fixture
def every_step(monkeypatch):
    """The log has an entry for every step."""
    monkeypatch.setattr("tutored.engine.trainer.LOG_EVERY", 1)


# --- What a run leaves


class Told(Watcher):
    def __init__(self):
        super().__init__()
        self.start, self.reports, self.validations, self.ends = None, [], [], 0

    def begin(self, start):
        self.start = start

    def __call__(self, report):
        self.reports.append(report)

    def validated(self, validation):
        assert (self.start.out / "state").exists() == bool(self.validations), "told before it is saved"
        self.validations.append(validation)

    def end(self):
        self.ends += 1


def test_a_run_leaves_checkpoint_log_and_result(voc_folder, tmp_path, monkeypatch):
    """Four steps of a cosine without warm-up; entries after the second and the fourth, of their last step."""
    monkeypatch.setattr(measure, "best_score", lambda records: (0.35, 0.6))
    told = Told()
    given = config(voc_folder, train={"warmup": 0.0, "val_every": 1}).to_dict()
    result = train(given, str(tmp_path / "run"), watch=told)
    score = json.loads((tmp_path / "run" / "checkpoint" / "checkpoint.json").read_text())["scores"]["detection"]
    assert score == result["figures"]["detection"]["score"] == told.validations[-1].student.scores["detection"] == 0.35
    assert result == json.loads((tmp_path / "run" / "result.json").read_text())
    assert list(result["figures"]) == ["detection", "segmentation"] and result["images"] == 8
    assert result["figures"]["segmentation"]["images"] == 4
    assert result["config"]["student"]["backbone"] == "test_resnet"
    log = log_of(tmp_path / "run")
    assert [entry["step"] for entry in log] == [2, 2, 4, 4]
    assert set(log[0]["loss"]) == set(TRUTH)
    rates = [entry["lr"] for entry in log if "lr" in entry]
    assert rates == pytest.approx([1e-3 * (2 + h) / 4 for h in (2**0.5, -(2**0.5))])
    assert log[-1]["val"]["tasks"] == result["figures"]
    assert told.start.sources[5].teaches == {"detection": "nobody", "segmentation": "ground_truth"}
    assert [(each.step, each.steps, each.epoch) for each in told.reports] == [(2, 4, 1), (4, 4, 2)]
    assert [each.epoch for each in told.validations] == [1, 2] and told.ends == 1
    assert told.validations[-1].result.to_dict() == log[-1]["val"]


def test_reported_losses_are_means_since_the_last_report(voc_folder, tmp_path, monkeypatch):
    """Three epochs of two steps, a report every third step and at each epoch's end."""
    monkeypatch.setattr("tutored.engine.trainer.LOG_EVERY", 3)
    seen, means = [], {}

    class Spy(Trainer):
        def step(self, batch):
            values = super().step(batch)
            seen.append(sum(float(value) for value in values.values()))
            return values

    watch = Watcher(lambda report: means.update({report.step: sum(report.loss.values())}))
    train(config(voc_folder, train={"epochs": 3}), tmp_path / "run", watch=watch, trainer=Spy)
    assert means == pytest.approx({2: sum(seen[:2]) / 2, 3: seen[2], 4: seen[3], 6: sum(seen[4:]) / 2}, rel=1e-4)


# --- Stopped and resumed


def test_a_killed_run_resumes_to_the_same_weights(voc_folder, tmp_path):
    straight = config(voc_folder, train={"epochs": 3})
    train(straight, tmp_path / "straight")

    class KilledError(Exception):
        pass

    def kill():
        raise KilledError

    with pytest.raises(KilledError):
        train(straight, tmp_path / "broken", watch=at_step(4, kill))
    assert json.loads((tmp_path / "broken" / "state" / "state.json").read_text())["done"] == 2
    result = train(straight, tmp_path / "broken", resume=True)
    assert equal(weights(tmp_path / "straight"), weights(tmp_path / "broken"))
    assert result["figures"] == json.loads((tmp_path / "straight" / "result.json").read_text())["figures"]
    assert [entry["step"] for entry in log_of(tmp_path / "broken")] == [2, 4, 6, 6]


def test_asked_to_stop_it_saves_the_step_at_hand(voc_folder, tmp_path, every_step):
    run = config(voc_folder, train={"epochs": 3})
    train(run, tmp_path / "straight")
    before, out = signal.getsignal(signal.SIGTERM), tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt):
        train(run, out, watch=at_step(3, lambda: os.kill(os.getpid(), signal.SIGTERM)))
    assert json.loads((out / "state" / "state.json").read_text())["done"] == 3
    assert signal.getsignal(signal.SIGTERM) is before
    train(run, out, resume=True)
    assert equal(weights(tmp_path / "straight"), weights(out))


@pytest.mark.parametrize("patient", [False, True])
def test_asked_twice_it_stops_at_once(voc_folder, tmp_path, every_step, monkeypatch, patient):
    """One of several trainings (`--jobs`) is patient: Ctrl-C reaches all, and the first of them ends the others."""
    if patient:
        monkeypatch.setattr("tutored.engine.trainer.multiprocessing.parent_process", object)

    def insist():
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(config(voc_folder), tmp_path / "run", watch=at_step(1, insist))
    assert (tmp_path / "run" / "state").exists() == patient


def test_a_changed_store_or_a_damaged_state_is_not_taken_up(voc_folder, tmp_path):
    run = config(voc_folder, train={"epochs": 1})
    train(run, tmp_path / "run")
    model, average, optimizer, facts = load_state(tmp_path / "run")
    save_state(tmp_path / "run", model, average, optimizer, {**facts, "stores": {"detection": [{"weights": "x"}]}})
    refused(r"a store has changed .*differs in weights\)", train, run, tmp_path / "run", resume=True)
    (tmp_path / "run" / "state" / "state.safetensors").write_bytes(b"broken")
    refused("damaged training state", train, run, tmp_path / "run", resume=True)


def test_other_annotations_are_not_gone_on_with(make_voc, tmp_path):
    folder = make_voc(tmp_path / "voc", {"train": ("both",) * 4, "val": ("both",) * 2})
    run = config(folder, train={"epochs": 1})
    train(run, tmp_path / "run")
    for path in (folder / "Annotations" / "train_001.xml", folder / "SegmentationClass" / "train_002.png"):
        before = path.read_bytes()
        path.write_bytes(before + b"\n")
        refused(r"training images, or their ground truth, have changed", train, run, tmp_path / "run", resume=True)
        path.write_bytes(before)
    assert train(run, tmp_path / "run", resume=True)["images"] == 4


def test_other_packages_are_told_when_a_run_goes_on(voc_folder, tmp_path):
    run, notes = config(voc_folder, train={"epochs": 1}), []
    train(run, tmp_path / "run", tell=notes.append)
    model, average, optimizer, facts = load_state(tmp_path / "run")
    versions = facts["versions"]
    save_state(tmp_path / "run", model, average, optimizer, {**facts, "versions": versions | {"pillow": "1.0"}})
    told = f"the run goes on with pillow {versions['pillow']} instead of 1.0"
    before = list(notes)
    result = train(run, tmp_path / "run", resume=True, tell=notes.append)
    assert [note for note in notes if note.startswith(told)] == notes[2 * len(before) :]
    assert [note for note in result["notes"] if note.startswith(told)] and not any(told in note for note in before)


# --- The run's folder


def test_a_run_whose_folder_vanishes_stops(voc_folder, tmp_path, every_step):
    run = config(voc_folder, train={"epochs": 2})
    with pytest.raises(FileNotFoundError, match=r"run: the run's folder has vanished, and what it held"):
        train(run, tmp_path / "run", watch=at_step(1, lambda: shutil.rmtree(tmp_path / "run")))
    assert not (tmp_path / "run" / "checkpoint").exists()


@pytest.mark.parametrize(
    ("limits", "wanted"), [((64, 4096), (4096, 4096)), ((1024, 1024), None), ((64, -1), (65536, -1))]
)
def test_as_many_files_may_be_open_as_the_system_allows(monkeypatch, limits, wanted):
    given = []
    monkeypatch.setattr("resource.getrlimit", lambda _: limits)
    monkeypatch.setattr("resource.setrlimit", lambda _, new: given.append(new))
    allow_files()
    assert given == ([wanted] if wanted else [])
    monkeypatch.setattr("resource.getrlimit", lambda _: (40, 40))
    refused("lets this process open 40 files, and 256 are needed", allow_files)


def test_a_run_folder_belongs_to_one_run(voc_folder, tmp_path):
    run = config(voc_folder, train={"epochs": 1})
    train(run, tmp_path / "run")
    before = (tmp_path / "run" / "result.json").read_text()
    refused("holds this run already; add --resume", train, run, tmp_path / "run")
    other = config(voc_folder, train={"epochs": 1}, tasks={"detection": {"renamed": {"cat": "cats"}}})
    with pytest.raises(InputError, match=r"holds another run, with .*tasks\.detection\.renamed\.cat None instead of"):
        train(other, tmp_path / "run", resume=True)
    assert train(run, tmp_path / "run", resume=True)["figures"] == json.loads(before)["figures"]
    shutil.rmtree(tmp_path / "run" / "state")
    refused("holds this run, finished, and nothing to go on from", train, run, tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "result.json").exists()
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "thing").write_text("x")
    refused("not empty", train, run, tmp_path / "strange")


def test_a_run_is_trained_by_one_command_at_a_time(voc_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("tutored.engine.WAIT", 0.1)
    run = config(voc_folder, train={"epochs": 1})

    def again():
        for _ in range(2):  # a refused command must not free it for the next one
            refused("run: another process trains this run; wait for its end", train, run, tmp_path / "run", resume=True)

    train(run, tmp_path / "run", watch=at_step(2, again))
    assert train(run, tmp_path / "run", resume=True)["images"] == 8, "and it is free when that one has ended"


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"data": {"val_split": "train"}}, r"share 8 images \(train_000"),
        ({"student": {"frozen": 8}}, r"student\.frozen keeps what .* would bring; give one"),
        ({"student": {"freeze_norm": True}}, r"student\.freeze_norm keeps what .* would bring; give one"),
        ({"tasks": {"detection": {"policy": "none"}}}, "nobody teaches any image; see tasks.*policy"),
        ({"tasks": {"sounds": {"kind": "test_engine:Sounds"}}}, "the class lacks channels"),
    ],
)
def test_a_wrong_config_leaves_no_run_folder_behind(voc_folder, tmp_path, sections, message):
    with pytest.raises(InputError, match=message):
        train(config(voc_folder, **sections), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_broken_file_is_one_message_from_a_worker_too(make_voc, tmp_path):
    folder = make_voc(tmp_path / "voc")
    picture = folder / "JPEGImages" / "train_001.jpg"
    picture.write_bytes(picture.read_bytes()[:200])
    with pytest.raises(InputError, match=r"train_001\.jpg") as caught:
        train(config(folder, train={"workers": 1}), tmp_path / "run")
    assert "Traceback" not in str(caught.value)


def test_an_infinite_loss_stops_with_its_term_and_images(voc_folder, tmp_path):
    exploding = config(voc_folder, train={"lr": 1e30, "warmup": 0.0, "epochs": 3})
    with pytest.raises(FloatingPointError, match=r"not finite at step \d+: .*/ground_truth.*images train_00"):
        train(exploding, tmp_path / "run")


# --- What is learnt


def test_kept_images_train_the_same_student(voc_folder, tmp_path):
    """Three runs: without a cache, one that fills it with two readers, and one that reads it."""
    train(config(voc_folder), tmp_path / "plain")
    for name, workers in (("fills", 2), ("reads", 0)):
        kept = config(voc_folder, data={"cache": tmp_path / "cache"}, train={"workers": workers})
        train(kept, tmp_path / name)
        assert equal(weights(tmp_path / "plain"), weights(tmp_path / name))
    assert len(list((tmp_path / "cache").iterdir())) == 7  # nobody annotated the eighth, so that it is not read


@pytest.mark.parametrize(
    ("recipe", "golden"), [("corrected", [42.614357, 23.264465]), ("thesis", [52.629028, 44.374584])]
)
def test_two_steps_at_a_fixed_seed_give_the_committed_loss(voc_folder, recipe, golden):
    """A refactoring must keep these; a change of the recipe may change them, knowingly. Colours stay: they round."""
    torch.set_num_threads(1)  # several sum in another order, and the second loss shows it
    run = config(voc_folder, recipe=recipe, augment={"colour": False})
    opened = open_supervision(run)
    student = make_student(run.student, opened.tasks)
    draw = np.random.default_rng(0)  # torch's own truncated normal draws otherwise from version to version
    with torch.no_grad():
        for _, kernel in sorted(student.named_parameters(), key=lambda each: each[0].startswith("heads.")):
            if kernel.dim() > 1:
                kernel.copy_(torch.from_numpy(draw.normal(0, kernel[0].numel() ** -0.5, kernel.shape)))
    how = {"size": 64, "augment": run.augment, "joint": run.loss.joint}
    training = TrainingSet(opened.train, opened.tasks, student.grids, **how)
    optimizer = make_optimizer(student, run.train)
    seen = []
    for places in epoch_batches(training.taught(), len(training), 4, seed=0, epoch=0):
        batch = training.collate([training[place] for place in places])
        assigned = losses.assign(student.heads, batch, run.loss)
        sums = losses.sums(student(batch.images.float() / 255), batch, assigned, student.heads)
        loss = losses.weigh(sums, losses.divide(assigned.weights, student.heads, run.loss)).sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seen.append(loss.item())
    assert seen == pytest.approx(golden, rel=1e-3)


def test_tasks_of_several_label_spaces_train_side_by_side(make_voc, tmp_path):
    """Boxes of four classes, masks of two of them, and parts with a folder and classes of their own."""
    folder = make_voc(tmp_path / "voc", {"train": ("both",) * 4, "val": ("both",) * 2})
    (folder / "Parts").mkdir()
    (folder / "parts.txt").write_text("head\nwheel\ntail\n")
    for image in (folder / "JPEGImages").glob("*_000.jpg"):
        width, height = Image.open(image).size
        Image.fromarray(np.full((height, width), 3, np.uint8)).save(folder / "Parts" / f"{image.stem}.png")
    tasks = {
        "detection": {"classes": ["cat", "dog", "person", "bus"]},
        "segmentation": {"classes": ["dog", "bus"], "weight": 2},
        "parts": {"kind": "segmentation", "from": "Parts", "labels": "parts.txt"},
    }
    run = config(folder, tasks=tasks, train={"epochs": 2})
    result = train(run, tmp_path / "run")
    figures = result["figures"]
    assert {name: each["classes"] for name, each in figures.items()} == {
        "detection": ["cat", "dog", "person", "bus"], "segmentation": ["dog", "bus"], "parts": ["head", "wheel", "tail"]
    }  # fmt: skip
    assert [each["images"] for each in figures.values()] == [2, 2, 1]
    assert set(log_of(tmp_path / "run")[0]["loss"]) == {*TRUTH, "parts/map/ground_truth"}
    kept = weights(tmp_path / "run")
    assert [len(kept[f"heads.{name}.network.logits.bias"]) for name in ("segmentation", "parts")] == [3, 4]


class Sounds(Segmentation):
    """A user's own kind of task that is not whole."""

    channels = DenseTask.channels


def test_both_recipes_train_from_every_mixture_of_sources(voc_folder, tmp_path):
    train(config(voc_folder, train={"epochs": 1}), tmp_path / "tutor")
    tutor = open_tutor("student", weights=tmp_path / "tutor" / "checkpoint", device="cpu")
    store = label(tutor, open_dataset(f"voc:{voc_folder}", "train"), tmp_path / "store")
    for recipe, task in (
        ("thesis", {"policy": "replace", "share": 0.5, "resampled": True}),
        ("corrected", {"policy": "both"}),
        ("thesis", {"policy": "fill", "hidden": 0.5}),
    ):
        section, told = {**task, "store": str(store)}, Told()
        tasks = {"detection": section, "segmentation": section}
        run = config(voc_folder, recipe=recipe, tasks=tasks, train={"epochs": 1})
        result = train(run, tmp_path / task["policy"], watch=told)
        assert result["stores"]["detection"][0]["kind"] == "student"
        assert {"detection/class/tutor", "segmentation/map/tutor"} <= {n for each in told.reports for n in each.loss}


# --- Steps


def test_a_fused_optimiser_takes_the_same_steps_also_resumed(voc_folder, tmp_path):
    """Four steps, plain, fused, and fused with the state saved between them."""
    run = config(voc_folder)
    student = make_student(run.student, open_supervision(run).tasks)
    start = {name: value.clone() for name, value in student.state_dict().items()}

    def steps(*, fused=True, halt=None):
        student.load_state_dict(start)
        optimizer = make_optimizer(student, run.train)
        assert all(group["fused"] for group in optimizer.param_groups)
        if not fused:
            plain = [{**group, "fused": False} for group in optimizer.param_groups]
            optimizer = type(optimizer)(plain)
        for step in range(4):
            if step == halt:
                save_state(tmp_path, {}, {}, optimizer.state_dict(), {})
                optimizer = make_optimizer(student, run.train)
                load_optimizer(optimizer, load_state(tmp_path)[2])
            for number, parameter in enumerate(student.parameters()):
                parameter.grad = (parameter.detach() + number + step).sin()
            optimizer.step()
        return {name: value.clone() for name, value in student.state_dict().items()}

    plain, fused = steps(fused=False), steps()
    assert all(torch.allclose(plain[name], fused[name], rtol=1e-5, atol=1e-6) for name in start)
    assert not equal(start, fused)
    assert equal(steps(halt=2), fused)


def test_schedules_by_hand():
    cosine = Train(warmup=0.1, schedule="cosine")
    assert [rate_factor(step, 100, cosine) for step in (0, 9, 10, 55)] == pytest.approx([0.1, 1.0, 1.0, 0.5])
    stepped = Train(warmup=0.0, schedule="step", milestones=(0.5, 0.75))
    assert [rate_factor(step, 100, stepped) for step in (0, 49, 50, 75)] == pytest.approx([1, 1, 0.1, 0.01])


@pytest.mark.parametrize(("backbone", "freeze_norm"), [("test_resnet", False), ("tf_efficientnet_lite0", True)])
def test_a_step_moves_what_learns_and_leaves_the_frozen(voc_folder, tmp_path, backbone, freeze_norm):
    shape = {"backbone": backbone, "frozen": 8, "freeze_norm": freeze_norm}
    run = config(voc_folder, student=shape, train={"warmup": 0.0, "weight_decay": 1.0})
    trainer = Trainer(run, open_supervision(run), tmp_path / "run")
    student = trainer.student
    for module in student.modules():
        if isinstance(module, nn.BatchNorm2d):  # timm starts some at 0, which stops what lies before them
            nn.init.uniform_(module.weight, 0.5, 1.5)
    before = {name: parameter.detach().clone() for name, parameter in student.backbone.named_parameters()}
    places = next(iter(trainer.plan))
    trainer.step(trainer.training.collate([trainer.training[place] for place in places]))
    moved = {name for name, value in student.backbone.named_parameters() if not torch.equal(value, before[name])}
    assert moved == {name for name, value in student.backbone.named_parameters() if value.requires_grad}
    stem, last = ("conv1", "layer4") if backbone == "test_resnet" else ("conv_stem", "blocks.6")
    assert f"net.{stem}.weight" not in moved and any(name.startswith(f"net.{last}.") for name in moved)


def test_runs_of_one_process_have_each_their_precision(voc_folder, tmp_path, monkeypatch):
    """Whatever accelerate's own settings on this machine say; losses are finite, and weights stay in fp32."""
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    for precision, seen in (("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float32)):
        run = config(voc_folder, student=COMPACT, train={"precision": precision})
        trainer = Trainer(run, open_supervision(run), tmp_path / "run")
        told = "train.precision fp16: a CPU computes in fp32 instead" in trainer.supervision.notes
        assert told == (precision == "fp16")
        found = set()
        logits = trainer.student.heads["segmentation"].network.logits
        logits.register_forward_hook(lambda _module, _inputs, output, found=found: found.add(output.dtype))
        places = next(iter(trainer.plan))
        values = trainer.step(trainer.training.collate([trainer.training[place] for place in places]))
        assert all(value.isfinite() for value in values.values()) and found == {seen}
        assert {parameter.dtype for parameter in trainer.student.parameters()} == {torch.float32}
