"""Every reader of files: hypothesis damages its file, and the reader refuses it by name or reads what is valid."""

import atexit
import contextlib
import logging
import resource
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis
import numpy as np
import onnx.parser
import torch
from PIL import Image

from benchmarks.faults.damage import damaged
from benchmarks.faults.work import make_small
from tutored.checkpoint import load_checkpoint
from tutored.cli import main
from tutored.config import load_config
from tutored.data import open_dataset
from tutored.data.check import check
from tutored.engine.state import load_state
from tutored.errors import InputError
from tutored.evaluate import Resampled
from tutored.pages.run import read_run
from tutored.pictures import read_picture
from tutored.softlabels import Store
from tutored.softlabels.advice import read_sidecar
from tutored.studies.folder import load_folder, open_folder
from tutored.studies.setting import load_setting
from tutored.tutors import open_tutor
from tutored.types import IGNORE

SECONDS, MEMORY = 20, 2 << 30
"""What reading a file may take at most: time, and bytes of address space beyond what there was before."""
MODEL = """<ir_version: 8, opset_import: ["" : 13]>
    g (float[1,3,32,32] images) => (float[1,1,4] boxes, float[1,1,2] scores) {
        boxes = Constant <value = float[1,1,4] {1, 1, 5, 6}> ()
        scores = Constant <value = float[1,1,2] {0.9, 0.1}> ()
    }"""


class Reader(NamedTuple):
    """One reader and a file that it reads.

    Attributes:
        file: the one that is damaged.
        made: whose files it has, a folder of `VALID` or of `originals`.
        read: reads them, asserts that the result is valid, and returns what can be compared.
        form: its format, one of `damage.FORMS` or bytes.
        sealed: a hash guards it, so that nothing else than what was written may be read.
        share: of the usual number of examples; less for a slow reader.
    """

    name: str
    file: str
    made: str
    read: Callable[[Path], Any]
    form: str = "bytes"
    sealed: bool = False
    share: float = 1.0


def examine(reader: Reader, folder: Path, examples: int, seed: int) -> dict[str, Any]:
    """Let hypothesis damage the file and read it: a row for the table.

    `lost` is 1 where an example was neither refused by name nor read as valid; the smallest one is described.
    """
    fill(folder, reader.made)
    file, found, losses, checks = folder / reader.file, Counter[str](), [], list(hypothesis.HealthCheck)
    whole, wanted = file.read_bytes(), reader.read(folder)

    @hypothesis.seed(seed)
    @hypothesis.settings(max_examples=examples, deadline=None, database=None, suppress_health_check=checks)
    @hypothesis.given(damaged(whole, reader.form))
    def read_damaged(content: bytes) -> None:
        file.write_bytes(content)
        refusal, value = attempt(lambda: reader.read(folder))
        assert refusal is None or str(folder) in refusal or refusal.startswith("/"), f"no file is named: {refusal}"
        assert refusal or not reader.sealed or value == wanted, "read as other content than was written"
        found["refused" if refusal else "read"] += 1

    with guarded():
        try:
            read_damaged()
        except (AssertionError, ExceptionGroup, hypothesis.errors.Flaky) as error:
            losses = [str(error)[:500]]
    tried = found.total() + len(losses)
    return {"what": reader.name, "tried": tried, "refused": found["refused"], "lost": len(losses), "losses": losses}


def attempt(read: Callable[[], Any]) -> tuple[str | None, Any]:
    """The message with which a file is refused, or None and what was read. Raises AssertionError for anything else."""
    try:
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        return None, read()
    except InputError as error:
        return str(error), None
    except (Exception, _EndlessError) as error:
        raise AssertionError(f"{type(error).__name__}: {str(error)[:200]}") from error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


class _EndlessError(BaseException):
    """Not an `Exception`, which a reader might catch."""


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Inside, reading ends after `SECONDS` and gets no more than `MEMORY`, and libraries log nothing."""

    def stop(_number: int, _frame: Any) -> None:
        raise _EndlessError(f"not read within {SECONDS} seconds")

    have = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0]) * resource.getpagesize()
    limits, before = resource.getrlimit(resource.RLIMIT_AS), signal.signal(signal.SIGALRM, stop)
    resource.setrlimit(resource.RLIMIT_AS, (have + MEMORY, limits[1]))
    logging.disable()
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        resource.setrlimit(resource.RLIMIT_AS, limits)
        signal.signal(signal.SIGALRM, before)


@cache
def originals() -> Path:
    """Folders that the commands made: data, answers, results, run, store and study."""
    folder = Path(tempfile.mkdtemp(prefix="tutored-faults-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    data, answers = make_small(folder, train=8, val=2)
    store, split = folder / "store", ("--data", data, "--split", "train")
    for words in (
        ("train", folder / "config.yaml", "--out", folder / "run"),
        ("label", "files", "--from", answers, *split, "--out", store),
        ("audit", store, *split),
        ("convert", store, "--to", "coco", *split, "--out", folder / "results" / "a.json"),
    ):
        assert main([str(word) for word in words]) == 0
    open_folder(folder / "study", load_setting(None), ["thesis/table-12"], 2)
    return folder


VALID = Path(__file__).with_name("valid")
"""A folder for every format that nothing of tutored writes, with annotations of each kind that the format has."""
PLACES = {"coco": "val", "yolo": "images", "colours": "JPEGImages"}
"""Where the pictures of such a folder are; elsewhere, beside their annotations."""


def fill(folder: Path, made: str) -> None:
    """Copy a folder of `VALID`, and add its pictures and its model; or copy one of `originals`."""
    if not (VALID / made).exists():
        shutil.copytree(originals() / made, folder)
        return
    shutil.copytree(VALID / made, folder)
    pictures, rng = folder / PLACES.get(made, ""), np.random.default_rng(0)
    pictures.mkdir(exist_ok=True)
    for name in ("a.jpg", "b.png"):
        Image.fromarray(rng.integers(0, 256, (8, 10, 3), np.uint8)).save(pictures / name)
    if made == "colours":
        (folder / "SegmentationClass").mkdir()
        Image.new("RGB", (10, 8), (250, 50, 83)).save(folder / "SegmentationClass" / "a.png")
    if made == "onnx":
        onnx.save(onnx.parser.parse_model(MODEL), folder / "m.onnx")


def plain(value: Any) -> Any:
    """The same with tensors as bytes, so that `==` compares it. Asserts that they are finite."""
    if isinstance(value, torch.Tensor):
        assert bool(value.isfinite().all())
        return value.numpy().tobytes()
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list | tuple) else value


def dataset(spec: str, split: str) -> Any:
    """As training reads a data set; `tutored data check` must find a fault where, and only where, that raises one."""
    opened = open_dataset(spec, split)
    report, found = check({split: opened}), []
    try:
        for image_id in opened.ids:
            truth, (width, height) = opened.ground_truth(image_id), opened.image(image_id).size
            assert truth.size == (height, width)
            for task, drawn in truth.tasks.items():
                numbers = drawn.classes if task == "detection" else drawn.mask[drawn.mask != IGNORE]
                assert bool(((numbers >= (task == "detection")) & (numbers < len(opened.labels[task]))).all())
                corners = getattr(drawn, "boxes_xyxy", torch.zeros(0, 4))
                assert bool(((corners >= 0) & (corners <= torch.tensor([width, height] * 2))).all())
            found.append((image_id, plain(asdict(truth))))
    except InputError:
        assert not report.ok, "data check finds nothing"
        raise
    assert report.ok, "data check finds a fault, reading does not"
    return found


def answer(found: Any, classes: int) -> Any:
    """Asserts that soft labels are probabilities of the classes that there are."""
    for given in found.tasks.values():
        for values in (getattr(given, name, torch.zeros(0)) for name in ("probs", "map", "scores", "masks")):
            assert bool(((values >= 0) & (values <= 1)).all())
        numbers = getattr(given, "classes", torch.ones(0))
        assert bool(((numbers > 0) & (numbers < classes)).all())
        assert len(getattr(given, "map", range(classes))) == classes
    return plain(asdict(found))


def asked(kind: str, **options: Any) -> Any:
    """A tutor's answer for the first image of the data."""
    tutor = open_tutor(kind, **options)
    image = Image.open(originals() / "data" / "JPEGImages" / "train_00000.jpg")
    return answer(tutor([image], ["train_00000"])[0], len(tutor.labels))


def store(folder: Path) -> Any:
    opened = Store.open(folder)
    opened.verify()
    return [(name, answer(opened[name], len(opened.labels))) for name in opened]


def checkpoint(folder: Path) -> Any:
    student, config = load_checkpoint(folder / "checkpoint")
    return [plain(student.state_dict()), config.to_dict(), [task.labels.names for task in student.tasks.values()]]


def runs(folder: Path) -> Any:
    return [run.run_id for found in [load_folder(folder)] for run in found.runs(found.names)]


READERS = (
    Reader("picture: JPEG", "a.jpg", "pictures", lambda at: read_picture(at / "a.jpg").tobytes()),
    Reader("picture: PNG", "b.png", "pictures", lambda at: read_picture(at / "b.png").tobytes()),
    Reader("VOC: boxes", "Annotations/val_00000.xml", "data", lambda at: dataset(f"voc:{at}", "val"), "xml"),
    Reader("VOC: mask", "SegmentationClass/val_00000.png", "data", lambda at: dataset(f"voc:{at}", "val")),
    Reader("VOC: split", "ImageSets/Main/val.txt", "data", lambda at: dataset(f"voc:{at}", "val")),
    Reader("VOC: classes", "labels.txt", "data", lambda at: dataset(f"voc:{at}", "val")),
    Reader("COCO: instances", "val.json", "coco", lambda at: dataset(f"coco:{at}", "val"), "json"),
    Reader("YOLO: labels", "labels/a.txt", "yolo", lambda at: dataset(f"yolo:{at}", "val")),
    Reader("YOLO: classes", "data.yaml", "yolo", lambda at: dataset(f"yolo:{at}", "val"), "yaml"),
    Reader("Labelme: shapes", "a.json", "labelme", lambda at: dataset(f"labelme:{at}", "all"), "json"),
    Reader("CVAT: shapes", "a.xml", "cvat", lambda at: dataset(f"cvat:{at}", "all"), "xml"),
    Reader("CVAT: colours", "labelmap.txt", "colours", lambda at: dataset(f"voc:{at}", "val")),
    Reader("Label Studio", "a.json", "studio", lambda at: dataset(f"labelstudio:{at}", "all"), "json"),
    Reader("images: list", "list.txt", "pictures", lambda at: dataset(f"images:{at}", "list")),
    Reader("results (COCO)", "a.json", "results", lambda at: asked("files", folders=at, labels="voc"), "json"),
    Reader("boxes (XML)", "train_00000.xml", "answers", lambda at: asked("files", folders=at, labels="voc"), "xml"),
    Reader("map (.npz)", "train_00000.npz", "answers", lambda at: asked("files", folders=at, labels="voc"), "array"),
    Reader("store: manifest", "manifest.json", "store", store, "json"),
    Reader("store: part", "part-00000.parquet", "store", store, sealed=True),
    Reader("store: index", "index.arrow", "store", store, sealed=True),
    Reader("store: audit", "audit.json", "store", lambda at: read_sidecar(Store.open(at)), "json"),
    Reader("checkpoint: description", "checkpoint/checkpoint.json", "run", checkpoint, "json", True, 0.1),
    Reader("checkpoint: weights", "checkpoint/model.safetensors", "run", checkpoint, sealed=True, share=0.1),
    Reader("state: facts", "state/state.json", "run", lambda at: plain(load_state(at)), "json", True, 0.1),
    Reader("state: weights", "state/state.safetensors", "run", lambda at: plain(load_state(at)), "bytes", True, 0.1),
    Reader("config", "config.yaml", "run", lambda at: load_config(at / "config.yaml").run_id, "yaml", share=0.5),
    Reader("run: log", "log.jsonl", "run", lambda at: read_run(at).done, share=0.5),
    Reader("run: result", "result.json", "run", lambda at: read_run(at).finished, "json", share=0.5),
    Reader("run: resampled figures", "resamples.npz", "run", lambda at: Resampled.load(at / "resamples.npz"), "array"),
    Reader("study: seeds", "study.yaml", "study", runs, "yaml", share=0.3),
    Reader("study: setting", "setting.yaml", "study", runs, "yaml", share=0.3),
    Reader("ONNX: declaration", "m.yaml", "onnx", lambda at: asked("onnx", weights=at / "m.onnx"), "yaml"),
    Reader("ONNX: model", "m.onnx", "onnx", lambda at: asked("onnx", weights=at / "m.onnx")),
)


def measure(folder: Path, seed: int, scale: float) -> Iterator[dict[str, Any]]:
    """A row for every reader."""
    for number, reader in enumerate(READERS):
        yield examine(reader, folder / str(number), max(round(1000 * reader.share * scale), 3), seed)
