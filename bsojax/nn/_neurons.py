"""LIF and IF: neurons that integrate a current, fire and reset. Nothing flows back through time."""

import dataclasses
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from bsojax import _validate
from bsojax.nn._dynamics import Constants, Dynamics, State, constant, spread
from bsojax.nn._neuron import Neuron
from bsojax.nn._neuron_step import step
from bsojax.nn._spikes import Spikes
from bsojax.nn._surrogates import Surrogate, sigmoid
from bsojax.nn._traces import TraceRule, ottt


class LIF(Neuron):
    """Leaky integrate-and-fire neurons, one for each element of the current.

    Use it after every synapse and norm. Each call is one time step:
    ``u = lambda * v + current``, ``s = 1 where u >= v_threshold``, ``v = u - v_threshold * s``, lambda = 1 - 1/tau.

    State, in the collection "neurons": "membrane" (v, after the reset), "trace", and "spike" for trace rules that need
    the last one, each of the current's shape and dtype. The first call starts from rest; the owner of the collection
    carries it from one time step to the next and drops it at the end of a sequence. Given a state without a trace, the
    neuron keeps none: evaluation saves memory this way. In training "membrane" is :class:`BeforeReset`, so that the
    gradient stores less; a class derived from LIF sees this form too, and ``membrane_potential()`` returns v in either
    case. The mean spike of each call is sown into the collection "spike_rates", with its gradient.

    tau, v_threshold and v_reset may be given per neuron or per channel: an array or tuple that broadcasts to the
    current, such as one of shape ``(channels,)``. An array is stored as a tuple, so that modules can be compared and
    hashed.

    Example:
      >>> import jax.numpy as jnp, bsojax
      >>> neurons, state, fired = bsojax.LIF(tau=2.0), {}, []
      >>> for _ in range(5):
      ...     spikes, state = neurons.apply(state, jnp.array([0.8]), mutable=["neurons"])
      ...     fired.append(spikes.value.item())
      >>> fired
      [0.0, 1.0, 0.0, 1.0, 0.0]

    Attributes:
      tau: time constant in time steps, >= 1.
      v_threshold: firing threshold, > 0, in the units of the current.
      v_reset: None subtracts the threshold at a spike (soft reset); a number is both the membrane after a spike (hard
        reset) and the level to which it leaks.
      trace: how the presynaptic trace decays: ottt, ndot, ndot_released, or None for no trace (SLTT).
      surrogate: the spike function and its gradient.
      decay_input: whether the current is divided by tau, so that the membrane converges to a constant current.
      refractory_steps: for this many time steps after a spike, at most 255, the membrane stays where the reset left it,
        without leak, current, spike or gradient. The count of steps left takes one byte of state per neuron,
        "refractory". No trace is then exact: it takes currents into account that the neuron did not receive.

    Raises:
      TypeError: the current is not floating.
      ValueError: an attribute is out of range or does not fit the current, or the current differs in shape from the
        state.

    Source: Liang et al., BSO, ICML 2025, eq. 2-3, 7.
    """

    tau: Constants = 2.0
    v_threshold: Constants = 1.0
    v_reset: Constants | None = None
    trace: TraceRule | None = ottt
    surrogate: Surrogate = sigmoid(4.0)
    decay_input: bool = False
    refractory_steps: int = 0

    _constants: ClassVar[tuple[str, ...]] = ("tau", "v_threshold", "v_reset")

    @nn.compact
    def __call__(self, current: jax.Array) -> Spikes:
        tau = constant(f"LIF '{self.name}'", "tau", self.tau, current, at_least=1)
        return _step(self, current, 1 - 1 / tau, 1 / tau if self.decay_input else 1.0)


class IF(Neuron):
    """Integrate-and-fire neurons: LIF without a leak, with the same attributes, state and errors."""

    v_threshold: Constants = 1.0
    v_reset: Constants | None = None
    trace: TraceRule | None = ottt
    surrogate: Surrogate = sigmoid(4.0)
    refractory_steps: int = 0

    _constants: ClassVar[tuple[str, ...]] = ("v_threshold", "v_reset")

    @nn.compact
    def __call__(self, current: jax.Array) -> Spikes:
        return _step(self, current, 1.0, 1.0)


def threshold_and_reset(neuron: Any, current: jax.Array) -> tuple[Any, Any]:
    """Returns a neuron module's v_threshold and v_reset in the form that arithmetic with a current takes."""
    owner = f"neuron '{neuron.name}'"
    _validate.floating("current", current, owner)
    threshold = constant(owner, "v_threshold", neuron.v_threshold, current)
    if neuron.v_reset is None:
        return threshold, None
    _validate.finite(owner, "v_reset", neuron.v_reset)
    return threshold, spread(owner, "v_reset", neuron.v_reset, current)


def _step(neuron: LIF | IF, current: jax.Array, decay: Any, gain: Any) -> Spikes:
    threshold, v_reset = threshold_and_reset(neuron, current)
    dynamics = Dynamics(decay, gain, threshold, v_reset, neuron.surrogate)
    silent = _validate.refractory_steps(f"neuron '{neuron.name}'", neuron.refractory_steps)
    if silent:
        dynamics = _Refractory(**vars(dynamics), steps=silent)
    return step(neuron, current, dynamics, neuron.trace)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class _Refractory(Dynamics):
    """Dynamics with silent time steps after a spike; "refractory" counts how many are left."""

    steps: int

    names: ClassVar[tuple[str, ...]] = ("membrane", "refractory")

    def rest(self, name: str, current: jax.Array) -> jax.Array:
        return jnp.zeros(current.shape, jnp.uint8) if name == "refractory" else super().rest(name, current)

    def spikes(self, charged: State) -> jax.Array:
        return jnp.where(charged["refractory"] > 0, jnp.zeros_like(charged["membrane"]), super().spikes(charged))

    def after_reset(self, charged: State) -> State:
        left = charged["refractory"]
        left = jnp.where(self.spikes(charged) > 0, jnp.uint8(self.steps), left - (left > 0).astype(left.dtype))
        return {**super().after_reset(charged), "refractory": left}

    def charge(self, state: State, current: jax.Array) -> State:
        charged = super().charge(state, current)["membrane"].astype(current.dtype)
        waits = state["refractory"] > 0
        return {"membrane": jnp.where(waits, state["membrane"], charged), "refractory": state["refractory"]}

    def derivative(self, charged: State) -> jax.Array:
        gradient = super().derivative(charged)
        return jnp.where(charged["refractory"] > 0, jnp.zeros_like(gradient), gradient)
