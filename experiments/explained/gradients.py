"""How close the online gradient comes to that through time, by the trace at which it is taken."""

import functools
import statistics
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

import bsojax
from bsojax import online
from experiments.rivals.bptt import ThroughTimeLIF

STEPS = (2, 4, 8, 16)
SEEDS = 5
TRACES = {"OTTT": bsojax.ottt, "NDOT": bsojax.ndot, "NDOT, released": bsojax.ndot_released, "none (SLTT)": None}


def network(neuron: Any) -> Any:
    """Returns a network whose every layer is binary, with the neurons that this makes."""
    return bsojax.models.SpikingMLP(features=(64, 64, 64), binary_ends=True, neuron=neuron)


def gradient(model: Any, num_steps: int, through_time: bool) -> Any:
    """Returns a jitted function of a state and a batch that gives the signs' gradient, summed over the time steps."""
    loss = bsojax.cross_entropy_mse()

    def whole(trainable: Any, stats: Any, neurons: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        def body(carry: Any, now: Any) -> Any:
            t, frame = now
            out = online.forward(model, {**trainable, "batch_stats": carry[0]}, carry[1], frame, t, train=True)
            return (out.batch_stats, out.neurons), loss(out.logits, y)

        return jax.lax.scan(body, (stats, neurons), (jnp.arange(num_steps), x))[1].sum()

    def by_step(trainable: Any, stats: Any, neurons: Any, x: jax.Array, y: jax.Array) -> Any:
        def body(carry: Any, now: Any) -> Any:
            t, frame = now
            out = online.time_step(model, loss, trainable, carry[0], carry[1], frame, y, t)
            return (out.forward.batch_stats, out.forward.neurons), out.grads

        grads = jax.lax.scan(body, (stats, neurons), (jnp.arange(num_steps), x))[1]
        return jax.tree.map(lambda leaf: leaf.sum(0), grads)

    def of(state: bsojax.TrainState, x: jax.Array, y: jax.Array) -> Any:
        neurons = online.start(model, x[0], num_steps, train=True).neurons
        given = state.trainable, state.batch_stats, neurons, x, y
        found = bsojax.value_and_grad(whole)(*given)[1] if through_time else by_step(*given)
        return found["signs"]

    return jax.jit(of)


def cosine(a: jax.Array, b: jax.Array) -> float:
    """The cosine of the angle between two arrays."""
    return float(jnp.vdot(a, b) / jnp.maximum(jnp.linalg.norm(a) * jnp.linalg.norm(b), 1e-30))


def cosines() -> dict[str, Any]:
    """The cosine to the gradient through time, by trace and number of time steps: the mean over hidden layers.

    The networks are random, and see a digit row by row, over and over. Each entry is a list of one value per network.
    The readout is left out: no neuron comes after it, so a trace would stand for nothing.
    """
    images, y = load_digits(return_X_y=True)
    rows, y = (images[:64].reshape(-1, 8, 8) / 16).astype(np.float32).swapaxes(0, 1), y[:64]
    tx, plain = optax.identity(), network(bsojax.LIF)
    states = [bsojax.init(plain, tx, jax.random.key(seed), rows[0]) for seed in range(SEEDS)]
    found: dict[str, Any] = {name: [] for name in TRACES}
    for num_steps in STEPS:
        x = rows[np.arange(num_steps) % len(rows)]
        exact = gradient(network(ThroughTimeLIF), num_steps, through_time=True)
        wanted = [exact(state, x, y) for state in states]
        for name, trace in TRACES.items():
            near = gradient(network(functools.partial(bsojax.LIF, trace=trace)), num_steps, through_time=False)
            values = []
            for state, target in zip(states, wanted, strict=True):
                got = near(state, x, y)
                hidden = [layer for layer in target if layer != "readout"]
                values.append(
                    statistics.mean(cosine(got[layer]["kernel"], target[layer]["kernel"]) for layer in hidden)
                )
            found[name].append(values)
    return {"num_steps": [*STEPS], "cosines": found}
