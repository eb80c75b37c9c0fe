"""The house: no module but tasks, students, studies and readers names a task, and files stay readable."""

import ast
from pathlib import Path

import pytest

from tutored.config.entries import TASKS
from tutored.tasks import task_class

SOURCE = Path(__file__).parents[1] / "src" / "tutored"
MAY_NAME_TASKS = ("tasks/", "students/", "studies/", "data/voc.py", "data/coco.py", "data/objects.py")
MAY_NAME_TASKS += (
    "config/entries.py",
    "config/tasks.py",
    "tutors/__init__.py",
    "tutors/files_coco.py",
    "tutors/stores.py",
)
"""A reader of files, and where "instances" names a kind of tutor."""
NAMES = {*TASKS, *(answer.kind for kind in TASKS for answer in task_class(kind).answers)}
FILES = sorted(SOURCE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_a_module_keeps_the_rules(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 520
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            assert not body or body[-1].end_lineno - body[0].lineno < 60, f"{node.name} is longer than 60 lines"
    if not path.relative_to(SOURCE).as_posix().startswith(MAY_NAME_TASKS):
        named = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and node.value in NAMES]
        assert not named, f"names tasks: {named}; go through Task objects or the kind of an answer"
