"""The tables of a study: from its JSON to Markdown, and to the sentences that follow from the numbers."""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments import pages, presets
from experiments.evidence.readings import (
    OURS,
    ROUNDING,
    TARGETS,
    Result,
    Run,
    batches_to,
    beats,
    gap_of,
    memory_of,
    rules_of,
    runs_of,
    spread,
    targets_of,
    tests,
)
from experiments.evidence.studies import GRIDS, LATENT_FREE, RULES, TUNED_ON, best, text_of, tried
from experiments.pages import table
from experiments.spread import Spread


def not_run(study: str, config: str) -> str:
    """What stands where a result is missing."""
    return f"not run yet: `python -m experiments.evidence --only {study}:{config}`"


def source(study: str, config: str, result: Result | None) -> str:
    """The line that names the file of a table; empty where there is none."""
    return "" if result is None else pages.source(f"results/{study}-{config}.json", result)


def rows_of(
    study: str, config: str, result: Result | None, labels: Iterable[str], cells: Callable[[str, list[Run]], Any]
) -> Iterator[tuple[str, ...]]:
    """A row a label, with its cells, or the command that runs it."""
    for label in labels:
        runs = runs_of(result, label)
        yield (label, *cells(label, runs)) if runs else (label, not_run(study, config))


def rivals(config: str, result: Result | None) -> str:
    """The rules that are compared on one config."""
    labels, (training, validation) = rules_of(config), TARGETS[config]
    header = ("rule", "test accuracy, %", "lowest to highest", f"batches to training {training:.0%}",
              f"to validation {validation:.0%}", "flips a weight", "spike rate", "state, KiB", "compiled step, KiB")  # fmt: skip
    accuracies = tests(result, labels)
    marks = _marks(accuracies)

    def cells(label: str, runs: list[Run]) -> Iterator[str]:
        assert result is not None
        yield marks.get(label, "{}").format(accuracies[label].percent)
        yield accuracies[label].percent_range
        for _, part, target in targets_of(config):
            yield str(batches_to(result["rows"][label], part, target))
        yield f"{np.mean([run['flips_per_weight'] for run in runs]):.2f}"
        yield f"{np.mean([run['spike_rate'] for run in runs]):.3f}"
        memory = memory_of(result, label)
        for keys in (("signs", "momentum", "optimizer_other", "neurons"), ("step_arguments", "step_temporaries")):
            yield "-" if memory is None else " + ".join(_kib(memory[key]) for key in keys)

    return table(header, rows_of("rivals", config, result, labels, cells))


def verdict(config: str, result: Result | None) -> str:
    """The sentences below a comparison."""
    labels = rules_of(config)
    those = "all rules" if set(labels) == set(RULES) else "these rules"
    latent_free = [label for label in labels if label in LATENT_FREE]
    return (
        f"Is {OURS} the best of {those} by more than the spread (difference of means > the larger standard "
        f"deviation)? {beats(result, labels)[1]} And of the latent-free among them? {beats(result, latent_free)[1]}"
    )


def tuning(config: str, result: Result | None, compared: Result | None) -> str:
    """The grids, and the point of each that was best on validation data; or whose settings a config takes over.

    Args:
      config: the config's name.
      result: of the study tuning, on the config that the settings were chosen on.
      compared: of the study rivals; where its row was run with another point, that is said.
    """
    origin, labels = TUNED_ON.get(config, config), rules_of(config)
    untuned = f"Not tuned: {'; '.join(label for label in labels if label not in GRIDS)}."
    points = {label: tried(label, result) for label in labels if label in GRIDS}
    others = {label: _mismatch(best(found), compared, label) for label, found in points.items()}
    if origin != config:
        notes = "".join(f" {label}: {text_of(best(points[label]) or {})}{note}." for label, note in others.items() if note)
        return f"The settings are those chosen on {origin} (see there).{notes} {untuned}"
    missing = not_run("tuning", config)
    if result is None:
        return f"Tuning: {missing}."
    rows = []
    for label, found in points.items():
        scores = "; ".join(f"{text_of(point)}: {100 * score:.2f}" for point, score in found if score is not None)
        point = best(found)
        chosen = f"{text_of(point)}{_edge(point, label)}{others[label]}" if point else f"{missing} (incomplete)"
        rows.append((label, scores, chosen) if scores else (label, missing))
    grid = table(("rule", "tried, and its validation accuracy at the end, %", "chosen"), rows)
    return f"{grid}\n\n{untuned} {source('tuning', config, result)}"


def norms(config: str, result: Result | None, labels: Iterable[str]) -> str:
    """Test accuracy with three kinds of statistics, by rule and norm, and what stale statistics cost."""
    header = ("rule", "norm", "running statistics", "re-estimated", "the test batch's own", "gap: own - running",
              "gap: own - re-estimated")  # fmt: skip
    parts = ("test_running", "test", "test_batch")

    def cells(label: str, runs: list[Run]) -> list[str]:
        found = [*(spread(runs, part) for part in parts), *(gap_of(runs, part) for part in parts[:2])]
        return [one.percent if one else "-" for one in found]

    rows = rows_of("norms", config, result, labels, cells)
    return table(header, ((*label.rsplit(", ", 1), *rest) for label, *rest in rows))


def remaining_gaps(result: Result | None, labels: Iterable[str]) -> str:
    """The sentences below a table of normalisations."""
    accuracy = tests(result, labels)
    if not accuracy:
        return "Nothing can be said yet."
    highest = max(accuracy, key=lambda label: accuracy[label].mean)
    said = [f"Highest re-estimated accuracy: {highest} ({100 * accuracy[highest].mean:.2f} %)."]
    for part, name in (("test_running", "running"), ("test", "re-estimated")):
        gaps = {label: gap for label in accuracy if (gap := gap_of(runs_of(result, label), part))}
        closed = [label for label, gap in gaps.items() if gap.count > 1 and gap.mean <= gap.deviation + ROUNDING]
        left = "; ".join(closed) or "none"
        said.append(f"With {name} statistics no gap beyond the spread of its seeds remains for: {left}.")
    return " ".join(said)


class Group(NamedTuple):
    """Rows of one kind that stand in a table of their own.

    Attributes:
      title: what the table calls them.
      pattern: the regular expression that their labels match.
      pairs: rows that a sentence compares two by two; without any, the lowest with the highest.
    """

    title: str
    pattern: str
    pairs: Sequence[tuple[str, str]] = ()

    def of(self, labels: Iterable[str]) -> list[str]:
        """Returns the labels of the group, in their order."""
        return [label for label in labels if re.fullmatch(self.pattern, label)]


_PAPER = f"paper, threshold {presets.PAPER_THRESHOLD:g}"
_CALIBRATED = f"calibrated, c = {presets.CALIBRATED_C:g}"
_STALE = "statistics not re-estimated"
_GROWTH = f"Growth of the window; c = {presets.CALIBRATED_C:g} is the preset, growth {presets.CALIBRATED_GROWTH:g}"

ABLATIONS = (
    Group("Threshold of T-BSO, paper", "paper, threshold .*", [("paper, threshold 0", _PAPER)]),
    Group("Momentum reset (BSO, paper)", r"paper, .*\(BSO\)"),
    Group("Threshold of T-BSO, calibrated: c", "calibrated, c = .*"),
    Group(_GROWTH, f"calibrated, growth .*|{re.escape(_CALIBRATED)}"),
    Group("Trace", "calibrated, trace .*"),
    Group("Time steps", "calibrated, T = .*"),
    Group(
        "Statistics re-estimated before evaluations, or not",
        f".*{_STALE}|{re.escape(_PAPER)}|{re.escape(_CALIBRATED)}",
        [(f"T-BSO, paper, {_STALE}", _PAPER), (f"{OURS}, {_STALE}", _CALIBRATED)],
    ),
)
"""The ablations; a row of no group goes into one of its own."""

SAVINGS = (
    Group("Momentum, T-BSO calibrated", "[^,]* momentum"),
    Group("Momentum, T-BSO paper", "paper, .*"),
    Group("Time steps that backpropagate", "float32 momentum|backward .*"),
)
"""What saves memory or time; the first row of each is that which saves nothing."""


def ablations(config: str, result: Result | None, labels: Sequence[str]) -> str:
    """A small table for each group of ablations, with a sentence."""
    grouped = {label for group in ABLATIONS for label in group.of(labels)}
    others = "|".join(re.escape(label) for label in labels if label not in grouped)
    groups = (*ABLATIONS, Group("Others", others)) if others else ABLATIONS
    return _grouped("ablations", config, result, labels, groups)


def savings(config: str, result: Result | None, labels: Sequence[str]) -> str:
    """What smaller states and fewer backward passes cost: a table a kind, each row against its first."""
    groups = []
    for group in SAVINGS:
        first, *rest = group.of(labels)
        groups.append(group._replace(pairs=[(first, label) for label in rest]))
    return _grouped("savings", config, result, labels, groups)


def _grouped(study: str, config: str, result: Result | None, labels: Sequence[str], groups: Iterable[Group]) -> str:
    columns = ("validation accuracy, %", "test accuracy, %", "lowest to highest", "flips a weight")

    def cells(_: str, runs: list[Run]) -> list[str]:
        validation, test, flips = (spread(runs, part) for part in ("validation", "test", "flips_per_weight"))
        assert validation and test and flips
        return [validation.percent, test.percent, test.percent_range, f"{flips.mean:.2f}"]

    parts = []
    for group in groups:
        members = group.of(labels)
        parts.append(table((group.title, *columns), rows_of(study, config, result, members, cells)))
        parts.append(_compared(tests(result, members), group.pairs))
    return pages.joined(*parts)


def _compared(found: dict[str, Spread], pairs: Sequence[tuple[str, str]]) -> str:
    """How far apart the test accuracies of each pair are, or if there is none, the lowest and the highest."""
    repeated = {label: row for label, row in found.items() if row.count > 1}
    if not pairs and len(repeated) > 1:
        ordered = sorted(repeated, key=lambda label: repeated[label].mean)
        pairs = [(ordered[0], ordered[-1])]
    said = []
    for first, second in pairs:
        if first in repeated and second in repeated:
            step = repeated[second].mean - repeated[first].mean
            larger = max(repeated[first].deviation, repeated[second].deviation)
            more = "more than" if abs(step) > larger + ROUNDING else "within"
            said.append(
                f"From '{first}' to '{second}': {100 * step:+.2f} points on the test set, {more} the larger standard "
                f"deviation ({100 * larger:.2f})."
            )
    return " ".join(said) or "Nothing can be said yet."


def _marks(found: dict[str, Spread]) -> dict[str, str]:
    """How the accuracy of a row is written: the highest bold, what lies within the pooled spread of it with a sign."""
    if not found:
        return {}
    top = max(found, key=lambda label: found[label].mean)
    pooled = {label: math.sqrt((found[top].deviation ** 2 + row.deviation**2) / 2) for label, row in found.items()}
    near = [label for label, row in found.items() if found[top].mean - row.mean <= pooled[label] + ROUNDING]
    return dict.fromkeys(near, "≈ {}") | {top: "**{}**"}


def _edge(point: dict[str, float], label: str) -> str:
    """Whether a chosen point lies at the end of a grid of more than two values."""
    grid = GRIDS[label].items()
    ends = [name for name, values in grid if len(values) > 2 and point[name] in (min(values), max(values))]
    return f" (an end of the grid: {', '.join(ends)})" if ends else ""


def _mismatch(point: dict[str, float] | None, compared: Result | None, label: str) -> str:
    """Whether the comparison was run with other settings than the chosen ones."""
    row = None if compared is None else compared["rows"].get(label)
    used = {name: row["settings"][name] for name in point} if point and row else point
    if used == point:
        return ""
    told = ", ".join(f"{name} {'None' if value is None else format(value, 'g')}" for name, value in used.items())
    return f" (but the comparison was run with {told})"


def _kib(size: int) -> str:
    return f"{size / 1024:,.0f}" if size >= 10 * 1024 else f"{size / 1024:.1f}"
