"""Backpropagation through time: the whole sequence is unrolled, differentiated at once, and answered by one update."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

import bsojax
from bsojax import losses, online, optim, signs
from bsojax.nn import NEURONS, SPIKE_RATES


class ThroughTimeLIF(nn.Module):
    """LIF neurons through whose membrane the gradient flows back in time; the reset is kept out of it.

    Use it as the neuron of a model that make_bptt_step trains. State and attributes as in ``bsojax.LIF`` with the soft
    reset and without a trace.
    """

    tau: float = 2.0
    v_threshold: float = 1.0
    surrogate: bsojax.Surrogate = bsojax.sigmoid(4.0)

    @nn.compact
    def __call__(self, current: jax.Array) -> bsojax.Spikes:
        membrane = self.variable(NEURONS, "membrane", lambda: jnp.zeros_like(current))
        charged = (1 - 1 / self.tau) * membrane.value + current
        spike = self.surrogate(charged - self.v_threshold)
        if not self.is_initializing():
            membrane.value = charged - self.v_threshold * jax.lax.stop_gradient(spike)
        rate = jax.lax.stop_gradient(jnp.mean(spike, dtype=jnp.float32))
        self.sow(SPIKE_RATES, "rate", rate, reduce_fn=lambda _, new: new, init_fn=float)
        return bsojax.Spikes(spike, None)


def make_bptt_step(
    model: nn.Module,
    tx: optax.GradientTransformation,
    num_steps: int,
    *,
    loss: losses.Loss | None = None,
) -> Callable[..., Any]:
    """Returns ``step(state, x, y) -> (state, metrics)`` with one update per batch, from the gradient through all steps.

    State, batches and metrics are those of ``bsojax.make_train_step``; its memory grows with num_steps. Non-finite
    gradients change nothing and are counted.

    Args:
      model: a Linen module whose neurons are ThroughTimeLIF.
      tx: an optimizer over ``{"signs": ..., "params": ...}``; it is given ``time_step=0``.
      num_steps: T.
      loss: a function of one time step's logits and the labels; None: the online step's.
    """
    step_loss = bsojax.cross_entropy_mse() if loss is None else loss

    def objective(weights: Any, batch_stats: Any, x: jax.Array, y: jax.Array, sequence: bool) -> Any:
        def body(carry: tuple[Any, ...], frame: jax.Array | None) -> tuple[tuple[Any, ...], Any]:
            t, stats, neurons = carry
            variables = {**weights, "batch_stats": stats}
            out = online.forward(model, variables, neurons, x if frame is None else frame, t, train=True)
            result = out.logits, step_loss(out.logits, y) / num_steps, out.spike_rates
            return (t + 1, out.batch_stats, out.neurons), result

        begun = online.start(model, x[0] if sequence else x, num_steps, train=True)
        first = (jnp.zeros((), jnp.int32), batch_stats, begun.neurons)
        carry, (logits, losses, rates) = jax.lax.scan(body, first, x if sequence else None, length=num_steps)
        return losses.sum(), (logits.sum(0), carry[1], jax.tree.map(lambda rate: rate.mean(0), rates))

    def step(state: bsojax.TrainState, x: jax.Array, y: jax.Array) -> tuple[bsojax.TrainState, dict[str, Any]]:
        sequence = x.ndim == len(state.input_shape) + 2
        (value, (logits, stats, rates)), grads = bsojax.value_and_grad(objective, has_aux=True)(
            state.trainable, state.batch_stats, x, y, sequence
        )
        finite = optim.all_finite((grads, value))
        updates, opt_state = optim.guarded_update(tx, grads, state.opt_state, state.trainable, finite, time_step=0)
        metrics = {
            "loss": value,
            "accuracy": losses.accuracy(logits, y).mean(),
            "flips": signs.count_flips(state.signs, updates["signs"]),
            "spikes": rates,
            "skipped": (~finite).astype(jnp.int32),
        }
        state = dataclasses.replace(
            state,
            **bsojax.apply_updates(state.trainable, updates),
            batch_stats=optax.tree.where(finite, stats, state.batch_stats),
            opt_state=opt_state,
            step=state.step + 1,
            skipped=state.skipped + ~finite,
        )
        return state, metrics

    return jax.jit(step, donate_argnums=0)
