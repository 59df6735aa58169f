"""The hand-written gradients of norm and neurons against those that automatic differentiation finds of plain ones."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from fast_and_slow import often
from hypothesis import given, settings
from hypothesis import strategies as st

import bsojax
from benchmarks.plain import PlainBatchNorm, PlainLIF
from bsojax.nn import NEURONS

shapes = st.sampled_from([(7, 3), (32, 1), (4, 3, 5, 2), (2, 6, 6, 8)])


@functools.partial(jax.jit, static_argnums=0)
def output_and_gradients(norm, x, scale, bias, g):
    running = {"mean": jnp.zeros_like(scale), "var": jnp.ones_like(scale)}

    def weighed(x, params):
        out, changed = norm.apply({"params": params, "batch_stats": running}, x, True, mutable=["batch_stats"])
        return jnp.sum(g * out), (out, changed)

    (_, aux), grads = jax.value_and_grad(weighed, (0, 1), has_aux=True)(x, {"scale": scale, "bias": bias})
    return aux, grads


@given(
    shape=shapes,
    seed=st.integers(0, 2**16),
    centre=st.sampled_from([0.0, 1.0, -20.0]),
    spread=st.sampled_from([0.3, 1.0, 15.0]),
    zeros=st.booleans(),
)
def test_the_norms_gradient_is_that_of_the_plain_norm(shape, seed, centre, spread, zeros):
    rng = np.random.default_rng(seed)
    x = jnp.asarray(rng.normal(centre, spread, shape), jnp.float32)
    g = jnp.asarray(rng.standard_normal(shape), jnp.float32)
    scale = jnp.asarray(rng.normal(1, 1, shape[-1]), jnp.float32)
    scale = scale.at[0].set(0.0) if zeros else scale  # a channel whose output says nothing of its input
    bias = jnp.asarray(rng.standard_normal(shape[-1]), jnp.float32)
    ours = output_and_gradients(bsojax.BatchNorm(), x, scale, bias, g)
    plain = output_and_gradients(PlainBatchNorm(), x, scale, bias, g)
    # Rounding of x itself, as seen by the norm, is 1e-7 of centre over spread.
    rounding = 1e-5 * (1 + abs(centre) / spread)
    for (path, one), other in zip(jax.tree_util.tree_leaves_with_path(ours), jax.tree.leaves(plain), strict=True):
        size = np.abs(other).max() + np.abs(np.asarray(scale)).max() / spread
        np.testing.assert_allclose(one, other, rtol=rounding, atol=rounding * size, err_msg=str(path))


@settings(max_examples=6)  # each one compiles
@given(
    shape=shapes,
    seed=st.integers(0, 2**16),
    v_reset=st.sampled_from([None, 0.0, -0.3]),
    surrogate=st.sampled_from([bsojax.sigmoid(4.0), bsojax.atan(2.0), bsojax.piecewise_quadratic(1.0)]),
)
def test_the_neurons_gradient_is_the_surrogates_own(shape, seed, v_reset, surrogate):
    rng = np.random.default_rng(seed)
    current, membrane, trace, g = (jnp.asarray(rng.standard_normal(shape) * 1.5, jnp.float32) for _ in range(4))
    state = {NEURONS: {"membrane": membrane, "trace": trace}}
    results = []
    for kind in (bsojax.LIF, PlainLIF):
        neuron = kind(tau=3.0, v_reset=v_reset, surrogate=surrogate)

        def weighed(current, neuron=neuron):
            spikes, changed = neuron.apply(state, current, mutable=[NEURONS])
            # The membrane and the trace have no gradient: nothing flows through time, nor around the surrogate.
            others = jnp.sum(changed[NEURONS]["membrane"]) + jnp.sum(spikes.trace)
            return jnp.sum(g * spikes.value) + others, (spikes, changed)

        results.append(jax.value_and_grad(weighed, has_aux=True)(current))
    for one, other in zip(jax.tree.leaves(results[0]), jax.tree.leaves(results[1]), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5 * max(1, np.abs(other).max()))


def sequence_gradients(norm, neuron, model, x, y, num_steps):
    """The gradients of every leaf, accumulated over a sequence: what the training step gives its optimizer."""

    def keep(updates, state, params=None, **extra_args):
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.int8), updates), updates

    flip = optax.GradientTransformationExtraArgs(
        lambda params: jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), params), keep
    )

    def keep_real(updates, state, params=None, **extra_args):
        return jax.tree.map(jnp.zeros_like, updates), updates

    real = optax.GradientTransformationExtraArgs(lambda params: jax.tree.map(jnp.zeros_like, params), keep_real)
    tx = bsojax.split_optimizer(flip=flip, real=real)
    net = model(norm=norm, neuron=neuron)
    state = bsojax.init(net, tx, jax.random.key(3), x)
    step = bsojax.make_train_step(net, tx, num_steps, accumulate=True)
    state, metrics = step(state, x, y)
    return jax.tree.leaves(state.opt_state), metrics


@pytest.mark.parametrize("v_reset", often({"soft": None, "hard": 0.0}, "hard"))
def test_a_network_of_both_has_the_gradients_of_the_plain_network(v_reset):
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.random((8, 8, 8, 2)), jnp.float32)
    y = jnp.arange(8) % 10
    model = functools.partial(bsojax.models.SpikingVGG, channels=(8, 16, "M", 16))
    ours = sequence_gradients(
        functools.partial(bsojax.BatchNorm, num_steps=3), functools.partial(bsojax.LIF, v_reset=v_reset), model, x, y, 3
    )
    plain = sequence_gradients(
        functools.partial(PlainBatchNorm, num_steps=3), functools.partial(PlainLIF, v_reset=v_reset), model, x, y, 3
    )
    # A bias before a norm has the gradient zero, and a rounding error of the size of the others'.
    size = max(np.abs(leaf).max() for leaf in plain[0])
    assert size > 1e-3
    for one, other in zip(ours[0], plain[0], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5 * size)
    for one, other in zip(jax.tree.leaves(ours[1]), jax.tree.leaves(plain[1]), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_neuron_of_ones_own_keeps_its_state_under_its_own_name():
    class Mine(bsojax.LIF):
        """A class derived from LIF, which may look at its membrane after the reset."""

    model = bsojax.models.SpikingMLP(features=(8, 8), num_classes=3, neuron=Mine)
    other = bsojax.models.SpikingMLP(features=(8, 8), num_classes=3)
    x, y = jnp.asarray(np.random.default_rng(0).random((6, 5)), jnp.float32), jnp.arange(6) % 3
    tx = bsojax.split_optimizer(bsojax.t_bso(0.01, 4, 0.9, 0.99), optax.sgd(0.1))
    states = []
    for net in (model, other):
        state = bsojax.init(net, tx, jax.random.key(0), x)
        step = bsojax.make_train_step(net, tx, 4)
        for _ in range(3):
            state, _ = step(state, x, y)
        states.append(dataclasses.replace(state, opt_state=None))
    # Held before or after the reset, a membrane is the same but for the order of two roundings.
    for one, two in zip(jax.tree.leaves(states[0]), jax.tree.leaves(states[1]), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)
