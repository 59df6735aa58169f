"""Rate encoding: a value is the probability of a spike."""

import chex
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from bsojax import _validate


def rate(key: chex.PRNGKey, x: ArrayLike, num_steps: int) -> jax.Array:
    """Returns spikes that each occur with the probability of their value, drawn anew at each time step.

    Use it to make a sequence for a training step from static values, such as pixels in [0, 1]. It holds all time steps
    at once; ``rate_step`` in a model's ``__call__`` holds one. Under jit over a mesh an example's draws are those on a
    single device.

    Args:
      key: a PRNG key; time step t is ``rate_step(jax.random.fold_in(key, t), x)``.
      x: probabilities in [0, 1], floating, of any shape; values outside are clipped unless x is a NumPy array, where
        they are refused.
      num_steps: T.

    Returns:
      0 and 1, of shape ``(num_steps, *x.shape)`` and the dtype of x.

    Raises:
      TypeError: x is not floating.
      ValueError: x is a NumPy array with values outside [0, 1], or num_steps < 1.

    Source: one Bernoulli draw per time step, the discrete form of a Poisson train (Diehl and Cook, 2015).
    """
    values = _validate.probabilities("x", x, "rate")
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(_validate.steps(num_steps)))
    return jax.vmap(_spikes, in_axes=(0, None))(keys, values)


def rate_step(key: chex.PRNGKey, x: ArrayLike) -> jax.Array:
    """Returns the spikes of one time step, each with the probability of its value.

    Use it inside a model, whose memory then does not grow with the number of time steps. Training steps that receive
    ``rngs`` pass the model another key at each time step:

    Example:
      >>> import flax.linen as nn, bsojax
      >>> class Net(nn.Module):
      ...     @nn.compact
      ...     def __call__(self, x, train=False):
      ...         x = bsojax.encoders.rate_step(self.make_rng("encoder"), x)
      ...         x = bsojax.LIF()(bsojax.BatchNorm()(bsojax.BinaryDense(64)(x), train))
      ...         return bsojax.Dense(10)(x)

    Args:
      key: a PRNG key for this time step only.
      x: as in :func:`rate`.

    Returns:
      0 and 1, of the shape and dtype of x.

    Raises:
      TypeError, ValueError: as rate.
    """
    return _spikes(key, _validate.probabilities("x", x, "rate_step"))


def _spikes(key: chex.PRNGKey, x: jax.Array) -> jax.Array:
    # In float32 whatever the dtype of x: bfloat16 has 128 values in [1/2, 1), and spikes would be too rare.
    return (jax.random.uniform(key, x.shape) < x.astype(jnp.float32)).astype(x.dtype)
