# %% [markdown]
# # Your own model and your own optax chain
#
# For people who write their own Flax modules and optax chains and want to keep doing so. At the end you will have your
# own residual spiking network, a flip optimizer from your own chain, a picture of what its threshold does, and a list
# of mistakes that the library refuses.

# %%
import flax.linen as nn
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from sklearn.datasets import load_digits

import bsojax
from bsojax import plots

T, BATCH = 4, 32
images, labels = load_digits(return_X_y=True)
x = (images / 16).reshape(-1, 8, 8, 1).astype("float32")
x_train, y_train, x_test, y_test = x[:1440], labels[:1440], x[1440:], labels[1440:]

# %% [markdown]
# ## The model
#
# A model is a Linen module that computes **one time step**. The library calls it `T` times and carries what neurons
# remember in the collection "neurons". Write what you would write for an ordinary network: synapse, norm, neuron.
#
# - `bsojax.Conv` and `bsojax.Dense` have real weights, `BinaryConv` and `BinaryDense` binary ones.
# - Neurons return `bsojax.Spikes`, which holds the spikes and their **trace**, a fading sum of past spikes. Weight
#   gradients are taken at the trace: that is how an update at one time step knows of earlier ones without going back in
#   time. You rarely touch either; sums, products with constants, reshapes, pooling and `bsojax.concatenate` act on
#   both.
# - If `__call__` has arguments named `train` and `time_step`, it receives them. Norms that keep statistics for each
#   time step need both.


# %%
class Block(nn.Module):
    """Neurons, a binary convolution and a norm, added to the current that came in."""

    features: int

    @nn.compact
    def __call__(self, current, train, time_step):
        spikes = bsojax.LIF()(current)
        branch = bsojax.BinaryConv(self.features, (3, 3))(spikes)
        return current + bsojax.BatchNorm(num_steps=T)(branch, train, time_step)


class Net(nn.Module):
    @nn.compact
    def __call__(self, x, train=False, time_step=None):
        current = bsojax.BatchNorm(num_steps=T)(bsojax.Conv(16, (3, 3))(x), train, time_step)
        for number in range(3):
            current = Block(16, name=f"block_{number}")(current, train, time_step)
        return bsojax.Dense(10)(bsojax.global_avg_pool(bsojax.LIF()(current)))


model = Net()
print(bsojax.summarize(model, x[:BATCH]))

# %% [markdown]
# The shortcut carries the current, not the spikes: a sum of spikes would be 0, 1 or 2, no longer one bit for the next
# convolution. You may also add `Spikes` where that is what you want.
#
# ## The chain
#
# The flip optimizer is an optax transform like any other, with one rule: **it goes last**. What comes before it works
# on gradients, as everywhere in optax; what it returns is int8 deltas for booleans, and nothing may scale those.
#
# The chain below is what `bsojax.calibrated` is built from, in its plainest form:
#
# 1. `clip_by_global_norm`, from optax, guards against rare large gradients;
# 2. `scale_by_channel_rms` brings the gradients of each output channel to size 1, so that layers and channels with
#    small gradients learn as fast as others;
# 3. `t_bso` keeps the momentum, `m = b1 * m + (1 - b1) * gradient`, and flips a weight when `weight * momentum` passes
#    a threshold.
#
# Why a threshold? A gradient from 32 images is mostly noise, and so is the momentum. Without noise,
# `weight * momentum > 0` would say that a weight is on the wrong side. With noise, half of the weights that do not
# matter are on the wrong side at any moment. `bsojax.noise_threshold(b1, c)` is `c` standard deviations of the
# momentum's noise.
#
# Which c? We try several. `optax.inject_hyperparams` keeps the threshold in the optimizer's state, so that one compiled
# step serves all of them.

# %%
B1 = 0.98
t_bso = optax.inject_hyperparams(bsojax.t_bso, static_args=("num_steps", "debias"), hyperparam_dtype=jnp.float32)
flip = optax.chain(
    optax.clip_by_global_norm(10.0),
    bsojax.scale_by_channel_rms(),
    t_bso(threshold=bsojax.noise_threshold(B1), num_steps=T, b1=B1, b2=0.99, debias=True),
)

# %% [markdown]
# The real parameters have their own chain. Schedules count updates, and an online step makes `T` of them per batch:
# `bsojax.per_batch` turns a schedule of batches into one of updates.

# %%
EPOCHS, BATCHES = 3, 1440 // BATCH
cosine = bsojax.per_batch(optax.cosine_decay_schedule(3e-3, EPOCHS * BATCHES), updates_per_batch=T)
real = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(cosine, weight_decay=1e-4))
tx = bsojax.split_optimizer(flip=flip, real=real)
step = bsojax.make_train_step(model, tx, T)
evaluate = bsojax.make_eval_step(model, T)


def run(c):
    """Three epochs with a threshold of c standard deviations of noise: the state, test accuracy, metrics."""
    state = bsojax.init(model, tx, jax.random.key(0), x[:BATCH])
    state.opt_state.signs[-1].hyperparams["threshold"] = jnp.float32(bsojax.noise_threshold(B1, c))
    rng, history = np.random.default_rng(0), []
    for _ in range(EPOCHS):
        for batch in rng.permutation(1440).reshape(-1, BATCH):
            state, metrics = step(state, x_train[batch], y_train[batch])
            history.append(metrics)
    state = bsojax.refresh_statistics(model, state, x_train.reshape(-1, 48, 8, 8, 1), T)
    return state, float(evaluate(state, x_test, y_test)["accuracy"]), jax.device_get(history)


# %%
found = {c: run(c) for c in (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)}
weights = sum(leaf.size for leaf in jax.tree.leaves(found[1.0][0].signs))
for c, (_, accuracy, history) in found.items():
    flips = sum(int(n) for m in history for n in m["flips"].values())
    print(f"c = {c}: {flips / weights:6.2f} flips per weight, test accuracy {accuracy:.1%}")

# %% [markdown]
# The threshold plays the role that a learning rate plays for real weights. Too high, and hardly anything flips; too
# low, and weights flip back and forth with the noise. Both extremes cost accuracy. (Three epochs and one seed show the
# extremes but cannot rank neighbours.) `bsojax.calibrated` works differently: instead of a threshold, it has a momentum
# whose window grows with the run, so that its noise falls.
#
# The momenta show the same. Nothing lies to the right of the line: a weight that passes it flips, and
# `weight * momentum` changes sign with it. With the low threshold, most weights are on the side that their momentum
# favours, left of 0; with the high one, many wait on the wrong side until their momentum is sure.

# %%
fig, axes = plt.subplots(1, 2, figsize=(12, 4), layout="constrained")
for ax, c in zip(axes, (0.5, 4.0), strict=True):
    state = found[c][0]
    layer = "block_1/BinaryConv_0/kernel"
    plots.momentum(state.opt_state, state.signs, layer, bsojax.noise_threshold(B1, c), ax=ax)
    ax.set_xlabel(f"weight x momentum, c = {c}")

# %% [markdown]
# So do the flips of each layer over the run:

# %%
fig, axes = plt.subplots(1, 2, figsize=(13, 3.6), layout="constrained", sharey=True)
for ax, c in zip(axes, (0.5, 4.0), strict=True):
    plots.flips(found[c][2], signs=found[c][0].signs, ax=ax)
    ax.set_title(f"c = {c}")

# %% [markdown]
# You can look at a binary kernel directly. White is +1 and black is -1; each row holds the filters of one output
# channel:

# %% tags=["keep-colors"]
ax = plots.kernels(found[1.0][0].signs["block_0"]["BinaryConv_0"]["kernel"])

# %% [markdown]
# ## Mistakes that are refused
#
# Booleans are easy to destroy silently: scaled by 0.5 and added, every weight becomes True. The mistakes below are
# refused when the step is traced, before anything runs, with an error that names the leaf and the cure.

# %%
wrong = {
    "a transform after the flips": optax.chain(bsojax.t_bso(0.1, T), optax.scale(0.5)),
    "a momentum made from booleans": optax.chain(optax.trace(0.9), bsojax.t_bso(0.1, T)),
}
for mistake, chain in wrong.items():
    bad_tx = bsojax.split_optimizer(flip=chain, real=real)
    bad = bsojax.init(model, bad_tx, jax.random.key(0), x[:BATCH])
    try:
        bsojax.make_train_step(model, bad_tx, T)(bad, x[:BATCH], labels[:BATCH])
    except TypeError as error:
        print(f"{mistake}:\n  {error}\n")

# %% [markdown]
# The cure for the second is `bsojax.on_weights(optax.trace(0.9))`, which shows a transform +1 and -1 in float32.
#
# ## Without the loop
#
# The pieces also work alone, for your own training step. `bsojax.value_and_grad` differentiates booleans as if they
# were +1 and -1, `bsojax.bso` is a plain optax transform, and `bsojax.apply_updates` adds its deltas. Here a single
# binary layer, without time steps, learns which of 32 inputs count for and which count against:

# %%
rng = np.random.default_rng(0)
wanted = rng.integers(0, 2, 32) == 1
inputs = rng.standard_normal((256, 32)).astype(np.float32)
outputs = inputs @ np.where(wanted, 1.0, -1.0)


def loss(params):
    return jnp.mean((inputs @ bsojax.to_weights(params["signs"], jnp.float32) - outputs) ** 2)


params = {"signs": jnp.ones(32, bool)}
alone = bsojax.bso(threshold=1.8, b1=0.6)
opt_state = alone.init(params)
for _ in range(6):
    value, grads = bsojax.value_and_grad(loss)(params)
    updates, opt_state = alone.update(grads, opt_state, params)
    params = bsojax.apply_updates(params, updates)
    print(f"loss {value:6.2f}, {int(sum(np.asarray(params['signs']) != wanted))} signs wrong")

# %% [markdown]
# ## Where to go next
#
# - [A memory budget](4-memory-budget.py): how many bits the momentum needs.
# - [Your own flip rule, trace rule, neuron and norm](8-your-own-rules.py).
# - [Beyond one class per image](../how-to/index.md): losses, metrics, dropout, several inputs and heads.
