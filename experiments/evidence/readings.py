"""What the runs of a study say: spreads over seeds, when a target was reached, and who is ahead by more than that."""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from experiments.evidence.studies import FEW, RULES
from experiments.rules import RULES as OPTIMIZERS
from experiments.spread import Spread

Result = Mapping[str, Any]

Results = Mapping[str, Result | None]
"""The results of one study by config, None where it has not been run."""

Run = Mapping[str, Any]

OURS = "T-BSO, calibrated"
"""The row that is to be the best."""

TARGETS: dict[str, tuple[float, float]] = {
    "digits": (0.95, 0.95),
    "fashion-mnist-binary": (0.85, 0.85),
    "spoken-digits": (0.90, 0.85),
    "fashion-mnist": (0.80, 0.80),
    "n-mnist": (0.80, 0.70),
    "cifar10-small": (0.45, 0.40),
}
"""The training and the validation accuracy to which batches are counted, by config."""

ROUNDING = 1e-6
"""Differences of accuracies, which are float32, that are this close are equal: 0.81 - 0.80 is not more than 0.01."""


class Reached(NamedTuple):
    """When a target was reached.

    Attributes:
      batches: mean over the seeds that reached it; NaN where none did.
      seeds: how many seeds reached it.
      of: of how many.
      at_most: whether one of them had already reached it where it was first measured, so that batches is a bound.
    """

    batches: float
    seeds: int
    of: int
    at_most: bool

    @property
    def by_all(self) -> bool:
        """Whether every seed reached it."""
        return 0 < self.seeds == self.of

    def __str__(self) -> str:
        if not self.seeds:
            return "never"
        share = "" if self.by_all else f" ({self.seeds} of {self.of})"
        return f"{'≤ ' if self.at_most else ''}{self.batches:,.0f}{share}"


def rules_of(config: str) -> tuple[str, ...]:
    """The rows of the comparison on a config: every rule, or on a slow config a few."""
    return FEW.get(config, tuple(RULES))


def runs_of(result: Result | None, label: str) -> list[Run]:
    """The runs of a row, none if it is missing."""
    return [] if result is None else result["rows"].get(label, {"runs": []})["runs"]


def spread(runs: Iterable[Run], part: str) -> Spread | None:
    """Of a number that each run holds, or of the validation accuracy at its end; None where there is none."""
    values = [run[part][-1][1] if part == "validation" else run[part] for run in runs]
    return Spread.of(values) if values and None not in values else None


def tests(result: Result | None, labels: Iterable[str]) -> dict[str, Spread]:
    """Test accuracy by label, of the rows that have runs."""
    return {label: found for label in labels if (found := spread(runs_of(result, label), "test"))}


def gap_of(runs: Iterable[Run], part: str) -> Spread | None:
    """Accuracy with the test batch's own statistics minus that with others, seed by seed."""
    runs = list(runs)
    return spread(({"gap": run["test_batch"] - run[part]} for run in runs), "gap") if spread(runs, part) else None


def updates_per_batch(settings: Mapping[str, Any]) -> int:
    """How often a run with these settings calls its optimizer a batch."""
    return 1 if OPTIMIZERS[settings["optimizer"]].through_time else settings["num_steps"]


def crossing(points: list[list[float]], target: float) -> tuple[float, bool] | None:
    """Where a curve first reaches a target.

    Args:
      points: (count, accuracy), counts ascending; between them the curve is linear.
      target: the accuracy.

    Returns:
      The count, and whether it is only an upper bound because the first point is there already; None: never.
    """
    if points[0][1] >= target:
        return points[0][0], True
    for (start, low), (end, high) in itertools.pairwise(points):
        if high >= target:
            return start + (end - start) * (target - low) / (high - low), False
    return None


def batches_to(row: Mapping[str, Any], part: str, target: float) -> Reached:
    """Batches that a row's runs needed to a target; part is "train" or "validation"."""
    found = [crossing(run[part], target) for run in row["runs"]]
    there = [one for one in found if one is not None]
    updates = float(np.mean([count for count, _ in there])) if there else math.nan
    batches = updates / updates_per_batch(row["settings"])
    return Reached(batches, len(there), len(found), any(bound for _, bound in there))


def targets_of(config: str) -> Iterator[tuple[str, str, float]]:
    """The targets of a config: what each is called, where its curve lies in a run, and the accuracy."""
    return zip(("training", "validation"), ("train", "validation"), TARGETS[config], strict=True)


def memory_of(result: Result | None, label: str) -> dict[str, int] | None:
    """The bytes of a row's training, of the run in which they were measured."""
    return next((run["memory"] for run in runs_of(result, label) if "memory" in run), None)


def beats(result: Result | None, labels: Iterable[str]) -> tuple[bool | None, str]:
    """Whether ours is the best of some rules by more than the spread.

    Returns:
      The answer, None if runs are missing, and the sentence.
    """
    found = {label: tests(result, [label]).get(label) for label in dict.fromkeys((OURS, *labels))}
    missing = [label for label, row in found.items() if row is None or row.count < 2]
    if missing:
        return None, f"It cannot be said yet, for want of runs of {'; '.join(missing)}."
    ours, *others = (row for row in found.values() if row is not None)
    leads = {
        label: (ours.mean - row.mean, max(ours.deviation, row.deviation))
        for label, row in zip([*found][1:], others, strict=True)
    }
    said = {
        label: f"{100 * abs(lead):.2f} points {'ahead' if lead >= 0 else 'behind'}, spread {100 * deviation:.2f}"
        for label, (lead, deviation) in leads.items()
    }
    close = [label for label, (lead, deviation) in leads.items() if lead <= deviation + ROUNDING]
    if close:
        named = "; ".join(f"{label} ({said[label]})" for label in close)
        return False, f"**No**; it is not ahead by more than the spread of {named}."
    nearest = min(leads, key=lambda label: leads[label][0] - leads[label][1])
    return True, f"**Yes**; {nearest} comes closest, {said[nearest]}."
