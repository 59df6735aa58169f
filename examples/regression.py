"""Regression: a binary network that predicts real numbers, here how diabetes progresses in a year."""

import jax
import numpy as np
import optax
from sklearn.datasets import load_diabetes

import bsojax

T, BATCH, EPOCHS = 8, 32, 12
x, y = load_diabetes(return_X_y=True)
x, y = (x / x.std(0)).astype("float32"), ((y - y.mean()) / y.std())[:, None].astype("float32")
train, test = np.split(np.random.default_rng(0).permutation(len(x)), [352])

model = bsojax.models.SpikingMLP(features=(64, 64), num_classes=1)
updates = EPOCHS * (len(train) // BATCH) * T
tx = bsojax.split_optimizer(bsojax.calibrated(T, updates), optax.sgd(optax.cosine_decay_schedule(0.05, updates)))
options = {"loss": bsojax.losses.mean_squared_error, "metrics": {"mse": bsojax.losses.mean_squared_error}}
state = bsojax.init(model, tx, jax.random.key(0), x[:BATCH])
step = bsojax.make_train_step(model, tx, T, **options)

rng = np.random.default_rng(0)
for _ in range(EPOCHS):
    for batch in rng.permutation(train)[: len(train) // BATCH * BATCH].reshape(-1, BATCH):
        state, metrics = step(state, x[batch], y[batch])
state = bsojax.refresh_statistics(model, state, [x[train]], T)
error = bsojax.make_eval_step(model, T, **options)(state, x[test], y[test])["mse"]
print(f"mean squared error {error:.2f}, of the mean {np.var(y[test]):.2f}")
