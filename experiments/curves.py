"""The picture of a run: accuracy, loss, flips and spikes over the epochs."""

import itertools
from pathlib import Path
from typing import Any

from experiments.pages import figure, finish, save_picture

COLORS = ("C0", "C1", "C2", "C3", "C4", "C5", "C6", "C8", "C9")
"""Of the runs, in their order."""

CONTROL = "C7"
"""Grey."""


def draw(path: Path, runs: dict[str, list[dict[str, Any]]], split: str, control: str | None = None) -> None:
    """Draws the records of runs, by label, side by side.

    Args:
      path: where the PNG goes.
      runs: for each run one record per epoch, as train returns them; the first is drawn boldest.
      split: the name of the evaluation images.
      control: the label of the run that is grey.
    """
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    drawing = figure(10, 6.5)
    panels = (
        ("Accuracy", (("eval_accuracy", split, "-"), ("accuracy", "training", "--"))),
        ("Loss", (("eval_loss", split, "-"), ("loss", "training", "--"))),
        ("Flip ratio (flips / weight / update)", (("flip_ratio", "", "-"),)),
        ("Spike rate (spikes / neuron / time step)", (("spike_rate", "", "-"),)),
    )
    for axes, (title, lines) in zip(drawing.subplots(2, 2).flat, panels, strict=True):
        colors = itertools.cycle(COLORS)
        for label, records in runs.items():
            color = CONTROL if label == control else next(colors)
            for key, part, style in lines:
                values = [record[key] for record in records]
                name = f"{label}, {part}" if part else label
                marker = "o" if len(values) == 1 else None
                axes.plot(
                    [record["epoch"] for record in records], values, style, color=color, label=name, marker=marker
                )
        finish(axes, title, x="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if title == "Accuracy":
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
            low = min(lowest(list(runs.values())), 0.99)  # an axis has a length where all are perfect
            axes.set_ylim(low, 1 + 0.03 * (1 - low))
            axes.legend(frameon=False, fontsize=9)
        elif title != "Loss":
            axes.set_ylim(0, max(1e-6, 1.15 * axes.get_ylim()[1]))
    save_picture(path, drawing, dpi=120)


def lowest(runs: list[list[dict[str, Any]]]) -> float:
    """Returns where the axis of accuracies begins: at 0, or, if all runs become good, high enough to tell them apart.

    For runs whose best accuracies are 99 and 98 % it shows what is above 92 %.
    """
    worst = min((max(record["eval_accuracy"] for record in records) for records in runs if records), default=0.0)
    low = 1 - 4 * (1 - worst)
    return round(low, 2) if low > 0.5 else 0.0
