"""Tables of benchmarks as text: for the terminal, and as the page of all that was measured."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

KNOWN = ("title", "unit", "reference", "note", "rows", "axis", "exponent", "points")


def drawn(table: Mapping[str, Any]) -> bool:
    """Whether a table has something to draw: ratios, or a curve."""
    return "points" in table or "ratio" in table["rows"][0]


def described(table: Mapping[str, Any]) -> list[str]:
    """Title, table and note in Markdown."""
    lines = [f"\n### {table['title'][:1].upper()}{table['title'][1:]}\n", *_table(list(_cells(table)))]
    if "exponent" in table:
        lines.append(f"\nGrows with the power {table['exponent']} of {table['axis']}.")
    more = [f"{name}: {_value(value)}" for name, value in table.items() if name not in KNOWN]
    if table.get("note"):
        more.insert(0, table["note"])
    return [*lines, *([f"\n{'. '.join(more)}."] if more else [])]


def page(folder: Path, names: Sequence[str]) -> str:
    """All results of a folder, with the command and the machine of each."""
    lines = [
        "# Benchmarks\n",
        "Ratios of things that were timed in turns in one process; seconds mean little on a shared machine. `x` is how",
        "many times as fast as the row that has 1: the median of the rounds, and the lowest and the highest.\n",
        "```\npython -m benchmarks            # all of it, or some by name\n```",
    ]
    for name in names:
        file = folder / f"{name}.json"
        if not file.exists():
            lines.append(f"\n## {name}\n\nNot measured here: `python -m benchmarks {name}`.")
            continue
        content = json.loads(file.read_text())
        lines.append(f"\n## {name}\n\n{_machine(content)}")
        for index, table in enumerate(content["tables"]):
            lines += described(table)
            if drawn(table):
                lines.append(f"\n![{table['title']}]({name}-{index}.svg)")
    return "\n".join(lines) + "\n"


def _cells(table: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    if "points" in table:
        for point in table["points"]:
            yield {table["axis"]: f"{point['size']:,}"} | {key: _value(point[key]) for key in point if key != "size"}
        return
    for row in table["rows"]:
        cells = {"": row["name"]}
        if "ratio" in row:
            ratio = row["ratio"]
            cells[table["unit"]] = _value(row["rate"])
            cells["x"] = f"{ratio['median']:.3g} [{ratio['low']:.3g}, {ratio['high']:.3g}]"
        known = ("name", "rate", "ratio", "rounds")
        yield cells | {key: _value(value) for key, value in row.items() if key not in known}


def _table(rows: Sequence[Mapping[str, str]]) -> list[str]:
    heads = list(dict.fromkeys(key for row in rows for key in row))
    body = [[row.get(head, "") for head in heads] for row in rows]
    return [f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *body)]


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_value(one)}" for key, one in value.items())
    return (
        f"{value:,.4g}"
        if isinstance(value, float) and abs(value) < 1000
        else f"{value:,.0f}"
        if isinstance(value, float)
        else str(value)
    )


def _machine(content: Mapping[str, Any]) -> str:
    machine = content["machine"]
    packages = ", ".join(f"{name} {number}" for name, number in machine["packages"].items())
    return (
        f"{machine['processor']}; {machine['threads']} threads of torch; device {machine['device']}; Python "
        f"{machine['python']}, {packages}; commit {machine['commit']}; scale {content['scale']:g}."
    )
