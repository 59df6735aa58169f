"""NNX: a binary spiking network inside an NNX model, trained one time step at a time."""

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from sklearn.datasets import load_digits

import bsojax
import bsojax.nnx

T, BATCH = 2, 32
x, y = load_digits(return_X_y=True)
x = (x / 16).astype("float32")


class Model(nnx.Module):
    """A plain NNX layer, a binary spiking body from this library, and a plain NNX readout."""

    def __init__(self, rngs):
        self.first = nnx.Linear(64, 128, rngs=rngs)
        body = bsojax.models.SpikingMLP(features=(128, 128), num_classes=64)
        self.body = bsojax.nnx.Network(body, jnp.zeros((BATCH, 128)), rngs=rngs)
        self.readout = nnx.Linear(64, 10, rngs=rngs)

    def __call__(self, x, train, time_step):
        return self.readout(self.body(self.first(x), train=train, time_step=time_step))


def loss(model, x, y, t):
    return bsojax.cross_entropy_mse()(model(x, True, t), y) / T


@nnx.jit
def train(model, optimizer, x, y):
    model.body.rest(jnp.zeros((len(x), 128)), T, train=True)
    for t in range(T):  # an update after each; nothing flows back in time
        value, grads = bsojax.nnx.value_and_grad(loss)(model, x, y, t)
        optimizer.update(model, grads, time_step=t)
    return value


@nnx.jit
def classes(model, x):
    model.body.rest(jnp.zeros((len(x), 128)), T)
    return jnp.argmax(sum(model(x, False, t) for t in range(T)), -1)


model = Model(nnx.Rngs(0))
flip = bsojax.t_bso(bsojax.noise_threshold(0.98), T, b1=0.98)
optimizer = bsojax.nnx.Optimizer(model, bsojax.split_optimizer(flip, optax.adam(2e-3)))
for _ in range(3):
    for i in range(0, 1440, BATCH):
        train(model, optimizer, x[i : i + BATCH], y[i : i + BATCH])
signs = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, bsojax.nnx.Signs)))
print(f"{signs:,} binary weights, accuracy {jnp.mean(classes(optimizer.deployed(model), x[1440:]) == y[1440:]):.1%}")
