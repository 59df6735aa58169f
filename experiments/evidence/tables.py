"""The tables of the studies, and the sentences that follow from their numbers."""

import itertools
import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from experiments import pages
from experiments.evidence.compared import FAST, FEW, GRIDS, LATENT_FREE, LONG, OURS, RULES, WINDOWS
from experiments.evidence.results import SPEED_TARGETS, TARGETS, Columns, Row, Study
from experiments.evidence.studies import best, length_of, text_of, tried
from experiments.rules.flips import CalibratedTBso, TBso
from experiments.spread import Spread

ROUNDING = 1e-6
"""Accuracies are float32, so differences this close count as equal: 0.81 - 0.80 is not more than 0.01."""

REFERENCE = "BPTT, latent, Adam"
"""The rule with which speed is compared."""

ACCURACY: Columns = {
    "validation accuracy, %": lambda row: row.spread("validation").percent,
    "test accuracy, %": lambda row: row.test.percent,
    "lowest to highest": lambda row: row.test.percent_range,
    "flips per weight": lambda row: f"{row.spread('flips_per_weight').mean:.2f}",
}


def rules_of(config: str) -> tuple[str, ...]:
    """The rows of the comparison on a config: every rule, or a few on a slow config."""
    return FEW.get(config, tuple(RULES))


def rivals(study: Study) -> str:
    """The rules that are compared on one config."""
    labels, targets = rules_of(study.config), TARGETS[study.config]

    def reached(part: str) -> Callable[[Row], str]:
        return lambda row: str(row.batches_to(part, targets[part]))

    marks = _marks(study.tests(labels))
    columns: Columns = {
        "test accuracy, %": lambda row: marks.get(row.label, "{}").format(row.test.percent),
        "lowest to highest": ACCURACY["lowest to highest"],
        f"batches to training {targets['training']:.0%}": reached("training"),
        f"to validation {targets['validation']:.0%}": reached("validation"),
        "flips per weight": ACCURACY["flips per weight"],
        "spike rate": lambda row: f"{row.spread('spike_rate').mean:.3f}",
        "bits per weight": lambda row: "-" if row.bits is None else f"{row.bits:.1f}",
        "state, KiB": lambda row: _kib(row, "signs", "momentum", "optimizer_other", "neurons"),
        "compiled step, KiB": lambda row: _kib(row, "step_arguments", "step_temporaries"),
    }
    return study.table(["rule"], labels, columns)


def speed(study: Study) -> str:
    """Batches and seconds to three validation accuracies, and the speed-up over BPTT with Adam."""
    found: dict[str, Callable[[Row], str]] = {}
    reference = study.rows.get(REFERENCE)
    for target in SPEED_TARGETS[study.config]:

        def told(row: Row, target: float = target) -> str:
            own, other = row.smoothed_to(target), reference.smoothed_to(target) if reference else None
            ratio = f" ({other.batches / own.batches:.2f})" if other and own.by_all and other.by_all else ""
            return f"{own}{ratio}"

        found[f"batches to {target:.0%}"] = told
    last = SPEED_TARGETS[study.config][-1]
    found[f"seconds to {last:.0%}"] = lambda row: row.seconds_to(last)
    found["test accuracy, %"] = ACCURACY["test accuracy, %"]
    return study.table(["rule"], FAST, found)


def beats(study: Study, labels: Iterable[str]) -> tuple[bool | None, str]:
    """Whether ours is the best of some rules by more than the spread.

    Returns:
      The answer, None if runs are missing, and the sentence.
    """
    labels = list(dict.fromkeys((OURS, *labels)))
    found = {label: row for label, row in study.tests(labels).items() if row.count > 1}
    if missing := [label for label in labels if label not in found]:
        return None, f"This cannot be answered yet; runs of {'; '.join(missing)} are missing."
    ours = found.pop(OURS)
    leads = {label: (ours.mean - row.mean, max(ours.deviation, row.deviation)) for label, row in found.items()}
    said = {
        label: f"{100 * abs(lead):.2f} points {'ahead' if lead >= 0 else 'behind'}, spread {100 * deviation:.2f}"
        for label, (lead, deviation) in leads.items()
    }
    if close := [label for label, (lead, deviation) in leads.items() if lead <= deviation + ROUNDING]:
        named = "; ".join(f"{label} ({said[label]})" for label in close)
        return False, f"**No**; it does not lead these by more than the spread: {named}."
    nearest = min(leads, key=lambda label: leads[label][0] - leads[label][1])
    return True, f"**Yes**; {nearest} comes closest, {said[nearest]}."


def verdict(study: Study) -> str:
    """The sentences below a comparison."""
    labels = rules_of(study.config)
    those = "all rules" if set(labels) == set(RULES) else "these rules"
    answers = [beats(study, rules)[1] for rules in (labels, [label for label in labels if label in LATENT_FREE])]
    return (
        f"Is {OURS} the best of {those} by more than the spread (difference of means > the larger standard "
        f"deviation)? {answers[0]} Is it the best of the latent-free rules among them? {answers[1]}"
    )


def tuning(tuned: Study, compared: Study) -> str:
    """The grids and the best point of each on validation data, or the config from which settings are taken over.

    Args:
      tuned: the tuning, on the config on which the settings were chosen.
      compared: the comparison; the text says where a row was run with another point.
    """
    labels = rules_of(compared.config)
    untuned = f"Not tuned: {'; '.join(label for label in labels if label not in GRIDS)}."
    if tuned.content is None and tuned.config == compared.config:
        return f"Tuning: {tuned.missing}."
    rows, notes = [], ""
    for label in (label for label in labels if label in GRIDS):
        points = tried(label, tuned.content)
        scores = "; ".join(f"{text_of(point)}: {100 * score:.2f}" for point, score in points if score is not None)
        point = best(points)
        other = _mismatch(point, compared.rows[label]) if point and label in compared.rows else ""
        notes += f" {label}: {text_of(point)}{other}." if point and other else ""
        chosen = f"{text_of(point)}{_edge(point, label)}{other}" if point else f"{tuned.missing} (incomplete)"
        rows.append((label, scores, chosen) if scores else (label, tuned.missing))
    if tuned.config != compared.config:
        return f"The settings are those chosen on {tuned.config} (see there).{notes} {untuned}"
    grid = pages.table(("rule", "settings tried, and validation accuracy at the end, %", "chosen"), rows)
    return f"{grid}\n\n{untuned} {tuned.source}"


def norms(study: Study, labels: Sequence[str]) -> str:
    """Test accuracy with three kinds of statistics, by rule and norm, and what stale statistics cost."""
    columns: Columns = {
        "running statistics": lambda row: row.spread("test_running").percent if row.gap("test_running") else "-",
        "re-estimated": lambda row: row.test.percent,
        "the test batch's own": lambda row: row.spread("test_batch").percent,
        "gap: own - running": lambda row: gap.percent if (gap := row.gap("test_running")) else "-",
        "gap: own - re-estimated": lambda row: gap.percent if (gap := row.gap("test")) else "-",
    }
    return pages.joined(study.table(["rule", "norm"], labels, columns), _remaining_gaps(study, labels))


def _remaining_gaps(study: Study, labels: Sequence[str]) -> str:
    accuracy = study.tests(labels)
    if not accuracy:
        return "Nothing can be said yet."
    highest = max(accuracy, key=lambda label: accuracy[label].mean)
    said = [f"Highest re-estimated accuracy: {highest} ({100 * accuracy[highest].mean:.2f} %)."]
    for part, name in (("test_running", "running"), ("test", "re-estimated")):
        gaps = {label: gap for label in accuracy if (gap := study.rows[label].gap(part))}
        closed = [label for label, gap in gaps.items() if gap.count > 1 and gap.mean <= gap.deviation + ROUNDING]
        left = "; ".join(closed) or "none"
        said.append(f"With {name} statistics, no gap larger than the spread of its seeds remains for: {left}.")
    return " ".join(said)


class Group(NamedTuple):
    """Rows of one kind, which get their own table.

    Attributes:
      title: the heading of the table.
      pattern: the regular expression that their labels match.
      pairs: pairs of rows that a sentence compares; if there are none, it compares the lowest and the highest.
      saves: whether a sentence compares all rows with the first, which saves nothing.
    """

    title: str
    pattern: str
    pairs: Sequence[tuple[str, str]] = ()
    saves: bool = False

    def of(self, labels: Iterable[str]) -> list[str]:
        """Returns the labels of the group, in their order."""
        return [label for label in labels if re.fullmatch(self.pattern, label)]


_PAPER = f"paper, threshold {TBso.threshold:g}"
_CALIBRATED = f"calibrated, c = {CalibratedTBso.threshold:g}"
_STALE = "statistics not re-estimated"
_GROWTH = f"Growth of the window; c = {CalibratedTBso.threshold:g} is the preset, growth {CalibratedTBso.growth:g}"

GROUPS = {
    "ablations": (
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
    ),
    "longer": tuple(
        Group(f"Longer runs, {length_of(epochs)}", f".*, {length_of(epochs)}")
        for epochs in sorted({*itertools.chain(*LONG.values())})
    ),
    "windows": tuple(
        Group(f"Growth of the window, {length_of(epochs)}", f".*, {length_of(epochs)}")
        for epochs in sorted({*itertools.chain(*WINDOWS.values())})
    ),
    "savings": (
        Group("Momentum, T-BSO calibrated", "[^,]* momentum", saves=True),
        Group("Momentum, T-BSO paper", "paper, .*", saves=True),
        Group("Time steps that backpropagate", "float32 momentum|backward .*", saves=True),
    ),
}
"""The tables of a study with many small changes."""


def grouped(study: Study, labels: Sequence[str]) -> str:
    """A small table with a sentence for each group of a study's rows; rows of no group get their own table."""
    groups = [group for group in GROUPS[study.name] if group.of(labels)]
    known = {label for group in groups for label in group.of(labels)}
    rest = Group("Others", "|".join(re.escape(label) for label in labels if label not in known))
    parts = []
    for group in (*groups, rest) if rest.pattern else groups:
        members = group.of(labels)
        pairs = [(members[0], label) for label in members[1:]] if group.saves else group.pairs
        parts += [study.table([group.title], members, ACCURACY), _compared(study.tests(members), pairs)]
    return pages.joined(*parts)


def _compared(found: dict[str, Spread], pairs: Sequence[tuple[str, str]]) -> str:
    """How far apart the test accuracies of each pair are or, if there are no pairs, of the lowest and the highest."""
    repeated = {label: row for label, row in found.items() if row.count > 1}
    if not pairs and len(repeated) > 1:
        lowest, *_, highest = sorted(repeated, key=lambda label: repeated[label].mean)
        pairs = [(lowest, highest)]
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
    """How the accuracy of a row is written: the highest in bold, those within the pooled spread of it with a sign."""
    if not found:
        return {}
    top = max(found, key=lambda label: found[label].mean)
    pooled = {label: math.sqrt((found[top].deviation ** 2 + row.deviation**2) / 2) for label, row in found.items()}
    near = [label for label, row in found.items() if found[top].mean - row.mean <= pooled[label] + ROUNDING]
    return dict.fromkeys(near, "≈ {}") | {top: "**{}**"}


def _edge(point: dict[str, float], label: str) -> str:
    """A note if a chosen point lies at the end of a grid of more than two values."""
    grid = GRIDS[label].items()
    ends = [name for name, values in grid if len(values) > 2 and point[name] in (min(values), max(values))]
    return f" (an end of the grid: {', '.join(ends)})" if ends else ""


def _mismatch(point: dict[str, float], row: Row) -> str:
    """A note if a comparison was run with settings other than the chosen ones."""
    used = {name: row.settings[name] for name in point}
    told = ", ".join(f"{name} {'None' if value is None else format(value, 'g')}" for name, value in used.items())
    return "" if used == point else f" (but the comparison was run with {told})"


def _kib(row: Row, *parts: str) -> str:
    if row.memory is None:
        return "-"
    sizes = [row.memory[part] / 1024 for part in parts]
    return " + ".join(f"{size:,.0f}" if size >= 10 else f"{size:.1f}" for size in sizes)
