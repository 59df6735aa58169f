"""CubaLIF: neurons with a synaptic current between their input and their membrane."""

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
    """Current-based leaky integrate-and-fire neurons: the input feeds a synaptic current that decays.

    Use it for neuromorphic hardware and models that have such a current, or to smooth sparse input in time. With the
    synaptic current i and alpha = 1 - 1/tau_synapse, ``i[t] = alpha * i[t-1] + current[t]``, and i drives the membrane
    as the current does in LIF. With tau_synapse 1 the neuron is a LIF.

    A weight in front of it acts through two filters, i and the membrane. The trace that it passes on is therefore its
    spikes through both filters, with its own constants, just as the trace of LIF is its spikes through its membrane.
    Where the next neuron is a CubaLIF with the same constants, the weights' gradient (eq. 6) is exact, except for the
    reset. Behind a LIF or an array, the weights of a CubaLIF use the trace of that input, and their gradient lacks the
    synaptic current's memory. The gradient that flows back to earlier layers is that of this time step, as everywhere.

    State: as in LIF, plus "current" (i), in training held as :class:`BeforeReset` like the membrane, and
    "synaptic_trace", the spikes through the first filter, where a trace is kept. Constants may be given per neuron or
    per channel, as in LIF.

    Attributes:
      tau, v_threshold, v_reset, surrogate, decay_input: as in LIF.
      trace: how the trace decays, as in LIF, after the filter of the synaptic current.
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
