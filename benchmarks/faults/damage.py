"""Valid files made into damaged ones by chance: bytes, and values within what they hold."""

from __future__ import annotations

import copy
import io
import json
import math
import re
import struct
from collections.abc import Callable, Iterator
from random import Random
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

Damage = Callable[[bytes, Random], bytes]


def nested(depth: int) -> list[Any]:
    """A list in a list in a list."""
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


ODD: tuple[Any, ...] = (
    None, True, -1, 0, 1, 255, 2**31, 2**63, 2**64, 10**400, 0.5, -1e308, 1e308, math.nan, math.inf, -math.inf,
    "", "x", "cat", "é", "a\0b", "../../../../etc/passwd", "/etc/passwd", "9" * 5000, "nan",
    [], {}, [[]], [None], {"x": None}, nested(60),
)  # fmt: skip
"""What a value may turn into."""


def damage_bytes(content: bytes, rng: Random) -> bytes:
    """Bits flipped, bytes replaced, the end cut off, or a chunk removed, doubled, moved, blanked or put in."""
    if not content:
        return rng.randbytes(8)
    start = rng.randrange(len(content))
    end = min(start + rng.choice((1, 2, 4, 16, 100, 1000)), len(content))
    chunk, before, after = content[start:end], content[:start], content[end:]
    other = rng.randrange(len(content))
    return rng.choice(
        (
            lambda: before + bytes([content[start] ^ (1 << rng.randrange(8))]) + content[start + 1 :],
            lambda: before + rng.randbytes(len(chunk)) + after,
            lambda: before,
            lambda: before + after,
            lambda: before + chunk * rng.choice((2, 3, 50)) + after,
            lambda: before + after[: len(after) // 2] + chunk + after[len(after) // 2 :],
            lambda: before + rng.choice((b"\0", b"\xff", b" ")) * len(chunk) + after,
            lambda: before + content[other : other + len(chunk)] + content[start:],
        )
    )()


def damage_text(content: bytes, rng: Random) -> bytes:
    """Bytes; or a word or number replaced."""
    words = [*re.finditer(rb"-?[\w./]+", content)]
    if not words or rng.random() < 0.5:
        return damage_bytes(content, rng)
    word = rng.choice(words)
    odd = rng.choice(ODD)
    return content[: word.start()] + str(odd).encode() + content[word.end() :]


def damage_json(content: bytes, rng: Random) -> bytes:
    """Text; or an entry replaced, removed, doubled or renamed."""
    if rng.random() < 0.25:
        return damage_text(content, rng)
    return json.dumps(garbled(json.loads(content), rng)).encode()


def damage_yaml(content: bytes, rng: Random) -> bytes:
    """As JSON."""
    if rng.random() < 0.25:
        return damage_text(content, rng)
    return yaml.safe_dump(garbled(yaml.safe_load(content), rng)).encode()


def damage_xml(content: bytes, rng: Random) -> bytes:
    """Text; or an element replaced, removed, doubled, renamed or moved."""
    if rng.random() < 0.25:
        return damage_text(content, rng)
    root = ElementTree.fromstring(content)
    pairs = [(parent, child) for parent in root.iter() for child in parent]
    if not pairs:
        return damage_text(content, rng)
    parent, child = rng.choice(pairs)
    change = rng.choice(("text", "remove", "double", "rename", "move"))
    if change == "text":
        child.text = str(rng.choice(ODD)).replace("\0", "")
    elif change == "rename":
        child.tag = rng.choice(("object", "name", "bndbox", "xmin", "ymax", "size", "x"))
    elif change == "move":
        rng.choice([element for element in root.iter() if element not in [*child.iter()]]).append(child)
    if change in ("remove", "move"):
        parent.remove(child)
    if change == "double":
        parent.append(copy.deepcopy(child))
    return ElementTree.tostring(root)


def damage_array(content: bytes, rng: Random) -> bytes:
    """Bytes; or the array of an .npz or .npy file in another type or shape, or with odd values."""
    if rng.random() < 0.4:
        return damage_bytes(content, rng)
    loaded = np.load(io.BytesIO(content))
    packed = content[:2] == b"PK"
    arrays = dict(loaded) if packed else {"": loaded}
    name = rng.choice([*arrays])
    arrays[name] = _odd_array(arrays[name], rng)
    written = io.BytesIO()
    if packed:
        np.savez(written, **arrays)
    else:
        np.save(written, arrays[""])
    return written.getvalue()


def _odd_array(array: Any, rng: Random) -> Any:
    change = rng.choice(("type", "shape", "value", "values"))
    if change == "type" and array.dtype.kind == "f":
        kind = rng.choice(("?", "i1", "u1", "i8", "f2", "f8", "c16", "U5", "O", "M8[s]", ">f4"))
        return array.astype(kind) if kind != "M8[s]" else np.zeros(array.shape, kind)
    if change == "shape":
        flat = array.reshape(-1)
        return rng.choice((array.T, array[None], flat, flat[:0], flat[0], array.reshape(-1, 1, 1), array[..., None]))
    array = array.copy() if array.dtype.kind == "f" else np.zeros((3, 4, 21), np.float32)
    value = rng.choice((math.nan, math.inf, -1.0, 2.0, 1e30, 0.5, 0.0))
    if change == "values" or not array.ndim or not array.size:
        return np.full_like(array, value)
    array.reshape(-1)[rng.randrange(array.size)] = value
    return array


def damage_rows(content: bytes, rng: Random) -> bytes:
    """Values of a Parquet file's rows replaced, removed or doubled; columns of another type or none."""
    table = pq.read_table(io.BytesIO(content))
    while True:
        rows = garbled(table.to_pylist(), rng)
        schema = table.schema if rng.random() < 0.7 else None
        try:
            changed = pa.Table.from_pylist(rows, schema=schema)
            written = io.BytesIO()
            pq.write_table(changed, written, row_group_size=8)
        except (pa.ArrowException, TypeError, ValueError, AttributeError, OverflowError, KeyError, IndexError):
            continue
        return written.getvalue()


def damage_safetensors(content: bytes, rng: Random) -> bytes:
    """Bytes; or the header's entries, or its stated length."""
    if rng.random() < 0.5:
        return damage_bytes(content, rng)
    length = int.from_bytes(content[:8], "little")
    if rng.random() < 0.2:
        return struct.pack("<Q", rng.choice((0, 1, length + 1, 2**31, 2**63, 2**64 - 1))) + content[8:]
    header = json.dumps(garbled(json.loads(content[8 : 8 + length]), rng)).encode()
    return struct.pack("<Q", len(header)) + header + content[8 + length :]


def garbled(tree: Any, rng: Random) -> Any:
    """A copy of nested lists and dictionaries in which one entry is replaced, removed, doubled or renamed."""
    tree = copy.deepcopy(tree)
    places = [*_places(tree)]
    if not places or rng.random() < 0.02:
        return rng.choice(ODD)
    holder, key = rng.choice(places)
    change = rng.choice(("replace", "replace", "replace", "remove", "double", "number"))
    if change == "remove":
        del holder[key]
    elif change == "double" and isinstance(holder, list):
        holder.append(copy.deepcopy(holder[key]))
    elif change == "double":
        holder[rng.choice(("x", "id", "file", f"{key}2"))] = holder.pop(key)
    elif change == "number" and isinstance(holder[key], int | float) and not isinstance(holder[key], bool):
        holder[key] = rng.choice((-holder[key], holder[key] + 1, holder[key] * 1000, str(holder[key]), [holder[key]]))
    else:
        holder[key] = copy.deepcopy(rng.choice(ODD))
    return tree


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    for key in [*tree] if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ():
        yield tree, key
        yield from _places(tree[key])
