"""The manifest of a store: who answered what, and the hash and row count of each part."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tutored.errors import InputError
from tutored.files import STORE, regular
from tutored.labels import LabelSpace

MANIFEST = STORE.file
SEALS = ".part-*.sha256"
"""Beside each part that the manifest does not know yet, what it will say of it."""
FORMAT = "tutored-softlabels"
VERSION = 2


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")


class _Identity(_Strict):
    labels: list[str]
    images: int = Field(ge=0)


class _Part(_Strict):
    file: str = Field(pattern=r"^part-\d{5,}\.parquet$")
    rows: int = Field(ge=0)
    sha256: str
    bytes: int
    answers: list[str]
    failed: dict[str, str] = {}


class _Manifest(_Strict):
    complete: bool
    identity: _Identity
    parts: list[_Part] | None
    index: str | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.complete and self.parts is None:
            raise ValueError("'complete' is true, but there are no 'parts'")
        LabelSpace(tuple(self.identity.labels))
        return self


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a store, finished or not; None where there is none.

    Raises:
        InputError: it is damaged, something else, or written by a newer version.
    """
    path = folder / MANIFEST
    if not path.exists():
        return None
    try:
        manifest = json.loads(regular(path).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: can't be read ({error}); label into another folder") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise InputError(f"{path}: not a store of soft labels ('format' must be {FORMAT!r}); give the store's folder")
    if manifest.get("version") != VERSION:
        raise InputError(
            f"{path}: 'version' is {manifest.get('version')!r}, this tutored reads {VERSION}; "
            "update tutored, or label again"
        )
    try:
        _Manifest.model_validate(manifest)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(f"{path}: {f'{where!r}: ' if where else ''}{first['msg']}; label again") from error
    except InputError as error:
        raise InputError(f"{path}: 'identity.labels': {error}") from error
    return manifest


def differences(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """The fields of `wanted` that `stored` states otherwise, for a message; empty where there are none."""
    wanted = json.loads(json.dumps(wanted))
    return "; ".join(
        f"'{name}' is {stored.get(name, 'not stated')!r} there, {value!r} is asked for"
        for name, value in wanted.items()
        if stored.get(name) != value
    )


def changed(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The fields in which two identities differ."""
    return sorted(name for name in {**one, **other} if one.get(name) != other.get(name))
