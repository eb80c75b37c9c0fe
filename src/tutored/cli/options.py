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

    _audit(command("audit", "audit", "hold a store against ground truth before it teaches: verdicts, advice, a page"))
    _convert(command("convert", "convert", "write a store's soft labels in other tools' formats"))

    one = command("train", "train", "train a student; --SECTION.KEY VALUE overrides the config")
    one.add_argument("config", type=Path, metavar="CONFIG.yaml")
    one.add_argument("--out", type=Path, required=True, metavar="RUN")
    one.add_argument("--resume", action="store_true")

    _report(command)

    one = command("evaluate", "evaluate", "the figures of a checkpoint or a store on a split")
    one.add_argument("subject", type=Path, metavar="CHECKPOINT|STORE")
    _data(one)
    one.add_argument("--classes", type=_names, metavar="A,B,C", help="average these classes only")
    one.add_argument("--annotated", type=_names, metavar="A,B", help="the data annotates these of its classes only")
    one.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    one.add_argument("--device", help=DEVICE)

    _study(commands.add_parser("study", help="the thesis' tables and figures, and beyond, with seeds"), command)

    _predict(command("predict", "predict", "boxes and masks for pictures, folders of pictures, videos and cameras"))
    _serve(command("serve", "serve", "a page on this machine on which a picture is dropped and answered"))

    _export(command("export", "export", "write a student for use without this package, checked against PyTorch"))
    return parser


def _report(command: Callable[..., Any]) -> None:
    one = command("report", "report", "write a run's page report.html again, from the files in its folder")
    one.add_argument("folder", type=Path, metavar="RUN", help="what `tutored train --out` wrote, finished or not")


def _data(parser: Any, *, several: bool = False) -> None:
    parser.add_argument(
        "--data", required=True, metavar="FORMAT:FOLDER", help="voc:FOLDER, coco:FOLDER or images:FOLDER"
    )
    split = "such as train, val, Segmentation/train or train+val"
    if several:
        parser.add_argument("--split", required=True, action="append", dest="splits", help=split + "; may be repeated")
    else:
        parser.add_argument("--split", required=True, help=split)


def _audit(one: Any) -> None:
    one.add_argument("store", type=Path, metavar="STORE")
    one.add_argument("--data", metavar="FORMAT:FOLDER", help="voc:FOLDER, coco:FOLDER or images:FOLDER")
    one.add_argument("--split", help="images to train on that have ground truth; never those you evaluate on")
    one.add_argument("--config", type=Path, metavar="RUN.yaml", help="instead: what this run trains on and may see")
    one.add_argument("--renamed", type=_names, metavar="A=B,C=D", help="tutor class=data class, as supervision.renamed")
    one.add_argument("--against", type=Path, metavar="STORE", help="without ground truth: agreement with this one")
    also = "a store of the same tutor that gets the audit too; may be repeated"
    one.add_argument("--for", type=Path, action="append", default=[], dest="others", metavar="STORE", help=also)
    one.add_argument("--page", type=Path, metavar="FILE", help="default: audit.html in the store")
    one.add_argument("--json", type=Path, metavar="FILE", help="write what audit.json holds")
    one.add_argument("--photos", action="store_true", help="with the data's own photographs in the page")
    one.add_argument("--worst", type=_count, default=12, help="images of the disagreement report (default 12)")


def _convert(parser: Any) -> None:
    parser.add_argument("store", type=Path, metavar="STORE")
    kinds = ["coco", "voc", "cleanlab", "fiftyone"]
    parser.add_argument("--to", required=True, choices=kinds, help="COCO results, a VOC folder, or for these tools")
    _data(parser)
    parser.add_argument("--out", type=Path, required=True, help="a file for coco, else a folder")
    parser.add_argument("--score", type=_share, help="boxes from this score on (default: what suits the format)")


def _predict(one: Any) -> None:
    one.add_argument("checkpoint", type=Path)
    inputs = "files, folders of pictures, camera:0, or - alone: paths from standard input, one a line"
    one.add_argument("pictures", nargs="+", metavar="PICTURE|FOLDER|VIDEO", help=inputs)
    one.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    kinds = "what to write, of pictures,json,masks (default: all; of a video no masks)"
    one.add_argument("--to", type=_names, metavar="A,B", help=kinds)
    one.add_argument("--score", type=_share, default=0.5, help="boxes from this score on are drawn (default .5)")
    one.add_argument("--coco", type=Path, metavar="FILE", help="number images and classes as this COCO file does")
    one.add_argument("--batch", type=_positive, default=16, help="pictures that the network sees at once (default 16)")
    one.add_argument("--device", help=DEVICE)


def _serve(one: Any) -> None:
    one.add_argument("checkpoint", type=Path)
    one.add_argument("--host", default="127.0.0.1", help="the address to listen on (default 127.0.0.1: this machine)")
    one.add_argument("--port", type=_count, default=8000, help="default 8000; 0 takes a free one")
    one.add_argument("--max-megabytes", type=_positive, default=10, help="larger files are refused (default 10)")
    one.add_argument("--device", help=DEVICE)


def _export(one: Any) -> None:
    one.add_argument("checkpoint", type=Path)
    one.add_argument("--to", choices=["onnx", "torch"], default="onnx", help="torch: for torch.export.load")
    one.add_argument("--out", type=Path, required=True, metavar="FILE")
    one.add_argument("--nms", action="store_true", help="final boxes, not those of all anchors (ONNX)")
    one.add_argument("--mask", action="store_true", help="each input pixel's class, not the map's logits (ONNX)")
    one.add_argument("--half", action="store_true", help="float16 inside; inputs and outputs stay float32")
    pictures = "what to check it on (default: some that the run validates on; where they are not here, noise)"
    one.add_argument("--images", type=Path, nargs="+", default=[], metavar="PICTURE|FOLDER", help=pictures)


def _study(parser: Any, command: Callable[..., Any]) -> None:
    to = parser.add_subparsers(required=True, metavar="COMMAND")
    one = command("list", "study_list", "the studies, and how many runs each has", to)
    _setting(one)

    one = command("run", "study_run", "train what is not finished of some studies", to)
    one.add_argument("names", nargs="+", metavar="STUDY", help="such as thesis/table-12, thesis, beyond or all")
    one.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="the study folder; may be shared")
    one.add_argument("--seeds", type=_positive, default=3, help="runs of each row (default 3)")
    one.add_argument("--recipe", choices=["thesis", "corrected"], help="the rows of this one alone (default: both)")
    one.add_argument("--hours", type=_amount, help="begin no run that would end later than this")
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


SHORT = {"onnx": "--weights", "torchvision": "--model", "hf": "--model", "student": "--weights"}
"""What the name behind a colon is, as `tutors.KINDS` has it: `label hf:FOLDER` is `label hf --model FOLDER`."""


def spelled_out(words: list[str]) -> list[str]:
    """The words with the short form of a tutor's name written in full."""
    if words[:1] != ["label"] or len(words) < 2:
        return words
    kind, colon, name = words[1].partition(":")
    return ["label", kind, f"{SHORT[kind]}={name}", *words[2:]] if colon and kind in SHORT else words


def _label_kinds(command: Callable[[str, str], Any]) -> None:
    names = "voc, coco, ade20k, cityscapes, open-images, or a file with one class a line"
    onnx = command("onnx", "a network in an ONNX file: YOLOX-like, or declared in FILE's own name with .yaml")
    onnx.add_argument("--weights", type=Path, required=True, metavar="FILE")
    onnx.add_argument("--threads", type=_positive, help="CPU threads within one image (default 1)")
    vision = command("torchvision", "a detection or segmentation model of torchvision")
    vision.add_argument("--model", help="such as maskrcnn_resnet50_fpn_v2 or deeplabv3_resnet101")
    vision.add_argument("--weights", help="a name of torchvision's weights, or a local file")
    hub = command("hf", "a detector, semantic or universal segmentation model of transformers")
    hub.add_argument(
        "--model", required=True, metavar="FOLDER|REPOSITORY", help="a folder of save_pretrained, or a name"
    )
    hub.add_argument("--instances", action="store_true", default=None, help="a universal model's objects, not its map")
    for one in (vision, hub):
        one.add_argument("--download", action="store_true", default=None, help="fetch a named model that is not here")
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
    joined = command("joined", "several tutors of one task, joined: boxes fused, maps averaged")
    joined.add_argument("--join", type=Path, nargs="+", required=True, metavar="STORE", help="two stores or more")
    joined.add_argument("--shares", type=_numbers, metavar="A,B", help="what each counts (default: the same)")
    for one in (onnx, vision, hub, files, student, instances, joined):
        _data(one)
        one.add_argument("--out", type=Path, required=True, metavar="STORE")
        one.add_argument("--resume", action="store_true", help="go on where labelling stopped")
        one.add_argument(
            "--processes", type=_positive, help="how many share the work (default: what torchrun says, or 1)"
        )
        one.add_argument("--rank", type=_count, help="which of them this is, from 0")
        one.add_argument("--skip-broken", action="store_true", help="record pictures that can't be read, and go on")
        one.add_argument("--engine", choices=["here", "ray"], default="here", help="ray: on a cluster of machines")
        one.add_argument("--workers", type=_positive, default=1, help="tutors that Ray runs at once (default 1)")
        one.add_argument("--worker-gpus", type=_amount, default=0.0, help="GPUs of each of them (default 0)")
        one.add_argument("--batch", type=_positive, default=8, help="images read at once (default 8)")
    for one in (onnx, vision, hub, files):
        one.add_argument("--labels", metavar="NAMES", help=f"the tutor's classes, where it does not say: {names}")
    for one in (onnx, vision, hub, student):
        one.add_argument("--score-floor", type=_share, help="weaker boxes are not kept (default .01)")
        one.add_argument("--flip", action="store_true", default=None, help="the mean with the mirrored image's answer")
        one.add_argument("--scales", type=_numbers, metavar="A,B", help="the mean over sizes of the network's input")
        one.add_argument("--device", help=DEVICE)


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise argparse.ArgumentTypeError("give names with commas between them")
    return names


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(
        _number(part, float, 0, math.inf, "positive numbers with commas between them") for part in text.split(",")
    )


def _positive(text: str) -> int:
    return int(_number(text, int, 1, math.inf, "a whole number from 1"))


def _count(text: str) -> int:
    return int(_number(text, int, 0, math.inf, "a whole number from 0"))


def _amount(text: str) -> float:
    return _number(text, float, 0, math.inf, "a number from 0")


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
