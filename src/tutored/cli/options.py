"""The commands and their options, without what they do, so that `--help` needs no more than this."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any


def make_parser() -> argparse.ArgumentParser:
    """Every command; `run` names the function that does it."""
    parser = argparse.ArgumentParser(
        prog="tutored",
        description="One network for detection and semantic segmentation from partly labelled images, taught by "
        "ground truth and tutors.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: str, text: str, to: Any = commands) -> Any:
        made = to.add_parser(name, help=text, description=text, allow_abbrev=False)
        made.set_defaults(run=run)
        return made

    one = command("quickstart", "quickstart", "make data, train tutors and students, and compare them")
    one.add_argument("--out", type=Path, default=Path("quickstart"))
    one.add_argument("--seed", type=int, default=0)
    one.add_argument("--scale", type=float, default=1.0, help="share of the usual images and epochs (tests use less)")

    data = commands.add_parser("data", help="look at data sets").add_subparsers(required=True, metavar="COMMAND")
    one = command(
        "check", "data_check", "read everything of a data set and name what training would stumble over", data
    )
    _data(one, several=True)
    one.add_argument("--json", type=Path, metavar="FILE", help="write the report")

    ask = commands.add_parser("label", help="ask a tutor and keep its soft labels in a store")
    kinds = ask.add_subparsers(required=True, metavar="KIND", dest="kind")
    _label_kinds(lambda name, text: command(name, "label", text, kinds))

    one = command("verify", "verify", "check a store's files against their hashes")
    one.add_argument("store", type=Path)

    one = command("train", "train", "train a student; --SECTION.KEY VALUE overrides the config")
    one.add_argument("config", type=Path, metavar="CONFIG.yaml")
    one.add_argument("--out", type=Path, required=True, metavar="RUN")
    one.add_argument("--resume", action="store_true")

    one = command("evaluate", "evaluate", "the figures of a checkpoint or a store on a split")
    one.add_argument("subject", type=Path, metavar="CHECKPOINT|STORE")
    _data(one)
    one.add_argument("--classes", type=_names, metavar="A,B,C", help="average these classes only")
    one.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    one.add_argument("--device", default=None)

    one = command("predict", "predict", "boxes and masks for pictures and folders of pictures")
    one.add_argument("checkpoint", type=Path)
    one.add_argument("pictures", type=Path, nargs="+")
    one.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    one.add_argument("--score", type=float, default=0.5, help="boxes from this score on are drawn (default .5)")
    one.add_argument("--batch", type=int, default=16)
    one.add_argument("--device", default=None)

    one = command("export", "export", "write a student as ONNX, checked against PyTorch")
    one.add_argument("checkpoint", type=Path)
    one.add_argument("--to", choices=["onnx"], default="onnx")
    one.add_argument("--out", type=Path, required=True, metavar="FILE")
    return parser


def _data(parser: Any, *, several: bool = False) -> None:
    parser.add_argument("--data", required=True, metavar="FORMAT:FOLDER", help="voc:FOLDER or coco:FOLDER")
    split = "such as train, val, Segmentation/train or train+val"
    if several:
        parser.add_argument("--split", required=True, action="append", dest="splits", help=split + "; may be repeated")
    else:
        parser.add_argument("--split", required=True, help=split)


def _label_kinds(command: Callable[[str, str], Any]) -> None:
    names = "voc, coco, or a file with one class a line"
    onnx = command("onnx", "a YOLOX-like detector in an ONNX file")
    onnx.add_argument("--weights", type=Path, required=True, metavar="FILE")
    onnx.add_argument("--threads", type=int, help="CPU threads within one image (default 1)")
    vision = command("torchvision", "a detection or segmentation model of torchvision")
    vision.add_argument("--model", help="such as maskrcnn_resnet50_fpn_v2 or deeplabv3_resnet101")
    vision.add_argument("--weights", help="a name of torchvision's weights, or a local file")
    vision.add_argument("--download", action="store_true", default=None, help="fetch named weights that are not here")
    files = command("files", "answers that lie in files: COCO results, probability maps, the thesis' formats")
    files.add_argument("--from", dest="folders", type=Path, action="append", required=True, metavar="FOLDER")
    files.add_argument("--values", choices=["auto", "probabilities", "confidences"], help="what arrays hold")
    files.add_argument("--missing", choices=["refuse", "allow"], help="images without an answer (default refuse)")
    student = command("student", "a checkpoint of our own")
    student.add_argument("--weights", type=Path, required=True, metavar="CHECKPOINT")
    for one in (onnx, vision, files, student):
        _data(one)
        one.add_argument("--out", type=Path, required=True, metavar="STORE")
        one.add_argument("--resume", action="store_true", help="go on where labelling stopped")
        one.add_argument("--processes", type=int, default=1, help="how many share the work (this one is --rank)")
        one.add_argument("--rank", type=int, default=0)
        one.add_argument("--batch", type=int, default=8, help="images read at once (default 8)")
    for one in (onnx, vision, files):
        one.add_argument("--labels", metavar="NAMES", help=f"the tutor's classes, where it does not say: {names}")
    for one in (onnx, vision, student):
        one.add_argument("--score-floor", type=float, help="weaker boxes are not kept (default .01)")
        one.add_argument("--device", help="such as cpu, cuda or mps")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
