"""Several labels per example: for each digit, whether it is even, above four, and prime."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

import bsojax

T, BATCH = 4, 32
x, digit = load_digits(return_X_y=True)
x = (x / 16).astype("float32")
y = np.stack([digit % 2 == 0, digit > 4, np.isin(digit, [2, 3, 5, 7])], axis=1)


def right(logits, y):
    """The share of right labels of each example."""
    return jnp.mean((logits > 0) == y, axis=-1)


model = bsojax.models.SpikingMLP(features=(64, 64), num_classes=3)
flip = bsojax.t_bso(bsojax.noise_threshold(0.95), T, b1=0.95)
tx = bsojax.split_optimizer(flip, optax.adam(2e-3))
options = {"loss": bsojax.losses.binary_cross_entropy, "metrics": {"right": right}}
state = bsojax.init(model, tx, jax.random.key(0), x[:BATCH])
step = bsojax.make_train_step(model, tx, T, **options)
for _ in range(3):
    for i in range(0, 1440, BATCH):
        state, metrics = step(state, x[i : i + BATCH], y[i : i + BATCH])
state = bsojax.refresh_statistics(model, state, [x[:720], x[720:1440]], T)
share = bsojax.make_eval_step(model, T, **options)(state, x[1440:], y[1440:])["right"]
print(f"{share:.1%} of the labels are right; always saying no: {1 - y[1440:].mean():.1%}")
