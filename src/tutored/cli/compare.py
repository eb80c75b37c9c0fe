"""The command `tutored compare`."""

from __future__ import annotations

import argparse

from tutored.cli.output import say, write_json
from tutored.errors import InputError


def compare(given: argparse.Namespace) -> None:
    from tutored.engine.compare import compare_runs
    from tutored.evaluate import ENOUGH_SEEDS

    found = compare_runs(given.runs, given.against)
    if not found.intervals:
        raise InputError(
            f"{', '.join(map(str, [*given.runs, *given.against]))}: no figure that all of them have; mAP is there "
            "where boxes were taught and validated, mIoU where masks were; compare runs that share one"
        )
    seeds, sure = ", ".join(map(str, found.seeds)), len(found.seeds) >= ENOUGH_SEEDS
    for name, interval in found.intervals.items():
        claim = f"{'is' if sure else 'seems'} {interval.verdict}" if interval.verdict else "not resolved"
        say(f"{name}: {interval.b:.3f} against {interval.a:.3f}, {interval} {claim}")
    if sure:
        say(f"95 % intervals over images and seeds {seeds}")
    elif len(found.seeds) > 1:
        say(f"95 % intervals over images and seeds {seeds}: two say little of seeds' spread; train three of each")
    else:
        say("95 % intervals over images alone: with one seed, a difference may be the seed's; train three of each")
    for difference in found.differences:
        say(f"differs: {difference}")
    intervals = {name: interval._asdict() for name, interval in found.intervals.items()}
    write_json(given.json, {"seeds": found.seeds, "intervals": intervals, "differences": found.differences})
