"""The commands and their options, without what they do, so that `--help` needs no more than this."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from tutored.errors import InputError


class Parser(argparse.ArgumentParser):
    """Mistakes are told like all others."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; `{self.prog} --help` lists what is possible")


DEVICE = "cpu, cuda, cuda:1, ... or mps (default: the best there is)"


def make_parser() -> Parser:
    """Every command; `run` names the function that does it."""
    parser = Parser(
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
    one.add_argument("--seed", type=_count, default=0)
    one.add_argument("--scale", type=_share, default=1.0, help="share of the usual images and epochs (tests use less)")

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

    _convert(command("convert", "convert", "write a store's soft labels in other tools' formats"))

    one = command("train", "train", "train a student; --SECTION.KEY VALUE overrides the config")
    one.add_argument("config", type=Path, metavar="CONFIG.yaml")
    one.add_argument("--out", type=Path, required=True, metavar="RUN")
    one.add_argument("--resume", action="store_true")

    one = command("evaluate", "evaluate", "the figures of a checkpoint or a store on a split")
    one.add_argument("subject", type=Path, metavar="CHECKPOINT|STORE")
    _data(one)
    one.add_argument("--classes", type=_names, metavar="A,B,C", help="average these classes only")
    one.add_argument("--annotated", type=_names, metavar="A,B", help="the data annotates these of its classes only")
    one.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    one.add_argument("--device", help=DEVICE)

    _study(commands.add_parser("study", help="the thesis' tables and figures, and beyond, with seeds"), command)

    one = command("predict", "predict", "boxes and masks for pictures and folders of pictures")
    one.add_argument("checkpoint", type=Path)
    one.add_argument("pictures", type=Path, nargs="+")
    one.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    one.add_argument("--score", type=_share, default=0.5, help="boxes from this score on are drawn (default .5)")
    one.add_argument("--batch", type=_positive, default=16, help="pictures that the network sees at once (default 16)")
    one.add_argument("--device", help=DEVICE)

    one = command("export", "export", "write a student as ONNX, checked against PyTorch")
    one.add_argument("checkpoint", type=Path)
    one.add_argument("--to", choices=["onnx"], default="onnx")
    one.add_argument("--out", type=Path, required=True, metavar="FILE")
    return parser


def _data(parser: Any, *, several: bool = False) -> None:
    parser.add_argument("--data", required=True, metavar="FORMAT:FOLDER", help="voc:FOLDER, coco:FOLDER or images:FOLDER")
    split = "such as train, val, Segmentation/train or train+val"
    if several:
        parser.add_argument("--split", required=True, action="append", dest="splits", help=split + "; may be repeated")
    else:
        parser.add_argument("--split", required=True, help=split)


def _convert(parser: Any) -> None:
    parser.add_argument("store", type=Path, metavar="STORE")
    kinds = ["coco", "voc", "cleanlab", "fiftyone"]
    parser.add_argument("--to", required=True, choices=kinds, help="COCO results, a VOC folder, or for these tools")
    _data(parser)
    parser.add_argument("--out", type=Path, required=True, help="a file for coco, else a folder")
    parser.add_argument("--score", type=_share, help="boxes from this score on (default: what suits the format)")


def _study(parser: Any, command: Callable[..., Any]) -> None:
    to = parser.add_subparsers(required=True, metavar="COMMAND")
    one = command("list", "study_list", "the studies, and how many runs each has", to)
    _setting(one)

    one = command("run", "study_run", "train what is not finished of some studies", to)
    one.add_argument("names", nargs="+", metavar="STUDY", help="such as thesis/table-12, thesis, beyond or all")
    one.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="the study folder; may be shared")
    one.add_argument("--seeds", type=_positive, default=3, help="runs of each row (default 3)")
    one.add_argument("--recipe", choices=["thesis", "corrected"], help="the rows of this one alone (default: both)")
    one.add_argument("--hours", type=_hours, help="begin no run that would end later than this")
    one.add_argument("--jobs", type=_positive, default=1, help="processes that train here at once (default 1)")
    _setting(one)

    one = command("report", "study_report", "write report.html and report.md from what is finished", to)
    one.add_argument("folder", type=Path, metavar="FOLDER", help="the study folder")
    one.add_argument("names", nargs="*", metavar="STUDY", help="default: those that were run")
    one.add_argument("--out", type=Path, help="where to write (default: the study folder)")
    one.add_argument("--photos", action="store_true", help="with the data's own photographs in the page")


def _setting(parser: Any) -> None:
    parser.add_argument("--setting", type=Path, metavar="FILE.yaml", help="data set and tutors (default: VOC2012's)")
    parser.add_argument("--data", metavar="FORMAT:FOLDER", help="in the place of the setting's")
    parser.add_argument("--scale", metavar="NAME", help="one of the setting's scales, such as small")


def _label_kinds(command: Callable[[str, str], Any]) -> None:
    names = "voc, coco, or a file with one class a line"
    onnx = command("onnx", "a YOLOX-like detector in an ONNX file")
    onnx.add_argument("--weights", type=Path, required=True, metavar="FILE")
    onnx.add_argument("--threads", type=_positive, help="CPU threads within one image (default 1)")
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
    instances = command("instances", "instances: a detector's boxes, each with what another tutor's maps say inside it")
    instances.add_argument("--boxes", type=Path, required=True, metavar="STORE", help="boxes that a detector gave")
    instances.add_argument("--maps", type=Path, required=True, metavar="STORE", help="class maps of the same images")
    instances.add_argument("--score-floor", type=_share, help="weaker boxes become no instances (default .5)")
    for one in (onnx, vision, files, student, instances):
        _data(one)
        one.add_argument("--out", type=Path, required=True, metavar="STORE")
        one.add_argument("--resume", action="store_true", help="go on where labelling stopped")
        one.add_argument("--processes", type=_positive, default=1, help="how many share the work (this one is --rank)")
        one.add_argument("--rank", type=_count, default=0, help="from 0")
        one.add_argument("--batch", type=_positive, default=8, help="images read at once (default 8)")
    for one in (onnx, vision, files):
        one.add_argument("--labels", metavar="NAMES", help=f"the tutor's classes, where it does not say: {names}")
    for one in (onnx, vision, student):
        one.add_argument("--score-floor", type=_share, help="weaker boxes are not kept (default .01)")
        one.add_argument("--device", help=DEVICE)


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise argparse.ArgumentTypeError("give names of classes with commas between them")
    return names


def _positive(text: str) -> int:
    return int(_number(text, int, 1, math.inf, "a whole number from 1"))


def _count(text: str) -> int:
    return int(_number(text, int, 0, math.inf, "a whole number from 0"))


def _hours(text: str) -> float:
    return _number(text, float, 0, math.inf, "hours, a number from 0")


def _share(text: str) -> float:
    return _number(text, float, 0, 1, "a number from 0 to 1")


def _number(text: str, kind: Callable[[str], float], least: float, most: float, possible: str) -> float:
    try:
        value = kind(text)
    except ValueError:
        value = math.nan
    if not least <= value <= most:
        raise argparse.ArgumentTypeError(f"{text} is not possible; give {possible}")
    return value
