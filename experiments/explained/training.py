"""Networks followed batch by batch: what stale statistics cost, and how trained and deployed signs differ."""

from typing import Any

import jax
import numpy as np
import optax
from sklearn.datasets import load_digits

import bsojax

T, BATCH, EPOCHS, EVERY = 2, 32, 12, 15
SEEDS = 3
MODEL = bsojax.models.SpikingMLP(features=(128, 128), binary_ends=True)


def examples() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Returns the digits that are trained on, and those that are not."""
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype(np.float32)
    return (x[:1280], y[:1280]), (x[1280:], y[1280:])


def share(one: Any, other: Any) -> float:
    """The share of signs that differ between two trees of them."""
    pairs = list(zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))
    return sum(int((a != b).sum()) for a, b in pairs) / sum(a.size for a, _ in pairs)


def followed(flip: optax.GradientTransformation, updates: int, seed: int) -> list[dict[str, float]]:
    """Trains a network whose every layer is binary and returns what is seen every few batches.

    Accuracies on digits that are not trained on: of the trained signs with the running statistics and with
    re-estimated ones, and of the deployed signs with re-estimated ones; beside them the share of trained and of
    deployed signs that the last batch changed, and the share in which they differ.
    """
    (x, y), (held_x, held_y) = examples()
    tx = bsojax.split_optimizer(flip, optax.sgd(optax.cosine_decay_schedule(0.1, updates)))
    state = bsojax.init(MODEL, tx, jax.random.key(seed), x[:BATCH])
    step, evaluate = bsojax.make_train_step(MODEL, tx, T), bsojax.make_eval_step(MODEL, T)
    deployed = jax.jit(bsojax.deployed_signs)
    statistics = [x[i : i + BATCH] for i in range(0, len(x), BATCH)]
    order, seen = np.random.default_rng(seed), []
    batches = [b for _ in range(EPOCHS) for b in order.permutation(len(x)).reshape(-1, BATCH)]
    for number, batch in enumerate(batches, 1):
        watched = number % EVERY == 0
        before = jax.device_get((state.signs, deployed(state.opt_state, state.signs))) if watched else None
        state, _ = step(state, x[batch], y[batch])
        if before is None:
            continue
        after = jax.device_get((state.signs, deployed(state.opt_state, state.signs)))
        hot = state.replace(opt_state=tx.init(state.trainable))  # a fresh optimizer deploys the signs it is given
        accuracy = {
            "running": evaluate(hot, held_x, held_y),
            "trained": evaluate(bsojax.refresh_statistics(MODEL, hot, statistics, T), held_x, held_y),
            "deployed": evaluate(bsojax.refresh_statistics(MODEL, state, statistics, T), held_x, held_y),
        }
        record = {name: float(told["accuracy"]) for name, told in accuracy.items()}
        record |= {
            f"changed_{name}": share(*pair) for name, *pair in zip(("trained", "deployed"), before, after, strict=True)
        }
        seen.append({"batch": number, **record, "apart": share(*after)})
    return seen


def runs() -> dict[str, list[list[dict[str, float]]]]:
    """Returns what is seen of each seed, with the paper's T-BSO and with calibrated."""
    updates = EPOCHS * (len(examples()[0][0]) // BATCH) * T
    rules = {"paper": bsojax.t_bso(5e-7, T), "calibrated": bsojax.calibrated(T, updates)}
    return {name: [followed(flip, updates, seed) for seed in range(SEEDS)] for name, flip in rules.items()}
