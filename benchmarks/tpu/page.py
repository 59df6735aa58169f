"""What docs/ACCELERATORS.md says about the compilations."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from benchmarks.tpu import jobs
from experiments.pages import table

MIB, KIB = 2**20, 2**10
Rows = list[dict[str, Any]]
"""What was read from the compilations."""

Counted = list[dict[str, Any]]
"""The rows of traffic of benchmarks/results/scaling.json, of eight devices."""


def memory(rows: Rows, counted: Counted) -> Iterator[str]:
    """Yields the bytes of one chip against T."""
    del counted
    alone = [row for row in rows if row["job"]["way"] in (jobs.ONE, jobs.BPTT) and _is_v5e(row)]
    steps = sorted({row["job"]["num_steps"] for row in alone})
    cells: dict[tuple[str, str], dict[int, str]] = {}
    for row in alone:
        names = (row["job"]["network"], kind(row["job"]))
        cells.setdefault(names, {})[row["job"]["num_steps"]] = _megabytes(row)
    table_rows = [(*names, *(found.get(step, "") for step in steps)) for names, found in cells.items()]
    yield table(("network", "step", *(f"T = {step}" for step in steps)), table_rows)
    for network in dict.fromkeys(row["job"]["network"] for row in alone):
        yield _growth(network, [row for row in alone if row["job"]["network"] == network and "error" not in row])


def _growth(network: str, rows: Rows) -> str:
    """How many bytes T adds to each kind of step that was compiled at several T."""
    said = []
    for name in dict.fromkeys(kind(row["job"]) for row in rows):
        sizes = {row["job"]["num_steps"]: total(row) for row in rows if kind(row["job"]) == name}
        if len(sizes) > 1:
            first, last = min(sizes), max(sizes)
            said.append(f"{name}: {sizes[last] - sizes[first]:+,} bytes from T = {first} to T = {last}")
    return f"{network}: {'; '.join(said)}." if said else ""


def arithmetic(rows: Rows, counted: Counted) -> Iterator[str]:
    """Yields the operations and bytes moved in a time step, by chip and kind."""
    del counted
    yield table(
        ("network", "step", "chip", "MiB", "GFLOP", "MiB moved", "FLOP per byte", "seconds to compile"),
        [
            (row["job"]["network"], f"{kind(row['job'])}, T = {row['job']['num_steps']}", row["chip"],
             _megabytes(row), f"{row['flops'] / 1e9:,.2f}", f"{row['bytes accessed'] / MIB:,.1f}",
             f"{row['flops'] / row['bytes accessed']:,.0f}", f"{row['seconds']['compile']:,.0f}")
            for row in _compiled(rows)
            if row["job"]["way"] in (jobs.ONE, jobs.BPTT)
        ],
    )  # fmt: skip


def meshes(rows: Rows, counted: Counted) -> Iterator[str]:
    """Yields what chips exchange and hold, beside the counts of docs/SCALING.md for as many devices."""
    many = [row for row in _compiled(rows) if row["job"]["way"] not in (jobs.ONE, jobs.BPTT)]
    expected = {(row["job"], row["exchange"]): row for row in counted}
    yield table(
        ("network", "way", "chips", "hosts", "MiB per chip", "exchanges", "gradients", "statistics", "flips", "other",
         "all", "SCALING.md"),
        [
            (row["job"]["network"], row["job"]["way"], _chips(row), str(row["hosts"]), _megabytes(row),
             str(exchanges(row)),
             *(f"{size / KIB:,.1f}" for size in row["sent a time step"].values()),
             f"{sum(row['sent a time step'].values()) / KIB:,.1f}",
             _expected(expected.get((row["job"]["network"], row["job"]["way"])), row["job"]["chips"]))
            for row in many
        ],
    )  # fmt: skip


def program(rows: Rows, counted: Counted) -> Iterator[str]:
    """Yields what the programs do in a loop."""
    del counted
    yield table(
        ("network", "step", "chip", "products by dtype", "copies of 1 MiB or more", "carried, MiB", "in memory, MiB",
         "on the chip, MiB"),
        [
            (row["job"]["network"], kind(row["job"]), row["chip"],
             ", ".join(f"{count} {name}" for name, count in row["products"].items()),
             _copied(row["copies in the loop"]),
             *(f"{row['carried'][name] / MIB:,.1f}" for name in ("arrays", "in memory", "on chip")))
            for row in _compiled(rows)
            if row["job"]["way"] in (jobs.ONE, jobs.BPTT)
        ],
    )  # fmt: skip
    wide = [row for row in _compiled(rows) if {"f64", "c128"} & set(row["dtypes"])]
    yield f"float64 occurs in {len(wide)} of {len(_compiled(rows))} programs."


def failures(rows: Rows, counted: Counted) -> Iterator[str]:
    """Yields what could not be compiled, with the compiler's message."""
    del counted
    failed = [row for row in rows if "error" in row]
    yield table(
        ("network", "step", "chips", "error"),
        [
            (row["job"]["network"], f"{kind(row['job'])}, T = {row['job']['num_steps']}", _chips(row),
             f"`{row['error']}`")
            for row in failed
        ],
    ) if failed else "Everything was compiled."  # fmt: skip


def kind(job: Mapping[str, Any]) -> str:
    """Returns the name of a step: what it is, apart from network, T and chips."""
    if job["way"] not in (jobs.ONE,):
        return job["way"]
    parts = [
        "float32" if job["dtype"] == jobs.FLOAT else f"{job['dtype']} activations",
        "packed signs" if job["packed"] else "",
        "" if job["momentum"] == jobs.FLOAT else f"{job['momentum']} momentum",
    ]
    return ", ".join(part for part in parts if part)


def total(row: Mapping[str, Any]) -> int:
    """Returns the bytes that a step takes in a chip's main memory."""
    return row["arguments"] + row["temporaries"]


def exchanges(row: Mapping[str, Any]) -> int:
    """Returns how many exchanges a time step has."""
    return sum(one["count"] for one in row["collectives"] if one["in loop"])


def _compiled(rows: Rows) -> Rows:
    return [row for row in rows if "error" not in row]


def _is_v5e(row: Mapping[str, Any]) -> bool:
    return row["job"]["topology"].startswith("v5e")


def _megabytes(row: Mapping[str, Any]) -> str:
    return "not compiled" if "error" in row else f"{total(row) / MIB:,.2f}"


def _chips(row: Mapping[str, Any]) -> str:
    job = row["job"]
    slices = f"{job['slices']} slices of {job['topology']}" if job["slices"] > 1 else job["topology"]
    return f"{job['chips']} ({slices})"


def _expected(counted: Mapping[str, Any] | None, chips: int) -> str:
    """The count of docs/SCALING.md for eight devices, converted to this many in a ring."""
    if counted is None:
        return ""
    sent = sum(counted[name] for name in ("gradients", "statistics", "flips", "other"))
    return f"{sent * (8 / 7) * (chips - 1) / chips / KIB:,.1f}"


def _copied(copies: Rows) -> str:
    return f"{len(copies)}, {sum(copy['bytes'] for copy in copies) / MIB:,.1f} MiB" if copies else "none"


PARTS: dict[str, Callable[[Rows, Counted], Iterator[str]]] = {
    "memory": memory,
    "arithmetic": arithmetic,
    "meshes": meshes,
    "program": program,
    "failures": failures,
}
"""The parts of the page, by their names in its template."""
