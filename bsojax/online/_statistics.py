"""Re-estimation of the norms' running statistics."""

import dataclasses
import functools
from collections.abc import Iterable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from bsojax import _validate
from bsojax.online._model import forward, start
from bsojax.online._state import TrainState, check_state
from bsojax.optim import all_finite


def refresh_statistics(model: nn.Module, state: TrainState, batches: Iterable[Any], num_steps: int) -> TrainState:
    """Re-estimates the running statistics of the norms by a forward pass over training data; returns the new state.

    Use it before evaluating and before saving: while signs flip, running statistics describe a network that no longer
    exists. Every statistic becomes its mean over the given batches and time steps. It works for any norm that follows
    its statistics by a moving average in "batch_stats", flax's own too; without one the state is returned as it is.

    Args:
      model: a Linen module (see init).
      state: the state; neither changed nor donated.
      batches: training inputs as for the training step, each x or a pair (x, y); at least one, ten or more of the
        training's batch size are better.
      num_steps: the number of time steps, as in training.

    Raises:
      TypeError: a batch is not floating.
      ValueError: state, model and batches do not fit each other, there is no batch, the statistics came out not
        finite, or the model's output in training depends on them, as with BatchRenorm: they then cannot be measured
        apart from their present values.
    """
    num_steps = _validate.steps(num_steps)
    if not jax.tree.leaves(state.batch_stats):
        return state
    zeros = jax.tree.map(jnp.zeros_like, state.batch_stats)
    sums, count, depends = (zeros, zeros), 0, jnp.array(False)
    for batch in batches:
        x = batch[0] if isinstance(batch, tuple | list) else batch
        x = x if isinstance(x, jax.Array) else np.asarray(x)
        labels = np.zeros(x.shape[-1 - len(state.input_shape)] if x.ndim > len(state.input_shape) else 0, np.int32)
        sequence = _validate.batch(x, labels, state.input_shape, num_steps)
        sums, differs = _gather(_Static(model), num_steps, sequence, state, sums, jnp.asarray(x))
        count, depends = count + 1, depends | differs
    _validate.some_batches(count)
    _validate.no_feedback(bool(depends))
    fresh = jax.tree.map(
        lambda old, value, weight: jnp.where(weight > 0, value / jnp.where(weight > 0, weight, 1), old),
        state.batch_stats,
        *sums,
    )
    _validate.finite_statistics(bool(all_finite(fresh)))
    return dataclasses.replace(state, batch_stats=fresh)


class _Static:
    """A model as a static argument of jit: equal to models of the same attributes, where these hash."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        try:
            self.key: Any = hash(model)
        except TypeError:
            self.key = id(model)

    def __hash__(self) -> int:
        return self.key

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Static) or self.key != other.key:
            return False
        return self.model is other.model or self.model == other.model


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _gather(
    static_model: _Static,
    num_steps: int,
    sequence: bool,
    state: TrainState,
    sums: tuple[Any, Any],
    x: jax.Array,
) -> tuple[tuple[Any, Any], jax.Array]:
    """Adds one batch's statistics, and their weights, to the sums; says whether the output depends on running ones."""
    model = static_model.model
    begun = start(model, x[0] if sequence else x, num_steps, train=True, learns=False)
    check_state(state, begun.variables)

    def body(carry: tuple[Any, ...], _: None) -> tuple[tuple[Any, ...], None]:
        t, neurons, values, weights, differs = carry

        def followed(start: float) -> Any:
            stats = jax.tree.map(lambda leaf: jnp.full_like(leaf, start), state.batch_stats)
            variables = {**state.variables, "batch_stats": stats}
            return forward(model, variables, neurons, x[t] if sequence else x, t, train=True)

        # A moving average that starts at 0 ends at w * (this batch's statistic); one that starts at 1 ends 1 - w
        # higher. Their difference gives w without knowing the norm; w is 0 for entries of other time steps.
        zero, one = followed(0.0), followed(1.0)
        differs |= ~jnp.array_equal(zero.logits, one.logits, equal_nan=True)
        weights = jax.tree.map(lambda w, low, high: w + 1 - (high - low), weights, zero.batch_stats, one.batch_stats)
        return (t + 1, zero.neurons, optax.tree.add(values, zero.batch_stats), weights, differs), None

    first = (jnp.zeros((), jnp.int32), begun.neurons, *sums, jnp.array(False))
    (_, _, values, weights, differs), _ = jax.lax.scan(body, first, None, length=num_steps)
    return (values, weights), differs
