"""What a mirrored view is worth to the detection tutor: `python path/to/results/study/flipping.py`, where `run.sh` ran.

mAP over the classes that the studies report, of `weights/yolox_nano.onnx` with its defaults on the evaluation split and
of the mean over both views, and the difference with a 95 % interval over images; no seed but the bootstrap's, 0.
"""

from __future__ import annotations

from pathlib import Path

from vouching import judged

from tutored.data import open_dataset
from tutored.evaluate import compare
from tutored.studies import load_setting
from tutored.tutors import open_tutor


def main() -> None:
    setting = load_setting(Path(__file__).parent / "setting.yaml")
    dataset = open_dataset(setting.data, setting.evaluation)
    found = []
    for name, flip in (("one view", False), ("with --flip", True)):
        tutor = open_tutor("onnx", weights=Path("weights/yolox_nano.onnx"), flip=flip)
        answers = {image_id: tutor([dataset.image(image_id)], [image_id])[0] for image_id in dataset.ids}
        found.append(judged(name, answers, tutor.labels, dataset, setting))
    print(f"  {next(iter(compare(found[:1], found[1:]).values()))}")


if __name__ == "__main__":
    main()
