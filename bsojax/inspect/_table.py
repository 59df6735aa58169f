"""The summary of a model as text: what its layers contain, and what their synapses do."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bsojax.inspect._operations import LayerOperations, OperationEnergy

if TYPE_CHECKING:
    from bsojax.inspect._summary import Summary

OF_DEFAULTS = "float32 at 45 nm; Horowitz, ISSCC 2014"

Lines = list[list[str]]


def summary_table(summary: "Summary") -> str:
    """Returns the text of a summary."""
    return "\n".join(
        [
            summary.title,
            *_layers(summary),
            "",
            _one_bit(summary),
            f"Stored with packed signs: {_size(summary.stored_bytes)}, {summary.compression:.1f} times smaller than "
            f"the {_size(summary.float32_bytes)} of float32.",
            *_operations(summary),
        ]
    )


def _layers(summary: "Summary") -> list[str]:
    head = ["layer", "kind", "output shape", "1-bit weights", "real params", "statistics", "stored bytes", "spike rate"]
    lines = [
        [
            row.name or "(the model itself)",
            row.kind,
            "" if row.output_shape is None else str(row.output_shape),
            *(_count(n) for n in (row.binary_weights, row.real_parameters, row.statistics, row.stored_bytes)),
            "-" if row.spike_rate is None else f"{row.spike_rate:.4f}",
        ]
        for row in summary.rows
    ]
    numbers = (summary.binary_weights, summary.real_parameters, summary.statistics, summary.stored_bytes)
    total = ["total", "", "", *(f"{n:,}" for n in numbers), ""]
    with_rates = any(row.spike_rate is not None for row in summary.rows)
    return _aligned(head, lines, total, columns=len(head) if with_rates else len(head) - 1, left=3)


def _operations(summary: "Summary") -> list[str]:
    """The table of measured operations, or why there is none; empty for a model without synapses of this library."""
    missing = [f"Operations of {', '.join(summary.uncounted)}: not counted."] if summary.uncounted else []
    passes = "one pass" if summary.passes == 1 else f"{summary.passes} passes, one for each frame of the sequence"
    twin = f"{_times(summary.passes * summary.connections)} multiply-adds in {passes}, {_joules(summary.twin_energy)}"
    if not summary.connections:
        return missing
    if summary.additions is None or summary.multiply_adds is None or summary.frame_energy is None:
        told = "Operations: not measured. To count them, use summarize(..., state=state, num_steps=T)."
        return [told, f"A float twin takes {twin}.", *missing]
    steps = "1 time step" if summary.num_steps == 1 else f"{summary.num_steps} time steps"
    head = ["layer", "weights", "connections", "active inputs", "additions", "multiply-adds"]
    lines = [
        [
            row.name or "(the model itself)",
            "1-bit" if row.binary_weights else "real",
            f"{row.connections:,}",
            *_done(row.operations),
        ]
        for row in summary.rows
        if row.connections
    ]
    total = ["total", "", f"{summary.connections:,}", "", _count(summary.additions), _count(summary.multiply_adds)]
    ratio = summary.twin_energy / summary.frame_energy if summary.frame_energy else float("inf")
    energy = summary.energy
    source = OF_DEFAULTS if energy == OperationEnergy() else "as given"
    return [
        "",
        f"Operations per frame (one example, {steps}):",
        *_aligned(head, lines, total, columns=len(head), left=2),
        "",
        f"This network: {_times(summary.additions)} additions and {_times(summary.multiply_adds)} multiply-adds "
        f"per frame, {_joules(summary.frame_energy)}.",
        f"A float twin: {twin}, {ratio:.1f} times as much energy.",
        f"Energy is for arithmetic only, without memory access: {energy.addition:.3g} pJ per addition, "
        f"{energy.multiply_add:.3g} pJ per multiply-add ({source}).",
        *missing,
    ]


def _done(operations: LayerOperations | None) -> list[str]:
    if operations is None:
        return ["-", "-", "-"]
    return [f"{operations.input_rate:.2%}", _count(operations.additions), _count(operations.multiply_adds)]


def _aligned(head: list[str], lines: Lines, total: list[str], columns: int, left: int) -> list[str]:
    """The lines of a table with the given number of columns, the first ones aligned left."""
    widths = [max(len(line[column]) for line in (head, total, *lines)) for column in range(columns)]

    def text(line: Sequence[str]) -> str:
        cells = enumerate(zip(line, widths, strict=False))
        return "  ".join(cell.ljust(w) if column < left else cell.rjust(w) for column, (cell, w) in cells).rstrip()

    rule = "-" * (sum(widths) + 2 * (columns - 1))
    return [rule, text(head), rule, *map(text, lines), rule, text(total)]


def _one_bit(summary: "Summary") -> str:
    leaves = summary.binary_leaves
    if not leaves:
        return "Stored at one bit: nothing; the model has no binary layer."
    count = "the boolean leaf" if len(leaves) == 1 else f"{len(leaves)} boolean leaves, starting with"
    return f"Stored at one bit: {summary.binary_share:.2%} of the weights ({count} {leaves[0]})."


def _count(number: float) -> str:
    return f"{number:,.0f}" if number else "-"


def _times(number: float) -> str:
    unit, name = next((pair for pair in ((1e9, " G"), (1e6, " M"), (1e3, " k")) if number >= pair[0]), (1.0, ""))
    return f"{number / unit:,.2f}{name}" if name else f"{number:,.0f}"


def _joules(picojoules: float) -> str:
    units = ((1e9, "mJ"), (1e6, "uJ"), (1e3, "nJ"))
    unit, name = next((pair for pair in units if picojoules >= pair[0]), (1.0, "pJ"))
    return f"{picojoules / unit:,.2f} {name}"


def _size(number: int) -> str:
    unit, name = (1e6, "MB") if number >= 1e6 else (1e3, "kB")
    return f"{number / unit:,.2f} {name}"
