"""Synapses: ordinary values and value gradients, kernel gradients taken at the trace, for every geometry."""

import re

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from bsojax import Spikes, conv, dense
from bsojax.nn._geometry import conv_geometry
from bsojax.xla_cpu._gradients import gradients_by_transposition, kernel_gradient_on_cpu, value_gradient

# (height, width), (kernel height, kernel width), options; 3 channels in, 2 out, unless there are groups.
all_geometries = (
    ((6, 6), (3, 3), {}),
    ((6, 5), (1, 1), {}),
    ((5, 6), (2, 4), {}),
    ((7, 5), (5, 3), {"padding": "VALID"}),
    ((6, 7), (3, 2), {"padding": 1}),
    ((6, 7), (1, 4), {"padding": (0, 2)}),
    ((4, 5), (3, 3), {"padding": ((0, 2), (3, 1))}),
    ((3, 3), (2, 2), {"padding": ((4, 3), (5, 0))}),
    ((6, 7), (3, 3), {"padding": ((-1, 0), (2, -2))}),
    ((6, 4), (2, 2), {"padding": ((4, 0), (4, 0))}),
    ((3, 4), (2, 2), {"padding": ((0, 0), (-1, 1))}),
    ((7, 7), (3, 3), {"strides": 2}),
    ((8, 7), (2, 3), {"strides": (2, 3), "padding": "VALID"}),
    ((8, 8), (1, 1), {"strides": 3, "padding": "VALID"}),
    ((9, 8), (3, 3), {"strides": (3, 2), "padding": ((0, 1), (2, 0))}),
    ((8, 9), (3, 2), {"dilation": 2}),
    ((9, 9), (2, 3), {"dilation": (3, 2), "padding": "VALID"}),
    ((9, 8), (3, 2), {"dilation": (2, 1), "strides": (2, 3), "padding": ((1, 0), (3, 2))}),
    ((5, 5), (5, 5), {"padding": "VALID"}),
    ((1, 1), (3, 3), {}),
    ((5, 6), (3, 3), {"groups": 2}),
    ((6, 6), (2, 3), {"groups": 4, "strides": 2, "dilation": 2}),
)
each_geometry = pytest.mark.parametrize(("size", "kernel_size", "options"), all_geometries)


def random(*shape, seed=0):
    # NumPy's, as jax.random compiles for every new shape.
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32))


def operands(size, kernel_size, options, batch=2, channels=3, features=2):
    """Returns random value, trace, kernel and output gradient, and the geometry."""
    groups = options.get("groups", 1)
    channels, features = (channels, features) if groups == 1 else (2 * groups, groups)
    geometry = conv_geometry((batch, *size, channels), kernel_size, **options)
    value, trace = random(batch, *size, channels), random(batch, *size, channels, seed=1)
    kernel = random(*kernel_size, channels // groups, features, seed=2)
    out = jax.eval_shape(lambda: reference_conv(value, kernel, options))
    return value, trace, kernel, random(*out.shape, seed=3), geometry


def reference_conv(value, kernel, options):
    pair = lambda entry: (entry, entry) if isinstance(entry, int) else entry  # noqa: E731
    padding = options.get("padding", "SAME")
    if not isinstance(padding, str):
        # Padded and cropped by hand: on a CPU, XLA's own convolution (0.10) reads past the image where a negative
        # padding before it meets a positive one after it.
        for axis, side in zip((1, 2), map(pair, pair(padding)), strict=True):
            widths = [(0, 0)] * axis + [tuple(max(0, end) for end in side)] + [(0, 0)] * (3 - axis)
            value = jnp.pad(value, widths)
            value = lax.slice_in_dim(value, max(0, -side[0]), value.shape[axis] - max(0, -side[1]), axis=axis)
        padding = "VALID"
    return lax.conv_general_dilated(
        value,
        kernel,
        window_strides=pair(options.get("strides", 1)),
        padding=padding,
        rhs_dilation=pair(options.get("dilation", 1)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=options.get("groups", 1),
    )


def reference(value, trace, kernel, g, options):
    """Output, value gradient, and kernel gradient at the trace, from the vjp of an ordinary convolution."""
    out, pull = jax.vjp(lambda value: reference_conv(value, kernel, options), value)
    return out, pull(g)[0], jax.vjp(lambda kernel: reference_conv(trace, kernel, options), kernel)[1](g)[0]


def synapse(function, value, trace, kernel, g):
    """The same from a synapse."""
    out, pull = jax.vjp(lambda value, kernel: function(Spikes(value, trace), kernel), value, kernel)
    return out, *pull(g)


def assert_close(actual, expected, rtol=2e-5):
    def check(one, other):
        assert one.shape == other.shape
        assert one.dtype == other.dtype
        scale = float(np.abs(other).max()) if other.size else 0.0
        np.testing.assert_allclose(one, other, rtol=rtol, atol=rtol * (scale + 1e-6))

    jax.tree.map(check, actual, expected)


def check_geometry(size, kernel_size, options, batch=2):
    value, trace, kernel, g, geometry = operands(size, kernel_size, options, batch)
    reach = [(k - 1) * d for k, d in zip(kernel_size, geometry.dilation, strict=True)]
    ordinary = all(0 <= end <= r for side, r in zip(geometry.padding, reach, strict=True) for end in side)

    @jax.jit
    def all_ways(value, trace, kernel, g):
        ways = [synapse(lambda x, kernel: conv(x, kernel, *geometry), value, trace, kernel, g)]
        # Of the two backward passes only one is chosen here; both are for paddings that the kernel can reach.
        if ordinary:
            ways.append((ways[0][0], *gradients_by_transposition(geometry, trace, kernel, g)))
        if ordinary and geometry.groups == 1:
            of_value = value_gradient(geometry, trace.shape, kernel, g)
            ways.append((ways[0][0], of_value, kernel_gradient_on_cpu(geometry, trace, kernel.shape, g)))
        return reference(value, trace, kernel, g, options), ways

    expected, ways = all_ways(value, trace, kernel, g)
    for actual in ways:
        assert_close(actual, expected)


@each_geometry
def test_conv_agrees_with_the_ordinary_convolution(size, kernel_size, options):
    check_geometry(size, kernel_size, options)


@st.composite
def geometries(draw):
    pair = lambda low, high: st.tuples(st.integers(low, high), st.integers(low, high))  # noqa: E731
    size, kernel_size = draw(pair(1, 7)), draw(pair(1, 4))
    strides, dilation = draw(pair(1, 3)), draw(pair(1, 3))
    padding = draw(st.sampled_from(["SAME", "VALID"]) | st.integers(0, 3) | st.tuples(pair(-1, 4), pair(-1, 4)))
    # A window must fit; an image without one is refused. With strides or dilation there must be as many windows as the
    # kernel has elements: below that, XLA on a CPU (0.10) may abort as it compiles the ordinary gradient.
    ends = 0 if isinstance(padding, str) else padding
    sums = (2 * ends, 2 * ends) if isinstance(ends, int) else map(sum, ends)
    for length, added, k, d, s in zip(size, sums, kernel_size, dilation, strides, strict=True):
        windows = 1 + (length + added - (k - 1) * d - 1) // s if padding != "SAME" else -(-length // s)
        hypothesis.assume(windows >= (k if max(strides + dilation) > 1 else 1))
    return size, kernel_size, {"strides": strides, "dilation": dilation, "padding": padding}, draw(st.integers(1, 3))


@hypothesis.settings(max_examples=15)  # each one compiles
@hypothesis.given(geometries())
@hypothesis.example(((1, 1), (1, 1), {"strides": (1, 2), "dilation": (1, 1), "padding": ((0, 0), (2, -1))}, 1))
def test_conv_agrees_with_the_ordinary_convolution_for_any_geometry(case):
    check_geometry(*case)


def test_named_padding_is_resolved_as_pairs():
    assert conv_geometry((1, 7, 8, 1), (3, 4), strides=2).padding == ((1, 1), (1, 1))
    assert conv_geometry((1, 7, 8, 1), (3, 4), dilation=(2, 1)).padding == ((2, 2), (1, 2))
    assert conv_geometry((1, 7, 8, 1), (3, 4), padding="VALID").padding == ((0, 0), (0, 0))
    assert conv_geometry((1, 7, 8, 1), (3, 4), padding=[2, (0, 1)]).padding == ((2, 2), (0, 1))


@pytest.mark.parametrize("shape", [(4, 5), (2, 3, 5), (2, 2, 3, 5)])
def test_dense_takes_the_kernel_gradient_at_the_trace(shape):
    value, trace = random(*shape), random(*shape, seed=1)
    kernel, g = random(5, 6, seed=2), random(*shape[:-1], 6, seed=3)
    expected = (value @ kernel, g @ kernel.T, jnp.einsum("...i,...o->io", trace, g))
    assert_close(synapse(dense, value, trace, kernel, g), expected)


def all_synapses():
    value, trace, kernel, g, geometry = operands((5, 6), (3, 2), {"strides": (1, 2)})
    grouped = operands((5, 6), (3, 2), {"groups": 2})
    rows = value[:, 0], trace[:, 0], kernel[0, 0], g[:, 0, :1].repeat(6, axis=1)
    return {
        "dense": (dense, *rows),
        "conv": (lambda x, kernel: conv(x, kernel, *geometry), value, trace, kernel, g),
        "grouped": (lambda x, kernel: conv(x, kernel, *grouped[4]), *grouped[:4]),
    }


each_synapse = pytest.mark.parametrize("kind", ["dense", "conv", "grouped"])


@each_synapse
@pytest.mark.parametrize("wrap", [lambda value: value, Spikes], ids=["array", "no trace"])
def test_without_a_trace_the_value_is_the_trace(kind, wrap):
    function, value, _, kernel, g = all_synapses()[kind]
    out, pull = jax.vjp(lambda value, kernel: function(wrap(value), kernel), value, kernel)
    assert_close((out, *pull(g)), synapse(function, value, value, kernel, g))


@each_synapse
def test_the_trace_does_not_enter_the_value_and_gets_no_gradient(kind):
    function, value, trace, kernel, g = all_synapses()[kind]
    np.testing.assert_array_equal(function(Spikes(value, trace), kernel), function(value, kernel))
    grad = jax.grad(lambda trace: jnp.vdot(function(Spikes(value, trace), kernel), g))(trace)
    np.testing.assert_array_equal(grad, jnp.zeros_like(trace))


@each_synapse
def test_bfloat16_stays_bfloat16(kind):
    function, *arrays = all_synapses()[kind]
    low = [array.astype(jnp.bfloat16) for array in arrays]
    actual = synapse(function, *low)
    assert all(array.dtype == jnp.bfloat16 for array in actual)
    expected = synapse(function, *(array.astype(jnp.float32) for array in low))
    assert_close([array.astype(jnp.float32) for array in actual], list(expected), rtol=2e-2)


@each_synapse
def test_the_kernel_is_cast_to_the_values_and_its_gradient_back(kind):
    function, value, trace, kernel, g = all_synapses()[kind]
    out, _, grad = synapse(function, *(a.astype(jnp.bfloat16) for a in (value, trace)), kernel, g.astype(jnp.bfloat16))
    assert out.dtype == jnp.bfloat16
    assert grad.dtype == jnp.float32


@each_synapse
def test_in_a_scan_as_outside(kind):
    function, value, trace, kernel, g = all_synapses()[kind]
    factors = jnp.asarray([1.0, -0.5, 2.0])

    def body(total, factor):
        result = synapse(function, factor * value, trace + factor, kernel, g)
        return total + result[2], result

    total, results = jax.jit(lambda: lax.scan(body, jnp.zeros_like(kernel), factors))()
    expected = [synapse(function, factor * value, trace + factor, kernel, g) for factor in factors]
    assert_close(results, jax.tree.map(lambda *steps: jnp.stack(steps), *expected))
    assert_close(total, sum(step[2] for step in expected), rtol=1e-4)


@each_synapse
def test_vmap_over_examples_gives_a_gradient_each(kind):
    function, value, trace, kernel, g = all_synapses()[kind]
    one = lambda *arrays: synapse(function, *(a[None] for a in arrays[:2]), kernel, arrays[2][None])[2]  # noqa: E731
    each = jax.vmap(one)(value, trace, g)
    assert_close(each.sum(0), synapse(function, value, trace, kernel, g)[2])
    assert_close(each[0], one(value[0], trace[0], g[0]))


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the slow path is one of XLA on CPUs")
@pytest.mark.parametrize("options", [{}, {"padding": "VALID"}, {"strides": 2}])
def test_in_a_scan_on_a_cpu_every_convolution_is_a_plain_forward_one(options):
    # The only form that XLA hands to its fast kernels inside a loop; others run some forty times slower.
    value, trace, kernel, _, geometry = operands((8, 8), (3, 3), options)

    def body(carry, _):
        loss = lambda value, kernel: jnp.sum(conv(Spikes(value, trace), kernel, *geometry) ** 2)  # noqa: E731
        return jax.tree.map(lambda leaf, grad: leaf - 0.1 * grad, carry, jax.grad(loss, (0, 1))(*carry)), None

    loop = jax.jit(lambda *carry: lax.scan(body, carry, None, length=3)[0])
    text = loop.lower(value, kernel).compile().as_text()
    assert " while(" in text
    convolutions = [line for line in text.splitlines() if re.search(r" convolution\(", line)]
    assert len(convolutions) == 3
    for line in convolutions:
        assert "dim_labels=b01f_01io->b01f" in line
        assert "lhs_dilate" not in line
        assert "rhs_reversal" not in line


@pytest.mark.parametrize(
    "arguments",
    [{"kernel_size": (3, 6), "padding": "VALID"}, {"kernel_size": (3, 2), "padding": ((0, -3), (0, 0))}],
    ids=str,
)
def test_a_kernel_that_does_not_fit_into_the_image_is_refused(arguments):
    # XLA returns an empty array, whose mean is NaN.
    with pytest.raises(ValueError, match=r"^kernel_size: "):
        conv_geometry(**{"input_shape": (2, 5, 5, 3), **arguments})
