"""Files of the repository in the site, and the report's figures in its pages.

Pages and files that lie outside docs/ are part of the site under their own path, so that one link works in the site
and on a code host alike. `<!-- report: HEADING -->` stands for the tables and comparisons of that section of
results/study/report.md, `<!-- report: HEADING; RECIPE -->` for one recipe's table alone: no figure is copied by hand.
"""

from __future__ import annotations

import re
from pathlib import Path
from posixpath import dirname, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results" / "study" / "report.md"
PAGES = (
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "results/study/README.md",
    "results/study/report.md",
    "results/animals/README.md",
    "results/export/README.md",
    "results/faults/README.md",
    "results/audit/README.md",
    "results/benchmarks/README.md",
)
LINK = re.compile(r"(?<=\]\()([^)#:\s]+)(?=[)#])")
REPORT = re.compile(r"<!-- report: ([^;]+?)(?:; (\w+))? -->")


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add `PAGES`, and every file of the repository that a page links to."""
    for page in PAGES:
        files.append(_outside(page, config))
    for page in files.documentation_pages():
        for link in LINK.findall(page.content_string):
            target = _target(page, link)
            if target and not target.startswith("docs/") and target not in files.src_uris:
                files.append(_outside(target, config))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put in what the report says; point links at the place of their target in the site."""
    here = dirname(page.file.src_uri) or "."

    def place(link: re.Match[str]) -> str:
        target = _target(page.file, link[1])
        return relpath(target.removeprefix("docs/"), here) if target else link[1]

    markdown = LINK.sub(place, REPORT.sub(lambda found: section(found[1], found[2]), markdown))
    # Markdown inside an element is rendered only where the element says so.
    return markdown.replace("<details>", "<details markdown>")


def section(heading: str, recipe: str | None = None) -> str:
    """Of the report's section whose heading begins so: tables and comparisons, or the table of one recipe."""
    found = re.search(rf"^## {re.escape(heading)}[^\n]*\n(.*?)(?=^## |^!\[|\Z)", RESULTS.read_text(), re.M | re.S)
    if found and recipe is not None:
        found = re.search(rf"^Recipe \*\*{recipe}\*\*:\n+((?:\|.*\n)+)", found[1], re.M)
    if not found:
        raise ValueError(f"{RESULTS.name} has no section that begins with {heading!r}, or no recipe {recipe} in it")
    return found[1].strip()


def _outside(path: str, config: MkDocsConfig) -> File:
    return File(path, str(ROOT), config.site_dir, config.use_directory_urls)


def _target(page: File, link: str) -> str | None:
    """Path from the root of the repository of the file that a page's link means; None: it means none."""
    if page.abs_src_path is None:
        return None
    path = (Path(page.abs_src_path).parent / link).resolve()
    path = path / "README.md" if path.is_dir() else path
    return path.relative_to(ROOT).as_posix() if path.is_file() and path.is_relative_to(ROOT) else None
