"""When signs flip: one weight of a network, and signs that learn from a small gradient under much noise."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

import bsojax
from bsojax.optim import window_schedule

WEIGHTS = 4096
THRESHOLDS = (0.0, 0.25, 0.5, 1.0, 1.5)
SIGNAL = 0.1
"""The mean gradient of a sign, in standard deviations of its noise."""
B1 = 0.99
UPDATES = 3000
TURN = 200
"""The number of updates after which the gradients of windows() change their sign."""
WINDOWS: dict[str, Any] = {"10 updates": 0.9, "1,000 updates": 0.999, "growing": window_schedule(0.9, 0.5)}


def one_weight(updates: int = 400, flips: int = 5) -> dict[str, Any]:
    """Trains a network on digits and returns momentum and sign, after each update, of a weight with this many flips."""
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype(np.float32)
    model = bsojax.models.SpikingMLP(features=(64, 64))
    threshold = bsojax.noise_threshold(0.95, c=1.0)
    flip = optax.chain(bsojax.scale_by_channel_rms(), bsojax.bso(threshold, 0.95))
    tx = bsojax.split_optimizer(flip, optax.sgd(0.05))
    state = bsojax.init(model, tx, jax.random.key(0), x[:32])
    step = bsojax.make_train_step(model, tx, num_steps=1)
    signs, momenta = [], []
    for chosen in np.random.default_rng(0).integers(0, 1440, (updates, 32)):
        state, _ = step(state, x[chosen], y[chosen])
        signs.append(np.asarray(state.signs["dense_1"]["kernel"]))
        momenta.append(np.asarray(state.opt_state.signs[-1].momentum["dense_1"]["kernel"]))
    changes = np.count_nonzero(np.diff(np.stack(signs), axis=0), axis=0)
    row, column = np.argwhere(changes == flips)[0]
    return {
        "threshold": float(threshold),
        "signs": [int(2 * sign[row, column] - 1) for sign in signs],
        "momentum": [float(momentum[row, column]) for momentum in momenta],
    }


def course(tx: optax.GradientTransformation, mean: float, turn: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Gives signs a gradient of this mean under white noise of size 1; all begin at +1, which is wrong.

    Before the update of number turn the mean is the negative, and +1 is right.

    Returns:
      The share of signs that flip at each update, and the share that stands at +1 after it.
    """

    def body(carry: tuple[Any, Any], k: jax.Array) -> tuple[tuple[Any, Any], tuple[jax.Array, jax.Array]]:
        signs, opt_state = carry
        noise = jax.random.normal(jax.random.fold_in(jax.random.key(0), k), (WEIGHTS,))
        gradient = jnp.where(k < turn, -mean, mean) + noise
        updates, opt_state = tx.update({"w": gradient}, opt_state, signs)
        signs = bsojax.apply_updates(signs, updates)
        return (signs, opt_state), (jnp.mean(updates["w"] != 0), jnp.mean(signs["w"]))

    signs = {"w": jnp.ones(WEIGHTS, bool)}
    _, (flips, wrong) = jax.lax.scan(body, (signs, tx.init(signs)), jnp.arange(UPDATES))
    return np.asarray(flips), np.asarray(wrong)


def thresholds() -> dict[str, list[Any]]:
    """By threshold, in deviations of the momentum's noise: flips that noise causes, and how long a flip takes.

    Returns:
      Flips in 1,000 updates of a sign under noise alone, and the updates until half of the wrong signs have
      flipped.
    """
    idle, delay = [], []
    for c in THRESHOLDS:
        tx = bsojax.bso(bsojax.noise_threshold(B1, c), B1)
        flips, _ = course(tx, 0.0)
        idle.append(1000 * float(flips[500:].mean()))
        _, wrong = course(tx, SIGNAL)
        delay.append(int(np.argmax(wrong < 0.5)) + 1)
    return {"c": [*THRESHOLDS], "flips_in_1000": idle, "updates_to_flip": delay}


def windows() -> dict[str, Any]:
    """By the window of the momentum, the fraction of signs at +1 after this many updates."""
    kept = np.unique(np.geomspace(1, UPDATES, 400).astype(int))
    found = {}
    for name, b1 in WINDOWS.items():
        _, high = course(bsojax.bso(0.0, b1), SIGNAL, TURN)
        found[name] = [round(float(value), 4) for value in high[kept - 1]]
    return {"updates": kept.tolist(), "at +1": found}
