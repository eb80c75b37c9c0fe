"""What a class, a file or a split may be called, and what of it reaches lists, configs, drawings and the terminal."""

import io
import os
import subprocess
import sys
import unicodedata
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from made import coco_file, pictures, refused, write
from tutored.cli import main
from tutored.cli.common import say
from tutored.cli.progress import Lasting
from tutored.config import load_config
from tutored.data import open_dataset
from tutored.data.check import check
from tutored.data.text import read_classes
from tutored.errors import InputError, is_one_line
from tutored.evaluate import Result, table
from tutored.labels import ClassMap, LabelSpace
from tutored.pictures import has_letters, read_picture, shown_name
from tutored.tasks.task import Figures

ESCAPE, REVERSED, NFD = "\x1b[31m", "\u202etxt.exe", unicodedata.normalize("NFD", "Blüte")
AS_YAML = ["no", "yes", "on", "off", "y", "n", "0", "2", "007", "0x10", "1_000", "1e3", "12:30", "2012-01-01"]
ODD = ["lamp [red]", "[/off]", "[bold]", ":smile:", "a b", "a.b", "*", "猫", "собака", NFD, "%s", "{x}", "<b>", "\\x1b"]
STEERING = [ESCAPE, REVERSED, "a\x9bm", "\x7f", "\ud800", "bell\a", "a\u2028b", "a\x85b", "a\rb", "a\x0cb"]
names = st.sampled_from([*AS_YAML, *ODD, *STEERING]) | st.text(min_size=1, max_size=8)


def is_plain(text):
    """Whether a terminal would show the text as it stands, line by line."""
    return all(unicodedata.category(letter) not in ("Cc", "Cs", "Zl", "Zp") or letter in "\n\t" for letter in text)


# --- Lists of classes


@pytest.mark.tried(
    "read as meant", "lists of classes with a background, what is ignored, a class twice, control characters"
)
@pytest.mark.parametrize(
    "head",
    [
        [],
        ["background"],
        ["_background_"],
        ["__BACKGROUND__"],
        ["Unlabeled"],
        ["__ignore__", "_background_"],
        ["\ufeff__Ignore__", "", "Background"],
    ],
)
def test_the_head_of_a_list_may_say_what_0_is(tmp_path, head):
    (tmp_path / "labels.txt").write_text("\n".join([*head, "leaf", "root", ""]), encoding="utf-8")
    assert read_classes(tmp_path / "labels.txt").names == ("background", "leaf", "root")


@pytest.mark.tried(
    "refused by name", "lists of classes with a background, what is ignored, a class twice, control characters"
)
@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (["leaf", "background", "root"], r"line 2 \('background'\): no class has"),
        (["__ignore__", "leaf"], r"line 1 \('__ignore__'\)"),
        (["background", "__ignore__", "leaf"], r"line 1 \('background'\), line 2 \('__ignore__'\)"),
        (["void", "background", "leaf"], r"line 1 \('void'\), line 2"),
        (["leaf\x1b[31m"], r"labels\.txt: a class is called 'leaf\\x1b\[31m': a name has no control characters"),
        (["a\x85b", "c"], r"a class is called 'a\\x85b'"),
        ([NFD, "Blüte"], "each class once; twice: Blüte"),
    ],
)
def test_numbers_that_nobody_can_know_are_refused(tmp_path, lines, told):
    (tmp_path / "labels.txt").write_text("\n".join(lines), encoding="utf-8")
    refused(told, read_classes, tmp_path / "labels.txt")


@pytest.mark.tried(
    "refused by name", "lists of classes with numbers, colours, comments, quotes, HTML, a stand-in of Git LFS"
)
@pytest.mark.parametrize(
    "lines",
    [
        ["0 background", "1 leaf", "2 root"],
        ["# label:color_rgb:parts:actions", "background:0,0,0::", "leaf:128,0,0::"],
        ["background:0,0,0::", "leaf:128,0,0::"],
        ["[leaf, root]"],
        ["[", '  "leaf",', '  "root"', "]"],
        ["<!DOCTYPE html>", "<html>", "</html>"],
        ["version https://git-lfs.github.com/spec/v1", "oid sha256:4d7a", "size 12"],
        ["", " "],
    ],
)
def test_lines_of_more_than_a_name_are_no_list_of_classes(tmp_path, lines):
    (tmp_path / "labels.txt").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(InputError, match=r"labels\.txt: .*; write one name a line and nothing else, the class of"):
        read_classes(tmp_path / "labels.txt")


@pytest.mark.tried(
    "read as meant", "lists of classes with numbers, colours, comments, quotes, HTML, a stand-in of Git LFS", inputs=4
)
def test_numbers_may_be_part_of_a_class(tmp_path):
    for names in (["1 cent", "2 cent", "5 cent"], ["1 euro", "2 euro"], ["[/off]", "lamp [red]"], ["7", "8", "9"]):
        (tmp_path / "labels.txt").write_text("\n".join(names), encoding="utf-8")
        assert list(read_classes(tmp_path / "labels.txt").classes) == names


# --- The config


@pytest.mark.tried("read as meant", "names that YAML 1.1 reads as booleans, numbers or dates, or is itself")
@pytest.mark.parametrize("name", AS_YAML)
def test_a_name_in_a_config_is_taken_as_written(tmp_path, name):
    task = f"{{detection: {{classes: [{name}], renamed: {{{name}: a}}}}}}"
    write(tmp_path / "run.yaml", f"data: {{train: 'voc:x', split: {name}}}\ntasks: {task}\n")
    config = load_config(tmp_path / "run.yaml", [("data.val_split", name)])
    task = config.tasks["detection"]
    assert (config.data.split, config.data.val_split, task.classes, task.renamed) == (name, name, (name,), {name: "a"})


@pytest.mark.tried("refused by name", "names that YAML 1.1 reads as booleans, numbers or dates, or is itself")
@pytest.mark.parametrize("name", ["true", "null", "1.10"])
def test_what_yaml_itself_is_must_be_quoted(tmp_path, name):
    (tmp_path / "run.yaml").write_text(f"data: {{train: 'voc:x'}}\ntasks: {{detection: {{classes: [{name}]}}}}\n")
    with pytest.raises(InputError, match=r"classes\.0: .* got (True|None|1.1), which YAML does not read as text; put"):
        load_config(tmp_path / "run.yaml")
    (tmp_path / "run.yaml").write_text(f"data: {{train: 'voc:x'}}\ntasks: {{detection: {{classes: ['{name}']}}}}\n")
    assert load_config(tmp_path / "run.yaml").tasks["detection"].classes == (name,)


# --- The terminal


@given(names)
@settings(max_examples=100, deadline=None)
def test_no_name_is_markup_or_steers_the_terminal(name):
    screen = io.StringIO()
    console = Lasting(file=screen, width=200)
    console.print(f"before {name} after", soft_wrap=True)
    shown = screen.getvalue()
    assert is_plain(shown) and REVERSED[0] not in shown
    assert not is_one_line(name) or shown == f"before {name} after\n"


def test_what_helps_where_names_are_not_read_as_utf_8(monkeypatch):
    for names, told in (("utf-8", "take it off the list$"), ("iso8859-1", "set PYTHONUTF8=1 .names are read as iso")):
        monkeypatch.setattr(sys, "getfilesystemencoding", lambda names=names: names)
        refused(f"für.jpg: there is no such picture.*{told}", read_picture, Path("für.jpg"))


def test_messages_hold_no_control_characters(capsys, tmp_path):
    say(f"{ESCAPE}one\ud800")
    assert main(["data", "check", "--data", f"voc:{tmp_path}", "--split", ESCAPE]) == 2
    told = capsys.readouterr()
    assert told.out == "\\x1b[31mone\\ud800\n" and "\x1b" not in told.err


def test_files_are_utf8_whatever_the_locale(tmp_path):
    program = "import sys, pathlib, tutored.files as f; f.write_text(pathlib.Path(sys.argv[1]), 'Bl\\xfcte \\u732b')"
    odd = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "x")], env={**os.environ, **odd}, check=True)
    assert (tmp_path / "x").read_bytes() == "Blüte 猫".encode()


# --- Files


@pytest.mark.tried("read as meant", "names of pictures in another Unicode form than lists and XMLs", inputs=6)
def test_pictures_and_what_belongs_to_them_may_differ_in_form(make_voc, tmp_path):
    """Files are named as macOS writes them (NFD), lists as editors do (NFC), and the other way round."""
    folder = make_voc(tmp_path / "voc", {"train": ("both",)})
    for files, listed in ((NFD, "Blüte"), ("Blüte", NFD)):
        for path in [*folder.glob("JPEGImages/*"), *folder.glob("Annotations/*"), *folder.glob("SegmentationClass/*")]:
            path.rename(path.with_stem(files))
        for path in folder.glob("ImageSets/*/train.txt"):
            path.write_text(f"{listed}\n", encoding="utf-8")
        (tmp_path / "all.txt").write_text(f"voc/JPEGImages/{listed}.jpg\n", encoding="utf-8")
        coco_file(folder / "train.json", images=[f"{listed}.jpg"], classes=())
        (folder / "train").unlink(missing_ok=True)
        (folder / "train").symlink_to("JPEGImages")
        dataset = open_dataset(f"voc:{folder}", "train")
        assert dataset.ids == ("Blüte",) and len(dataset.annotated_tasks("Blüte")) == 2 and not dataset.notes
        assert not check({"train": dataset}).splits["train"].problems
        assert open_dataset(f"coco:{folder}", "train").image("Blüte").size == dataset.image("Blüte").size
        listed_alone = open_dataset(f"images:{tmp_path}", "all")
        assert listed_alone.image(*listed_alone.ids).size == dataset.image("Blüte").size


# --- Drawings


def test_letters_of_many_scripts_are_drawn_others_as_numbers():
    assert all(map(has_letters, ("lamp [red]", "Blüte", "собака", "γάτα", "قطة", "חתול", "a b")))
    assert [shown_name(name, 7) for name in ("собака", "猫", "cat 猫")] == ["собака", "7", "7"]


def test_charts_name_every_class_as_it_stands(recwarn):
    from tutored.pages import in_legend, svg

    kept = ("猫", "_leaf", "a $x$ b^")
    drawn = svg("t", lambda panel: [panel.plot([0, 1], [0, 1], label=in_legend(name)) for name in kept])
    assert all(name in drawn for name in kept) and not recwarn.list


def test_lists_under_every_usual_name_are_read_alike(make_voc, tmp_path):
    folder = make_voc(tmp_path, {"train": ("masks",)})
    for name in ("class_names.txt", "classes.txt", "labels.txt"):
        (folder / name).write_text("_background_\nleaf\n")
        assert open_dataset(f"voc:{folder}", "train").labels["segmentation"].classes == ("leaf",)
    (folder / "classes.txt").write_text("root\n")
    refused(r"labels\.txt and .*classes\.txt .*list different classes", open_dataset, f"voc:{folder}", "train")


@given(st.lists(names, min_size=1, max_size=5))
@settings(max_examples=100, deadline=None)
def test_any_list_is_numbered_as_its_lines_or_refused(tmp_path_factory, found):
    path = tmp_path_factory.getbasetemp() / "labels.txt"
    text = "\n".join(found)
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        labels = read_classes(path)
    except InputError:
        return
    lines = [unicodedata.normalize("NFC", line.strip()) for line in text.replace("\r\n", "\n").split("\n")]
    lines = [line for each in lines for line in each.split("\r") if line.strip()]
    expected = [line for line in lines if line.strip("_").lower() not in ("background", "unlabeled", "unlabelled")]
    assert list(labels.classes) == [line.strip() for line in expected] and all(map(is_plain, labels.names))


def test_two_spellings_of_one_letter_are_one_class():
    space = LabelSpace.of([NFD, "cat"])
    assert space.classes[0] == "Blüte" and space.index(NFD) == space.index("Blüte") == 1
    assert ClassMap.by_name(space, LabelSpace.of(["Blüte"]), renamed={"cat": None, NFD: NFD}).to == (0, 1, None)


def test_numbers_of_a_config_stay_numbers(tmp_path):
    text = "data: {train: 'voc:x'}\ntrain: {epochs: 40, lr: 1e-3, weight_decay: 5.0e-4, clip: 0.50, compile: yes}\n"
    (tmp_path / "run.yaml").write_text(text)
    train = load_config(tmp_path / "run.yaml", [("train.seed", "7")]).train
    assert (train.epochs, train.lr, train.weight_decay, train.clip, train.compile) == (40, 0.001, 0.0005, 0.5, True)
    assert train.seed == 7


@given(st.lists(names.filter(is_plain), min_size=1, max_size=4, unique=True))
@settings(max_examples=60, deadline=None)
def test_a_written_config_reads_as_what_it_was(tmp_path_factory, found):
    path = tmp_path_factory.getbasetemp() / "names.yaml"
    task = {"classes": found, "renamed": dict.fromkeys(found, "a")}
    given = {"data": {"train": "voc:x"}, "tasks": {"detection": task}}
    path.write_text(yaml.safe_dump(given, allow_unicode=True), encoding="utf-8")
    task = load_config(path).tasks["detection"]
    assert task.classes == tuple(found) and list(task.renamed) == sorted(found)


def test_brackets_stay_on_any_console(make_voc, tmp_path):
    from rich.console import Console

    kept = ("lamp [red]", "lamp [/off]", ":cat:")
    folder = make_voc(tmp_path, {"train": ("boxes",)})
    (folder / "Annotations/train_000.xml").write_text("<annotation/>")
    (folder / "labels.txt").write_text("\n".join(kept))
    report = check({"train": open_dataset(f"voc:{folder}", "train", empty="annotated")})
    by_class = dict.fromkeys(kept, 0.5)
    figures = Figures(images=1, per_class={"AP": by_class}, means={"mAP": 0.5}, counts={}, classes=kept, notes=("[b]",))
    for console in (Console, Lasting):
        screen = console(file=io.StringIO(), width=120)
        report.show(screen)
        screen.print(table(Result(1, {"lamps [/x]": figures})))
        shown = screen.file.getvalue()
        assert all(shown.count(f"│ {name} ") == 1 for name in kept) and "lamps [/x]" in shown and "[b]" in shown
        assert f"detection, absent classes: {', '.join(kept)}" in shown


def test_a_terminal_without_the_letters_is_no_defect(monkeypatch, tmp_path):
    screen = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr(sys, "stdout", screen)
    pictures(tmp_path / "猫" / "a.png")
    assert main(["data", "check", "--data", f"images:{tmp_path}", "--split", "猫"]) == 0
    screen.flush()
    assert b"\\u732b" in screen.buffer.getvalue()


@given(st.lists(names, min_size=1, max_size=3))
@settings(max_examples=60, deadline=None)
def test_any_list_of_pictures_is_opened_or_refused(tmp_path_factory, found):
    folder = tmp_path_factory.getbasetemp() / "lists"
    coco_file(folder / "all.json", images=found, classes=found[:1])
    (folder / "all.txt").write_bytes("\n".join(found).encode("utf-8", "surrogatepass"))
    for kind in ("images", "coco"):
        try:
            dataset = open_dataset(f"{kind}:{folder}", "all")
        except InputError:
            continue
        assert all(map(is_plain, dataset.ids)) and "\n" not in "".join(dataset.ids)


def test_classes_without_letters_are_noted():
    from tutored.visualise import lacking_letters

    task = SimpleNamespace(labels=LabelSpace.of(["cat", "猫"]))
    (note,) = lacking_letters({"one": task, "two": task})
    assert note.endswith("numbers stand for them: 2 (猫)") and lacking_letters({}) == ()
