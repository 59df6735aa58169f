"""The paper's figures beside those measured here: its table of results, and its claim of faster convergence."""

import csv
import functools
import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from experiments.configs import CONFIGS
from experiments.evidence.compared import FEW, OURS, RULES
from experiments.evidence.results import TARGETS, Reached, Row, Studies
from experiments.evidence.tables import beats, rules_of
from experiments.pages import table

BEFORE = "python -m experiments.train imagenet-resnet18 --output runs/imagenet-1"
"""The run from which the second phase on ImageNet starts."""

HERE = {"BSO": ("BSO, paper",), "T-BSO": ("T-BSO, paper", OURS)}
"""The rows of our comparisons that correspond to the paper's rules."""

FLIPPING = ("BSO, paper", "T-BSO, paper", OURS)
THROUGH_TIME = ("BPTT, latent, SGD", "BPTT, latent, Adam")


@functools.cache
def rows() -> list[dict[str, str]]:
    """The paper's table (one seed, the best test epoch), with our config and what is needed to run it."""
    return list(csv.DictReader(Path(__file__).with_name("paper.csv").read_text().splitlines()))


def commands(row: Mapping[str, str]) -> list[str]:
    """The commands that train a row of the paper's table."""
    command = f"python -m experiments.train {row['config']} --optimizer {row['rule'].lower()} --num-steps {row['T']}"
    phased = row["config"] == "imagenet-resnet18-phase2"
    return [BEFORE, f"{command} --start runs/imagenet-1/model.bsojax"] if phased else [command]


def beside_ours(studies: Studies) -> str:
    """The paper's table, with our figures from the comparison of the same config at the same T."""

    def ours(row: Mapping[str, str]) -> str:
        here = studies[row["config"]].rows if row["config"] in studies else {}
        found = [here[label] for label in HERE[row["rule"]] if label in here]
        told = [
            f"{one.label}: {one.test.percent}, {one.settings['epochs']} epochs"
            for one in found
            if one.settings["num_steps"] == int(row["T"])
        ]
        words = ", then ".join(f"`{command}`" for command in commands(row))
        return "; ".join(told) or f"not run here: needs {row['needs']}; {words}"

    header = ("data set, network", "T", "rule", "paper, %", "ours, %", "best rivals in the paper, %")
    cells = ([row["network"], row["T"], row["rule"], row["accuracy"], ours(row), row["rivals"]] for row in rows())
    return table(header, cells)


def claims(studies: Studies) -> str:
    """The paper's headline claims beside the results of the comparisons."""
    answers = [beats(study, RULES)[0] for study in studies.values() if study.config not in FEW]
    share = f"{answers.count(True)} of {len(answers)} configs"
    unknown = f" (on {answers.count(None)} this cannot be answered yet)" if None in answers else ""
    best = f"On {share} {OURS} is the best of all rules by more than the spread{unknown}."
    lines = (
        ("up to 72 % less training memory than BPTT", _memory(studies)),
        ("convergence up to 1.8 times faster than BPTT", f"{fastest(on_validation(speeds(studies)))} {alone(studies)}"),
        ("higher accuracy than other training of binary spiking networks", best),
    )
    return table(("the paper's claim", "here"), lines)


class Speed(NamedTuple):
    """Batches of a BPTT rival over batches of a flip rule, to the same target; above 1 the flip rule is faster."""

    ratio: float
    bound: str
    rule: str
    rival: str
    config: str
    target: str

    def __str__(self) -> str:
        return f"{self.bound}{self.ratio:.2f}"

    @property
    def named(self) -> str:
        """The ratio, and what it belongs to."""
        return f"{self} ({self.rule} against {self.rival}, {self.config}, {self.target} target)"


def speeds(studies: Studies) -> list[Speed]:
    """Every comparison of a flip rule with a BPTT rival in which all seeds of both reached the target."""
    return [
        Speed(slow.batches / fast.batches, "≥ " if fast.at_most else "≤ " if slow.at_most else "", *names)
        for fast, slow, names in _reached(studies)
        # Where both were there before the first measurement, nothing can be said.
        if fast.by_all and slow.by_all and not (fast.at_most and slow.at_most)
    ]


def on_validation(found: Iterable[Speed]) -> list[Speed]:
    """Those to the validation target: at the training target an online rule has already updated on the batch."""
    return [speed for speed in found if speed.target == "validation"]


def convergence(studies: Studies) -> str:
    """Batches to the targets, of BPTT with latent weights and of the flip rules, with their ratios."""
    lines: list[tuple[str, ...]] = []
    for config, study in studies.items():
        name = f"{config}, T = {CONFIGS[config][1].num_steps}"
        present = [label for label in (*THROUGH_TIME, *FLIPPING) if label in study.rows]
        if not present:
            lines.append((name, study.missing))
            continue
        ratios = {(speed.rule, speed.rival, speed.target): str(speed) for speed in speeds({config: study})}
        for target, value in TARGETS[config].items():
            cells = {label: study.missing if label in rules_of(config) else "-" for label in (*THROUGH_TIME, *FLIPPING)}
            for label in present:
                pair = "; ".join(ratios.get((label, rival, target), "-") for rival in THROUGH_TIME)
                reached = study.rows[label].batches_to(target, value)
                cells[label] = f"{reached} ({pair})" if label in FLIPPING else str(reached)
            lines.append((name, f"{target} {value:.0%}", *cells.values()))
    return table(("config", "target", *THROUGH_TIME, *(f"{rule} (ratio to SGD; Adam)" for rule in FLIPPING)), lines)


def fastest(found: list[Speed]) -> str:
    """The largest and the smallest ratio, and how often the flip rules are faster."""
    if not found:
        return "No ratio can be given yet."
    upper, lower = ([speed for speed in found if speed.bound != bound] for bound in ("≤ ", "≥ "))
    said = [f"Largest ratio: {max(upper, key=lambda speed: speed.ratio).named}."] if upper else []
    said += [f"Smallest ratio: {min(lower, key=lambda speed: speed.ratio).named}."] if lower else []
    for rival in THROUGH_TIME:
        faster = sum(speed.ratio > 1 for speed in upper if speed.rival == rival)
        slower = sum(speed.ratio < 1 for speed in lower if speed.rival == rival)
        said.append(f"Against {rival} the flip rule is faster in {faster} comparisons and slower in {slower}.")
    return " ".join(said)


def alone(studies: Studies) -> str:
    """How often a comparison has no ratio because only one side reached the target with every seed."""
    there = [(fast.by_all, slow.by_all) for fast, slow, (*_, target) in _reached(studies) if target == "validation"]
    return (
        "Some pairs have no ratio because only one side reached the validation target with every seed: only the flip "
        f"rule in {there.count((True, False))} comparisons, only BPTT in {there.count((False, True))}."
    )


def _pairs(studies: Studies) -> Iterator[tuple[str, Row, Row]]:
    """Every flip rule beside every BPTT rival, on each config that has both."""
    for (config, study), rule, rival in itertools.product(studies.items(), FLIPPING, THROUGH_TIME):
        if rule in study.rows and rival in study.rows:
            yield config, study.rows[rule], study.rows[rival]


def _reached(studies: Studies) -> Iterator[tuple[Reached, Reached, tuple[str, str, str, str]]]:
    """When both rules of a pair reached each target, with the names of rule, rival, config and target."""
    for config, rule, rival in _pairs(studies):
        for target, value in TARGETS[config].items():
            fast, slow = (row.batches_to(target, value) for row in (rule, rival))
            yield fast, slow, (rule.label, rival.label, config, target)


def _memory(studies: Studies) -> str:
    """The fraction of the compiled step's bytes that flip rules save."""
    saved = [
        (1 - ours / theirs, f"{rule.label} against {rival.label}, {config}, T = {rule.settings['num_steps']}")
        for config, rule, rival in _pairs(studies)
        if (ours := rule.step_bytes) and (theirs := rival.step_bytes)
    ]
    if not saved:
        return "No measurement yet."
    least, most = (f"{100 * share:.0f} % ({where})" for share, where in (min(saved), max(saved)))
    return f"Bytes saved in the compiled step: from {least} to {most}."
