"""The recipes and their schedules refuse settings with which they would silently learn nothing, or the opposite."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import bsojax
from bsojax.optim import window_schedule

T = 4
CALIBRATED = [
    ({"b1": 1.5}, "b1: must be in"),
    ({"b1": 1.0}, "b1: must be in"),
    ({"b1": -3.0}, "b1: must be in"),
    ({"b1": float("nan")}, "b1: must be in"),
    ({"growth": -1.0}, "growth: must be in"),
    ({"c": -1.0}, "c: must be in"),
    ({"deploy_c": -1.0}, "deploy_c: must be in"),
    ({"total_updates": 0}, "total_updates: must be at least 1, got 0; it is the number of batches"),
    ({"total_updates": -5, "anneal": optax.constant_schedule(1.0)}, "total_updates: must be at least 1"),
]
COUNTERS = [
    ({"rho": -1.0}, "rho: must be in"),
    ({"max_step": -1.0}, "max_step: must be in"),
    ({"growth": -0.5}, "growth: must be in"),
    ({"deploy_c": -1.0}, "deploy_c: must be in"),
    ({"bits": 9}, "bits: must be in"),
    ({"total_updates": 0}, "total_updates: must be at least 1, got 0"),
]


@pytest.mark.parametrize(("settings", "match"), CALIBRATED)
def test_settings_of_calibrated_out_of_range_are_refused_by_name(settings, match):
    with pytest.raises(ValueError, match=match):
        bsojax.calibrated(T, **settings)


@pytest.mark.parametrize(("settings", "match"), COUNTERS)
def test_settings_of_counters_out_of_range_are_refused_by_name(settings, match):
    with pytest.raises(ValueError, match=match):
        bsojax.calibrated_counter(**settings)


def test_settings_at_the_ends_of_their_ranges_are_taken():
    signs, grads = {"kernel": jnp.ones((3, 2), bool)}, {"kernel": jnp.ones((3, 2))}
    for tx in (
        bsojax.calibrated(T, 1, b1=0.0, growth=0.0, deploy_c=0.0),
        bsojax.calibrated_counter(1, growth=0.0, rho=0.0, max_step=0.0, deploy_c=0.0),
    ):
        updates, _ = tx.update(grads, tx.init(signs), signs)
        assert updates["kernel"].dtype == jnp.int8


def test_the_window_grows_by_growth_and_ends_infinite():
    b1_at = window_schedule(0.9, 0.5, 100)
    counts = jnp.arange(101)
    windows = 10 + 0.5 * np.arange(101)
    shares = np.asarray(1 - jax.vmap(b1_at)(counts))
    np.testing.assert_allclose(shares * windows, 0.5 * (1 + np.cos(np.pi * np.arange(101) / 100)), atol=1e-5)
    assert shares[-1] == 0
