"""The arithmetic of a spiking neuron: charge, fire, reset, and the gradient of one time step."""

import dataclasses
import functools
from typing import Any, ClassVar, Self, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from bsojax import _validate
from bsojax.nn._surrogates import Surrogate
from bsojax.xla_cpu import in_place

Constants: TypeAlias = float | tuple[Any, ...] | np.ndarray | jax.Array
"""A neuron's constant as users give it: a number, or an array or tuple per neuron that broadcasts to the current."""

State: TypeAlias = dict[str, jax.Array]
"""The variables of a neuron's state by name, all of the current's shape."""


def charge(membrane: jax.Array, current: jax.Array, decay: Any, gain: Any = 1.0, v_rest: Any = 0.0) -> jax.Array:
    """Returns the membrane before the reset, ``v_rest + decay * (membrane - v_rest) + gain * current`` (eq. 2)."""
    charged: jax.Array = v_rest + decay * (jax.lax.stop_gradient(membrane) - v_rest) + gain * current
    return charged


def reset(membrane: jax.Array, spike: jax.Array, v_threshold: Any, v_reset: Any) -> jax.Array:
    """Returns the membrane after the reset: where it spiked, less the threshold (v_reset None) or equal to v_reset."""
    if v_reset is None:
        reset: jax.Array = membrane - v_threshold * spike
        return reset
    return jnp.where(spike > 0, jnp.asarray(v_reset, membrane.dtype), membrane)


def constant(owner: str, name: str, value: Any, current: jax.Array, *, at_least: float | None = None) -> Any:
    """Returns a constant, checked to be positive or no less than at_least, in a form that combines with a current.

    A number stays a Python float, which adopts the dtype of its operands; constants per neuron become a NumPy array of
    the current's rank.
    """
    return spread(owner, name, _validate.positive(owner, name, value, at_least), current)


def spread(owner: str, name: str, value: Any, current: jax.Array) -> Any:
    """Returns a number as a Python float, and values per neuron as an array of the current's rank; see constant."""
    if np.ndim(value) == 0:
        return float(value)
    value = np.asarray(value, np.float64)
    _validate.one_a_neuron(owner, name, value.shape, current.shape)
    return value.reshape((1,) * (current.ndim - value.ndim) + value.shape)


@dataclasses.dataclass(frozen=True, eq=False)
class Dynamics:
    """The constants and the arithmetic of a neuron's time step; neurons with more state derive from it.

    A state has two forms: as it is when the spike is decided ("charged"), and after the reset. The spike and the second
    form follow from the first, so a loop carries the first and the gradient stores nothing else.

    Attributes:
      decay: factor on the membrane's distance from rest.
      gain: factor on the current.
      v_threshold, v_reset: see LIF.
      surrogate: the spike function and its gradient.
      synapse_decay: the decay of the synaptic current that continues after an input, which the trace then follows too;
        None where there is no such current.
    """

    decay: Any
    gain: Any
    v_threshold: Any
    v_reset: Any
    surrogate: Surrogate
    synapse_decay: Any = None

    names: ClassVar[tuple[str, ...]] = ("membrane",)
    """The variables of the state."""

    @property
    def v_rest(self) -> Any:
        """The level to which the membrane leaks."""
        return 0.0 if self.v_reset is None else self.v_reset

    def rest(self, name: str, current: jax.Array) -> jax.Array:
        """A variable of the state before the first time step."""
        return jnp.full_like(current, self.v_rest if name == "membrane" else 0)

    def threshold(self, charged: State) -> Any:
        """The threshold that decides whether a neuron spikes."""
        return self.v_threshold

    def spikes(self, charged: State) -> jax.Array:
        """The spikes of a charged state."""
        membrane = charged["membrane"]
        spikes: jax.Array = (membrane >= self.threshold(charged)).astype(membrane.dtype)
        return spikes

    def after_reset(self, charged: State) -> State:
        """The state after the reset."""
        return {"membrane": reset(charged["membrane"], self.spikes(charged), self.threshold(charged), self.v_reset)}

    def charge(self, state: State, current: jax.Array) -> State:
        """The charged state of the next time step."""
        return {"membrane": charge(state["membrane"], current, self.decay, self.gain, self.v_rest)}

    def derivative(self, charged: State) -> jax.Array:
        """The surrogate's derivative of the spike with respect to the membrane."""
        return self.surrogate.gradient(charged["membrane"] - self.threshold(charged))

    def in_dtype(self, dtype: Any) -> Self:
        """The same dynamics with array constants in a dtype; numbers adopt the dtype of their operands."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        arrays: Any = {name: value.astype(dtype) for name, value in fields.items() if isinstance(value, np.ndarray)}
        return dataclasses.replace(self, **arrays)

    def fire(self, resets_first: bool, state: State, current: jax.Array) -> tuple[jax.Array, State]:
        """Spikes and charged state of one time step; see the module's function fire."""
        return fire(self, resets_first, state, current)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def fire(dynamics: Dynamics, resets_first: bool, state: State, current: jax.Array) -> tuple[jax.Array, State]:
    """Returns the spikes of one time step and the charged state; only the spikes have a gradient, through the current.

    Args:
      dynamics: the neuron's constants and arithmetic.
      resets_first: whether the state passed in is the one before the last reset.
      state: the state of the last time step; no gradient flows back into it.
      current: of the state's shape.
    """
    charged = advance(dynamics, resets_first, state, current)
    return dynamics.spikes(charged), charged


def advance(dynamics: Dynamics, resets_first: bool, state: State, current: jax.Array) -> State:
    """Returns the charged state of the next time step; each variable is computed once and replaces the last one."""

    def one(name: str) -> jax.Array:
        def update(variable: jax.Array, others: State, current: jax.Array) -> jax.Array:
            state = {**others, name: variable}
            state = dynamics.after_reset(state) if resets_first else state
            return dynamics.charge(state, current)[name].astype(variable.dtype)

        others = {other: variable for other, variable in state.items() if other != name}
        return in_place(update, state[name], others, current)

    return {name: one(name) for name in state}


def _fire_forward(
    dynamics: Dynamics, resets_first: bool, state: State, current: jax.Array
) -> tuple[tuple[jax.Array, State], State]:
    spike, charged = fire(dynamics, resets_first, state, current)
    return (spike, charged), charged


def _fire_backward(
    dynamics: Dynamics, resets_first: bool, charged: State, cotangents: tuple[jax.Array, State]
) -> tuple[None, jax.Array]:
    return None, dynamics.gain * cotangents[0] * dynamics.derivative(charged)


fire.defvjp(_fire_forward, _fire_backward)
