"""Hypothesis strategies that damage a valid file, by format."""

import copy
import io
import json
import math
from collections.abc import Callable, Iterator
from typing import Any
from xml.etree import ElementTree

import numpy as np
import yaml
from hypothesis import strategies as st

Contents = st.SearchStrategy[bytes]
ODD = st.sampled_from(
    (
        *(None, True, -1, 0, 1, 255, 2**31, 2**64, 10**400, 0.5, -1e308, math.nan, math.inf, -math.inf),
        *("", "x", "cat", "é", "a\0b", "../../../../etc/passwd", "/etc/passwd", "9" * 5000, "nan"),
        *([], {}, [[]], [None], {"x": None}),
    )
)
"""What a value may be replaced by."""


def damaged(content: bytes, form: str) -> Contents:
    """The file with its bytes damaged, or, of a format with values, with one of these replaced, removed or renamed."""
    return st.one_of(damaged_bytes(content), FORMS[form](content)) if form in FORMS else damaged_bytes(content)


@st.composite
def damaged_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """The end cut off, or a chunk with a bit flipped, replaced, removed, repeated or blanked."""
    start = draw(st.integers(0, max(len(content) - 1, 0)))
    chunk = content[start : start + draw(st.sampled_from((1, 2, 4, 16, 100, 1000)))]
    flipped = bytes([chunk[0] ^ (1 << draw(st.integers(0, 7)))]) + chunk[1:] if chunk else b"\1"
    noise = draw(st.binary(min_size=len(chunk), max_size=len(chunk)))
    change = draw(st.sampled_from((flipped, noise, b"", chunk * 3, b"\0" * len(chunk), b" " * len(chunk), None)))
    return content[:start] if change is None else content[:start] + change + content[start + len(chunk) :]


@st.composite
def damaged_tree(draw: st.DrawFn, tree: Any) -> Any:
    """A copy of nested lists and dictionaries with one entry changed, or now and then something else altogether."""
    tree = copy.deepcopy(tree)
    places = list(_places(tree))
    if not places or draw(st.integers(0, 30)) == 0:
        return draw(ODD)
    holder, key = draw(st.sampled_from(places))
    change, value = draw(st.sampled_from(("replace", "remove", "double", "rename", "negate", "wrap"))), holder[key]
    if change == "remove":
        del holder[key]
    elif change == "double" and isinstance(holder, list):
        holder.append(copy.deepcopy(value))
    elif change == "rename" and isinstance(holder, dict):
        holder[draw(st.sampled_from(("x", "id", "file", f"{key}2")))] = holder.pop(key)
    elif change == "negate" and isinstance(value, int | float):
        holder[key] = -value
    else:
        holder[key] = draw(st.sampled_from((str(value), [value]))) if change == "wrap" else copy.deepcopy(draw(ODD))
    return tree


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    for key in list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ():
        yield tree, key
        yield from _places(tree[key])


@st.composite
def _xml(draw: st.DrawFn, content: bytes) -> bytes:
    """An element replaced, removed, doubled or renamed."""
    root = ElementTree.fromstring(content)
    parent, child = draw(st.sampled_from([(parent, child) for parent in root.iter() for child in parent]))
    change = draw(st.sampled_from(("text", "remove", "double", "rename")))
    if change == "text":
        child.text = str(draw(ODD)).replace("\0", "")
    elif change == "rename":
        child.tag = draw(st.sampled_from(("object", "name", "bndbox", "xmin", "ymax", "size", "x")))
    elif change == "remove":
        parent.remove(child)
    else:
        parent.append(copy.deepcopy(child))
    return ElementTree.tostring(root)


def _array(content: bytes) -> Contents:
    """The arrays of an .npz file with one in another type or shape, or with odd values."""
    arrays, odd = dict(np.load(io.BytesIO(content))), []
    for name, array in ((name, np.atleast_1d(array)) for name, array in arrays.items()):
        odd += [(name, np.zeros(array.shape, kind)) for kind in "? i1 u1 i8 f2 f8 c16 U5 O M8[s] >f4".split()]
        odd += [(name, other) for other in (array.T, array[None], array.reshape(-1), array.reshape(-1)[:0], array[:1])]
        odd += [(name, np.full(array.shape, value)) for value in (math.nan, math.inf, -1.0, 2.0, 1e30, 0.5, 0.0)]

    def written(changed: tuple[str, Any]) -> bytes:
        file = io.BytesIO()
        np.savez(file, **(arrays | dict([changed])))
        return file.getvalue()

    return st.sampled_from(odd).map(written)


FORMS: dict[str, Callable[[bytes], Contents]] = {
    "json": lambda content: damaged_tree(json.loads(content)).map(lambda tree: json.dumps(tree).encode()),
    "yaml": lambda content: damaged_tree(yaml.safe_load(content)).map(lambda tree: yaml.safe_dump(tree).encode()),
    "xml": _xml,
    "array": _array,
}
