"""The first call of everything, under whatever transformation or precision it happens."""

import subprocess
import sys

import jax
import numpy as np
import optax
import pytest

import bsojax

pytestmark = pytest.mark.slow  # many programs are compiled
T = 2
X, Y = np.random.default_rng(0).random((8, 5), np.float32), np.arange(8) % 3
MODEL = bsojax.models.SpikingMLP(features=(8, 8), num_classes=3)
TX = bsojax.split_optimizer(bsojax.t_bso(0.1, T), optax.adam(1e-3))


def test_without_compilation():
    with jax.disable_jit():
        state = bsojax.init(MODEL, TX, jax.random.key(0), X)
        state, metrics = bsojax.make_train_step(MODEL, TX, T)(state, X, Y, mask=np.arange(8) < 6)
        assert metrics["skipped"] == 0
        told = bsojax.make_eval_step(MODEL, T)(bsojax.refresh_statistics(MODEL, state, [X, X[:3]], T), X, Y)
        assert np.isfinite(told["loss"])


def test_under_vmap():
    states = jax.vmap(lambda key: bsojax.init(MODEL, TX, key, X))(jax.random.split(jax.random.key(0), 2))
    alone, _ = bsojax.make_train_step(MODEL, TX, T)(jax.tree.map(lambda leaf: leaf[1].copy(), states), X, Y)
    states, metrics = jax.vmap(bsojax.make_train_step(MODEL, TX, T), in_axes=(0, None, None))(states, X, Y)
    assert metrics["loss"].shape == (2,)
    np.testing.assert_array_equal(states.signs["dense_1"]["kernel"][1], alone.signs["dense_1"]["kernel"])
    states = jax.vmap(lambda state: bsojax.refresh_statistics(MODEL, state, [X, X[:3]], T))(states)
    each = jax.vmap(lambda state: bsojax.predict(MODEL, state, X, T))(states)
    assert each.shape == (2, 8, 3)


def test_under_jit():
    @jax.jit
    def run(key):
        state = bsojax.init(MODEL, TX, key, X)
        state, _ = bsojax.make_train_step(MODEL, TX, T)(state, X, Y)
        state = bsojax.refresh_statistics(MODEL, state, [X], T)
        return bsojax.make_eval_step(MODEL, T)(state, X, Y), bsojax.predict(MODEL, state, X, T)

    told, logits = run(jax.random.key(0))
    np.testing.assert_allclose(told["accuracy"], np.mean(np.argmax(logits, -1) == Y))


DOUBLE = """
import jax; jax.config.update("jax_enable_x64", True)
import numpy as np, optax, bsojax
x, y = np.random.default_rng(0).random((8, 5)), np.arange(8) % 3
model = bsojax.models.SpikingMLP(features=(8, 8), num_classes=3)
tx = bsojax.split_optimizer(bsojax.t_bso(0.1, 2), optax.adam(1e-3))
state = bsojax.init(model, tx, jax.random.key(0), x)
for dtype in ("float64", "float32", "bfloat16"):
    state, metrics = bsojax.make_train_step(model, tx, 2, dtype=dtype)(state, x, y, mask=np.arange(8) < 6)
    assert metrics["skipped"] == 0
state = bsojax.refresh_statistics(model, state, [x, x[:4]], 2)
assert np.isfinite(bsojax.make_eval_step(model, 2)(state, x, y)["loss"])
"""


def test_in_double_precision():
    done = subprocess.run([sys.executable, "-c", DOUBLE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-1500:]


def test_lists_are_arrays():
    state = bsojax.init(MODEL, TX, jax.random.key(0), X)
    want = bsojax.make_eval_step(MODEL, T)(state, X, Y)
    found = bsojax.make_eval_step(MODEL, T)(state, X.tolist(), Y.tolist(), mask=[True] * 8)
    np.testing.assert_allclose(found["loss"], want["loss"], rtol=1e-6)
    np.testing.assert_allclose(bsojax.predict(MODEL, state, X.tolist(), T), bsojax.predict(MODEL, state, X, T))
    assert bsojax.memory_report(state, model=MODEL, x=X.tolist())["neurons"] > 0
