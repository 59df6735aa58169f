# %% [markdown]
# # Your own data
#
# For people who want to feed images, event-camera recordings or sound to a spiking network. You will
# train networks on images, on event recordings and on sound, whose sequences have unequal lengths, and learn the two
# shapes that everything comes down to.

# %%
import tempfile
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
import optax
from PIL import Image
from sklearn.datasets import load_digits

import bsojax
from experiments.front_ends import audio, events

# %% [markdown]
# The last line imports ready-made front ends for events and sound. They are part of the repository, in
# [experiments/front_ends](../../experiments/front_ends), not of the installed library: run this page from a clone.
#
# ## Two shapes
#
# A spiking network runs for `T` time steps. Its input is one of two things:
#
# | input | shape | what happens |
# | --- | --- | --- |
# | a **static** example, such as an image | `(batch, ...)` | shown again at each of the `T` time steps |
# | a **sequence**, such as a recording | `(T, batch, ...)` | one frame per time step; time is the *first* axis |
#
# Values are floating-point, around 1 in size: bring each column of a table to mean 0 and deviation 1, as they are in
# the training examples. Labels are whole numbers `0 .. classes - 1` of shape `(batch,)`. A training step tells the two
# kinds of input apart by the shape of the batch given to `bsojax.init`, which is that of one time step.
#
# There is no data loader to learn: a batch is a pair of arrays, from wherever you like. All sections below use one
# training function, which takes a list of batches, `(x, y)` or `(x, y, mask)`.


# %%
def train(model, first, batches, T, epochs, learning_rate=5e-3):
    """Trains on batches, in another order each epoch; returns the state, ready for evaluation."""
    updates = epochs * len(batches) * T
    real = optax.adam(optax.cosine_decay_schedule(learning_rate, updates))
    tx = bsojax.split_optimizer(bsojax.calibrated(T, updates), real)
    state = bsojax.init(model, tx, jax.random.key(0), first)
    step = bsojax.make_train_step(model, tx, T)
    rng = np.random.default_rng(0)
    for _ in range(epochs):
        for i in rng.permutation(len(batches)):
            x, y, *mask = batches[i]
            state, _ = step(state, x, y, mask=mask[0] if mask else None)
    return bsojax.refresh_statistics(model, state, batches, T)


# %% [markdown]
# ## A folder of images
#
# The most common layout is one folder per class, with image files in it. We make one from scikit-learn's digits, so
# that the code that reads it is the code you need.

# %%
folder = Path(tempfile.mkdtemp())
images, labels = load_digits(return_X_y=True)
for number, (image, label) in enumerate(zip(images[:1200], labels, strict=False)):
    path = folder / str(label) / f"{number:04d}.png"
    path.parent.mkdir(exist_ok=True)
    Image.fromarray((image.reshape(8, 8) * 15).astype(np.uint8)).save(path)
print(sorted(path.name for path in folder.iterdir()), "with", len(list(folder.glob("*/*.png"))), "files")

# %% [markdown]
# To read it, sort the names, so that each class keeps its number; decode; and bring all images to one size, one number
# of channels, and the range 0 to 1. A data set that fits into memory is best kept as one array.

# %%
classes = sorted(path.name for path in folder.iterdir())
files = sorted(folder.glob("*/*.png"))


def read(path, size=(8, 8)):
    return np.asarray(Image.open(path).convert("L").resize(size), np.float32)[..., None] / 255


x = np.stack([read(path) for path in files])
y = np.array([classes.index(path.parent.name) for path in files])
print(x.shape, x.dtype, x.min(), x.max(), y.shape)

# %% [markdown]
# ## Images from arrays
#
# From here on it does not matter where the array came from. Set some examples aside, cut the rest into batches of one
# size (each new size is compiled again), and train. `bsojax.models.SpikingMLP` flattens images itself.

# %%
T, BATCH = 4, 32
order = np.random.default_rng(0).permutation(len(x))
held_out, rest = order[:240], order[240:]
batches = [(x[batch], y[batch]) for batch in rest.reshape(-1, BATCH)]

model = bsojax.models.SpikingMLP(features=(128, 128), num_classes=len(classes))
state = train(model, x[:BATCH], batches, T, epochs=6)
told = bsojax.make_eval_step(model, T)(state, x[held_out], y[held_out])
print(f"images: {told['accuracy']:.1%} of {len(held_out)} held-out images are right")

# %% [markdown]
# NumPy batches are checked before they are used. Input that would train to nonsense is refused, with an error that
# names the argument and the cure. These are the two mistakes that everybody makes once:

# %%
tx = bsojax.split_optimizer(bsojax.t_bso(0.1, T), optax.sgd(0.1))
fresh, step = bsojax.init(model, tx, jax.random.key(0), x[:BATCH]), bsojax.make_train_step(model, tx, T)
good_x, good_y = batches[0]
for wrong_x, wrong_y in (((good_x * 255).astype(np.uint8), good_y), (good_x, good_y + 1)):
    try:
        step(fresh, wrong_x, wrong_y)
    except (TypeError, ValueError) as error:
        print(f"{type(error).__name__}: {error}\n")

# %% [markdown]
# ## Recordings of events
#
# An event camera sends no frames. Each pixel reports on its own when it becomes brighter or darker. The result is rows
# of `(time in microseconds, x, y, polarity)`; more movement gives more rows. Here are recordings of a bar that moves
# across a sensor of 16 x 16 pixels in one of four directions, with noise.

# %%
SIDE, DIRECTIONS = 16, ("right", "left", "down", "up")
rng = np.random.default_rng(0)


def recording(direction):
    """Events of a moving bar: its front makes pixels brighter, its back makes them darker."""
    rows = []
    offset, speed = rng.integers(0, 4), rng.integers(5_000, 8_000)  # pixels; microseconds per pixel
    for place in range(SIDE + 3):
        for polarity, edge in ((1, place), (0, place - 3)):
            along = np.flatnonzero(rng.random(SIDE) < 0.6)
            across = np.full(len(along), edge - offset if direction % 2 == 0 else SIDE - 1 - edge + offset)
            column, row = (across, along) if direction < 2 else (along, across)
            time = place * speed + rng.integers(0, speed, len(along))
            rows.append(np.stack([time, column, row, np.full(len(along), polarity)], 1))
    noise = np.stack([rng.integers(0, SIDE * 8_000, 80), *rng.integers(0, SIDE, (2, 80)), rng.integers(0, 2, 80)], 1)
    rows = np.concatenate([*rows, noise]).astype(np.int32)
    rows = rows[np.argsort(rows[:, 0])]
    return rows[(rows[:, 1:3] >= 0).all(1) & (rows[:, 1:3] < SIDE).all(1)]


y = rng.integers(0, 4, 640)
recordings = [recording(direction) for direction in y]
print("events a recording:", min(map(len, recordings)), "to", max(map(len, recordings)))
print("the first:", recordings[0][0].tolist())

# %% [markdown]
# A network with time steps needs frames: the duration of a recording is cut into `T` bins, and the events in each bin
# are counted by position and polarity. `events.bin_events` does this for one recording, on the device; recordings are
# padded to the same number of rows, and `vmap` handles a batch. `events.frames` then clips counts at 8, divides them by
# 8, and puts time first.

# %%
T = 6
rows = max(map(len, recordings))
padded = np.stack([np.pad(one, ((0, rows - len(one)), (0, 0))) for one in recordings])
counts = np.array([len(one) for one in recordings], np.int32)
bin_all = jax.jit(jax.vmap(lambda events_, count: events.bin_events(events_, count, T, SIDE, SIDE)))
stored = bin_all(padded, counts)  # uint8 (recordings, T, height, width, polarity): store these
x = np.asarray(events.frames(largest=8).evaluate(stored))  # float32 (T, recordings, height, width, polarity)
print("stored", stored.shape, stored.dtype, "and seen by the network", x.shape, x.dtype)

fig, axes = plt.subplots(1, T, figsize=(12, 2.4), layout="constrained")
for t, ax in enumerate(axes):
    ax.imshow(np.clip(0.5 + 2 * (x[t, 0, ..., 1] - x[t, 0, ..., 0]), 0, 1), cmap="gray", vmin=0, vmax=1)
    ax.set_title(f"time step {t}")
    ax.axis("off")
fig.suptitle(f"A bar that moves {DIRECTIONS[y[0]]}: white became brighter, black darker")

# %% [markdown]
# The network sees one frame at a time, and its membranes carry what came before. The first frame of a batch,
# `x[0, :32]`, goes to `init`: it is one time step.

# %%
batches = [(x[:, i : i + BATCH], y[i : i + BATCH]) for i in range(0, 512, BATCH)]
model = bsojax.models.SpikingMLP(features=(128, 128), num_classes=4)
state = train(model, x[0, :BATCH], batches, T, epochs=4)
told = bsojax.make_eval_step(model, T)(state, x[:, 512:], y[512:])
print(f"events: {told['accuracy']:.1%} of {len(y) - 512} held-out recordings are right")

# %% [markdown]
# ## Sound, and sequences of unequal length
#
# Sound becomes a **spectrogram**: how much energy each frequency band has at each moment. Frame by frame, that is a
# sequence of vectors. Our clips are whistles, sampled at 8 kHz, that rise, fall, or stay, between 0.4 and 1 second
# long.

# %%
RATE, KINDS = 8_000, ("rises", "falls", "stays")


def whistle(kind, seconds):
    start = rng.uniform(600, 1_200)
    end = start * {0: 2.0, 1: 0.5, 2: 1.0}[kind]
    pitch = np.linspace(start, end, int(RATE * seconds))
    return 0.5 * np.sin(2 * np.pi * np.cumsum(pitch) / RATE) + 0.05 * rng.standard_normal(len(pitch))


y = rng.integers(0, 3, 640)
clips = [whistle(kind, rng.uniform(0.4, 1.0)) for kind in y]

# %% [markdown]
# Pad to one second, take the log-mel spectrogram, and note how many frames each clip really has. The **mask** says
# which frames count: boolean, `(T, batch)`, True where there is sound.

# %%
FRAMES = MELS = 32
waves = np.stack([np.pad(clip, (0, RATE - len(clip))) for clip in clips]).astype(np.float32)
spectra = jax.jit(audio.log_mel, static_argnums=1)(waves, RATE)  # (clips, 32 frames, 32 bands, 1), in decibels
hop = RATE // (FRAMES - 1)
lengths = np.array([min(1 + len(clip) // hop, FRAMES) for clip in clips])
mask = np.arange(FRAMES)[:, None] < lengths
x = np.asarray(spectra)[..., 0].swapaxes(0, 1)  # (32 frames, clips, 32 bands)
x = (x - x[mask].mean()) / x[mask].std()
print(x.shape, mask.shape, "frames that count:", lengths.min(), "to", lengths.max())

fig, axes = plt.subplots(1, 3, figsize=(12, 2.8), layout="constrained", sharey=True)
for kind, ax in enumerate(axes):
    which = np.flatnonzero(y == kind)[0]
    ax.imshow(x[:, which].T, origin="lower", aspect="auto")
    ax.axvline(lengths[which] - 0.5, color="white", linestyle="--")
    ax.set(title=f"{KINDS[kind]}; the mask ends at the line", xlabel="time step")
axes[0].set_ylabel("band")

# %% [markdown]
# (A frame's window reaches one frame past the end of its clip, which is why some sound lies to the right of the line.)
#
# Pass the mask to the training step, to `refresh_statistics` and to the evaluation, and padding has no effect: losses,
# gradients, norms and metrics leave it out, and the neurons of a short example wait. An example's loss is the mean over
# its own time steps, so short clips count as much as long ones.
#
# A recurrent network suits sequences. The neurons of `SpikingRNN` feed one another through binary weights. (If the
# network is to become C code, which knows no recurrence, use `SpikingMLP` with neurons that leak slowly:
# `neuron=functools.partial(bsojax.LIF, tau=8.0)`.)

# %%
T = FRAMES
batches = [(x[:, i : i + BATCH], y[i : i + BATCH], mask[:, i : i + BATCH]) for i in range(0, 512, BATCH)]
model = bsojax.models.SpikingRNN(features=(96,), num_classes=3)
state = train(model, x[0, :BATCH], batches, T, epochs=6)
evaluate = bsojax.make_eval_step(model, T)
told = evaluate(state, x[:, 512:], y[512:], mask=mask[:, 512:])
print(f"sound: {told['accuracy']:.1%} of {len(y) - 512} held-out clips are right")

# %% [markdown]
# To see that padding really has no effect, fill it with nonsense and evaluate again:

# %%
nonsense = np.where(mask[:, 512:, None], x[:, 512:], np.float32(1e6))
again = evaluate(state, nonsense, y[512:], mask=mask[:, 512:])
print(f"with nonsense for padding: {again['accuracy']:.1%}, the loss is the same: {again['loss'] == told['loss']}")

# %% [markdown]
# Where lengths differ widely, sort clips by length and pad each batch to its own longest: with a mask, a batch may have
# fewer frames than `T`. Round lengths up to a few values, since the step is compiled once for each;
# [examples/padded_sequences.py](../../examples/padded_sequences.py) does so.
#
# ## Where to go next
#
# - [How-to](../how-to/index.md): regression, several labels, several inputs, streams that do not end.
# - [Parts of your own](../EXTENDING.md): a data set that `python -m experiments.train` knows by name, with checkpoints
#   and reports.
# - [Your own model and your own optax chain](3-your-own-model.py).
