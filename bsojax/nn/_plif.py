"""PLIF: neurons that learn how fast their membrane leaks."""

import dataclasses
import functools
import math
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from bsojax import _validate
from bsojax.nn._dynamics import Constants, Dynamics, State, advance
from bsojax.nn._neuron import Neuron
from bsojax.nn._neuron_step import step
from bsojax.nn._neurons import threshold_and_reset
from bsojax.nn._spikes import Spikes
from bsojax.nn._surrogates import Surrogate, sigmoid
from bsojax.nn._traces import TraceRule, ottt


class PLIF(Neuron):
    """Parametric leaky integrate-and-fire neurons: LIF whose time constant is learned, one per layer.

    Use it where the time constant is not known. It starts as LIF, with ``1/tau = sigmoid(w)``.

    The gradient of w, like that of the weights, goes through this time step alone. With the last membrane v[t-1] as a
    constant, ``du[t]/d(1/tau) = v_rest - v[t-1]``, and ``current[t] + v_rest - v[t-1]`` with decay_input. The effect of
    the time constant on v[t-1] is left out. At the first time step there is no such effect, nor at the second without
    decay_input; later the gradient is part of what backpropagation through time finds. It requires the last membrane,
    one array more than LIF keeps. The trace treats the time constant as fixed.

    Variables: "w", a float32 scalar in the collection "params"; state as in LIF. v_threshold and v_reset may be given
    per neuron or per channel, as in LIF.

    Attributes:
      tau: the time constant in time steps from which learning starts, > 1.
      v_threshold, v_reset, trace, surrogate, decay_input: as in LIF. The paper's neuron uses decay_input.

    Raises:
      TypeError, ValueError: as LIF.

    Source: Fang et al., Incorporating learnable membrane time constant, ICCV 2021, eq. 10.
    """

    tau: float = 2.0
    v_threshold: Constants = 1.0
    v_reset: Constants | None = None
    trace: TraceRule | None = ottt
    surrogate: Surrogate = sigmoid(4.0)
    decay_input: bool = False

    _constants: ClassVar[tuple[str, ...]] = ("v_threshold", "v_reset")

    @nn.compact
    def __call__(self, current: jax.Array) -> Spikes:
        tau = _validate.leaking(f"neuron '{self.name}'", self.tau)
        w = self.param("w", nn.initializers.constant(-math.log(tau - 1)), (), jnp.float32)
        leak = jax.nn.sigmoid(w)
        threshold, v_reset = threshold_and_reset(self, current)
        decay = jax.lax.stop_gradient(1 - leak)
        dynamics = _Learned(decay, 1.0, threshold, v_reset, self.surrogate, leak=leak, decay_input=self.decay_input)
        return step(self, current, dynamics, self.trace)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class _Learned(Dynamics):
    """Dynamics whose leak, ``1/tau``, is traced and has a gradient."""

    leak: Any
    decay_input: bool

    def fire(self, resets_first: bool, state: State, current: jax.Array) -> tuple[jax.Array, State]:
        fixed = dataclasses.replace(self, leak=None, decay=None)  # traced values must be arguments
        return _fire(fixed, resets_first, self.leak, state, current)

    def at(self, leak: jax.Array) -> "_Learned":
        """The same dynamics with this leak."""
        return dataclasses.replace(self, leak=leak, decay=1 - leak, gain=leak if self.decay_input else 1.0)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _fire(
    fixed: _Learned, resets_first: bool, leak: jax.Array, state: State, current: jax.Array
) -> tuple[jax.Array, State]:
    """The function fire of Dynamics, with a gradient through the leak as well."""
    dynamics = fixed.at(leak)
    charged = advance(dynamics, resets_first, state, current)
    return dynamics.spikes(charged), charged


def _fire_forward(
    fixed: _Learned, resets_first: bool, leak: jax.Array, state: State, current: jax.Array
) -> tuple[tuple[jax.Array, State], Any]:
    spike, charged = _fire(fixed, resets_first, leak, state, current)
    return (spike, charged), (leak, state, charged)


def _fire_backward(
    fixed: _Learned, resets_first: bool, residuals: Any, cotangents: tuple[jax.Array, State]
) -> tuple[jax.Array, None, jax.Array]:
    leak, state, charged = residuals
    dynamics = fixed.at(leak)
    g = cotangents[0] * dynamics.derivative(charged)
    last = (dynamics.after_reset(state) if resets_first else state)["membrane"]
    # With decay_input u = last + leak * (current + v_rest - last), so the current need not be stored.
    by_leak = (charged["membrane"] - last) / leak if fixed.decay_input else fixed.v_rest - last
    return jnp.sum(g * by_leak, dtype=jnp.float32), None, (dynamics.gain * g).astype(g.dtype)


_fire.defvjp(_fire_forward, _fire_backward)
