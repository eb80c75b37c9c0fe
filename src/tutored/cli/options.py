"""The commands and their options, without what they do, so that `--help` needs no more than this."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from tutored.cli.label_options import label_options
from tutored.cli.values import DEVICE, amount, count, data_options, names, positive, seed, share
from tutored.errors import InputError


class Parser(argparse.ArgumentParser):
    """Mistakes are told like all others."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; `{self.prog} --help` lists what is possible")


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
    one.add_argument("--out", type=Path, default=Path("quickstart"), help="folder (default quickstart)")
    one.add_argument("--seed", type=seed, default=0, help="of data, weights and order (default 0)")
    one.add_argument("--scale", type=share, default=1.0, help="share of the usual images and epochs (tests use less)")

    _init(command("init", "init", "look at a folder of pictures and write a config to start from"))

    data = commands.add_parser("data", help="look at data sets").add_subparsers(required=True, metavar="COMMAND")
    one = command(
        "check", "data_check", "read everything of a data set and name what training would stumble over", data
    )
    data_options(one, several=True)
    one.add_argument("--json", type=Path, metavar="FILE", help="write the report")

    ask = commands.add_parser("label", help="ask a tutor and keep its soft labels in a store")
    kinds = ask.add_subparsers(required=True, metavar="KIND", dest="kind")
    label_options(lambda name, text: command(name, "label", text, kinds))

    one = command("verify", "verify", "check a store's files against their hashes")
    one.add_argument("store", type=Path, metavar="STORE", help="folder that `tutored label` wrote")

    _audit(command("audit", "audit", "hold a store against ground truth before it teaches: verdicts, advice, a page"))
    _convert(command("convert", "convert", "write a store's soft labels in other tools' formats"))

    one = command("train", "train", "train a student; --SECTION.KEY VALUE overrides the config")
    one.add_argument("config", type=Path, metavar="CONFIG.yaml", help="what the run sets; the rest are defaults")
    one.add_argument("--out", type=Path, required=True, metavar="RUN", help="folder of the run")
    one.add_argument("--resume", action="store_true", help="go on where the run in this folder stopped")

    _report(command)

    _evaluate(command("evaluate", "evaluate", "the figures of a checkpoint or a store on a split"))
    _compare(command("compare", "compare", "is a run better than another? with seeds, and how sure that is"))
    _study(commands.add_parser("study", help="the thesis' tables and figures, and beyond, with seeds"), command)

    _predict(command("predict", "predict", "boxes and masks for pictures, folders of pictures, videos and cameras"))
    _serve(command("serve", "serve", "a page on this machine on which a picture is dropped and answered"))

    _export(command("export", "export", "write a student for use without this package, checked against PyTorch"))
    return parser


def _evaluate(one: Any) -> None:
    one.add_argument("subject", type=Path, metavar="CHECKPOINT|STORE", help="who answers")
    data_options(one)
    one.add_argument("--classes", type=names, metavar="A,B,C", help="average these classes only")
    one.add_argument("--annotated", type=names, metavar="A,B", help="the data annotates these of its classes only")
    one.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    one.add_argument("--device", help=f"of a checkpoint: {DEVICE}")


def _init(one: Any) -> None:
    about = "pictures, XMLs and masks in any folders, or a VOC or COCO folder"
    one.add_argument("folder", type=Path, metavar="FOLDER", help=about)
    to = "the config to write (default tutored.yaml); links, where some are needed, go into a folder beside it"
    one.add_argument("--out", type=Path, metavar="FILE", help=to)
    one.add_argument(
        "--example", action="store_true", help="instead: make FOLDER, with made-up pictures to practise on"
    )


def _report(command: Callable[..., Any]) -> None:
    one = command("report", "report", "write a run's page report.html again, from the files in its folder")
    one.add_argument("folder", type=Path, metavar="RUN", help="what `tutored train --out` wrote, finished or not")


def _compare(one: Any) -> None:
    run = "finished runs, alike but for their seeds"
    one.add_argument("runs", nargs="+", type=Path, metavar="RUN", help=run)
    one.add_argument("--against", nargs="+", type=Path, required=True, metavar="RUN", help="others, of the same seeds")
    one.add_argument("--json", type=Path, metavar="FILE", help="write the differences and their intervals")


def _audit(one: Any) -> None:
    one.add_argument("store", type=Path, metavar="STORE", help="the tutor's answers")
    one.add_argument("--data", metavar="FORMAT:FOLDER", help="voc:FOLDER, coco:FOLDER or images:FOLDER")
    one.add_argument("--split", help="images to train on that have ground truth; never those you evaluate on")
    one.add_argument("--config", type=Path, metavar="RUN.yaml", help="instead: what this run trains on and may see")
    one.add_argument("--renamed", type=names, metavar="A=B,C=D", help="tutor class=data class, as supervision.renamed")
    one.add_argument("--against", type=Path, metavar="STORE", help="without ground truth: agreement with this one")
    also = "a store of the same tutor that gets the audit too; may be repeated"
    one.add_argument("--for", type=Path, action="append", default=[], dest="others", metavar="STORE", help=also)
    one.add_argument("--page", type=Path, metavar="FILE", help="default: audit.html in the store")
    one.add_argument("--json", type=Path, metavar="FILE", help="write what audit.json holds")
    one.add_argument("--photos", action="store_true", help="with the data's own photographs in the page")
    one.add_argument("--worst", type=count, help="images of the disagreement report (default 12)")


def _convert(parser: Any) -> None:
    parser.add_argument("store", type=Path, metavar="STORE", help="the tutor's answers")
    kinds = ["coco", "voc", "cleanlab", "fiftyone"]
    parser.add_argument("--to", required=True, choices=kinds, help="COCO results, a VOC folder, or for these tools")
    data_options(parser)
    parser.add_argument("--out", type=Path, required=True, help="a file for coco, else a folder")
    parser.add_argument("--score", type=share, help="boxes from this score on (default: what suits the format)")


def _predict(one: Any) -> None:
    one.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="such as RUN/checkpoint")
    inputs = "files, folders of pictures, camera:0, or - alone: paths from standard input, one a line"
    one.add_argument("pictures", nargs="+", metavar="PICTURE|FOLDER|VIDEO", help=inputs)
    one.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where results go")
    kinds = "what to write, of pictures,json,masks (default: all; of a video no masks)"
    one.add_argument("--to", type=names, metavar="A,B", help=kinds)
    one.add_argument("--score", type=share, default=0.5, help="boxes from this score on are drawn (default .5)")
    one.add_argument("--coco", type=Path, metavar="FILE", help="number images and classes as this COCO file does")
    one.add_argument("--batch", type=positive, default=16, help="pictures that the network sees at once (default 16)")
    one.add_argument("--device", help=DEVICE)


def _serve(one: Any) -> None:
    one.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="such as RUN/checkpoint")
    one.add_argument("--host", default="127.0.0.1", help="the address to listen on (default 127.0.0.1: this machine)")
    one.add_argument("--port", type=count, default=8000, help="default 8000; 0 takes a free one")
    one.add_argument("--max-megabytes", type=positive, default=10, help="larger files are refused (default 10)")
    one.add_argument("--device", help=DEVICE)


def _export(one: Any) -> None:
    one.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="such as RUN/checkpoint")
    one.add_argument("--to", choices=["onnx", "torch"], default="onnx", help="torch: for torch.export.load")
    one.add_argument("--out", type=Path, required=True, metavar="FILE", help="the file to write")
    one.add_argument("--nms", action="store_true", help="final boxes, not those of all anchors (ONNX)")
    one.add_argument("--mask", action="store_true", help="each input pixel's class, not the map's logits (ONNX)")
    one.add_argument("--half", action="store_true", help="float16 inside; inputs and outputs stay float32")
    pictures = "what to check it on (default: some of its validation split; where they are not here, noise)"
    one.add_argument("--images", type=Path, nargs="+", default=[], metavar="PICTURE|FOLDER", help=pictures)


def _study(parser: Any, command: Callable[..., Any]) -> None:
    to = parser.add_subparsers(required=True, metavar="COMMAND")
    one = command("list", "study_list", "the studies, and how many runs each has", to)
    _setting(one)

    one = command("run", "study_run", "train what is not finished of some studies", to)
    one.add_argument("names", nargs="+", metavar="STUDY", help="such as thesis/table-12, thesis, beyond or all")
    one.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="the study folder; may be shared")
    one.add_argument("--seeds", type=positive, default=3, help="runs of each row (default 3)")
    one.add_argument("--recipe", choices=["thesis", "corrected"], help="the rows of this one alone (default: both)")
    one.add_argument("--hours", type=amount, help="begin no run that would end later; the first of a new folder begins")
    one.add_argument("--jobs", type=positive, default=1, help="processes that train here at once (default 1)")
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
