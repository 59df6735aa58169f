"""Spiking neurons: integrate a current, fire, reset. Nothing flows back through time."""

import functools
from collections.abc import Collection
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from bsojax._compiler import in_place
from bsojax._kinds import LARGEST, as_float, check_bool, check_broadcast, check_floating
from bsojax._spikes import Spikes
from bsojax._surrogates import Surrogate, sigmoid
from bsojax._traces import TraceInputs, TraceRule, ottt

NEURONS = "neurons"
MEMBRANE, CHARGED = "membrane", "charged"
SPIKE_RATES = "spike_rates"


def charge(membrane: jax.Array, current: jax.Array, decay: float, gain: float = 1.0, v_rest: float = 0.0) -> jax.Array:
    """Returns the membrane before the reset, ``v_rest + decay * (membrane - v_rest) + gain * current`` (eq. 2)."""
    return v_rest + decay * (jax.lax.stop_gradient(membrane) - v_rest) + gain * current


def reset(membrane: jax.Array, spike: jax.Array, v_threshold: float, v_reset: float | None) -> jax.Array:
    """Returns the membrane after the reset: minus the threshold (v_reset None), or at v_reset, where it spiked."""
    if v_reset is None:
        return membrane - v_threshold * spike
    return jnp.where(spike > 0, jnp.asarray(v_reset, membrane.dtype), membrane)


class Dynamics(NamedTuple):
    """The constants of a neuron's step.

    Attributes:
      decay: factor on the membrane's distance from rest.
      gain: factor on the current.
      v_threshold, v_reset: see LIF.
      surrogate: the spike function and its gradient.
      resets_first: whether the membrane that comes in is the one before the last reset.
    """

    decay: float
    gain: float
    v_threshold: float
    v_reset: float | None
    surrogate: Surrogate
    resets_first: bool

    def spikes(self, charged: jax.Array) -> jax.Array:
        """The spikes of a membrane before the reset."""
        return (charged >= self.v_threshold).astype(charged.dtype)

    def after_reset(self, charged: jax.Array) -> jax.Array:
        """The membrane after the reset that follows from the one before it."""
        return reset(charged, self.spikes(charged), self.v_threshold, self.v_reset)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def fire(dynamics: Dynamics, membrane: jax.Array, current: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the spikes of one time step and the membrane before the reset; only the spikes have a gradient.

    The membrane is all that it keeps for the gradient. Spikes and the membrane after the reset both follow from it, so
    that a loop which carries it from one time step to the next carries no other.

    Args:
      dynamics: the neuron's constants.
      membrane: the membrane of the last time step; nothing flows back into it.
      current: of the same shape.
    """
    rest = 0.0 if dynamics.v_reset is None else dynamics.v_reset

    def advance(membrane: jax.Array, current: jax.Array) -> jax.Array:
        if dynamics.resets_first:
            membrane = dynamics.after_reset(membrane)
        return charge(membrane, current, dynamics.decay, dynamics.gain, rest).astype(membrane.dtype)

    charged = in_place(advance, membrane, current)
    return dynamics.spikes(charged), charged


def _fire_forward(
    dynamics: Dynamics, membrane: jax.Array, current: jax.Array
) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
    spike, charged = fire(dynamics, membrane, current)
    return (spike, charged), charged


def _fire_backward(
    dynamics: Dynamics, charged: jax.Array, cotangents: tuple[jax.Array, jax.Array]
) -> tuple[None, jax.Array]:
    return None, dynamics.gain * cotangents[0] * dynamics.surrogate.gradient(charged - dynamics.v_threshold)


fire.defvjp(_fire_forward, _fire_backward)


class LIF(nn.Module):
    """Leaky integrate-and-fire neurons, one for each element of the current.

    Use it after every synapse and norm. Each call is one time step:
    ``u = lambda * v + current``, ``s = 1 where u >= v_threshold``, ``v = u - v_threshold * s``, lambda = 1 - 1/tau.

    State, in the collection "neurons": "membrane" (v, after the reset), "trace", and "spike" for trace rules that need
    the last one, each of the current's shape and dtype. The first call starts from rest; the owner of the collection
    carries it from one time step to the next and drops it at the end of a sequence. A state that holds a membrane but
    no trace makes the neuron keep none: that is how evaluation saves it. The mean spike of each call is sown into the
    collection "spike_rates".

    Attributes:
      tau: time constant in time steps, >= 1.
      v_threshold: firing threshold, > 0, in the units of the current.
      v_reset: None subtracts the threshold at a spike (soft reset); a number is the membrane after a spike (hard
        reset) and the level to which it leaks.
      trace: how the presynaptic trace decays: ottt, ndot, ndot_released, or None for no trace (SLTT).
      surrogate: the spike function and its gradient.
      decay_input: whether the current is divided by tau, so that a constant one is the membrane's limit.

    Raises:
      TypeError: an attribute is not of its kind, or the current is not floating.
      ValueError: an attribute is out of range, or the current differs in shape from the neuron's state.

    Source: Liang et al., BSO, ICML 2025, eq. 2-3, 7.
    """

    tau: float = 2.0
    v_threshold: float = 1.0
    v_reset: float | None = None
    trace: TraceRule | None = ottt
    surrogate: Surrogate = sigmoid(4.0)
    decay_input: bool = False

    @nn.compact
    def __call__(self, current: jax.Array) -> Spikes:
        check_bool("decay_input", self.decay_input, f"LIF '{self.name}'")
        tau = as_float("tau", self.tau, f"LIF '{self.name}'")
        if not 1 <= tau < LARGEST:
            raise ValueError(f"tau: LIF '{self.name}' needs a finite time constant >= 1 time step, got {self.tau}.")
        gain = 1 / tau if self.decay_input else 1.0
        return _fire(self, current, 1 - 1 / tau, gain)


class IF(nn.Module):
    """Integrate-and-fire neurons: LIF without a leak. Attributes, state and errors as there."""

    v_threshold: float = 1.0
    v_reset: float | None = None
    trace: TraceRule | None = ottt
    surrogate: Surrogate = sigmoid(4.0)

    @nn.compact
    def __call__(self, current: jax.Array) -> Spikes:
        return _fire(self, current, 1.0, 1.0)


def without_traces(neurons: Any) -> Any:
    """Returns the neurons' state without what only the traces need, for evaluation."""
    if not isinstance(neurons, dict) or MEMBRANE not in neurons:
        return {key: without_traces(value) for key, value in neurons.items()} if isinstance(neurons, dict) else neurons
    return {key: value for key, value in neurons.items() if key not in ("trace", "spike")}


def held_before_reset(neurons: Any, paths: Collection[tuple[str, ...]]) -> Any:
    """Returns the resting state of neurons such that those at the given paths hold their membrane before the reset.

    At rest, where nothing has spiked, the two are equal.
    """
    if not isinstance(neurons, dict):
        return neurons
    if () in paths:
        return {CHARGED if key == MEMBRANE else key: value for key, value in neurons.items()}
    return {
        key: held_before_reset(value, [path[1:] for path in paths if path[0] == key]) for key, value in neurons.items()
    }


def _fire(neuron: LIF | IF, current: jax.Array, decay: float, gain: float) -> Spikes:
    """One time step of a neuron module: advances its variables and returns its spikes."""
    v_threshold, v_reset = as_float("v_threshold", neuron.v_threshold, f"neuron '{neuron.name}'"), None
    if not 0 < v_threshold < LARGEST:
        raise ValueError(f"v_threshold: neuron '{neuron.name}' needs a finite threshold > 0, got {neuron.v_threshold}.")
    if neuron.v_reset is not None:
        v_reset = as_float("v_reset", neuron.v_reset, f"neuron '{neuron.name}'")
        if not -LARGEST < v_reset < LARGEST:
            raise ValueError(f"v_reset: neuron '{neuron.name}' needs a finite level, got {neuron.v_reset}.")
    if neuron.trace is not None and not isinstance(neuron.trace, TraceRule):
        raise TypeError(f"trace: neuron '{neuron.name}' needs a TraceRule such as bsojax.ottt, not {neuron.trace!r}.")
    if not isinstance(neuron.surrogate, Surrogate):
        raise TypeError(
            f"surrogate: neuron '{neuron.name}' needs a Surrogate such as bsojax.sigmoid(), not {neuron.surrogate!r}."
        )
    check_floating("current", current, f"neuron '{neuron.name}'")
    if 0 in current.shape:
        raise ValueError(f"current: neuron '{neuron.name}' needs at least one element, got shape {current.shape}.")
    rest = 0.0 if v_reset is None else v_reset
    resets_first = neuron.has_variable(NEURONS, CHARGED)
    name = CHARGED if resets_first else MEMBRANE
    keeps_trace = neuron.trace is not None and (
        neuron.has_variable(NEURONS, "trace") or not neuron.has_variable(NEURONS, name)
    )
    membrane = neuron.variable(NEURONS, name, lambda: jnp.full_like(current, rest))
    if membrane.value.shape != current.shape:
        raise ValueError(
            f"current: neuron '{neuron.name}' holds a state of shape {membrane.value.shape} and got {current.shape}; "
            "start a new sequence with an empty 'neurons' collection."
        )
    dynamics = Dynamics(decay, gain, v_threshold, v_reset, neuron.surrogate, resets_first)
    before = membrane.value
    spike, charged = fire(dynamics, before, current)
    charged, fired = jax.lax.stop_gradient((charged, spike))
    advancing = not neuron.is_initializing()
    if advancing:
        membrane.value = charged if resets_first else dynamics.after_reset(charged)
    trace_value = None
    if keeps_trace and neuron.trace is not None:
        trace = neuron.variable(NEURONS, "trace", lambda: jnp.zeros_like(current))
        previous_spike = None
        if neuron.trace.keeps_spike:
            last = neuron.variable(NEURONS, "spike", lambda: jnp.zeros_like(current))
            previous_spike = last.value
            if advancing:
                last.value = fired
        after = dynamics.after_reset(charged)
        previous = dynamics.after_reset(before) if resets_first else before
        mu = neuron.trace.factor(TraceInputs(after, previous, fired, previous_spike, decay, v_threshold))
        check_broadcast("trace", mu, fired.shape, f"the factor of neuron '{neuron.name}'")
        mu = mu if jnp.ndim(mu) == 0 else jnp.broadcast_to(mu, fired.shape)
        trace_value = in_place(_filter, trace.value, mu, fired)
        if advancing:
            trace.value = trace_value
    neuron.sow(SPIKE_RATES, "rate", jnp.mean(fired, dtype=jnp.float32), reduce_fn=lambda _, rate: rate, init_fn=float)
    return Spikes(spike, trace_value)


def _filter(trace: jax.Array, mu: jax.Array | float, spike: jax.Array) -> jax.Array:
    return (mu * trace + spike).astype(trace.dtype)
