"""The ids of a store's rows: one file of them, and the row of each without a Python object for each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

import numpy as np
import pyarrow as pa

INDEX = "index.arrow"
"""All ids in the order of their rows, so that opening a large store reads one file. Not Parquet, for `*.parquet` are
the parts."""
SLICE = 65536


class Index:
    """Where an image's row is. A million ids take 8 MB and a mapped file; a dictionary of them takes 200 MB.

    Attributes:
        ids: in the order of rows.
    """

    def __init__(self, ids: pa.StringArray) -> None:
        self.ids = ids
        keys = np.fromiter(map(_key, self), np.uint32, len(ids))
        self._rows = keys.argsort(kind="stable").astype(np.uint32)
        self._keys = keys[self._rows]

    def find(self, image_id: str) -> int | None:
        """The row of an image, None where there is none."""
        key = np.uint32(_key(image_id))
        # Two ids may share a key.
        for place in range(int(self._keys.searchsorted(key)), len(self._keys)):
            if self._keys[place] != key:
                break
            row = int(self._rows[place])
            if self.ids[row].as_py() == image_id:
                return row
        return None

    def repeated(self) -> str | None:
        """An id that is there twice."""
        for place in np.flatnonzero(self._keys[1:] == self._keys[:-1]):
            first, second = (self.ids[int(row)].as_py() for row in self._rows[place : place + 2])
            if first == second:
                return str(first)
        return None

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self.ids), SLICE):
            yield from self.ids.slice(start, SLICE).to_pylist()

    def __len__(self) -> int:
        return len(self.ids)


def _key(image_id: str) -> int:
    return crc32(image_id.encode(errors="replace"))


def read_ids(path: Path) -> pa.StringArray:
    """The ids in a file of `write_ids`, which stays mapped. Raises pyarrow's errors where it is none."""
    return pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0).column("image_id")


def write_ids(path: Path, ids: pa.StringArray) -> None:
    """Uncompressed, to be mapped."""
    batch = pa.record_batch({"image_id": ids})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, batch.schema) as writer:
        writer.write_batch(batch)
