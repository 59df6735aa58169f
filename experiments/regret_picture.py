"""The picture of experiments.regret: R(K) on logarithmic axes, one panel per problem."""

from pathlib import Path
from typing import Any

import numpy as np

from experiments.pages import figure, finish, save_picture

STYLES = (
    ("C0", "-"),
    ("C1", "--"),
    ("C2", ":"),
    ("C3", "-"),
    ("C4", "--"),
    ("C5", "-"),
    ("C7", "-"),
    ("C6", "-"),
    ("C6", ":"),
    ("C8", "--"),
)
"""Colour and line of the rules, in the order of the result."""


def draw(path: Path, result: dict[str, Any]) -> None:
    """Draws the mean regret of every rule with one standard deviation, and the slopes of the theorem's bounds.

    Args:
      path: where the PNG goes.
      result: what experiments.regret writes as JSON.
    """
    ks = np.array(result["rounds"])
    problems = result["problems"]
    rows = (len(problems) + 2) // 2  # the last panel holds the legend
    drawing = figure(9, 3 * rows)
    panels = list(drawing.subplots(rows, 2).flat)
    for axes, (name, problem) in zip(panels, problems.items(), strict=False):
        tops = []
        for (color, line), (rule, row) in zip(STYLES, problem["rules"].items(), strict=True):
            mean, deviation = np.array(row["mean"]), np.array(row["deviation"])
            positive = np.where(mean > 0, mean, np.nan)  # a logarithmic axis has no place for the rest
            bounded = result["bounds"][rule] is not None
            axes.plot(ks, positive, line, color=color, lw=2 if bounded else 1.3, label=rule)
            if bounded:
                low = np.maximum(mean - deviation, positive / 10)
                axes.fill_between(ks, low, mean + deviation, color=color, alpha=0.2)
            tops.append(positive)
        start = np.nanmax(np.array(tops)[:, 0])
        for bound, style in ((1 / 2, (0, (1, 3))), (3 / 4, (0, (4, 3)))):
            slope = 2 * start * (ks / ks[0]) ** bound
            axes.plot(ks, slope, color="black", lw=1, ls=style, label=f"slope of the bound {bound:g}")
        axes.set(xscale="log", yscale="log", xlim=(ks[0], ks[-1]))
        finish(axes, f"{name}: {problem['title']}", size=10)
    for axes in panels[: len(problems)][-2:]:
        axes.set_xlabel("rounds K")
    for axes in panels[: len(problems) : 2]:
        axes.set_ylabel("regret R(K)")
    for axes in panels[len(problems) :]:
        axes.set_axis_off()
    handles, labels = panels[0].get_legend_handles_labels()
    seeds = result["settings"]["seeds"]
    panels[len(problems)].legend(
        handles, labels, loc="center", frameon=False, fontsize=10, title=f"mean of {seeds} seeds, band: one deviation"
    )
    save_picture(path, drawing, dpi=100)
