"""Sequences of convex losses over signs, each with the exact minimum of its sums over fixed signs."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import bsojax


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


def _best_linear(positive: np.ndarray, ks: np.ndarray) -> np.ndarray:
    """For losses ``<g, w>`` with g the signs ``positive``, bool (rounds, n): minus the 1-norm of their sums."""
    starts = np.concatenate([[0], ks[:-1]])
    counts = np.add.reduceat(positive[: ks[-1]], starts, axis=0, dtype=np.int64).cumsum(axis=0)
    return -np.abs(2.0 * counts - ks[:, None]).sum(axis=1)
