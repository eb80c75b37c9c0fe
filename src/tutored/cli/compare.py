"""The command `tutored compare`."""

from __future__ import annotations

import argparse

from tutored.cli.output import say, write_json


def compare(given: argparse.Namespace) -> None:
    from tutored.engine.compare import compare_runs

    found = compare_runs(given.runs, given.against)
    several = len(found.seeds) > 1
    for name, interval in found.intervals.items():
        claim = f"{'is' if several else 'seems'} {interval.verdict}" if interval.verdict else "not resolved"
        say(f"{name}: {interval.b:.3f} against {interval.a:.3f}, {interval} {claim}")
    if several:
        say(f"95 % intervals over images and seeds {', '.join(map(str, found.seeds))}")
    else:
        say("95 % intervals over images alone: with one seed, a difference may be the seed's; train three of each")
    for difference in found.differences:
        say(f"differs: {difference}")
    intervals = {name: interval._asdict() for name, interval in found.intervals.items()}
    write_json(given.json, {"seeds": found.seeds, "intervals": intervals, "differences": found.differences})
