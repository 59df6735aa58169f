"""Spiking neurons: integrate a current, fire, reset. Nothing flows back through time."""

import contextlib
import contextvars
import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp

from bsojax import _validate
from bsojax.nn._counted import mean_spike
from bsojax.nn._spikes import Spikes
from bsojax.nn._surrogates import Surrogate, sigmoid
from bsojax.nn._traces import TraceInputs, TraceRule, ottt
from bsojax.xla_cpu import in_place

NEURONS = "neurons"
"""The collection of the neurons' state."""

SPIKE_RATES = "spike_rates"
"""The collection into which neurons sow their mean spike."""

RECORDINGS = "recordings"
"""The collection into which neurons sow what they do at a time step, for ``bsojax.record``."""


def charge(membrane: jax.Array, current: jax.Array, decay: float, gain: float = 1.0, v_rest: float = 0.0) -> jax.Array:
    """Returns the membrane before the reset, ``v_rest + decay * (membrane - v_rest) + gain * current`` (eq. 2)."""
    return v_rest + decay * (jax.lax.stop_gradient(membrane) - v_rest) + gain * current


def reset(membrane: jax.Array, spike: jax.Array, v_threshold: float, v_reset: float | None) -> jax.Array:
    """Returns the membrane after the reset: minus the threshold (v_reset None), or at v_reset, where it spiked."""
    if v_reset is None:
        return membrane - v_threshold * spike
    return jnp.where(spike > 0, jnp.asarray(v_reset, membrane.dtype), membrane)


@flax.struct.dataclass
class BeforeReset:
    """A membrane as training carries it from one time step to the next: before the reset.

    The gradient needs it, and spikes and the membrane after the reset follow from it, so that a loop carries one array
    a neuron and no more. Where a neuron's variable "membrane" holds an array, it is the membrane after the reset.

    Attributes:
      value: the membrane.
    """

    value: jax.Array


class StateForm(NamedTuple):
    """How LIF and IF hold their state.

    Attributes:
      before_reset: whether the membrane is :class:`BeforeReset`, as training needs it.
      traces: whether traces are kept.
    """

    before_reset: bool
    traces: bool


_PUBLIC = StateForm(before_reset=False, traces=True)
_FORM = contextvars.ContextVar("bsojax_state_form", default=_PUBLIC)


@contextlib.contextmanager
def resting_as(form: StateForm) -> Iterator[None]:
    """Within, LIF and IF that start hold their state in this form, and stay in it; so do classes derived from them.

    Use it around ``model.init`` in a loop of your own; ``bsojax.online.start`` does.
    """
    token = _FORM.set(form)
    try:
        yield
    finally:
        _FORM.reset(token)


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
    resets_first: bool = False

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
    carries it from one time step to the next and drops it at the end of a sequence. Given a state without a trace, the
    neuron keeps none: that is how evaluation saves it. In training "membrane" is :class:`BeforeReset`, for which the
    gradient keeps less; a class derived from LIF finds it so too. The mean spike of each call is sown into the
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
      TypeError: the current is not floating.
      ValueError: tau or v_threshold is out of range, or the current differs in shape from the state.

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
        tau = _validate.positive(f"LIF '{self.name}'", "tau", self.tau, at_least=1)
        return _step(self, current, 1 - 1 / tau, 1 / tau if self.decay_input else 1.0)


class IF(nn.Module):
    """Integrate-and-fire neurons: LIF without a leak. Attributes, state and errors as there."""

    v_threshold: float = 1.0
    v_reset: float | None = None
    trace: TraceRule | None = ottt
    surrogate: Surrogate = sigmoid(4.0)

    @nn.compact
    def __call__(self, current: jax.Array) -> Spikes:
        return _step(self, current, 1.0, 1.0)


def _step(neuron: LIF | IF, current: jax.Array, decay: float, gain: float) -> Spikes:
    """One time step of a neuron module: advances its variables and returns its spikes."""
    owner = f"neuron '{neuron.name}'"
    _validate.floating("current", current, owner)
    threshold = _validate.positive(owner, "v_threshold", neuron.v_threshold)
    v_reset = None if neuron.v_reset is None else float(neuron.v_reset)
    dynamics = Dynamics(decay, gain, threshold, v_reset, neuron.surrogate)
    form = _FORM.get()
    starts = not neuron.has_variable(NEURONS, "membrane")
    keeps_trace = form.traces if starts else neuron.has_variable(NEURONS, "trace")

    def rest() -> Any:
        membrane = jnp.full_like(current, v_reset or 0.0)
        return BeforeReset(membrane) if form.before_reset else membrane  # at rest they are equal

    membrane = neuron.variable(NEURONS, "membrane", rest)
    held: Any = membrane.value
    if isinstance(held, BeforeReset):
        dynamics, before = dynamics._replace(resets_first=True), held.value
    else:
        before = held
    _validate.state_shape(owner, before.shape, current.shape)
    spike, charged = fire(dynamics, before, current)
    charged, fired = jax.lax.stop_gradient((charged, spike))
    if not neuron.is_initializing():
        after: Any = BeforeReset(charged) if dynamics.resets_first else dynamics.after_reset(charged)
        membrane.value = after
    rule = neuron.trace if keeps_trace else None
    trace = None if rule is None else _traced(neuron, rule, dynamics, before, charged, fired)
    neuron.sow(SPIKE_RATES, "rate", mean_spike(fired), reduce_fn=lambda _, rate: rate, init_fn=float)
    return Spikes(spike, trace)


def _traced(
    neuron: nn.Module, rule: TraceRule, dynamics: Dynamics, before: jax.Array, charged: jax.Array, fired: jax.Array
) -> jax.Array:
    """Advances the trace of a neuron module, and the spike that its rule may keep; returns the trace."""
    trace = neuron.variable(NEURONS, "trace", lambda: jnp.zeros_like(fired))
    previous_spike = None
    if rule.keeps_spike:
        last = neuron.variable(NEURONS, "spike", lambda: jnp.zeros_like(fired))
        previous_spike = last.value
        if not neuron.is_initializing():
            last.value = fired
    after = dynamics.after_reset(charged)
    previous = dynamics.after_reset(before) if dynamics.resets_first else before
    mu = rule.factor(TraceInputs(after, previous, fired, previous_spike, dynamics.decay, dynamics.v_threshold))
    mu = mu if jnp.ndim(mu) == 0 else jnp.broadcast_to(mu, fired.shape)
    advanced = in_place(_filter, trace.value, mu, fired)
    if not neuron.is_initializing():
        trace.value = advanced
    return advanced


def _filter(trace: jax.Array, mu: jax.Array | float, spike: jax.Array) -> jax.Array:
    return (mu * trace + spike).astype(trace.dtype)
