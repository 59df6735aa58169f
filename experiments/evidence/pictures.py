"""The pictures of the evidence."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from experiments.evidence.compared import OURS, RULES
from experiments.evidence.results import TARGETS, Study
from experiments.pages import BLUE, GREY, ORANGE, figure, finish
from experiments.rules.flips import CalibratedTBso, TBso
from experiments.spread import Spread

COLORS = {label: "#CC79A7" if "latent" in label else "#000000" for label in RULES} | {
    "BPTT, latent, SGD": "#E69F00", "BPTT, latent, SGD without momentum": "#E69F00",
    "BPTT, latent, Adam": ORANGE, "BPTT, latent, Adam, read at an average": ORANGE,
    "BSO, paper": "#56B4E9", "BSO with reset, paper": "#56B4E9", "T-BSO, paper": "#009E73",
    "T-BSO, first recipe": "#7F9FC8", "frozen signs": GREY,
} | {label: BLUE for label in RULES if label.startswith((OURS, "counter"))}  # fmt: skip
"""Rules that share a colour are distinguished by position."""

FAMILIES: dict[str, tuple[Callable[[str], bool], str, str]] = {
    "counters": (lambda label: label.startswith("counter"), BLUE, "o"),
    OURS: (lambda label: label.startswith(OURS), BLUE, "s"),
    "latent weights": (lambda label: "latent" in label, ORANGE, "D"),
    "paper's constants, first recipe": (lambda label: label.endswith((", paper", ", first recipe")), "#009E73", "v"),
    "other rules without latent weights": (lambda label: True, "#000000", "^"),
}
"""Families of rules: what belongs to each that belongs to none before it, its colour and its marker."""

DRAWN = ("frozen signs", "BPTT, latent, SGD", "BPTT, latent, Adam", "OTTT, latent", "BSO, paper", "T-BSO, paper", OURS)
"""The rules of the curves, the boldest last."""

BANDS = ("BPTT, latent, Adam", "T-BSO, paper", OURS)
"""The rules whose range over the seeds is drawn; with all of them, none could be seen."""

ERRORS = (0.9, 0.7, 0.5, 0.4, 0.3, 0.2, 0.15, 0.1, 0.05, 0.03, 0.02, 0.01, 0.005, 0.002)
"""Errors at which an axis of accuracy has its ticks."""


def convergence(study: Study) -> Any:
    """Draws validation accuracy over batches: mean over seeds, and for some a band from the lowest to the highest.

    The axis is logarithmic in the error, so that 98 and 99 % are as far apart as 80 and 90 %.
    """
    drawing = figure(8, 4.5)
    axes = drawing.subplots()
    target = TARGETS[study.config]["validation"]
    least = 1 - target
    for label in (label for label in DRAWN if label in study.rows):
        row = study.rows[label]
        counts, curves = np.moveaxis(np.array([run["validation"] for run in row.runs]), -1, 0)
        errors = np.maximum(1 - curves, 1e-3)  # a logarithmic axis has no place for no error
        batches = counts[0] / row.updates_per_batch
        line = {"ls": "--" if label == "frozen signs" else "-", "lw": 3.0 if label == OURS else 1.5}
        marker = "o" if len(batches) == 1 else None
        axes.plot(batches, errors.mean(axis=0), color=COLORS[label], marker=marker, label=label, **line)
        if label in BANDS:
            axes.fill_between(batches, errors.min(axis=0), errors.max(axis=0), color=COLORS[label], alpha=0.15, lw=0)
        least = min(least, errors.min())
    axes.axhline(1 - target, color="black", lw=0.8, ls=(0, (1, 3)), label=f"target {target:.0%}")
    ticks = [error for error in ERRORS if error > least / 1.3]
    axes.set(yscale="log", ylim=(1.0, least / 1.3))
    axes.set_yticks(ticks, [f"{100 * (1 - error):.3g} %" for error in ticks])
    axes.set_yticks([], minor=True)
    axes.set_xlim(left=0)
    finish(axes, f"{study.config}: validation accuracy, mean (bands: lowest to highest)", "batches")
    axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
    return drawing


def bits(shown: Sequence[Study]) -> Any:
    """Draws test accuracy over bits of training state per weight, one panel per config, without frozen signs.

    Rules of about as many bits stand beside each other, the best at the left; what is far below the best is left out.
    """
    columns = min(3, len(shown))
    rows = math.ceil(len(shown) / columns)
    drawing = figure(1.0 + 4.4 * columns, 1.2 + 3.4 * rows)
    panels = drawing.subplots(rows, columns, squeeze=False)
    named: dict[str, Any] = {}
    for axes, study in zip(panels.flat, shown, strict=False):
        found = {label: row for label, row in study.rows.items() if label in RULES and label != "frozen signs"}
        ranked = sorted((label for label in found if found[label].bits), key=lambda label: -found[label].test.mean)
        beside: Counter[int] = Counter()
        for label in ranked:
            family = next(name for name, (belongs, *_) in FAMILIES.items() if belongs(label))
            _, color, marker = FAMILIES[family]
            amount, test = found[label].bits or 1, found[label].test
            place = round(10 * math.log(amount))
            at = amount * 1.06 ** beside[place]
            beside[place] += 1
            style = {"color": color, "marker": marker, "ms": 6, "lw": 1, "elinewidth": 0.8, "mew": 0}
            named[family] = axes.errorbar(at, 100 * test.mean, 100 * test.deviation, ls="", **style)
        means = [100 * found[label].test.mean for label in ranked]
        highest, lowest = max(means, default=100), min(means, default=0)
        axes.set(xscale="log", ylim=(max(lowest, highest - 6) - 0.5, min(highest + 1.0, 100.1)), xlim=(3.3, 170))
        axes.set_xticks([4, 6, 10, 16, 33, 65, 97, 130], ["4", "6", "10", "16", "33", "65", "97", ""])
        axes.set_xticks([], minor=True)
        finish(axes, study.config)
    for axes in list(panels.flat)[len(shown) :]:
        axes.set_axis_off()
    order = [family for family in FAMILIES if family in named]
    drawing.legend([named[family] for family in order], order, loc="outside upper center", ncols=3, frameon=False)
    drawing.supxlabel("bits of training state per weight, including its sign", fontsize=10)
    drawing.supylabel("test accuracy at the end, %", fontsize=10)
    return drawing


def overview(shown: Sequence[Study]) -> Any:
    """Draws the test accuracy of every rule, one panel per config: each seed, their mean and their range.

    A rule far below the others, such as frozen signs, is shown at the left edge with its number.
    """
    columns = min(3, len(shown))
    rows = math.ceil(len(shown) / columns)
    drawing = figure(3.0 + 3.4 * columns, 0.6 + (0.4 + 0.2 * len(RULES)) * rows)
    panels = drawing.subplots(rows, columns, squeeze=False, sharey=True)
    for axes, study in zip(panels.flat, shown, strict=False):
        found = study.tests(RULES)
        floor = _floor([row.min for row in found.values()])
        for place, label in enumerate(RULES):
            if label in found:
                values = [100 * run["test"] for run in study.rows[label].runs]
                _seeds(axes, place, found[label], values, floor, COLORS[label], 7 if label == OURS else 5)
        axes.set_xlim(left=100 * floor)
        axes.set_yticks(range(len(RULES)), RULES, fontsize=9)
        finish(axes, study.config)
    panels[0, 0].invert_yaxis()  # shared: the first rule stands on top
    for axes in list(panels.flat)[len(shown) :]:
        axes.set_axis_off()
    drawing.supxlabel("test accuracy at the end, %: each seed, and their mean (bar)", fontsize=10)
    return drawing


def ablations(study: Study) -> Any:
    """Draws the sweeps of c and of the growth in the calibrated preset, and that of the paper's threshold."""
    c, growth, threshold = CalibratedTBso.threshold, CalibratedTBso.growth, TBso.threshold
    # Where the sweep of the growth has no row of the preset's own, that of c has.
    same = f"calibrated, c = {c:g}"
    growths = ({growth: same} if same in study.rows else {}) | _sweep(study, "calibrated, growth ")
    sweeps = (
        ("calibrated: c", OURS, c, _sweep(study, "calibrated, c = ")),
        ("calibrated: growth", OURS, growth, growths),
        ("paper: threshold", "T-BSO, paper", threshold, _sweep(study, "paper, threshold ")),
    )
    drawing = figure(12, 3.8)
    for axes, (name, rule, preset, rows) in zip(drawing.subplots(1, 3), sweeps, strict=True):
        values = sorted(rows)
        for part, color, shift in (("validation", GREY, 0.08), ("test", COLORS[rule], -0.08)):
            found = [study.rows[rows[value]].spread(part) for value in values]
            means, lows, highs = 100 * np.array([(row.mean, row.min, row.max) for row in found]).reshape(-1, 3).T
            places, ends = np.arange(len(values)) + shift, (means - lows, highs - means)
            axes.errorbar(places, means, ends, fmt="o-", color=color, ms=5, lw=1.5, capsize=3, label=part)
        axes.set_xticks(range(len(values)), [f"{value:g}" + (" *" if value == preset else "") for value in values])
        finish(axes, name)
        axes.legend(frameon=False, fontsize=9)
    drawing.supylabel("accuracy, %: mean, lowest, highest", fontsize=10)
    drawing.suptitle(f"{study.config} (*: the preset)", fontsize=11)
    return drawing


def norms(shown: Sequence[Study]) -> Any:
    """Draws what running and re-estimated statistics lose against the test batch's own, one panel per config."""
    drawing = figure(1.5 + 4 * len(shown), 4.2)
    panels = drawing.subplots(1, len(shown), squeeze=False, sharey=True)[0]
    kinds = (("test_running", "running", GREY, -0.15), ("test", "re-estimated", "black", 0.15))
    for axes, study in zip(panels, shown, strict=True):
        for part, name, color, shift in kinds:
            for place, row in enumerate(study.rows.values()):
                if gap := row.gap(part):
                    axes.plot([100 * gap.min, 100 * gap.max], [place + shift] * 2, color=color, lw=2, alpha=0.6)
                    axes.plot(100 * gap.mean, place + shift, "o", color=color, ms=6, label=name)
        axes.axvline(0, color="black", lw=0.8)
        axes.set_yticks(range(len(study.rows)), study.rows, fontsize=9)
        finish(axes, study.config)
        handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
        axes.legend(handles.values(), handles.keys(), frameon=False, fontsize=9)
    panels[0].invert_yaxis()
    drawing.supxlabel("points lost against the test batch's own statistics: mean, lowest, highest", fontsize=10)
    return drawing


def _seeds(axes: Any, place: int, row: Spread, values: list[float], floor: float, color: str, size: int) -> None:
    """Draws a rule's seeds, or its number at the left edge."""
    if row.mean < floor:
        axes.plot(100 * floor, place, "<", color=color, ms=size, clip_on=False)
        axes.annotate(f" {100 * row.mean:.1f}", (100 * floor, place), va="center", fontsize=8, xytext=(6, 0),
                      textcoords="offset points")  # fmt: skip
        return
    axes.plot([100 * row.min, 100 * row.max], [place, place], color=color, lw=2, alpha=0.6)
    axes.plot(values, [place] * len(values), "o", color=color, ms=size, alpha=0.6, mew=0)
    axes.plot(100 * row.mean, place, "|", color=color, ms=16, mew=size / 2)


def _floor(lowest: list[float]) -> float:
    """The left end of an axis: below all values but those far from the upper half of them."""
    values = np.array(lowest)
    middle, top = float(np.median(values)), float(values.max())
    near = values[values >= middle - 4 * max(top - middle, 0.01)]
    return max(0.0, float(near.min()) - 0.08 * max(top - float(near.min()), 0.01))


def _sweep(study: Study, prefix: str) -> dict[float, str]:
    """The rows of a sweep by the value that follows the prefix in their labels."""
    return {float(label.removeprefix(prefix)): label for label in study.rows if label.startswith(prefix)}
