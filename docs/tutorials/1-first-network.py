# %% [markdown]
# # Your first binary spiking network
#
# For people who know JAX and Flax but have never trained a spiking network. In about two minutes you will train a
# network whose hidden weights are +1 or -1, look at its spikes, membranes and flips, and save it in a file of a few
# kilobytes.

# %%
import functools
import tempfile
from pathlib import Path

import flax.linen as nn
import jax
import matplotlib.pyplot as plt
import numpy as np
import optax
from sklearn.datasets import load_digits

import bsojax
from bsojax import plots

# %% [markdown]
# ## What a spiking neuron does
#
# A neuron in an ordinary network computes a number once: `relu(current)`. A spiking neuron runs over **time steps**. It
# has a **membrane**, a number that it remembers. At each time step the membrane loses a share of its value (it
# *leaks*), and the incoming current is added. When the membrane reaches a threshold, 1 here, the neuron **spikes**: it
# sends a 1 instead of a 0, and the threshold is subtracted from its membrane.
#
# `bsojax.LIF` is that neuron (LIF: leaky integrate-and-fire). With its default time constant, `tau=2`, it loses half of
# its membrane at each step. Let us give three of them a constant current each and watch. `bsojax.record` needs a model
# that returns an array; this one contains nothing but the neurons.

# %%


class ThreeNeurons(nn.Module):
    @nn.compact
    def __call__(self, current):
        return bsojax.LIF(name="neurons")(current).value


currents = np.array([[0.45, 0.6, 0.9]], np.float32)  # one example, three neurons
untrained = bsojax.init(ThreeNeurons(), optax.identity(), jax.random.key(0), currents)
watched = bsojax.record(ThreeNeurons(), untrained, currents, num_steps=20)["neurons"]
print("spikes in 20 time steps:", np.asarray(watched.spikes).sum((0, 1)).astype(int))

ax = plots.membrane(watched, neurons=[0, 1, 2])
ax.set_title("Constant currents of 0.45, 0.6 and 0.9")

# %% [markdown]
# A current of 0.45 would hold the membrane just below 0.9, so the neuron never fires. Above 0.5 it fires, more often as
# the current grows. That is how spikes carry numbers: by how many there are, and when.
#
# Two things follow when a neuron sends only 0 or 1. A synapse need not multiply: it adds up the weights whose inputs
# spiked. And with weights of +1 and -1 it need not even add: it counts.
#
# ## The data
#
# We use scikit-learn's handwritten digits, 1,797 images of 8 x 8 pixels, and train on the first 1,440.

# %%
images, labels = load_digits(return_X_y=True)
x = (images / 16).reshape(-1, 8, 8, 1).astype("float32")
x_train, y_train, x_test, y_test = x[:1440], labels[:1440], x[1440:], labels[1440:]

# %% [markdown]
# ## The network
#
# `bsojax.models.SpikingVGG` stacks convolutions, each followed by a norm and neurons. Its first convolution and its
# readout keep real weights, as is usual in binary networks: these weights are few, and they face the pixels and the
# classes. All others are binary. The network sees the same image at each of `T = 4` time steps; its answer is the sum
# of its outputs.
#
# `BatchNorm(num_steps=T)` keeps separate statistics for each time step, because time steps differ: at the first one all
# membranes are empty.

# %%
T = 4
norm = functools.partial(bsojax.BatchNorm, num_steps=T)
model = bsojax.models.SpikingVGG(channels=(16, 32, "M", 32), norm=norm)
print(bsojax.summarize(model, x_train[:32]))

# %% [markdown]
# ## The optimizer: who flips, and who steps
#
# A binary weight cannot take a gradient step of 0.001: it stays, or it **flips**. So the network has two kinds of
# parameters, each with its own optimizer, and `bsojax.split_optimizer` combines the two into one optax optimizer:
#
# - `flip` owns the signs. `bsojax.calibrated` is the recipe to start with: it keeps a moving average of each weight's
#   gradient, the **momentum**, and flips a weight when the momentum points against its sign. There is no hidden float32
#   weight behind the sign.
# - `real`, any optax optimizer, owns the first layer, the readout and the norms.
#
# Learning is **online**: an update follows every time step, so nothing has to be kept until the sequence ends. The
# number of updates is therefore `epochs * batches * T`, and schedules must be given that number.

# %%
EPOCHS, BATCH = 6, 32
batches = len(x_train) // BATCH
updates = EPOCHS * batches * T

flip = bsojax.calibrated(T, total_updates=updates)
real = optax.adam(optax.cosine_decay_schedule(3e-3, updates))
tx = bsojax.split_optimizer(flip=flip, real=real)

state = bsojax.init(model, tx, jax.random.key(0), x_train[:BATCH])
step = bsojax.make_train_step(model, tx, num_steps=T)

# %% [markdown]
# ## Training
#
# You write the loop. A call of `step` takes a batch through all time steps and returns the new state and metrics. It
# consumes the old state (JAX calls this donation): keep only the one that it returns.

# %%
rng = np.random.default_rng(0)
history = []
for epoch in range(EPOCHS):
    for batch in rng.permutation(len(x_train)).reshape(batches, BATCH):
        state, metrics = step(state, x_train[batch], y_train[batch])
        history.append(jax.device_get(metrics))
    of_epoch = history[-batches:]
    loss, accuracy = (np.mean([m[name] for m in of_epoch]) for name in ("loss", "accuracy"))
    flips = sum(int(n) for m in of_epoch for n in m["flips"].values())
    print(f"epoch {epoch + 1}: loss {loss:.2f}, accuracy {accuracy:.1%}, {flips:,} flips")

# %% [markdown]
# (Training accuracy flatters: each batch is scored while the network learns from that very batch, four times.)
#
# At first many weights flip, back and forth, and at the end hardly any do: `calibrated` lets flips die out at
# `total_updates`. Plotted layer by layer, as a share of the layer's weights:

# %%
ax = plots.flips(history, signs=state.signs)

# %% [markdown]
# ## Statistics, then accuracy
#
# A flip changes a weight by 2 at once, and with it the currents that a norm sees, so the norm's running averages lag
# behind. Always re-estimate them before you evaluate or save; this takes only forward passes.

# %%
state = bsojax.refresh_statistics(model, state, [x_train[i : i + BATCH] for i in range(0, len(x_train), BATCH)], T)
evaluate = bsojax.make_eval_step(model, T)
told = evaluate(state, x_test, y_test)
print(f"test accuracy {told['accuracy']:.1%}")

# %% [markdown]
# ## Was it the flips?
#
# The real parameters learn too. To see what the flips did, freeze the signs at their initial values and train the rest
# in the same way. `bsojax.freeze()` is a flip optimizer that never flips.

# %%
control_tx = bsojax.split_optimizer(flip=bsojax.freeze(), real=real)
control = bsojax.init(model, control_tx, jax.random.key(0), x_train[:BATCH])
control_step = bsojax.make_train_step(model, control_tx, num_steps=T)
rng = np.random.default_rng(0)
for _ in range(EPOCHS):
    for batch in rng.permutation(len(x_train)).reshape(batches, BATCH):
        control, _ = control_step(control, x_train[batch], y_train[batch])
control = bsojax.refresh_statistics(model, control, [x_train[:720], x_train[720:]], T)
print(f"test accuracy with frozen signs {evaluate(control, x_test, y_test)['accuracy']:.1%}")

# %% [markdown]
# ## Looking inside
#
# `bsojax.record` runs the network once more and returns what each layer of neurons did. First, one image. Time steps
# run from left to right, and black marks a spike; where a layer has many neurons, each row stands for several.

# %%
seen = bsojax.record(model, state, x_test[:32], T)

fig, axes = plt.subplots(1, 4, figsize=(10, 3), layout="constrained", width_ratios=(1, 2, 2, 2))
axes[0].imshow(x_test[0, ..., 0], cmap="gray")
axes[0].set_title(f"a {y_test[0]}")
axes[0].axis("off")
for ax, (name, layer) in zip(axes[1:], seen.items(), strict=True):
    plots.raster(layer, ax=ax)
    ax.set_title(f"{name}, {np.asarray(layer.spikes[:, 0]).mean():.0%} spike")

# %% [markdown]
# Next, the membranes of four neurons in the last layer that spiked twice, for the same image. They are shown before the
# reset, so a dot, a spike, is where the line reaches the threshold.

# %%
layer = seen["neuron_2"]
spikes = np.asarray(layer.spikes)[:, 0].reshape(T, -1).sum(0)
ax = plots.membrane(layer, neurons=np.flatnonzero(spikes == 2)[:4])

# %% [markdown]
# Last, how busy each layer is: the share of neurons and time steps with a spike. A layer near 0 is silent and passes
# nothing on; one near 1 always fires and carries no information either.

# %%
ax = plots.rates(history)

# %% [markdown]
# ## Saving it
#
# The file holds the signs at one bit each, the real parameters and the statistics. Reading it needs only the library.

# %%
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "digits.bsojax"
    bsojax.save_model(path, model, state)
    print(f"{path.stat().st_size:,} bytes; in float32 it would be {bsojax.summarize(model, x[:1]).float32_bytes:,}")
    saved = bsojax.load_model(path)

logits = bsojax.predict(saved.model, saved.state, x_test[:8], T)
print("answers", np.argmax(logits, -1), "labels", y_test[:8])

# %% [markdown]
# ## Where to go next
#
# - [Your own data](2-your-own-data.py): images, event recordings, sound, sequences of unequal length.
# - [Your own model and your own optax chain](3-your-own-model.py).
# - [A memory budget](4-memory-budget.py): what the momentum costs, and how few bits will do.
