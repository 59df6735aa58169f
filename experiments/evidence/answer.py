"""The opening of RESULTS.md: which rule to use, at how many bits, and which rules it beats and does not beat."""

import math
from collections.abc import Mapping

from experiments import pages
from experiments.evidence.compared import COMPARED, LATENT_FREE, OURS, RULES
from experiments.evidence.results import SPEED_TARGETS, Row, Studies, Study
from experiments.evidence.tables import REFERENCE, rules_of
from experiments.spread import Spread

COUNTER = "counter, 8 bits"
"""The rule to use if memory is short."""

FIRST = "T-BSO, first recipe"
"""The rule that rules with fewer bits must not fall behind."""

CLEAR = 2.0
"""A difference counts as clear if it exceeds this many standard errors."""


def answer(evidence: Mapping[str, Studies]) -> str:
    """One line per config, and the sentences that follow from them."""
    compared = {config: evidence["rivals"].get(config, Study("rivals", config)) for config in COMPARED}
    whole = {config: study for config, study in compared.items() if set(study.rows) >= set(rules_of(config))}
    heads = (
        "set", f"{OURS}, %", f"{COUNTER}, %", "best with latent weights, %", "difference (standard error)",
        f"batches to the highest target, ratio {REFERENCE} / {OURS}", "fewest bits without loss",
    )  # fmt: skip
    lines: list[tuple[str, ...]] = []
    for config, study in compared.items():
        if config not in whole:
            lines.append((config, study.missing))
            continue
        rival = best_latent(study)
        lines.append(
            (
                config,
                *(study.rows[label].test.percent for label in (OURS, COUNTER)),
                f"{study.rows[rival].test.percent} ({rival})",
                "{:+.2f} ({:.2f})".format(*difference(study.rows[OURS], study.rows[rival])),
                times_faster(evidence["speed"].get(config, Study("speed", config))),
                fewest_bits(study),
            )
        )
    verdict = _verdict(whole) if whole else ""
    return pages.joined(pages.table(heads, lines), verdict, untuned(evidence["rivals"]))


def untuned(studies: Studies) -> str:
    """The same comparison on sets on which nothing was tuned, in fewer columns; empty without such sets."""
    lines = []
    for config, study in studies.items():
        if config in COMPARED or not {OURS, REFERENCE} <= set(study.rows):
            continue
        counters = [label for label in study.rows if label.startswith("counter")]
        counter = max(counters, key=lambda label: study.rows[label].test.mean, default="")
        rival = best_latent(study)
        apart, error = difference(study.rows[OURS], study.rows[rival])
        lines.append(
            (
                config,
                study.rows[OURS].test.percent,
                f"{counter}: {study.rows[counter].test.percent}" if counter else "-",
                f"{rival}: {study.rows[rival].test.percent}",
                f"{apart:+.2f} (one seed)" if math.isnan(error) else f"{apart:+.2f} ({error:.2f})",
            )
        )
    heads = ("set", f"{OURS}, %", "best counter, %", "best with latent weights, %", "difference (standard error)")
    said = "On these sets nothing was tuned: every rule has the settings chosen on another one, which section 2 names."
    return pages.joined(said, pages.table(heads, lines)) if lines else ""


def best_latent(study: Study) -> str:
    """The rule with latent weights that is highest on the test set against ours; choosing it so flatters it."""
    latent = [label for label in RULES if "latent" in label and label in study.rows]
    return max(latent, key=lambda label: difference(study.rows[label], study.rows[OURS])[0])


def difference(one: Row, other: Row) -> tuple[float, float]:
    """The mean difference of two rows' test accuracies and its standard error, in points; NaN for a single seed.

    It is taken seed by seed, over those that both rows have: a seed decides the first weights, and which examples are
    trained on, for all rules alike, so that rows with other seeds would not be compared fairly.
    """
    accuracies = [{run["seed"]: run["test"] for run in row.runs} for row in (one, other)]
    apart = Spread.of(accuracies[0][seed] - accuracies[1][seed] for seed in accuracies[0].keys() & accuracies[1].keys())
    return 100 * apart.mean, 100 * apart.deviation / math.sqrt(apart.count)


def times_faster(study: Study) -> str:
    """The ratio of the reference's batches to the highest target of a config to those of our rule."""
    if not {OURS, REFERENCE} <= set(study.rows):
        return study.missing
    target = SPEED_TARGETS[study.config][-1]
    ours, other = (study.rows[label].smoothed_to(target) for label in (OURS, REFERENCE))
    if ours.by_all and other.by_all:
        return f"{other.batches / ours.batches:.2f} (to {target:.0%})"
    return f"- ({target:.0%} reached by {ours.seeds} of {ours.of} seeds, {other.seeds} of {other.of})"


def fewest_bits(study: Study) -> str:
    """The fewest bits per weight with which a latent-free rule is not clearly below the first recipe."""
    kept = [label for label in LATENT_FREE if label in study.rows and study.rows[label].bits is not None]
    level = [label for label in kept if not _clearly_below(study.rows[label], study.rows[FIRST])]
    label = min(level, key=lambda label: study.rows[label].bits or math.inf)
    return f"{study.rows[label].bits:.0f} ({label})"


def _clearly_below(one: Row, other: Row) -> bool:
    ahead, error = difference(one, other)
    return ahead < -CLEAR * error


def _verdict(whole: Mapping[str, Study]) -> str:
    ahead: list[str] = []
    behind: list[str] = []
    level: list[str] = []
    beaten_by: dict[str, list[str]] = {}
    for config, study in whole.items():
        rows = study.rows
        apart, error = difference(rows[OURS], rows[best_latent(study)])
        (ahead if apart > CLEAR * error else behind if apart < -CLEAR * error else level).append(config)
        for label in RULES:
            if label != OURS and _clearly_below(rows[OURS], rows[label]):
                beaten_by.setdefault(label, []).append(config)
    tops = [config for config, study in whole.items() if _at_the_top(study.rows)]
    parts = [
        "Differences are taken seed by seed, over the seeds that both rows have. "
        f"Compared with the best rule that keeps latent weights, chosen by its test accuracy, {OURS} is ahead by more "
        f"than {CLEAR:g} standard errors on {_listed(ahead)}, behind on {_listed(behind)}, and level on "
        f"{_listed(level)}.",
        f"It has the highest mean of all rules, or one within the standard error of it, on {_listed(tops)}.",
    ]
    if beaten_by:
        named = "; ".join(f"{label} ({', '.join(configs)})" for label, configs in beaten_by.items())
        parts.append(f"Clearly above it: {named}.")
    return " ".join(parts)


def _at_the_top(rows: Mapping[str, Row]) -> bool:
    apart = [difference(rows[label], rows[OURS]) for label in RULES if label != OURS]
    return all(behind <= error for behind, error in apart)


def _listed(configs: list[str]) -> str:
    return ", ".join(configs) or "none"
