"""Videos and cameras, made up on the spot."""

import json
import os
import signal
import sys
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from made import SHAPE, boxed, two_tasks
from tutored import inputs as cameras
from tutored.cli import main
from tutored.errors import InputError
from tutored.inputs import find_videos
from tutored.labels import LabelSpace
from tutored.predict import Film, Predictor, Result
from tutored.predict.write import predict_video
from tutored.students import Student
from tutored.students.blitznet import BlitzNet, BlitzNetSection
from tutored.tasks.detection import Detections
from tutored.tasks.segmentation import ClassMap
from tutored.types import Prediction

av = pytest.importorskip("av")
PETS = LabelSpace.of(["cat", "dog"])


class Brightest(Predictor):
    """Says: a dog of score .7 where the picture is bright, a cat of .2 everywhere; the mask is dog where it is bright.

    Attributes:
        seen: how many pictures each call had.
    """

    def __init__(self, batch=4):
        super().__init__(Student(BlitzNetSection(kind="blitznet"), two_tasks(PETS)), batch=batch)
        self.seen = []

    def __call__(self, images):
        self.seen.append(len(images))
        return list(map(self._one, images))

    def _one(self, image):
        grey = np.asarray(image.convert("L"))
        bright = grey > 128
        rows, columns = np.flatnonzero(bright.any(axis=1)), np.flatnonzero(bright.any(axis=0))
        height, width = grey.shape
        boxes = [[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], [0, 0, width, height]]
        found = boxed(Detections, boxes, [2, 1], scores=[0.7, 0.2])
        told = Prediction.of((height, width), found, ClassMap(mask=torch.from_numpy(bright.astype(np.uint8) * 2)))
        return Result(told.size, told.tasks, known=self.tasks, scores=self.scores, source=image)


def film(path, times, size=(480, 320), turn=0, wide=1):
    """A dark video with a bright square of 64 pixels in its upper left corner, frames at these 10ths of a second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("h264", rate=10)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, 10)
        stream.codec_context.sample_aspect_ratio = wide
        if turn:
            stream.set_display_rotation(turn)
        for time in times:
            pixels = np.full((size[1], size[0], 3), 30, np.uint8)
            pixels[:64, :64] = 220
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = time
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def frames(path):
    with av.open(str(path)) as container:
        return [(frame.time, frame.to_image()) for frame in container.decode(video=0)]


def test_every_frame_is_drawn_and_told_at_its_time(tmp_path):
    times = [0, 1, 2, 5, 6, 9]  # of a variable rate
    source = film(tmp_path / "clip.v2.mp4", times)
    predictor, steps = Brightest(), []
    out = tmp_path / "out" / "clip.v2.mp4"
    written = predict_video(predictor, source, out, progress=lambda done, total: steps.append((done, total)))
    assert [path.name for path in written] == ["clip.v2.predicted.mp4", "clip.v2.predicted.jsonl"]
    assert predictor.seen == [4, 2] and steps == [(4, 6), (6, 6)]

    shown = frames(written[0])
    assert [round(time, 4) for time, _ in shown] == [time / 10 for time in times]
    assert {image.size for _, image in shown} == {(480, 320)}
    pixels = np.asarray(shown[-1][1]).astype(int)
    assert pixels[32, 32, 1] < 200 and abs(pixels[200, 300] - 30).max() < 12  # the mask's colour, and nothing

    lines = [json.loads(line) for line in written[1].read_text().splitlines()]
    assert [(line["frame"], line["time"]) for line in lines] == [(i, time / 10) for i, time in enumerate(times)]
    dog, cat = lines[3]["tasks"]["detection"]
    assert dog == {"category_id": 2, "category": "dog", "bbox": [0, 0, 64, 64], "score": 0.7}
    assert cat["category"] == "cat"


def test_files_are_written_if_asked_for_in_place_of_old_ones(tmp_path):
    for times in ([0, 1, 2], [0, 1]):
        source = film(tmp_path / "clip.mov", times)
        (masks,) = predict_video(Brightest(), source, tmp_path / "out" / "clip.mov", kinds=("files",))
        assert sorted(file.name for file in masks.iterdir()) == [f"{time:06d}.png" for time in times]
    mask = np.array(Image.open(masks / "000001.png"))
    assert mask.shape == (320, 480) and (mask[:60, :60] == 2).all() and not mask[70:, 70:].any()
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["clip.segmentation.predicted"]


def test_what_is_no_video_leaves_nothing(tmp_path):
    (tmp_path / "text.mp4").write_text("not a video")
    (tmp_path / "cut.mp4").write_bytes(film(tmp_path / "whole.mp4", [0, 1]).read_bytes()[:-200])
    os.mkfifo(tmp_path / "pipe.mp4")
    for name in ("text.mp4", "cut.mp4", "pipe.mp4"):
        with pytest.raises(InputError, match=rf"{name}: not a video that can be read"):
            predict_video(Brightest(), tmp_path / name, tmp_path / "out" / name)
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        container.add_stream("aac", rate=8000)
    with pytest.raises(InputError, match=r"sound\.mp4: "):
        predict_video(Brightest(), tmp_path / "sound.mp4", tmp_path / "out" / "sound.mp4")
    with pytest.raises(InputError, match=r"gone\.mp4: there is no such video"):
        find_videos([tmp_path / "gone.mp4"])
    with pytest.raises(InputError, match="same name"):
        find_videos([film(tmp_path / "one.mp4", [0]), film(tmp_path / "one.mov", [0])])
    assert not list(tmp_path.glob("out/*"))


def test_a_video_that_breaks_off_is_refused_by_name(tmp_path):
    source = film(tmp_path / "bad.mp4", list(range(30)))
    content = source.read_bytes()
    index = content.index(b"moov") - 4  # stands behind the frames
    source.write_bytes(content[: index // 2] + b"\xff" * (index - index // 2) + content[index:])
    with pytest.raises(InputError, match=r"bad\.mp4: can't be read past frame \d+ "):
        predict_video(Brightest(), source, tmp_path / "out" / "bad.mp4")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("size", [1, 1000, 3000, -1])
def test_a_full_disk_leaves_no_cut_video(tmp_path, small_files, size):
    source = film(tmp_path / "clip.mp4", list(range(9)))
    (whole,) = predict_video(Brightest(), source, tmp_path / "whole" / "clip.mp4", kinds=("pictures",))
    size += whole.stat().st_size if size < 0 else 0
    out = tmp_path / "out"
    with pytest.raises(OSError, match=r"/clip\.predicted\.mp4: can't be written \(File too large\)"), small_files(size):
        predict_video(Brightest(), source, out / "clip.mp4", kinds=("pictures",))
    assert not list(out.iterdir())


def test_a_camera_records_until_it_is_stopped(tmp_path, monkeypatch, capsys):
    """FFmpeg's test picture, which never ends, in the place of a camera; the signal is Ctrl-C's."""

    class Interrupted(Brightest):
        def __call__(self, images):
            if len(self.seen) == 4:
                signal.raise_signal(signal.SIGINT)
            return super().__call__(images)

    monkeypatch.setattr(cameras, "CAMERAS", {sys.platform: ("lavfi", "testsrc=size=480x320:rate={}")})
    predictor = Interrupted()
    monkeypatch.setattr(Predictor, "load", lambda *_: predictor)
    (tmp_path / "checkpoint.json").touch()
    assert main(["predict", str(tmp_path), "camera:10", "--out", str(tmp_path)]) == 0
    assert predictor.seen == [1, 1, 1, 1, 1]
    assert len(frames(tmp_path / "camera-10.predicted.mp4")) == 5
    assert len((tmp_path / "camera-10.predicted.jsonl").read_text().splitlines()) == 5
    told = capsys.readouterr().out
    assert "camera:10: Ctrl-C ends the recording" in told and "camera:10: 5 frames; detection: dog on 5;" in told


def test_a_missing_camera_or_package_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(InputError, match="^camera:9876: there is no such camera, or another program has it"):
        predict_video(Brightest(), "camera:9876", tmp_path / "camera")
    with pytest.raises(InputError, match="^camera:front: give a camera's number, such as camera:0"):
        predict_video(Brightest(), "camera:front", tmp_path / "camera")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(InputError, match=r"need av; run `pip install 'tutored\[video\]'`"):
        predict_video(Brightest(), "film.mp4", tmp_path / "film")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("score", "boxes", "missed"),
    [
        (None, "dog on 3", {}),
        (0.1, "cat on 3, dog on 3", {}),
        (0.8, "nothing from score 0.80 on, the best has 0.70", {"detection": 0.7}),
    ],
)
def test_what_is_seen_in_a_video_is_told(tmp_path, score, boxes, missed):
    seen, source = Film(score), film(tmp_path / "clip.mp4", [0, 1, 2])
    predict_video(Brightest(), source, tmp_path / "seen", kinds=["json"], found=seen.add)
    assert str(seen) == f"3 frames; detection: {boxes}; segmentation: dog on 3" and seen.missed() == missed


def test_a_video_is_answered_frame_by_frame(tmp_path):
    torch.manual_seed(0)
    student = Predictor(BlitzNet(BlitzNetSection(**SHAPE), two_tasks(PETS)), batch=2)
    found = list(student(film(tmp_path / "clip.mp4", [0, 1, 2])))
    assert [each.size for each in found] == [(320, 480)] * 3 and found[0].image.getpixel((20, 20))[0] > 200
    with pytest.raises(InputError, match=r"gone\.mp4: not a video that can be read"):
        next(student(tmp_path / "gone.mp4"))


def test_a_lying_video_is_turned_upright(tmp_path):
    source = film(tmp_path / "phone.mp4", [0, 1], turn=-90)  # to be shown turned by 90 degrees clockwise
    drawn, lines = predict_video(Brightest(), source, tmp_path / "out" / "phone.mp4")
    assert frames(drawn)[0][1].size == (320, 480)
    x, y, width, height = json.loads(lines.read_text().splitlines()[0])["tasks"]["detection"][0]["bbox"]
    assert (x, y, x + width, y + height) == pytest.approx((256, 0, 320, 64), abs=1)


def test_no_more_than_a_batch_is_read_ahead(tmp_path):
    predictor, read = Brightest(batch=3), 0

    def count() -> bool:
        nonlocal read
        read += 1
        assert read <= sum(predictor.seen) + 3
        return False

    predict_video(predictor, film(tmp_path / "long.mp4", list(range(20))), tmp_path / "long", stop=count)
    assert read == 20 and sum(predictor.seen) == 20


def test_a_failure_on_the_way_leaves_nothing(tmp_path):
    class Tired(Brightest):
        def __call__(self, images: Any) -> Any:
            if self.seen:
                raise KeyboardInterrupt
            return super().__call__(images)

    with pytest.raises(KeyboardInterrupt):
        predict_video(Tired(), film(tmp_path / "clip.mp4", list(range(9))), tmp_path / "out" / "clip.mp4")
    assert not list((tmp_path / "out").iterdir())
