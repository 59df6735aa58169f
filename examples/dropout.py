"""Dropout, and noise at the input: one random key per run, the same results after a resume and on any devices."""

import flax.linen as nn
import jax
import optax
from sklearn.datasets import load_digits

import bsojax

T, BATCH = 4, 32
x, y = load_digits(return_X_y=True)
x = (x / 16).astype("float32")


class Net(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        pixels = bsojax.encoders.rate_step(self.make_rng("pixels"), x)  # spikes with the probability of the grey value
        x = bsojax.LIF()(bsojax.BatchNorm()(bsojax.Dense(128)(pixels), train))
        x = bsojax.SpikingDropout(0.1)(x, deterministic=not train)  # the same neurons at all time steps
        x = bsojax.LIF()(bsojax.BatchNorm()(bsojax.BinaryDense(128)(x), train))
        return bsojax.Dense(10)(x)


key = jax.random.key(1)
tx = bsojax.split_optimizer(bsojax.t_bso(bsojax.noise_threshold(0.98), T, b1=0.98), optax.adam(2e-3))
state = bsojax.init(Net(), tx, jax.random.key(0), x[:BATCH])
step = bsojax.make_train_step(Net(), tx, T)
for _ in range(8):
    for i in range(0, 1440, BATCH):
        state, metrics = step(state, x[i : i + BATCH], y[i : i + BATCH], rngs=key)
state = bsojax.refresh_statistics(Net(), state, [x[:720], x[720:1440]], T, rngs=key)
for steps in (T, 4 * T):  # with more time steps, less noise is left
    accuracy = bsojax.make_eval_step(Net(), steps)(state, x[1440:], y[1440:], rngs=key)["accuracy"]
    print(f"{steps} time steps: {accuracy:.1%}")
