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

from bsojax._arguments import check_num_steps
from bsojax._checks import is_sequence
from bsojax._flips import all_finite
from bsojax._kinds import as_host_array, check_model
from bsojax._model import call_options, resting_neurons
from bsojax._neurons import NEURONS, without_traces
from bsojax._state import TrainState, check_train_state, check_variables


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
      TypeError: model, state or batches is not of its kind, or a batch is not floating.
      ValueError: state, model and batches do not fit each other, there is no batch, the statistics came out not
        finite, or the model's output in training depends on them, as with BatchRenorm: they then cannot be measured
        apart from their present values.
    """
    check_model(model)
    check_train_state(state)
    num_steps = check_num_steps(num_steps)
    try:
        iter(batches)
    except TypeError:
        raise TypeError(f"batches: needs an iterable of batches, not {batches!r}.") from None
    if not jax.tree.leaves(state.batch_stats):
        return state

    zeros = jax.tree.map(jnp.zeros_like, state.batch_stats)
    sums, count, depends, checked = (zeros, zeros), 0, jnp.array(False), set()
    for batch in batches:
        x: Any = batch[0] if isinstance(batch, tuple | list) and batch else batch
        x = x if isinstance(x, jax.Array) else as_host_array("batches: x", x)
        labels: Any = np.zeros(x.shape[-1 - len(state.input_shape)] if x.ndim > len(state.input_shape) else 0, np.int32)
        sequence = is_sequence(x, labels, state.input_shape, num_steps)
        x = jnp.asarray(x)
        if (kind := (len(labels), x.dtype)) not in checked:
            check_variables(model, state, jax.ShapeDtypeStruct((len(labels), *state.input_shape), x.dtype), train=True)
            checked.add(kind)
        sums, differs = _gather(_Identity(model), num_steps, sequence, state.variables, sums, x)
        count, depends = count + 1, depends | differs
    if not count:
        raise ValueError("batches: there is none; give at least one batch of training inputs.")
    if bool(depends):
        raise ValueError(
            "model: its output in training depends on its running statistics (BatchRenorm normalises by them), so they "
            "cannot be re-estimated; they are what training used, so evaluate with them as they are."
        )
    fresh = jax.tree.map(
        lambda old, value, weight: jnp.where(weight > 0, value / jnp.where(weight > 0, weight, 1), old),
        state.batch_stats,
        *sums,
    )
    if not bool(all_finite(fresh)):
        raise ValueError("batches: the statistics came out as NaN or infinity; are the inputs and parameters finite?")
    return dataclasses.replace(state, batch_stats=fresh)


class _Identity:
    """A model as a static argument of jit: compared as an object, so that models need not be hashable."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def __hash__(self) -> int:
        return id(self.model)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and self.model is other.model


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _gather(
    static_model: _Identity,
    num_steps: int,
    sequence: bool,
    variables: dict[str, Any],
    sums: tuple[Any, Any],
    x: jax.Array,
) -> tuple[tuple[Any, Any], jax.Array]:
    """Adds one batch's statistics, and their weights, to the sums; says whether the output depends on running ones."""
    model = static_model.model

    def body(carry: tuple[Any, ...], _: None) -> tuple[tuple[Any, ...], None]:
        t, neurons, values, weights, differs = carry

        def followed(start: float) -> tuple[Any, Any, Any]:
            stats = jax.tree.map(lambda leaf: jnp.full_like(leaf, start), variables["batch_stats"])
            logits, changed = model.apply(
                {**variables, "batch_stats": stats, NEURONS: neurons},
                x[t] if sequence else x,
                mutable=["batch_stats", NEURONS],
                **call_options(model, train=True, time_step=t),
            )
            return changed["batch_stats"], changed.get(NEURONS, neurons), logits

        # A moving average that starts at 0 ends at w * (this batch's statistic); one that starts at 1 ends 1 - w
        # higher. Their difference gives w without knowing the norm; w is 0 for entries of other time steps.
        (from_zero, after, logits), (from_one, _, other) = followed(0.0), followed(1.0)
        differs |= ~jnp.array_equal(logits, other, equal_nan=True)
        weights = jax.tree.map(lambda w, zero, one: w + 1 - (one - zero), weights, from_zero, from_one)
        return (t + 1, after, optax.tree.add(values, from_zero), weights, differs), None

    neurons = without_traces(resting_neurons(model, x[0] if sequence else x))
    start = (jnp.zeros((), jnp.int32), neurons, *sums, jnp.array(False))
    (_, _, values, weights, differs), _ = jax.lax.scan(body, start, None, length=num_steps)
    return (values, weights), differs
