"""An endless stream: digits arrive row by row, each row with a label; neurons carry on between chunks of 16 rows."""

import flax.linen as nn
import jax
import numpy as np
import optax
from sklearn.datasets import load_digits

import bsojax

CHUNK, STREAMS, DIGITS, PASSES = 16, 32, 40, 20
images, labels = load_digits(return_X_y=True)
images = (images / 16).reshape(-1, 8, 8).astype("float32")


def stream(first, last):
    """Consecutive rows of digits, (time, streams, 8), and for each row the label of its digit, (time, streams)."""
    chosen = np.random.default_rng(first).integers(first, last, (DIGITS, STREAMS))
    return images[chosen].transpose(0, 2, 1, 3).reshape(-1, STREAMS, 8), np.repeat(labels[chosen], 8, axis=0)


class Net(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        spikes = bsojax.BinaryRecurrent()(bsojax.BatchNorm()(bsojax.Dense(128)(x), train))
        return bsojax.LeakyReadout()(bsojax.Dense(10)(spikes))


x, y = stream(0, 1400)
chunks = np.arange(0, len(x), CHUNK)
updates = PASSES * len(chunks) * CHUNK
real = optax.adam(optax.cosine_decay_schedule(1e-2, updates))
tx = bsojax.split_optimizer(bsojax.calibrated(CHUNK, updates), real)
state = bsojax.init(Net(), tx, jax.random.key(0), x[0])
step = bsojax.make_train_step(Net(), tx, CHUNK)
for _ in range(PASSES):
    neurons = bsojax.rest(Net(), x[0], train=True)
    for t in chunks:
        state, metrics = step(state, x[t : t + CHUNK], y[t : t + CHUNK], neurons=neurons)
        neurons = metrics["neurons"]  # the next chunk continues from here
state = bsojax.refresh_statistics(Net(), state, np.split(x, len(chunks)), CHUNK)

x, y = stream(1400, len(labels))
neurons, right = bsojax.rest(Net(), x[0]), []
for t in chunks:
    logits, neurons = bsojax.predict(Net(), state, x[t : t + CHUNK], CHUNK, per_step=True, neurons=neurons)
    right.append(np.argmax(logits, -1) == y[t : t + CHUNK])
by_row = np.concatenate(right).reshape(-1, 8, STREAMS).mean((0, 2))
print("right after each row of a digit:", " ".join(f"{share:.0%}" for share in by_row))
