"""What the rows of a study say: spreads over seeds, and when a target was reached."""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from experiments.rules import RULES as OPTIMIZERS

Result = Mapping[str, Any]

Results = Mapping[str, Result | None]
"""The results of one study by config, None where it has not been run."""

OURS = "T-BSO, calibrated"
"""The row that is to be the best."""

TARGETS: dict[str, tuple[float, float]] = {
    "digits": (0.95, 0.95),
    "digits-binary": (0.90, 0.90),
    "fashion-mnist-binary": (0.80, 0.80),
    "spoken-digits": (0.90, 0.85),
    "fashion-mnist": (0.75, 0.72),
    "n-mnist": (0.80, 0.70),
    "cifar10-small": (0.45, 0.40),
}
"""The training and the validation accuracy to which batches are counted, by config."""


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
