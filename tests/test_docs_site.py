"""The documentation site: it builds strictly, has every command and key, and loads nothing from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib.util import module_from_spec, spec_from_file_location
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest
import yaml
from PIL import Image

from tutored.cli import commands, main
from tutored.config import flat, make_config
from tutored.config.entries import STUDENTS, TASKS

ROOT = Path(__file__).parents[1]
FOREIGN = re.compile(r"^(https?:)?//")


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs", reason="the site is built by MkDocs; install tutored[docs]")
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out


def leaves(command: click.Command, context: click.Context) -> Iterator[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        yield context.command_path, command
        return
    for name in command.list_commands(context):
        below = command.get_command(context, name)
        assert below is not None
        yield from leaves(below, click.Context(below, info_name=name, parent=context))


def test_the_reference_has_every_command_and_option(site: Path) -> None:
    text = (site / "reference/commands/index.html").read_text()
    parts = {found[1]: found[2] for found in re.finditer(r"<h2 id=[^>]*>(.*?)<a.*?</h2>(.*?)(?=<h2|\Z)", text, re.S)}
    known = dict(leaves(commands, click.Context(commands, info_name="tutored")))
    assert list(parts) == list(known) and {"tutored label onnx", "tutored train"} <= known.keys()
    for name, command in known.items():
        for option in (option for param in command.params if isinstance(param, click.Option) for option in param.opts):
            assert option in parts[name], f"{name} {option}"


@pytest.mark.parametrize(
    ("kind", "student"), [*((kind, "blitznet") for kind in TASKS), *(("detection", s) for s in STUDENTS)]
)
def test_the_reference_has_every_key(site: Path, kind: str, student: str) -> None:
    text = (site / "reference/config/index.html").read_text()
    given = {"data": {"train": "voc:FOLDER"}, "tasks": {kind: {}}, "student": {"kind": student}}
    complete = make_config(given).to_dict()
    assert [key for key in flat(complete) if f'id="{key}"' not in text] == []


def test_a_key_has_its_type_defaults_and_meaning(site: Path) -> None:
    text = (site / "reference/config/index.html").read_text()
    assert 'id="data.more[].annotated"' in text and 'id="tasks.TASK.policy"' in text
    row = re.search(r'id="tasks.detection.box_floor".*?</tr>', text, re.S)
    assert row is not None
    cells = [re.sub("<[^>]*>", "", cell) for cell in re.findall(r"<td>(.*?)</td>", "<td>" + row[0])]
    assert cells[1:] == ["number from 0 to 1", "0.5", "0.001", "Tutor boxes from this score on are positives."]


def test_the_examples_are_shown_whole(site: Path) -> None:
    shown = re.sub("<[^>]*>", "", (site / "extend/index.html").read_text())
    for path in (ROOT / "examples").glob("*.py"):
        assert re.findall(r"^(?:class|def) (\w+)", path.read_text(), re.M)[-1] in shown, path.name


class Loaded(HTMLParser):
    """What a page makes a browser fetch by itself."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.urls: list[str] = []
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if (name in ("src", "srcset", "poster", "data") and value) or (name == "href" and tag == "link"):
                self.urls.append(value or "")


def test_nothing_is_loaded_from_another_host(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    urls = [url for page in pages for url in Loaded(page).urls]
    assert len(pages) > 15 and any(url.endswith(".css") for url in urls)
    assert [url for url in urls if FOREIGN.match(url)] == []
    styles = [found for sheet in site.rglob("*.css") for found in re.findall(r"url\(([^)]*)\)", sheet.read_text())]
    assert [url for url in styles if FOREIGN.match(url.strip("\"'"))] == []
    # Material's script fetches mermaid from a CDN where a page has such a diagram.
    assert [page for page in pages if 'class="mermaid"' in page.read_text()] == []


def drawings() -> ModuleType:
    spec = spec_from_file_location("make_pictures", ROOT / "docs" / "make_pictures.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_picture_of_sources_is_what_the_code_decides() -> None:
    assert (ROOT / "docs/pictures/sources.svg").read_text() == drawings().sources()


def test_the_map_target_is_what_the_science_page_says() -> None:
    target = drawings().target
    # e^2.5 / (e^2.5 + 20), of 21 channels: the specification's .379.
    assert target(1.0, target="softmax", temperature=0.4) == pytest.approx(0.3785, abs=5e-4)
    assert target(1.0, target="power", temperature=0.4) == pytest.approx(1)


def test_pictures_of_our_pages(browser: Any, tmp_path: Path) -> None:
    """Takes the documentation's pictures of a run's page and of a study's report."""
    folder = os.environ.get("TUTORED_PICTURES")
    if not folder:
        pytest.skip("set TUTORED_PICTURES to a folder to take the documentation's pictures of our pages")
    from tutored.scenes import make_scenes

    assert main(["study", "report", str(ROOT / "results" / "study"), "--out", str(tmp_path)]) == 0
    take(
        browser, (tmp_path / "report.html").as_uri() + "#thesis-table-12", Path(folder, "study-report.png"), height=1000
    )
    scenes = make_scenes(tmp_path / "scenes", "student", {"train": 300, "val": 30}, seed=4, size=(320, 240))
    config = {
        "data": {"train": f"voc:{scenes}"},
        "tasks": {"detection": {}, "segmentation": {"hidden": 0.5}},
        "student": {"size": 128},
        "augment": {"colour": False, "crop": False, "zoom_out": "never"},
        "train": {"epochs": 16, "batch": 8, "backbone_lr": 0.1, "val_every": 4, "threads": 1, "workers": 0},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    assert main(["train", str(tmp_path / "run.yaml"), "--out", str(tmp_path / "first")]) == 0
    take(browser, (tmp_path / "first" / "report.html").as_uri(), Path(folder, "run-page.png"), height=1100)


def take(browser: Any, url: str, path: Path, height: int) -> None:
    context = browser.new_context(viewport={"width": 1000, "height": height}, color_scheme="light")
    page = context.new_page()
    page.goto(url)
    Image.open(BytesIO(page.screenshot())).quantize(256).save(path, optimize=True)
    context.close()
