"""Bad input to the training loop: one clear message that names the argument and the cure, before any training."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import bsojax

T = 3
X = np.random.default_rng(0).random((8, 4, 4, 1)).astype(np.float32)
Y = np.arange(8) % 4
MODEL = bsojax.models.SpikingMLP(features=(6, 6), num_classes=4)
TX = bsojax.split_optimizer(bsojax.t_bso(0.1, T), optax.sgd(0.1))
STEP = bsojax.make_train_step(MODEL, TX, T)
EVALUATE = bsojax.make_eval_step(MODEL, T)


@pytest.fixture(scope="module")
def state():
    return bsojax.init(MODEL, TX, jax.random.key(0), X)


def nan_at(index):
    x = X.copy()
    x[index, 0, 0, 0] = np.nan
    return x


bad_batches = {
    "image size": (X[:, :3], Y, ValueError, r"x: the model was initialised for examples of shape \(4, 4, 1\)"),
    "no channel axis": (X[..., 0], Y, ValueError, "x: the model was initialised"),
    "too few labels": (X, Y[:7], ValueError, r"y: x holds 8 examples, so y needs the shape \(8, ...\)"),
    "time steps": (
        np.stack([X] * (T + 1)),
        Y,
        ValueError,
        r"or \(3, batch, 4, 4, 1\) for a frame per",
    ),
    "integer images": ((X * 255).astype(np.uint8), Y, TypeError, "x: needs a floating dtype, not uint8; convert"),
    "float labels": (X, Y.astype(np.float32), TypeError, r"y: needs integer class labels.*not float32\[8\]"),
    "one-hot labels": (X, np.eye(4, dtype=np.int32)[Y], TypeError, "y: needs integer class labels of shape.*one-hot"),
    "empty": (X[:0], Y[:0], ValueError, "there is no example"),
    "label too large": (
        X,
        np.where(Y == 1, 4, Y),
        ValueError,
        r"y: 2 labels are outside the classes 0 .. 3.*index 1 \(4",
    ),
    "label negative": (X, np.where(Y == 2, -1, Y), ValueError, "y: 2 labels are outside the classes"),
    "NaN": (nan_at(5), Y, ValueError, "x: 1 examples hold NaN or infinity, the first at index 5"),
    "infinity": (np.where(np.isnan(nan_at(6)), np.inf, X).astype(np.float32), Y, ValueError, "first at index 6"),
    "NaN in a sequence": (np.stack([X, nan_at(3), X]), Y, ValueError, "first at index 3"),
}
each_bad_batch = pytest.mark.parametrize(("x", "y", "error", "match"), bad_batches.values(), ids=bad_batches.keys())
by_shape_or_dtype = [name for name in bad_batches if not name.startswith(("label ", "NaN", "infinity"))]


@each_bad_batch
def test_training_refuses_a_bad_batch(state, x, y, error, match):
    with pytest.raises(error, match=match):
        STEP(state, x, y)


@each_bad_batch
def test_evaluation_refuses_a_bad_batch(state, x, y, error, match):
    with pytest.raises(error, match=match):
        EVALUATE(state, x, y)


@pytest.mark.parametrize("name", by_shape_or_dtype)
def test_shapes_and_dtypes_are_refused_under_a_trace_too(state, name):
    x, y, error, match = bad_batches[name]
    with pytest.raises(error, match=match):
        jax.eval_shape(STEP, state, *(jax.ShapeDtypeStruct(leaf.shape, jnp.result_type(leaf)) for leaf in (x, y)))


@pytest.mark.parametrize("num_steps", [0, -1])
def test_less_than_one_time_step(state, num_steps):
    for make in (lambda t: bsojax.make_train_step(MODEL, TX, t), lambda t: bsojax.make_eval_step(MODEL, t)):
        with pytest.raises(ValueError, match="num_steps: a sequence has at least 1"):
            make(num_steps)
    with pytest.raises(ValueError, match="num_steps: a sequence has at least 1"):
        bsojax.refresh_statistics(MODEL, state, [X], num_steps)


def test_a_t_bso_of_fewer_time_steps_than_the_loop(state):
    tx = bsojax.split_optimizer(bsojax.t_bso(0.1, T - 1), optax.sgd(0.1))
    step = bsojax.make_train_step(MODEL, tx, T)
    with pytest.raises(ValueError, match="time_step: 2 is outside 0 .. 1; t_bso was made with num_steps=2"):
        step(bsojax.init(MODEL, tx, jax.random.key(0), X), X, Y)


def test_norms_of_fewer_time_steps_than_the_loop():
    norm = bsojax.BatchNorm(num_steps=T)
    variables = norm.init(jax.random.key(0), jnp.ones((2, 3)), True, 0)
    with pytest.raises(ValueError, match="time_step: 3 is outside 0 .. 2"):
        norm.apply(variables, jnp.ones((2, 3)), False, 3)
    with pytest.raises(ValueError, match="time_step: BatchNorm .* keeps statistics for each of 3 time steps"):
        norm.apply(variables, jnp.ones((2, 3)), False)


def test_a_model_without_a_binary_layer():
    class Real(nn.Module):
        @nn.compact
        def __call__(self, x):
            return bsojax.Dense(4)(bsojax.flatten(bsojax.LIF()(x)))

    with pytest.raises(ValueError, match="signs: the tree has no leaf to flip.*BinaryDense"):
        bsojax.init(Real(), TX, jax.random.key(0), X)


def test_a_model_with_state_that_nobody_carries():
    class Caching(nn.Module):
        @nn.compact
        def __call__(self, x):
            self.variable("cache", "last", jnp.zeros, ())
            return bsojax.BinaryDense(4)(bsojax.flatten(x))

    with pytest.raises(ValueError, match=r"model: it keeps state in \['cache'\]"):
        bsojax.init(Caching(), TX, jax.random.key(0), X)


def test_a_model_that_returns_no_logits():
    class Spiking(nn.Module):
        @nn.compact
        def __call__(self, x):
            return bsojax.LIF()(bsojax.BinaryDense(4)(bsojax.flatten(x)))

    state = bsojax.init(Spiking(), TX, jax.random.key(0), X)
    for step in (bsojax.make_train_step(Spiking(), TX, T), bsojax.make_eval_step(Spiking(), T)):
        with pytest.raises(ValueError, match=r"model: it must return logits of shape \(batch, classes\)"):
            step(state, X, Y)


@pytest.mark.parametrize(
    ("x", "error", "match"),
    [
        (np.zeros((4, 4), np.int32), TypeError, "x: needs a floating dtype, not int32"),
        (np.zeros((0, 4), np.float32), ValueError, "x: needs a batch of at least one example"),
        (np.float32(1), ValueError, "x: needs a batch of at least one example"),
    ],
)
def test_an_initial_batch_that_is_none(x, error, match):
    with pytest.raises(error, match=match):
        bsojax.init(MODEL, TX, jax.random.key(0), x)


def test_an_optimizer_that_breaks_the_deltas(state):
    scaled = optax.partition(
        {"signs": optax.chain(bsojax.bso(0.1), optax.scale(0.1)), "params": optax.sgd(0.1)},
        {"signs": "signs", "params": "params"},
    )
    step = bsojax.make_train_step(MODEL, scaled, T)
    with pytest.raises(TypeError, match="sign leaf 'signs/dense_1/kernel' got a float32 update.*last transform"):
        step(bsojax.init(MODEL, scaled, jax.random.key(0), X), X, Y)


@pytest.mark.parametrize(
    ("x", "y", "error", "match"),
    [
        (X, Y[:5], ValueError, r"test x, test y: \(8,\) examples but \(5,\) labels"),
        (X, Y + 1, ValueError, "test y: 2 labels are outside the classes 0 .. 3, the first at index 3"),
        (nan_at(2), Y, ValueError, "test x: 1 examples hold NaN.*index 2"),
        (X[:0], Y[:0], ValueError, "there is no example"),
    ],
)
def test_a_bad_data_set(x, y, error, match):
    bsojax.check_data(X, Y, 4)
    with pytest.raises(error, match=match):
        bsojax.check_data(x, y, 4, name="test ")


def test_a_loss_weight_out_of_range():
    with pytest.raises(ValueError, match="mse_weight: must be in"):
        bsojax.cross_entropy_mse(1.5)
