"""Batch normalisation for spiking networks: statistics of one time step's batch, kept for all steps or each one."""

import functools
import types
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from bsojax import _validate
from bsojax._jax import axis_size
from bsojax.nn._counted import counted_examples


class Correction(NamedTuple):
    """What a norm does to the normalised input, as constants of the gradient: ``factor * normalised + drift``.

    Attributes:
      factor, drift: float32 of shape ``(channels,)``.
    """

    factor: jax.Array
    drift: jax.Array


class Counted(NamedTuple):
    """What the statistics of a padded batch cover.

    Attributes:
      examples: which examples count, boolean of shape ``(batch,)``.
      number: how many values per channel that is: float32, the mean over the devices that share the statistics.
      enough: whether there are at least two; fewer have no variance, and the running statistics are used instead.
    """

    examples: jax.Array
    number: jax.Array
    enough: jax.Array


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def normalise(
    axis_name: str | None,
    x: jax.Array,
    mean: jax.Array,
    inverse: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    correction: Correction | None,
    counted: Counted | None,
) -> jax.Array:
    """Returns ``scale * (factor * (x - mean) * inverse + drift) + bias``, in the dtype of x.

    Its gradient is that of a normalisation by the batch's own statistics. For it, x is all that is stored, where
    automatic differentiation would store float32 intermediates of x's size.

    Args:
      axis_name: the device axis that shares the statistics, or None.
      x: shape ``(..., channels)``.
      mean: the batch's mean of x per channel; it is a function of x, and the gradient of x includes its share.
      inverse: the batch's inverse standard deviation, likewise.
      scale: float32 of shape ``(channels,)``.
      bias: likewise.
      correction: None means a factor of 1 and no drift.
      counted: what the statistics cover; None means all of x.
    """
    del counted
    factor, drift = correction or (1.0, 0.0)
    gain = scale * inverse * factor
    shift = bias + scale * drift - mean * gain
    return (x * _spread(gain, x) + _spread(shift, x)).astype(x.dtype)


_Residuals = tuple[jax.Array, jax.Array, jax.Array, jax.Array, Correction | None, Counted | None]


def _normalise_forward(
    axis_name: str | None,
    x: jax.Array,
    mean: jax.Array,
    inverse: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    correction: Correction | None,
    counted: Counted | None,
) -> tuple[jax.Array, _Residuals]:
    y = normalise(axis_name, x, mean, inverse, scale, bias, correction, counted)
    return y, (x, mean, inverse, scale, correction, counted)


def _normalise_backward(
    axis_name: str | None, residuals: _Residuals, g: jax.Array
) -> tuple[jax.Array, None, None, jax.Array, jax.Array, None, None]:
    x, mean, inverse, scale, correction, counted = residuals
    factor, drift = correction or (1.0, 0.0)
    axes = tuple(range(x.ndim - 1))
    g = g.astype(jnp.float32)
    total = jnp.sum(g, axes)
    projected = (jnp.sum(g * x, axes) - mean * total) * inverse
    number = x.size // x.shape[-1] if counted is None else counted.number
    mean_g, mean_projected = total / number, projected / number
    if axis_name is not None:
        mean_g, mean_projected = jax.lax.pmean((mean_g, mean_projected), axis_name)
    along = _spread(mean_projected * inverse, x) * (x - _spread(mean, x))
    if counted is None:
        x_grad = _spread(scale * factor * inverse, x) * (g - _spread(mean_g, x) - along)
    else:
        share = counted.examples.reshape((-1,) + (1,) * (x.ndim - 1)) & counted.enough
        x_grad = _spread(scale * factor * inverse, x) * (g - jnp.where(share, _spread(mean_g, x) + along, 0))
    scale_grad = (factor * projected + drift * total).astype(scale.dtype)
    return x_grad.astype(x.dtype), None, None, scale_grad, total.astype(scale.dtype), None, None


normalise.defvjp(_normalise_forward, _normalise_backward)


def _spread(values: jax.Array, x: jax.Array) -> jax.Array:
    """Returns one value per channel as an array that broadcasts to x."""
    return values.reshape((1,) * (x.ndim - 1) + values.shape)


class BatchNorm(nn.Module):
    """Normalises the current of each channel over batch and space.

    Use it between a synapse and its neuron. In training it normalises by the statistics of this time step's batch and
    updates the running ones; otherwise it normalises by the running ones. Signs that flip make those stale: see
    ``refresh_statistics``. Give num_steps where it is known: time steps differ, and statistics shared between them
    leave a gap between training and evaluation even when re-estimated (docs/RESULTS.md, section 4). Statistics are
    float32 regardless of the dtype of x; the result has the dtype of x.

    Variables: "scale" and "bias" in the collection "params", "mean" and "var" in "batch_stats", of shape
    ``(channels,)``, or ``(num_steps, channels)`` for the latter two where num_steps is given.

    Example:
      >>> import jax, jax.numpy as jnp, bsojax
      >>> norm, x = bsojax.BatchNorm(momentum=0.5), jnp.array([[1.0], [3.0]])
      >>> variables = norm.init(jax.random.key(0), x)
      >>> y, changed = norm.apply(variables, x, train=True, mutable=["batch_stats"])
      >>> y.round(2).tolist(), changed["batch_stats"]["mean"].tolist()
      ([[-1.0], [1.0]], [1.0])

    Attributes:
      num_steps: None shares the running statistics between time steps; a number keeps them for each of that many.
      momentum: decay of the running statistics at an update, in [0, 1).
      epsilon: added to the variance.
      axis_name: the name of the device axis of pmap or shard_map over which the batch's statistics are averaged too; a
        batch sharded under jit does not need one.

    Raises:
      TypeError: x is not floating.
      ValueError: statistics are kept per time step, and time_step is missing or outside 0 .. num_steps - 1; or in
        training a channel has a single value, which the norm would reduce to nothing.
    """

    num_steps: int | None = None
    momentum: float = 0.9
    epsilon: float = 1e-5
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False, time_step: int | jax.Array | None = None) -> jax.Array:
        _validate.floating("x", x, f"'{self.name}'")
        channels = x.shape[-1]
        shape = (channels,) if self.num_steps is None else (self.num_steps, channels)
        scale = self.param("scale", nn.initializers.ones, (channels,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        at = self._entry(time_step)
        if train:
            counted = self._counted(x)
            mean, var = self._batch_statistics(x, counted)
            if counted is not None:
                mean = jnp.where(counted.enough, mean, running_mean.value[at])
                var = jnp.where(counted.enough, var, running_var.value[at])
            if not self.is_initializing():
                for running, new in ((running_mean, mean), (running_var, var)):
                    followed = self.momentum * running.value[at] + (1 - self.momentum) * new
                    running.value = running.value.at[at].set(followed)
            inverse = self._inverse_deviation(var)
            correction = self._correction(mean, inverse, running_mean.value[at], running_var.value[at])
            axis_name = None if self.is_initializing() else self.axis_name
            return normalise(axis_name, x, mean, inverse, scale, bias, correction, counted)
        gain = scale * self._inverse_deviation(running_var.value[at])
        shift = bias - running_mean.value[at] * gain
        return (x * _spread(gain, x) + _spread(shift, x)).astype(x.dtype)

    def _correction(
        self, mean: jax.Array, inverse: jax.Array, running_mean: jax.Array, running_var: jax.Array
    ) -> Correction | None:
        """Returns the correction for an input that was normalised by the given statistics of its batch."""
        del mean, inverse, running_mean, running_var
        return None

    def _inverse_deviation(self, var: jax.Array) -> jax.Array:
        return jax.lax.rsqrt(var + float(self.epsilon))

    def _entry(self, time_step: int | jax.Array | None) -> int | jax.Array | types.EllipsisType:
        if self.num_steps is None:
            return ...
        entry: int | jax.Array = _validate.time_step(f"BatchNorm '{self.name}'", time_step, self.num_steps)
        return entry

    def _over_devices(self, tree: Any) -> Any:
        shared = self.axis_name is not None and not self.is_initializing()
        return jax.lax.pmean(tree, self.axis_name) if shared else tree

    def _counted(self, x: jax.Array) -> Counted | None:
        """Returns what counts of x; refuses a single value per channel where that is known."""
        examples = counted_examples()
        values = x.size // x.shape[-1]
        if examples is None or self.is_initializing():
            if not self.is_initializing() and self.axis_name is None:
                _validate.more_than_one_value(f"{type(self).__name__} '{self.name}'", values)
            return None
        number = self._over_devices(jnp.sum(examples) * jnp.float32(values // len(x)))
        devices = 1 if self.axis_name is None else axis_size(self.axis_name)
        return Counted(examples, jnp.where(number > 0, number, 1), number * devices > 1)

    def _batch_statistics(self, x: jax.Array, counted: Counted | None) -> tuple[jax.Array, jax.Array]:
        values = jax.lax.stop_gradient(x).astype(jnp.float32)
        axes = tuple(range(x.ndim - 1))

        def average(values: jax.Array) -> jax.Array:
            if counted is None:
                return jnp.mean(values, axes)
            which = counted.examples.reshape((-1,) + (1,) * (x.ndim - 1))
            return jnp.sum(jnp.where(which, values, 0), axes) / counted.number

        mean = self._over_devices(average(values))
        # Around the mean, not E[x^2] - E[x]^2: where the mean is large, that difference cancels in float32.
        return mean, self._over_devices(average(jnp.square(values - _spread(mean, x))))


class BatchRenorm(BatchNorm):
    """Normalises by the running statistics in training too, with the gradient of BatchNorm.

    Use it where training and evaluation must see the same normalisation, also between time steps: its output has the
    value that evaluation gives, while the gradient flows through the batch's own statistics. Variables and attributes
    are those of BatchNorm. ``refresh_statistics`` refuses it, because its statistics are those that training used.

    Source: Ioffe, Batch Renormalization, NeurIPS 2017, without its limits on the correction; over time steps it is the
    online spiking renormalisation of Zhu et al., ICLR 2024.
    """

    def _correction(
        self, mean: jax.Array, inverse: jax.Array, running_mean: jax.Array, running_var: jax.Array
    ) -> Correction | None:
        running_inverse = self._inverse_deviation(running_var)
        return Correction(running_inverse / inverse, (mean - running_mean) * running_inverse)


class Affine(nn.Module):
    """A learned gain and bias per channel, without statistics: ``scale * x + bias``.

    Use it instead of a norm where the weights themselves are scaled, as by ``rsqrt_fan_in``: nothing goes stale when
    signs flip, and nothing depends on the batch.

    Variables: "scale" and "bias" in the collection "params", float32 of shape ``(channels,)``.

    Raises:
      TypeError: x is not floating.
    """

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False, time_step: int | jax.Array | None = None) -> jax.Array:
        del train, time_step
        _validate.floating("x", x, f"'{self.name}'")
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],), jnp.float32)
        return (x * _spread(scale, x) + _spread(bias, x)).astype(x.dtype)
