"""How files are made that are to do harm, each read as tutored reads it."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from benchmarks.faults import examples, kept, readers
from tutored.checkpoint import load_checkpoint
from tutored.files import sha256, whole_file, whole_folder
from tutored.softlabels import Store

LAUGHS = '<!DOCTYPE a [<!ENTITY a "ha">{}]><annotation>&z;</annotation>'.format(
    "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefghij", "bcdefghijz", strict=True))
)
OUTSIDE = (
    '<!DOCTYPE a [<!ENTITY z SYSTEM "file:///etc/passwd">]><annotation><object><name>&z;</name></object></annotation>'
)
ALIASES = "a: &a [x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdefghijkl", "bcdefghijklm", strict=True)
)
TAG = "train: !!python/object/apply:os.mkdir [planted]\n"
POSTSCRIPT = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 8\n(ran) (w) file closefile\n"
NESTED = "[" * 100_000 + "]" * 100_000


class Planted:
    """Unpickled, it makes a folder."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.place),)


def replaced(make: Callable[[Path], object], read: Callable[[Path], object], file: str, content: str | bytes) -> Any:
    """Valid files, of which one is replaced, and then read."""

    def try_it(folder: Path) -> None:
        make(folder)
        (folder / file).write_bytes(content.encode() if isinstance(content, str) else content)
        read(folder)

    return try_it


def changed(make: Callable[[Path], object], read: Callable[[Path], object], file: str, **changes: Any) -> Any:
    """Valid files, in one of which, JSON, some fields are others, and then read."""

    def try_it(folder: Path) -> None:
        make(folder)
        content = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps(content | changes))
        read(folder)

    return try_it


def png(width: int, height: int, *more: bytes) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = [header, *more, b"IDAT" + zlib.compress(bytes(10**6)), b"IEND"]
    body = b"".join(struct.pack(">I", len(it) - 4) + it + struct.pack(">I", zlib.crc32(it)) for it in chunks)
    return b"\x89PNG\r\n\x1a\n" + body


def bmp(side: int) -> bytes:
    return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0)


def jpeg(side: int) -> bytes:
    written = io.BytesIO()
    examples.picture().save(written, "JPEG")
    content = written.getvalue()
    start = content.index(b"\xff\xc0") + 5
    return content[:start] + struct.pack(">HH", side, side) + content[start + 4 :]


def safetensors(length: int, **header: Any) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", length or len(text)) + text


def swollen_map(folder: Path) -> None:
    """An .npz file that claims to hold a terabyte."""
    with zipfile.ZipFile(folder / "a.npz", "w") as file:
        file.writestr("probs.npy", b"x")
        file.filelist[0].file_size = 2**40
    readers.read_answers(folder)


def claimed_map(folder: Path) -> None:
    """An .npy file whose header claims to be followed by a terabyte."""
    with (folder / "a.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f4", "fortran_order": False, "shape": (10**5, 10**5, 21)}
        )
    readers.read_answers(folder)


def pickled_map(folder: Path) -> None:
    np.savez(folder / "a.npz", probs=np.array([Planted(folder / "ran")], dtype=object))
    readers.read_answers(folder)


def pickled(folder: Path, read: Callable[[Path], object]) -> None:
    """A pickle where weights are expected. It must not run."""
    (folder / "w.pth").write_bytes(pickle.dumps({"weight": Planted(folder / "ran")}))
    try:
        read(folder / "w.pth")
    finally:
        assert not (folder / "ran").exists(), "it ran"


def torch_pickled(folder: Path) -> None:
    torch.save({"weight": Planted(folder / "ran")}, folder / "w.pth")
    try:
        kept.read_weights(folder / "w.pth")
    finally:
        assert not (folder / "ran").exists(), "it ran"


def archive(folder: Path, read: Callable[[Path], object]) -> None:
    with zipfile.ZipFile(folder / "data.zip", "w") as file:
        file.writestr("../../a.jpg", png(1, 1))
    read(folder / "data.zip")


def table(folder: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """A store whose part is another table, with the right hash."""
    kept.make_store(folder)
    part, manifest = folder / "part-00000.parquet", folder / "manifest.json"
    pq.write_table(change(pq.read_table(part)), part)
    content = json.loads(manifest.read_text())
    rows = pq.read_metadata(part).num_rows
    content["parts"][0] |= {"sha256": sha256(part), "bytes": part.stat().st_size, "rows": rows}
    content.pop("index", None)
    manifest.write_text(json.dumps(content))
    kept.read_store(folder, verify=True)


def column(table: pa.Table, name: str, values: list[Any], kind: Any = None) -> pa.Table:
    field = table.schema.field(name)
    return table.set_column(table.schema.get_field_index(name), name, pa.array(values, kind or field.type))


def climbing_part(folder: Path) -> None:
    kept.make_store(folder / "store")
    (folder / "store/part-00000.parquet").rename(folder / "part-00000.parquet")
    manifest = json.loads((folder / "store/manifest.json").read_text())
    manifest["parts"][0]["file"] = "../part-00000.parquet"
    (folder / "store/manifest.json").write_text(json.dumps(manifest))
    Store.open(folder / "store")


def changed_onnx(folder: Path, change: Callable[[Any, Path], object]) -> None:
    examples.make_onnx(folder)
    model = onnx.load(folder / "m.onnx")
    change(model, folder)
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    kept.read_onnx(folder)


def outside_data(model: Any, folder: Path) -> None:
    tensor = model.graph.initializer[0]
    secret = folder.parent / "secret"
    secret.write_bytes(bytes(len(tensor.float_data) * 4))
    tensor.ClearField("float_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=f"../{secret.name}")


def deep_names(model: Any, folder: Path) -> None:
    """Names of classes that no parser survives; the declaration names them, too, and so they count for nothing."""
    onnx.helper.set_model_props(model, {"names": "-" * 100_000 + "1"})


def absurd_student(folder: Path, **shape: Any) -> None:
    kept.make_checkpoint(folder)
    file = folder / "checkpoint/checkpoint.json"
    content = json.loads(file.read_text())
    content["config"]["student"] |= shape
    file.write_text(json.dumps(content))
    load_checkpoint(folder / "checkpoint")


def linked_file(folder: Path) -> None:
    """What is written where a link lies takes the link's place, not that of what it points to."""
    (folder / "mine").write_text("mine")
    (folder / "out").symlink_to(folder / "mine")
    with whole_file(folder / "out") as path:
        path.write_text("new")
    assert (folder / "mine").read_text() == "mine" and (folder / "out").read_text() == "new"


def linked_folder(folder: Path) -> None:
    """The same for a folder, in which nothing is removed."""
    (folder / "mine").mkdir()
    (folder / "mine/a").write_text("mine")
    (folder / "out").symlink_to(folder / "mine")
    with whole_folder(folder / "out") as path:
        (path / "b").write_text("new")
    assert (folder / "mine/a").read_text() == "mine" and [each.name for each in (folder / "out").iterdir()] == ["b"]


def packed_text(megabytes: int) -> bytes:
    """A PNG chunk of text that unpacks to so much."""
    return b"zTXtComment\0\0" + zlib.compress(bytes(megabytes * 10**6))
