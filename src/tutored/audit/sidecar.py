"""`audit.json` beside a store's manifest: what was found, and what training takes from it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from tutored.config.section import Section
from tutored.errors import InputError
from tutored.files import write_text
from tutored.labels import ClassMap, Elsewhere, same_class
from tutored.softlabels import Store
from tutored.softlabels.draw import Rule

SIDECAR = "audit.json"
OF_THE_DATA = ("data", "split", "images", "ids_sha256")
"""Fields of a store's identity, and of the stores that it is made of, that say what was labelled, not who answered."""


class Finding(Section):
    """A sentence on a tutor.

    Attributes:
        kind: `swap`, `wrong`, `blind` and `miscalibrated` are complaints.
        name: our name of the class it is about.
        renamed: what mends a swap: tutor class to ours.
    """

    kind: Literal["swap", "wrong", "blind", "miscalibrated", "temperature", "calibrated", "band", "few"]
    text: str
    name: str | None = None
    renamed: dict[str, str] = Field(default_factory=dict)

    @property
    def complaint(self) -> bool:
        return self.kind in ("swap", "wrong", "blind", "miscalibrated")


class Advice(Section):
    """What training takes from the audit of one task.

    Attributes:
        muted: our classes that the tutor should not teach, each with the tutor's classes that mean it.
        temperature: p^(1/T) of the tutor's probabilities is calibrated; 1 where nothing is to be done.
        box_floor, ignore_floor: scores, after the temperature, from which on boxes teach and are ignored; None: as
            usual.
    """

    muted: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    temperature: float = 1.0
    box_floor: float | None = None
    ignore_floor: float | None = None

    def muted_in(self, class_map: ClassMap) -> tuple[int, ...]:
        """Classes of `class_map.target` to mute; not those that the tutor's classes were renamed away from."""
        numbers = set()
        for name, sources in self.muted.items():
            number = same_class(name, class_map.target)
            if number is not None and number in {class_map.to[class_map.source.index(source)] for source in sources}:
                numbers.add(number)
        return tuple(sorted(numbers))


class TaskAudit(Section):
    """One task's part: figures, verdicts and advice.

    Attributes:
        data, split: what the answers were held against.
        renamed, elsewhere, background: as the audit was told.
        unannotated: the data's classes that some of the images were not annotated for; older audits don't say.
        ids: the images whose ground truth was used, one id a line.
    """

    data: str
    split: str
    renamed: dict[str, str | None] = Field(default_factory=dict)
    elsewhere: Elsewhere = "background"
    background: Rule = "noisy_or"
    unannotated: tuple[str, ...] = ()
    ids: str
    figures: dict[str, Any]
    findings: tuple[Finding, ...]
    advice: Advice


class Sidecar(Section):
    """What an audit writes.

    Attributes:
        store: `fingerprint` of the store it lies in: labelled anew, that store needs another audit.
        tutor: who answered.
        tasks: by "detection" and "segmentation".
    """

    format: Literal["tutored-audit"] = "tutored-audit"
    version: Literal[2] = 2
    store: str
    tutor: dict[str, Any]
    tasks: dict[str, TaskAudit]

    @model_validator(mode="before")
    @classmethod
    def _of_version_1(cls, found: Any) -> Any:
        """Version 1 said once, for all tasks, what they were held against and how."""
        if not isinstance(found, dict) or found.get("version") != 1 or not isinstance(found.get("tasks"), dict):
            return found
        told = {name: found[name] for name in found.keys() & TaskAudit.model_fields.keys()}
        kept = {name: found[name] for name in found.keys() - told.keys()}
        parts = {name: told | part if isinstance(part, dict) else part for name, part in found["tasks"].items()}
        return kept | {"version": 2, "tasks": parts}


def fingerprint(store: Store) -> str:
    """SHA-256 of a store's identity and of its parts' hashes."""
    parts = [[part["file"], part["sha256"]] for part in store.manifest["parts"]]
    text = json.dumps([store.manifest["identity"], parts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def tutor_of(store: Store) -> dict[str, Any]:
    """The store's identity without what was labelled."""
    return {name: value for name, value in store.identity.items() if name.rpartition(".")[2] not in OF_THE_DATA}


def refuse_another_tutor(store: Store, tutor: Mapping[str, Any]) -> None:
    """Raises InputError, naming the fields that differ, where another one than `tutor` answered in a store."""
    own = tutor_of(store)
    differing = sorted(name for name in own.keys() | tutor.keys() if own.get(name) != tutor.get(name))
    if differing:
        raise InputError(
            f"{store.path}: another tutor than the audited one ({', '.join(differing)} differ); an audit holds for one "
            "tutor alone"
        )


def write_sidecar(store: Store, sidecar: Sidecar) -> Path:
    """Write the audit into a store of the same tutor, whole or not at all; raises as `refuse_another_tutor`.

    What an earlier audit of this labelling found of another task stays.
    """
    refuse_another_tutor(store, sidecar.tutor)
    try:
        earlier = read_sidecar(store)
    except InputError:
        earlier = None
    tasks = {**(earlier.tasks if earlier else {}), **sidecar.tasks}
    path = store.path / SIDECAR
    written = sidecar.model_copy(update={"store": fingerprint(store), "tasks": tasks})
    write_text(path, written.model_dump_json(indent=1) + "\n")
    return path


def read_sidecar(store: Store) -> Sidecar | None:
    """The audit that lies in a store's folder; None without one.

    Raises:
        InputError: it is damaged, of a newer format, or the store was labelled anew since.
    """
    path = store.path / SIDECAR
    if not path.is_file():
        return None
    again = "`tutored audit` writes it anew; or delete it"
    try:
        found: Mapping[str, Any] = json.loads(path.read_text())
        sidecar = Sidecar.model_validate(found)
    except (OSError, ValueError, RecursionError) as error:
        why = str(error)
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            why = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise InputError(f"{path}: no audit that this tutored reads ({why}); {again}") from error
    if sidecar.store != fingerprint(store):
        raise InputError(f"{path}: the store was labelled anew since this audit; {again}")
    return sidecar
