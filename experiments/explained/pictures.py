"""The pictures of docs/explanation, from what was computed."""

from pathlib import Path
from typing import Any

import numpy as np

from experiments.explained.flips import SIGNAL, TURN
from experiments.pages import BLUE, GREY, ORANGE, figure, finish, save_picture

GREEN, PURPLE = "#009E73", "#CC79A7"
LINES = {
    "10 updates": (ORANGE, "--"),
    "1,000 updates": (GREY, "-."),
    "growing": (BLUE, "-"),
    "OTTT": (BLUE, "-"),
    "NDOT": (GREEN, "--"),
    "NDOT, released": (PURPLE, ":"),
    "none (SLTT)": (ORANGE, "-."),
}
"""Colour and line of a curve: either distinguishes it."""


def draw(folder: Path, result: dict[str, Any]) -> list[Path]:
    """Draws all pictures into a folder and returns their files."""
    made = {
        "explained-flip": one_weight(result["one weight"]),
        "explained-threshold": thresholds(result["thresholds"]),
        "explained-window": windows(result["windows"]),
        "explained-gradients": gradients(result["gradients"]),
        "explained-statistics": statistics(result["training"]["paper"]),
        "explained-deployed": deployed(result["training"]["calibrated"]),
    }
    return [save_picture(folder / f"{name}.png", drawing) for name, drawing in made.items()]


def one_weight(found: dict[str, Any]) -> Any:
    """The momentum of a weight between its two thresholds, and the sign that it controls."""
    drawing = figure(9, 4)
    upper, lower = drawing.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    signs, momentum, gamma = np.array(found["signs"]), np.array(found["momentum"]), found["threshold"]
    updates = np.arange(1, len(signs) + 1)
    flips = np.flatnonzero(np.diff(signs)) + 1
    upper.plot(updates, momentum, color=BLUE, lw=1.2, label="momentum M")
    for at in (gamma, -gamma):
        upper.axhline(at, color="black", lw=1, ls="--", label="threshold, on either side" if at > 0 else None)
    upper.plot(updates[flips], momentum[flips], "o", color=ORANGE, ms=7, label="flip")
    upper.legend(loc="upper right", fontsize=9, ncols=3)
    upper.set_ylim(-0.45, 0.5)
    finish(upper, "A weight flips when its momentum passes the threshold on the side of its sign")
    lower.step(updates, signs, where="post", color="black", lw=1.5)
    lower.set_yticks([-1, 1], ["-1", "+1"])
    finish(lower, "", "updates", "sign")
    return drawing


def thresholds(found: dict[str, Any]) -> Any:
    """What a threshold prevents, and what it costs."""
    drawing = figure(9, 3.3)
    left, right = drawing.subplots(1, 2)
    places = np.arange(len(found["c"]))
    panels = (
        (left, "flips_in_1000", ORANGE, "Under noise alone", "flips in 1,000 updates"),
        (right, "updates_to_flip", BLUE, f"A wrong sign, mean gradient {SIGNAL:g} of its noise", "updates to a flip"),
    )
    for axes, name, color, title, y in panels:
        bars = axes.bar(places, found[name], 0.6, color=color)
        axes.bar_label(bars, fmt="%.3g", fontsize=9)
        axes.set_xticks(places, [f"{c:g}" for c in found["c"]])
        finish(axes, title, "threshold, in deviations of the momentum's noise", y)
        axes.margins(y=0.12)
    return drawing


def windows(found: dict[str, Any]) -> Any:
    """Signs at +1, by the window of the momentum, before and after the gradient turns."""
    drawing = figure(9, 3.6)
    axes = drawing.subplots()
    updates = np.array(found["updates"])
    for name, values in found["at +1"].items():
        color, line = LINES[name]
        right = np.where(updates <= TURN, values, 1 - np.array(values))
        axes.plot(updates, 100 * right, line, color=color, lw=1.8, label=f"window: {name}")
    axes.axvline(TURN, color="black", lw=1, ls=":")
    axes.annotate("gradients turn", (TURN, 8), (5, 0), textcoords="offset points", fontsize=9)
    axes.set_xscale("log")
    axes.legend(loc="lower left", fontsize=9)
    finish(axes, "A long window is quiet but remembers what is over", "updates", "signs that are right, %")
    return drawing


def gradients(found: dict[str, Any]) -> Any:
    """The cosine of the online gradient to that through time, by trace and time steps."""
    drawing = figure(9, 3.6)
    axes = drawing.subplots()
    steps = found["num_steps"]
    for name, rows in found["cosines"].items():
        color, line = LINES[name]
        values = np.array(rows)
        axes.plot(steps, values.mean(1), line, color=color, lw=1.8, marker="o", ms=4, label=f"trace: {name}")
        axes.fill_between(steps, values.min(1), values.max(1), color=color, alpha=0.12, lw=0)
    axes.set_xscale("log", base=2)
    axes.set_xticks(steps, map(str, steps))
    axes.legend(loc="lower left", fontsize=9, ncols=2)
    title = "Online gradients point almost where backpropagation through time does"
    finish(axes, title, "time steps T", "cosine")
    return drawing


def statistics(found: list[list[dict[str, float]]]) -> Any:
    """Accuracy with running and with re-estimated statistics while signs flip."""
    drawing = figure(9, 3.6)
    axes = drawing.subplots()
    batches, of = _curves(found)
    for name, label, color, line in (
        ("trained", "statistics re-estimated", BLUE, "-"),
        ("running", "running statistics", ORANGE, "--"),
    ):
        _band(axes, batches, 100 * of[name], color, line, label)
    axes.legend(loc="lower right", fontsize=9)
    finish(axes, "The same signs, read with two kinds of statistics", "batches", "accuracy, %")
    return drawing


def deployed(found: list[list[dict[str, float]]]) -> Any:
    """Trained and deployed signs: accuracy, and what a batch changes."""
    drawing = figure(9, 3.8)
    left, right = drawing.subplots(1, 2)
    batches, of = _curves(found)
    kinds = (("trained", ORANGE, "--"), ("deployed", BLUE, "-"))
    for name, color, line in kinds:
        _band(left, batches, 100 * of[name], color, line, f"{name} signs")
        changed = 100 * of[f"changed_{name}"]
        _band(right, batches, np.maximum(changed, 1e-3), color, line, f"{name} signs")
    left.legend(loc="lower right", fontsize=9)
    right.set_yscale("log")
    right.legend(loc="lower left", fontsize=9)
    finish(left, "Accuracy of both readings", "batches", "accuracy, %")
    finish(right, "Signs that one batch changes", "batches", "%")
    return drawing


def _curves(found: list[list[dict[str, float]]]) -> tuple[list[float], dict[str, np.ndarray]]:
    """Returns the batches, and by name arrays of shape (seeds, batches)."""
    names = found[0][0].keys()
    of = {name: np.array([[record[name] for record in run] for run in found]) for name in names}
    return [record["batch"] for record in found[0]], of


def _band(axes: Any, x: list[float], values: np.ndarray, color: str, line: str, label: str) -> None:
    """A mean, and from the lowest to the highest seed."""
    axes.plot(x, values.mean(0), line, color=color, lw=1.8, label=label)
    axes.fill_between(x, values.min(0), values.max(0), color=color, alpha=0.15, lw=0)
