"""One time step of a neuron module: its variables advance, and it returns its spikes with their trace."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from bsojax import _validate
from bsojax.nn._dynamics import Dynamics, State
from bsojax.nn._neuron import report
from bsojax.nn._neuron_state import NEURONS, BeforeReset, state_form
from bsojax.nn._spikes import Spikes
from bsojax.nn._traces import TraceInputs, TraceRule
from bsojax.xla_cpu import in_place


def step(neuron: nn.Module, current: jax.Array, dynamics: Dynamics, rule: TraceRule | None) -> Spikes:
    """Advances the variables of a neuron module by one time step and returns its spikes.

    Args:
      neuron: the module that is called, within its compact ``__call__``.
      current: its input.
      dynamics: its constants and arithmetic.
      rule: how its trace decays; None for no trace.
    """
    owner, dynamics, form = f"neuron '{neuron.name}'", dynamics.in_dtype(current.dtype), state_form()
    starts = not neuron.has_variable(NEURONS, dynamics.names[0])
    keeps_trace = form.traces if starts else neuron.has_variable(NEURONS, "trace")

    def resting(name: str) -> Any:
        value = dynamics.rest(name, current)
        return BeforeReset(value) if form.before_reset else value  # at rest they are equal

    variables = {name: neuron.variable(NEURONS, name, resting, name) for name in dynamics.names}
    held: dict[str, Any] = {name: variable.value for name, variable in variables.items()}
    resets_first = isinstance(held[dynamics.names[0]], BeforeReset)
    before: State = {name: value.value if resets_first else value for name, value in held.items()}
    before = jax.lax.stop_gradient(before)  # nothing flows back through time
    for value in before.values():
        _validate.state_shape(owner, value.shape, current.shape)
    spike, charged = dynamics.fire(resets_first, before, current)
    charged, fired = jax.lax.stop_gradient((charged, spike))
    after = dynamics.after_reset(charged)
    if not neuron.is_initializing():
        for name, variable in variables.items():
            advanced: Any = BeforeReset(charged[name]) if resets_first else after[name]
            variable.value = advanced
    trace = None
    if keeps_trace and rule is not None:
        last = dynamics.after_reset(before) if resets_first else before
        threshold = dynamics.threshold(charged)
        trace = _traced(neuron, rule, dynamics, last["membrane"], after["membrane"], fired, threshold)
    spikes = Spikes(spike, trace)
    report(neuron, spikes, current=current, before_reset=charged["membrane"], after_reset=after["membrane"])
    return spikes


def _traced(
    neuron: nn.Module,
    rule: TraceRule,
    dynamics: Dynamics,
    before: jax.Array,
    after: jax.Array,
    fired: jax.Array,
    threshold: Any,
) -> jax.Array:
    """Advances the trace of a neuron module, and the last spike where its rule keeps it; returns the trace."""
    previous_spike = None
    if rule.keeps_spike:
        last = neuron.variable(NEURONS, "spike", lambda: jnp.zeros_like(fired))
        previous_spike = last.value
        if not neuron.is_initializing():
            last.value = fired
    inputs = TraceInputs(after, before, fired, previous_spike, dynamics.decay, threshold)
    flowing = fired
    if dynamics.synapse_decay is not None:
        flowing = _filtered(neuron, "synaptic_trace", dynamics.synapse_decay, fired)
    return _filtered(neuron, "trace", rule.factor(inputs), flowing)


def _filtered(neuron: nn.Module, name: str, mu: jax.Array | float, value: jax.Array) -> jax.Array:
    """Advances a variable that adds up its input and decays by mu."""
    kept = neuron.variable(NEURONS, name, lambda: jnp.zeros_like(value))
    mu = mu if jnp.ndim(mu) == 0 else jnp.broadcast_to(mu, value.shape)
    advanced = in_place(_filter, jax.lax.stop_gradient(kept.value), mu, value)
    if not neuron.is_initializing():
        kept.value = advanced
    return advanced


def _filter(trace: jax.Array, mu: jax.Array | float, value: jax.Array) -> jax.Array:
    return (mu * trace + value).astype(trace.dtype)
