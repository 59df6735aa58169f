"""Recurrent speech: spoken digits of unequal length, frame by frame, through binary recurrent weights.

First: python -m experiments.prepare fsdd_sequence --source FREE_SPOKEN_DIGIT_DATASET
"""

import jax
import numpy as np
import optax

import bsojax
from experiments.data import load

T, BATCH, EPOCHS = 32, 50, 6
data = load("fsdd_sequence")
seen = data.front_end.evaluate(data.train.x)  # x (T, examples, 32), mask (T, examples)
x, mask, y = np.asarray(seen.x), np.asarray(seen.mask), np.asarray(data.train.y)

model = bsojax.models.SpikingRNN(features=(128,), num_classes=10)
updates = EPOCHS * (len(y) // BATCH) * T
real = optax.adam(optax.cosine_decay_schedule(5e-3, updates))
tx = bsojax.split_optimizer(bsojax.calibrated(T, updates), real)
state = bsojax.init(model, tx, jax.random.key(0), x[0, :BATCH])
step = bsojax.make_train_step(model, tx, T)
rng = np.random.default_rng(0)
for epoch in range(EPOCHS):
    batches = rng.permutation(len(y))[: len(y) // BATCH * BATCH].reshape(-1, BATCH)
    for batch in batches:
        state, metrics = step(state, x[:, batch], y[batch], mask=mask[:, batch])
    print(f"epoch {epoch + 1}: loss {metrics['loss']:.3f}")
statistics = [(x[:, batch], y[batch], mask[:, batch]) for batch in batches[:20]]
state = bsojax.refresh_statistics(model, state, statistics, T)

test = data.front_end.evaluate(data.test.x)
told = bsojax.make_eval_step(model, T)(state, test.x, data.test.y, mask=test.mask)
print(f"sequences of {mask.sum(0).min()} to {mask.sum(0).max()} frames, accuracy {told['accuracy']:.1%}")
