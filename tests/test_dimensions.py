"""Convolutions and pooling in one, two and three dimensions, transposed and separable, against flax and NumPy."""

import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import bsojax

pytestmark = pytest.mark.slow  # many programs are compiled

SIZES = {1: (11,), 2: (7, 6), 3: (6, 5, 4)}
IN, OUT = 4, 6


def random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


windows = {
    "plain": {},
    "valid": {"padding": "VALID"},
    "strides": {"strides": 2},
    "dilation": {"kernel_dilation": 2},
    "groups": {"feature_group_count": 2},
    "sides": {"padding": 1, "strides": 2, "kernel_dilation": 2},
}
each_window = pytest.mark.parametrize("options", windows.values(), ids=windows.keys())
each_dims = pytest.mark.parametrize("dims", [1, 2, 3])


def gradients(layer, variables, spikes, g):
    """Of value and kernel."""

    def total(kernel, value):
        tree = {**variables, "signs": {**variables["signs"], "kernel": kernel}}
        return jnp.sum(g * layer.apply(tree, bsojax.Spikes(value, spikes.trace)))

    return bsojax.value_and_grad(total, argnums=(0, 1))(variables["signs"]["kernel"], spikes.value)[1]


def agrees_with_flax(layer, plain, dims):
    x = bsojax.Spikes(random(2, *SIZES[dims], IN), random(2, *SIZES[dims], IN, seed=1))
    variables = layer.init(jax.random.key(0), x)
    kernel = bsojax.to_weights(variables["signs"]["kernel"])

    def flax_of(kernel, value):
        return plain.apply({"params": {"kernel": kernel}}, value)

    current = layer.apply(variables, x)
    np.testing.assert_allclose(current, flax_of(kernel, x.value), rtol=1e-4, atol=1e-4)
    g = random(*current.shape, seed=2)
    of_kernel, of_value = gradients(layer, variables, x, g)
    np.testing.assert_allclose(
        of_value, jax.vjp(functools.partial(flax_of, kernel), x.value)[1](g)[0], rtol=1e-4, atol=1e-4
    )
    at_trace = jax.vjp(lambda kernel: flax_of(kernel, x.trace), kernel)[1](g)[0]
    np.testing.assert_allclose(of_kernel, at_trace, rtol=1e-4, atol=1e-3)
    packed = {"signs": bsojax.pack_signs(variables["signs"])}
    np.testing.assert_allclose(layer.apply(packed, x), current, rtol=1e-4, atol=1e-4)


@each_dims
@each_window
def test_convolutions_are_flax_s_with_the_kernel_s_gradient_at_the_trace(dims, options):
    size = (3,) * dims
    pads = {"padding": [(1, 1)] * dims} if options.get("padding") == 1 else {}
    plain = nn.Conv(OUT, size, use_bias=False, **{**options, **pads})
    agrees_with_flax(bsojax.BinaryConv(OUT, size, **options), plain, dims)


@each_dims
@pytest.mark.parametrize(
    "options",
    [{}, {"strides": 2}, {"strides": 3, "padding": "VALID"}, {"kernel_dilation": 2, "strides": 2}],
)
@pytest.mark.parametrize("side", [2, 3])
def test_transposed_convolutions_are_flax_s(dims, options, side):
    flax_options = {name: (value,) * dims if isinstance(value, int) else value for name, value in options.items()}
    plain = nn.ConvTranspose(OUT, (side,) * dims, use_bias=False, **flax_options)
    agrees_with_flax(bsojax.BinaryConvTranspose(OUT, (side,) * dims, **options), plain, dims)


@each_dims
def test_separable_convolutions_are_two_of_flax_s(dims):
    layer = bsojax.BinarySeparableConv(OUT, (3,) * dims, strides=2, scale=bsojax.rsqrt_fan_in)
    x = bsojax.Spikes(random(2, *SIZES[dims], IN), random(2, *SIZES[dims], IN, seed=1))
    variables = layer.init(jax.random.key(0), x)
    weights = bsojax.to_weights(variables["signs"])
    depth, point = weights["depthwise"]["kernel"], weights["pointwise"]["kernel"]
    assert depth.shape == (*(3,) * dims, 1, IN)
    plain = nn.Conv(IN, (3,) * dims, strides=2, feature_group_count=IN, use_bias=False)

    def inner(depth, value):
        return plain.apply({"params": {"kernel": depth}}, value) / np.sqrt(3**dims)

    np.testing.assert_allclose(layer.apply(variables, x), inner(depth, x.value) @ point / 2, rtol=1e-4, atol=1e-5)
    g = random(*layer.apply(variables, x).shape, seed=2)

    def total(signs):
        return jnp.sum(g * layer.apply({"signs": signs}, x))

    for signs in (variables["signs"], weights):
        grads = bsojax.value_and_grad(total)(signs)[1]
        rows = inner(depth, x.trace).reshape(-1, IN)
        np.testing.assert_allclose(grads["pointwise"]["kernel"], rows.T @ g.reshape(-1, OUT) / 2, rtol=1e-4, atol=1e-4)
        back = jax.vjp(lambda depth: inner(depth, x.trace), depth)[1](g @ point.T / 2)[0]
        np.testing.assert_allclose(grads["depthwise"]["kernel"], back, rtol=1e-4, atol=1e-4)


class Net(nn.Module):
    dims: int

    @nn.compact
    def __call__(self, x, train=False):
        size = (3,) * self.dims
        x = bsojax.LIF()(bsojax.BatchNorm()(bsojax.Conv(4, size)(x), train))
        x = bsojax.max_pool(bsojax.LIF()(bsojax.BatchNorm()(bsojax.BinarySeparableConv(8, size)(x), train)), 2)
        x = bsojax.LIF()(bsojax.BatchNorm()(bsojax.BinaryConvTranspose(4, size, strides=2)(x), train))
        return bsojax.Dense(3)(bsojax.global_avg_pool(x))


@each_dims
def test_networks_of_them_train_packed_or_not_in_memory_that_does_not_grow(dims):
    x, y = np.abs(random(4, *SIZES[dims], 2)), np.arange(4) % 3
    signs, used = [], []
    for packed, steps in ((False, 2), (True, 2), (False, 16)):
        tx = bsojax.split_optimizer(bsojax.bso(1e-3, 0.5), optax.sgd(0.1))
        state = bsojax.init(Net(dims), tx, jax.random.key(0), x, packed=packed)
        step = bsojax.make_train_step(Net(dims), tx, steps)
        used.append(step.lower(state, x, y).compile().memory_analysis().temp_size_in_bytes)
        if steps == 2:
            state, metrics = step(state, x, y)
            assert metrics["skipped"] == 0
            signs.append(bsojax.unpack_signs(state.signs))
    assert abs(used[2] - used[0]) <= 256
    flipped = [np.mean(one != other) for one, other in zip(*map(jax.tree.leaves, signs), strict=True)]
    assert max(flipped) < 0.05  # two programs round differently
    summary = bsojax.summarize(Net(dims), x)
    kinds = {row.kind: row for row in summary.rows}
    assert kinds["BinaryConvTranspose"].binary_weights == 3**dims * 8 * 4
    assert summary.binary_weights == 3**dims * 4 + 4 * 8 + 3**dims * 8 * 4


def slow_max_pool(value, trace, window):
    dims = value.ndim - 2
    space = [size // window for size in value.shape[1:-1]]
    out, traces = np.zeros((len(value), *space, value.shape[-1])), np.zeros((len(value), *space, value.shape[-1]))
    for at in itertools.product(range(len(value)), *map(range, space), range(value.shape[-1])):
        best = None
        for inside in itertools.product(range(window), repeat=dims):
            place = (at[0], *(a * window + i for a, i in zip(at[1:-1], inside, strict=True)), at[-1])
            rank = (value[place], trace[place])
            if best is None or rank > best:
                best = rank
        out[at], traces[at] = best
    return out, traces


@each_dims
def test_max_pooling_takes_the_trace_of_the_winner(dims):
    rng = np.random.default_rng(0)
    value = (rng.random((2, *SIZES[dims], 3)) < 0.4).astype(np.float32)
    trace = (0.5 * rng.integers(0, 4, value.shape) + value).astype(np.float32)
    pooled = bsojax.max_pool(bsojax.Spikes(value, trace), 2)
    want = slow_max_pool(value, trace, 2)
    np.testing.assert_array_equal(pooled.value, want[0])
    np.testing.assert_array_equal(pooled.trace, want[1])
    np.testing.assert_array_equal(bsojax.max_pool(jnp.asarray(value), 2), want[0])
    assert bsojax.max_pool(bsojax.Spikes(jnp.asarray(value)), 2).trace is None
    g = random(*pooled.value.shape)
    grad = jax.grad(lambda value: jnp.sum(g * bsojax.max_pool(bsojax.Spikes(value, jnp.asarray(trace)), 2).value))(
        jnp.asarray(value)
    )
    np.testing.assert_allclose(np.sum(grad), g.sum(), rtol=1e-4)
    assert np.count_nonzero(grad) == g.size


@pytest.mark.parametrize("window", [(3, 3), (8, 8), (2, 5)])
def test_large_windows_have_the_winner_of_the_obvious_loop_and_its_gradient(window):
    rng = np.random.default_rng(0)
    value = (rng.random((2, 8, 16, 3)) < 0.4).astype(np.float32)
    trace = (0.5 * rng.integers(0, 3, value.shape) + value).astype(np.float32)
    pooled, pull = jax.jit(lambda v: jax.vjp(lambda v: bsojax.max_pool(bsojax.Spikes(v, trace), window), v))(value)
    g = random(*pooled.shape)
    (grad,) = pull(bsojax.Spikes(g, jnp.zeros_like(g)))
    want = np.zeros_like(value)
    high, wide = window
    for n, row, column, c in np.ndindex(*pooled.shape):
        places = itertools.product(range(row * high, (row + 1) * high), range(column * wide, (column + 1) * wide))
        best = max(places, key=lambda at, n=n, c=c: (value[n, *at, c], trace[n, *at, c], -at[0], -at[1]))
        assert (pooled.value[n, row, column, c], pooled.trace[n, row, column, c]) == (
            value[n, *best, c],
            trace[n, *best, c],
        )
        want[n, *best, c] = g[n, row, column, c]
    np.testing.assert_array_equal(grad, want)


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("with_trace", [False, True])
@pytest.mark.parametrize("size", [4, 9])
def test_the_maximum_of_a_window_with_what_is_no_number_is_none(place, with_trace, size):
    value = jnp.ones((1, size, 1)).at[0, place].set(jnp.nan)
    x = bsojax.Spikes(value, jnp.ones_like(value)) if with_trace else value
    assert np.isnan(bsojax.nn.as_spikes(bsojax.max_pool(x, size)).value)


def test_of_equal_spikes_without_traces_the_first_has_the_gradient():
    grad = jax.grad(lambda value: bsojax.max_pool(value, 2).sum())(jnp.ones((1, 4, 2, 1)))
    np.testing.assert_array_equal(grad[0, :, :, 0], [[1, 0], [0, 0], [1, 0], [0, 0]])


def test_the_gradient_is_the_winner_s_and_no_window_is_copied():
    value = jnp.asarray([1.0, 1.0, 0.0, 1.0]).reshape(1, 4, 1)
    trace = jnp.asarray([1.0, 1.5, 9.0, 1.5]).reshape(1, 4, 1)
    grads = jax.grad(lambda x: bsojax.max_pool(x, 4).value.sum() + bsojax.max_pool(x, 4).trace.sum())
    grad = grads(bsojax.Spikes(value, trace))
    np.testing.assert_array_equal(grad.value.ravel(), [0, 1, 0, 0])
    np.testing.assert_array_equal(grad.trace, 0)
    large = jax.ShapeDtypeStruct((16, 32, 32, 8), jnp.float32)
    program = jax.jit(lambda v, t: bsojax.max_pool(bsojax.Spikes(v, t), 2)).lower(large, large).compile()
    assert program.memory_analysis().temp_size_in_bytes < 4096


@each_dims
def test_averages_in_any_number_of_dimensions(dims):
    x = random(2, *SIZES[dims], 3)
    np.testing.assert_allclose(
        bsojax.global_avg_pool(jnp.asarray(x)), x.mean(tuple(range(1, dims + 1))), rtol=1e-4, atol=1e-6
    )
    pooled = bsojax.avg_pool(jnp.asarray(x), 2)
    first = x[(0, *(slice(2),) * dims, 0)]
    np.testing.assert_allclose(pooled[(0, *(0,) * dims, 0)], first.mean(), rtol=1e-4, atol=1e-6)
    assert pooled.shape == (2, *(size // 2 for size in SIZES[dims]), 3)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: bsojax.conv(jnp.ones((2, 5, 3)), jnp.ones((3, 3, 3, 4))), "x: a kernel of 2 dimensions takes"),
        (
            lambda: bsojax.conv(jnp.ones((2, 5, 5, 3)), jnp.ones((3, 3, 3, 4)), strides=(1, 1, 1)),
            "for all 2 dimensions",
        ),
        (lambda: bsojax.conv(jnp.ones((2, 2, 5, 5, 3)), jnp.ones((3, 3, 3, 3, 4)), padding="VALID"), "kernel_size:"),
        (lambda: bsojax.max_pool(jnp.ones((2, 3)), 2), "x: needs the shape"),
        (lambda: bsojax.max_pool(jnp.ones((2, 3, 3, 1)), (2, 2, 2)), "window: cannot pool"),
        (lambda: bsojax.max_pool(jnp.ones((2, 3, 3, 1)), 4), "window: cannot pool"),
        (lambda: bsojax.global_avg_pool(jnp.ones((2, 3))), "x: needs the shape"),
        (lambda: bsojax.conv_transpose(jnp.ones((2, 5, 3)), jnp.ones((3, 3, 4)), padding="FULL"), "padding: needs one"),
    ],
)
def test_what_does_not_fit(call, match):
    with pytest.raises((TypeError, ValueError), match=match):
        call()
