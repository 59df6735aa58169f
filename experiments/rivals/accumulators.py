"""Rules of others that keep no latent weight: a sum of gradients behind each sign, and a bound that it must pass.

Each is implemented from the description in its paper, for the loops and networks here; what its authors add around it,
such as their own schedules, is left out.
"""

import abc
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import bsojax
from bsojax.signs import deltas, unpack_signs


class AccumulatorState(NamedTuple):
    """The state of accumulator.

    Attributes:
      total: float32 tree like the signs, the sum of gradients since the last flip.
      memory: what the bound of a leaf needs, a tree of its initial values.
    """

    total: optax.Updates
    memory: Any


class Bound(abc.ABC):
    """How far the sum of gradients of a leaf must go against its signs."""

    @abc.abstractmethod
    def start(self, shape: tuple[int, ...]) -> Any:
        """Returns what is remembered of a leaf that has not been updated yet."""

    def decay(self, memory: Any) -> Any:
        """Returns what the sum so far is multiplied by."""
        del memory
        return 1.0

    @abc.abstractmethod
    def limit(self, memory: Any, gradient: jax.Array) -> tuple[Any, Any]:
        """Returns the memory with a gradient, and the limit: a number, or one per weight."""

    @abc.abstractmethod
    def after(self, memory: Any, flips: jax.Array) -> Any:
        """Returns the memory after flips."""


@dataclasses.dataclass(frozen=True)
class OwnSecondMoment(Bound):
    """BOAT: a multiple of the root of the sum of the squares of the same gradients; both restart at a flip."""

    threshold: float

    def start(self, shape: tuple[int, ...]) -> Any:
        return jnp.zeros(shape)

    def limit(self, memory: Any, gradient: jax.Array) -> tuple[Any, Any]:
        memory = memory + jnp.square(gradient)
        return memory, self.threshold * jnp.sqrt(memory)

    def after(self, memory: Any, flips: jax.Array) -> Any:
        return jnp.where(flips, 0, memory)


@dataclasses.dataclass(frozen=True)
class FlipCount(Bound):
    """SGDAT: a threshold that rises by a fraction of itself with every flip of the weight."""

    threshold: float
    rise: float

    def start(self, shape: tuple[int, ...]) -> Any:
        return jnp.zeros(shape)

    def limit(self, memory: Any, gradient: jax.Array) -> tuple[Any, Any]:
        return memory, self.threshold * (1 + self.rise * memory)

    def after(self, memory: Any, flips: jax.Array) -> Any:
        return memory + flips


@dataclasses.dataclass(frozen=True)
class ShareFlipped(Bound):
    """BOLD: a threshold, with a sum that decays by the fraction of the layer that flipped at the last update."""

    threshold: float

    def start(self, shape: tuple[int, ...]) -> Any:
        return jnp.zeros(())

    def decay(self, memory: Any) -> Any:
        return 1 - memory

    def limit(self, memory: Any, gradient: jax.Array) -> tuple[Any, Any]:
        return memory, self.threshold

    def after(self, memory: Any, flips: jax.Array) -> Any:
        return jnp.mean(flips, dtype=jnp.float32)


def accumulator(bound: Bound, scale: optax.Schedule) -> optax.GradientTransformationExtraArgs:
    """Flips a sign where the sum of gradients against it passes a bound, and restarts its sum.

    An update whose gradients are not all finite changes nothing.

    Args:
      bound: the bound.
      scale: what gradients are multiplied by, a schedule: their learning rate.
    """

    def init_fn(params: optax.Params) -> tuple[jax.Array, AccumulatorState]:
        signs = unpack_signs(params)
        memory = [bound.start(jnp.shape(leaf)) for leaf in jax.tree.leaves(signs)]
        return jnp.zeros((), jnp.int32), AccumulatorState(
            jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), signs), memory
        )

    def update_fn(
        grads: optax.Updates,
        state: tuple[jax.Array, AccumulatorState],
        params: optax.Params | None = None,
        **extra: Any,
    ) -> tuple[optax.Updates, tuple[jax.Array, AccumulatorState]]:
        del extra
        count, held = state
        finite, factor = bsojax.optim.all_finite(grads), scale(count)
        signs = unpack_signs(params)
        structure: Any = jax.tree.structure(signs)
        flips, totals, memories = [], [], []
        rows = zip(
            jax.tree.leaves(signs), jax.tree.leaves(grads), jax.tree.leaves(held.total), held.memory, strict=True
        )
        for sign, raw, total, memory in rows:
            gradient = factor * jnp.where(finite, raw, 0)
            total = bound.decay(memory) * total + gradient
            seen, limit = bound.limit(memory, gradient)
            flip = finite & bsojax.optim.flip_mask(sign, total, limit)
            flips.append(flip)
            totals.append(jnp.where(flip, 0, total))
            memories.append(bound.after(seen, flip))
        kept = AccumulatorState(jax.tree.unflatten(structure, totals), memories)
        return deltas(params, jax.tree.unflatten(structure, flips)), (count + 1, kept)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
