"""Norms beside BatchNorm: batch renormalisation and the plain affine, against what their definitions say."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from fast_and_slow import often

import bsojax

EPSILON = 1e-5
rng = np.random.default_rng(0)
X = jnp.asarray(rng.normal(3.0, 2.0, (32, 5)), jnp.float32)
RUNNING = {
    "mean": jnp.asarray(rng.normal(2.5, 0.5, 5), jnp.float32),
    "var": jnp.asarray(rng.uniform(3, 5, 5), jnp.float32),
}


def variables(norm):
    params = norm.init(jax.random.key(0), X)["params"]
    params = {"scale": params["scale"] * 1.5, "bias": params["bias"] + 0.25}
    return {"params": params, "batch_stats": RUNNING}


def test_renorms_training_output_is_its_evaluation_with_the_statistics_of_the_moment():
    norm = bsojax.BatchRenorm()
    trained, changed = norm.apply(variables(norm), X, True, mutable=["batch_stats"])
    evaluated = norm.apply(variables(norm) | changed, X, False)
    np.testing.assert_allclose(trained, evaluated, rtol=1e-5, atol=1e-5)
    for key, value in (("mean", X.mean(0)), ("var", X.var(0))):
        np.testing.assert_allclose(changed["batch_stats"][key], 0.9 * RUNNING[key] + 0.1 * value, rtol=1e-5)


def test_renorms_gradient_is_batch_norms_scaled_by_the_ratio_of_deviations():
    weights = jnp.asarray(rng.standard_normal(X.shape), jnp.float32)

    def gradient(norm):
        def loss(x):
            return jnp.sum(weights * norm.apply(variables(norm), x, True, mutable=["batch_stats"])[0])

        return jax.grad(loss)(X)

    running = 0.9 * RUNNING["var"] + 0.1 * X.var(0)
    ratio = jnp.sqrt((X.var(0) + EPSILON) / (running + EPSILON))
    expected = gradient(bsojax.BatchNorm()) * ratio.reshape(1, -1)
    np.testing.assert_allclose(gradient(bsojax.BatchRenorm()), expected, rtol=1e-4, atol=1e-5)


def test_the_affine_is_a_gain_and_a_bias_and_keeps_nothing():
    norm = bsojax.Affine()
    state = norm.init(jax.random.key(0), X)
    assert set(state) == {"params"}
    params = {"scale": jnp.arange(5.0), "bias": jnp.ones(5)}
    for train in (False, True):
        out = norm.apply({"params": params}, X.astype(jnp.bfloat16), train, 3)
        assert out.dtype == jnp.bfloat16
        np.testing.assert_allclose(out, np.asarray(X) * np.arange(5.0) + 1, rtol=2e-2, atol=2e-2)


def test_re_estimation_refuses_a_norm_that_trains_on_its_running_statistics():
    x = jnp.asarray(rng.random((16, 6)), jnp.float32)
    tx = bsojax.split_optimizer(bsojax.bso(0.0), optax.sgd(0.1))
    for norm in (bsojax.BatchRenorm, bsojax.BatchNorm, bsojax.Affine):
        model = bsojax.models.SpikingMLP(features=(8, 8), num_classes=3, norm=norm)
        state = bsojax.init(model, tx, jax.random.key(0), x)
        if norm is bsojax.BatchRenorm:
            with pytest.raises(ValueError, match="depends on its running statistics"):
                bsojax.refresh_statistics(model, state, [x], num_steps=2)
        else:
            bsojax.refresh_statistics(model, state, [x], num_steps=2)


@pytest.mark.parametrize("model", often({"mlp": bsojax.models.SpikingMLP, "vgg": bsojax.models.SpikingVGG}, "mlp"))
def test_weights_scaled_by_their_fan_in_keep_currents_of_size_one_without_a_norm(model):
    shape = (4, 64) if model is bsojax.models.SpikingMLP else (4, 8, 8, 64)
    layers = {"features": (64, 64)} if model is bsojax.models.SpikingMLP else {"channels": (64, 64)}
    net = model(**layers, binary_ends=True, norm=bsojax.Affine, scale=bsojax.rsqrt_fan_in)
    x = jnp.asarray(rng.standard_normal(shape), jnp.float32)
    state = net.init(jax.random.key(0), x)
    _, seen = net.apply(state, x, mutable=["neurons", "intermediates"], capture_intermediates=True)
    first = next(value for name, value in seen["intermediates"].items() if name.endswith("_0") and "norm" in name)
    assert 0.7 < float(jnp.std(first["__call__"][0])) < 1.3
