# %% [markdown]
# # A memory budget
#
# For people who must train, or continue training, where memory is short. You will take the state of one binary weight
# from 96 bits down to 3, learn what each step costs on the digits, and see where the rest of the memory goes.

# %%
import functools

import jax
import matplotlib.pyplot as plt
import numpy as np
import optax
from sklearn.datasets import load_digits

import bsojax
from experiments.rivals import latent_weights

# %% [markdown]
# `latent_weights`, the usual way to train binary weights, is in the repository's `experiments`: run this page from a
# clone.
#
# ## What a binary weight costs while it learns
#
# A shipped binary weight is one bit. While it *learns*, most methods keep much more behind it:
#
# - The usual way keeps a float32 **latent** weight, whose sign is the weight, and Adam's two moments: 3 x 32 = 96 bits.
# - BSO and T-BSO keep the sign and one **momentum**. In float32 that is 32 bits plus the sign.
# - The momentum need not be float32. With `momentum_dtype="int8"` it is stored in 8 bits, with one scale per channel,
#   and rounded up or down at random to make up for what rounding loses.
# - A **counter** has no momentum at all. With `bits=6`, a weight is at one of 64 levels, 32 on the negative side and 32
#   on the positive; a gradient moves it up or down. Its side is its sign.
# - JAX stores a boolean in a byte. `packed=True` stores eight in a byte; layers unpack what they need.
# - `calibrated` and `calibrated_counter` keep a second, steadier set of signs to ship, for one more bit.
#   `deploy_c=None` does without it.
#
# ## The job
#
# Digits again, now with *every* layer binary, so that the signs must do the work: only the norms are real. Five epochs
# and three seeds: short runs on a small data set, which tell big differences from small ones and no more. Longer runs
# on more data are in [Results](../RESULTS.md).

# %%
T, BATCH, EPOCHS, SEEDS = 4, 32, 5, 3
x, y = load_digits(return_X_y=True)
x = (x / 16).astype("float32")
x_train, y_train, x_test, y_test = x[:1440], y[:1440], x[1440:], y[1440:]
updates = EPOCHS * (1440 // BATCH) * T

norm = functools.partial(bsojax.BatchNorm, num_steps=T)
model = bsojax.models.SpikingMLP(features=(128, 128), binary_ends=True, norm=norm)
evaluate = bsojax.make_eval_step(model, T)
real = optax.adam(optax.cosine_decay_schedule(5e-3, updates))


def nbytes(tree):
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def measure(flip, packed=True):
    """Trains with a flip optimizer: bits per weight that its state and the signs take, and accuracy for each seed."""
    tx = bsojax.split_optimizer(flip=flip, real=real)
    step = bsojax.make_train_step(model, tx, T)
    accuracies = []
    for seed in range(SEEDS):
        state = bsojax.init(model, tx, jax.random.key(seed), x[:BATCH], packed=packed)
        weights = bsojax.memory_report(state)["latent_adam"] / 12  # 12 bytes each
        bits = 8 * (nbytes(state.signs) + nbytes(state.opt_state.signs)) / weights
        rng = np.random.default_rng(seed)
        for _ in range(EPOCHS):
            for batch in rng.permutation(1440).reshape(-1, BATCH):
                state, _ = step(state, x_train[batch], y_train[batch])
        state = bsojax.refresh_statistics(model, state, [x_train[:720], x_train[720:]], T)
        accuracies.append(float(evaluate(state, x_test, y_test)["accuracy"]))
    return bits, accuracies


# %% [markdown]
# ## Step by step
#
# First the two extremes: latent weights with Adam, and signs frozen at their initial values, at one bit. Compare
# everything in between with both. (The latent rule caches each sign in a byte beside its latent weight; signs follow
# from latent weights, so those 8 bits are not counted.)

# %%
latent = latent_weights(optax.adam(optax.cosine_decay_schedule(1e-2, updates)))
bits, accuracies = measure(latent, packed=False)
found = {"latent weights, Adam": (bits - 8, accuracies), "frozen signs": measure(bsojax.freeze())}

# %% [markdown]
# Then momentum in float32 and int8, and counters with fewer and fewer bits.

# %%
found["float32 momentum"] = measure(bsojax.calibrated(T, updates))
found["int8 momentum"] = measure(bsojax.calibrated(T, updates, momentum_dtype="int8"))
for width in (6, 4, 3):
    found[f"counter, {width} bits"] = measure(bsojax.calibrated_counter(updates, bits=width, deploy_c=None))

# %%
found = dict(sorted(found.items(), key=lambda item: -item[1][0]))
print(f"{'state':22}  bits per weight  test accuracy, mean and each of {SEEDS} seeds")
for name, (bits, accuracies) in found.items():
    each = " ".join(f"{accuracy:.1%}" for accuracy in accuracies)
    print(f"{name:22}  {bits:15.1f}  {np.mean(accuracies):.1%}  ({each})")

# %%
fig, ax = plt.subplots(figsize=(8, 4), layout="constrained")
for name, (bits, accuracies) in found.items():
    ax.plot([bits] * SEEDS, accuracies, "o", color="#0072B2", alpha=0.4)
    ax.plot(bits, np.mean(accuracies), "_", color="#D55E00", markersize=18, markeredgewidth=2)
    ax.annotate(name, (bits, min(accuracies)), (0, -8), textcoords="offset points", rotation=90, ha="center", va="top")
ax.set_xscale("log")
ax.set_xticks([bits for bits, _ in found.values()], [f"{bits:.0f}" for bits, _ in found.values()])
ax.minorticks_off()
ax.set(xlabel="bits per weight while training (log scale)", ylabel="test accuracy", ylim=(0.2, 1.0))
ax.grid(alpha=0.3)

# %% [markdown]
# Read the table with its spread in mind: the test set has 357 images, so one image is 0.3 points. Giving up latent
# weights costs a little in so short a run; in the longer runs in [Results](../RESULTS.md) it does not. From float32
# momentum down to a few bits there is little to choose. With the fewest bits, accuracy falls but is still far above
# frozen signs. On Fashion-MNIST, where there is more to learn, counters of 8, 6, 5 and 4 bits rank in the order of
# their bits.
#
# ## The whole bill
#
# Training holds more than weights. `bsojax.memory_report` counts bytes by tree without running anything; with `step`,
# it also compiles the step and asks the compiler how much memory the step sets aside.

# %%


def bill(T, batch=32, dtype="float32"):
    """The report of int8 momentum and packed signs, for T time steps, a batch size and a dtype of activations."""
    tx = bsojax.split_optimizer(bsojax.calibrated(T, updates, momentum_dtype="int8"), optax.sgd(1e-2))
    wide = bsojax.models.SpikingMLP(features=(256, 256), binary_ends=True)
    state = bsojax.init(wide, tx, jax.random.key(0), x[:batch], packed=True)
    step = bsojax.make_train_step(wide, tx, T, dtype=dtype)
    return bsojax.memory_report(state, model=wide, step=step, x=x[:batch], y=y[:batch])


bills = {"T = 4": bill(T=4)}
for name, size in bills["T = 4"].items():
    print(f"{name:18} {size:9,} bytes")

# %% [markdown]
# `neurons`, the membranes and traces of one time step, grow with the batch; `step_temporaries` are the gradients and
# activations of one time step. `latent_adam` is for comparison only: what the weights would take as latent weights with
# Adam.
#
# Backpropagation through time keeps the activations of every time step. An online step keeps those of one, whatever `T`
# is:

# %%
bills["T = 64"] = bill(T=64)
bills["T = 4, batch 8"] = bill(T=4, batch=8)
bills["T = 4, bfloat16"] = bill(T=4, dtype="bfloat16")
for name, report in bills.items():
    print(f"{name:16} arguments {report['step_arguments']:9,} and temporaries {report['step_temporaries']:9,} bytes")

# %% [markdown]
# (The 60 extra time steps add one second moment per layer and time step, which `calibrated` keeps.)
#
# So save in this order: first a smaller batch, which mostly costs time (norms need some examples, though); then the
# momentum; then, in convolutional networks, whose activations outweigh their weights, `dtype="bfloat16"`.
# `backward_steps=` saves time, not memory.
#
# ## Where to go next
#
# - [Adapt a shipped network](6-adapt.py) in a few hundred kilobytes, with the counters and freezing of this page.
# - [Benchmarks](../BENCHMARKS.md): measured memory of large networks.
# - [To the edge](5-to-the-edge.py): when training is over and one bit is all that is left.
