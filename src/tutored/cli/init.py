"""The command `tutored init`."""

from __future__ import annotations

import argparse
from pathlib import Path

from tutored.cli.output import quoted, say, say_next
from tutored.cli.values import refuse


def init(given: argparse.Namespace) -> None:
    from tutored.cli.progress import Lasting, bar
    from tutored.init import init as look
    from tutored.init import make_example
    from tutored.init.text import NOUNS, label_command

    if given.example:
        refuse(given, "is not for --example, which makes pictures and no config", "out")
        make_example(given.folder)
        say(f"wrote {given.folder}: photos, boxes of some, masks of some, labels.txt")
        return say_next(quoted("tutored", "init", given.folder))
    config = given.out or Path("tutored.yaml")
    with bar("reading") as step:
        start = look(given.folder, config, step)
    layout, report = start.layout, start.report
    say(f"{given.folder}: {layout.what}")
    report.show(Lasting())
    for note in layout.notes:
        say(f"note: {note}")
    if not report.ok:
        say("training would stumble over the problems above: correct them first")
    if start.arranged:
        say(f"wrote {start.arranged}: a VOC folder of links to your files, which stay as they are")
    say(f"wrote {start.config}")
    images, taught = report.splits[layout.train].images, any(start.drawn.values())
    for task, drawn in start.drawn.items():
        if drawn < images:
            say(f"missing: {images - drawn:,} of {images:,} training images have no {NOUNS[task]}")
            say(f"{'a tutor may answer' if taught else 'a tutor must answer'}: {label_command(task, layout)}")
    if not taught:
        say(f"then put the classes to learn into {config}")
    return say_next(quoted("tutored", "train", config, "--out", "runs/first"))
