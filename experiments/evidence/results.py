"""The content of a study's file: its rows, spreads over their seeds, and when they reached a target."""

import dataclasses
import functools
import itertools
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments import pages
from experiments.configs import CONFIGS
from experiments.evidence.studies import PLAN, path_of
from experiments.rules import RULES as OPTIMIZERS
from experiments.spread import Spread

TARGETS: dict[str, dict[str, float]] = {
    "digits": {"training": 0.95, "validation": 0.95},
    "fashion-mnist-binary": {"training": 0.85, "validation": 0.85},
    "spoken-digits": {"training": 0.90, "validation": 0.85},
    "fashion-mnist": {"training": 0.80, "validation": 0.80},
    "n-mnist": {"training": 0.80, "validation": 0.70},
    "cifar10-small": {"training": 0.45, "validation": 0.40},
    "cifar10-medium": {"training": 0.60, "validation": 0.60},
    "speech-commands-mini": {"training": 0.60, "validation": 0.60},
}
"""The target accuracies to which batches are counted, by config."""


SPEED_TARGETS: dict[str, tuple[float, float, float]] = {
    "digits": (0.95, 0.98, 0.99),
    "fashion-mnist-binary": (0.85, 0.86, 0.87),
    "spoken-digits": (0.80, 0.85, 0.90),
    "fashion-mnist": (0.75, 0.80, 0.84),
    "n-mnist": (0.60, 0.70, 0.75),
}
"""The three target validation accuracies in the study of speed."""


class Reached(NamedTuple):
    """When a target was reached.

    Attributes:
      batches: mean over the seeds that reached it; NaN where none did.
      seeds: how many seeds reached it.
      of: the number of all seeds.
      at_most: whether one of them had already reached it at the first measurement, so that batches is a bound.
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


class Row(NamedTuple):
    """Runs of one setting that differ in their seed."""

    label: str
    settings: Mapping[str, Any]
    runs: Sequence[Mapping[str, Any]]

    def spread(self, part: str) -> Spread:
        """Of a number that each run holds, or of the validation accuracy at its end."""
        return Spread.of(run[part][-1][1] if part == "validation" else run[part] for run in self.runs)

    def gap(self, part: str) -> Spread | None:
        """Accuracy with the test batch's own statistics minus that with others, seed by seed; None: it has none."""
        if any(run[part] is None for run in self.runs):
            return None
        return Spread.of(run["test_batch"] - run[part] for run in self.runs)

    @property
    def test(self) -> Spread:
        """Accuracy on the test set."""
        return self.spread("test")

    @property
    def memory(self) -> dict[str, int] | None:
        """The bytes of the training, of the run in which they were measured."""
        return next((run["memory"] for run in self.runs if "memory" in run), None)

    @property
    def step_bytes(self) -> int | None:
        """Bytes of the compiled step: arguments and temporaries."""
        return None if self.memory is None else self.memory["step_arguments"] + self.memory["step_temporaries"]

    @property
    def bits(self) -> float | None:
        """Bits of training state per binary weight: its sign, and everything that the optimizers keep."""
        if self.memory is None:
            return None
        held = sum(self.memory[part] for part in ("signs_packed", "momentum", "optimizer_other"))
        return 8 * held / (self.memory["latent_adam"] / 12)

    @property
    def updates_per_batch(self) -> int:
        """How often a run with these settings calls its optimizer per batch."""
        return 1 if OPTIMIZERS[self.settings["optimizer"]].through_time else self.settings["num_steps"]

    def batches_to(self, part: str, target: float) -> Reached:
        """Batches that the runs needed to an accuracy in "training" or "validation"."""
        found = [crossing(run[part.replace("training", "train")], target) for run in self.runs]
        there = [one for one in found if one is not None]
        updates = float(np.mean([count for count, _ in there])) if there else math.nan
        return Reached(updates / self.updates_per_batch, len(there), len(found), any(bound for _, bound in there))

    def smoothed_to(self, target: float) -> Reached:
        """As batches_to, of the mean of the last three evaluations, which must have reached the validation target."""
        found = [smoothed_crossing(run["validation"], target) for run in self.runs]
        there = [count for count in found if count is not None]
        updates = float(np.mean(there)) if there else math.nan
        return Reached(updates / self.updates_per_batch, len(there), len(found), False)

    def seconds_to(self, target: float) -> str:
        """Seconds of training, without evaluations, to a validation accuracy, in proportion to its batches."""
        seconds = [
            run["seconds"] * reached / run["validation"][-1][0]
            for run in self.runs
            if (reached := smoothed_crossing(run["validation"], target)) is not None
        ]
        return f"{np.mean(seconds):.1f}" if len(seconds) == len(self.runs) else "-"


Columns = Mapping[str, Callable[[Row], str]]
"""The content of a table's cells, by column head."""


@dataclasses.dataclass(frozen=True)
class Study:
    """A study on a config; its content is None if it has not been run."""

    name: str
    config: str
    content: Mapping[str, Any] | None = None

    @functools.cached_property
    def rows(self) -> dict[str, Row]:
        """The rows that have runs."""
        rows = {} if self.content is None else self.content["rows"]
        return {label: Row(label, **row) for label, row in rows.items() if row["runs"]}

    @property
    def missing(self) -> str:
        """The text shown in place of a missing result."""
        return f"not run yet: `python -m experiments.evidence --only {self.name}:{self.config}`"

    @property
    def source(self) -> str:
        """The line that names the file of a table; empty where there is none."""
        path = f"results/{path_of(self.name, self.config).name}"
        return "" if self.content is None else pages.source(path, self.content)

    def tests(self, labels: Iterable[str]) -> dict[str, Spread]:
        """Test accuracy by label, of the rows that have runs."""
        return {label: self.rows[label].test for label in labels if label in self.rows}

    def table(self, heads: Sequence[str], labels: Iterable[str], columns: Columns) -> str:
        """A table with one line per label, which is split at its last commas into as many cells as it has heads."""
        lines = []
        for label in labels:
            cells = [cell(self.rows[label]) for cell in columns.values()] if label in self.rows else [self.missing]
            lines.append((*label.rsplit(", ", len(heads) - 1), *cells))
        return pages.table((*heads, *columns), lines)


Studies = Mapping[str, Study]
"""One study by config."""


def load(root: Path) -> Mapping[str, Studies]:
    """Reads every study by its name: those of the plan, and others whose file is there."""
    evidence = {}
    for name, (_, configs) in PLAN.items():
        paths = {config: root / path_of(name, config) for config in dict.fromkeys((*configs, *CONFIGS))}
        evidence[name] = {
            config: Study(name, config, json.loads(path.read_text()) if path.exists() else None)
            for config, path in paths.items()
            if config in configs or path.exists()
        }
    return evidence


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


def smoothed_crossing(points: list[list[float]], target: float) -> float | None:
    """The count at which the mean of three consecutive evaluations first reaches a target; None: never."""
    for first, second, third in zip(points, points[1:], points[2:], strict=False):
        if (first[1] + second[1] + third[1]) / 3 >= target:
            return third[0]
    return None
