"""Your own flip rule: an optax transform over booleans, instead of T-BSO."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_digits

import bsojax

T, BATCH = 4, 32
x, y = load_digits(return_X_y=True)
x = (x / 16).astype("float32")


class TopState(NamedTuple):
    momentum: optax.Updates


def flip_the_most_wrong(share, b1=0.95):
    """In each layer, flips the given share of the weights: those whose momentum speaks most against their sign."""

    def init(signs):
        return TopState(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), signs))

    def update(grads, state, signs, **extra_args):
        momentum = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.momentum, grads)

        def flips(sign, m):
            wrong = jnp.where(sign, m, -m)  # a positive gradient speaks against +1
            return wrong > jnp.maximum(jnp.quantile(wrong, 1 - share), 0)

        return bsojax.signs.deltas(signs, jax.tree.map(flips, signs, momentum)), TopState(momentum)

    return optax.GradientTransformationExtraArgs(init, update)


model = bsojax.models.SpikingMLP(features=(64, 64, 64))
for flip in (flip_the_most_wrong(0.002), bsojax.freeze()):
    tx = bsojax.split_optimizer(flip, optax.sgd(0.05))
    state = bsojax.init(model, tx, jax.random.key(0), x[:BATCH])
    step = bsojax.make_train_step(model, tx, T)
    for _ in range(3):
        for i in range(0, 1440, BATCH):
            state, metrics = step(state, x[i : i + BATCH], y[i : i + BATCH])
    state = bsojax.refresh_statistics(model, state, [x[:720], x[720:1440]], T)
    accuracy = bsojax.make_eval_step(model, T)(state, x[1440:], y[1440:])["accuracy"]
    flips = sum(map(int, metrics["flips"].values()))
    print(f"accuracy {accuracy:.1%}, {flips} flips in the last batch")
