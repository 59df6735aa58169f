# %% [markdown]
# # Your own flip rule, trace rule, neuron and norm
#
# For researchers who want to change what the library computes and keep everything around it. You will write one of
# each, about ten lines apiece, train with them, and look at what they do.

# %%
import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from sklearn.datasets import load_digits

import bsojax
from bsojax import plots

T, BATCH, EPOCHS = 4, 32, 3
x, y = load_digits(return_X_y=True)
x = (x / 16).astype("float32")
x_train, y_train, x_test, y_test = x[:1440], y[:1440], x[1440:], y[1440:]
updates = EPOCHS * (1440 // BATCH) * T


def train(model, flip):
    """Trains on the digits; returns the state, test accuracy and the metrics of all batches."""
    tx = bsojax.split_optimizer(flip, optax.adam(2e-3))
    state = bsojax.init(model, tx, jax.random.key(0), x[:BATCH])
    step = bsojax.make_train_step(model, tx, T)
    rng, history = np.random.default_rng(0), []
    for _ in range(EPOCHS):
        for batch in rng.permutation(1440).reshape(-1, BATCH):
            state, metrics = step(state, x_train[batch], y_train[batch])
            history.append(metrics)
    state = bsojax.refresh_statistics(model, state, [x_train[:720], x_train[720:]], T)
    return state, float(bsojax.make_eval_step(model, T)(state, x_test, y_test)["accuracy"]), jax.device_get(history)


# %% [markdown]
# First, for comparison, what the library provides: LIF neurons, `BatchNorm`, and `calibrated`. `binary_ends=True` makes
# every layer binary, so that the signs must do the work.

# %%
mlp = bsojax.models.SpikingMLP(features=(64, 64), binary_ends=True)
built_in, accuracy, built_in_history = train(mlp, bsojax.calibrated(T, updates))
print(f"built in: {accuracy:.1%}")

# %% [markdown]
# All comparisons on this page use one seed and three epochs: they show that a part works, not that it is better.
#
# ## A flip rule
#
# A flip rule is an optax transform over a tree of booleans. `init` makes a state from the signs; `update` takes
# gradients, *with respect to weights of +1 and -1*, and returns int8 deltas. `bsojax.signs.deltas` makes the deltas
# from booleans that say which weights flip.
#
# `t_bso` flips whatever passes a threshold, whether many weights or none. This rule does the opposite: it flips a
# *fixed share* of each layer, the weights whose momentum argues most against their sign. A positive gradient argues
# against +1, because the loss would fall if the weight were smaller.


# %%
class TopState(NamedTuple):
    momentum: optax.Updates


def flip_the_most_wrong(share, b1=0.95):
    """Of each layer, flips the given share of the weights: those whose momentum speaks most against their sign."""

    def init(signs):
        return TopState(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), signs))

    def update(grads, state, signs, **extra_args):  # time_step, value and grad are passed by name
        momentum = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.momentum, grads)

        def flips(sign, m):
            wrong = jnp.where(sign, m, -m)
            return wrong > jnp.maximum(jnp.quantile(wrong, 1 - share), 0)

        return bsojax.signs.deltas(signs, jax.tree.map(flips, signs, momentum)), TopState(momentum)

    return optax.GradientTransformationExtraArgs(init, update)


# %%
_, accuracy, history = train(mlp, flip_the_most_wrong(0.002))
_, frozen, _ = train(mlp, bsojax.freeze())
print(f"the most wrong: {accuracy:.1%}; frozen signs, the control that every flip rule must beat: {frozen:.1%}")

fig, axes = plt.subplots(1, 2, figsize=(13, 3.6), layout="constrained", sharey=True)
plots.flips(built_in_history, ax=axes[0]).set_title("calibrated")
plots.flips(history, ax=axes[1]).set_title("the most wrong: a fixed share")

# %% [markdown]
# Always run the control. A network whose signs never flip learns too, here through its norms alone, and more when its
# first layer and readout are real.
#
# ## A trace rule
#
# In an update at time step t, the gradient of a weight should also count spikes that arrived *before* t, since their
# effect is still in the membrane. The trace stands in for them: `a[t] = mu[t] * a[t-1] + spike[t]`. A trace rule says
# what `mu` is. In the default, `ottt`, it is the membrane's own decay.
#
# This rule assumes that a neuron that has just fired carries no information about older spikes, and forgets them.
# `inputs` is a `bsojax.TraceInputs`.

# %%
last_spike = bsojax.TraceRule(lambda inputs: inputs.decay * (1 - inputs.spike))

# %% [markdown]
# A rule is a plain object that neurons take. To see what it does, give one neuron of each kind the same current and
# plot the traces that `record` returns.


# %%
class Pair(nn.Module):
    @nn.compact
    def __call__(self, current):
        a = bsojax.LIF(name="ottt")(current)
        b = bsojax.LIF(trace=last_spike, name="last_spike")(current)
        return (a + b).value


current = np.array([[0.8]], np.float32)
seen = bsojax.record(Pair(), bsojax.init(Pair(), optax.identity(), jax.random.key(0), current), current, 16)
fig, ax = plt.subplots(figsize=(8, 3), layout="constrained")
for name, layer in seen.items():
    ax.plot(np.asarray(layer.traces)[:, 0, 0], "o-", label=name)
ax.set(xlabel="time step", ylabel="trace of the neuron's spikes")
ax.legend(frameon=False)

# %%
forgetful = mlp.clone(neuron=functools.partial(bsojax.LIF, trace=last_spike))
_, accuracy, _ = train(forgetful, bsojax.calibrated(T, updates))
print(f"with the new trace: {accuracy:.1%}")

# %% [markdown]
# ## A neuron
#
# A neuron is a module that takes a current and returns `bsojax.Spikes(value, trace)`. Its state lives in the collection
# "neurons", under any names; the library carries it over time steps and drops it after each sequence. A neuron has
# three duties:
#
# - let no gradient flow back in time: use `stop_gradient` on what comes from the previous time step;
# - make the spike with a surrogate such as `bsojax.atan()`, whose forward pass is a step and whose gradient is smooth;
# - call `bsojax.nn.report`, so that metrics and `bsojax.record` include it.
#
# This one is a **resonator** (Izhikevich, 2001): its state is a point in the plane that the current pushes and that
# swings around zero, so it fires most readily for input at its own rhythm.


# %%
class Resonator(nn.Module):
    angle: float = 0.6  # how far it turns per time step
    decay: float = 0.8

    @nn.compact
    def __call__(self, current):
        swing = self.variable("neurons", "swing", lambda: jnp.zeros((*current.shape, 2)))
        trace = self.variable("neurons", "heard", lambda: jnp.zeros_like(current))
        one, two = jax.lax.stop_gradient((swing.value[..., 0], swing.value[..., 1]))
        cosine, sine = self.decay * jnp.cos(self.angle), self.decay * jnp.sin(self.angle)
        one, two = cosine * one - sine * two + current, sine * one + cosine * two
        spike = bsojax.atan()(one - 1)
        spikes = bsojax.Spikes(spike, self.decay * trace.value + jax.lax.stop_gradient(spike))
        if not self.is_initializing():
            swing.value = jax.lax.stop_gradient(jnp.stack([one - spike, two], -1))
            trace.value = jax.lax.stop_gradient(spikes.trace)
        bsojax.nn.report(self, spikes, current=current, before_reset=one)
        return spikes


# %% [markdown]
# The models in `bsojax.models` take a neuron as an argument.

# %%
resonating = mlp.clone(neuron=Resonator)
_, accuracy, _ = train(resonating, bsojax.calibrated(T, updates))
print(f"resonators: {accuracy:.1%}")

# %% [markdown]
# What a resonator does is clearest after a short pulse. An LIF neuron's membrane fades; the resonator's swings, also
# below zero.


# %%
class AfterPulse(nn.Module):
    @nn.compact
    def __call__(self, current):
        return (bsojax.LIF(name="LIF")(current) + Resonator(name="resonator")(current)).value


pulse = np.zeros((20, 1, 1), np.float32)  # (time steps, examples, neurons)
pulse[:2] = 0.6
alone = bsojax.init(AfterPulse(), optax.identity(), jax.random.key(0), pulse[0])
fig, axes = plt.subplots(1, 2, figsize=(11, 3), layout="constrained", sharey=True)
for ax, (name, layer) in zip(axes, bsojax.record(AfterPulse(), alone, pulse, len(pulse)).items(), strict=True):
    plots.membrane(layer, ax=ax).set_title(name)

# %% [markdown]
# A neuron that is *derived* from `bsojax.LIF` and calls `super().__call__` stays on the path that saves memory in
# training: see "A neuron" in [Parts of your own](../EXTENDING.md).
#
# ## A norm
#
# A norm sits between a synapse and its neuron, is called with `(current, train, time_step)`, and scales currents to
# suit a threshold of 1. `BatchNorm` needs statistics, which flips make stale. This one needs none: it normalises each
# example by its own root mean square, over the layer, and learns a gain and a bias per channel.


# %%
class RMSNorm(nn.Module):
    """Each example's currents over their root mean square, times a gain a channel, plus a bias."""

    @nn.compact
    def __call__(self, current, train=False, time_step=None):
        gain = self.param("scale", nn.initializers.ones, (current.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (current.shape[-1],))
        size = jnp.sqrt(jnp.mean(current**2, axis=range(1, current.ndim), keepdims=True) + 1e-6)
        return gain[None] * current / size + bias[None]


# %%
normed = mlp.clone(norm=RMSNorm)
_, accuracy, history = train(normed, bsojax.calibrated(T, updates))
print(f"RMSNorm: {accuracy:.1%}")

# %%
fig, axes = plt.subplots(1, 2, figsize=(13, 3.6), layout="constrained")
plots.rates(built_in_history, ax=axes[0]).set_title("BatchNorm")
plots.rates(history, ax=axes[1]).set_title("RMSNorm")

# %% [markdown]
# Spike rates are the first thing to look at with a new norm or neuron: a layer near 0 or near 1 passes nothing on.
#
# ## Where to go next
#
# - [Parts of your own](../EXTENDING.md): a kind of momentum, an exchange between devices, a training step; and how a
#   rule gets a name on the command line, to be compared with all others.
# - [examples/](../../examples): programs of 20 to 60 lines to start from.
# - [Results](../RESULTS.md): how the paper's rules and their rivals do, over seeds.
