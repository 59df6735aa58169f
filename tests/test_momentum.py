"""The momentum at rest: float32 as ever; in fewer bits unbiased, with a bounded error."""

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from momenta import (
    INTEGERS,
    draw_gradients,
    draw_signs,
    each_dtype,
    each_integer,
    each_rounded,
    equal,
    follower,
    to_float,
)

import bsojax

# float32


@pytest.mark.parametrize("reset", [False, True])
def test_float32_has_the_bits_of_the_formula(reset):
    # Half of a number is exact: whatever the compiler fuses, the sum of two halves is rounded once.
    b1, gamma = 0.5, 0.3

    @jax.jit
    def reference(w, m, g):
        keep = jnp.isfinite(g).all()
        m = jnp.where(keep, b1 * m + (1 - b1) * g, m)
        flips = keep & (jnp.where(w, m, -m) > gamma)
        return w ^ flips, jnp.where(flips, 0, m) if reset else m

    signs, gradients = draw_signs()["a"], draw_gradients(draw_signs(), 12)["a"].at[5, 1, 2].set(jnp.nan)
    tx = bsojax.bso(gamma, b1, reset_on_flip=reset)
    update, state, flips = jax.jit(tx.update), tx.init(signs), 0
    for n in range(12):
        want_signs, want = reference(signs, state.momentum, gradients[n])
        deltas, state = update(gradients[n], state, signs)
        signs, flips = bsojax.apply_updates(signs, deltas), flips + int(jnp.sum(deltas != 0))
        equal((signs, state.momentum), (want_signs, want))
    assert flips > 10
    assert int(state.skipped) == 1


# What is stored


@each_integer
def test_levels_are_squares_with_a_scale_an_output_channel(dtype):
    limit = INTEGERS[dtype]
    values = jnp.array([[0, 1], [-limit, limit], [-2, -1]], dtype)
    momentum = bsojax.IntegerMomentum(values, jnp.array([limit**2, 3.0 * limit**2]))
    np.testing.assert_allclose(momentum.to_float(), [[0, 3], [-(limit**2), 3 * limit**2], [-4, -3]], rtol=1e-6)


@pytest.mark.parametrize(("dtype", "bits"), [("float32", 32), ("bfloat16", 16), ("int16", 16), ("int8", 8)])
def test_bits_a_weight_and_the_memory_report(dtype, bits):
    model = bsojax.models.SpikingVGG(channels=(8, 16, "M", 24))
    tx = bsojax.split_optimizer(bsojax.bso(0.1, momentum_dtype=dtype), optax.sgd(0.1))
    x = jax.ShapeDtypeStruct((4, 8, 8, 1), jnp.float32)
    state = jax.eval_shape(lambda key: bsojax.init(model, tx, key, x), jax.random.key(0))
    weights, channels = 9 * (8 * 16 + 16 * 24), 16 + 24
    arrays = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.dtype == dtype and leaf.ndim == 4]
    assert 8 * sum(leaf.size * leaf.dtype.itemsize for leaf in arrays) / weights == bits
    scales = 4 * channels if dtype in INTEGERS else 0
    assert bsojax.memory_report(state)["momentum"] == weights * bits // 8 + scales


@each_integer
def test_leaves_with_fewer_than_two_axes_have_one_scale(dtype):
    signs = {shape: jnp.ones(shape, bool) for shape in ((), (5,), (5, 4), (2, 3, 4))}
    momentum = bsojax.bso(0.1, momentum_dtype=dtype).init(signs).momentum
    assert [momentum[shape].scale.shape for shape in signs] == [(), (), (4,), (4,)]
    assert all(leaf.values.dtype == dtype and leaf.values.shape == shape for shape, leaf in momentum.items())


# Rounding


def half_levels(dtype):
    """A momentum, a gradient that takes it between two levels, and the distance of those."""
    size = 1024
    values = np.random.default_rng(0).normal(size=size).astype(np.float32)
    values[0] = 8.0  # far above the others, so that the scale stays
    state, gradient = bsojax.bso(math.inf, 0.5, momentum_dtype=dtype).init(jnp.ones(size, bool)), jnp.asarray(values)
    if dtype == "bfloat16":
        return state._replace(momentum=gradient.astype(dtype)), gradient, 2.0**-7 * np.abs(values) + 1e-6
    limit = INTEGERS[dtype]
    stored = np.sign(values) * np.floor(limit * np.sqrt(np.abs(values) / 16))
    momentum = bsojax.IntegerMomentum(jnp.asarray(stored, dtype), jnp.float32(16.0))
    return state._replace(momentum=momentum), gradient, 16 * (2 * np.abs(stored) + 3) / limit**2


@each_rounded
@pytest.mark.parametrize("over", ["seed", "count"])
def test_rounding_is_unbiased_over_weights_seeds_and_time(dtype, over):
    state, gradient, level = half_levels(dtype)
    signs, runs = jnp.ones(gradient.shape, bool), 256

    @jax.jit
    def errors(state, gradient):
        def error(number):
            seed, count = (number, state.count) if over == "seed" else (0, number)
            tx = bsojax.bso(math.inf, 0.5, momentum_dtype=dtype, seed=seed)
            after = tx.update(gradient, state._replace(count=count), signs)[1].momentum
            return to_float(after) - (to_float(state.momentum) + gradient) / 2

        return jax.lax.map(error, jnp.arange(runs))

    off = np.asarray(errors(state, gradient)) / level
    assert np.abs(off).max() <= 1.001, "the error of one rounding is below the distance of two levels"
    assert off.std() > 0.1, "rounding happens at all"
    # Mean errors in standard deviations of what fair coins would give, which are at most half a level each.
    assert abs(off.mean()) < 5 * 0.5 / math.sqrt(off.size)
    assert np.abs(off.mean(axis=1)).max() < 5 * 0.5 / math.sqrt(gradient.size)
    per_weight = np.abs(off.mean(axis=0)).max()
    if over == "seed":
        assert per_weight < 5.5 * 0.5 / math.sqrt(runs)
    else:
        assert per_weight < 8 / runs, "steps of the golden ratio cancel out over time far better than coins"


@each_dtype
def test_a_constant_gradient_arrives_where_it_should(dtype):
    # A plain bfloat16 would stop at half way, where the increment is below half the distance of two numbers.
    updates, b1 = 5000, 0.999
    gradients = jnp.broadcast_to(jnp.array([[1.0, -1.0], [0.25, 0.0]]), (updates, 2, 2))
    history, _ = follower(dtype)(gradients, b1)
    want = (1 - b1**updates) * np.asarray(gradients[0])
    np.testing.assert_allclose(history[-1], want, atol=0.06 if dtype == "int8" else 0.01)
    assert history[-1][1, 1] == 0


def test_a_lone_large_weight_keeps_its_momentum():
    gradients = jnp.zeros((3000, 4096, 1)).at[:, 7].set(1.0)
    history, _ = follower("int8")(gradients, 0.999)
    assert float(history[-1][7, 0]) == pytest.approx(1 - 0.999**3000, abs=0.02)
    assert float(jnp.abs(history[-1]).sum()) == float(history[-1][7, 0])


ERRORS = {"bfloat16": (0.012, 0.037), "int16": (0.0002, 0.0008), "int8": (0.06, 0.19)}


@each_rounded
@pytest.mark.parametrize("place", [0, 1])
def test_noise_of_rounding_is_as_documented(dtype, place):
    window = (100, 1000)[place]
    gradients = np.random.default_rng(3).normal(size=(3 * window, 512, 1)).astype(np.float32)
    got, want = (np.asarray(follower(name)(gradients, 1 - 1 / window)[0])[-1] for name in (dtype, "float32"))
    assert np.sqrt(np.mean((got - want) ** 2) / np.mean(want**2)) == pytest.approx(ERRORS[dtype][place], rel=0.3)


SHAPES = ((), (7,), (5, 4), (2, 2, 3, 6), (0, 3))


@each_integer
@given(
    shape=st.sampled_from(SHAPES),
    power=st.floats(-12, 6),
    b1=st.sampled_from([0.0, 0.5, 0.9, 0.999]),
    seed=st.integers(0, 2**20),
)
def test_the_error_is_bounded_by_the_levels_that_were_crossed(dtype, shape, power, b1, seed):
    rng = np.random.default_rng(seed)
    sizes = 10.0 ** rng.uniform(-3, 0, (12, *shape))  # mixed within a channel, and from one update to the next
    gradients = (10.0**power * rng.normal(size=(12, *shape)) * sizes).astype(np.float32)
    got, state = follower(dtype)(gradients, b1)
    want = np.zeros(shape)
    bound = np.zeros(shape)
    for n in range(12):
        want = b1 * want + (1 - b1) * gradients[n]
        axes = tuple(range(len(shape) - 1)) if len(shape) > 1 else None
        peak = np.max(np.abs(want) + bound, axis=axes, initial=0.0, keepdims=len(shape) > 1)
        # The widest level is 2 / limit of the scale, and the scale at most 4 times the largest momentum.
        bound = b1 * bound + 4 * 2.2 / INTEGERS[dtype] * peak
        assert np.all(np.abs(got[n] - want) <= bound)
    assert np.all(np.isfinite(state.momentum.scale))


@each_rounded
def test_negated_and_scaled_gradients_give_negated_and_scaled_momenta(dtype):
    gradients = np.random.default_rng(4).normal(size=(40, 6, 4)).astype(np.float32)
    turn = np.where(np.random.default_rng(5).random((6, 4)) < 0.5, np.float32(-1), np.float32(1))
    one, other = (follower(dtype)(g, 0.9)[0] for g in (gradients, gradients * turn * 2.0**-9))
    equal(np.asarray(one) * turn * np.float32(2.0**-9), np.asarray(other))


# Scales


@each_integer
@pytest.mark.parametrize("size", [1e-25, 1e-12, 1.0, 1e26])
def test_a_channel_takes_the_scale_of_its_first_gradient(dtype, size):
    gradients = jnp.asarray(np.random.default_rng(6).uniform(-1, 1, (30, 8, 3)) * size, jnp.float32)
    got, state = follower(dtype)(gradients, 0.9)
    want, _ = follower("float32")(gradients, 0.9)
    assert np.all(np.isfinite(state.momentum.scale) & (np.asarray(state.momentum.scale) > 0))
    np.testing.assert_allclose(got / size, want / size, atol=0.06 if dtype == "int8" else 3e-4)
    # From the first update on: nothing is lost until a scale is found.
    np.testing.assert_allclose(got[0] / size, want[0] / size, atol=2e-3)


@each_integer
def test_a_channel_that_is_never_driven_stays_zero_and_harms_nobody(dtype):
    gradients = jnp.asarray(np.random.default_rng(7).normal(size=(50, 8, 3)), jnp.float32).at[:, :, 1].set(0)
    got, state = follower(dtype)(gradients, 0.9)
    assert not jnp.any(got[:, :, 1])
    assert float(state.momentum.scale[1]) == 0
    chex.assert_tree_all_finite(state)
    alone, _ = follower(dtype)(gradients[:, :, :1], 0.9)
    np.testing.assert_allclose(got[:, :, 0], alone[:, :, 0], atol=0.1 if dtype == "int8" else 1e-3)


@each_integer
def test_without_gradient_the_integers_stay_and_the_scale_decays(dtype):
    run, gradients = follower(dtype), jnp.asarray(np.random.default_rng(8).normal(size=(50, 8, 3)), jnp.float32)
    _, state = run(gradients, 0.999)
    _, after = run(jnp.zeros((400, 8, 3)), 0.999, start=state)
    equal(after.momentum.values, state.momentum.values)
    np.testing.assert_allclose(after.momentum.scale, state.momentum.scale * 0.999**400, rtol=1e-4)


@each_integer
def test_scales_follow_gradients_that_shrink_or_grow_at_once(dtype):
    gradients = np.random.default_rng(9).normal(size=(300, 8, 3)).astype(np.float32)
    gradients[100:200] *= 1e-6
    gradients[200:] *= 1e6
    got, want = (np.asarray(follower(name)(gradients, 0.5)[0]) for name in (dtype, "float32"))
    tolerance = 0.06 if dtype == "int8" else 3e-4
    for n, size in ((99, 1.0), (199, 1e-6), (200, 1e6), (299, 1e6)):
        np.testing.assert_allclose(got[n] / size, want[n] / size, atol=tolerance)


def test_a_scale_shrinks_at_once_where_resets_have_emptied_its_channel():
    gradients = np.random.default_rng(12).normal(size=(60, 8, 3)).astype(np.float32) * np.float32(1e-4)
    run = follower("int8")
    _, state = run(np.ones((5, 8, 3), np.float32), 0.999)
    emptied = state._replace(momentum=bsojax.optim.Integers().zero_where(jnp.ones((8, 3), bool), state.momentum))
    got, want = run(gradients, 0.999, start=emptied)[0][-1], follower("float32")(gradients, 0.999)[0][-1]
    # The decay alone would take thousands of updates to bring the levels down to these gradients.
    assert float(jnp.std(got - want)) < 0.2 * float(jnp.std(want))


@each_integer
def test_a_momentum_that_decays_away_ends_at_zero_and_starts_again(dtype):
    run = follower(dtype)
    _, state = run(jnp.ones((5, 4, 2)), 0.5)
    _, state = run(jnp.zeros((400, 4, 2)), 0.5, start=state)
    equal(state.momentum, jax.tree.map(jnp.zeros_like, state.momentum))
    history, _ = run(jnp.ones((20, 4, 2)), 0.5, start=state)
    np.testing.assert_allclose(history[-1], 1.0, atol=0.02)


@each_rounded
@pytest.mark.parametrize("b1", [0.0, 0.9])
def test_gradients_at_the_end_of_float32_leave_a_finite_momentum_of_their_sign(dtype, b1):
    largest = float(jnp.finfo(jnp.float32).max)
    gradients = jnp.broadcast_to(jnp.array([largest, -largest, 1.0]), (20, 4, 3))
    history, state = follower(dtype)(gradients, b1)
    chex.assert_tree_all_finite((history, state))
    size = 2.0**90 if dtype in INTEGERS else largest
    want = (1 - b1**20) * np.array([size, -size, 1.0])
    np.testing.assert_allclose(history[-1], np.broadcast_to(want, (4, 3)), rtol=0.06)
    _, state = follower(dtype)(jnp.ones((400, 4, 3)), b1, start=state)
    chex.assert_tree_all_finite(state)


@each_integer
def test_momenta_below_the_range_count_as_zero_and_do_not_stay(dtype):
    history, state = follower(dtype)(jnp.full((20, 4, 2), 1e-30), 0.9)
    assert not jnp.any(history)
    equal(state.momentum, jax.tree.map(jnp.zeros_like, state.momentum))
    history, _ = follower(dtype)(jnp.ones((60, 4, 2)), 0.9, start=state)
    np.testing.assert_allclose(history[-1], 1.0, atol=0.04)
