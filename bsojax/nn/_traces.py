"""Presynaptic traces ``a[t] = mu[t] a[t-1] + s[t]``: how the factor mu follows from the neuron."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class TraceInputs(NamedTuple):
    """The inputs of a trace rule.

    Attributes:
      membrane, previous_membrane: the membrane after the reset, at this and at the last time step.
      spike, previous_spike: the spikes of this and of the last time step; the latter only for rules that keep it.
      decay: the membrane's decay per time step, lambda = 1 - 1/tau (1 for integrate-and-fire): a float, or an array
        that broadcasts to the spikes where it is given per neuron or learned.
      v_threshold: the firing threshold, likewise; for ALIF the threshold of this time step.
    """

    membrane: jax.Array
    previous_membrane: jax.Array
    spike: jax.Array
    previous_spike: jax.Array | None
    decay: Any
    v_threshold: Any


@dataclasses.dataclass(frozen=True)
class TraceRule:
    """A presynaptic trace rule.

    Attributes:
      factor: a function of TraceInputs that returns mu, a scalar or an array that broadcasts to the spikes.
      keeps_spike: whether the neuron must keep the last spike for it, as an additional part of its state.
    """

    factor: Callable[[TraceInputs], jax.Array | float]
    keeps_spike: bool = False


def _ottt(inputs: TraceInputs) -> jax.Array | float:
    decay: jax.Array | float = inputs.decay
    return decay


def _clamped_ratio(numerator: jax.Array, denominator: jax.Array, decay: Any) -> jax.Array:
    ratio = numerator / denominator
    return jnp.where(jnp.isfinite(ratio), jnp.clip(ratio, -decay, decay), decay)


def _ndot(inputs: TraceInputs) -> jax.Array | float:
    return _clamped_ratio(inputs.membrane, inputs.previous_membrane, inputs.decay)


def _ndot_released(inputs: TraceInputs) -> jax.Array | float:
    same_for_all = isinstance(inputs.decay, float)
    if same_for_all and inputs.decay == 1:
        return 1.0
    assert inputs.previous_spike is not None
    ratio = _clamped_ratio(
        inputs.membrane - inputs.v_threshold * inputs.spike,
        inputs.previous_membrane - inputs.v_threshold * inputs.previous_spike,
        inputs.decay,
    )
    return ratio if same_for_all else jnp.where(inputs.decay == 1, 1.0, ratio)


ottt = TraceRule(_ottt)
"""The spikes filtered by the membrane's decay, ``mu = lambda`` (Xiao et al., 2022). The default: closest to BPTT."""

ndot = TraceRule(_ndot)
"""The ratio of successive membranes after the reset, eq. 7 (Jiang et al., 2024), clamped to ``[-lambda, lambda]``."""

ndot_released = TraceRule(_ndot_released, keeps_spike=True)
"""The ratio as the authors' released code computes it: the threshold is subtracted a second time after the reset."""
