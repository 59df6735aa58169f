"""The gradient of one time step, through the layers only."""

from typing import Any, NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from bsojax.losses import Loss, takes
from bsojax.online._model import Forward, forward
from bsojax.signs import differentiable


class TimeStep(NamedTuple):
    """The results of one time step of training.

    Attributes:
      loss: its loss, a scalar.
      grads: the gradients, a tree like the trainable one with floating leaves in place of signs.
      forward: the results of the forward pass.
    """

    loss: jax.Array
    grads: Any
    forward: Forward


def time_step(
    model: nn.Module,
    loss: Loss,
    trainable: dict[str, Any],
    batch_stats: Any,
    neurons: Any,
    frame: Any,
    y: Any,
    t: int | jax.Array,
    *,
    dtype: chex.ArrayDType = jnp.float32,
    backward: jax.Array | None = None,
    counted: jax.Array | None = None,
    rngs: Any = None,
) -> TimeStep:
    """Runs a model on one time step of training and returns the loss and its gradients.

    Use it in a training loop of your own: make_train_step scans this function. Nothing flows back in time; the weights'
    gradients are taken at the traces (eq. 6).

    Example:
      >>> import jax, jax.numpy as jnp, optax, bsojax
      >>> from bsojax import online
      >>> def make_step(model, tx, loss, num_steps):
      ...     @jax.jit
      ...     def step(state, x, y):
      ...         def body(carry, t):
      ...             trainable, opt_state, stats, neurons = carry
      ...             out = online.time_step(model, loss, trainable, stats, neurons, x, y, t)
      ...             finite = bsojax.optim.all_finite((out.loss, out.grads))
      ...             updates, opt_state = bsojax.optim.guarded_update(
      ...                 tx, out.grads, opt_state, trainable, finite, time_step=t)
      ...             trainable = bsojax.apply_updates(trainable, updates)
      ...             stats = optax.tree.where(finite, out.forward.batch_stats, stats)
      ...             return (trainable, opt_state, stats, out.forward.neurons), out.loss
      ...         rest = online.start(model, x, num_steps, train=True).neurons
      ...         carry = (state.trainable, state.opt_state, state.batch_stats, rest)
      ...         (trainable, opt_state, stats, _), losses = jax.lax.scan(body, carry, jnp.arange(num_steps))
      ...         state = state.replace(**trainable, opt_state=opt_state, batch_stats=stats, step=state.step + 1)
      ...         return state, losses.mean()
      ...     return step

    Args:
      model: a Linen module (see init).
      loss: a function of logits and y that returns a real scalar; of "time_step", "spike_rates" and "sown" it receives
        those that it takes (see bsojax.losses.Loss).
      trainable: ``{"signs": ..., "params": ...}``, signs packed or not.
      batch_stats: the running statistics.
      neurons: the state of the neurons, from ``start(...).neurons`` or the previous step.
      frame: a batch of one time step.
      y: its targets, passed to loss.
      t: the time step.
      dtype: the dtype of the signs as numbers, and so of their gradients.
      backward: a boolean scalar; where it is False the backward pass is left out, and gradients are zero; None means
        True.
      counted: which examples count (see :func:`forward`).
      rngs: random keys of the sequence (see :func:`forward`).
    """
    weights, kernels = differentiable(trainable, dtype)

    def objective(weights: Any) -> tuple[jax.Array, Forward]:
        variables = {**kernels(weights), "batch_stats": batch_stats}
        out = forward(model, variables, neurons, frame, t, train=True, counted=counted, rngs=rngs)
        seen = {"time_step": t, "spike_rates": out.spike_rates, "sown": out.sown}
        return loss(out.logits, y, **{name: seen[name] for name in takes(loss)}), out

    value, pull_back, out = jax.vjp(objective, weights, has_aux=True)
    one = jnp.ones_like(value)
    if backward is None:
        return TimeStep(value, pull_back(one)[0], out)
    # Where there is no backward pass, gradients are zero: both branches need the same buffers.
    nothing = jax.tree.map(jnp.zeros_like, weights)
    return TimeStep(value, jax.lax.cond(backward, lambda: pull_back(one)[0], lambda: nothing), out)
