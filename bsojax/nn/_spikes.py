"""What travels between layers: a spike and its presynaptic trace."""

from collections.abc import Callable
from typing import NamedTuple

import jax


class Spikes(NamedTuple):
    """A spike and its presynaptic trace: the pair that travels along an axon.

    A synapse multiplies the value with its weights in the forward pass and puts the trace in the place of the value in
    the gradient of its weights (eq. 6). A plain array counts as its own trace.

    Attributes:
      value: the spikes of this time step, any floating dtype.
      trace: the filtered spikes ``a[t] = mu[t] a[t-1] + s[t]`` of the same shape, or None: the value is the trace.
    """

    value: jax.Array
    trace: jax.Array | None = None


def as_spikes(x: Spikes | jax.Array) -> Spikes:
    """Returns x as Spikes; an array has no trace of its own."""
    return x if isinstance(x, Spikes) else Spikes(x)


def map_spikes(function: Callable[[jax.Array], jax.Array], x: Spikes | jax.Array) -> Spikes | jax.Array:
    """Applies a linear function, such as pooling, to value and trace alike; an array stays an array."""
    if not isinstance(x, Spikes):
        return function(x)
    return Spikes(function(x.value), None if x.trace is None else function(jax.lax.stop_gradient(x.trace)))
