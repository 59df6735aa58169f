"""Batch normalisation for spiking networks: statistics of one time step's batch, kept for all steps or for each."""

import types

import flax.linen as nn
import jax
import jax.numpy as jnp


class BatchNorm(nn.Module):
    """Normalises the current of each channel over batch and space.

    Use it between a synapse and its neuron. In training it normalises by the statistics of this time step's batch and
    lets the running ones follow; otherwise by the running ones. Signs that flip make those stale: see
    ``refresh_statistics``. Give num_steps where it is known: time steps differ, and statistics that they share leave a
    gap between training and evaluation even when re-estimated (docs/RESULTS.md, section 4). Statistics are float32
    whatever the dtype of x; the result has the dtype of x.

    Variables: "scale" and "bias" in the collection "params", "mean" and "var" in "batch_stats", of shape
    ``(channels,)``, or ``(num_steps, channels)`` for the latter two where num_steps is given.

    Attributes:
      num_steps: None shares the running statistics between time steps; a number keeps them for each of so many.
      momentum: decay of the running statistics at an update, in [0, 1).
      epsilon: added to the variance.
      axis_name: the name of the device axis of pmap or shard_map, over which the batch's statistics are averaged too;
        a batch sharded under jit needs none.

    Raises:
      TypeError: x is not floating.
      ValueError: statistics are kept a time step, and time_step is missing or outside 0 .. num_steps - 1.
    """

    num_steps: int | None = None
    momentum: float = 0.9
    epsilon: float = 1e-5
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False, time_step: int | jax.Array | None = None) -> jax.Array:
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise TypeError(f"x: '{self.name}' needs a floating input, not {x.dtype}; convert it first.")
        channels = x.shape[-1]
        shape = (channels,) if self.num_steps is None else (self.num_steps, channels)
        scale = self.param("scale", nn.initializers.ones, (channels,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        at = self._entry(time_step)
        if train:
            mean, var = self._batch_statistics(x)
            if not self.is_initializing():
                for running, new in ((running_mean, mean), (running_var, var)):
                    followed = self.momentum * running.value[at] + (1 - self.momentum) * jax.lax.stop_gradient(new)
                    running.value = running.value.at[at].set(followed)
            mean, inverse = self._centre_and_inverse(mean, var, running_mean.value[at], running_var.value[at])
        else:
            mean, inverse = running_mean.value[at], jax.lax.rsqrt(running_var.value[at] + self.epsilon)
        gain = scale * inverse
        shift = bias - mean * gain
        spread = (1,) * (x.ndim - 1) + (channels,)
        return (x * gain.reshape(spread) + shift.reshape(spread)).astype(x.dtype)

    def _centre_and_inverse(
        self, mean: jax.Array, var: jax.Array, running_mean: jax.Array, running_var: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """What a training batch of the given statistics is centred at, and what it is multiplied by."""
        del running_mean, running_var
        return mean, jax.lax.rsqrt(var + self.epsilon)

    def _entry(self, time_step: int | jax.Array | None) -> int | jax.Array | types.EllipsisType:
        if self.num_steps is None:
            return ...
        if time_step is None:
            raise ValueError(
                f"time_step: BatchNorm '{self.name}' keeps statistics for each of {self.num_steps} time steps; pass "
                "time_step on from the model's __call__."
            )
        if not isinstance(time_step, jax.core.Tracer) and not 0 <= int(time_step) < self.num_steps:
            raise ValueError(
                f"time_step: {int(time_step)} is outside 0 .. {self.num_steps - 1}; BatchNorm '{self.name}' was made "
                f"with num_steps={self.num_steps}."
            )
        return time_step

    def _batch_statistics(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        values = x.astype(jnp.float32)
        axes = tuple(range(x.ndim - 1))
        mean = jnp.mean(values, axes)
        if self.axis_name is not None and not self.is_initializing():
            mean = jax.lax.pmean(mean, self.axis_name)
        # Around the mean, not E[x^2] - E[x]^2: that difference cancels in float32 where the mean is large.
        var = jnp.mean(jnp.square(values - mean.reshape((1,) * (x.ndim - 1) + mean.shape)), axes)
        if self.axis_name is not None and not self.is_initializing():
            var = jax.lax.pmean(var, self.axis_name)
        return mean, var


class BatchRenorm(BatchNorm):
    """Normalises by the running statistics in training too, with the gradient of BatchNorm.

    Use it where training and evaluation must see the same normalisation, between time steps too: the value of its
    output is that of evaluation, while the gradient flows through the batch's own statistics. Variables and attributes
    as in BatchNorm. ``refresh_statistics`` refuses it: its statistics are those that training used.

    Source: Ioffe, Batch Renormalization, NeurIPS 2017, without its limits on the correction; over time steps it is the
    online spiking renormalisation of Zhu et al., ICLR 2024.
    """

    def _centre_and_inverse(
        self, mean: jax.Array, var: jax.Array, running_mean: jax.Array, running_var: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        inverse, running_inverse = (jax.lax.rsqrt(value + self.epsilon) for value in (var, running_var))
        scaled = inverse * jax.lax.stop_gradient(running_inverse / inverse)
        drift = jax.lax.stop_gradient((mean - running_mean) * running_inverse)
        return mean - drift / scaled, scaled  # the drift is a summand of the output, and constant there


class Affine(nn.Module):
    """A learned gain and bias a channel, without statistics: ``scale * x + bias``.

    Use it in the place of a norm where the weights themselves are scaled, as by ``rsqrt_fan_in``: nothing goes stale
    when signs flip, and nothing depends on the batch.

    Variables: "scale" and "bias" in the collection "params", float32 of shape ``(channels,)``.
    """

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False, time_step: int | jax.Array | None = None) -> jax.Array:
        del train, time_step
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)
        spread = (1,) * (x.ndim - 1) + (channels,)
        return (x * scale.reshape(spread) + bias.reshape(spread)).astype(x.dtype)
