"""What the paper says beside what was measured here: its table of results, and its claim of faster convergence."""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from experiments.configs import CONFIGS
from experiments.evidence.readings import (
    OURS,
    Reached,
    Result,
    Results,
    batches_to,
    beats,
    memory_of,
    rules_of,
    runs_of,
    targets_of,
    tests,
)
from experiments.evidence.studies import FEW, RULES
from experiments.evidence.tables import not_run
from experiments.pages import table

FLIPPING = ("BSO, paper", "T-BSO, paper", OURS)
THROUGH_TIME = ("BPTT, latent, SGD", "BPTT, latent, Adam")

OPTIMIZERS = {"BSO": "bso", "T-BSO": "t-bso"}
ROWS_HERE = {"BSO": ("BSO, paper",), "T-BSO": ("T-BSO, paper", OURS)}
"""The rows of our comparisons that stand beside the paper's rules."""


class Experiment(NamedTuple):
    """Some rows of the paper's table.

    Attributes:
      name: the data set and the network.
      config: the config of ours, by its name.
      needs: what it takes to run it.
      figures: the paper's accuracy, %, by rule and number of time steps, as it is printed.
      rivals: the best rivals in the paper's table.
      before: a command that must have been run before.
      options: more options of the command.
    """

    name: str
    config: str
    needs: str
    figures: Mapping[str, Mapping[int, str]]
    rivals: str
    before: str = ""
    options: str = ""

    def command(self, rule: str, num_steps: int) -> str:
        """The command that trains a row."""
        options = f"--optimizer {OPTIMIZERS[rule]} --num-steps {num_steps}{self.options}"
        return f"python -m experiments.train {self.config} {options}"


EXPERIMENTS = (
    Experiment(
        "CIFAR-10, VGG-11", "cifar10-vgg11", "a GPU",
        {"BSO": {2: "93.30", 4: "93.45", 6: "92.98"}, "T-BSO": {2: "94.32", 4: "94.86", 6: "94.70"}},
        "Q-SNN (binary) 93.20; real weights: OTTT 93.73, NDOT 94.90",
    ),
    Experiment(
        "CIFAR-100, VGG-11", "cifar100-vgg11", "CIFAR-100 and a GPU",
        {"BSO": {2: "72.15", 4: "72.34", 6: "72.57", 12: "72.85"},
         "T-BSO": {2: "73.40", 4: "73.82", 6: "74.27", 12: "75.20"}},
        "Q-SNN (binary) 73.48; real weights: NDOT 76.61",
    ),
    Experiment(
        "ImageNet, ResNet-18", "imagenet-resnet18-phase2", "ImageNet and a GPU",
        {"T-BSO": {4: "57.76", 6: "58.86"}},
        "CBP (binary) 54.34; real weights: FP-SNN 63.18",
        before="python -m experiments.train imagenet-resnet18 --output runs/imagenet-1",
        options=" --start runs/imagenet-1/model.msgpack",
    ),
    Experiment(
        "DVS-CIFAR10, VGG-11", "dvs-cifar10-vgg11", "CIFAR10-DVS and a GPU",
        {"BSO": {10: "80.60"}, "T-BSO": {10: "81.00"}},
        "Q-SNN (binary) 79.10; real weights: SLTT 82.20",
    ),
    Experiment(
        "Google Speech Commands, VGG-11", "speech-commands-vgg11", "Speech Commands and a GPU",
        {"T-BSO": {4: "96.12"}},
        "real weights: SpikCommander 96.92",
    ),
)  # fmt: skip
"""The paper's table: one seed, the best test epoch."""


def rows() -> Iterator[tuple[Experiment, str, int, str]]:
    """Every row of the paper's table: experiment, rule, T, and the figure."""
    for experiment in EXPERIMENTS:
        for rule, figures in experiment.figures.items():
            for num_steps, figure in figures.items():
                yield experiment, rule, num_steps, figure


def beside_ours(results: Results) -> str:
    """The paper's table, with our figures from the comparison of the same config at the same T."""
    header = ("data set, network", "T", "rule", "paper, %", "ours, %", "best rivals in the paper, %")
    lines: list[tuple[str, ...]] = []
    for experiment, rule, num_steps, figure in rows():
        rivals = "" if lines and lines[-1][0] == experiment.name else experiment.rivals
        ours = _ours(experiment, rule, num_steps, results.get(experiment.config))
        lines.append((experiment.name, str(num_steps), rule, figure, ours, rivals))
    return table(header, lines)


def _ours(experiment: Experiment, rule: str, num_steps: int, result: Result | None) -> str:
    """Our figures, or what it takes to get one."""
    here = []
    for label, found in tests(result, ROWS_HERE[rule]).items():
        settings = (result or {})["rows"][label]["settings"]
        if settings["num_steps"] == num_steps:
            here.append(f"{label}: {found.percent}, {settings['epochs']} epochs")
    before = f"`{experiment.before}`, then " if experiment.before else ""
    needs = f"not run here: needs {experiment.needs}; {before}`{experiment.command(rule, num_steps)}`"
    return "; ".join(here) or needs


def claims(results: Results) -> str:
    """The paper's headline claims beside what the comparisons say."""
    found = on_validation(speeds(results))
    answers = [beats(result, RULES)[0] for config, result in results.items() if config not in FEW]
    share = f"{answers.count(True)} of {len(answers)} configs"
    ahead = f"On {share} {OURS} is the best of all rules by more than the spread"
    unknown = f" (on {answers.count(None)} it cannot be said yet)" if None in answers else ""
    return table(
        ("the paper's claim", "here"),
        (
            ("up to 72 % less training memory than BPTT", _memory(results)),
            ("convergence up to 1.8 times faster than BPTT", f"{fastest(found)} {alone(results)}"),
            ("higher accuracy than other training of binary spiking networks", f"{ahead}{unknown}."),
        ),
    )


class Speed(NamedTuple):
    """Batches of a BPTT rival over batches of a flip rule, to the same target; above 1 the flip rule is the faster."""

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


def _pairs(results: Results) -> Iterator[tuple[Reached, Reached, tuple[str, str, str, str]]]:
    """When a flip rule and a BPTT rival reached each target, with the names of rule, rival, config and target."""
    for config, result in results.items():
        for target, part, value in targets_of(config) if result is not None else ():
            there = {label: batches_to(result["rows"][label], part, value) for label in _present(result)}
            for rule, rival in itertools.product(FLIPPING, THROUGH_TIME):
                if rule in there and rival in there:
                    yield there[rule], there[rival], (rule, rival, config, target)


def speeds(results: Results) -> list[Speed]:
    """Every comparison of a flip rule with a BPTT rival in which all seeds of both reached the target."""
    return [
        Speed(slow.batches / fast.batches, "≥ " if fast.at_most else "≤ " if slow.at_most else "", *names)
        for fast, slow, names in _pairs(results)
        # Where both were there before the first measurement, nothing can be said.
        if fast.by_all and slow.by_all and not (fast.at_most and slow.at_most)
    ]


def on_validation(found: Iterable[Speed]) -> list[Speed]:
    """Those to the validation target: at the training target an online rule has already updated on the batch."""
    return [speed for speed in found if speed.target == "validation"]


def convergence(results: Results) -> str:
    """Batches to the targets, of BPTT with latent weights and of the flip rules, with their ratios."""
    header = ("config", "target", *THROUGH_TIME, *(f"{rule} (ratio to SGD; Adam)" for rule in FLIPPING))
    lines: list[tuple[str, ...]] = []
    for config, result in results.items():
        name, missing = f"{config}, T = {CONFIGS[config][1].num_steps}", not_run("rivals", config)
        if result is None or not _present(result):
            lines.append((name, missing))
            continue
        ratios = {(speed.rule, speed.rival, speed.target): str(speed) for speed in speeds({config: result})}
        for target, part, value in targets_of(config):
            cells = {label: missing if label in rules_of(config) else "-" for label in (*THROUGH_TIME, *FLIPPING)}
            cells |= {label: str(batches_to(result["rows"][label], part, value)) for label in _present(result)}
            for rule in set(FLIPPING) & set(_present(result)):
                cells[rule] += f" ({'; '.join(ratios.get((rule, rival, target), '-') for rival in THROUGH_TIME)})"
            lines.append((name, f"{target} {value:.0%}", *cells.values()))
    return table(header, lines)


def fastest(found: list[Speed]) -> str:
    """The largest and the smallest ratio, and how often the flip rules are the faster."""
    if not found:
        return "No ratio can be given yet."
    upper, lower = ([speed for speed in found if speed.bound != bound] for bound in ("≤ ", "≥ "))
    said = [f"Largest ratio: {max(upper, key=lambda speed: speed.ratio).named}."] if upper else []
    said += [f"Smallest: {min(lower, key=lambda speed: speed.ratio).named}."] if lower else []
    for rival in THROUGH_TIME:
        faster = sum(speed.ratio > 1 for speed in upper if speed.rival == rival)
        slower = sum(speed.ratio < 1 for speed in lower if speed.rival == rival)
        said.append(f"Against {rival} the flip rule is the faster in {faster} comparisons, the slower in {slower}.")
    return " ".join(said)


def alone(results: Results) -> str:
    """How often a comparison has no ratio because every seed of one side reached the target, but not of the other."""
    there = [(fast.by_all, slow.by_all) for fast, slow, (*_, target) in _pairs(results) if target == "validation"]
    return (
        "Without a ratio, because only one side reached the validation target with every seed: the flip rule alone in "
        f"{there.count((True, False))} comparisons, BPTT alone in {there.count((False, True))}."
    )


def _memory(results: Results) -> str:
    """The share of the compiled step's bytes that flip rules save."""
    saved = []
    for (config, result), rule, rival in itertools.product(results.items(), FLIPPING, THROUGH_TIME):
        ours, theirs = memory_of(result, rule), memory_of(result, rival)
        if result is not None and ours and theirs:
            sizes = [memory["step_arguments"] + memory["step_temporaries"] for memory in (ours, theirs)]
            steps = result["rows"][rule]["settings"]["num_steps"]
            saved.append((1 - sizes[0] / sizes[1], f"{rule} against {rival}, {config}, T = {steps}"))
    if not saved:
        return "No measurement yet."
    least, most = (f"{100 * share:.0f} % ({where})" for share, where in (min(saved), max(saved)))
    return f"Bytes of the compiled step, saved: from {least} to {most}."


def _present(result: Result) -> list[str]:
    return [label for label in (*THROUGH_TIME, *FLIPPING) if runs_of(result, label)]
