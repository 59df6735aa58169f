"""Convolutions of every kind and geometry, as a CPU does them and as others do, against lax's and its gradients."""

import functools
import re

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import bsojax
from bsojax import Spikes, conv, conv_transpose
from bsojax.nn._geometry import conv_geometry, transposed_geometry

pytestmark = pytest.mark.slow  # many programs are compiled

LAYOUTS = {1: ("NWC", "WIO", "NWC"), 2: ("NHWC", "HWIO", "NHWC"), 3: ("NDHWC", "DHWIO", "NDHWC")}
on_cpu = pytest.mark.skipif(jax.default_backend() != "cpu", reason="what a CPU needs")


def random(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32))


def padded(image, pairs):
    """Zeros around space, and crops where their number is negative."""
    for bound in (max, min):
        sides = [(bound(before, 0), bound(after, 0), 0) for before, after in pairs]
        image = lax.pad(image, jnp.zeros((), image.dtype), [(0, 0, 0), *sides, (0, 0, 0)])
    return image


def lax_conv(value, kernel, strides, pairs, dilation, groups=1, spread=None):
    dims = value.ndim - 2
    if spread is not None:
        value = lax.pad(value, 0.0, [(0, 0, 0), *((0, 0, step - 1) for step in spread), (0, 0, 0)])
    return lax.conv_general_dilated(
        padded(value, pairs), kernel, strides, "VALID", rhs_dilation=dilation, dimension_numbers=LAYOUTS[dims],
        feature_group_count=groups,
    )  # fmt: skip


def check(ours, theirs, shape, kernel_shape):
    """Result, value gradient, and kernel gradient at the trace; as a CPU makes them, and as other platforms do."""
    value, trace, kernel = random(*shape), random(*shape, seed=1), random(*kernel_shape, seed=2)
    expected, pull = jax.vjp(lambda value: theirs(value, kernel), value)
    g = random(*expected.shape, seed=3)
    wanted = expected, *pull(g), *jax.vjp(lambda kernel: theirs(trace, kernel), kernel)[1](g)

    def all_of(value, trace, kernel, g):
        out, pull = jax.vjp(lambda value, kernel: ours(Spikes(value, trace), kernel), value, kernel)
        return out, *pull(g)

    found = [jax.jit(all_of)(value, trace, kernel, g)]
    with bsojax.xla_cpu.plain():
        found.append(jax.jit(lambda *arrays: all_of(*arrays))(value, trace, kernel, g))
    for each in found:
        for one, other in zip(each, wanted, strict=True):
            assert (one.shape, one.dtype) == (other.shape, other.dtype)
            np.testing.assert_allclose(one, other, rtol=2e-5, atol=2e-5 * (1e-6 + float(np.abs(other).max())))


@st.composite
def geometries(draw, transposed):
    dims = draw(st.integers(1, 3))
    each = lambda low, high: st.tuples(*[st.integers(low, high)] * dims)  # noqa: E731
    space, size, strides, dilation = (draw(each(*bounds)) for bounds in ((1, 7), (1, 3), (1, 3), (1, 2)))
    pairs = st.tuples(*[st.tuples(st.integers(-1, 3), st.integers(-1, 3))] * dims)
    padding = draw(st.sampled_from(["SAME", "VALID"]) | st.integers(0, 3) | pairs)
    channels, features, groups = (3, 2, 1) if transposed else draw(
        st.sampled_from([(3, 2, 1), (4, 6, 2), (3, 3, 3), (2, 4, 2)])
    )  # fmt: skip
    return (draw(st.integers(1, 3)), *space, channels), size, strides, padding, dilation, features, groups


@hypothesis.settings(max_examples=20)  # each one compiles
@hypothesis.given(geometries(transposed=False))
@hypothesis.example(((2, 5, 4, 6, 3), (3, 1, 2), (2, 3, 1), ((1, -1), (0, 2), (-1, 0)), (1, 1, 2), 3, 3))
@hypothesis.example(((2, 6, 5, 4, 3), (3, 2, 2), (2, 1, 2), "SAME", (2, 1, 1), 2, 1))
@hypothesis.example(((2, 9, 4), (3,), 2, "CAUSAL", 2, 8, 4))
def test_a_convolution_is_lax_s(case):
    shape, size, strides, padding, dilation, features, groups = case
    try:
        geometry = conv_geometry(shape, size, strides, padding, dilation, groups)
    except ValueError:
        hypothesis.reject()  # the kernel does not fit
    lengths = zip(shape[1:-1], geometry.padding, size, geometry.dilation, geometry.strides, strict=True)
    for length, side, k, d, s in lengths:
        # Below as many windows as the kernel has elements, XLA on a CPU (0.10) may abort as it compiles lax's gradient.
        hypothesis.assume((length + sum(side) - (k - 1) * d - 1) // s + 1 >= k)
    check(
        lambda x, kernel: conv(x, kernel, strides, padding, dilation, groups),
        lambda value, kernel: lax_conv(value, kernel, *geometry),
        shape,
        (*size, shape[-1] // groups, features),
    )


@hypothesis.settings(max_examples=20)  # each one compiles
@hypothesis.given(geometries(transposed=True))
@hypothesis.example(((2, 4, 3, 3), (2, 3), (3, 2), ((1, -1), (4, 0)), (2, 1), 2, 1))
@hypothesis.example(((2, 3, 2, 4, 3), (3, 2, 1), (2, 2, 3), "SAME", (1, 2, 1), 2, 1))
def test_a_transposed_convolution_is_lax_s(case):
    shape, size, strides, padding, dilation, features, _ = case
    try:
        transposed_geometry(shape, size, strides, padding, dilation)
    except ValueError:
        hypothesis.reject()  # the kernel does not fit

    def theirs(value, kernel):
        if isinstance(padding, str):
            dims = len(size)
            return lax.conv_transpose(value, kernel, strides, padding, dilation, dimension_numbers=LAYOUTS[dims])
        pairs = ((padding, padding),) * len(size) if isinstance(padding, int) else padding
        return lax_conv(value, kernel, (1,) * len(size), pairs, dilation, spread=strides)

    check(
        lambda x, kernel: conv_transpose(x, kernel, strides, padding, dilation),
        theirs,
        shape,
        (*size, shape[-1], features),
    )


kinds = {
    "signals": (conv, (16, 12, 8), (3, 8, 4)),
    "volumes": (conv, (16, 4, 6, 6, 8), (3, 3, 3, 8, 4)),
    "depthwise": (functools.partial(conv, feature_group_count=8), (16, 6, 6, 8), (3, 3, 1, 8)),
    "multiplied": (functools.partial(conv, strides=2, feature_group_count=8), (16, 6, 6, 8), (3, 3, 1, 16)),
    "transposed": (functools.partial(conv_transpose, strides=2), (16, 6, 6, 8), (3, 3, 8, 4)),
}
each_kind = pytest.mark.parametrize(("function", "shape", "kernel_shape"), kinds.values(), ids=kinds)


def gradients(function, value, kernel):
    return jax.grad(lambda *x: jnp.sum(function(Spikes(x[0], value), x[1]) ** 2), (0, 1))(value, kernel)


@on_cpu
@each_kind
def test_in_a_scan_on_a_cpu_only_what_is_fast_there(function, shape, kernel_shape):
    # Other forms of convolutions, and such with groups, run ten to a hundred times slower inside a loop.
    def body(carry, _):
        return jax.tree.map(lambda leaf, grad: leaf - 0.1 * grad, carry, gradients(function, *carry)), None

    loop = jax.jit(lambda *carry: lax.scan(body, carry, None, length=3)[0])
    text = loop.lower(random(*shape), random(*kernel_shape)).compile().as_text()
    assert " while(" in text
    convolutions = [line for line in text.splitlines() if re.search(r" convolution\(", line)]
    assert len(convolutions) == (0 if kernel_shape[-2] == 1 else 3)
    for line in convolutions:
        assert "dim_labels=b01f_01io->b01f" in line
        assert not re.search("lhs_dilate|rhs_reversal|group_count", line)


@each_kind
def test_a_backward_pass_keeps_one_trace_and_the_kernel(function, shape, kernel_shape):
    value, kernel = random(*shape), random(*kernel_shape)
    _, pull = jax.eval_shape(
        lambda *x: jax.vjp(lambda *x: function(Spikes(x[0], x[1]), x[2]), *x), value, value, kernel
    )
    assert sum(leaf.size for leaf in jax.tree.leaves(pull)) == value.size + kernel.size


@each_kind
def test_over_the_devices_of_a_mesh_no_activations_are_gathered(function, shape, kernel_shape):
    value = jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(bsojax.data_mesh(), P("batch")))

    def gradients(value, kernel):
        return jax.grad(lambda value, kernel: jnp.sum(function(Spikes(value, value), kernel) ** 2), (0, 1))(
            value, kernel
        )

    text = jax.jit(gradients).lower(value, random(*kernel_shape)).compile().as_text()
    assert not re.findall(r"all-gather|all-to-all|collective-permute", text)
    assert "all-reduce" in text


@on_cpu
def test_a_depthwise_convolution_in_bfloat16_is_summed_in_float32():
    image, kernel = jnp.full((1, 32, 1), 1.0, jnp.bfloat16).repeat(2, -1), jnp.ones((31, 1, 2)).at[0].set(256.0)
    out = conv(image, kernel, padding="VALID", feature_group_count=2)
    # In bfloat16 256 + 1 is 256, and so all of the thirty ones would be lost.
    np.testing.assert_array_equal(out, jnp.full((1, 2, 2), 286.0, jnp.bfloat16))


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_a_batch_of_any_size_can_be_exported(dims):
    layers = (
        bsojax.BinaryConv(2, (3,) * dims),
        bsojax.BinaryConvTranspose(2, (3,) * dims, strides=2),
        bsojax.BinarySeparableConv(2, (3,) * dims),
    )
    (size,) = jax.export.symbolic_shape("b")
    for layer in layers:
        x = random(3, *(4,) * dims, 2)
        variables = layer.init(jax.random.key(0), x)
        batch = jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype)
        exported = jax.export.export(jax.jit(lambda x: layer.apply(variables, x)))(batch)
        np.testing.assert_allclose(exported.call(x), layer.apply(variables, x), rtol=1e-5, atol=1e-5)
