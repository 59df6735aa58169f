"""The same norm and neurons written plainly, with the gradients of automatic differentiation: the reference."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

import bsojax
from bsojax.nn import NEURONS, SPIKE_RATES, charge, reset


class PlainBatchNorm(bsojax.BatchNorm):
    """BatchNorm whose gradient flows through its statistics automatically."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False, time_step: Any = None) -> jax.Array:
        channels = x.shape[-1]
        shape = (channels,) if self.num_steps is None else (self.num_steps, channels)
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        running = [
            self.variable("batch_stats", "mean", jnp.zeros, shape),
            self.variable("batch_stats", "var", jnp.ones, shape),
        ]
        at = ... if self.num_steps is None else time_step
        statistics = [leaf.value[at] for leaf in running]
        if train:
            values = x.astype(jnp.float32)
            axes = tuple(range(x.ndim - 1))
            statistics = [values.mean(axes), values.var(axes)]
            if not self.is_initializing():
                for leaf, new in zip(running, statistics, strict=True):
                    leaf.value = leaf.value.at[at].set(0.9 * leaf.value[at] + 0.1 * jax.lax.stop_gradient(new))
        spread = (1,) * (x.ndim - 1) + (channels,)
        mean, var, scale, bias = (leaf.reshape(spread) for leaf in (*statistics, scale, bias))
        return ((x - mean) / jnp.sqrt(var + self.epsilon) * scale + bias).astype(x.dtype)


class PlainLIF(nn.Module):
    """LIF with the OTTT trace, whose gradient is that of the surrogate's own spike function."""

    tau: float = 2.0
    v_threshold: float = 1.0
    v_reset: float | None = None
    surrogate: bsojax.Surrogate = bsojax.sigmoid(4.0)

    @nn.compact
    def __call__(self, current: jax.Array) -> bsojax.Spikes:
        rest = 0.0 if self.v_reset is None else self.v_reset
        membrane = self.variable(NEURONS, "membrane", lambda: jnp.full_like(current, rest))
        trace = self.variable(NEURONS, "trace", lambda: jnp.zeros_like(current))
        charged = charge(membrane.value, current, 1 - 1 / self.tau, v_rest=rest)
        spike = self.surrogate(charged - self.v_threshold)
        fired = jax.lax.stop_gradient(spike)
        new_trace = (1 - 1 / self.tau) * trace.value + fired
        if not self.is_initializing():
            membrane.value = jax.lax.stop_gradient(reset(charged, fired, self.v_threshold, self.v_reset))
            trace.value = new_trace
        self.sow(SPIKE_RATES, "rate", fired.mean(), reduce_fn=lambda _, rate: rate, init_fn=float)
        return bsojax.Spikes(spike, new_trace)
