"""Layers: kernels in every form, pooling of value and trace alike, batch statistics, and the errors of each."""

import math

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bsojax
from bsojax import Spikes

# Each with an input shape that it takes.
binary_layers = (
    (bsojax.BinaryDense(5), (3, 7)),
    (bsojax.BinaryDense(4, scale=bsojax.rsqrt_fan_in), (2, 3, 6)),
    (bsojax.BinaryConv(4, (3, 3)), (2, 5, 6, 3)),
    (bsojax.BinaryConv(4, (2, 3), strides=2, padding=1, scale=bsojax.rsqrt_fan_in), (2, 5, 6, 3)),
    (bsojax.BinaryConv(6, (3, 1), feature_group_count=3, kernel_dilation=2, padding="VALID"), (2, 6, 6, 3)),
)
real_layers = (
    (bsojax.Dense(5), (3, 7)),
    (bsojax.Dense(4, use_bias=False), (2, 3, 6)),
    (bsojax.Conv(4, (3, 3)), (2, 5, 6, 3)),
    (bsojax.Conv(6, (3, 2), strides=(2, 1), padding=((1, 0), (0, 2)), feature_group_count=3), (2, 6, 5, 3)),
)
each_binary_layer = pytest.mark.parametrize(("layer", "shape"), binary_layers, ids=range(len(binary_layers)))
each_real_layer = pytest.mark.parametrize(("layer", "shape"), real_layers, ids=range(len(real_layers)))
key = jax.random.key(0)


def random(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def fan_in_of(kernel):
    return math.prod(kernel.shape[:-1])


def flax_twin(layer):
    """The layer of flax with real weights that computes the same for arrays."""
    if hasattr(layer, "kernel_size"):
        names = ("features", "kernel_size", "strides", "padding", "kernel_dilation", "feature_group_count")
        return nn.Conv(**{name: getattr(layer, name) for name in names}, use_bias=getattr(layer, "use_bias", False))
    return nn.Dense(layer.features, use_bias=getattr(layer, "use_bias", False))


@each_binary_layer
def test_boolean_floating_and_packed_kernels_agree(layer, shape):
    x = random(*shape)
    variables = layer.init(key, x)
    signs = variables["signs"]["kernel"]
    current = layer.apply(variables, x)
    np.testing.assert_array_equal(current, layer.apply(bsojax.to_weights(variables), x))
    np.testing.assert_array_equal(current, layer.apply(bsojax.pack_signs(variables), x))
    factor = 1 / math.sqrt(fan_in_of(signs)) if layer.scale is bsojax.rsqrt_fan_in else 1
    weights = {"params": {"kernel": factor * bsojax.to_weights(signs)}}
    np.testing.assert_allclose(current, flax_twin(layer).apply(weights, x), rtol=1e-5, atol=1e-5)


@each_binary_layer
def test_signs_are_fair_coins_drawn_from_the_key_alone(layer, shape):
    variables = layer.init(key, random(*shape))
    chex.assert_trees_all_equal_structs(variables, {"signs": {"kernel": 0}})
    kernel = variables["signs"]["kernel"]
    assert kernel.dtype == jnp.bool_
    other_batch = jnp.ones((4, *shape[1:]), jnp.bfloat16)
    np.testing.assert_array_equal(kernel, layer.init(key, other_batch)["signs"]["kernel"])
    assert np.any(kernel != layer.init(jax.random.key(1), random(*shape))["signs"]["kernel"])


@pytest.mark.parametrize("layer", [bsojax.BinaryDense(400), bsojax.BinaryConv(100, (2, 2))])
def test_coins_fall_on_either_side_as_often(layer):
    kernel = np.asarray(layer.init(key, jnp.ones((1, 3, 3, 400)))["signs"]["kernel"])
    assert kernel.size == 160_000
    assert abs(kernel.mean() - 0.5) < 5 * 0.5 / math.sqrt(kernel.size)
    columns = kernel.reshape(-1, kernel.shape[-1]).mean(0)
    assert columns.std() == pytest.approx(0.5 / math.sqrt(kernel.size / columns.size), rel=0.3)


@each_binary_layer
def test_signs_have_the_gradient_at_the_trace_times_the_scale(layer, shape):
    value, trace = random(*shape), random(*shape, seed=1)
    variables = layer.init(key, value)
    g = random(*layer.apply(variables, value).shape, seed=2)

    def total(variables, x):
        return jnp.vdot(layer.apply(variables, x), g)

    _, grads = bsojax.value_and_grad(total)(variables, Spikes(value, trace))
    _, expected = bsojax.value_and_grad(total)(variables, trace)
    np.testing.assert_array_equal(grads["signs"]["kernel"], expected["signs"]["kernel"])
    value_grad = jax.grad(lambda value: total(variables, Spikes(value, trace)))(value)
    np.testing.assert_array_equal(value_grad, jax.grad(lambda value: total(variables, value))(value))


@each_real_layer
def test_real_layers_agree_with_flax(layer, shape):
    x = random(*shape)
    variables = layer.init(key, x)
    assert set(variables) == {"params"}
    assert set(variables["params"]) == ({"kernel", "bias"} if layer.use_bias else {"kernel"})
    chex.assert_trees_all_equal_shapes_and_dtypes(variables, flax_twin(layer).init(key, x))
    if layer.use_bias:
        np.testing.assert_array_equal(variables["params"]["bias"], 0)
    variables = jax.tree.map(lambda leaf: leaf + 0.1, variables)
    actual, pull = jax.vjp(layer.apply, variables, x)
    expected, expected_pull = jax.vjp(flax_twin(layer).apply, variables, x)
    g = random(*expected.shape, seed=1)
    chex.assert_trees_all_close((actual, pull(g)), (expected, expected_pull(g)), rtol=1e-5, atol=1e-5)


@each_real_layer
def test_real_kernels_have_the_gradient_at_the_trace(layer, shape):
    value, trace = random(*shape), random(*shape, seed=1)
    variables = layer.init(key, value)
    g = random(*layer.apply(variables, value).shape, seed=2)
    grads = jax.grad(lambda variables: jnp.vdot(layer.apply(variables, Spikes(value, trace)), g))(variables)
    expected = jax.grad(lambda variables: jnp.vdot(layer.apply(variables, trace), g))(variables)
    chex.assert_trees_all_equal(grads, expected)


def test_the_kernel_initialiser_is_used():
    for layer in (
        bsojax.Dense(3, kernel_init=nn.initializers.ones),
        bsojax.Conv(3, (1, 1), kernel_init=nn.initializers.ones),
    ):
        np.testing.assert_array_equal(layer.init(key, jnp.ones((1, 2, 2, 3)))["params"]["kernel"], 1)


@pytest.mark.parametrize(("layer", "shape"), [*binary_layers, *real_layers])
def test_bfloat16_input_gives_a_bfloat16_current_and_keeps_the_variables(layer, shape):
    x = random(*shape)
    variables = layer.init(key, x.astype(jnp.bfloat16))
    chex.assert_trees_all_equal_dtypes(variables, layer.init(key, x))
    current = layer.apply(variables, x.astype(jnp.bfloat16))
    assert current.dtype == jnp.bfloat16
    np.testing.assert_allclose(current.astype(jnp.float32), layer.apply(variables, x), atol=0.15)


@pytest.mark.parametrize("wrap", [lambda x: x, Spikes, lambda x: Spikes(x, 2 * x)], ids=["array", "no trace", "trace"])
def test_pooling_treats_value_and_trace_alike(wrap):
    image = jnp.arange(2 * 5 * 7 * 3, dtype=jnp.float32).reshape(2, 5, 7, 3)
    windows = np.asarray(image)[:, :4, :6].reshape(2, 2, 2, 2, 3, 3).mean((2, 4))
    for pooled, expected in (
        (bsojax.avg_pool(wrap(image), (2, 3)), windows),
        (bsojax.global_avg_pool(wrap(image)), np.asarray(image).mean((1, 2))),
        (bsojax.flatten(wrap(image)), np.asarray(image).reshape(2, -1)),
    ):
        assert type(pooled) is type(wrap(image))
        chex.assert_trees_all_close(pooled, jax.tree.map(jnp.asarray, wrap(expected)), rtol=1e-6)


@pytest.mark.parametrize("window", [1, 2, 3, (1, 4), (5, 1)])
def test_avg_pool_agrees_with_flax(window):
    image = random(2, 5, 7, 3)
    pair = (window, window) if isinstance(window, int) else window
    expected = nn.avg_pool(image, pair, strides=pair)
    np.testing.assert_allclose(bsojax.avg_pool(image, window), expected, rtol=1e-5, atol=1e-6)


def test_pooling_passes_gradients_to_the_value_only():
    def total(x):
        pooled = bsojax.global_avg_pool(bsojax.avg_pool(x, 2))
        return jnp.sum(pooled.value) + jnp.sum(pooled.trace)

    grads = jax.grad(total)(Spikes(random(2, 4, 4, 3), random(2, 4, 4, 3, seed=1)))
    np.testing.assert_allclose(grads.value, 1 / 16)
    np.testing.assert_array_equal(grads.trace, 0)


@pytest.mark.parametrize(
    ("shape", "window"),
    [((2, 4, 4, 3), 5), ((2, 4, 4, 3), (5, 1)), ((2, 4, 4, 3), 0)],
)
def test_a_window_that_does_not_fit_raises(shape, window):
    with pytest.raises(ValueError, match=r"^window: "):
        bsojax.avg_pool(jnp.ones(shape), window)


def norm_pair(num_steps=None):
    """A norm with parameters away from their defaults, and what flax computes with them."""
    x = 3 * random(4, 5, 5, 6) + 2
    ours, theirs = bsojax.BatchNorm(num_steps), nn.BatchNorm(momentum=0.9, epsilon=1e-5)
    params = {"scale": random(6, seed=1), "bias": random(6, seed=2)}
    stats = {"mean": random(6, seed=3), "var": jnp.exp(random(6, seed=4))}
    return x, ours, theirs, {"params": params, "batch_stats": stats}


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("axes", [(), (1, 2)], ids=["image", "rows"])
def test_batch_norm_agrees_with_flax(train, axes):
    x, ours, theirs, variables = norm_pair()
    x = x[(slice(None),) + (0,) * len(axes)]
    chex.assert_trees_all_equal_shapes_and_dtypes(ours.init(key, x, train), theirs.init(key, x, not train))

    def run(apply, **options):
        def call(params, x):
            return apply({**variables, "params": params}, x, mutable=["batch_stats"], **options)

        out, pull, stats = jax.vjp(call, variables["params"], x, has_aux=True)
        return out, pull(random(*out.shape, seed=5)), stats

    actual = run(ours.apply, train=train)
    chex.assert_trees_all_close(actual, run(theirs.apply, use_running_average=not train), rtol=1e-4, atol=1e-4)
    assert train != np.array_equal(actual[2]["batch_stats"]["mean"], variables["batch_stats"]["mean"])


def test_batch_norm_starts_from_standard_statistics_and_does_not_follow_at_init():
    variables = bsojax.BatchNorm(num_steps=2).init(key, random(4, 3) + 5, True, 0)
    chex.assert_trees_all_equal(
        variables,
        {
            "params": {"scale": jnp.ones(3), "bias": jnp.zeros(3)},
            "batch_stats": {"mean": jnp.zeros((2, 3)), "var": jnp.ones((2, 3))},
        },
    )


def test_statistics_of_each_time_step_are_kept_apart():
    x, ours, _, variables = norm_pair(num_steps=3)
    shared = bsojax.BatchNorm(momentum=ours.momentum)
    variables["batch_stats"] = jax.tree.map(
        lambda leaf: jnp.stack([leaf, leaf + 1, leaf + 2]), variables["batch_stats"]
    )

    @jax.jit
    def run(t):
        return ours.apply(variables, x, True, t, mutable=["batch_stats"]), ours.apply(variables, x, False, t)

    for t in range(3):
        own = {**variables, "batch_stats": jax.tree.map(lambda leaf: leaf[t], variables["batch_stats"])}
        (trained, changed), evaluated = run(jnp.int32(t))
        expected, followed = shared.apply(own, x, True, mutable=["batch_stats"])
        np.testing.assert_allclose(trained, expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(evaluated, shared.apply(own, x), rtol=1e-5, atol=1e-5)
        expected_stats = jax.tree.map(
            lambda all, one: all.at[t].set(one), variables["batch_stats"], followed["batch_stats"]
        )
        chex.assert_trees_all_close(changed["batch_stats"], expected_stats, rtol=1e-5)
        np.testing.assert_allclose(ours.apply(variables, x, False, t), evaluated, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("num_steps", [None, 2])
def test_an_axis_name_gives_the_statistics_of_the_global_batch(num_steps):
    devices = 4
    x = random(8, 3, 3, 6) * jnp.arange(1.0, 9).reshape(8, 1, 1, 1)
    ours = bsojax.BatchNorm(num_steps, axis_name="batch")
    variables = ours.init(key, x, True, 1)  # Outside pmap: init needs no axis.
    g = random(*x.shape, seed=1)

    def run(norm, x, g):
        out, pull, stats = jax.vjp(
            lambda x: norm.apply(variables, x, True, 1, mutable=["batch_stats"]), x, has_aux=True
        )
        return out, pull(g)[0], stats

    expected, expected_grad, expected_stats = run(bsojax.BatchNorm(num_steps), x, g)
    split = lambda leaf: leaf.reshape(devices, -1, *leaf.shape[1:])  # noqa: E731
    mapped = jax.pmap(lambda x, g: run(ours, x, g), axis_name="batch", devices=jax.devices()[:devices])
    out, grad, stats = mapped(split(x), split(g))
    np.testing.assert_allclose(out, split(expected), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(grad, split(expected_grad), rtol=1e-4, atol=1e-5)
    for device in range(devices):
        chex.assert_trees_all_close(
            jax.tree.map(lambda leaf: leaf[device], stats), expected_stats, rtol=1e-5, atol=1e-6
        )
    local = run(bsojax.BatchNorm(num_steps), split(x)[0], split(g)[0])[0]
    assert not np.allclose(local, split(expected)[0], atol=1e-2)


def test_statistics_of_bfloat16_inputs_are_float32():
    # In bfloat16 the variance of these inputs would be off by a tenth, and a mean of 8 by 1/32.
    x = (8 + random(64, 3, 3, 5)).astype(jnp.bfloat16)
    norm = bsojax.BatchNorm(momentum=0.0)
    variables = norm.init(key, x)
    out, changed = norm.apply(variables, x, True, mutable=["batch_stats"])
    assert out.dtype == jnp.bfloat16
    exact = np.asarray(x, np.float64)
    for name, expected in (("mean", exact.mean((0, 1, 2))), ("var", exact.var((0, 1, 2)))):
        assert changed["batch_stats"][name].dtype == jnp.float32
        np.testing.assert_allclose(changed["batch_stats"][name], expected, rtol=1e-5)
    normal = (exact - exact.mean((0, 1, 2))) / np.sqrt(exact.var((0, 1, 2)) + norm.epsilon)
    np.testing.assert_allclose(np.asarray(out, np.float64), normal, rtol=2**-8, atol=1e-3)


def test_a_large_mean_does_not_cancel_the_variance():
    x = 1000 + random(64, 5)
    norm = bsojax.BatchNorm(momentum=0.0)
    _, changed = norm.apply(norm.init(key, x), x, True, mutable=["batch_stats"])
    np.testing.assert_allclose(changed["batch_stats"]["var"], np.var(np.asarray(x, np.float64), 0), rtol=1e-4)


@pytest.mark.parametrize("time_step", [None, -1, 3])
def test_a_norm_of_each_time_step_needs_one_in_range(time_step):
    with pytest.raises(ValueError, match=r"^time_step: .*BatchNorm"):
        bsojax.BatchNorm(num_steps=3).init(key, jnp.ones((2, 4)), True, time_step)


def test_a_norm_refuses_integers():
    # Its result has the dtype of its input, and so would be cut to integers.
    with pytest.raises(TypeError, match=r"^x: .*floating"):
        bsojax.BatchNorm().init(key, jnp.ones((2, 4), jnp.int32))


@pytest.mark.parametrize(("layer", "shape"), [*binary_layers, *real_layers])
@pytest.mark.parametrize("dtype", [jnp.int32, jnp.bool_])
def test_an_input_that_is_not_floating_raises(layer, shape, dtype):
    with pytest.raises(TypeError, match=r"^x: .*floating"):
        layer.init(key, jnp.ones(shape, dtype))


def test_signs_of_another_shape_raise():
    variables = bsojax.BinaryDense(4).init(key, jnp.ones((2, 3)))
    with pytest.raises(ValueError, match=r"^x: .*signs of shape \(3, 4\).*needs \(5, 4\)"):
        bsojax.BinaryDense(4).apply(variables, jnp.ones((2, 5)))
