"""Dropout for sequences: one mask for all time steps of a batch, on spikes and traces alike."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.errors import InvalidRngError

import bsojax

KEY = jax.random.key(3)


def dropped(x, rate=0.25, key=KEY, **options):
    return bsojax.SpikingDropout(rate).apply({}, x, rngs={"sequence": key}, **options)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_share_is_silent_and_the_rest_scaled_so_that_the_mean_stays(dtype):
    out = dropped(jnp.ones((200, 500), dtype))
    assert out.dtype == dtype
    values, counts = np.unique(np.asarray(out, np.float32), return_counts=True)
    np.testing.assert_allclose(values, [0, 4 / 3], rtol=4e-3)
    np.testing.assert_allclose(counts[0] / 100_000, 0.25, atol=5 * np.sqrt(0.25 * 0.75 / 100_000))


def test_value_and_trace_are_silenced_alike():
    spikes = bsojax.Spikes(jnp.ones((4, 50)), jnp.full((4, 50), 1.5))
    out = dropped(spikes, 0.5)
    np.testing.assert_array_equal(out.trace, 1.5 * out.value)
    assert set(np.unique(out.value)) == {0, 2}
    assert dropped(bsojax.Spikes(jnp.ones((4, 50))), 0.5).trace is None


def test_one_key_is_one_mask_and_two_layers_have_two():
    x = jnp.ones((3, 40))

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return bsojax.SpikingDropout(0.5)(x), bsojax.SpikingDropout(0.5)(x)

    first, second = Net().apply({}, x, rngs={"sequence": KEY})
    np.testing.assert_array_equal(first, Net().apply({}, x, rngs={"sequence": KEY})[0])
    assert not np.array_equal(first, second)
    assert not np.array_equal(dropped(x), dropped(x, key=jax.random.key(4)))


def test_without_dropout_the_input_is_handed_on_and_no_key_is_needed():
    x = bsojax.Spikes(jnp.ones((2, 3)), jnp.ones((2, 3)))
    assert bsojax.SpikingDropout(0.5).apply({}, x, deterministic=True) is x
    assert bsojax.SpikingDropout(0.0).apply({}, x) is x
    with pytest.raises(InvalidRngError, match="sequence"):
        bsojax.SpikingDropout(0.5).apply({}, x)


@pytest.mark.parametrize("rate", [-0.1, 1.0, 20])
def test_a_rate_outside_0_to_1_is_refused(rate):
    with pytest.raises(ValueError, match=r"rate: must be in \[0, 1\)"):
        dropped(jnp.ones((2, 2)), rate)


def test_a_training_step_keeps_the_mask_over_its_time_steps_and_draws_another_for_the_next_batch():
    masks = []

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            x = bsojax.SpikingDropout(0.5)(x, deterministic=not train)
            if train and not self.is_initializing():
                jax.debug.callback(lambda mask: masks.append(np.asarray(mask) > 0), x, ordered=True)
            return bsojax.BinaryDense(3)(x)

    x, y = np.ones((4, 6), np.float32), np.array([0, 1, 2, 0])
    tx = bsojax.split_optimizer(bsojax.bso(1e-3, b1=0.9), optax.sgd(0.1))
    state = bsojax.init(Net(), tx, KEY, x)
    step = bsojax.make_train_step(Net(), tx, 3)
    for _ in range(2):
        state, _ = step(state, x, y, rngs=KEY)
    jax.effects_barrier()
    assert len(masks) == 6
    for batch in (masks[:3], masks[3:]):
        np.testing.assert_array_equal(batch[1], batch[0])
        np.testing.assert_array_equal(batch[2], batch[0])
    assert not np.array_equal(masks[0], masks[3])
