"""Regret of the flip rules: ``python -m experiments.regret --output regret.json --picture regret.png``.

Theorem 4.1 of the paper bounds the regret against the best fixed signs in hindsight,

    R(K) = sum over k = 1..K of f_k(w_k)  -  min over w in {-1, +1}^n of the sum of f_k(w),

by O(K^1/2) for BSO and O(K^3/4) for T-BSO, for convex f_k with bounded gradients, the threshold and 1 - b1 falling as
1/sqrt(k). All losses here are convex with bounded gradients, and their minima in hindsight are exact. What those
conditions leave out is that signs are no convex set: convexity bounds the cost of a small step against the gradient,
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
from experiments import regret_picture, run_folder

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
        """Raises ValueError unless every number is in range, naming the first that is not."""
        least = {"seeds": 2, "points": 9, "fit_from": 10, "resamples": 100, "rounds": 10 * self.fit_from}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise ValueError(f"--{name.replace('_', '-')}: must be at least {low}, got {getattr(self, name)}.")

    def checkpoints(self) -> np.ndarray:
        """The values of K, int64, ascending; the last is rounds."""
        return np.unique(np.geomspace(10, self.rounds, self.points).round().astype(np.int64))


class Rule(NamedTuple):
    """A flip rule with its settings; bound is the theorem's exponent, None where its schedules are not kept."""

    name: str
    make: Callable[[], optax.GradientTransformationExtraArgs]
    bound: float | None


class Problem(NamedTuple):
    """A sequence of convex losses over signs, and the exact minimum of their sums.

    Attributes:
      name: what the tables call it.
      title: what the losses are, one line.
      predicted: the exponent that a short calculation gives for the theorem's schedules.
      reason: that calculation, one sentence.
      size: n, the number of signs.
      draw: (generator, rounds) -> the losses' data, a tree of arrays with a leading axis of rounds.
      loss: (weights, data of one round) -> f_k(weights), a scalar.
      best: (data, signs that were played, ks) -> for each K in ks the least total loss of fixed signs, float64.
    """

    name: str
    title: str
    predicted: float
    reason: str
    size: int
    draw: Callable[[np.random.Generator, int], Any]
    loss: Callable[[jax.Array, Any], jax.Array]
    best: Callable[[Any, np.ndarray, np.ndarray], np.ndarray]


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
)
"""The theorem's two, and the controls.

0.8 lies above every gap of the linear problems, so nothing flips there. In the regressions, whose curvature is 1, it
lies between the gradients of right signs (0 and 0.5) and of wrong ones (2 and 1.5). In the last rule the momentum is
the plain mean of all gradients.
"""


def linear(name: str, title: str, predicted: float, reason: str, gaps: np.ndarray, decay: float = 0.0) -> Problem:
    """Losses ``<g, w>``, g of independent -1 and +1 with means ``-gaps * k**-decay`` times hidden signs in round k."""

    def draw(rng: np.random.Generator, rounds: int) -> np.ndarray:
        hidden = rng.choice([-1.0, 1.0], gaps.size)
        means = -gaps * hidden * np.arange(1, rounds + 1)[:, None] ** -decay
        return rng.random((rounds, gaps.size), np.float32) < ((1 + means) / 2).astype(np.float32)

    def loss(weights: jax.Array, positive: jax.Array) -> jax.Array:
        return jnp.sum(bsojax.to_weights(positive) * weights)

    def best(positive: np.ndarray, played: np.ndarray, ks: np.ndarray) -> np.ndarray:
        return _best_linear(positive, ks)

    return Problem(name, title, predicted, reason, gaps.size, draw, loss, best)


def regression(name: str, title: str, predicted: float, reason: str, size: int, shrink: float) -> Problem:
    """Losses ``(<a, w> - y)^2 / 2`` with a of -1 and +1 and ``y = shrink * <a, hidden signs> + (-1 or +1)``."""
    signs = np.indices((2,) * size).reshape(size, -1).T * 2.0 - 1
    ends = np.column_stack([signs, -np.ones(len(signs))])  # <end, (a, y)> is the residual

    def draw(rng: np.random.Generator, rounds: int) -> tuple[np.ndarray, np.ndarray]:
        hidden = rng.choice([-1.0, 1.0], size)
        inputs = rng.choice(np.array([-1, 1], np.float32), (rounds, size))
        targets = shrink * (inputs @ hidden) + rng.choice([-1.0, 1.0], rounds)
        return inputs, targets.astype(np.float32)

    def loss(weights: jax.Array, data: tuple[jax.Array, jax.Array]) -> jax.Array:
        inputs, target = data
        return jnp.square(jnp.sum(inputs * weights) - target) / 2

    def best(data: tuple[np.ndarray, np.ndarray], played: np.ndarray, ks: np.ndarray) -> np.ndarray:
        moments = np.zeros((size + 1, size + 1))
        least = []
        for rows in np.split(np.column_stack(data).astype(np.float64), ks)[:-1]:
            moments += rows.T @ rows
            least.append(np.min(np.sum((ends @ moments) * ends, axis=1)) / 2)  # over all 2^n
        return np.array(least)

    return Problem(name, title, predicted, reason, size, draw, loss, best)


def adversary(name: str, title: str, predicted: float, reason: str, size: int) -> Problem:
    """Losses ``<w_k, w>``, w_k being what the rule plays: known in advance, for no rule draws lots."""

    def draw(rng: np.random.Generator, rounds: int) -> np.ndarray:
        return np.zeros(rounds, np.float32)

    def loss(weights: jax.Array, data: jax.Array) -> jax.Array:
        return jnp.sum(jax.lax.stop_gradient(weights) * weights)

    def best(data: np.ndarray, played: np.ndarray, ks: np.ndarray) -> np.ndarray:
        return _best_linear(played, ks)

    return Problem(name, title, predicted, reason, size, draw, loss, best)


PROBLEMS = (
    linear(
        "clear",
        "linear, every gap 0.5",
        0,
        "the momentum's noise falls as k^-1/4, so errors stop and the regret stays constant",
        np.full(16, 0.5),
    ),
    linear(
        "undecided",
        "linear, every gap 0",
        1 / 2,
        "no rule can beat 0 on average, and hindsight gains the length of a random walk: n sqrt(2K/pi)",
        np.zeros(16),
    ),
    linear(
        "even gaps",
        "linear, gaps even in (0, 0.5)",
        1 / 2,
        "in round k the gaps below the noise k^-1/4 are undecided; their share and their cost both fall as k^-1/4",
        (np.arange(64) + 0.5) / 128,
    ),
    linear(
        "shrinking gaps",
        "linear, gaps 0.5 k^-1/4",
        3 / 4,
        "in every round the gap equals the momentum's noise but for a factor, so a fixed share of the signs is wrong",
        np.full(16, 0.5),
        1 / 4,
    ),
    regression(
        "corner",
        "regression, optimum at a corner",
        3 / 4,
        "noise keeps tripping right signs, each for a share k^-1/4 of the rounds; the slope comes from below, as wrong "
        "signs disturb the others at first",
        8,
        1.0,
    ),
    regression(
        "interior",
        "regression, optimum inside the cube",
        1,
        "the gradient points along every sign, right or wrong, so all flip for ever once the threshold is small",
        8,
        0.5,
    ),
    adversary(
        "adversary",
        "linear, chosen against the rule",
        1,
        "each round costs n, and some fixed signs lose at most 0: no deterministic rule over signs can do better",
        8,
    ),
)


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
        deltas, state = tx.update(gradient, state, signs)
        return (bsojax.apply_updates(signs, deltas), state), (value, signs)

    def one_seed(data: Any, signs: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jax.lax.scan(one_round, (signs, tx.init(signs)), data)[1]

    losses, played = jax.jit(jax.vmap(one_seed))(data, signs)
    return np.asarray(losses), np.asarray(played)


def draw(problem: Problem, settings: Settings) -> tuple[Any, np.ndarray]:
    """Draws for every seed the problem's data and the first signs; a seed gives the same whatever the others are."""
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
    """The exponents as a Markdown table, a problem a row and a rule a column, and what each problem is."""
    settings, bounds = result["settings"], result["bounds"]
    names = [f"{name} (bound {bound:g})" if bound is not None else name for name, bound in bounds.items()]
    lines = ["| problem | predicted | " + " | ".join(names) + " |", "|---" * (2 + len(names)) + "|"]
    for name, problem in result["problems"].items():
        cells = []
        for rule, bound in bounds.items():
            fit = problem["rules"][rule]["exponent"]
            above = bound is not None and fit is not None and min(problem["predicted"], fit["low"]) > bound
            cells.append(f"**{_interval(fit)}**" if above else _interval(fit))
        lines.append(f"| {name} | {problem['predicted']:g} | " + " | ".join(cells) + " |")
    lines += [
        "",
        f"Exponents of the mean regret of {settings['seeds']} seeds over K = {settings['fit_from']:,} to "
        f"{settings['rounds']:,}, with 95 % intervals (bootstrap over the seeds); none where the regret is not "
        "positive. Predicted: by a short calculation, for the theorem's schedules. Bold: the prediction and the whole "
        "interval lie above the theorem's bound. A slope over a finite range proves no order, and some controls "
        "bend: see the picture.",
        "",
    ]
    lines += [
        f"- {name}: {problem['title']}, {problem['size']} signs; {problem['reason']}."
        for name, problem in result["problems"].items()
    ]
    return "\n".join(lines)


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
    result |= {"cpu_seconds": round(time.process_time() - start, 1), **run_folder.environment()}
    run_folder.write_json(output, result)
    if picture is not None:
        regret_picture.draw(picture, result)
    console.print(markdown(result), markup=False, highlight=False)


def _interval(fit: dict[str, float] | None) -> str:
    return "none" if fit is None else f"{fit['value']:.2f} ({fit['low']:.2f} to {fit['high']:.2f})"


def _best_linear(positive: np.ndarray, ks: np.ndarray) -> np.ndarray:
    """For losses ``<g, w>`` with g the signs ``positive``, bool (rounds, n): minus the 1-norm of their sums."""
    starts = np.concatenate([[0], ks[:-1]])
    counts = np.add.reduceat(positive[: ks[-1]], starts, axis=0, dtype=np.int64).cumsum(axis=0)
    return -np.abs(2.0 * counts - ks[:, None]).sum(axis=1)


if __name__ == "__main__":
    tyro.cli(main, prog="python -m experiments.regret", description=__doc__)
