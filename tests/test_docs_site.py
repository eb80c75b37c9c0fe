"""The documentation site: it builds strictly, has every command and key, and loads nothing from elsewhere."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import click
import pytest

from tutored.cli import commands
from tutored.config import flat, make_config
from tutored.config.entries import STUDENTS, TASKS

ROOT = Path(__file__).parents[1]
FOREIGN = re.compile(r"^(https?:)?//")


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    pytest.importorskip("mkdocs", reason="the site is built by MkDocs; install tutored[docs]")
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out


def leaves(command, context):
    if not isinstance(command, click.Group):
        yield context.command_path, command
        return
    for name in command.list_commands(context):
        below = command.get_command(context, name)
        assert below is not None
        yield from leaves(below, click.Context(below, info_name=name, parent=context))


def test_the_reference_has_every_command_and_option(site):
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
def test_the_reference_has_every_key(site, kind, student):
    text = (site / "reference/config/index.html").read_text()
    given = {"data": {"train": "voc:FOLDER"}, "tasks": {kind: {}}, "student": {"kind": student}}
    complete = make_config(given).to_dict()
    assert [key for key in flat(complete) if f'id="{key}"' not in text] == []


class Loaded(HTMLParser):
    """What a page makes a browser fetch by itself."""

    def __init__(self, page):
        super().__init__()
        self.urls = []
        self.feed(page.read_text())

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if (name in ("src", "srcset", "poster", "data") and value) or (name == "href" and tag == "link"):
                self.urls.append(value or "")


def test_nothing_is_loaded_from_another_host(site):
    pages = list(site.rglob("*.html"))
    urls = [url for page in pages for url in Loaded(page).urls]
    assert len(pages) > 15 and any(url.endswith(".css") for url in urls)
    assert [url for url in urls if FOREIGN.match(url)] == []
    styles = [found for sheet in site.rglob("*.css") for found in re.findall(r"url\(([^)]*)\)", sheet.read_text())]
    assert [url for url in styles if FOREIGN.match(url.strip("\"'"))] == []
    # Material's script fetches mermaid from a CDN where a page has such a diagram.
    assert [page for page in pages if 'class="mermaid"' in page.read_text()] == []


def drawings():
    spec = spec_from_file_location("make_pictures", ROOT / "docs" / "make_pictures.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_picture_of_sources_is_what_the_code_decides():
    assert (ROOT / "docs/pictures/sources.svg").read_text() == drawings().sources()
