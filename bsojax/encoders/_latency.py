"""Latency encoding: a value is the time of its one spike."""

import math
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from bsojax import _validate

Delay: TypeAlias = Callable[[jax.Array], jax.Array]
"""When a value in (0, 1] spikes: a fraction of the window, from 0 at its start to 1 at its end; beyond 1, never."""


def linear(x: jax.Array) -> jax.Array:
    """Spikes at ``1 - x``: equal differences become equal distances in time."""
    return 1 - x


def charging(threshold: float = 0.2, tau: float = 0.5) -> Delay:
    """Returns the delay of a leaky membrane that a constant current x charges until it reaches a threshold.

    The delay is ``tau * ln(x / (x - threshold))``, less that of x = 1, which spikes at once. Use it where small values
    matter little: they come late, and ever later the closer they are to the threshold; those up to it never spike.

    Args:
      threshold: in (0, 1), in units of x.
      tau: the time constant, in windows; with both defaults, values up to 0.224 never spike.

    Raises:
      ValueError: the threshold is not in (0, 1), or tau is not positive.

    Source: Eshraghian et al., Training Spiking Neural Networks Using Lessons From Deep Learning, 2023, section III-A.
    """
    _validate.between("threshold", threshold, 0, 1)
    _validate.between("tau", tau, 0, math.inf)

    def delay(x: jax.Array) -> jax.Array:
        above = x > threshold
        charged = -jnp.log1p(-threshold / jnp.where(above, x, 1))
        return jnp.where(above, tau * (charged + math.log1p(-threshold)), jnp.inf)

    return delay


def latency(x: ArrayLike, num_steps: int, delay: Delay = linear) -> jax.Array:
    """Returns one spike per value, earlier the larger it is; zero does not spike.

    Use it to make a sparse sequence: a single spike of each input neuron carries all information. The window is cut
    into num_steps equal parts, and a value spikes in the part that its delay falls into.

    Args:
      x: values in [0, 1], floating, of any shape; values outside never spike unless x is a NumPy array, where they are
        refused.
      num_steps: T.
      delay: when a value spikes: linear, :func:`charging`, or a function of your own.

    Returns:
      0 and 1, of shape ``(num_steps, *x.shape)`` and the dtype of x.

    Raises:
      TypeError: x is not floating.
      ValueError: x is a NumPy array with values outside [0, 1], or num_steps < 1.

    Source: Thorpe, Delorme and Van Rullen, Spike-based strategies for rapid processing, 2001.
    """
    values, num_steps = _validate.probabilities("x", x, "latency"), _validate.steps(num_steps)
    share = delay(values.astype(jnp.float32))
    spikes = (values > 0) & (values <= 1) & (share >= 0) & (share <= 1)
    step = jnp.minimum(jnp.floor(share * num_steps), num_steps - 1)  # the end belongs to the last part
    steps = jnp.arange(num_steps, dtype=jnp.float32).reshape((-1,) + (1,) * values.ndim)
    sequence: jax.Array = ((steps == step[None]) & spikes[None]).astype(values.dtype)
    return sequence
