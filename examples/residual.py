"""A residual network written by hand: Spikes are added, joined and pooled like arrays, with their traces."""

import flax.linen as nn
import jax
import optax
from sklearn.datasets import load_digits

import bsojax

T, BATCH = 4, 32
x, y = load_digits(return_X_y=True)
x = (x / 16).reshape(-1, 8, 8, 1).astype("float32")


class Block(nn.Module):
    @nn.compact
    def __call__(self, spikes, train):
        inner = bsojax.LIF()(bsojax.BatchNorm()(bsojax.BinaryConv(16, (3, 3))(spikes), train))
        return inner + spikes  # values and traces


class Net(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = bsojax.LIF()(bsojax.BatchNorm()(bsojax.Conv(16, (3, 3))(x), train))
        x = bsojax.max_pool(Block()(x, train), 2)
        x = bsojax.concatenate([x, Block()(x, train)])
        return bsojax.Dense(10)(bsojax.flatten(x))


tx = bsojax.split_optimizer(bsojax.t_bso(bsojax.noise_threshold(0.95), T, b1=0.95), optax.adam(2e-3))
state = bsojax.init(Net(), tx, jax.random.key(0), x[:BATCH])
step = bsojax.make_train_step(Net(), tx, T)
for _ in range(2):
    for i in range(0, 1440, BATCH):
        state, metrics = step(state, x[i : i + BATCH], y[i : i + BATCH])
state = bsojax.refresh_statistics(Net(), state, [x[i : i + BATCH] for i in range(0, 1440, BATCH)], T)
accuracy = bsojax.make_eval_step(Net(), T)(state, x[1440:], y[1440:])["accuracy"]
print(bsojax.summarize(Net(), x[:BATCH], spikes=metrics["spikes"]))
print(f"accuracy {accuracy:.1%}")
