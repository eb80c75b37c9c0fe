"""Making a store: parts appear whole or not at all, several processes share one folder, resuming changes nothing."""

import json
from collections.abc import Container, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tutored import softlabels
from tutored.errors import InputError
from tutored.files import LEFTOVERS, regular, sha256, whole_file, write_text
from tutored.softlabels import FORMAT, MANIFEST, VERSION, damaged, read_manifest
from tutored.tasks.columns import column
from tutored.tasks.task import SoftAnswer
from tutored.types import SoftLabels

PART_ROWS = 64
FAILED, ANSWERS = "failed", "answers"
"""Keys of a part's own metadata."""
PARTS = "part-*.parquet"
LEFT_SECONDS = 60
"""No process writes one file for so long."""


def look(folder: Path, identity: Mapping[str, Any], *, join: bool) -> bool:
    """Whether the store with this identity is finished in a folder; where not, the folder may be claimed for it. Raises
    InputError: something else is in the folder, or another identity (the fields are named).

    Args:
        identity: JSON-ready; with `labels` (names, background first) and `images` (their number).
        join: a store of the same identity may be there. One that has no part yet may be of any.
    """
    manifest = _own_manifest(folder, identity, join)
    if manifest is None:
        return False
    parts = [folder / part["file"] for part in manifest["parts"] or ()]
    finished = bool(manifest["complete"] and all(map(Path.exists, parts)) and not any(folder.glob(softlabels.SEALS)))
    if finished:
        _sweep(folder, ())
    return finished


def claim(folder: Path, identity: Mapping[str, Any], *, join: bool) -> None:
    """Take a folder for the store with this identity, as `look` allows it."""
    if join and _is_own(read_manifest(folder), identity):
        return  # without listing the folder, which may hold very many parts
    if _own_manifest(folder, identity, join) is None:
        _write_manifest(folder, identity, None)
        manifest = read_manifest(folder)
        assert manifest is not None
        _refuse_another(folder, manifest, identity)  # of two that begin at once, who wrote last has it


def _own_manifest(folder: Path, identity: Mapping[str, Any], join: bool) -> dict[str, Any] | None:
    """That of the store with this identity; None where the folder is free for it. Raises InputError as `look`."""
    folder.mkdir(parents=True, exist_ok=True)
    # Listed first: what another process puts there meanwhile comes after its manifest, and is no stranger.
    strangers = sorted(path.name for path in folder.iterdir() if not path.match(LEFTOVERS))
    manifest = read_manifest(folder)
    if manifest is None:
        if strangers:
            raise InputError(f"{folder}: not empty ({strangers[0]}) and no store; choose another folder")
        return None
    if not manifest["complete"] and not any(folder.glob(PARTS)):
        return manifest if _is_own(manifest, identity) else None
    if not join:
        raise InputError(f"{folder}: a store is already there; go on with it by --resume, or choose another folder")
    _refuse_another(folder, manifest, identity)
    return manifest


def _is_own(manifest: Mapping[str, Any] | None, identity: Mapping[str, Any]) -> bool:
    return manifest is not None and manifest["identity"] == json.loads(json.dumps(identity))


def _refuse_another(folder: Path, manifest: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    stored = manifest["identity"]
    differing = softlabels.differences(stored, {**dict.fromkeys(stored), **identity})
    if differing:
        raise InputError(f"{folder}: this store has another identity: {differing}; choose another folder")


def part_name(index: int) -> str:
    return f"part-{index:05d}.parquet"


def write_part(
    folder: Path,
    identity: Mapping[str, Any],
    index: int,
    image_ids: Sequence[str],
    answers: Sequence[SoftLabels],
    failed: Mapping[str, str] | None = None,
) -> None:
    """Write the rows of one part of a store, whole or not at all, and its hash beside it.

    The folder is claimed when the part is ready, so that a try that fails before leaves it free. Raises InputError: an
    answer is impossible, as a user's own tutor may give one; as `look`; another store has begun here meanwhile.
    `failed` has this part's images without an answer, and why; it is kept in the file's own metadata.
    """
    found = {kind: type(each) for answer in answers for kind, each in answer.tasks.items()}
    types: list[type[SoftAnswer]] = [found[kind] for kind in sorted(found)]
    try:
        table = to_table(image_ids, answers, types)
        for each in types:
            each.decode(table, [answer.size for answer in answers], len(identity["labels"]), None)
    except ValueError as error:
        first = ", ".join(image_ids[:3])
        raise InputError(f"{folder}: a tutor's answer for one of {first}, ... is impossible: {error}") from error
    metadata = {ANSWERS: json.dumps([each.kind for each in types])}
    table = table.replace_schema_metadata(metadata | ({FAILED: json.dumps(failed)} if failed else {}))
    with whole_file(folder / part_name(index)) as path:
        pq.write_table(
            table,
            path,
            compression="zstd",
            compression_level=9,
            row_group_size=softlabels.BLOCK_ROWS,
            use_dictionary=False,
            write_statistics=False,
            write_page_checksum=True,
        )
        claim(folder, identity, join=True)
        write_text(_seal(folder, part_name(index)), sha256(path))


def to_table(image_ids: Sequence[str], answers: Sequence[SoftLabels], types: Sequence[type[SoftAnswer]]) -> pa.Table:
    """One row for each image, in this order."""
    columns: dict[str, list[Any]] = {
        "image_id": list(image_ids),
        "height": [answer.size[0] for answer in answers],
        "width": [answer.size[1] for answer in answers],
    }
    for each in types:
        given = [answer.tasks.get(each.kind) for answer in answers]
        rows = [{} if one is None else one.encode() for one in given]
        columns |= {field.name: [row.get(field.name) for row in rows] for field in each.fields}
    schema = pa.schema([*softlabels.BASE, *(field for each in types for field in each.fields)])
    return pa.table([column(columns[field.name], field.type) for field in schema], schema=schema)


def needs_answers(folder: Path, index: int) -> bool:
    """Whether a part is missing, lacks an image's answer, or is not what was written (of an unfinished store). Raises
    InputError: it is damaged (of a finished store).
    """
    name = part_name(index)
    return not (folder / name).exists() or not _is_sealed(folder, name) or bool(_facts(folder, name).get("failed"))


def _seal(folder: Path, name: str) -> Path:
    return (folder / f".{name}").with_suffix(".sha256")


def _is_sealed(folder: Path, name: str) -> bool:
    """Whether a part has the hash that was kept beside it; without one, as in finished stores, it has."""
    try:
        return regular(_seal(folder, name)).read_text(encoding="utf-8", errors="replace") == sha256(folder / name)
    except FileNotFoundError:
        return True


def _facts(folder: Path, name: str) -> dict[str, Any]:
    """What a part says of itself: rows, kinds of answer, and if there are any, images without an answer, and why."""
    with softlabels.damage_named(folder, name):
        metadata = pq.read_metadata(folder / name)
        own = metadata.metadata or {}
        facts = {"rows": metadata.num_rows, ANSWERS: json.loads(own[ANSWERS.encode()])}
        return facts | ({FAILED: json.loads(own[FAILED.encode()])} if FAILED.encode() in own else {})


def finish(folder: Path) -> bool:
    """Write the manifest's final form if every part is there. The last process to end does it; it is idempotent.

    Parts that are not new keep the hash they had, so that damage to them is not taken for the truth. Seals tell which
    are new, and places which came meanwhile, from another process. Raises InputError: a part is not what was written.
    Returns whether the store is finished.
    """
    places, new = _places(folder), set[str]()
    while True:
        seals = list(folder.glob(softlabels.SEALS))  # before the manifest: who sweeps one has written of its part
        manifest = read_manifest(folder)
        if manifest is None:
            return False
        names = [part_name(index) for index in range(-(-manifest["identity"]["images"] // PART_ROWS))]
        if not places.keys() >= set(names):
            return False
        _describe_all(folder, manifest, names, new | {seal.stem[1:] + ".parquet" for seal in seals})
        before, places = places, _places(folder)
        new = {name for name in names if places.get(name) != before[name]}
        if not new:
            _sweep(folder, seals)
            return True


def _places(folder: Path) -> dict[str, tuple[int, int]]:
    """Where parts lie on the disk, and since when; one that is replaced lies elsewhere."""
    found = ((part.name, part.stat()) for part in folder.glob(PARTS))
    return {name: (status.st_ino, status.st_mtime_ns) for name, status in found}


def _describe_all(folder: Path, manifest: Mapping[str, Any], names: Sequence[str], new: Container[str]) -> None:
    """Write index and manifest, with former facts of what is not new."""
    known = {part["file"]: part for part in manifest["parts"] or () if part["file"] not in new}
    ids = _known_ids(folder, manifest)
    parts = [known.get(name) or _describe(folder, name) for name in names]
    rows = [ids[part["file"]] if part["file"] in known and ids else softlabels.part_ids(folder, part) for part in parts]
    with whole_file(folder / softlabels.INDEX) as path:
        softlabels.write_ids(path, pa.concat_arrays(rows))
    _write_manifest(folder, manifest["identity"], parts, sha256(folder / softlabels.INDEX))


def _known_ids(folder: Path, manifest: Mapping[str, Any]) -> dict[str, pa.StringArray]:
    """By part, the ids that a former index has: a part that was damaged since can't tell its own."""
    ids = softlabels.indexed_ids(folder, manifest)
    if ids is None:
        return {}
    parts = manifest["parts"]
    starts = accumulate((part["rows"] for part in parts), initial=0)
    return {part["file"]: ids.slice(start, part["rows"]) for start, part in zip(starts, parts, strict=False)}


def _sweep(folder: Path, seals: Iterable[Path]) -> None:
    """Remove seals that the manifest has taken up, and what killed processes left.

    What is young of the latter may belong to a living one. One clock, the disk's, tells.
    """
    for seal in seals:
        seal.unlink(missing_ok=True)
    now = (folder / MANIFEST).stat().st_mtime
    for stray in folder.glob(LEFTOVERS):
        with suppress(FileNotFoundError):
            if now - stray.stat().st_mtime > LEFT_SECONDS:
                stray.unlink()


def _describe(folder: Path, name: str) -> dict[str, Any]:
    part = folder / name
    if not _is_sealed(folder, name):
        raise damaged(part, softlabels.ALTERED)
    return {"file": name, "bytes": part.stat().st_size, "sha256": sha256(part), **_facts(folder, name)}


def _write_manifest(
    folder: Path, identity: Mapping[str, Any], parts: list[dict[str, Any]] | None, index: str | None = None
) -> None:
    manifest = {"format": FORMAT, "version": VERSION, "complete": parts is not None, "identity": identity}
    if index:
        manifest["index"] = index
    write_text(folder / MANIFEST, json.dumps(manifest | {"parts": parts}, indent=1, sort_keys=True))
