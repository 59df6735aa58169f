"""Encoders: spikes mean what their values say, whatever the dtype and however many devices draw them."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import bsojax
from bsojax import encoders

KEY = jax.random.key(7)
unit = st.floats(0, 1, width=32)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_rate_is_the_share_of_time_steps_with_a_spike(dtype):
    x = jnp.asarray([[0.0, 0.1, 0.5], [0.9, 0.99609375, 1.0]], dtype)
    spikes = encoders.rate(KEY, x, 20_000)
    assert (spikes.shape, spikes.dtype) == ((20_000, 2, 3), x.dtype)
    spikes, p = np.asarray(spikes, np.float64), np.asarray(x, np.float64)
    assert set(np.unique(spikes)) == {0, 1}
    # five standard deviations; values of 0 and 1 have none
    assert np.all(np.abs(spikes.mean(0) - p) <= 5 * np.sqrt(p * (1 - p) / 20_000))
    pairs = np.mean(spikes[1:] * spikes[:-1], 0)  # neighbours in time know nothing of each other
    assert np.all(np.abs(pairs - p**2) <= 5 * np.sqrt(p**2 * (1 - p**2) / 6_000) + 1e-12)


def test_a_time_step_of_a_rate_is_rate_step_with_the_key_folded():
    x = jnp.linspace(0, 1, 24).reshape(4, 6)
    spikes = encoders.rate(KEY, x, 5)
    for t in range(5):
        np.testing.assert_array_equal(spikes[t], encoders.rate_step(jax.random.fold_in(KEY, t), x))
    np.testing.assert_array_equal(spikes, encoders.rate(KEY, np.asarray(x), 5))
    assert not np.array_equal(spikes, encoders.rate(jax.random.key(8), x, 5))


@pytest.mark.parametrize("devices", [1, 2, 8])
def test_the_draws_of_an_example_do_not_depend_on_the_devices_that_share_the_batch(devices):
    x = np.random.default_rng(0).random((16, 5), np.float32)
    mesh = bsojax.data_mesh(jax.devices()[:devices])
    shared = jax.device_put(x, NamedSharding(mesh, P("batch")))
    found = jax.jit(encoders.rate, static_argnums=2)(jax.device_put(KEY, NamedSharding(mesh, P())), shared, 6)
    np.testing.assert_array_equal(found, encoders.rate(KEY, x, 6))


def test_a_rate_step_in_a_model_draws_anew_at_each_time_step():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return bsojax.BinaryDense(3)(encoders.rate_step(self.make_rng("encoder"), x))

    x = np.full((4, 50), 0.5, np.float32)
    state = bsojax.init(Net(), optax.sgd(0.1), KEY, x)
    answers = bsojax.predict(Net(), state, x, num_steps=3, per_step=True, rngs=KEY)
    again = bsojax.predict(Net(), state, x, num_steps=3, per_step=True, rngs=KEY)
    np.testing.assert_array_equal(answers, again)
    assert len({answers[t].tobytes() for t in range(3)} | {answers[:, i].tobytes() for i in range(4)}) == 7


def spike_time(x, num_steps, delay):
    """The obvious version: the time step of a value's spike, or None."""
    if not 0 < x <= 1 or not 0 <= (share := delay(x)) <= 1:
        return None
    return min(int(np.float32(share) * np.float32(num_steps)), num_steps - 1)


def by_charging(x, threshold, tau):
    x = float(x)
    return tau * math.log(x * (1 - threshold) / (x - threshold)) if x > threshold else math.inf


delays = {
    "linear": (encoders.linear, lambda x: np.float32(1) - np.float32(x)),
    "charging": (encoders.charging(), functools.partial(by_charging, threshold=0.2, tau=0.5)),
    "low": (encoders.charging(0.05, 1.0), functools.partial(by_charging, threshold=0.05, tau=1.0)),
}
each_delay = pytest.mark.parametrize(("delay", "slow"), delays.values(), ids=delays.keys())


@each_delay
@settings(max_examples=8)  # each one compiles
@given(values=st.lists(unit, min_size=1, max_size=20), num_steps=st.integers(1, 12))
def test_a_value_spikes_once_at_the_time_that_its_delay_says(delay, slow, values, num_steps):
    x = np.asarray(values, np.float32)
    spikes = np.asarray(encoders.latency(x, num_steps, delay))
    assert spikes.shape == (num_steps, len(x))
    for value, column in zip(x, spikes.T, strict=True):
        share = slow(value) if value > 0 else math.inf
        if abs(share * num_steps - round(share * num_steps) if share < 2 else 1) < 1e-4 * num_steps:
            continue  # at the edge of two parts, where rounding decides
        expected = np.zeros(num_steps)
        if (time := spike_time(value, num_steps, slow)) is not None:
            expected[time] = 1
        np.testing.assert_array_equal(column, expected)


@each_delay
def test_larger_values_spike_no_later_and_zero_never(delay, slow):
    x = np.linspace(0, 1, 1001, dtype=np.float32)
    spikes = np.asarray(encoders.latency(x, 9, delay))
    assert spikes[:, 0].sum() == 0
    assert spikes[:, -1].tolist() == [1] + [0] * 8
    times = spikes.argmax(0)[spikes.sum(0) > 0]
    assert np.all(np.diff(times) <= 0)
    assert set(times) == set(range(9))
    if delay is encoders.linear:
        assert np.all(spikes.sum(0)[1:] == 1)


def test_latency_keeps_shape_and_dtype():
    x = jnp.ones((2, 3, 4), jnp.bfloat16)
    spikes = jax.jit(encoders.latency, static_argnums=1)(x, 5)
    assert (spikes.shape, spikes.dtype) == ((5, 2, 3, 4), jnp.bfloat16)


def test_what_is_not_seen_before_a_program_runs_is_clipped_or_silent():
    x = jnp.array([-0.5, 1.5, jnp.nan])
    np.testing.assert_array_equal(encoders.rate(KEY, x, 50).mean(0), [0, 1, 0])
    np.testing.assert_array_equal(encoders.latency(x, 4).sum(0), [0, 0, 0])


@given(st.lists(st.lists(st.floats(-3, 3, width=32), min_size=2, max_size=2), min_size=1, max_size=4))
def test_a_population_is_gaussians_around_centres(values):
    x = np.asarray(values, np.float32)
    centres = np.array([[-1.0, 0.0, 2.0], [0.0, 1.0, 2.0]])
    found = encoders.population(x, centres)
    expected = np.empty((len(x), 2, 3))
    for example in range(len(x)):
        for feature in range(2):
            width = (centres[feature, -1] - centres[feature, 0]) / 2 / 1.5
            expected[example, feature] = np.exp(-((x[example, feature] - centres[feature]) ** 2) / (2 * width**2))
    np.testing.assert_allclose(found, expected.reshape(len(x), 6), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(encoders.population(x, centres, [[1.0], [2 / 3]]), found, rtol=1e-5, atol=1e-7)


def test_a_population_is_what_rate_and_latency_take():
    x = jnp.array([[[0.2], [0.8]]], jnp.bfloat16)
    answers = encoders.population(x, jnp.linspace(0, 1, 5))
    assert (answers.shape, answers.dtype) == ((1, 2, 5), jnp.bfloat16)
    assert answers.argmax(-1).tolist() == [[1, 3]]
    assert encoders.latency(answers, 6)[0].argmax(-1).tolist() == [[1, 3]]
    assert encoders.rate(KEY, answers, 6).shape == (6, 1, 2, 5)


@pytest.mark.parametrize("encode", [functools.partial(encoders.rate, KEY, num_steps=2),
                                    functools.partial(encoders.rate_step, KEY),
                                    functools.partial(encoders.latency, num_steps=2)])  # fmt: skip
def test_unscaled_inputs_are_refused(encode):
    with pytest.raises(TypeError, match="needs a floating input, not uint8"):
        encode(x=np.arange(3, dtype=np.uint8))
    with pytest.raises(ValueError, match=r"values in \[0, 1\], and 2 of 3 are outside, the first of them 2"):
        encode(x=np.array([0.5, 2.0, np.nan]))


def test_settings_without_meaning_are_refused():
    with pytest.raises(ValueError, match=r"threshold: must be in \(0, 1\)"):
        encoders.charging(1.0)
    with pytest.raises(ValueError, match=r"tau: must be in \(0, inf\)"):
        encoders.charging(tau=0)
    with pytest.raises(ValueError, match="width: a single centre"):
        encoders.population(np.zeros((1, 1)), [0.5])
    with pytest.raises(ValueError, match="width: must be positive"):
        encoders.population(np.zeros((1, 1)), [0.5], 0)
    with pytest.raises(TypeError, match="population needs a floating input"):
        encoders.population(np.zeros((1, 1), int), [0.5, 1])
    with pytest.raises(ValueError, match="at least 1 time step"):
        encoders.rate(KEY, 0.5, 0)
