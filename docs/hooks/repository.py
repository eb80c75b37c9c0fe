"""Files of the repository in the site, and the report's figures in its pages.

Pages and files that lie outside docs/ are part of the site under their own path, so that one link works in the site and
on a code host alike. `<!-- report: HEADING -->` stands for the tables and comparisons of that section of
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
PAGES = ("CONTRIBUTING.md", "CHANGELOG.md")
EVIDENCE = sorted(
    (path.relative_to(ROOT).as_posix() for name in ("README", "report") for path in ROOT.glob(f"results/**/{name}.md")),
    key=lambda path: (path.count("/"), path),
)
"""Pages of results, in the order of the navigation."""
FOLDER = re.compile(r"\[([^\]]+)\]\(([^)#:\s]+)\)")
LINK = re.compile(r"(?<=\]\()([^)#:\s]+)(?=[)#])")
REPORT = re.compile(r"<!-- report: ([^;]+?)(?:; (\w+))? -->")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the pages of results to the navigation's part `Science`."""
    assert config.nav is not None
    next(part["Science"] for part in config.nav if "Science" in part).extend(EVIDENCE)
    return config


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add these pages, and every file of the repository that a page links to."""
    for page in (*PAGES, *EVIDENCE):
        files.append(_outside(page, config))
    for page in files.documentation_pages():
        for link in LINK.findall(page.content_string):
            target = _target(page, link)
            if target and not target.startswith("docs/") and target not in files.src_uris:
                files.append(_outside(target, config))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put in what the report says; point links at the place of their target in the site, where folders are none."""
    here = dirname(page.file.src_uri) or "."

    def place(link: re.Match[str]) -> str:
        target = _target(page.file, link[1])
        return relpath(target.removeprefix("docs/"), here) if target else link[1]

    def plain(link: re.Match[str]) -> str:
        path = Path(page.file.abs_src_path or "").parent / link[2]
        return link[1] if path.is_dir() and not (path / "README.md").exists() else link[0]

    markdown = REPORT.sub(lambda found: section(found[1], found[2]), markdown)
    markdown = LINK.sub(place, FOLDER.sub(plain, markdown))
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
