"""Properties of the training step and of several processes that need no clock and no GPU.

As a program this file is one process of those that `take_steps` starts.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from accelerate import PartialState
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from made import TINY, truthful
from tutored import losses
from tutored.checkpoint import load_checkpoint
from tutored.cli import main
from tutored.config import Config, make_config
from tutored.data.training import collate
from tutored.device import choose_device
from tutored.engine import shard
from tutored.engine import trainer as trainer_module
from tutored.engine.gradients import means
from tutored.engine.optimise import Average, make_optimizer
from tutored.engine.supervision import open_supervision
from tutored.engine.trainer import Trainer
from tutored.softlabels.writer import PART_ROWS, finish, write_part
from tutored.structures import SoftLabels
from tutored.targets import Batch, Targets

SMALL = 5_000
"""Parameters of a block in pieces, so that a tiny student has seven of them."""
UNLIKE = ("boxes", "masks", "boxes", "masks", "none", "both", "boxes", "masks")
"""Of a batch of these, the first of two processes sees all boxes but one image's, and no mask; the other the masks."""
BATCHES = ((0, 1, 2, 3, 4, 5, 6, 7), (4, 1, 0, 3, 4, 5, 6, 7), (4, 1, 4, 3, 4, 5, 4, 7))
"""Positions in the split. In the last batch nobody teaches the first of two processes anything."""


def config(folder: Path, **sections: Any) -> Config:
    plain: dict[str, Any] = {
        "data": {"train": f"voc:{folder}"},
        "student": TINY,
        "train": {"epochs": 2, "batch": 8, "workers": 0, "lr": 1e-3, "device": "cpu", "threads": 1, "clip": 5.0},
    }
    for name, section in sections.items():
        plain[name] = {**plain.get(name, {}), **section}
    return make_config(plain)


def make_trainer(run: Config, out: Path, answered: tuple[int, ...] = ()) -> Trainer:
    """A trainer whose tutor knows the truth about the images at some positions."""
    supervision = open_supervision(run)
    train = supervision.train
    answers = {}
    for image_id in (train.ids[position] for position in answered):
        truth = train.ground_truth(image_id)
        if truth.boxes_xyxy is not None and truth.mask is not None:
            answers[image_id] = truthful(truth, len(train.labels))
        else:
            blank = torch.full((len(train.labels), 8, 8), 1 / len(train.labels))
            answers[image_id] = SoftLabels(size=truth.size, map=blank)
    taught = {"detection": answers, "segmentation": answers} if answers else {}
    both = {task: {"policy": "both", "store": "unused"} for task in taught}
    return Trainer(
        make_config(run.to_dict() | {"supervision": both}) if both else run,
        supervision._replace(soft_labels=taught),
        out,
    )


def keep_statistics(trainer: Trainer) -> None:
    """Batch norms as they are outside training, for theirs is the one statistic of a process' own images."""
    for module in trainer.student.modules():
        if isinstance(module, nn.BatchNorm2d):
            with torch.no_grad():  # timm starts some at 0, which stops what lies before them
                module.weight.copy_(shard.piece(torch.linspace(0.5, 1.5, len(module.bias)), module.weight))
            module.eval().train = lambda mode=True, module=module: module  # type: ignore[method-assign]


def child(folder: str, out: str, micro_batch: int | None, *, shards: bool = False) -> None:
    """Three steps; writes each step's gradients, the weights after it and the terms of the whole batch."""
    shard.UNIT = SMALL
    run = config(Path(folder), train={"micro_batch": micro_batch, "warmup": 0.0, "clip": None, "shard": shards})
    trainer = make_trainer(run, Path(out), answered=(1, 5))
    keep_statistics(trainer)
    rank, processes = trainer.plan.rank, trainer.plan.processes
    tensors: dict[str, Tensor] = {}
    terms = []
    for number, positions in enumerate(BATCHES):
        gradients = {}

        def spy(*_: Any, gradients: dict[str, Tensor] = gradients) -> None:
            for name, parameter in trainer.student.named_parameters():
                if parameter.grad is not None:
                    gradients[name] = shard.whole(parameter.grad.detach()).clone()

        handle = trainer.optimizer.optimizer.register_step_pre_hook(spy)
        values = trainer.step(collate([trainer.training[0, position] for position in positions[rank::processes]]))
        handle.remove()
        terms.append(means(values, 1, trainer.accelerator))
        tensors |= {f"{number}/gradient/{name}": value for name, value in gradients.items()}
        weights = {name: shard.whole(p.detach()) for name, p in trainer.student.named_parameters()}
        tensors |= {f"{number}/weight/{name}": weight.clone() for name, weight in weights.items()}
    mine = sum(shard.own(parameter).numel() for parameter in trainer.student.parameters())
    every = sum(parameter.numel() for parameter in trainer.student.parameters())
    assert mine / every == pytest.approx(0.5 if shards else 1, abs=0.01)
    save_file({name: value.contiguous() for name, value in tensors.items()}, f"{out}/{rank}.safetensors")
    Path(f"{out}/{rank}.json").write_text(json.dumps(terms))


def resume_child(folder: str, out: str) -> None:
    """A step in pieces, saved; taken up again for the second one, saved too."""
    shard.UNIT = SMALL
    for positions in BATCHES[:2]:
        trainer = make_resumed(Path(folder), Path(out))
        trainer.step(collate([trainer.training[0, position] for position in positions[trainer.plan.rank :: 2]]))
        trainer.average.fill()
        trainer.save()
        trainer.accelerator.wait_for_everyone()
        if trainer.done == 1 and trainer.plan.rank == 0:
            shutil.copytree(out, f"{out}-half")


def make_resumed(folder: Path, out: Path) -> Trainer:
    trainer = make_trainer(config(folder, train={"shard": True, "warmup": 0.0}), out, answered=(1, 5))
    keep_statistics(trainer)
    trainer.load()
    return trainer


def stop_child(folder: str, out: str) -> None:
    """The second of two processes is asked to stop after its first step. Writes the step at which each of them did."""
    trainer_module.LOG_EVERY = 3
    trainer = make_trainer(config(Path(folder), train={"epochs": 9}), Path(out))
    try:
        trainer._loop(None, lambda: trainer.plan.rank == 1 and trainer.done >= 1)
    except KeyboardInterrupt:
        Path(f"{out}/{trainer.plan.rank}.step").write_text(str(trainer.done))


def launch(processes: int, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run Python with these words, in one process or under torchrun; each with one thread."""
    several = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes))
    done = subprocess.run(
        [sys.executable, *(several if processes > 1 else ()), *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def take_steps(folder: Path, out: Path, processes: int, *words: str) -> dict[str, list[tuple[Any, Any]]]:
    """What `child` wrote in each process, tensors and terms, by the size of its micro-batches; "0": whole batches."""
    names = ("0", "2")
    for name in names:
        (out / name).mkdir(parents=True)
    launch(processes, __file__, folder, out, ",".join(names), *words)
    return {name: [_written(out / name / str(rank)) for rank in range(processes)] for name in names}


def _written(file: Path) -> tuple[Any, Any]:
    return load_file(f"{file}.safetensors"), json.loads(Path(f"{file}.json").read_text())


@pytest.fixture(scope="module")
def unlike(make_voc, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_voc(tmp_path_factory.mktemp("unlike"), {"train": UNLIKE, "val": ("both",) * 40})


@pytest.fixture(scope="module")
def steps(unlike: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, list[tuple[Any, Any]]]]:
    """`take_steps`, once for each number of processes and words: Python starts slowly."""
    return cache(lambda *how: take_steps(unlike, tmp_path_factory.mktemp("steps") / "out", *how))


@pytest.mark.parametrize(
    ("processes", "micro_batch", "words"),
    [(1, "2", ()), (2, "0", ()), (2, "2", ()), (2, "0", ("shard",)), (2, "2", ("shard",))],
)
def test_however_a_batch_is_split_the_step_is_the_same(steps, processes, micro_batch, words):
    """Processes whose images lack different things, micro-batches, weights in pieces: the same terms and weights."""
    ((tensors, terms),) = steps(1)["0"]
    assert [len(step) for step in terms] == [6, 6, 6]
    for found, found_terms in steps(processes, *words)[micro_batch]:
        for mine, theirs in zip(terms, found_terms, strict=True):
            assert theirs == pytest.approx(mine, rel=1e-4)
        assert found.keys() == tensors.keys()
        for name, value in tensors.items():
            worst = 1e-4 * float(value.abs().max()) + 1e-7
            assert torch.allclose(found[name], value, rtol=1e-3, atol=worst), name


def test_weights_in_pieces_are_saved_whole_and_taken_up_by_any_number_of_processes(unlike, tmp_path):
    """Two steps in one process; two in two that stop between them; and the second one in one, from what two left."""
    (tmp_path / "two").mkdir()
    launch(2, __file__, unlike, tmp_path / "two", "resume")
    straight, resumed = make_resumed(unlike, tmp_path / "straight"), make_resumed(unlike, tmp_path / "two-half")
    assert (straight.done, resumed.done) == (0, 1)
    for trainer in (straight, resumed):
        for positions in BATCHES[trainer.done : 2]:
            trainer.step(collate([trainer.training[0, position] for position in positions]))
        trainer.out.mkdir(exist_ok=True)
        trainer.save()
    wanted = load_file(tmp_path / "straight" / "state" / "state.safetensors")
    assert {name.split("/")[0] for name in wanted} == {"model", "average", "optimizer"}
    for folder in (tmp_path / "two", tmp_path / "two-half"):
        found = load_file(folder / "state" / "state.safetensors")
        assert found.keys() == wanted.keys()
        for name, value in wanted.items():
            worst = 1e-4 * float(value.abs().max()) + 1e-7
            assert torch.allclose(found[name], value, rtol=1e-3, atol=worst), name
        checkpoint, *_ = load_checkpoint(folder / "checkpoint")
        assert all(torch.equal(found[f"average/{name}"], value) for name, value in checkpoint.state_dict().items())


def test_processes_stop_together_with_their_step_saved(make_voc, tmp_path):
    """Asked after the first of three steps of an epoch, at the epoch's end; logs are due after every third."""
    folder = make_voc(tmp_path / "voc", {"train": ("both",) * 24, "val": ("both",)})
    launch(2, __file__, folder, tmp_path, "stop")
    assert [(tmp_path / f"{rank}.step").read_text() for rank in range(2)] == ["3", "3"]
    assert json.loads((tmp_path / "state" / "state.json").read_text())["done"] == 3


@pytest.fixture(scope="module")
def trained(unlike: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A run of two processes, and what they printed. Its 40 images of validation are three batches of at most 16."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "run.yaml").write_text(yaml.safe_dump(config(unlike).to_dict()))
    return folder / "run", launch(2, "-m", "tutored", "train", folder / "run.yaml", "--out", folder / "run")


def test_processes_that_share_an_evaluation_give_its_figures_to_the_bit(unlike, trained, tmp_path, capsys):
    """By two processes, by one, and by the two that trained, at the end of their run."""
    torch.set_num_threads(1)
    words = ["evaluate", trained[0] / "checkpoint", "--data", f"voc:{unlike}", "--split", "val", "--device", "cpu"]
    assert main([*map(str, words), "--json", f"{tmp_path}/one.json"]) == 0
    said = capsys.readouterr().out
    done = launch(2, "-m", "tutored", *words, "--json", tmp_path / "two.json")
    one, two = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("one", "two"))
    assert two == one
    assert done.stdout.replace("two.json", "one.json").split() == said.split()
    figures = json.loads((trained[0] / "result.json").read_text())["figures"]
    assert figures["images"] == 40
    assert figures == {name: one[name] for name in figures}


def test_a_run_in_pieces_goes_as_one_that_is_not(unlike, trained, tmp_path):
    """Two processes: the second step's loss, after an update, and what is validated and saved."""
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config(unlike, train={"shard": True}).to_dict()))
    launch(2, "-m", "tutored", "train", tmp_path / "run.yaml", "--out", tmp_path / "run")
    found, wanted = (
        [json.loads(line) for line in (run / "log.jsonl").open()] for run in (tmp_path / "run", trained[0])
    )
    assert [entry["step"] for entry in found] == [1, 2, 2]
    for mine, theirs in zip(found[:2], wanted[:2], strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-3)
    assert found[2]["val"]["images"] == 40
    saved = load_file(tmp_path / "run" / "state" / "state.safetensors")
    checkpoint, *_ = load_checkpoint(tmp_path / "run" / "checkpoint")
    assert all(torch.equal(saved[f"average/{name}"], value) for name, value in checkpoint.state_dict().items())


def test_of_several_processes_one_speaks(trained):
    run, done = trained
    said = [line for line in (done.stdout + done.stderr).splitlines() if "OMP_NUM_THREADS" not in line]
    assert sum("wrote" in line for line in said) == 1
    assert sum("next: tutored evaluate" in line for line in said) == 1
    assert sum("step 2 of 2" in line for line in said) == 1
    assert max(Counter(filter(None, said)).values()) == 1
    assert [json.loads(line)["step"] for line in (run / "log.jsonl").read_text().splitlines()] == [1, 2, 2]


def step_without_values(run: Config, out: Path, batch: Batch | None = None) -> Counter[str]:
    """One step on tensors that have shapes but no values; the operations that it takes.

    Whatever asks a tensor for a value raises: `item`, `bool`, `tolist`, a copy to the host, and all operations whose
    result's shape depends on values, such as `nonzero` and indexing with a mask. On a GPU these stop the host.
    """
    trainer = make_trainer(run, out, answered=(1, 5))
    batch = batch or collate([trainer.training[0, position] for position in BATCHES[0]])
    trainer.device = torch.device("meta")
    trainer.student.to("meta")
    trainer.averaged.to("meta")
    trainer.optimizer = make_optimizer(trainer.student, run.train, trainer.device)
    trainer.average = Average(trainer.averaged, trainer.student)
    with Counted() as counted:
        values = trainer.step(batch)
    assert values.keys() and {value.device.type for value in values.values()} == {"meta"}
    return counted.operations


def test_of_several_runs_in_one_process_each_has_its_own_device(voc_folder, tmp_path):
    """What accelerate keeps of a process decides it, with and without a GPU here."""
    for device, cpu in (("auto", False), ("cpu", True), ("auto", False)):
        trainer = make_trainer(config(voc_folder, train={"device": device}), tmp_path / "run")
        assert PartialState()._cpu is cpu
        assert trainer.device.type == ("cpu" if cpu else choose_device().type)


class Counted(TorchDispatchMode):
    """Counts the operations that torch is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: Counter[str] = Counter()
        self.computing = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.operations[str(func)] += 1
        self.computing += not func.is_view
        return func(*args, **kwargs or {})


@pytest.mark.parametrize("wrong", [
    Tensor.item, bool, Tensor.tolist, Tensor.cpu, Tensor.nonzero, torch.unique, lambda value: value[value > 0],
])  # fmt: skip
def test_what_waits_for_a_device_raises_without_values(wrong):
    """So the next test can fail."""
    with pytest.raises((NotImplementedError, RuntimeError)):
        wrong(torch.ones((), device="meta")) if wrong in (Tensor.item, bool) else wrong(torch.ones(3, device="meta"))


@pytest.mark.parametrize("sections", [
    {},
    {"train": {"clip": None, "ema": 0, "micro_batch": 2}},
    {"train": {"precision": "bf16"}},
    {"loss": {"joint": False, "mining": "batch", "class_target": "soft", "map_target": "softmax", "temperature": 0.5,
              "difficult": "train", "padding": "background", "normaliser": "positives"}},
    {"loss": {"temperature": 0.5}, "student": {"freeze_norm": True, "backbone": "tf_efficientnet_lite0"}},
])  # fmt: skip
def test_a_step_never_waits_for_the_device(unlike, tmp_path, sections):
    step_without_values(config(unlike, **sections), tmp_path)


def widened(targets: Targets | None, images: int, boxes: int) -> Targets | None:
    """The same targets for more images, with rows of padding."""
    if targets is None:
        return None
    more = [part.repeat(images, *[1] * (part.dim() - 1)) for part in targets]
    return Targets(*[torch.cat([part, *[part[:, -1:]] * boxes], dim=1) for part in more[:4]], *more[4:])


def test_more_images_and_boxes_take_no_more_operations(unlike, tmp_path):
    """No loop over either of them is in the step."""
    run = config(unlike)
    trainer = make_trainer(run, tmp_path, answered=(1, 5))
    batch = collate([trainer.training[0, position] for position in BATCHES[0]])
    large = Batch(
        batch.image_ids * 4,
        batch.images.repeat(4, 1, 1, 1),
        widened(batch.ground_truth, 4, 50),
        widened(batch.tutor, 4, 50),
    )
    few, many = (step_without_values(run, tmp_path, each) for each in (batch, large))
    assert few == many
    assert few.total() > 100


@pytest.mark.parametrize(("answered", "most"), [((), 140), ((1, 5), 265)])
def test_losses_take_few_operations(unlike, tmp_path, answered, most):
    """Views aside, from assignment to gradients; `benchmarks/operations.py` counts a whole step."""
    trainer = make_trainer(config(unlike), tmp_path, answered)
    batch, settings = collate([trainer.training[0, position] for position in BATCHES[0]]), trainer.config.loss
    outputs = trainer.student(batch.images.float() / 255)
    raw = outputs._replace(**{name: getattr(outputs, name).detach().requires_grad_() for name in outputs._fields[1:]})
    with Counted() as counted:
        assigned = losses.assign(outputs.anchors_xyxy, batch, settings)
        factors = losses.divide(assigned.weights, settings)
        losses.mix(losses.sums(raw, batch, assigned, settings), factors).backward()
    assert 100 < counted.computing <= most


@pytest.mark.parametrize("rows", [10_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_reading_a_store_to_its_end_takes_no_more_memory_than_its_beginning(tmp_path, rows):
    """The first 5,000 rows fill what is kept of them; the index, image id to part and row, is there from the start."""
    write_rows(tmp_path / "store", rows)
    opened, begun, ended = map(int, launch(1, "-c", READ_ALL, tmp_path / "store").stdout.split())
    assert ended - begun < 8_000_000
    assert opened < 30_000_000 + 500 * rows


READ_ALL = """
import sys
import psutil
from tutored.softlabels import Store

resident = lambda: psutil.Process().memory_info().rss
before = resident()
store = Store.open(sys.argv[1])
opened = resident() - before
for number, image_id in enumerate(store):
    assert len(store[image_id].boxes_xyxy) == 2
    if number == 5_000:
        begun = resident()
print(opened, begun, resident())
"""


def write_rows(path: Path, rows: int) -> None:
    """A store of rows with two boxes."""
    identity = {"kind": "synthetic", "labels": ["background", "cat"], "images": rows}
    probs, boxes = torch.tensor([[0.2, 0.8], [0.6, 0.4]]), torch.tensor([[0.0, 0, 10, 10], [5, 5, 50, 60]])
    answer = SoftLabels(size=(64, 64), boxes_xyxy=boxes, classes=torch.tensor([1, 1]), probs=probs)
    parts = range(-(-rows // PART_ROWS))
    for part in parts:
        ids = [f"image{row:08d}" for row in range(part * PART_ROWS, min((part + 1) * PART_ROWS, rows))]
        write_part(path, identity, part, ids, [answer] * len(ids))
    finish(path)


def test_beside_a_tutor_ground_truth_teaches_half_of_what_it_teaches_alone_however_few_images_have_it(unlike, tmp_path):
    """Formula 18, from the config to the terms of a step; the tutor answers for all images, four have a mask."""
    run = config(unlike, loss={"joint": False, "untaught": "skipped"})
    terms = []
    for name, answered in (("alone", ()), ("both", BATCHES[0])):
        trainer = make_trainer(run, tmp_path / name, answered)
        terms.append(trainer.backward(collate([trainer.training[0, position] for position in BATCHES[0]])))
    alone, both = terms
    for term in losses.TASK:
        assert both[f"{term}/ground_truth"].item() == pytest.approx(
            0.5 * alone[f"{term}/ground_truth"].item(), rel=1e-5
        )
        assert alone[f"{term}/ground_truth"] > 0


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_two_steps_in_every_precision_have_a_finite_loss(unlike, tmp_path, precision):
    run = config(unlike, train={"precision": precision})
    trainer = make_trainer(run, tmp_path, answered=(1, 5))
    for positions in BATCHES[:2]:
        values = trainer.step(collate([trainer.training[0, position] for position in positions]))
        assert all(value.isfinite() for value in values.values())
    assert trainer.student.map.logits.weight.is_contiguous(memory_format=torch.channels_last)


def test_a_compiled_network_takes_the_same_steps(unlike, tmp_path, monkeypatch):
    """Network and losses as one graph each; with the compiler's front end alone, for its back end takes minutes."""
    compiled: list[Any] = []
    compiler = torch.compile

    def compile_(function: Any) -> Any:
        compiled.append(function)
        return compiler(function, backend="eager", fullgraph=True)

    monkeypatch.setattr("torch.compile", compile_)
    values = {}
    for compiles in (False, True):
        run = config(unlike, train={"compile": compiles})
        trainer = make_trainer(run, tmp_path, answered=(1, 5))
        batches = [collate([trainer.training[0, position] for position in positions]) for positions in BATCHES[:2]]
        values[compiles] = [float(sum(trainer.step(batch).values())) for batch in batches]
    assert compiled == [trainer.student._call_impl, losses.assign, losses.sums]
    assert values[True] == pytest.approx(values[False], rel=1e-3)


if __name__ == "__main__":
    if sys.argv[3] == "stop":
        stop_child(sys.argv[1], sys.argv[2])
    elif sys.argv[3] == "resume":
        resume_child(sys.argv[1], sys.argv[2])
    else:
        for name in sys.argv[3].split(","):
            child(sys.argv[1], f"{sys.argv[2]}/{name}", int(name) or None, shards="shard" in sys.argv)
