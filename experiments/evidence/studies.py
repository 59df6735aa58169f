"""The studies: which runs answer which question, and on which data the settings of each were chosen."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.config import Config
from experiments.configs import CONFIGS
from experiments.evidence.compared import (
    COMPARED,
    FAST,
    FEW,
    GRIDS,
    LASTING,
    LATENT_FREE,
    LEVEL,
    LONG,
    MORE_SEEDS,
    MOST,
    OURS,
    RULES,
    SEEDS,
    SEEDS_OF,
    SETTINGS_OF,
    SPEED_EVALUATIONS,
    TUNED_ON,
    TUNING_SEED,
    WINDOWS,
)
from experiments.evidence.measure import Job
from experiments.evidence.runner import read

ABLATION_EPOCHS = 3
"""Epochs of the ablations, which are many; the same for all."""

JobsOf = Callable[[str], list[Job]]
"""The jobs of a study on a config."""


def path_of(study: str, name: str) -> Path:
    """The file of the results of a study on a config."""
    return Path("docs") / "results" / f"{study}-{name}.json"


def tuning(name: str) -> list[Job]:
    """Every point of every grid, once; rows that take over settings follow once these have been chosen."""
    return [Job(label, config) for label, config in _grid(name).items()]


def rivals(name: str) -> list[Job]:
    """Every rule, or those in FEW, with its best settings, over the seeds; the best of them over more seeds."""
    labels = FEW.get(name, tuple(RULES))
    settings = {label: {**RULES[label], **chosen(name, label)} for label in labels}
    more = leaders(name) if name not in FEW else ()
    return [
        Job(label, _with(name, seed=seed, **settings[label]), memory=seed == SEEDS[0])
        for label in labels
        for seed in SEEDS_OF.get(name, SEEDS) + (MORE_SEEDS if label in more else ())
    ]


def leaders(name: str) -> list[str]:
    """Returns the rows worth further seeds: the best on validation data over SEEDS and those level with it, ours, and
    the best latent rule.

    None while some have not been run.
    """
    path = path_of("rivals", name)
    rows = read(path)["rows"] if path.exists() else {}
    scores = {}
    for label in RULES:
        runs = {run["seed"]: run for run in rows.get(label, {"runs": []})["runs"]}
        if not runs.keys() >= set(SEEDS):
            return []
        scores[label] = float(np.mean([runs[seed]["validation"][-1][1] for seed in SEEDS]))
    best_first = sorted(scores, key=lambda label: -scores[label])
    latent = next(label for label in best_first if label not in LATENT_FREE)
    level = [label for label in best_first if scores[label] >= scores[best_first[0]] - LEVEL]
    return list(dict.fromkeys((*best_first[:MOST], *level, OURS, latent)))


def chosen(name: str, label: str) -> dict[str, float]:
    """Returns the settings of a row that were best on validation data.

    Raises:
      FileNotFoundError: the tuning of this config has not been run.
      ValueError: it is not complete.
    """
    found = chosen(name, SETTINGS_OF[label]) if label in SETTINGS_OF else {}
    if label not in GRIDS:
        return found
    path = path_of("tuning", TUNED_ON.get(name, name))
    points = tried(label, read(path))
    for point, score in points:
        if score is None:
            raise ValueError(f"{path}: '{_point_label(label, point)}' is missing; run that study first.")
    return found | (best(points) or {})


def tried(label: str, result: Mapping[str, Any] | None) -> list[tuple[dict[str, float], float | None]]:
    """Returns every point of a row's grid with its validation accuracy at the end, None if it has not been run."""
    rows = {} if result is None else result["rows"]
    found = []
    for point in _points(label):
        runs = rows.get(_point_label(label, point), {"runs": []})["runs"]
        found.append((point, runs[0]["validation"][-1][1] if runs else None))
    return found


def best(points: list[tuple[dict[str, float], float | None]]) -> dict[str, float] | None:
    """Returns the first of the best points; None while some have not been run."""
    scores = [score for _, score in points if score is not None]
    return points[int(np.argmax(scores))][0] if len(scores) == len(points) else None


def text_of(point: dict[str, float]) -> str:
    """Returns the settings of a point, as labels and tables have them."""
    return ", ".join(f"{key} {value:g}" for key, value in point.items())


def length_of(epochs: int) -> str:
    """Returns the length of a run, as labels and tables have it."""
    return f"{epochs} epoch" + "s" * (epochs > 1)


def speed(name: str) -> list[Job]:
    """The rules that learn fastest, evaluated about every 25 batches."""
    return [
        Job(label, _with(name, seed=seed, evaluations=SPEED_EVALUATIONS[name], **RULES[label], **chosen(name, label)))
        for label, seed in itertools.product(FAST, SEEDS)
    ]


def longer(name: str) -> list[Job]:
    """Some rules in longer runs, each with the settings that were chosen for the short one."""
    return [
        Job(
            f"{label}, {length_of(epochs)}",
            _with(name, seed=seed, epochs=epochs, **RULES[label], **chosen(name, label)),
        )
        for epochs, label, seed in itertools.product(LONG[name], LASTING, SEEDS)
    ]


def windows(name: str) -> list[Job]:
    """The growth of the momentum's window in runs of several lengths: does the best one depend on the length?"""
    points = itertools.product(WINDOWS[name], GRIDS[OURS]["growth"], SEEDS)
    return [
        Job(f"growth {growth:g}, {length_of(epochs)}", _with(name, seed=seed, epochs=epochs, growth=growth))
        for epochs, growth, seed in points
    ]


def norms(name: str) -> list[Job]:
    """Normalisations, judged with running, re-estimated and the test batch's own statistics."""
    kinds = ("shared", "fast", "per-step", "across-time", "none")
    rules = ("T-BSO, paper", "T-BSO, calibrated")
    return [
        Job(f"{label}, {kind}", _with(name, seed=seed, norm=kind, refresh=False, **RULES[label]), statistics=True)
        for label, kind, seed in itertools.product(rules, kinds, SEEDS)
    ]


def savings(name: str) -> list[Job]:
    """The preset with a smaller momentum, packed signs, and backpropagation at some of the time steps."""
    steps = CONFIGS[name][1].num_steps
    changes: dict[str, dict[str, Any]] = {"float32 momentum": {}}
    for dtype in ("bfloat16", "int16", "int8"):
        changes[f"{dtype} momentum"] = {"momentum_dtype": dtype, "packed": True}
    changes["paper, float32 momentum"] = RULES["T-BSO, paper"]
    for dtype in ("bfloat16", "int16", "int8"):
        changes[f"paper, {dtype} momentum"] = {**RULES["T-BSO, paper"], "momentum_dtype": dtype, "packed": True}
    for count in range(1, steps):
        changes[f"backward at {count} of {steps}"] = {"backward_steps": count}
    return [
        Job(label, _with(name, seed=seed, **change))
        for (label, change), seed in itertools.product(changes.items(), SEEDS)
    ]


def ablations(name: str) -> list[Job]:
    """One setting at a time, away from the two presets, in short runs."""
    changes: dict[str, dict[str, Any]] = {}
    paper = RULES["T-BSO, paper"]
    for threshold in (0.0, 5e-7, 1e-3, 1e-2, 1e-1):
        changes[f"paper, threshold {threshold:g}"] = {**paper, "threshold": threshold}
    changes["paper, momentum reset at flips (BSO)"] = RULES["BSO with reset, paper"]
    changes["paper, no reset (BSO)"] = RULES["BSO, paper"]
    for c in (0.0, 0.1, 0.25, 0.5, 1.0):
        changes[f"calibrated, c = {c:g}"] = {"threshold": c}
    for growth in (0.0, 0.1, 0.3, 1.0):
        changes[f"calibrated, growth {growth:g}"] = {"growth": growth}
    for trace in ("ottt", "ndot", "ndot-released", "none"):
        changes[f"calibrated, trace {trace}"] = {"trace": trace}
    for steps in (1, 2, 4, 8, 12):
        changes[f"calibrated, T = {steps}"] = {"num_steps": steps}
    for label in ("T-BSO, paper", "T-BSO, calibrated"):
        changes[f"{label}, statistics not re-estimated"] = {**RULES[label], "refresh": False}
    return [
        Job(label, _with(name, seed=seed, epochs=ABLATION_EPOCHS, **change))
        for (label, change), seed in itertools.product(changes.items(), SEEDS)
    ]


def _grid(name: str) -> dict[str, Config]:
    found = {}
    for label in GRIDS:
        try:
            taken = chosen(name, SETTINGS_OF[label]) if label in SETTINGS_OF else {}
        except (FileNotFoundError, ValueError):
            continue
        for point in _points(label):
            found[_point_label(label, point)] = _with(name, seed=TUNING_SEED, **RULES[label], **{**taken, **point})
    return found


def _points(label: str) -> list[dict[str, float]]:
    grid = GRIDS[label]
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def _point_label(label: str, point: dict[str, float]) -> str:
    return f"{label}, {text_of(point)}"


def _with(name: str, **changes: Any) -> Config:
    return dataclasses.replace(CONFIGS[name][1], **changes)


PLAN: dict[str, tuple[JobsOf, Sequence[str]]] = {
    "tuning": (tuning, COMPARED),
    "rivals": (rivals, (*COMPARED, *FEW)),
    "speed": (speed, COMPARED),
    "longer": (longer, tuple(LONG)),
    "windows": (windows, tuple(WINDOWS)),
    "norms": (norms, ("digits", "spoken-digits")),
    "savings": (savings, ("digits", "fashion-mnist")),
    "ablations": (ablations, ("fashion-mnist-binary",)),
}
"""Each study's jobs and the configs that it is run on, in the order of their importance."""


def labels_of(study: str, config: str) -> list[str]:
    """The rows of a study on a config."""
    return list(dict.fromkeys(job.label for job in PLAN[study][0](config)))
