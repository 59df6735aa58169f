"""ALIF: neurons whose threshold rises with each of their spikes."""

import dataclasses
from typing import Any, ClassVar

import flax.linen as nn
import jax

from bsojax.nn._dynamics import Constants, Dynamics, State, constant
from bsojax.nn._neuron import Neuron
from bsojax.nn._neuron_step import step
from bsojax.nn._neurons import threshold_and_reset
from bsojax.nn._spikes import Spikes
from bsojax.nn._surrogates import Surrogate, sigmoid
from bsojax.nn._traces import TraceRule, ottt


class ALIF(Neuron):
    """Adaptive leaky integrate-and-fire neurons: LIF whose threshold rises with its own spikes and decays back.

    Use it where a memory longer than the membrane's is needed, as in long sequences, or to even out spike rates. The
    adaptation b starts at 0 and is filtered like the membrane, with rho = 1 - 1/tau_adaptation:
    ``A[t] = v_threshold + beta * b[t-1]``, ``s[t] = 1 where u[t] >= A[t]``, ``b[t] = rho * b[t-1] + (1 - rho) * s[t]``.
    The soft reset subtracts A[t].

    The gradient is that of LIF at this threshold: like the membrane, the adaptation is a constant of the past. The
    effect of an input on later thresholds (the slow component of e-prop's eligibility traces) is left out.

    State: as in LIF, plus "adaptation" (b). In training, b is also held as :class:`BeforeReset`: the value from which
    the threshold was computed. Constants may be given per neuron or per channel, as in LIF.

    Attributes:
      tau, v_threshold, v_reset, trace, surrogate, decay_input: as in LIF.
      tau_adaptation: time constant of the adaptation in time steps, >= 1.
      beta: how far the threshold of a neuron that spikes at every time step eventually rises, > 0.

    Raises:
      TypeError, ValueError: as LIF.

    Source: Bellec et al., Long short-term memory and learning-to-learn in networks of spiking neurons, NeurIPS 2018.
    """

    tau: Constants = 2.0
    v_threshold: Constants = 1.0
    v_reset: Constants | None = None
    trace: TraceRule | None = ottt
    surrogate: Surrogate = sigmoid(4.0)
    decay_input: bool = False
    tau_adaptation: Constants = 10.0
    beta: Constants = 1.8

    _constants: ClassVar[tuple[str, ...]] = ("tau", "v_threshold", "v_reset", "tau_adaptation", "beta")

    @nn.compact
    def __call__(self, current: jax.Array) -> Spikes:
        owner, (threshold, v_reset) = f"neuron '{self.name}'", threshold_and_reset(self, current)
        tau, slow = (
            constant(owner, name, getattr(self, name), current, at_least=1) for name in ("tau", "tau_adaptation")
        )
        gain = 1 / tau if self.decay_input else 1.0
        dynamics = _Adaptive(
            1 - 1 / tau, gain, threshold, v_reset, self.surrogate,
            adaptation_decay=1 - 1 / slow, beta=constant(owner, "beta", self.beta, current),
        )  # fmt: skip
        return step(self, current, dynamics, self.trace)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class _Adaptive(Dynamics):
    """Dynamics with a threshold that rises with spikes."""

    adaptation_decay: Any
    beta: Any

    names: ClassVar[tuple[str, ...]] = ("membrane", "adaptation")

    def threshold(self, charged: State) -> Any:
        return self.v_threshold + self.beta * charged["adaptation"]

    def after_reset(self, charged: State) -> State:
        rho = self.adaptation_decay
        adaptation = rho * charged["adaptation"] + (1 - rho) * self.spikes(charged)
        return {**super().after_reset(charged), "adaptation": adaptation}

    def charge(self, state: State, current: jax.Array) -> State:
        return {**super().charge(state, current), "adaptation": state["adaptation"]}
