"""From records of runs to ratios: ours over each peer, formed within a round."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.measure import ratio_text, ratios
from experiments.pages import table
from experiments.spread import Spread

TIME, PEAK, STEADY = "seconds", "peak_mib", "steady_mib"

Values = dict[tuple[str, int], dict[int, float]]
"""By contender and number of time steps: one value per round."""


def values_of(records: Iterable[Mapping[str, Any]], key: str) -> Values:
    """Returns one value per contender, number of time steps and round: its record's median step, or memory."""
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
            pair = {"ours": name, "peer": peer, "num_steps": num_steps, "rounds": len(shared)}
            rows.append(pair | ratios(both, peer)[name].quantiles())
    return rows


def absolute(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns one row per contender and number of time steps: the spread over the rounds of time and memory."""
    keys = (TIME, PEAK, STEADY)
    columns = {key: values_of(records, key) for key in keys}
    return [
        {"contender": name, "num_steps": num_steps}
        | {key: Spread.of(columns[key][name, num_steps].values()).quantiles() for key in keys}
        for name, num_steps in columns[TIME]
    ]


def ratio_table(title: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns a table of ratios: one row per pair, one column per number of time steps."""
    return _over_steps((title, ""), [((row["ours"], row["peer"]), row["num_steps"], ratio_text(row)) for row in rows])


def memory_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns a table of the memory in MiB, "peak, steady": one row per contender, one column per number of steps."""
    cells = []
    for row in rows:
        peak, steady = (row[key]["median"] for key in (PEAK, STEADY))
        cells.append(((row["contender"],), row["num_steps"], f"{peak:,.0f}, {steady:,.0f}"))
    return _over_steps(("contender",), cells)


def _over_steps(head: tuple[str, ...], cells: Iterable[tuple[tuple[str, ...], int, str]]) -> str:
    """Returns a table of cells, each given with the names of its row and its number of time steps."""
    rows: dict[tuple[str, ...], dict[int, str]] = {}
    for names, num_steps, text in cells:
        rows.setdefault(names, {})[num_steps] = text
    steps = sorted(set().union(*rows.values()))
    lines = [(*names, *(found.get(T, "-") for T in steps)) for names, found in rows.items()]
    return table((*head, *(f"T = {T}" for T in steps)), lines)


def absolute_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns a table of the times in ms and the memory in MiB, peak and steady."""
    lines = []
    for row in sorted(rows, key=lambda row: row["num_steps"]):
        milliseconds = (1e3 * row[TIME][key] for key in ("median", "min", "max"))
        time = "{:.1f} ({:.1f} to {:.1f})".format(*milliseconds)
        memory = (f"{row[key]['median']:.0f}" for key in (PEAK, STEADY))
        lines.append((row["contender"], str(row["num_steps"]), time, *memory))
    return table(("contender", "T", "ms per step", "peak MiB", "steady MiB"), lines)


def tell(result: Mapping[str, Any]) -> Iterator[str]:
    """Yields what the page says about time."""
    yield (
        f"One training step of the same convolutional network ({result['job']['channels']} channels on "
        f"{result['job']['image']}, batch {result['job']['batch']}), each contender in its own processes, "
        f"{result['protocol']['rounds']} rounds. Below 1, ours is faster."
    )
    yield ratio_table("time, ours / peer", result["time"])
    yield "Memory of these processes above that of the imports, peak and steady, MiB:"
    yield memory_table(result["appendix"]["rows"])


def tell_memory(result: Mapping[str, Any]) -> Iterator[str]:
    """Yields what the page says about memory."""
    yield (
        "By default, as in the table above, glibc keeps up to half of what PyTorch has used; this flatters JAX. In "
        "the processes below it returns what is freed (`MALLOC_MMAP_THRESHOLD_`), which slows PyTorch; peak and steady "
        "memory in MiB. Most of our peak is XLA's while it compiles; \"compiled apart\" takes its programs from [JAX's "
        "persistent cache](how-to/save-memory.md#the-compilers-memory), which a process of their own has filled."
    )
    yield memory_table(result["appendix"]["rows"])
