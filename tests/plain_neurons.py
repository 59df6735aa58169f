"""Every neuron once more, as its docstring says it and with nothing else: what tests compare it with."""

import jax
import jax.numpy as jnp
import numpy as np

import bsojax


def plain(neuron, detached=True):
    """Returns ``rest(current)`` and ``step(w, state, current) -> (state, seen)`` of a neuron, for automatic gradients.

    Args:
      neuron: the module; w, the parameter of PLIF, stands apart.
      detached: whether resets and thresholds are constants to the gradient, as in OTTT.
    """
    fixed = jax.lax.stop_gradient if detached else lambda value: value
    of = lambda name, default: jnp.asarray(getattr(neuron, name, default), jnp.float32)  # noqa: E731
    at = lambda value, current: value.reshape((1,) * (current.ndim - value.ndim) + value.shape)  # noqa: E731
    hard = neuron.v_reset is not None
    level = of("v_reset", 0.0) if hard else jnp.zeros(())
    cuba, alif = isinstance(neuron, bsojax.CubaLIF), isinstance(neuron, bsojax.ALIF)

    def rest(current):
        zeros = jnp.zeros_like(current)
        state = {"i": zeros, "b": zeros, "left": zeros, "first": zeros, "trace": zeros}
        return {"v": zeros + at(level, current), **state}

    def step(w, state, current):
        leak = jnp.zeros(()) if isinstance(neuron, bsojax.IF) else at(1 / of("tau", 1.0), current)
        leak = jax.nn.sigmoid(w) if isinstance(neuron, bsojax.PLIF) else leak
        gain = leak if getattr(neuron, "decay_input", False) else 1.0
        alpha = at(1 - 1 / of("tau_synapse", 1.0), current) if cuba else 0.0
        i = alpha * state["i"] + current
        v_rest = at(level, current)
        waits = state["left"] > 0
        u = jnp.where(waits, state["v"], v_rest + (1 - leak) * (state["v"] - v_rest) + gain * i)
        threshold = at(of("v_threshold", 1.0), current)
        if alif:
            threshold = threshold + at(of("beta", 0.0), current) * fixed(state["b"])
        s = jnp.where(waits, 0.0, neuron.surrogate(u - threshold))
        fired = fixed(s)
        v = fired * v_rest + (1 - fired) * u if hard else u - fired * fixed(threshold * jnp.ones_like(u))
        rho = at(1 - 1 / of("tau_adaptation", 1.0), current) if alif else 0.0
        first = (alpha * state["first"] if cuba else 0.0) + fired
        new = {
            "v": v,
            "i": i,
            "b": rho * state["b"] + (1 - rho) * fired,
            "left": jnp.where(s > 0, getattr(neuron, "refractory_steps", 0), jnp.maximum(state["left"] - 1, 0)),
            "first": first,
            "trace": (1 - leak) * state["trace"] + first,
        }
        return new, {"spike": s, "u": u, **new}

    return rest, step


def w_of(neuron):
    """The parameter with which PLIF starts; of others nothing that counts."""
    return jnp.float32(-np.log(neuron.tau - 1)) if isinstance(neuron, bsojax.PLIF) else jnp.float32(0)


def run_plain(neuron, currents, w=None, detached=True):
    """What each time step of a sequence shows, stacked over time."""
    rest, step = plain(neuron, detached)
    w = w_of(neuron) if w is None else w
    return jax.lax.scan(lambda state, current: step(w, state, current), rest(currents[0]), currents)[1]
