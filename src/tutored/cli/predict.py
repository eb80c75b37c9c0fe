"""The commands `tutored predict` and `tutored serve`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tutored.cli.output import say
from tutored.cli.values import refuse


def predict(given: argparse.Namespace) -> None:
    from tutored.cli.progress import bar
    from tutored.engine.stop import stopping
    from tutored.predict import (
        FILMED,
        KINDS,
        Predictor,
        choose_kinds,
        find_videos,
        predict_files,
        predict_video,
        sort_inputs,
    )

    inputs = sort_inputs(given.pictures, sys.stdin)
    if not inputs.pictures:
        refuse(given, "numbers pictures, and none is given", "coco")
    videos = find_videos(inputs.videos, inputs.under)
    predictor = Predictor.load(given.checkpoint, given.device, given.batch)
    if inputs.pictures:
        kinds = choose_kinds(given.to, KINDS, predictor.tasks)
        options = {"kinds": kinds, "under": inputs.under, "coco": given.coco}
        with bar("predicting") as step:
            predict_files(predictor, inputs.pictures, given.out, given.score, step, **options)
        say(f"wrote {', '.join(kinds)} to {given.out}")
    kinds = choose_kinds(given.to, FILMED, predictor.tasks)
    for name, video in videos.items():
        with bar(name) as step:
            files = predict_video(predictor, video, given.out / name, given.score, step, kinds=kinds)
        _say_written(files)
    for camera in inputs.cameras:
        say(f"{camera}: Ctrl-C ends the recording")
        into = given.out / camera.replace(":", "-")
        with stopping() as stop:
            files = predict_video(predictor, camera, into, given.score, kinds=kinds, stop=stop)
        _say_written(files)


def _say_written(files: Sequence[Path]) -> None:
    say(f"wrote {', '.join(map(str, files))}")


def serve(given: argparse.Namespace) -> None:
    from tutored.serve import is_loopback, serve

    if not is_loopback(given.host):
        told = "not loopback: whoever reaches this machine can ask; there is no password"
        print(f"warning: {given.host} is {told}", file=sys.stderr)
    serve(
        given.checkpoint,
        given.host,
        given.port,
        megabytes=given.max_megabytes,
        device=given.device,
        ready=lambda url: say(f"listening on {url} (Ctrl-C ends it)"),
    )
