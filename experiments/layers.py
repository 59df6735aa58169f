"""The layers of a run: their picture over the epochs, and those that are dead or saturated at its end."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bsojax import plots
from experiments.pages import figure, save_picture

NEVER, ALWAYS = 1e-6, 1 - 1e-6
"""Spike rates below which a layer is dead, and above which it is saturated: 0 and 1 up to rounding."""

DEAD, SATURATED = "dead_layers", "saturated_layers"
"""The names under which summary.json holds them."""


def draw(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Draws spike rates and flip ratios of all layers of a run; draws nothing if its records hold none.

    Args:
      path: where the PNG goes.
      records: of the run, one per evaluation.
    """
    kept = [record for record in records if record.get("spike_rates") and record.get("flip_ratios")]
    if not kept:
        return  # an earlier version began the run
    drawing = figure(12, 4.5)
    rates, flips = drawing.subplots(1, 2)
    plots.rates(kept, ax=rates).set_title("Spike rate", fontsize=11)
    plots.flips(kept, ax=flips).set_title("Flip ratio", fontsize=11)
    save_picture(path, drawing, dpi=100)


def extremes(record: Mapping[str, Any]) -> dict[str, list[str]]:
    """Returns the layers that never spiked in the batches of a record, and those that always did."""
    rates = record.get("spike_rates", {})
    return {
        DEAD: [name for name, rate in rates.items() if rate < NEVER],
        SATURATED: [name for name, rate in rates.items() if rate > ALWAYS],
    }


def advice(label: str, result: Mapping[str, Any]) -> list[str]:
    """Returns messages about a training's dead and saturated layers: which they are, and what to do."""
    told = []
    look = "bsojax.record and bsojax.plots.membrane show how far from the threshold their membranes are."
    if names := result.get(DEAD):
        told.append(
            f"{label}: dead at the end, without a single spike: {', '.join(names)}. Nothing passes through a dead "
            f"layer. Put a norm in front of it (--norm), lower its v_threshold, or lower --learning-rate; {look}"
        )
    if names := result.get(SATURATED):
        told.append(
            f"{label}: saturated at the end, with a spike at every time step: {', '.join(names)}. A saturated layer "
            f"gives the same for every input. Put a norm in front of it (--norm), raise its v_threshold, or lower "
            f"--learning-rate; {look}"
        )
    return told
