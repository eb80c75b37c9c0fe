"""The command `tutored report`."""

from __future__ import annotations

import argparse

from tutored.cli.output import say


def report(given: argparse.Namespace) -> None:
    from tutored.runpage import write_page

    say(f"wrote {write_page(given.folder)}")
