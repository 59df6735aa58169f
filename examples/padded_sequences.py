"""Sequences of unequal length: the rows of a digit that hold ink, one row per time step, padded to a few lengths."""

import flax.linen as nn
import jax
import numpy as np
import optax
from sklearn.datasets import load_digits

import bsojax

LONGEST, BATCH, EPOCHS = 8, 32, 20
images, y = load_digits(return_X_y=True)
images = (images / 16).reshape(-1, 8, 8).astype("float32")
sequences = [image[image.max(1) > 0.6] for image in images]  # of five to eight rows


def batches(indices):
    """Batches of similar length, each padded to six or eight rows: two compilations, and little padding."""
    indices = sorted(indices, key=lambda i: len(sequences[i]))
    for first in range(0, len(indices) - BATCH + 1, BATCH):
        chosen = indices[first : first + BATCH]
        lengths = np.array([len(sequences[i]) for i in chosen])
        steps = 6 if lengths.max() <= 6 else LONGEST
        x = np.stack([np.pad(sequences[i], ((0, steps - len(sequences[i])), (0, 0))) for i in chosen], axis=1)
        yield x, y[chosen], np.arange(steps)[:, None] < lengths  # (T, batch, 8), (batch,), (T, batch)


class Net(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        spikes = bsojax.BinaryRecurrent()(bsojax.BatchNorm()(bsojax.Dense(128)(x), train))
        return bsojax.LeakyReadout()(bsojax.Dense(10)(spikes))


rng = np.random.default_rng(0)
train, test = np.arange(1440), np.arange(1440, len(y))
updates = EPOCHS * (len(train) // BATCH)  # the loss looks at the last row of each digit: one update per batch
real = optax.adam(optax.cosine_decay_schedule(1e-2, updates))
tx = bsojax.split_optimizer(bsojax.calibrated(LONGEST, updates), real)
state = bsojax.init(Net(), tx, jax.random.key(0), np.zeros((BATCH, 8), np.float32))
loss = bsojax.losses.at_last(bsojax.losses.cross_entropy)
step = bsojax.make_train_step(Net(), tx, num_steps=LONGEST, loss=loss)
for _ in range(EPOCHS):
    epoch = list(batches(rng.permutation(train)))
    for i in rng.permutation(len(epoch)):
        x, labels, mask = epoch[i]
        state, metrics = step(state, x, labels, mask=mask)
state = bsojax.refresh_statistics(Net(), state, epoch, LONGEST)
evaluate = bsojax.make_eval_step(Net(), LONGEST, loss=loss)
accuracy = np.mean([evaluate(state, x, labels, mask=mask)["accuracy"] for x, labels, mask in batches(test)])
print(f"{accuracy:.1%} of the digits are recognised from their rows, {step._cache_size()} compilations")
