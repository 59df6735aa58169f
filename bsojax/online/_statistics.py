"""Re-estimation of the norms' running statistics."""

import dataclasses
import functools
from collections.abc import Iterable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from bsojax import _validate
from bsojax.online._batch import Batch, as_inputs, as_mask, batch_of
from bsojax.online._state import TrainState, not_donated
from bsojax.online._walk import LEARNING, Walk, walk
from bsojax.optim import all_finite


def refresh_statistics(
    model: nn.Module, state: TrainState, batches: Iterable[Any], num_steps: int, *, rngs: Any = None
) -> TrainState:
    """Re-estimates the running statistics of the norms by a forward pass over training data; returns the new state.

    Use it before evaluating and before saving: while signs flip, running statistics describe a network that no longer
    exists. At each time step, a mean becomes the mean of all given examples, and a variance their variance around it;
    statistics shared by time steps are averaged over them. It works for any norm that updates its statistics as a
    moving average in "batch_stats" and calls them "mean" and "var", including flax's own, and averages those with other
    names. Without statistics the state is returned unchanged.

    Args:
      model: a Linen module (see init).
      state: the state; neither changed nor donated.
      batches: training inputs as for the training step, each x, or a tuple (x, y) or (x, y, mask), of which y is
        ignored. At least one; ten or more of the training batch size are better. They may differ in size.
      num_steps: the number of time steps, as in training.
      rngs: random keys, as in the training step; each batch derives its own from them.

    Raises:
      TypeError: a batch is not floating.
      ValueError: state, model and batches do not fit each other, there is no batch, or none with two examples at a time
        step, the resulting statistics are not finite, or the model's output in training depends on them, as with
        BatchRenorm: they then cannot be measured independently of their present values.
    """
    num_steps = _validate.steps(num_steps)
    if not jax.tree.leaves(state.batch_stats):
        return state
    found: Any = None
    count, depends = 0, jnp.array(False)
    for batch in batches:
        x, _, mask = (*batch, None, None)[:3] if isinstance(batch, tuple | list) else (batch, None, None)
        x, mask = as_inputs(x, state.input_shape), as_mask(mask)
        batch_of(x, None, mask, state.input_shape, num_steps)
        keys = None if rngs is None else jax.tree.map(lambda key: jax.random.fold_in(key, count), rngs)  # noqa: B023
        with not_donated(state):
            seen, differs = _measure(Static(model), num_steps, state, x, mask, keys)
        found = seen if found is None else _joined(found, seen)
        count, depends = count + 1, depends | differs
    _validate.some_batches(count)
    _validate.no_feedback(depends)
    _validate.measured_statistics(optax.tree.sum(found.number) > 0)
    fresh = _over_time(found, state.batch_stats)
    _validate.finite_statistics(all_finite(fresh))
    return dataclasses.replace(state, batch_stats=fresh)


class Static:
    """A model as a static argument of jit: equal to models with the same attributes, where these are hashable."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        try:
            self.key = hash(model)
        except TypeError:
            self.key = id(model)

    def __hash__(self) -> int:
        return self.key

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Static) or self.key != other.key:
            return False
        return self.model is other.model or self.model == other.model


class Statistics(NamedTuple):
    """Statistics of examples, each a tree like the running ones with a leading axis of time steps.

    Attributes:
      number: how many examples they cover; 0 where a time step does not touch an entry.
      mean: for a leaf "var" the mean beside it; for others the leaf itself.
      spread: for a leaf "var" the sum of squares around that mean, in units of an example; for others unused.
    """

    number: Any
    mean: Any
    spread: Any


@functools.partial(jax.jit, static_argnums=(0, 1))
def _measure(
    static_model: Static, num_steps: int, state: TrainState, x: Any, mask: Any, rngs: Any
) -> tuple[Statistics, jax.Array]:
    """Returns one batch's statistics, and whether the output depends on the running ones."""
    batch = batch_of(x, None, mask, state.input_shape, num_steps)
    way, begun = walk(static_model.model, state, batch, train=True, rngs=rngs, form=LEARNING._replace(traces=False))

    def body(carry: tuple[Any, ...], _: None) -> tuple[tuple[Any, ...], Any]:
        t, neurons, differs = carry
        # A moving average that starts at 0 ends at w * (this batch's statistic); one that starts at 1 ends 1 - w
        # higher. Their difference gives w without knowing the norm; w is 0 for entries of other time steps.
        zero, one = (_followed(way, state, neurons, t, start) for start in (0.0, 1.0))
        examples = _examples(batch, t)
        depends = ~jax.tree.reduce(jnp.logical_and, jax.tree.map(_same, zero.logits, one.logits))
        differs |= depends & (examples > 1)  # where padding leaves one, norms use the running statistics
        weight = jax.tree.map(lambda low, high: 1 - (high - low), zero.batch_stats, one.batch_stats)
        number = jax.tree.map(lambda weight: jnp.where(weight > 1e-6, examples, 0), weight)  # NaN: of no example
        value = jax.tree.map(
            lambda value, weight, n: jnp.where(n > 0, value / jnp.where(n > 0, weight, 1), 0),
            zero.batch_stats, weight, number,
        )  # fmt: skip
        after = zero.neurons
        if batch.mask is not None:  # a lone example is normalised by running statistics, which 0 and 1 are not
            after = jax.lax.cond(examples > 1, lambda: after, lambda: way.at(t, neurons, state.variables).neurons)
        return (t + 1, after, differs), _statistics(value, number)

    first = (jnp.zeros((), jnp.int32), begun.neurons, jnp.array(False))
    (_, _, differs), statistics = jax.lax.scan(body, first, None, length=batch.num_steps)
    return statistics, differs


def _followed(way: Walk, state: TrainState, neurons: Any, t: jax.Array, start: float) -> Any:
    stats = jax.tree.map(lambda leaf: jnp.full_like(leaf, start), state.batch_stats)
    return way.at(t, neurons, {**state.variables, "batch_stats": stats})


def _same(one: jax.Array, other: jax.Array) -> jax.Array:
    return jnp.array_equal(one, other, equal_nan=True)


def _examples(batch: Batch, t: jax.Array) -> jax.Array:
    counted = batch.counted(t)
    return jnp.float32(batch.size) if counted is None else jnp.sum(counted).astype(jnp.float32)


def _statistics(value: Any, number: Any) -> Statistics:
    """Returns the statistics of one time step of a batch."""
    flat, structure = jax.tree_util.tree_flatten_with_path(value)
    by_path = dict(flat)
    means, spreads = [], []
    for (path, leaf), n in zip(flat, jax.tree.leaves(number), strict=True):
        mean = by_path.get(_beside(path))
        means.append(leaf if mean is None else mean)
        spreads.append(jnp.zeros_like(leaf) if mean is None else leaf * n)
    return Statistics(number, jax.tree.unflatten(structure, means), jax.tree.unflatten(structure, spreads))


def _beside(path: tuple[Any, ...]) -> Any:
    """Returns the path of the mean that belongs to a variance, or None."""
    last = path[-1] if path else None
    is_var = isinstance(last, jax.tree_util.DictKey) and last.key == "var"
    return (*path[:-1], jax.tree_util.DictKey("mean")) if is_var else None


@jax.jit
def _joined(one: Statistics, other: Statistics) -> Statistics:
    """Returns the statistics of the examples of both (Chan et al., 1979, which does not cancel where means are large).

    The other may have fewer time steps.
    """

    def join(n: Any, mean: Any, spread: Any, n2: Any, mean2: Any, spread2: Any) -> Any:
        steps = max(len(n), len(n2))
        n, mean, spread, n2, mean2, spread2 = (
            jnp.pad(leaf, [(0, steps - len(leaf))] + [(0, 0)] * (leaf.ndim - 1))
            for leaf in (n, mean, spread, n2, mean2, spread2)
        )
        total = jnp.maximum(n + n2, 1)
        apart = mean2 - mean
        return n + n2, mean + apart * n2 / total, spread + spread2 + jnp.square(apart) * n * n2 / total

    joined = jax.tree.map(join, *one, *other)
    pick: Any = lambda index: jax.tree.map(  # noqa: E731
        lambda triple: triple[index], joined, is_leaf=lambda node: isinstance(node, tuple)
    )
    return Statistics(pick(0), pick(1), pick(2))


@jax.jit
def _over_time(found: Statistics, old: Any) -> Any:
    """Returns running statistics: each the average over the time steps that touch it, or unchanged where none does."""
    flat, structure = jax.tree_util.tree_flatten_with_path(old)
    fresh = []
    for (path, leaf), n, mean, spread in zip(flat, *map(jax.tree.leaves, found), strict=True):
        total = jnp.sum(n, 0)
        value = jnp.sum(spread if _beside(path) in dict(flat) else n * mean, 0) / jnp.maximum(total, 1)
        fresh.append(jnp.where(total > 0, value, leaf))
    return jax.tree.unflatten(structure, fresh)
