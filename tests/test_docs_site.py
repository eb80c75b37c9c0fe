"""The documentation site: it builds strictly, says every command and key, loads nothing foreign, fits on a phone."""

from __future__ import annotations

import argparse
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

import pytest
import yaml
from PIL import Image

from tutored.cli import main
from tutored.cli.options import make_parser
from tutored.config import make_config

ROOT = Path(__file__).parents[1]
SAMPLES = ("index.html", "concepts/index.html", "science/index.html", "reference/config/index.html")
FOREIGN = re.compile(r"^(https?:)?//")


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs", reason="the site is built by MkDocs; install tutored[docs]")
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out


def commands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not below:
        yield parser
    for group in below:
        for each in group.choices.values():
            yield from commands(each)


def keys(section: dict[str, Any], place: str = "") -> Iterator[str]:
    for name, value in section.items():
        key = f"{place}{name}"
        # `renamed` is a mapping that users fill, not a section.
        yield from keys(value, f"{key}.") if isinstance(value, dict) and value else [key]


def test_every_command_stands_in_the_reference_with_its_options(site: Path) -> None:
    text = (site / "reference/commands/index.html").read_text()
    parts = {found[1]: found[2] for found in re.finditer(r"<h2 id=[^>]*>(.*?)<a.*?</h2>(.*?)(?=<h2|\Z)", text, re.S)}
    known = list(commands(make_parser()))
    assert list(parts) == [command.prog for command in known]
    assert "tutored label onnx" in parts and "tutored train" in parts
    for command in known:
        for option in command._option_string_actions.keys() - {"-h", "--help"}:
            assert option in parts[command.prog], f"{command.prog} {option}"


def test_every_key_stands_in_the_reference_with_both_defaults(site: Path) -> None:
    text = (site / "reference/config/index.html").read_text()
    complete = make_config({"data": {"train": "voc:FOLDER"}}).to_dict()
    assert [key for key in keys(complete) if f'id="{key}"' not in text] == []
    assert 'id="data.more[].annotated"' in text
    row = re.search(r'id="loss.box_floor".*?</tr>', text, re.S)
    assert row is not None
    cells = re.findall(r"<td>(.*?)</td>", "<td>" + row[0])
    assert [re.sub("<[^>]*>", "", cell) for cell in cells[1:]] == [
        "number from 0 to 1",
        "0.5",
        "0.001",
        "Tutor boxes from this score on are positives.",
    ]


def test_figures_are_those_of_the_report(site: Path) -> None:
    report = (ROOT / "results" / "study" / "report.md").read_text()
    ours = report.partition("## Without any ground truth")[2].partition("Recipe **corrected**")[2]
    filled = re.search(r"^\| a fifth, tutors fill the rest \| (0\.\d+)", ours, re.M)
    replaced = re.search(r"^\| segmentation tutor \| 0\.624 \| (0\.\d+)", report, re.M)
    assert filled is not None and replaced is not None
    assert f"<td>{filled[1]}" in (site / "index.html").read_text()
    assert f"<td>{replaced[1]}" in (site / "science/index.html").read_text()


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


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_a_phone_and_follow_the_scheme(site: Path, browser: Any, scheme: str) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme=scheme)
    asked: list[str] = []
    context.on("request", lambda request: asked.append(request.url))
    page = context.new_page()
    for name in SAMPLES:
        page.goto((site / name).as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, name
        broken = "[...document.images].filter(image => !image.naturalWidth).map(image => image.src)"
        assert page.evaluate(broken) == [], name
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        brightness = sum(int(value) for value in re.findall(r"\d+", colour)[:3]) / 3
        assert brightness > 200 if scheme == "light" else brightness < 60, (name, colour)
    assert asked and all(url.startswith(("file:", "data:")) for url in asked)
    context.close()


def test_the_picture_of_sources_is_what_the_code_decides() -> None:
    assert (ROOT / "docs/pictures/sources.svg").read_text() == drawings().sources()


def test_the_map_target_is_what_the_science_page_says() -> None:
    from tutored.config import Loss

    target = drawings().target
    softmax = {"map_target": "softmax"}
    # e^2.5 / (e^2.5 + 20), of 21 channels: the specification's .379.
    assert target(1.0, Loss(**softmax, temperature=0.4)) == pytest.approx(0.3785, abs=5e-4)
    assert target(1.0, Loss(map_target="power", temperature=0.4)) == pytest.approx(1)


def drawings() -> ModuleType:
    spec = spec_from_file_location("make_pictures", ROOT / "docs" / "make_pictures.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pictures() -> Path:
    folder = os.environ.get("TUTORED_PICTURES")
    if not folder:
        pytest.skip("set TUTORED_PICTURES to a folder to take the documentation's pictures of our pages")
    return Path(folder)


def test_picture_of_a_study_report(pictures: Path, browser: Any) -> None:
    page = (ROOT / "results/study/report.html").as_uri()
    take(browser, page + "#thesis-table-12", pictures / "study-report.png", height=1000)


def test_picture_of_a_run_page(pictures: Path, browser: Any, tmp_path: Path) -> None:
    from tutored.quickstart import STUDENT
    from tutored.scenes import make_scenes

    scenes = make_scenes(tmp_path / "scenes", "student", {"train": 300, "val": 30}, seed=4, size=(320, 240))
    config = {
        "data": {"train": f"voc:{scenes}"},
        "supervision": {"segmentation": {"hidden": 0.5}},
        "student": STUDENT,
        "augment": {"colour": False, "crop": False, "zoom_out": "never"},
        "train": {"epochs": 16, "batch": 8, "lr": 3e-3, "backbone_lr": 1, "val_every": 4, "threads": 1, "workers": 0},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    assert main(["train", str(tmp_path / "run.yaml"), "--out", str(tmp_path / "first")]) == 0
    take(browser, (tmp_path / "first" / "report.html").as_uri(), pictures / "run-page.png", height=1100)


def take(browser: Any, url: str, path: Path, height: int) -> None:
    context = browser.new_context(viewport={"width": 1000, "height": height}, color_scheme="light")
    page = context.new_page()
    page.goto(url)
    Image.open(BytesIO(page.screenshot())).quantize(256).save(path, optimize=True)
    context.close()
