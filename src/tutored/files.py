"""Files and folders that appear whole or not at all, and the folders that commands write, each told by a file in it."""

import errno
import hashlib
import io
import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from safetensors import SafetensorError

from tutored.errors import InputError

LEFTOVERS = ".*.new"
"""What is written to before it takes its place; where a process is killed, it stays."""


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path` to write to; it takes the place of `path` only if nothing was raised. Raises
    InputError: a folder, a pipe or a device is there. Raises OSError: it can't be written; the message names `path`,
    the reason and what to do.
    """
    with _naming(path):
        _refuse_other(path, path.is_file())
        place = Path(os.path.abspath(path))  # `.` has no name
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary = place.with_name(f".{place.name}.{uuid4().hex[:12]}.new")
        try:
            yield temporary
            os.replace(temporary, place)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """The same for a folder; the former one stays, as `.NAME.old`, until the new one has taken its place.

    Where `path` is a link, that alone is replaced, and nothing is touched where it leads to. Raises InputError: it is
    the folder that the process is in, which can't be replaced, or there is no folder. Raises OSError: as `whole_file`.
    """
    if path.exists() and path.samefile(Path.cwd()):
        raise InputError(f"{path}: is the folder that you are in; give one of its own, such as {path / 'new'}")
    with _naming(path):
        _refuse_other(path, path.is_dir())
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary, old = path.with_name(f".{path.name}.new"), former(path)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            yield temporary
            if path.exists():
                _remove(old)
                os.replace(path, old)
            os.replace(temporary, path)
            _remove(old)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _refuse_other(path: Path, same: bool) -> None:
    if path.exists() and not same:
        raise InputError(f"{path}: something else is there, and would be replaced; give another name")


def former(path: Path) -> Path:
    """Where `whole_folder` keeps what was at `path` while it is replaced; what to read if `path` is missing."""
    return path.with_name(f".{path.name}.old")


def _remove(folder: Path) -> None:
    """Remove a folder, or of a link to one the link, if it is there and may be."""
    if folder.is_symlink():
        folder.unlink()
    else:
        shutil.rmtree(folder, ignore_errors=True)


def regular(path: Path) -> Path:
    """The path of a regular file, links followed, for whatever reads it: a pipe may never speak, a device never end.

    Every file that a user names or a folder holds is opened through this. Raises OSError: it is missing, or something
    else.
    """
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        kind = "pipe" if stat.S_ISFIFO(mode) else "socket" if stat.S_ISSOCK(mode) else "device"
        raise OSError(errno.EINVAL, f"a {kind}, no regular file", str(path))
    return path


def is_special(path: Path) -> bool:
    """Whether it is neither a file nor a folder, or a link that leads nowhere; who searches a folder leaves it out."""
    return os.path.lexists(path) and not path.is_file() and not path.is_dir()


def seal(facts: Mapping[str, Any], file: Path) -> str:
    """SHA-256 of JSON-ready facts and a file: kept with both, it tells damage to either. Raises OSError."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    with regular(file).open("rb") as opened:
        digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()


def write_encoded(path: Path, write: Callable[[io.BytesIO], object]) -> None:
    """What a library writes, in memory first: on a full disk, Pillow and NumPy may leave out the end without a word."""
    encoded = io.BytesIO()
    write(encoded)
    with whole_file(path) as temporary:
        temporary.write_bytes(encoded.getbuffer())


def write_text(path: Path, text: str) -> None:
    """Write a text as UTF-8, whatever the locale."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    write_text(path, json.dumps(content, indent=1) + "\n")


def read_json(path: Path, remedy: str = "fetch or write it again", told: str = "not readable as JSON") -> Any:
    """What a JSON file holds. Raises InputError: naming the file, what is `told` of it, and the remedy."""
    try:
        return json.loads(regular(path).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: {told} ({error}); {remedy}") from error


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with regular(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Errors of the disk under the name that the user knows; those of libraries have another, or none at all."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        number = error.errno if isinstance(error, OSError) else None
        named = type(OSError(number, ""))(
            f"{path}: can't be written ({os.strerror(number) if number else error}); make room, or see to the folder's "
            "rights, and run the same command again (train and label: with --resume)"
        )
        named.errno = number
        raise named from error


class Kind(NamedTuple):
    """What such a folder is called, the file that tells it, and the command that writes it."""

    what: str
    file: str
    command: str


CHECKPOINT = Kind("checkpoint", "checkpoint.json", "`tutored train`")
RUN = Kind("run", "config.yaml", "`tutored train`")
FINISHED = Kind("finished run", "result.json", "`tutored train`")
STORE = Kind("store of soft labels", "manifest.json", "`tutored label`")
STORES = "stores"
"""In a run's folder: the stores of tutors that the config names without saying where their answers go."""
STUDY = Kind("study folder", "study.yaml", "`tutored study run`")
FORMATS = ("voc", "coco", "yolo", "cvat", "labelme", "labelstudio", "images")
"""Of the folders of data sets, which are named as FORMAT:FOLDER."""


def require(path: Path, *kinds: Kind) -> None:
    """Raise InputError where a folder is of none of these kinds."""
    if any((path / kind.file).exists() for kind in kinds):
        return
    inside = path / "checkpoint"
    if CHECKPOINT in kinds and (inside / CHECKPOINT.file).exists():
        raise InputError(f"{path} is a run, and its checkpoint lies in it; give {inside}")
    what, files, commands = map(" or ".join, zip(*kinds, strict=True))
    raise InputError(f"{path}: no {what} (it has no {files}); {commands} writes one")
