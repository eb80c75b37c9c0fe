"""Readers of what tutored writes itself, and of networks' files; `readers` has those of users' data."""

from __future__ import annotations

import json
import shutil
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from benchmarks.faults.damage import (
    damage_array,
    damage_bytes,
    damage_json,
    damage_rows,
    damage_safetensors,
    damage_yaml,
)
from benchmarks.faults.examples import PETS, make_onnx, make_weights, picture
from benchmarks.faults.readers import Reader, valid_answer
from tutored.audit import Sidecar, TaskAudit, read_sidecar, write_sidecar
from tutored.audit.sidecar import Advice, tutor_of
from tutored.checkpoint import load_checkpoint, save_checkpoint
from tutored.config import load_config, make_config
from tutored.engine.state import load_state, save_state
from tutored.evaluate.resample import Resampled
from tutored.runpage.read import read_run
from tutored.softlabels import Store
from tutored.softlabels.writer import finish, write_part
from tutored.structures import Instances, SoftLabels
from tutored.student import BlitzNet
from tutored.studies.folder import load_folder, open_folder
from tutored.studies.setting import VOC2012, Setting
from tutored.tutors import open_tutor
from tutored.tutors.torchvision_weights import _read as read_weights

CONFIG: dict[str, Any] = {
    "data": {"train": "voc:data"},
    "student": {"backbone": "test_resnet", "size": 64, "extra": 2, "extra_width": 32, "up_width": 16, "map_width": 8},
    "train": {"epochs": 3, "lr": 1e-3, "threads": 1},
    "supervision": {"detection": {"policy": "fill", "store": "stores/a"}},
}


def answers() -> dict[str, SoftLabels]:
    """Soft labels of three images: of both tasks, of nothing found, and of nothing asked."""
    boxes = torch.tensor([[1.5, 2, 6, 7], [0, 0, 10, 8.0]])
    classes, probs = torch.tensor([1, 2]), torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.1, 0.4]])
    drawn = torch.tensor([[[1.0, 0.5]], [[0.0, 0.25]], [[0.0, 0.25]]])
    masked = Instances(
        boxes_xyxy=boxes, classes=classes, scores=torch.tensor([0.7, 0.4]), masks=torch.full((2, 4, 4), 0.6)
    )
    none = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 3)
    return {
        "a": SoftLabels(size=(8, 10), boxes_xyxy=boxes, classes=classes, probs=probs, map=drawn, instances=masked),
        "b": SoftLabels(size=(8, 10), **dict(zip(("boxes_xyxy", "classes", "probs"), none, strict=True))),
        "c": SoftLabels(size=(8, 10)),
    }


def make_store(folder: Path) -> None:
    """A finished store, with an audit."""
    found = answers()
    identity = {"kind": "made", "labels": list(PETS.names), "images": len(found), "data": "voc:x", "split": "train"}
    write_part(folder, identity, 0, [*found], [*found.values()])
    finish(folder)
    store = Store.open(folder)
    advice = Advice(muted={"cat": ("cat",)}, temperature=1.5, box_floor=0.4)
    task = TaskAudit(data="voc:x", split="train", ids="a", figures={"ece": 0.1}, findings=(), advice=advice)
    kept = Sidecar(store="", tutor=tutor_of(store), tasks={"detection": task})
    write_sidecar(store, kept)


def make_open_store(folder: Path) -> None:
    """A store whose manifest does not tell how its part must look, so that one can be changed like a made-up one."""
    make_store(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest.pop("index", None)
    manifest["parts"][0].pop("bytes", None)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def read_store(folder: Path, *, verify: bool) -> object:
    """All answers of a store."""
    store = Store.open(folder)
    if verify:
        store.verify()
    assert len({*store}) == len(store)
    return [*((name, valid_answer(store[name], len(store.labels))) for name in store), store.tasks, store.labels.names]


def read_audit(folder: Path) -> object:
    """What training takes from an audit."""
    found = read_sidecar(Store.open(folder))
    return found and found.model_dump_json()


@cache
def student() -> BlitzNet:
    """A small one."""
    torch.manual_seed(0)
    return BlitzNet(make_config(CONFIG).student, PETS).eval()


def make_checkpoint(folder: Path) -> None:
    save_checkpoint(folder / "checkpoint", student(), make_config(CONFIG))


def read_checkpoint(folder: Path) -> object:
    """Every number of a checkpoint."""
    loaded, config, labels = load_checkpoint(folder / "checkpoint")
    return [*((name, value.tolist()) for name, value in loaded.state_dict().items()), config.to_dict(), labels.names]


def make_state(folder: Path) -> None:
    """A small network's state in training."""
    slots = {0: {"exp_avg": torch.ones(3), "step": torch.tensor(4.0)}}
    facts = {"done": 4, "seconds": 1.5, "run_id": "x", "scaler": None, "stores": {"detection": None}}
    model = {"weight": torch.arange(6.0).reshape(2, 3)}
    save_state(
        folder,
        model,
        {"weight": torch.zeros(2, 3)},
        {"state": slots, "param_groups": [{"lr": 0.1, "params": [0]}]},
        facts,
    )


def read_state(folder: Path) -> object:
    """Every number of a state."""
    model, average, optimizer, facts = load_state(folder) or ({}, {}, {}, {})
    tensors = (model, average, *optimizer["state"].values())
    facts = {name: facts[name] for name in ("done", "seconds", "run_id", "scaler", "stores")}
    return (
        [{name: value.tolist() for name, value in each.items()} for each in tensors],
        optimizer["param_groups"],
        facts,
    )


def read_config(folder: Path) -> object:
    """A config that writes itself and reads itself back."""
    config = load_config(folder / "config.yaml")
    assert make_config(json.loads(json.dumps(config.to_dict()))) == config
    return config.run_id


def make_run(folder: Path) -> None:
    """What a finished run leaves."""
    (folder / "config.yaml").write_text(yaml.safe_dump(make_config(CONFIG).to_dict()))
    log = [{"step": 2, "loss": {"map": 0.5}, "images_per_second": 3.0}, {"step": 4, "epoch": 2, "val": {}}]
    (folder / "log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in log))
    (folder / "result.json").write_text(json.dumps({"run_id": "x", "figures": {"mIoU": 0.5}, "images": 8}))
    Resampled(np.random.default_rng(0).random((5, 2)), "digest").save(folder / "resamples.npz")


def read_log(folder: Path) -> object:
    """What a run's page is made of."""
    run = read_run(folder)
    return run.done, run.epoch_steps, len(run.validations), run.finished


def make_study(folder: Path) -> None:
    shutil.rmtree(folder)
    open_folder(folder, Setting.model_validate(VOC2012), ["thesis/table-12"], 2)


def read_study(folder: Path) -> object:
    """A study's runs, as they would be trained."""
    found = load_folder(folder)
    return [run.run_id for run in found.runs(found.names)]


def read_onnx(folder: Path) -> object:
    """Its answer for one picture."""
    tutor = open_tutor("onnx", weights=folder / "m.onnx")
    (answer,) = tutor([picture()], ["a"])
    return valid_answer(answer, len(tutor.labels))


def _weights(suffix: str, damage: Any) -> Reader:
    file = f"w{suffix}"
    return Reader(f"weights of others ({suffix})", file, make_weights, lambda at: [*read_weights(at / file)], damage)


KEPT = (
    Reader("store: manifest", "manifest.json", make_store, partial(read_store, verify=True), damage_json, weight=0.5),
    Reader(
        "store: part, bytes, verified",
        "part-00000.parquet",
        make_store,
        partial(read_store, verify=True),
        damage_bytes,
        True,
    ),
    Reader(
        "store: part, bytes",
        "part-00000.parquet",
        make_open_store,
        partial(read_store, verify=False),
        damage_bytes,
        True,
    ),
    Reader("store: part, rows", "part-00000.parquet", make_open_store, partial(read_store, verify=False), damage_rows),
    Reader("store: index", "index.arrow", make_store, partial(read_store, verify=False), damage_bytes, True),
    Reader("store: audit", "audit.json", make_store, read_audit, damage_json),
    Reader(
        "checkpoint: description",
        "checkpoint/checkpoint.json",
        make_checkpoint,
        read_checkpoint,
        damage_json,
        True,
        0.05,
    ),
    Reader(
        "checkpoint: weights",
        "checkpoint/model.safetensors",
        make_checkpoint,
        read_checkpoint,
        damage_safetensors,
        True,
        0.05,
    ),
    Reader("state of a training: facts", "state/state.json", make_state, read_state, damage_json, True),
    Reader("state of a training: tensors", "state/state.safetensors", make_state, read_state, damage_safetensors, True),
    Reader("config (YAML)", "config.yaml", make_run, read_config, damage_yaml, weight=0.5),
    Reader("run: log", "log.jsonl", make_run, read_log, damage_bytes, weight=0.4),
    Reader("run: result", "result.json", make_run, read_log, damage_json, weight=0.4),
    Reader(
        "run: resampled figures",
        "resamples.npz",
        make_run,
        lambda at: Resampled.load(at / "resamples.npz"),
        damage_array,
    ),
    Reader("study: studies and seeds", "study.yaml", make_study, read_study, damage_yaml, weight=0.3),
    Reader("study: setting", "setting.yaml", make_study, read_study, damage_yaml, weight=0.3),
    Reader("ONNX: declaration (YAML)", "m.yaml", make_onnx, read_onnx, damage_yaml, weight=0.5),
    Reader("ONNX: model", "m.onnx", make_onnx, read_onnx, damage_bytes, weight=0.5),
    _weights(".pth", damage_bytes),
    _weights(".safetensors", damage_safetensors),
)
