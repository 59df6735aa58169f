"""What docs/ACCELERATORS.md says of the compilations."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from benchmarks.tpu import jobs
from experiments.pages import table

MIB, KIB = 2**20, 2**10
Rows = list[dict[str, Any]]
"""What was read from the compilations."""

Counted = list[dict[str, Any]]
"""The rows of traffic of benchmarks/results/scaling.json, of eight devices."""


def required(rows: Rows, counted: Counted) -> Iterator[str]:
    """Gives out the temporaries without which one chip cannot run a step, against T."""
    del counted
    asked = [row for row in _of_one_chip(rows) if _is_v5e(row) and row["job"]["limit"] is None and row.get("required")]
    yield from _against_steps(asked, lambda row: f"{row['required']:,.2f}")


def planned(rows: Rows, counted: Counted) -> Iterator[str]:
    """Gives out arguments and planned temporaries of one chip against T."""
    del counted
    whole = [row for row in _of_one_chip(_compiled(rows)) if _is_v5e(row) and row["job"]["limit"] is None]
    yield from _against_steps(whole, lambda row: f"{row['arguments'] / MIB:,.2f} + {row['temporaries'] / MIB:,.2f}")


def limited(rows: Rows, counted: Counted) -> Iterator[str]:
    """Gives out what became of steps whose chip was said to have little memory."""
    del counted
    ample = {_asked(row["job"]): row for row in _compiled(rows) if row["job"]["limit"] is None}

    def cells(row: dict[str, Any]) -> tuple[str, ...]:
        found = ("no", row["error"]) if "error" in row else ("yes", f"{row['flops'] / 1e9:,.1f}")
        other = ample.get(_asked(row["job"]))
        return (row["job"]["network"], f"{kind(row['job'])}, T = {row['job']['num_steps']}", *found,
                f"{other['flops'] / 1e9:,.1f}" if other else "")  # fmt: skip

    least = [row for row in rows if row["job"]["limit"] is not None]
    if least:
        header = ("network", "step", "compiled", "GFLOP", "GFLOP with all memory")
        yield table(header, [cells(row) for row in least])


def _asked(job: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a job compiles, whatever memory it has."""
    return tuple(value for name, value in job.items() if name != "limit")


def _against_steps(rows: Rows, cell: Callable[[Mapping[str, Any]], str]) -> Iterator[str]:
    """A table with a column for each T, where there are rows."""
    steps = sorted({row["job"]["num_steps"] for row in rows})
    cells: dict[tuple[str, str], dict[int, str]] = {}
    for row in rows:
        cells.setdefault((row["job"]["network"], kind(row["job"])), {})[row["job"]["num_steps"]] = cell(row)
    if cells:
        yield table(
            ("network", "step", *(f"T = {step}" for step in steps)),
            [(*names, *(found.get(step, "") for step in steps)) for names, found in cells.items()],
        )


def arithmetic(rows: Rows, counted: Counted) -> Iterator[str]:
    """Gives out bytes, operations and bytes moved in a time step, by chip and kind."""
    del counted
    yield table(
        ("network", "step", "chip", "MiB", "GFLOP", "MiB moved", "FLOP a byte"),
        [
            (row["job"]["network"], f"{kind(row['job'])}, T = {row['job']['num_steps']}", row["chip"],
             _megabytes(row), f"{row['flops'] / 1e9:,.2f}", f"{row['bytes accessed'] / MIB:,.1f}",
             f"{row['flops'] / row['bytes accessed']:,.0f}")
            for row in _distinct(_of_one_chip(_compiled(rows)))
        ],
    )  # fmt: skip


def meshes(rows: Rows, counted: Counted) -> Iterator[str]:
    """Gives out what chips exchange and hold, beside what docs/SCALING.md counts for as many."""
    many = [row for row in _compiled(rows) if row["job"]["way"] not in (jobs.ONE, jobs.BPTT)]
    expected = {(row["job"], row["exchange"]): row for row in counted}
    yield table(
        ("network", "way", "chips", "hosts", "MiB a chip", "exchanges", "gradients", "statistics", "flips", "other",
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
    """Gives out what the programs do in a loop."""
    del counted
    yield table(
        ("network", "step", "chip", "products by dtype", "copies of 1 MiB or more", "carried, MiB", "in memory, MiB",
         "on the chip, MiB"),
        [
            (row["job"]["network"], kind(row["job"]), row["chip"],
             ", ".join(f"{count} {name}" for name, count in row["products"].items()),
             _copied(row["copies in the loop"]),
             *(f"{row['carried'][name] / MIB:,.1f}" for name in ("arrays", "in memory", "on chip")))
            for row in _distinct(_of_one_chip(_compiled(rows)))
        ],
    )  # fmt: skip
    wide = [row for row in _compiled(rows) if {"f64", "c128"} & set(row["dtypes"])]
    yield f"float64 occurs in {len(wide)} of {len(_compiled(rows))} programs."


def failures(rows: Rows, counted: Counted) -> Iterator[str]:
    """Gives out what could not be compiled, with the compiler's word."""
    del counted
    failed = [row for row in rows if "error" in row and row["job"]["limit"] is None]
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
    if job["way"] != jobs.ONE:
        return job["way"]
    parts = [
        "float32" if job["dtype"] == jobs.FLOAT else f"{job['dtype']} activations",
        "packed signs" if job["packed"] else "",
        "" if job["momentum"] == jobs.FLOAT else f"{job['momentum']} momentum",
        "" if job["limit"] is None else f"chip of {job['limit']} MiB",
    ]
    return ", ".join(part for part in parts if part)


def total(row: Mapping[str, Any]) -> int:
    """Returns the bytes that a step takes in a chip's main memory."""
    return row["arguments"] + row["temporaries"]


def exchanges(row: Mapping[str, Any]) -> int:
    """Returns how many exchanges a time step has."""
    return sum(one["count"] for one in row["collectives"] if one["in loop"])


def _compiled(rows: Rows) -> Rows:
    return [row for row in rows if "flops" in row]


def _of_one_chip(rows: Rows) -> Rows:
    return [row for row in rows if row["job"]["way"] in (jobs.ONE, jobs.BPTT)]


def _distinct(rows: Rows) -> Rows:
    """One row, that of the smallest T, for each network, kind of step and chip."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: row["job"]["num_steps"]):
        found.setdefault((row["job"]["network"], kind(row["job"]), row["chip"]), row)
    return sorted(found.values(), key=lambda row: row["job"]["network"], reverse=True)


def _is_v5e(row: Mapping[str, Any]) -> bool:
    return row["job"]["topology"].startswith("v5e")


def _megabytes(row: Mapping[str, Any]) -> str:
    return f"{total(row) / MIB:,.2f}"


def _chips(row: Mapping[str, Any]) -> str:
    job = row["job"]
    slices = f"{job['slices']} slices of {job['topology']}" if job["slices"] > 1 else job["topology"]
    return f"{job['chips']} ({slices})"


def _expected(counted: Mapping[str, Any] | None, chips: int) -> str:
    """What docs/SCALING.md counts for eight devices, as it is for so many in a ring."""
    if counted is None:
        return ""
    sent = sum(counted[name] for name in ("gradients", "statistics", "flips", "other"))
    return f"{sent * (8 / 7) * (chips - 1) / chips / KIB:,.1f}"


def _copied(copies: Rows) -> str:
    return f"{len(copies)}, {sum(copy['bytes'] for copy in copies) / MIB:,.1f} MiB" if copies else "none"


PARTS: dict[str, Callable[[Rows, Counted], Iterator[str]]] = {
    "required": required,
    "planned": planned,
    "limited": limited,
    "arithmetic": arithmetic,
    "meshes": meshes,
    "program": program,
    "failures": failures,
}
"""The parts of the page, by their names in its template."""
