"""`audit.json` beside a store's manifest: what an audit found, and what training takes from it."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from tutored.config import TaskSection
from tutored.errors import InputError
from tutored.files import regular, write_text
from tutored.section import Section
from tutored.softlabels import Store, changed
from tutored.tasks import Task
from tutored.tasks.audit import Advice, Finding

SIDECAR = "audit.json"
OF_THE_DATA = ("data", "split", "images", "ids_sha256")
"""Fields of a store's identity, and of the stores that it is made of, that say what was labelled, not who answered."""


class TaskAudit(Section):
    """One task's part: figures, verdicts and advice.

    Attributes:
        data, split: what the answers were compared with.
        renamed: as the audit was told.
        settings: other keys of the task's section that shaped the answers, with their values.
        unannotated: classes of the data that some of the images are not annotated for.
        ids: the images whose ground truth was used, one id a line.
    """

    kind: str
    data: str
    split: str
    renamed: dict[str, str | None] = Field(default_factory=dict)
    settings: dict[str, Any] = Field(default_factory=dict)
    unannotated: tuple[str, ...] = ()
    ids: str
    figures: dict[str, Any]
    findings: tuple[Finding, ...]
    advice: Advice

    def unlike(self, section: TaskSection) -> list[str]:
        """The keys, each with the audit's value, that a run's task has otherwise, so that it sees other answers."""
        renamed = getattr(section, "renamed", {})
        names = [f"{theirs}={ours}" for theirs, ours in self.renamed.items() if renamed.get(theirs, "") != ours]
        found = [f"renamed: {','.join(names)}"] if names else []
        return found + [f"{key}: {value}" for key, value in self.settings.items() if getattr(section, key) != value]


class Sidecar(Section):
    """What an audit writes.

    Attributes:
        store: `fingerprint` of the store it lies in: labelled anew, that store needs another audit.
        tasks: by name of the task; of an audit without a run's config, names are kinds.
    """

    format: Literal["tutored-audit"] = "tutored-audit"
    version: Literal[3] = 3
    store: str
    tutor: dict[str, Any]
    tasks: dict[str, TaskAudit]

    def of(self, task: Task) -> TaskAudit | None:
        """The part of a run's task: that of its name, or of its kind."""
        found = (self.tasks.get(name) for name in (task.name, task.kind))
        return next((each for each in found if each is not None and each.kind == task.kind), None)


def fingerprint(store: Store) -> str:
    """SHA-256 of a store's identity and of its parts' hashes."""
    parts = [[part["file"], part["sha256"]] for part in store.manifest["parts"]]
    text = json.dumps([store.manifest["identity"], parts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def tutor_of(store: Store) -> dict[str, Any]:
    """The store's identity without what was labelled."""
    return {name: value for name, value in store.identity.items() if name.rpartition(".")[2] not in OF_THE_DATA}


def refuse_another_tutor(store: Store, tutor: Mapping[str, Any]) -> None:
    """Raises InputError, naming the fields that differ, where another tutor than `tutor` answered in a store."""
    differing = changed(tutor_of(store), tutor)
    if differing:
        raise InputError(
            f"{store.path}: another tutor than the audited one ({', '.join(differing)} differ); an audit holds for one "
            "tutor alone"
        )


def write_sidecar(store: Store, sidecar: Sidecar) -> Path:
    """Write the audit into a store of the same tutor, whole or not at all; raises as `refuse_another_tutor`.

    What an earlier audit of this labelling found about another task stays.
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
    """The audit that lies in a store's folder; None without one. Raises InputError: it is damaged, of another format,
    or the store was labelled anew since.
    """
    path = store.path / SIDECAR
    if not path.exists():
        return None
    again = "`tutored audit` writes a new one; or delete it"
    try:
        sidecar = Sidecar.model_validate(json.loads(regular(path).read_bytes()))
    except (OSError, ValueError, RecursionError) as error:
        why = str(error)
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            why = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise InputError(f"{path}: no audit that this version of tutored reads ({why}); {again}") from error
    if sidecar.store != fingerprint(store):
        raise InputError(f"{path}: the store was labelled anew since this audit; {again}")
    return sidecar
