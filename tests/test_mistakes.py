"""What typical mistakes are answered with: `docs/mistakes.md` shows these very messages.

After a message has changed on purpose: `python tests/test_mistakes.py` writes the page again.
"""

import contextlib
import io
import os
import shlex
import tempfile
from pathlib import Path

import numpy as np
import yaml

from conftest import _make_voc as make_voc
from made import TINY, yolox
from tutored.cli import main

PAGE = Path(__file__).parents[1] / "docs" / "mistakes.md"
HEAD = """\
# Mistakes that are understood

What is typed, and what the command answers. Each of these ends with exit code 2, and nothing is written. A test
compares this page with the commands.
"""
MISTAKES = {
    "init": """
        tutored init photo.jpg
        tutored init photos --data photos
        tutored init photos --out tutored.yaml
        tutored init photos --out new.yaml --tutor detector.onnx
        tutored init photos --out new.yaml --tutor yolov8n.pt
        tutored init photos --out new.yaml --tutor onnx:detecter.onnx
        tutored init photos --out new.yaml --tutor onnx:detector.onnx --tutor files:boxes
        tutored init photos --out new.yaml --tutor segmentation=onnx:detector.onnx
        tutored init photos --out new.yaml --tutor store:stores/boxes
    """,
    "data check": """
        tutored check photos
        tutored data check --data photos --split train
        tutored data check photos --split train
        tutored data check --config tutored.yaml --split train
    """,
    "train": """
        tutored tarin tutored.yaml
        tutored train photos
        tutored train --config tutored.yaml
        tutored train tutored.yaml --epochs 5
        tutored train tutored.yaml --epoch 5
        tutored train tutored.yaml --imgsz 640
        tutored train tutored.yaml --batch-size 8
        tutored train tutored.yaml --device cuda
        tutored train tutored.yaml --data photos
        tutored train tutored.yaml epochs=5
        tutored train tutored.yaml --student.epochs 5
        tutored train tutored.yaml --out runs/first --train.epochs 5
        tutored train tutored.yaml --data.val_split validation
        tutored train tutored.yaml --tasks.detection.policy fill
        tutored train tutored.yaml --tasks.detection.policy fill --tasks.detection.tutor files:maps
    """,
    "label": """
        tutored label detector.onnx --data voc:photos --split train --out stores/boxes
        tutored label onnx:detecter.onnx --data voc:photos --split train --out stores/boxes
        tutored label onnx:detector.onnx --data voc:photos --out stores/boxes
        tutored label onnx:detector.onnx --data voc:photos --split training --out stores/boxes
    """,
    "predict": """
        tutored predict --model runs/first/checkpoint photos/JPEGImages --out seen
        tutored predict runs/first photos/JPEGImages --out seen
        tutored predict runs/first/checkpoint photos/JPEGImages
        tutored predict runs/first/checkpoint photos/JPEGImages --out seen --conf 0.25
        tutored predict runs/first/checkpoint photo.jpg --out seen
    """,
}


def stage(folder):
    """Stand-ins of what a first-time user has: pictures, a detector, maps, a config, a run."""
    make_voc(folder / "photos")
    yolox(folder / "detector.onnx", {1: [0.5, 0.5, 0, 0, 0.8, 0.5, 0.25]}, names="{0: 'cat', 1: 'dog'}")
    for name in ("boxes", "maps"):
        (folder / name).mkdir()
    for picture in (folder / "photos" / "JPEGImages").iterdir():
        (folder / "boxes" / f"{picture.stem}.xml").write_text("<annotation></annotation>")
        np.savez(folder / "maps" / f"{picture.stem}.npz", probs=np.full((8, 8, 21), 1 / 21, np.float32))
    (folder / "runs" / "first" / "checkpoint").mkdir(parents=True)
    (folder / "runs" / "first" / "checkpoint" / "checkpoint.json").write_text("{}")
    for name in ("tutored.yaml", "runs/first/config.yaml"):
        (folder / name).write_text(yaml.safe_dump({"data": {"train": "voc:photos"}, "student": TINY}))


def answers(folder):
    """The page; every mistake is made in `folder`."""
    text, before = HEAD, sorted(folder.rglob("*"))
    with contextlib.chdir(folder):
        for part, lines in MISTAKES.items():
            text += f"\n## tutored {part}\n"
            for line in filter(None, map(str.strip, lines.splitlines())):
                told = io.StringIO()
                with contextlib.redirect_stderr(told), contextlib.redirect_stdout(io.StringIO()):
                    code = main(shlex.split(line)[1:])
                assert (code, told.getvalue()[:9]) == (2, "tutored: "), line
                text += f"\n```console\n$ {line}\n{told.getvalue()}```\n"
    assert sorted(folder.rglob("*")) == before
    return text


def test_the_page_shows_what_the_commands_say(tmp_path):
    stage(tmp_path)
    assert answers(tmp_path) == PAGE.read_text()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        stage(Path(made))
        PAGE.write_text(answers(Path(os.path.realpath(made))))
