"""LeakyReadout: a network's output, added up by membranes that do not spike."""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from bsojax import _validate
from bsojax.nn._dynamics import Constants, charge, constant
from bsojax.nn._neuron import Neuron, report
from bsojax.nn._neuron_state import NEURONS


class LeakyReadout(Neuron):
    """Leaky integrators without spikes: each returns its membrane, ``v[t] = lambda * v[t-1] + current[t]``.

    Use it behind the last synapse for values that change over time, and where the answer at the last time step must
    take all of them into account: ``logits = bsojax.LeakyReadout()(bsojax.Dense(10)(x))``.

    The gradient goes through this time step alone. For the weights in front of it that is still exact, as with
    backpropagation through time, where their input carries OTTT's trace with the same tau. Biases, and inputs that are
    not Spikes, have no trace: their gradient is that of this time step.

    State, in the collection "neurons": "membrane", of the current's shape and dtype, in both training and evaluation.

    Attributes:
      tau: time constant in time steps, >= 1, also per neuron or per channel as in LIF; lambda = 1 - 1/tau.
      decay_input: whether the current is divided by tau, so that the membrane is an average over time and not a sum.

    Raises:
      TypeError, ValueError: as LIF.
    """

    tau: Constants = 2.0
    decay_input: bool = False

    _constants: ClassVar[tuple[str, ...]] = ("tau",)

    @nn.compact
    def __call__(self, current: jax.Array) -> jax.Array:
        owner = f"neuron '{self.name}'"
        _validate.floating("current", current, owner)
        tau = constant(owner, "tau", self.tau, current, at_least=1)
        membrane = self.variable(NEURONS, "membrane", jnp.zeros_like, current)
        _validate.state_shape(owner, membrane.value.shape, current.shape)
        gain = 1 / tau if self.decay_input else 1.0
        charged = charge(membrane.value, current, 1 - 1 / tau, gain).astype(current.dtype)
        if not self.is_initializing():
            membrane.value = jax.lax.stop_gradient(charged)
        report(self, current=current, before_reset=charged, after_reset=charged)
        return charged
