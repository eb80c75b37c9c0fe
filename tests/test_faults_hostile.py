"""Files made to do harm: to read elsewhere, to run code, to fill the memory, or never to end; refused by name."""

import io
import json
import os
import pickle
import struct
import zipfile
import zlib

import numpy as np
import pytest

pytest.importorskip("onnxruntime")

from benchmarks.faults.readers import READERS, attempt, fill, guarded

from made import refused
from tutored.checkpoint import load_checkpoint
from tutored.data import open_dataset
from tutored.tutors import open_tutor

LAUGHS = '<!DOCTYPE a [<!ENTITY a "ha">{}]><annotation>&z;</annotation>'.format(
    "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefghij", "bcdefghijz", strict=True))
)
OUTSIDE = '<!DOCTYPE a [<!ENTITY z SYSTEM "file:///etc/passwd">]><a><object><name>&z;</name></object></a>'
ALIASES = "a: &a [x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdefghijkl", "bcdefghijklm", strict=True)
)
TAG = "train: !!python/object/apply:os.mkdir [planted]\n"
NESTED = "[" * 5_000 + "]" * 5_000
POSTSCRIPT = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 8\n(ran) (w) file closefile\n"
TERABYTES = json.dumps({"w": {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4 * 10**12]}}).encode()
RUN_OF_A_BILLION = {"size": [8, 10], "counts": [10**9]}


def png(width, height, *more):
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = [header, *more, b"IDAT" + zlib.compress(bytes(10**6)), b"IEND"]
    body = b"".join(struct.pack(">I", len(it) - 4) + it + struct.pack(">I", zlib.crc32(it)) for it in chunks)
    return b"\x89PNG\r\n\x1a\n" + body


def npz(array=None):
    """An array of objects, which is a pickle; or a file that claims to unpack to a terabyte."""
    written = io.BytesIO()
    if array is not None:
        np.savez(written, probs=np.array([array], dtype=object))
    else:
        with zipfile.ZipFile(written, "w") as file:
            file.writestr("probs.npy", b"x")
            file.filelist[0].file_size = 2**40
    return written.getvalue()


class Planted:
    """Unpickled, it makes a folder."""

    def __reduce__(self):
        return os.mkdir, ("planted",)


def coco(**changes):
    image = {"id": 1, "file_name": "a.jpg", "height": 8, "width": 10}
    box = {"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 1, 2, 2]}
    content = {"images": [image | changes.get("image", {})], "categories": [{"id": 3, "name": "cat"}]}
    return json.dumps(content | {"annotations": [box | changes.get("box", {})]})


YAML = ("config", "study: seeds", "study: setting", "ONNX: declaration")
JSON = ("COCO: instances", "results (COCO)", "checkpoint: description", "state: facts", "run: log", "run: result")
HOSTILE = [
    *((name, f"{what} in XML", text) for name in ("VOC: boxes", "boxes (XML)")
      for what, text in (("ten billion laughs", LAUGHS), ("an entity elsewhere", OUTSIDE))),
    ("picture: PNG", "50,000 x 50,000 pixels", png(50_000, 50_000)),
    ("picture: PNG", "200 MB of packed text", png(10, 8, b"zTXtComment\0\0" + zlib.compress(bytes(200 * 10**6)))),
    ("picture: JPEG", "PostScript", POSTSCRIPT),
    ("VOC: mask", "50,000 x 50,000 pixels", png(50_000, 50_000)),
    ("VOC: mask", "no pixel", png(0, 0)),
    ("VOC: split", "a path that climbs out", "val_00000\n../../secret\n"),
    ("VOC: split", "an absolute path", "val_00000\n/etc/passwd\n"),
    ("images: list", "a path that climbs out", "../a.png\n"),
    ("COCO: instances", "a path that climbs out", coco(image={"file_name": "../../secret.jpg"})),
    ("COCO: instances", "a run of a billion pixels", coco(box={"segmentation": RUN_OF_A_BILLION})),
    ("map (.npz)", "a pickle", npz(Planted())),
    ("map (.npz)", "a terabyte", npz()),
    ("study: seeds", "a billion seeds", "studies: [thesis/table-12]\nseeds: 1000000000\n"),
    *((name, what, text) for name in YAML
      for what, text in (("a Python tag", TAG), ("a trillion aliases", ALIASES), ("5,000 deep", NESTED))),
    *((name, "JSON 5,000 deep", NESTED) for name in (*JSON, "store: manifest", "store: audit")),
    *((name, what, content) for name in ("checkpoint: weights", "state: weights")
      for what, content in (("terabytes", struct.pack("<Q", len(TERABYTES)) + TERABYTES),
                            ("a header of 2^62 bytes", struct.pack("<Q", 2**62)),
                            ("a pickle", pickle.dumps(Planted())))),
]  # fmt: skip


@pytest.mark.parametrize("kind", ["pipe", "device"])
@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_what_is_no_file_is_refused_and_not_waited_for(reader, kind, tmp_path):
    fill(tmp_path / "at", reader.made)
    file = tmp_path / "at" / reader.file
    file.unlink()
    os.mkfifo(file) if kind == "pipe" else file.symlink_to("/dev/zero")
    with guarded():
        refusal, _ = attempt(lambda: reader.read(tmp_path / "at"))
    assert refusal is not None and str(tmp_path / "at") in refusal


@pytest.mark.parametrize(("name", "what", "content"), HOSTILE, ids=[f"{name}: {what}" for name, what, _ in HOSTILE])
def test_a_hostile_file_is_refused(name, what, content, tmp_path, monkeypatch):
    (reader,) = [each for each in READERS if each.name == name]
    fill(folder := tmp_path / "at", reader.made)
    (folder / reader.file).write_bytes(content.encode() if isinstance(content, str) else content)
    monkeypatch.chdir(folder)
    with guarded():
        refusal, _ = attempt(lambda: reader.read(folder))
    assert refusal is not None and str(folder) in refusal
    assert not (folder / "planted").exists()


@pytest.mark.parametrize("open_it", [load_checkpoint, lambda at: open_tutor("files", folders=at)])
def test_an_archive_is_not_unpacked(open_it, tmp_path):
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as file:
        file.writestr("../../a.jpg", png(1, 1))
    refused(r"data\.zip", open_it, tmp_path / "data.zip")
    refused(r"data\.zip", open_dataset, f"voc:{tmp_path / 'data.zip'}", "train")
