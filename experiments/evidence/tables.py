"""The tables of a study: from its JSON to Markdown, and to the sentences that follow from the numbers."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from experiments import presets
from experiments.evidence.readings import (
    OURS,
    ROUNDING,
    TARGETS,
    Result,
    Spread,
    batches_to,
    beats,
    best_of,
    gap_of,
    memory_of,
    rules_of,
    runs_of,
    targets_of,
    tests,
    tried,
)
from experiments.evidence.studies import GRIDS, LATENT_FREE, RULES, TUNED_ON


def not_run(study: str, config: str) -> str:
    """What stands where a result is missing."""
    return f"not run yet: `python -m experiments.evidence --only {study}:{config}`"


def source(study: str, config: str, result: Result) -> str:
    """The line that names the file of a table."""
    name = f"{study}-{config}.json"
    return f"From [results/{name}](results/{name}), written by `{result['command']}` on {result['device']}."


def table(header: tuple[str, ...], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def rivals(config: str, result: Result | None) -> str:
    """The rules that are compared on one config."""
    labels, targets = rules_of(config), TARGETS[config]
    header = (
        "rule",
        "test accuracy, %",
        "lowest to highest",
        f"batches to training {targets[0]:.0%}",
        f"to validation {targets[1]:.0%}",
        "flips a weight",
        "spike rate",
        "state, KiB",
        "compiled step, KiB",
    )
    marks = _marks(tests(result, labels))
    return table(header, (_rival(config, result, label, marks) for label in labels))


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
    tuned, untuned = [label for label in labels if label in GRIDS], [label for label in labels if label not in GRIDS]
    points = {label: tried(origin, result, label) for label in tuned}
    best = {label: best_of(scores) for label, scores in points.items()}
    others = {label: _mismatch(point, compared, label) if point else "" for label, point in best.items()}
    if origin != config:
        notes = "".join(f" {label}: {best[label]}{other}." for label, other in others.items() if other)
        return f"The settings are those chosen on {origin} (see there).{notes} Not tuned: {'; '.join(untuned)}."
    if result is None:
        return f"Tuning: {not_run('tuning', config)}."
    rows = []
    for label, found in points.items():
        scores = "; ".join(f"{point}: {100 * score:.2f}" for point, score in found.items() if score is not None)
        point, missing = best[label], not_run("tuning", config)
        chosen = f"{point}{_edge(point, GRIDS[label])}{others[label]}" if point else f"{missing} (incomplete)"
        rows.append((label, scores, chosen) if scores else (label, missing, ""))
    header = ("rule", "tried, and its validation accuracy at the end, %", "chosen")
    return f"{table(header, rows)}\n\nNot tuned: {'; '.join(untuned)}. {source('tuning', config, result)}"


def norms(config: str, result: Result | None, labels: Iterable[str]) -> str:
    """Test accuracy with three kinds of statistics, by rule and norm, and what stale statistics cost."""
    header = (
        "rule",
        "norm",
        "running statistics",
        "re-estimated",
        "the test batch's own",
        "gap: own - running",
        "gap: own - re-estimated",
    )
    keys = ("test_running", "test", "test_batch")
    rows = []
    for label in labels:
        rule, _, kind = label.rpartition(", ")
        runs = runs_of(result, label)
        if not runs:
            rows.append((rule, kind, not_run("norms", config), *([""] * 4)))
            continue
        rows.append((rule, kind, *(_of_key(runs, key) for key in keys), *(_gap(runs, key) for key in keys[:2])))
    return table(header, rows)


def remaining_gaps(result: Result | None, labels: Iterable[str]) -> str:
    """The sentences below a table of normalisations."""
    labels = list(labels)
    done = {label: runs for label in labels if (runs := runs_of(result, label))}
    if not done:
        return "Nothing can be said yet."
    accuracy = {label: row.mean for label, row in tests(result, labels).items()}
    best = max(accuracy, key=lambda label: accuracy[label])
    parts = [f"Highest re-estimated accuracy: {best} ({100 * accuracy[best]:.2f} %)."]
    for key, name in (("test_running", "running"), ("test", "re-estimated")):
        gaps = {label: gap for label, runs in done.items() if (gap := gap_of(runs, key)) is not None}
        closed = [label for label, gap in gaps.items() if gap.seeds > 1 and gap.mean <= gap.deviation + ROUNDING]
        parts.append(
            f"With {name} statistics no gap beyond the spread of its seeds remains for: {'; '.join(closed) or 'none'}."
        )
    return " ".join(parts)


@dataclasses.dataclass(frozen=True)
class Group:
    """Ablations of one kind.

    Attributes:
      title: what the table calls them.
      holds: whether a row is one of them.
      pairs: rows that a sentence compares two by two; none: the lowest with the highest.
    """

    title: str
    holds: Callable[[str], bool]
    pairs: tuple[tuple[str, str], ...] = ()


_PAPER = f"paper, threshold {presets.PAPER_THRESHOLD:g}"
_CALIBRATED = f"calibrated, c = {presets.CALIBRATED_C:g}"
_STALE = "statistics not re-estimated"

GROUPS = (
    Group(
        "Threshold of T-BSO, paper",
        lambda label: label.startswith("paper, threshold "),
        (("paper, threshold 0", _PAPER),),
    ),
    Group("Momentum reset (BSO, paper)", lambda label: label.startswith("paper, ") and label.endswith("(BSO)")),
    Group("Threshold of T-BSO, calibrated: c", lambda label: label.startswith("calibrated, c = ")),
    Group(
        f"Growth of the window; c = {presets.CALIBRATED_C:g} is the preset, growth {presets.CALIBRATED_GROWTH:g}",
        lambda label: label.startswith("calibrated, growth ") or label == _CALIBRATED,
    ),
    Group("Trace", lambda label: label.startswith("calibrated, trace ")),
    Group("Time steps", lambda label: label.startswith("calibrated, T = ")),
    Group(
        "Statistics re-estimated before evaluations, or not",
        lambda label: label.endswith(_STALE) or label in (_PAPER, _CALIBRATED),
        ((f"T-BSO, paper, {_STALE}", _PAPER), (f"{OURS}, {_STALE}", _CALIBRATED)),
    ),
)
"""The ablations; a row of no group goes into one of its own."""


def ablations(config: str, result: Result | None, labels: Iterable[str]) -> str:
    """A small table for each group of ablations, with a sentence."""
    labels = list(labels)
    rest = [label for label in labels if not any(group.holds(label) for group in GROUPS)]
    others = (Group("Others", rest.__contains__),) if rest else ()
    parts = []
    for group in (*GROUPS, *others):
        header = (group.title, "validation accuracy, %", "test accuracy, %", "lowest to highest", "flips a weight")
        members = [label for label in labels if group.holds(label)]
        parts.append(table(header, (_row("ablations", config, result, label) for label in members)))
        parts.append(_compared(tests(result, members), group.pairs))
    return "\n\n".join(parts)


def savings(config: str, result: Result | None, labels: Iterable[str]) -> str:
    """What smaller states and fewer backward passes cost: a table a kind, its first row that which saves nothing."""
    labels = list(labels)
    kinds = {
        "Momentum, T-BSO calibrated": [label for label in labels if label.endswith(" momentum") and "," not in label],
        "Momentum, T-BSO paper": [label for label in labels if label.startswith("paper, ")],
        "Time steps that backpropagate": [labels[0], *(label for label in labels if label.startswith("backward "))],
    }
    parts = []
    for title, members in kinds.items():
        header = (title, "validation accuracy, %", "test accuracy, %", "lowest to highest", "flips a weight")
        parts.append(table(header, (_row("savings", config, result, label) for label in members)))
        parts.append(_compared(tests(result, members), tuple((members[0], label) for label in members[1:])))
    return "\n\n".join(parts)


def _rival(config: str, result: Result | None, label: str, marks: dict[str, str]) -> tuple[str, ...]:
    runs = runs_of(result, label)
    if result is None or not runs:
        return (label, not_run("rivals", config), *([""] * 7))
    row, test = result["rows"][label], Spread.of(run["test"] for run in runs)
    memory = memory_of(result, label)
    keys = ("signs", "momentum", "optimizer_other", "neurons"), ("step_arguments", "step_temporaries")
    return (
        label,
        marks.get(label, "{}").format(test),
        f"{100 * test.lowest:.2f} to {100 * test.highest:.2f}",
        *(str(batches_to(row, part, target)) for _, part, target in targets_of(config)),
        f"{np.mean([run['flips_per_weight'] for run in runs]):.2f}",
        f"{np.mean([run['spike_rate'] for run in runs]):.3f}",
        *("-" if memory is None else " + ".join(_kib(memory[key]) for key in names) for names in keys),
    )


def _marks(found: dict[str, Spread]) -> dict[str, str]:
    """How the accuracy of a row is written: the highest bold, what lies within the pooled spread of it with a sign."""
    if not found:
        return {}
    best = max(found, key=lambda label: found[label].mean)
    near = [
        label
        for label, row in found.items()
        if found[best].mean - row.mean <= math.sqrt((found[best].deviation ** 2 + row.deviation**2) / 2) + ROUNDING
    ]
    return dict.fromkeys(near, "≈ {}") | {best: "**{}**"}


def _edge(point: str, grid: Mapping[str, tuple[float, ...]]) -> str:
    """Whether a chosen point lies at the end of a grid of more than two values."""
    chosen = dict(setting.split(" ") for setting in point.split(", "))
    ends = [
        name
        for name, values in grid.items()
        if len(values) > 2 and chosen.get(name) in (f"{min(values):g}", f"{max(values):g}")
    ]
    return f" (an end of the grid: {', '.join(ends)})" if ends else ""


def _mismatch(point: str, compared: Result | None, label: str) -> str:
    row = None if compared is None else compared["rows"].get(label)
    if row is None:
        return ""
    chosen = dict(setting.split(" ") for setting in point.split(", "))
    used = {name: f"{row['settings'][name]:g}" if row["settings"][name] is not None else "None" for name in chosen}
    if used == chosen:
        return ""
    return f" (but the comparison was run with {', '.join(f'{name} {value}' for name, value in used.items())})"


def _of_key(runs: list[dict[str, Any]], key: str) -> str:
    values = [run[key] for run in runs if run[key] is not None]
    return str(Spread.of(values)) if values else "-"


def _gap(runs: list[dict[str, Any]], key: str) -> str:
    gap = gap_of(runs, key)
    return "-" if gap is None else str(gap)


def _row(study: str, config: str, result: Result | None, label: str) -> tuple[str, ...]:
    runs = runs_of(result, label)
    if not runs:
        return (label, not_run(study, config), "", "", "")
    test = Spread.of(run["test"] for run in runs)
    validation = Spread.of(run["validation"][-1][1] for run in runs)
    flips = np.mean([run["flips_per_weight"] for run in runs])
    low, high = 100 * test.lowest, 100 * test.highest
    return (label, str(validation), str(test), f"{low:.2f} to {high:.2f}", f"{flips:.2f}")


def _compared(found: dict[str, Spread], pairs: tuple[tuple[str, str], ...]) -> str:
    """How far apart the test accuracies of each pair are, or if there is none, the lowest and the highest."""
    repeated = {label: row for label, row in found.items() if row.seeds > 1}
    if not pairs and len(repeated) > 1:
        ordered = sorted(repeated, key=lambda label: repeated[label].mean)
        pairs = ((ordered[0], ordered[-1]),)
    sentences = []
    for first, second in pairs:
        if first in repeated and second in repeated:
            step = repeated[second].mean - repeated[first].mean
            spread = max(repeated[first].deviation, repeated[second].deviation)
            more = "more than" if abs(step) > spread + ROUNDING else "within"
            sentences.append(
                f"From '{first}' to '{second}': {100 * step:+.2f} points on the test set, {more} the larger standard "
                f"deviation ({100 * spread:.2f})."
            )
    return " ".join(sentences) or "Nothing can be said yet."


def _kib(size: int) -> str:
    return f"{size / 1024:,.0f}" if size >= 10 * 1024 else f"{size / 1024:.1f}"
