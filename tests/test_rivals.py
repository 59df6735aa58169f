"""The rivals: latent weights are what their sign says, and backpropagation through time is the released code's."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_golden_online import channels_last, close, each_file, initial, network, read

import bsojax
from experiments.rivals import ThroughTimeLIF, latent_weights, make_bptt_step

shapes = st.sampled_from([(3,), (4, 5), (3, 3, 2, 4)])


@given(shape=shapes, seed=st.integers(0, 2**16), rate=st.sampled_from([0.01, 0.3, 3.0]))
def test_signs_are_those_of_the_latent_weights_that_the_inner_optimizer_moves(shape, seed, rate):
    rng = np.random.default_rng(seed)
    signs = {"kernel": jnp.asarray(rng.random(shape) < 0.5)}
    tx = latent_weights(optax.sgd(rate), seed=seed)
    state = tx.init(signs)
    expected = np.asarray(state.latent["kernel"])
    np.testing.assert_array_equal(expected >= 0, signs["kernel"])
    for _ in range(3):
        grads = {"kernel": jnp.asarray(rng.standard_normal(shape), jnp.float32)}
        updates, state = tx.update(grads, state, signs)
        signs = bsojax.apply_updates(signs, updates)
        expected = np.clip(expected - rate * np.asarray(grads["kernel"]), -1, 1)
        np.testing.assert_allclose(state.latent["kernel"], expected, rtol=1e-6, atol=1e-7)
        np.testing.assert_array_equal(signs["kernel"], np.asarray(state.latent["kernel"]) >= 0)


def test_latent_weights_start_small_and_differently_for_each_seed():
    signs = {"kernel": jnp.ones((3, 3, 16, 8), bool)}
    first, second = (latent_weights(optax.adam(0.1), seed=seed).init(signs).latent["kernel"] for seed in (0, 1))
    assert 0 <= first.min() < first.max() < 1 / 12
    assert not np.array_equal(first, second)


def test_latent_weights_refuse_what_they_cannot_work_with():
    with pytest.raises(ValueError, match="clip: must be > 0"):
        latent_weights(optax.sgd(1.0), clip=0.0)
    tx = latent_weights(optax.sgd(1.0))
    signs = {"kernel": jnp.ones((2, 2), bool)}
    with pytest.raises(ValueError, match="params: latent_weights needs the current signs"):
        tx.update({"kernel": jnp.ones((2, 2))}, tx.init(signs))


class Recorded(NamedTuple):
    grads: optax.Updates


def recorder(update):
    """An optimizer that keeps the gradient in its state and changes nothing."""
    init = lambda params: Recorded(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), params))  # noqa: E731
    still = lambda grads, params: jax.tree.map(update, grads, params)  # noqa: E731
    return optax.GradientTransformationExtraArgs(init, lambda g, s, p=None, **_: (still(g, p), Recorded(g)))


@each_file
def test_gradients_through_time_are_those_of_the_golden_files(path):
    golden = np.load(path)
    model = network(golden, bsojax.ottt)
    alpha, tau = float(golden["alpha"]), float(golden["tau"])
    model = model.clone(neuron=functools.partial(ThroughTimeLIF, tau=tau, surrogate=bsojax.sigmoid(alpha)))
    frames = jnp.asarray(channels_last(golden["x"]))
    y = jnp.asarray(golden["y"], jnp.int32)
    trainable, stats = initial(golden)
    tx = bsojax.split_optimizer(
        recorder(lambda g, p: jnp.zeros(p.shape, jnp.int8)), recorder(lambda g, p: jnp.zeros_like(p))
    )
    state = bsojax.TrainState(
        **trainable,
        batch_stats=stats,
        opt_state=tx.init(trainable),
        step=jnp.zeros((), jnp.int32),
        skipped=jnp.zeros((), jnp.int32),
        input_shape=frames.shape[2:],
    )
    loss = bsojax.cross_entropy_mse(float(golden["loss_lambda"]))
    state, metrics = make_bptt_step(model, tx, len(frames), loss=loss)(state, frames, y)
    kept = state.opt_state._asdict()
    grads = {name: recorded.grads for name, recorded in kept.items() if jax.tree.leaves(recorded.grads)}
    exact = read(golden, "bptt/grad/")
    scale = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(exact))
    close(grads, {name: exact[name] for name in grads}, atol=1e-6 * scale)
    assert set(grads) == {"signs", "params"}
    assert int(metrics["skipped"]) == 0


def test_a_step_through_time_skips_what_is_not_finite_and_learns_from_what_is():
    model = bsojax.models.SpikingMLP(features=(16, 16), num_classes=2, neuron=ThroughTimeLIF)
    tx = bsojax.split_optimizer(latent_weights(optax.adam(0.01)), optax.sgd(0.1))
    x = jnp.asarray(np.random.default_rng(0).random((32, 6)), jnp.float32)
    y = (x[:, 0] > x[:, 1]).astype(jnp.int32)
    state = bsojax.init(model, tx, jax.random.key(0), x)
    step = make_bptt_step(model, tx, 3)
    before = jax.tree.map(np.asarray, state.trainable)
    state, metrics = step(state, x.at[0, 0].set(jnp.nan), y)
    assert int(metrics["skipped"]) == int(state.skipped) == 1
    jax.tree.map(np.testing.assert_array_equal, before, state.trainable)
    losses = []
    for _ in range(40):
        state, metrics = step(state, x, y)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.5 * losses[0]
    assert metrics["accuracy"] > 0.9
