"""Transfer: a network that knows eight digits gets a readout for ten; first its body is frozen, then trained."""

import jax
import numpy as np
import optax
from sklearn.datasets import load_digits

import bsojax

T, BATCH = 4, 32
x, y = load_digits(return_X_y=True)
x = (x / 16).astype("float32")
train, test = np.split(np.arange(len(y)), [1440])
rng = np.random.default_rng(0)


def trained(model, tx, state, examples, epochs):
    step = bsojax.make_train_step(model, tx, T)
    for _ in range(epochs):
        for batch in rng.permutation(examples)[: len(examples) // BATCH * BATCH].reshape(-1, BATCH):
            state, _ = step(state, x[batch], y[batch])
    return bsojax.refresh_statistics(model, state, [x[examples[:640]]], T)


flip = bsojax.t_bso(bsojax.noise_threshold(0.95), T, b1=0.95)
eight, ten = (bsojax.models.SpikingMLP(features=(64, 64), num_classes=classes) for classes in (8, 10))
tx = bsojax.split_optimizer(flip, optax.adam(2e-3))
known = trained(eight, tx, bsojax.init(eight, tx, jax.random.key(0), x[:BATCH]), train[y[train] < 8], 5)

few = train[:320]  # of all ten digits
for name, owner in {"frozen": bsojax.freeze(), "learning": flip}.items():
    tx = bsojax.split_optimizer(owner, optax.adam(2e-3))
    state, fresh = bsojax.transfer(known, into=bsojax.init(ten, tx, jax.random.key(1), x[:BATCH]))
    momentum = bsojax.memory_report(state)["momentum"]
    state = trained(ten, tx, state, few, 20)
    accuracy = bsojax.make_eval_step(ten, T)(state, x[test], y[test])["accuracy"]
    print(f"{accuracy:.1%} with the signs {name}, {momentum} bytes of momentum; drawn anew: {', '.join(fresh)}")
