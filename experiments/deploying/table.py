"""The table of a deployment, and the picture of where its bytes are."""

from collections.abc import Mapping
from pathlib import Path

from rich.table import Table

from bsojax.deploy import DeploymentReport
from experiments.deploying.comparison import FLAGS, Comparison
from experiments.pages import BLUE, GREY, ORANGE, figure, finish, save_picture

LIGHT = "#56B4E9"
"""Sky blue, of the same palette."""


def deployment_table(
    title: str,
    report: DeploymentReport,
    files: Mapping[str, int],
    found: Comparison,
    seconds: Mapping[str, float],
    example: str,
) -> Table:
    """Returns the table of a deployment.

    Args:
      title: its title.
      report: of the integer network.
      files: the bytes of other forms, by name.
      found: the results on test data.
      seconds: the time of an example, by "JAX" and "C".
      example: a description of an example.
    """
    table = Table(title=title)
    table.add_column("")
    table.add_column("", justify="right")
    table.add_column("of float32", justify="right")

    def size(name: str, count: int, *, last: bool = False) -> None:
        table.add_row(name, f"{count:,} bytes", f"{count / report.float32_bytes:.1%}", end_section=last)

    size("float32 weights, gains and shifts", report.float32_bytes)
    for name, count in files.items():
        size(name, count)
    size("C: weights and tables (flash)", report.constant_bytes)
    size("C: scratch memory (RAM)", report.scratch_bytes, last=True)

    def tell(name: str, value: str, *, last: bool = False) -> None:
        table.add_row(name, value, "", end_section=last)

    tell("test accuracy, JAX", f"{found.jax:.2%}")
    if found.jax_rounded is not None:
        tell("test accuracy, JAX on rounded inputs", f"{found.jax_rounded:.2%}")
    form = "C" if found.is_compiled else "NumPy"
    tell(f"test accuracy, whole numbers ({form})", f"{found.whole:.2%}", last=True)
    agreement = found.agreement
    tell("predictions that differ from JAX", f"{agreement.predictions_differ:,} of {agreement.examples:,}")
    checked = found.logits_differ is not None
    tell("spikes that differ from JAX", f"{agreement.spikes_differ:,} of {agreement.spikes:,}", last=not checked)
    if checked:
        tell("logits in C that differ from NumPy", f"{found.logits_differ:,}")
        tell("spikes in C that differ from NumPy", f"{found.spikes_differ:,}", last=True)
    tell(f"{example}, one core, JAX", _time(seconds["JAX"]))
    tell(
        f"{example}, one core, C ({' '.join(('cc', *FLAGS))})", _time(seconds["C"]) if "C" in seconds else "no compiler"
    )
    return table


def _time(seconds: float) -> str:
    """A time in the unit in which it has one to three digits before the decimal point."""
    unit, factor = next((pair for pair in (("s", 1.0), ("ms", 1e3)) if seconds * pair[1] >= 1), ("us", 1e6))
    return f"{seconds * factor:.3g} {unit}"


def draw(path: Path, report: DeploymentReport) -> None:
    """Draws the bytes of each layer with weights, in float32 and deployed, on separate axes."""
    layers = [layer for layer in report.layers if layer.weights]
    places = range(len(layers))
    drawing = figure(10, 1.4 + 0.34 * len(layers))
    left, right = drawing.subplots(1, 2, sharey=True)
    left.barh(places, [(4 * layer.weights + layer.table_bytes) / 1000 for layer in layers], color=GREY)
    finish(left, f"In float32: {report.float32_bytes:,} bytes", x="kB")
    total = report.sign_bytes + report.weight_bytes + report.table_bytes
    parts = (
        ("signs, one bit each", BLUE, [layer.weight_bytes / 1000 * layer.is_binary for layer in layers]),
        ("real weights", ORANGE, [layer.weight_bytes / 1000 * (not layer.is_binary) for layer in layers]),
        ("gains and shifts", LIGHT, [layer.table_bytes / 1000 for layer in layers]),
    )
    start = [0.0] * len(layers)
    for name, color, sizes in parts:
        right.barh(places, sizes, left=start, color=color, label=name)
        start = [before + size for before, size in zip(start, sizes, strict=True)]
    finish(right, f"Deployed: {total:,} bytes", x="kB")
    right.legend(frameon=False, fontsize=9)
    left.set_yticks(places, [layer.name for layer in layers])
    left.invert_yaxis()
    save_picture(path, drawing, dpi=120)
