"""Properties of the training step and of several processes that need no clock and no GPU.

As a program this file is one of two processes.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from io import StringIO
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from made import COMPACT, LABELS, TINY, Repeats
from tutored import processes
from tutored.checkpoint import load_checkpoint
from tutored.cli import main
from tutored.config import make_config
from tutored.data import open_dataset
from tutored.engine import optimise
from tutored.engine import trainer as trainer_module
from tutored.engine.optimise import Average, make_optimizer, means
from tutored.engine.supervision import open_supervision
from tutored.engine.trainer import Trainer
from tutored.softlabels.writer import PART_ROWS, finish, write_part
from tutored.tasks.detection import SoftBoxes
from tutored.tasks.segmentation import SoftMap
from tutored.tutors.label import label
from tutored.types import SOURCES, Batch, SoftLabels
from tutored.watch import Watcher

TASKS = ("detection", "segmentation")
SMALL = 5_000
"""Parameters of a block in pieces, so that a tiny student has seven of them."""
UNLIKE = ("boxes", "masks", "boxes", "masks", "none", "both", "boxes", "masks")
"""Of a batch of these, the first of two processes sees all boxes but one image's, and no mask; the other the masks."""
BATCHES = ((0, 1, 2, 3, 4, 5, 6, 7), (4, 1, 0, 3, 4, 5, 6, 7), (4, 1, 4, 3, 4, 5, 4, 7))
"""Positions in the split. In the last batch nobody teaches the first of two processes anything."""
ANSWERED = ("train_001", "train_005")
WAITING = {"kind": "ubernet", "backbone": "test_resnet", "weights": "random", "size": 64, "width": 8}
WAITING |= {"task_images": 12, "trunk_images": 8}
"""Gradients of its tasks wait for the second of three steps."""
OTHERS = {"ubernet": WAITING, "compact": COMPACT}
SPLIT = [("0",), ("2",), ("0", "shard"), ("2", "shard"), ("2", "ubernet", "shard"), ("0", "compact")]
"""Of two processes' steps: images in a micro-batch, 0 for all at once; weights in pieces, and other students."""


def config(folder, **sections):
    """A run of the tiny BlitzNet, or another student, on a folder; a tutor teaches too where a store lies in it."""
    task = {"policy": "both", "store": str(folder / "store")} if (folder / "store").exists() else {}
    plain = {
        "data": {"train": f"voc:{folder}"},
        "tasks": dict.fromkeys(TASKS, task),
        "student": sections.pop("student", TINY),
        "train": {"epochs": 2, "batch": 8, "workers": 0, "lr": 1e-3, "device": "cpu", "threads": 1, "clip": 5.0},
    }
    for name, section in sections.items():
        changes = isinstance(section, dict) and name in plain and "kind" not in section
        plain[name] = {**plain[name], **section} if changes else section
    return make_config(plain)


def make_trainer(run, out, kind=Trainer):
    made = kind(run, open_supervision(run), out)
    out.mkdir(exist_ok=True, parents=True)
    (out / "config.yaml").touch()  # without which the run's folder counts as vanished
    return made


def some_answers(answer, image_id):
    """A truthful tutor's answers for two images; of the one without boxes an undecided map."""
    if image_id not in ANSWERED:
        return SoftLabels(answer.size)
    if image_id == "train_001":
        classes = len(answer.tasks["segmentation"].map)
        return SoftLabels.of(answer.size, SoftMap(map=torch.full((classes, 8, 8), 1 / classes)))
    return answer


def keep_statistics(trainer):
    """Batch norms as they are outside training, since theirs are statistics of a process' own images."""
    for module in trainer.student.modules():
        if isinstance(module, nn.BatchNorm2d):
            with torch.no_grad():  # timm starts some at 0, which stops what lies before them
                module.weight.copy_(optimise.piece(torch.linspace(0.5, 1.5, len(module.bias)), module.weight))
            module.eval().train = lambda mode=True, module=module: module


def batch_of(trainer, positions):
    """This process' part of a batch."""
    mine = positions[trainer.plan.rank :: trainer.plan.processes]
    batch = trainer.training.collate([trainer.training[0, position] for position in mine])
    assert isinstance(batch, Batch)
    return batch


def child(folder, out, micro_batch, words):
    """Three steps; writes each step's gradients, the weights after it and the terms of the whole batch."""
    shards = "shard" in words
    student = next((OTHERS[word] for word in words if word in OTHERS), TINY)
    train = {"micro_batch": micro_batch, "warmup": 0.0, "clip": None, "shard": shards}
    trainer = make_trainer(config(folder, train=train, student=student), out)
    keep_statistics(trainer)
    heads, rank = trainer.student.heads, trainer.plan.rank
    names = [f"{task}/{term}/{source}" for source in SOURCES for task in heads for term in heads[task].terms]
    tensors = {}
    terms = []
    for number, positions in enumerate(BATCHES):
        gradients = {}

        def spy(*_, gradients=gradients):
            for name, parameter in trainer.student.named_parameters():
                if parameter.grad is not None:
                    gradients[name] = optimise.whole(parameter.grad.detach()).clone()

        handle = trainer.optimizer.optimizer.register_step_pre_hook(spy)
        terms.append(means(trainer.step(batch_of(trainer, positions)), names, 1, trainer.accelerator))
        handle.remove()
        tensors |= {f"{number}/gradient/{name}": value for name, value in gradients.items()}
        weights = {name: optimise.whole(p.detach()) for name, p in trainer.student.named_parameters()}
        tensors |= {f"{number}/weight/{name}": weight.clone() for name, weight in weights.items()}
    mine = sum(optimise.own(parameter).numel() for parameter in trainer.student.parameters())
    every = sum(parameter.numel() for parameter in trainer.student.parameters())
    assert mine / every == pytest.approx(0.5 if shards else 1, abs=0.01)
    save_file({name: value.contiguous() for name, value in tensors.items()}, f"{out}/{rank}.safetensors")
    Path(f"{out}/{rank}.json").write_text(json.dumps(terms))


def resume_child(folder, out):
    """A step in pieces, saved; taken up again for the second one, saved too."""
    for positions in BATCHES[:2]:
        trainer = make_resumed(folder, out)
        trainer.step(batch_of(trainer, positions))
        trainer.average.fill()
        trainer.save()
        trainer.accelerator.wait_for_everyone()
        if trainer.done == 1 and trainer.plan.rank == 0:
            shutil.copytree(out, f"{out}-half")


def make_resumed(folder, out):
    trainer = make_trainer(config(folder, train={"shard": True, "warmup": 0.0}), out)
    keep_statistics(trainer)
    trainer.load()
    return trainer


def stop_child(folder, out):
    """The second of two processes is asked to stop in its first step. Writes the step at which each of them did."""

    class Stopped(Trainer):
        def step(self, batch):
            if self.plan.rank == 1 and self.done == 0:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().step(batch)

    run = config(folder, data={"split": "stop", "val_split": None}, tasks={task: {} for task in TASKS})
    trainer = make_trainer(run, out, Stopped)
    try:
        trainer.run(Watcher())
    except KeyboardInterrupt:
        Path(f"{out}/{trainer.plan.rank}.step").write_text(str(trainer.done))


def play(folder, out):
    """All that two processes do, one thing after the other: Python starts slowly."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(optimise, "UNIT", SMALL)
        for micro_batch, *words in SPLIT:
            child(folder, out / f"{micro_batch}{words}", int(micro_batch) or None, tuple(words))
        resume_child(folder, out / "resumed")
        patch.setattr(trainer_module, "LOG_EVERY", 3)
        stop_child(folder, out / "stopped")
    for name, words in commands(folder, out).items():
        told = StringIO()
        with redirect_stdout(told), redirect_stderr(told):
            assert main(words) == 0, told.getvalue()
        (out / f"{name}-{processes.place()[0]}.txt").write_text(told.getvalue())


def commands(folder, out):
    """A run with weights in pieces, what it reaches on 40 images, three batches of them, and a store of two parts."""
    data, student = ["--data", f"voc:{folder}", "--split"], str(out / "run" / "checkpoint")
    return {
        "train": ["train", str(folder / "run.yaml"), "--out", str(out / "run")],
        "evaluate": ["evaluate", student, *data, "val", "--device", "cpu", "--json", str(out / "figures.json")],
        "label": ["label", f"student:{student}", *data, "many", "--device", "cpu", "--out", str(out / "store")],
    }


@pytest.fixture(scope="module")
def unlike(make_voc, tmp_path_factory):
    splits = {"train": UNLIKE, "val": ("both",) * 40, "stop": ("both",) * 24, "many": ("none",) * 70}
    folder = make_voc(tmp_path_factory.mktemp("unlike"), splits)
    dataset = open_dataset(f"voc:{folder}", "train")
    label(Repeats(dataset, some_answers), dataset, folder / "store")
    (folder / "run.yaml").write_text(yaml.safe_dump(config(folder, train={"shard": True}).to_dict()))
    return folder


@pytest.fixture(scope="module")
def two(unlike, tmp_path_factory):
    """What two processes under torchrun left of `play`, each with one thread."""
    out = tmp_path_factory.mktemp("two")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    alone = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([*torchrun, __file__, unlike, out], capture_output=True, text=True, timeout=900, env=alone)
    assert done.returncode == 0, done.stderr[-3000:]
    return out


@pytest.fixture(scope="module")
def alone(unlike, tmp_path_factory):
    """What one process' steps are, by the size of its micro-batches and by the student."""
    out = tmp_path_factory.mktemp("alone")

    @cache
    def steps(micro_batch, *words):
        folder = out / f"{micro_batch}{[*words]}"
        child(unlike, folder, int(micro_batch) or None, words)
        return read(folder, 0)

    return steps


def read(folder, rank):
    """The tensors and terms that `child` wrote."""
    return [load_file(folder / f"{rank}.safetensors"), json.loads((folder / f"{rank}.json").read_text())]


def assert_near(found, wanted):
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        worst = 1e-4 * float(value.abs().max()) + 1e-7
        assert torch.allclose(found[name], value, rtol=1e-3, atol=worst), name


def assert_same_steps(found, wanted):
    assert [len(step) for step in wanted[1]] == [6, 6, 6]
    for mine, theirs in zip(found[1], wanted[1], strict=True):
        assert mine == pytest.approx(theirs, rel=1e-4)
    assert_near(found[0], wanted[0])


@pytest.mark.parametrize("words", [(), ("ubernet",), ("compact",)])
def test_in_micro_batches_a_step_is_the_same(alone, words):
    assert_same_steps(alone("2", *words), alone("0", *words))


@pytest.mark.parametrize("split", SPLIT)
def test_however_a_batch_is_split_the_step_is_the_same(alone, two, split):
    """Processes whose images lack different things, micro-batches, weights in pieces: the same terms and weights."""
    for rank in range(2):
        found = read(two / f"{split[0]}{[*split[1:]]}", rank)
        assert_same_steps(found, alone("0", *(word for word in split[1:] if word != "shard")))


def test_weights_in_pieces_go_on_in_any_number_of_processes(unlike, two, tmp_path):
    """Two steps in one process; two in two that stop between them; and the second one in one, from what two left."""
    straight, resumed = make_resumed(unlike, tmp_path / "straight"), make_resumed(unlike, two / "resumed-half")
    assert (straight.done, resumed.done) == (0, 1)
    for trainer in (straight, resumed):
        for positions in BATCHES[trainer.done : 2]:
            trainer.step(batch_of(trainer, positions))
        trainer.save()
    wanted = load_file(tmp_path / "straight" / "state" / "state.safetensors")
    assert {name.split("/")[0] for name in wanted} == {"model", "average", "optimizer"}
    for folder in (two / "resumed", two / "resumed-half"):
        assert_near(load_file(folder / "state" / "state.safetensors"), wanted)
        assert_checkpoint_is_the_average(folder)


def assert_checkpoint_is_the_average(run):
    saved, (student, _) = load_file(run / "state" / "state.safetensors"), load_checkpoint(run / "checkpoint")
    assert all(torch.equal(saved[f"average/{name}"], value) for name, value in student.state_dict().items())


def test_processes_stop_together_with_their_step_saved(two):
    """Asked in the first of three steps of an epoch, at the epoch's end; logs are due after every third."""
    assert [(two / "stopped" / f"{rank}.step").read_text() for rank in range(2)] == ["3", "3"]
    assert json.loads((two / "stopped" / "state" / "state.json").read_text())["done"] == 3


def test_processes_evaluate_and_label_as_one_does(unlike, two, tmp_path, capsys):
    """To the bit: by two processes, by one, and by the two that trained, at the end of their run."""
    torch.set_num_threads(1)
    words = commands(unlike, two)
    assert main([*words["evaluate"][:-1], str(tmp_path / "figures.json")]) == 0
    said = capsys.readouterr().out
    found, figures = (json.loads((folder / "figures.json").read_text()) for folder in (two, tmp_path))
    assert found == figures and figures["images"] == 40
    told = (two / "evaluate-0.txt").read_text().replace(f"{two}/figures", f"{tmp_path}/figures")
    assert told.split() == said.split()
    assert json.loads((two / "run" / "result.json").read_text())["figures"] == figures["tasks"]
    assert_checkpoint_is_the_average(two / "run")
    assert main([*words["label"][:-1], str(tmp_path / "store")]) == 0
    stores = [{path.name: path.read_bytes() for path in (at / "store").iterdir()} for at in (two, tmp_path)]
    assert stores[0] == stores[1] and "part-00001.parquet" in stores[0]


def test_of_several_processes_one_speaks(two):
    said = "".join((two / f"train-{rank}.txt").read_text() for rank in range(2)).splitlines()
    for words in (f"wrote {two / 'run' / 'checkpoint'}", "next: tutored evaluate", "step 2 of 2"):
        assert sum(words in line for line in said) == 1
    assert max(Counter(line for line in said if line.startswith("note: ")).values()) == 1
    assert [json.loads(line)["step"] for line in (two / "run" / "log.jsonl").read_text().splitlines()] == [1, 2, 2]


# --- A step without values


class Counted(TorchDispatchMode):
    """Counts the operations that torch is asked for."""

    def __init__(self):
        super().__init__()
        self.operations = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.operations[str(func)] += 1
        return func(*args, **kwargs or {})


def step_without_values(run, out, change=lambda batch: batch):
    """One step on tensors that have shapes but no values; the operations that it takes.

    Whatever asks a tensor for a value raises: `item`, `bool`, `tolist`, a copy to the host, and all operations whose
    result's shape depends on values, such as `nonzero` and indexing with a mask. On a GPU these stop the host.
    """
    trainer = make_trainer(run, out)
    batch = change(batch_of(trainer, BATCHES[0]))
    trainer.device = torch.device("meta")
    trainer.student.to("meta")
    trainer.averaged.to("meta")
    trainer.optimizer = make_optimizer(trainer.student, run.train)
    trainer.average = Average(trainer.averaged, trainer.student)
    with Counted() as counted:
        values = trainer.step(batch)
    assert values.keys() and {value.device.type for value in values.values()} == {"meta"}
    return counted.operations


@pytest.mark.parametrize("sections", [
    {},
    {"train": {"clip": None, "ema": 0, "micro_batch": 2}},
    {"recipe": "thesis"},
    {"student": {"freeze_norm": True, "backbone": "tf_efficientnet_lite0"}},
])  # fmt: skip
def test_a_step_never_waits_for_the_device(unlike, tmp_path, sections):
    step_without_values(config(unlike, **sections), tmp_path)


def test_more_images_and_boxes_take_no_more_operations(unlike, tmp_path):
    """No loop over either of them is in the step."""

    def widened(batch):
        larger = batch._replace(image_ids=batch.image_ids * 4).map(lambda x: x.repeat(4, *[1] * (x.dim() - 1)))
        for source, targets in larger.targets["detection"].items():
            padded = [torch.cat([part, *[part[:, -1:]] * 50], dim=1) for part in targets[:4]]
            larger.targets["detection"][source] = type(targets)(*padded, *targets[4:])
        return larger

    few, many = (step_without_values(config(unlike), tmp_path, change) for change in (lambda batch: batch, widened))
    assert few == many and few.total() > 100


def test_a_compiled_network_takes_the_same_steps(unlike, tmp_path, monkeypatch):
    """Network and losses as one graph each; with the compiler's front end alone, for its back end takes minutes."""
    compiler = torch.compile
    monkeypatch.setattr("torch.compile", lambda function: compiler(function, backend="eager", fullgraph=True))
    values = {}
    for compiles in (False, True):
        trainer = make_trainer(config(unlike, student=COMPACT, train={"compile": compiles}), tmp_path)
        values[compiles] = [float(sum(trainer.step(batch_of(trainer, each)).values())) for each in BATCHES[:2]]
    assert values[True] == pytest.approx(values[False], rel=1e-3)


# --- Memory


READ_ALL = """
import sys
import psutil
from tutored.softlabels import Store

resident = lambda: psutil.Process().memory_info().rss
before = resident()
store = Store.open(sys.argv[1])
opened = resident() - before
for number, image_id in enumerate(store):
    assert len(store[image_id].tasks["detection"].boxes_xyxy) == 2
    if number == 5_000:
        begun = resident()
print(opened, begun, resident(), int("pandas" in sys.modules))
"""


def test_reading_a_store_to_its_end_takes_no_more_memory(tmp_path):
    """The first 5,000 rows fill what is kept of them; the index, image id to part and row, is there from the start."""
    rows = 10_000
    identity = {"kind": "synthetic", "labels": list(LABELS.names[:2]), "images": rows}
    probs, boxes = torch.tensor([[0.2, 0.8], [0.6, 0.4]]), torch.tensor([[0.0, 0, 10, 10], [5, 5, 50, 60]])
    answer = SoftLabels.of((64, 64), SoftBoxes(boxes_xyxy=boxes, classes=torch.tensor([1, 1]), probs=probs))
    for part in range(-(-rows // PART_ROWS)):
        ids = [f"image{row:08d}" for row in range(part * PART_ROWS, min((part + 1) * PART_ROWS, rows))]
        write_part(tmp_path / "store", identity, part, ids, [answer] * len(ids))
    finish(tmp_path / "store")
    told = subprocess.run([sys.executable, "-c", READ_ALL, tmp_path / "store"], check=True, capture_output=True).stdout
    opened, begun, ended, pandas = map(int, told.split())
    assert ended - begun < 8_000_000
    assert opened < 30_000_000 + 500 * rows
    assert not pandas, "40 MB and a second in each worker"


def test_gpus_are_fed_by_all_cores_but_one_each(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(16), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert [processes.readers(torch.device(kind)) for kind in ("cuda", "cpu")] == [15, 2]
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert processes.readers(torch.device("cuda")) == 3
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "16")
    assert processes.readers(torch.device("cuda")) == 1


if __name__ == "__main__":
    play(Path(sys.argv[1]), Path(sys.argv[2]))
