"""What the rows of a study say: spreads over seeds, and when a target was reached."""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from experiments.evidence import studies
from experiments.evidence.studies import FEW, RULES
from experiments.rules import RULES as OPTIMIZERS

Result = Mapping[str, Any]

Results = Mapping[str, Result | None]
"""The results of one study by config, None where it has not been run."""

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


@dataclasses.dataclass(frozen=True)
class Spread:
    """Mean, standard deviation (n - 1; NaN for one value), least and greatest of the values of some seeds."""

    mean: float
    deviation: float
    lowest: float
    highest: float
    seeds: int

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        """Of at least one value."""
        array = np.array(list(values), np.float64)
        deviation = float(array.std(ddof=1)) if len(array) > 1 else math.nan
        return cls(float(array.mean()), deviation, float(array.min()), float(array.max()), len(array))

    def __str__(self) -> str:
        """In per cent."""
        deviation = "(one seed)" if math.isnan(self.deviation) else f"± {100 * self.deviation:.2f}"
        return f"{100 * self.mean:.2f} {deviation}"


@dataclasses.dataclass(frozen=True)
class Reached:
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


def runs_of(result: Result | None, label: str) -> list[dict[str, Any]]:
    """The runs of a row, none if it is missing."""
    return [] if result is None else result["rows"].get(label, {"runs": []})["runs"]


def tests(result: Result | None, labels: Iterable[str]) -> dict[str, Spread]:
    """Test accuracy by label, of the rows that have runs."""
    runs = {label: runs_of(result, label) for label in labels}
    return {label: Spread.of(run["test"] for run in done) for label, done in runs.items() if done}


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
    counts = [count for count in found if count is not None]
    mean = float(np.mean([count for count, _ in counts])) if counts else math.nan
    return Reached(
        mean / updates_per_batch(row["settings"]), len(counts), len(found), any(bound for _, bound in counts)
    )


def targets_of(config: str) -> Iterator[tuple[str, str, float]]:
    """The targets of a config: what each is called, where its curve lies in a run, and the accuracy."""
    training, validation = TARGETS[config]
    yield "training", "train", training
    yield "validation", "validation", validation


def memory_of(result: Result | None, label: str) -> dict[str, int] | None:
    """The bytes of a row's training, of the run in which they were measured."""
    return next((run["memory"] for run in runs_of(result, label) if "memory" in run), None)


def step_bytes(result: Result | None, label: str) -> int | None:
    """Bytes of a row's compiled step: arguments and temporaries."""
    memory = memory_of(result, label)
    return None if memory is None else memory["step_arguments"] + memory["step_temporaries"]


def beats(result: Result | None, labels: Iterable[str]) -> tuple[bool | None, str]:
    """Whether ours is the best of some rules by more than the spread.

    Returns:
      The answer, None if runs are missing, and the sentence.
    """
    rivals_ = [label for label in labels if label != OURS]
    found = tests(result, [OURS, *rivals_])
    missing = [label for label in (OURS, *rivals_) if label not in found or found[label].seeds < 2]
    if missing:
        return None, f"It cannot be said yet, for want of runs of {'; '.join(missing)}."
    ours = found[OURS]
    leads = {label: (ours.mean - found[label].mean, max(ours.deviation, found[label].deviation)) for label in rivals_}
    close = [label for label, (lead, spread) in leads.items() if lead <= spread + ROUNDING]
    if not close:
        label = min(leads, key=lambda label: leads[label][0] - leads[label][1])
        return True, f"**Yes**; {label} comes closest, {_points(leads[label])}."
    named = "; ".join(f"{label} ({_points(leads[label])})" for label in close)
    return False, f"**No**; it is not ahead by more than the spread of {named}."


def gap_of(runs: list[dict[str, Any]], key: str) -> Spread | None:
    """Accuracy with the test batch's own statistics minus that with others, seed by seed."""
    if any(run[key] is None for run in runs):
        return None
    return Spread.of(run["test_batch"] - run[key] for run in runs)


def tried(origin: str, result: Result | None, label: str) -> dict[str, float | None]:
    """Validation accuracy at the end for every point of a row's grid, None where it has not been run."""
    rows = [job.label for job in studies.tuning(origin) if job.label.startswith(f"{label}, ")]
    runs = {row.removeprefix(f"{label}, "): runs_of(result, row) for row in rows}
    return {point: done[0]["validation"][-1][1] if done else None for point, done in runs.items()}


def best_of(scores: Mapping[str, float | None]) -> str | None:
    """The first of the best points; None while some have not been run."""
    known = {point: score for point, score in scores.items() if score is not None}
    return max(known, key=lambda point: known[point]) if len(known) == len(scores) else None


def _points(lead: tuple[float, float]) -> str:
    ahead, spread = lead
    side = "ahead" if ahead >= 0 else "behind"
    return f"{100 * abs(ahead):.2f} points {side}, spread {100 * spread:.2f}"
