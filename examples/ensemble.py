"""An ensemble by vmap: eight networks train in one program, and vote."""

import jax
import numpy as np
import optax
from sklearn.datasets import load_digits

import bsojax

T, BATCH, MEMBERS = 4, 32, 8
x, y = load_digits(return_X_y=True)
x = (x / 16).astype("float32")

model = bsojax.models.SpikingMLP(features=(32, 32))
tx = bsojax.split_optimizer(bsojax.t_bso(bsojax.noise_threshold(0.95), T, b1=0.95), optax.adam(2e-3))
states = jax.vmap(lambda key: bsojax.init(model, tx, key, x[:BATCH]))(jax.random.split(jax.random.key(0), MEMBERS))
step = jax.jit(jax.vmap(bsojax.make_train_step(model, tx, T), in_axes=(0, None, None)), donate_argnums=0)
for _ in range(3):
    for i in range(0, 1440, BATCH):
        states, metrics = step(states, x[i : i + BATCH], y[i : i + BATCH])
states = jax.vmap(lambda state: bsojax.refresh_statistics(model, state, [x[:1440]], T))(states)
logits = jax.vmap(lambda state: bsojax.predict(model, state, x[1440:], T))(states)  # (members, images, classes)
alone = np.mean(np.argmax(logits, -1) == y[1440:], axis=1)
together = np.mean(np.argmax(logits.mean(0), -1) == y[1440:])
print(f"alone {alone.mean():.1%} ({alone.min():.1%} to {alone.max():.1%}), together {together:.1%}")
