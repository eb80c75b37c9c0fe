"""The options of `tutored label`, of each kind of tutor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tutored.cli.values import DEVICE, amount, count, data_options, numbers, positive, share

SHORT = {"onnx": "--weights", "torchvision": "--model", "hf": "--model", "student": "--weights"}
"""What the name behind a colon is, as `tutors.KINDS` has it: `label hf:FOLDER` is `label hf --model FOLDER`."""


def spelled_out(words: list[str]) -> list[str]:
    """The words with the short form of a tutor's name written in full."""
    if words[:1] != ["label"] or len(words) < 2:
        return words
    kind, colon, name = words[1].partition(":")
    return ["label", kind, f"{SHORT[kind]}={name}", *words[2:]] if colon and kind in SHORT else words


def label_options(command: Callable[[str, str], Any]) -> None:
    names = "voc, coco, ade20k, cityscapes, open-images, or a file with one class a line"
    onnx = command("onnx", "a network in an ONNX file: YOLOX-like, or declared in FILE's own name with .yaml")
    onnx.add_argument("--weights", type=Path, required=True, metavar="FILE", help="the ONNX file")
    onnx.add_argument("--threads", type=positive, help="CPU threads within one image (default 1)")
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
    files.add_argument(
        "--from", dest="folders", type=Path, action="append", required=True, metavar="FOLDER", help="may be repeated"
    )
    files.add_argument("--values", choices=["auto", "probabilities", "confidences"], help="what arrays hold")
    files.add_argument("--missing", choices=["refuse", "allow"], help="images without an answer (default refuse)")
    student = command("student", "a checkpoint of our own")
    student.add_argument("--weights", type=Path, required=True, metavar="CHECKPOINT", help="such as RUN/checkpoint")
    instances = command("instances", "instances: a detector's boxes, each with what another tutor's maps say inside it")
    vouched = command("vouched", "a detector's boxes, surer where another tutor's maps agree, less sure where not")
    for one in (instances, vouched):
        one.add_argument("--boxes", type=Path, required=True, metavar="STORE", help="boxes that a detector gave")
        one.add_argument("--maps", type=Path, required=True, metavar="STORE", help="class maps of the same images")
    instances.add_argument("--score-floor", type=share, help="weaker boxes become no instances (default .5)")
    vouched.add_argument("--full", type=share, help="mean probability in a box where maps agree in full (default .3)")
    joined = command("joined", "several tutors of one task, joined: boxes fused, maps averaged")
    joined.add_argument("--join", type=Path, nargs="+", required=True, metavar="STORE", help="two stores or more")
    joined.add_argument("--shares", type=numbers, metavar="A,B", help="what each counts (default: the same)")
    for one in (onnx, vision, hub, files, student, instances, vouched, joined):
        data_options(one)
        one.add_argument("--out", type=Path, required=True, metavar="STORE", help="folder of the store")
        one.add_argument("--resume", action="store_true", help="go on where labelling stopped")
        one.add_argument(
            "--processes", type=positive, help="how many share the work (default: what torchrun says, or 1)"
        )
        one.add_argument("--rank", type=count, help="which of them this is, from 0")
        one.add_argument("--skip-broken", action="store_true", help="record pictures that can't be read, and go on")
        one.add_argument("--engine", choices=["here", "ray"], default="here", help="ray: on a cluster of machines")
        one.add_argument("--workers", type=positive, help="tutors that Ray runs at once (default 1)")
        one.add_argument("--worker-gpus", type=amount, help="GPUs of each of them (default 0)")
        one.add_argument("--batch", type=positive, default=8, help="images read at once (default 8)")
    for one in (onnx, vision, hub, files):
        one.add_argument("--labels", metavar="NAMES", help=f"the tutor's classes, where it does not say: {names}")
    for one in (onnx, vision, hub, student):
        one.add_argument("--score-floor", type=share, help="weaker boxes are not kept (default .01)")
        one.add_argument("--flip", action="store_true", default=None, help="the mean with the mirrored image's answer")
        one.add_argument("--scales", type=numbers, metavar="A,B", help="the mean over sizes of the network's input")
        one.add_argument("--device", help=DEVICE)
