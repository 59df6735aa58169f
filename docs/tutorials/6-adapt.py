# %% [markdown]
# # Adapt a shipped network
#
# For engineers whose network is in the field when the data changes. You will load a network from its file, give it two
# new classes, and let it learn from 240 examples of a changed camera in four ways, each in a few hundred kilobytes all
# told, with the bytes in a table.

# %%
import tempfile
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
import optax
from sklearn.datasets import load_digits

import bsojax

T, BATCH = 4, 32
images, labels = load_digits(return_X_y=True)
x = (images / 16).reshape(-1, 8, 8).astype("float32")
train, test = np.arange(1440), np.arange(1440, len(x))
rng = np.random.default_rng(0)


def learn(model, tx, state, x, examples, epochs, batch):
    """Trains on some examples for some epochs, and re-estimates the statistics."""
    step = bsojax.make_train_step(model, tx, T)
    for _ in range(epochs):
        for chosen in rng.permutation(examples)[: len(examples) // batch * batch].reshape(-1, batch):
            state, _ = step(state, x[chosen], labels[chosen])
    return bsojax.refresh_statistics(model, state, [x[examples[:240]]], T)


# %% [markdown]
# ## The network that ships
#
# It knows the digits 0 to 7. It ships as one file: signs at one bit per weight, real parameters, statistics, and what
# is needed to build the model.

# %%
model = bsojax.models.SpikingMLP(features=(128, 128, 128), num_classes=8)
known = train[labels[train] < 8]
updates = 5 * (len(known) // BATCH) * T
tx = bsojax.split_optimizer(bsojax.calibrated(T, updates), optax.adam(optax.cosine_decay_schedule(3e-3, updates)))
state = learn(model, tx, bsojax.init(model, tx, jax.random.key(0), x[:BATCH]), x, known, 5, BATCH)

path = Path(tempfile.mkdtemp()) / "eight.bsojax"
bsojax.save_model(path, model, state)
known_test = test[labels[test] < 8]
told = bsojax.make_eval_step(model, T)(state, x[known_test], labels[known_test])
print(f"{path.stat().st_size:,} bytes, {told['accuracy']:.1%} of the digits 0 to 7 are right")

# %% [markdown]
# ## In the field: everything is different
#
# The camera is mounted sideways, its picture is dim and noisy, and two digits appear that the network was not trained
# on: 8 and 9.

# %%
field = np.clip(0.6 * x.transpose(0, 2, 1) + rng.normal(0, 0.08, x.shape), 0, 1).astype("float32")
few = train[:240]

fig, axes = plt.subplots(2, 8, figsize=(9, 2.6), layout="constrained")
for column in range(8):
    for row, pictures in enumerate((x, field)):
        axes[row, column].imshow(pictures[column + 2], cmap="gray", vmin=0, vmax=1)
        axes[row, column].axis("off")
fig.suptitle("What it was trained on, and what it sees now")

# %%
saved = bsojax.load_model(path)
told = bsojax.make_eval_step(saved.model, T)(saved.state, field[known_test], labels[known_test])
print(f"the shipped network sees {told['accuracy']:.1%} of the digits 0 to 7 right, and no other")

# %% [markdown]
# ## A network for ten classes
#
# `load_model` returned a model and a state without an optimizer. A copy of the model with ten classes has a different
# readout; `bsojax.transfer` copies everything that fits and reports what it left fresh. `packed=True` keeps signs at
# one bit while they learn, too.
#
# The choice of flip optimizer decides what learns, and what it costs:
#
# - `bsojax.freeze()`: no sign flips, and none needs state. Readout and norms learn.
# - `bsojax.freeze(flip, lambda name: ...)`: some layers learn. Names are those in `metrics["flips"]`; frozen layers
#   keep no state.
# - a 6-bit counter for all signs;
# - int8 momentum for all signs.
#
# The real parameters use SGD, which keeps no state. A batch has 8 examples: membranes and activations are most of what
# a training step holds, and they grow with the batch.

# %%
SMALL, EPOCHS = 8, 12
updates = EPOCHS * (len(few) // SMALL) * T
ten = saved.model.clone(num_classes=10)
ways = {
    "readout and norms": bsojax.freeze(),
    "and the last layer": bsojax.freeze(
        bsojax.calibrated_counter(updates, bits=6), lambda name: not name.startswith("dense_2")
    ),
    "all signs, 6-bit counter": bsojax.calibrated_counter(updates, bits=6),
    "all signs, int8 momentum": bsojax.calibrated(T, updates, momentum_dtype="int8"),
}
found = {}
for way, flip in ways.items():
    tx = bsojax.split_optimizer(flip, optax.sgd(optax.cosine_decay_schedule(0.1, updates)))
    into = bsojax.init(ten, tx, jax.random.key(1), field[:SMALL], packed=True)
    state, fresh = bsojax.transfer(saved.state, into=into)
    step = bsojax.make_train_step(ten, tx, T)
    report = bsojax.memory_report(state, model=ten, step=step, x=field[:SMALL], y=labels[:SMALL])
    state = learn(ten, tx, state, field, few, EPOCHS, SMALL)
    accuracy = float(bsojax.make_eval_step(ten, T)(state, field[test], labels[test])["accuracy"])
    found[way] = (accuracy, report)
print("drawn anew:", ", ".join(fresh))

# %%
columns = ("signs", "momentum", "params", "batch_stats", "neurons", "step_arguments", "step_temporaries")
print(f"{'':26} accuracy  " + "  ".join(f"{name:>{max(len(name), 7)}}" for name in columns))
for way, (accuracy, report) in found.items():
    print(f"{way:26} {accuracy:8.1%}  " + "  ".join(f"{report[name]:{max(len(name), 7)},}" for name in columns))

# %% [markdown]
# All columns but the first are bytes. `step_arguments` is what goes into a training step: signs, their state, real
# parameters, statistics and the batch. `step_temporaries` is what the compiled step needs in addition: gradients,
# membranes and activations of one time step. Together they are what training takes on this computer; a device with its
# own kernels needs the first, plus whatever its kernels use.

# %%
fig, ax = plt.subplots(figsize=(9, 2.8), layout="constrained")
goes_in = [report["step_arguments"] / 1000 for _, report in found.values()]
besides = [report["step_temporaries"] / 1000 for _, report in found.values()]
names = [f"{way}, {accuracy:.1%}" for way, (accuracy, _) in found.items()]
ax.barh(names, goes_in, color="#0072B2", label="arguments")
ax.barh(names, besides, left=goes_in, color="#CCCCCC", label="temporaries")
ax.set(xlabel="a training step, kB")
ax.invert_yaxis()
ax.legend(frameon=False)

# %% [markdown]
# For comparison, latent weights and Adam would hold, for the binary weights alone,

# %%
print(f"{report['latent_adam']:,} bytes")

# %% [markdown]
# ## Where to go next
#
# - [A memory budget](4-memory-budget.py): what fewer bits cost, over seeds.
# - [To the edge](5-to-the-edge.py): the adapted network ships the way the first one did.
# - [examples/transfer.py](../../examples/transfer.py): the same idea in forty lines.
