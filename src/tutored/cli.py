"""The command `tutored`: every subcommand is one call of the library, and says what it wrote and what to run next.

Exit codes: 0 done, 1 failed (the machine, or a loss that is not finite), 2 wrong use or bad input.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutored.errors import InputError

if TYPE_CHECKING:
    from tutored.structures import Dataset

DONE, FAILED, WRONG_USE = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. Errors are one message on standard error, never a traceback."""
    parser = make_parser()
    known, rest = parser.parse_known_args(arguments)
    try:
        known.overrides = _overrides(rest) if known.run is train else _none_of(rest)
        code: int = known.run(known) or DONE
    except InputError as error:
        return _complain(str(error), WRONG_USE)
    except KeyboardInterrupt:
        return _complain("stopped; what is finished is kept, go on with --resume", FAILED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (OSError, FloatingPointError) as error:
        return _complain(str(error), FAILED)
    except Exception as error:
        if os.environ.get("TUTORED_DEBUG"):
            raise
        return _complain(f"{type(error).__name__}: {error} (a defect; TUTORED_DEBUG=1 shows where)", FAILED)
    return code


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tutored",
        description="One network for detection and semantic segmentation from partly labelled images, taught by "
        "ground truth and tutors.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int | None], text: str, to: Any = commands) -> Any:
        made = to.add_parser(name, help=text, description=text, allow_abbrev=False)
        made.set_defaults(run=run)
        return made

    one = command("quickstart", quickstart, "make data, train tutors and students, and compare them")
    one.add_argument("--out", type=Path, default=Path("quickstart"))
    one.add_argument("--seed", type=int, default=0)
    one.add_argument("--scale", type=float, default=1.0, help="share of the usual images and epochs (tests use less)")

    data = commands.add_parser("data", help="look at data sets").add_subparsers(required=True, metavar="COMMAND")
    one = command("check", data_check, "read everything of a data set and name what training would stumble over", data)
    _data(one)
    one.add_argument("--json", type=Path, metavar="FILE", help="write the report")

    ask = commands.add_parser("label", help="ask a tutor and keep its soft labels in a store")
    kinds = ask.add_subparsers(required=True, metavar="KIND", dest="kind")
    _label_kinds(lambda name, text: command(name, label, text, kinds))

    one = command("verify", verify, "check a store's files against their hashes")
    one.add_argument("store", type=Path)

    one = command("train", train, "train a student; --SECTION.KEY VALUE overrides the config")
    one.add_argument("config", type=Path, metavar="CONFIG.yaml")
    one.add_argument("--out", type=Path, required=True, metavar="RUN")
    one.add_argument("--resume", action="store_true")

    one = command("evaluate", evaluate, "the figures of a checkpoint or a store on a split")
    one.add_argument("subject", type=Path, metavar="CHECKPOINT|STORE")
    _data(one)
    one.add_argument("--classes", type=_names, metavar="A,B,C", help="average these classes only")
    one.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    one.add_argument("--device", default=None)

    one = command("predict", predict, "boxes and masks for pictures and folders of pictures")
    one.add_argument("checkpoint", type=Path)
    one.add_argument("pictures", type=Path, nargs="+")
    one.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    one.add_argument("--score", type=float, default=0.5, help="boxes from this score on are drawn (default .5)")
    one.add_argument("--batch", type=int, default=16)
    one.add_argument("--device", default=None)

    one = command("export", export, "write a student as ONNX, checked against PyTorch")
    one.add_argument("checkpoint", type=Path)
    one.add_argument("--to", choices=["onnx"], default="onnx")
    one.add_argument("--out", type=Path, required=True, metavar="FILE")
    return parser


def _data(parser: Any, *, required: bool = True) -> None:
    parser.add_argument("--data", required=required, metavar="FORMAT:FOLDER", help="voc:FOLDER or coco:FOLDER")
    parser.add_argument("--split", required=required, action="append", help="such as train, val or train+val")


def _label_kinds(command: Callable[[str, str], Any]) -> None:
    onnx = command("onnx", "a YOLOX-like detector in an ONNX file")
    onnx.add_argument("--weights", type=Path, required=True, metavar="FILE")
    onnx.add_argument("--labels", type=Path, metavar="FILE", help="class names, one a line, if the file has none")
    vision = command("torchvision", "a detection or segmentation model of torchvision")
    vision.add_argument("--model", required=True, help="such as maskrcnn_resnet50_fpn_v2 or deeplabv3_resnet101")
    vision.add_argument("--weights", default="DEFAULT", help="a name of torchvision's, or a local file")
    vision.add_argument("--download", action="store_true", help="fetch named weights if they are not there")
    files = command("files", "answers that lie in files: COCO results, probability maps, the thesis' formats")
    files.add_argument("--from", dest="folders", type=Path, action="append", required=True, metavar="FOLDER")
    files.add_argument("--labels", type=Path, metavar="FILE", help="class names, one a line; else the data set's")
    student = command("student", "a checkpoint of our own")
    student.add_argument("--weights", type=Path, required=True, metavar="CHECKPOINT")
    for one in (onnx, vision, files, student):
        _data(one)
        one.add_argument("--out", type=Path, required=True, metavar="STORE")
        one.add_argument("--resume", action="store_true", help="go on where labelling stopped")
        one.add_argument("--processes", type=int, default=1, help="how many share the work (this one is --rank)")
        one.add_argument("--rank", type=int, default=0)
        one.add_argument("--batch", type=int, default=8)
    for one in (onnx, vision, student):
        one.add_argument("--device", default=None)
    for one in (onnx, vision, student):
        one.add_argument("--score-floor", type=float, default=None)


def quickstart(given: argparse.Namespace) -> None:
    from tutored.quickstart import run_quickstart

    run_quickstart(given.out, seed=given.seed, scale=given.scale)


def data_check(given: argparse.Namespace) -> int:
    from rich.console import Console

    from tutored.data.check import check

    splits = {split: _open(given.data, split) for split in given.split}
    with _bar("reading") as step:
        report = check(splits, step)
    report.show(Console())
    _write_json(given.json, report.to_dict())
    return DONE if report.ok else WRONG_USE


def label(given: argparse.Namespace) -> None:
    from tutored.tutors import open_tutor
    from tutored.tutors.label import label as label_split

    dataset = _one_split(given)
    special = ("weights", "model", "download", "folders", "labels", "score_floor", "device")
    options = {name: getattr(given, name) for name in special if getattr(given, name, None) is not None}
    if "folders" in options:
        options.setdefault("default_labels", dataset.labels)
    tutor = open_tutor(given.kind, **options)
    with _bar("labelling") as step:
        store = label_split(
            tutor,
            dataset,
            given.out,
            resume=given.resume,
            rank=given.rank,
            processes=given.processes,
            batch=given.batch,
            progress=step,
        )
    size = sum(path.stat().st_size for path in store.iterdir())
    _say(f"wrote {store}: {len(dataset.ids)} images, {size / len(dataset.ids) / 1000:.1f} kB an image")
    _next(f"tutored evaluate {store} --data {given.data} --split {given.split[0]}")


def verify(given: argparse.Namespace) -> None:
    from tutored.softlabels import Store

    store = Store.open(given.store)
    store.verify()
    _say(f"{given.store}: {len(store)} images, every part is what was written")


def train(given: argparse.Namespace) -> None:
    from tutored.config import load_config
    from tutored.engine import train as train_run
    from tutored.progress import watch_training

    config = load_config(given.config, given.overrides)
    with watch_training() as watch:
        train_run(config, given.out, resume=given.resume, watch=watch)
    _say(f"wrote {given.out / 'checkpoint'} and {given.out / 'result.json'}")
    where = config.data.val or config.data.train
    _next(f"tutored evaluate {given.out / 'checkpoint'} --data {where} --split {config.data.val_split or 'val'}")


def evaluate(given: argparse.Namespace) -> None:
    from rich.console import Console

    from tutored.evaluate import table
    from tutored.judge import judge

    with _bar("evaluating") as step:
        result = judge(given.subject, given.data, given.split[0], given.classes, given.device, step)
    Console().print(table(result))
    _write_json(given.json, {"subject": str(given.subject), "data": given.data, **result.to_dict()})


def predict(given: argparse.Namespace) -> None:
    from tutored.checkpoint import load_checkpoint
    from tutored.predict import Predictor, predict_files

    student, config, _ = load_checkpoint(given.checkpoint)
    predictor = Predictor(student, config.decode, given.device or _device(), given.batch, config.taught)
    with _bar("predicting") as step:
        written = predict_files(predictor, given.pictures, given.out, given.score, step)
    _say(f"wrote {written} and the pictures beside it")


def export(given: argparse.Namespace) -> None:
    from tutored.export import export_onnx

    export_onnx(given.checkpoint, given.out)
    _say(f"wrote {given.out}; its outputs equal PyTorch's")


def _open(data: str, split: str) -> Dataset:
    from tutored.data import open_dataset

    return open_dataset(data, split)


def _one_split(given: argparse.Namespace) -> Dataset:
    if len(given.split) > 1:
        raise InputError(f"--split was given {len(given.split)} times; several splits at once: {'+'.join(given.split)}")
    return _open(given.data, given.split[0])


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"


def _overrides(rest: Sequence[str]) -> list[tuple[str, str]]:
    """Dotted options that argparse does not know: `--train.epochs 40` or `--train.epochs=40`."""
    pairs, words = [], list(rest)
    while words:
        key, equals, value = words.pop(0).partition("=")
        if not key.startswith("--") or ("." not in key and key != "--recipe"):
            raise InputError(f"unknown option {key}; the config is overridden by --SECTION.KEY VALUE")
        if not equals:
            if not words:
                raise InputError(f"{key}: give a value")
            value = words.pop(0)
        pairs.append((key.removeprefix("--"), value))
    return pairs


def _none_of(rest: Sequence[str]) -> list[tuple[str, str]]:
    if rest:
        raise InputError(f"unknown option {rest[0]}; --help lists the options of this command")
    return []


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _bar(what: str) -> Any:
    from tutored.progress import bar

    return bar(what)


def _write_json(path: Path | None, content: Any) -> None:
    import json

    from tutored.files import write_text

    if path is not None:
        write_text(path, json.dumps(content, indent=1) + "\n")
        _say(f"wrote {path}")


def _say(text: str) -> None:
    print(text, flush=True)


def _next(command: str) -> None:
    print(f"next: {command}", flush=True)


def _complain(message: str, code: int) -> int:
    print(f"tutored: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
