"""Regret of the flip rules: ``python -m experiments.regret --output regret.json --picture regret.png``.

Theorem 4.1 of the paper bounds the regret against the best fixed signs in hindsight,

    R(K) = sum over k = 1..K of f_k(w_k)  -  min over w in {-1, +1}^n of the sum of f_k(w),

by O(K^1/2) for BSO and O(K^3/4) for T-BSO, for convex f_k with bounded gradients, the threshold and 1 - b1 falling as
1/sqrt(k). All losses here are convex with bounded gradients, and their minima in hindsight are exact. What those
conditions leave out is that signs are not a convex set: convexity bounds the cost of a small step against the gradient,
and a flip is not small. For a quadratic it pays only where ``weight * gradient`` exceeds the curvature of that weight,
which a threshold that falls to 0 forgets. The problems look for where this matters.
"""

import dataclasses
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from rich.console import Console

import bsojax
from experiments import regret_picture
from experiments.environment import environment
from experiments.pages import joined, table
from experiments.regret_problems import PROBLEMS, Problem
from experiments.running.files import write_json

NUM_STEPS = 4
"""Time steps of T-BSO: rounds 1, 5, 9, ... share one second moment."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Size of the experiment."""

    rounds: int = 100_000
    """The largest K."""
    seeds: int = 16
    """Independent repetitions: losses and first signs."""
    points: int = 21
    """Values of K, evenly spaced on a logarithmic axis from 10 to the largest."""
    fit_from: int = 1_000
    """The exponent is fitted from this K on."""
    resamples: int = 2_000
    """Bootstrap samples of the seeds for the 95 % interval."""

    def check(self) -> None:
        """Raises ValueError, naming the first number that is out of range."""
        least = {"seeds": 2, "points": 9, "fit_from": 10, "resamples": 100, "rounds": 10 * self.fit_from}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise ValueError(f"--{name.replace('_', '-')}: must be at least {low}, got {getattr(self, name)}.")

    def checkpoints(self) -> np.ndarray:
        """The values of K, int64, ascending; the last is rounds."""
        return np.unique(np.geomspace(10, self.rounds, self.points).round().astype(np.int64))


class Rule(NamedTuple):
    """A flip rule with its settings.

    Attributes:
      name: what the tables call it.
      make: makes it.
      bound: the theorem's exponent, None where its schedules are not kept.
      deployed: whether the signs that are judged are those to deploy, and not those at which gradients are taken.
    """

    name: str
    make: Callable[[], optax.GradientTransformationExtraArgs]
    bound: float | None
    deployed: bool = False


def inverse_root(count: jax.Array) -> jax.Array:
    """The theorem's schedule, 1/sqrt(k) in round k = count + 1; float32 holds its complement to 0.01 % at K = 1e6."""
    return 1 / jnp.sqrt(count + 1.0)


def rising_b1(count: jax.Array) -> jax.Array:
    """The theorem's schedule of b1: 1 - b1 falls as 1/sqrt(k)."""
    return 1 - inverse_root(count)


RULES = (
    Rule("BSO, theorem's schedules", lambda: bsojax.bso(inverse_root, rising_b1), 1 / 2),
    Rule("T-BSO, theorem's schedules", lambda: bsojax.t_bso(inverse_root, NUM_STEPS, rising_b1), 3 / 4),
    Rule("threshold 0, theorem's b1", lambda: bsojax.bso(0.0, rising_b1), None),
    Rule("BSO, paper's constants", lambda: bsojax.bso(5e-7, 0.999), None),
    Rule("T-BSO, paper's constants", lambda: bsojax.t_bso(5e-7, NUM_STEPS, 0.999), None),
    Rule("BSO, constant threshold 0.8", lambda: bsojax.bso(0.8, 0.999), None),
    Rule("threshold 0, 1 - b1 = 1/k", lambda: bsojax.bso(0.0, lambda count: 1 - 1 / (count + 1.0)), None),
    Rule("T-BSO, calibrated", lambda: bsojax.calibrated(NUM_STEPS), None),
    Rule("T-BSO, calibrated, deployed", lambda: bsojax.calibrated(NUM_STEPS), None, deployed=True),
    Rule("counter, 8 bits", lambda: bsojax.calibrated_counter(bits=8, deploy_c=None), None),
)
"""The theorem's two, and the controls.

0.8 lies above every gap of the linear problems, so nothing flips there. In the regressions, whose curvature is 1, it
lies between the gradients of right signs (0 and 0.5) and of wrong ones (2 and 1.5). With 1 - b1 = 1/k
the momentum is the plain mean of all gradients. The recipes are those of an open end; their windows grow with k, where
the theorem has its root, so it does not apply to them.
"""


def play(rule: Rule, problem: Problem, data: Any, signs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Plays a rule against the losses of every seed.

    Args:
      rule: the flip rule.
      problem: gives the loss.
      data: the problem's data with leading axes (seeds, rounds).
      signs: the first signs, bool (seeds, n).

    Returns:
      The losses f_k(w_k), float32 (seeds, rounds), and the signs w_k before the update of round k, bool (seeds, rounds,
      n).
    """
    tx = rule.make()
    value_and_grad = bsojax.value_and_grad(problem.loss)

    def one_round(carry: tuple[Any, Any], data: Any) -> tuple[tuple[Any, Any], tuple[jax.Array, jax.Array]]:
        signs, state = carry
        value, gradient = value_and_grad(signs, data)
        shown = signs
        if rule.deployed:
            shown = bsojax.deployed_signs(state, signs)
            value, _ = value_and_grad(shown, data)
        deltas, state = tx.update(gradient, state, signs)
        return (bsojax.apply_updates(signs, deltas), state), (value, shown)

    def one_seed(data: Any, signs: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jax.lax.scan(one_round, (signs, tx.init(signs)), data)[1]

    losses, played = jax.jit(jax.vmap(one_seed))(data, signs)
    return np.asarray(losses), np.asarray(played)


def draw(problem: Problem, settings: Settings) -> tuple[Any, np.ndarray]:
    """Draws for every seed the problem's data and the first signs; each seed's draws do not depend on the others."""
    rngs = [np.random.default_rng(seed) for seed in range(settings.seeds)]
    signs = np.stack([rng.random(problem.size) < 0.5 for rng in rngs])
    return jax.tree.map(lambda *leaves: np.stack(leaves), *(problem.draw(rng, settings.rounds) for rng in rngs)), signs


def regret(problem: Problem, data: Any, losses: np.ndarray, played: np.ndarray, ks: np.ndarray) -> np.ndarray:
    """R(K) of one seed for each K in ks, float64."""
    return np.cumsum(losses, dtype=np.float64)[ks - 1] - problem.best(data, played, ks)


def exponent(curves: np.ndarray, ks: np.ndarray, settings: Settings) -> dict[str, float] | None:
    """Fits p of ``mean R(K) ~ K^p`` by least squares on logarithms, from K = fit_from on.

    Args:
      curves: R(K), (seeds, len(ks)).
      ks: the values of K.
      settings: gives fit_from and resamples.

    Returns:
      value, and low and high, the central 95 % of the same fit over bootstrap samples of the seeds; None where the
      mean, or that of a sample, is not positive: such a regret follows no power law.
    """
    late = ks >= settings.fit_from
    x = np.log(ks[late])
    x = (x - x.mean()) / np.sum((x - x.mean()) ** 2)
    samples = np.random.default_rng(0).integers(len(curves), size=(settings.resamples, len(curves)))
    means = np.concatenate([curves.mean(axis=0, keepdims=True), curves[samples].mean(axis=1)])[:, late]
    if np.any(means <= 0):
        return None
    slopes = np.log(means) @ x
    low, high = np.quantile(slopes[1:], [0.025, 0.975])
    return {"value": float(slopes[0]), "low": float(low), "high": float(high)}


def measure(
    settings: Settings,
    report: Callable[[str], None],
    problems: tuple[Problem, ...] = PROBLEMS,
    rules: tuple[Rule, ...] = RULES,
) -> dict[str, Any]:
    """Plays every rule on every problem; returns the result as JSON values, without versions and command."""
    ks = settings.checkpoints()
    results = {}
    for problem in problems:
        data, signs = draw(problem, settings)
        rows = {}
        for rule in rules:
            losses, played = play(rule, problem, data, signs)
            curves = np.stack(
                [
                    regret(problem, jax.tree.map(lambda leaf, s=seed: leaf[s], data), losses[seed], played[seed], ks)
                    for seed in range(settings.seeds)
                ]
            )
            rows[rule.name] = {
                "exponent": exponent(curves, ks, settings),
                "mean": curves.mean(axis=0).round(3).tolist(),
                "deviation": curves.std(axis=0, ddof=1).round(3).tolist(),
            }
            report(f"{problem.name}, {rule.name}: exponent {_interval(rows[rule.name]['exponent'])}")
        results[problem.name] = {
            "title": problem.title,
            "size": problem.size,
            "predicted": problem.predicted,
            "reason": problem.reason,
            "rules": rows,
        }
    return {
        "settings": dataclasses.asdict(settings),
        "bounds": {rule.name: rule.bound for rule in rules},
        "rounds": ks.tolist(),
        "problems": results,
    }


def markdown(result: dict[str, Any]) -> str:
    """The exponents as a Markdown table, one row per rule and one column per problem, and the problems."""
    settings, bounds, problems = result["settings"], result["bounds"], result["problems"]

    def cell(problem: dict[str, Any], rule: str, bound: float | None) -> str:
        fit = problem["rules"][rule]["exponent"]
        above = bound is not None and fit is not None and min(problem["predicted"], fit["low"]) > bound
        return f"**{_interval(fit)}**" if above else _interval(fit)

    rows = [("predicted", *(f"{problem['predicted']:g}" for problem in problems.values()))]
    for rule, bound in bounds.items():
        name = rule if bound is None else f"{rule} (bound {bound:g})"
        rows.append((name, *(cell(problem, rule, bound) for problem in problems.values())))
    told = (
        f"Exponents of the mean regret of {settings['seeds']} seeds over K = {settings['fit_from']:,} to "
        f'{settings["rounds"]:,}, with 95 % intervals (bootstrap over the seeds); "none" where the regret is '
        "not positive. Predicted: by a short calculation, for the theorem's schedules. Bold: the prediction and the "
        "whole interval lie above the theorem's bound. A slope over a finite range does not prove an order, and some "
        "controls bend: see the picture. The recipes are judged by their trained signs and, where stated, by their "
        "deployed signs; their windows grow with K, not with its root, so the theorem does not apply to them. Deployed "
        "signs flip only where the momentum is sure, which suits an optimum inside the cube; against an adversary, no "
        "deterministic rule helps."
    )
    listed = (
        f"- {name}: {problem['title']}, {problem['size']} signs; {problem['reason']}."
        for name, problem in problems.items()
    )
    return joined(table(("rule", *problems), rows), told, "\n".join(listed))


def main(
    output: Path, picture: Path | None = None, settings: Annotated[Settings, tyro.conf.arg(name="")] = Settings()
) -> None:
    """Measures the regret of BSO, T-BSO and controls over signs, and fits its exponents.

    Args:
      output: the JSON file.
      picture: the PNG; None: no picture.
      settings: size of the experiment.
    """
    console = Console(soft_wrap=True)
    try:
        settings.check()
        for path in (output, picture or output):
            path.parent.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError) as error:
        Console(stderr=True, soft_wrap=True).print(f"error: {error}", markup=False, highlight=False)
        sys.exit(2)
    start = time.process_time()
    result = measure(settings, lambda line: console.print(line, markup=False, highlight=False))
    result |= {"cpu_seconds": round(time.process_time() - start, 1), **environment()}
    write_json(output, result)
    if picture is not None:
        regret_picture.draw(picture, result)
    console.print(markdown(result), markup=False, highlight=False)


def _interval(fit: dict[str, float] | None) -> str:
    return "none" if fit is None else f"{fit['value']:.2f} ({fit['low']:.2f} to {fit['high']:.2f})"


if __name__ == "__main__":
    tyro.cli(main, prog="python -m experiments.regret", description=__doc__)
