"""From records of runs to ratios: ours over each peer, formed within a round."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks.measure import Spread, ratios, spread

TIME, PEAK, STEADY = "seconds", "peak_mib", "steady_mib"

Values = dict[tuple[str, int], dict[int, float]]
"""By contender and number of time steps: a value a round."""


def values_of(records: Iterable[Mapping[str, Any]], key: str) -> Values:
    """Returns one value a contender, number of time steps and round: the median step, or the memory, in its record."""
    found: Values = {}
    for record in records:
        cell = found.setdefault((record["contender"], record["num_steps"]), {})
        cell[record["round"]] = float(np.median(record[key]))
    return found


def compare(records: Sequence[Mapping[str, Any]], ours: Sequence[str], key: str) -> list[dict[str, Any]]:
    """Returns rows "ours", "peer", "num_steps", "rounds" and the spread of ours / peer over the rounds that both have.

    Args:
      records: with "contender", "num_steps", "round" and the key.
      ours: the contenders that are compared with all others.
      key: TIME, PEAK or STEADY.
    """
    values = values_of(records, key)
    rows = []
    for (peer, num_steps), theirs in values.items():
        for name in ours:
            own = values.get((name, num_steps), {})
            shared = sorted(own.keys() & theirs.keys())
            if peer in ours or not shared:
                continue
            both = {name: [own[turn] for turn in shared], peer: [theirs[turn] for turn in shared]}
            ratio = ratios(both, peer)[name]
            rows.append({"ours": name, "peer": peer, "num_steps": num_steps, "rounds": len(shared), **ratio._asdict()})
    return rows


def absolute(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns a row a contender and number of time steps: the spread over the rounds of time and memory."""
    keys = (TIME, PEAK, STEADY)
    columns = {key: values_of(records, key) for key in keys}
    return [
        {"contender": name, "num_steps": num_steps}
        | {key: spread(list(columns[key][name, num_steps].values()))._asdict() for key in keys}
        for name, num_steps in columns[TIME]
    ]


def ratio_table(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """Returns a table of ratios for a terminal: a row a pair, a column a number of time steps, median (min .. max)."""
    steps = sorted({row["num_steps"] for row in rows})
    table = Table("ours", "peer", *(f"T = {num_steps}" for num_steps in steps), title=title)
    cells = {(row["ours"], row["peer"], row["num_steps"]): row for row in rows}
    for ours, peer in dict.fromkeys((row["ours"], row["peer"]) for row in rows):
        found = [cells.get((ours, peer, num_steps)) for num_steps in steps]
        table.add_row(ours, peer, *("-" if row is None else _cell(row, "{:.2f}") for row in found))
    return table


def absolute_table(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """Returns a table of the times in ms and the memory in MiB, peak and steady, for a terminal."""
    table = Table("contender", "T", "ms a step", "peak MiB", "steady MiB", title=title)
    for row in sorted(rows, key=lambda row: row["num_steps"]):
        in_ms = {key: 1e3 * value for key, value in row[TIME].items()}
        memory = (f"{row[key]['median']:.0f}" for key in (PEAK, STEADY))
        table.add_row(row["contender"], str(row["num_steps"]), _cell(in_ms, "{:.1f}"), *memory)
    return table


def _cell(row: Mapping[str, Any], form: str) -> str:
    low, middle, high = (form.format(row[key]) for key in (Spread._fields[3], Spread._fields[0], Spread._fields[4]))
    return f"{middle} ({low} .. {high})"
