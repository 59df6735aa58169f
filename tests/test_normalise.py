"""Gradients of one size a channel: scale-free, finite over the whole range, and honest about what is not finite."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bsojax

shapes = st.sampled_from([(), (7,), (5, 3), (3, 3, 2, 4), (1, 1)])


def scaled(tree):
    tx = bsojax.scale_by_channel_rms()
    return tx.update(tree, tx.init(tree))[0]


@given(shape=shapes, seed=st.integers(0, 999), powers=st.lists(st.integers(-110, 110), min_size=4, max_size=4))
def test_every_channel_gets_root_mean_square_one_whatever_its_scale(shape, seed, powers):
    gradient = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    factors = 2.0 ** np.array(powers[: shape[-1]] if len(shape) > 1 else powers[0], np.float32)
    out, same = (
        np.asarray(scaled({"w": jnp.asarray(g)})["w"]) for g in (gradient, gradient * factors.astype(np.float32))
    )
    axes = tuple(range(len(shape) - 1)) if len(shape) > 1 else None
    expected = gradient / np.sqrt(np.mean(np.square(gradient), axes, keepdims=True))
    np.testing.assert_allclose(out, expected, rtol=1e-5)
    np.testing.assert_allclose(same, out, rtol=1e-5)


def test_zero_and_empty_gradients_stay_as_they_are():
    gradient = jnp.array([[0.0, 3.0], [0.0, -3.0]])
    np.testing.assert_array_equal(scaled({"w": gradient})["w"], [[0, 1], [0, -1]])
    assert scaled({"w": jnp.zeros((0, 4))})["w"].shape == (0, 4)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_reaches_the_flip_optimizer_which_skips_it(bad):
    signs = {"w": jnp.ones((4, 2), bool)}
    tx = optax.chain(bsojax.scale_by_channel_rms(), bsojax.bso(0.0, 0.5))
    state = tx.init(signs)
    deltas, state = tx.update({"w": jnp.ones((4, 2)).at[1, 1].set(bad)}, state, signs)
    assert not np.any(deltas["w"])
    assert int(state[1].skipped) == 1
    np.testing.assert_array_equal(state[1].momentum["w"], 0)


def test_dtype_is_kept_and_time_steps_reach_what_follows():
    assert scaled({"w": jnp.ones((3, 2), jnp.bfloat16)})["w"].dtype == jnp.bfloat16
    signs = {"w": jnp.ones((3, 2), bool)}
    tx = optax.chain(bsojax.scale_by_channel_rms(), bsojax.t_bso(0.1, num_steps=3))
    _, state = jax.jit(tx.update, static_argnames="time_step")(
        {"w": jnp.ones((3, 2))}, tx.init(signs), signs, time_step=2
    )
    np.testing.assert_array_equal(state[1].second_moment["w"] > 0, [False, False, True])
