"""CubaLIF: neurons between whose input and membrane stands a synaptic current."""

import dataclasses
from typing import ClassVar

import flax.linen as nn
import jax

from bsojax.nn._dynamics import Constants, Dynamics, State, constant
from bsojax.nn._neuron import Neuron
from bsojax.nn._neuron_step import step
from bsojax.nn._neurons import threshold_and_reset
from bsojax.nn._spikes import Spikes
from bsojax.nn._surrogates import Surrogate, sigmoid
from bsojax.nn._traces import TraceRule, ottt


class CubaLIF(Neuron):
    """Current-based leaky integrate-and-fire neurons: what comes in flows on as a synaptic current that decays.

    Use it for neuromorphic hardware and models that have it, or to smooth sparse input in time. With the synaptic
    current i and alpha = 1 - 1/tau_synapse, ``i[t] = alpha * i[t-1] + current[t]``, and i is to the membrane what the
    current is to that of LIF; with tau_synapse 1 it is LIF.

    A weight in front of it acts through two filters, i and the membrane. The trace that it hands on is therefore its
    spikes through both, of its own constants, as that of LIF is its spikes through its membrane: the weights' gradient
    (eq. 6) is exact, but for the reset, where the next neuron is a CubaLIF of the same constants. Behind a LIF, or an
    array, the weights of a CubaLIF have the trace of that, and the synaptic current's memory is missing in their
    gradient. The gradient that flows back to earlier layers is that of this time step, as everywhere.

    State, as of LIF, and "current" (i), like the membrane :class:`BeforeReset` in training; and "synaptic_trace", the
    spikes through the first filter, where a trace is kept. The constants may be one a neuron or channel, as in LIF.

    Attributes:
      tau, v_threshold, v_reset, surrogate, decay_input: as in LIF.
      trace: how the trace decays, as in LIF, behind the filter of the synaptic current.
      tau_synapse: time constant of the synaptic current in time steps, >= 1.

    Raises:
      TypeError, ValueError: as LIF.

    Source: the usual model of Loihi and Norse; Gerstner et al., Neuronal Dynamics, 2014, section 1.3.
    """

    tau: Constants = 2.0
    v_threshold: Constants = 1.0
    v_reset: Constants | None = None
    trace: TraceRule | None = ottt
    surrogate: Surrogate = sigmoid(4.0)
    decay_input: bool = False
    tau_synapse: Constants = 2.0

    _constants: ClassVar[tuple[str, ...]] = ("tau", "v_threshold", "v_reset", "tau_synapse")

    @nn.compact
    def __call__(self, current: jax.Array) -> Spikes:
        owner, (threshold, v_reset) = f"neuron '{self.name}'", threshold_and_reset(self, current)
        tau, synapse = (
            constant(owner, name, getattr(self, name), current, at_least=1) for name in ("tau", "tau_synapse")
        )
        gain = 1 / tau if self.decay_input else 1.0
        dynamics = _CurrentBased(1 - 1 / tau, gain, threshold, v_reset, self.surrogate, 1 - 1 / synapse)
        return step(self, current, dynamics, self.trace)


@dataclasses.dataclass(frozen=True, eq=False)
class _CurrentBased(Dynamics):
    """Dynamics with a synaptic current."""

    names: ClassVar[tuple[str, ...]] = ("membrane", "current")

    def after_reset(self, charged: State) -> State:
        return {**super().after_reset(charged), "current": charged["current"]}

    def charge(self, state: State, current: jax.Array) -> State:
        flowing = self.synapse_decay * state["current"] + current
        return {**super().charge(state, flowing), "current": flowing}
