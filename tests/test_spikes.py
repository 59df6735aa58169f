"""Spikes: what is linear acts on value and trace, nothing is unpacked, and weights learn at the trace of what comes."""

import operator

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import bsojax
from bsojax import Spikes

rng = np.random.default_rng(0)
VALUE, TRACE, OTHER, OTHER_TRACE = (jnp.asarray(rng.standard_normal((3, 4)), jnp.float32) for _ in range(4))
A, B = Spikes(VALUE, TRACE), Spikes(OTHER, OTHER_TRACE)
ARRAY = np.asarray(rng.standard_normal((3, 4)), np.float32)

linear = {
    "a + b": (lambda: A + B, VALUE + OTHER, TRACE + OTHER_TRACE),
    "a - b": (lambda: A - B, VALUE - OTHER, TRACE - OTHER_TRACE),
    "-a": (lambda: -A, -VALUE, -TRACE),
    "a + array": (lambda: A + jnp.asarray(ARRAY), VALUE + ARRAY, TRACE + ARRAY),
    "array + a": (lambda: jnp.asarray(ARRAY) + A, VALUE + ARRAY, TRACE + ARRAY),
    "numpy + a": (lambda: ARRAY + A, VALUE + ARRAY, TRACE + ARRAY),
    "numpy - a": (lambda: ARRAY - A, ARRAY - VALUE, ARRAY - TRACE),
    "a * number": (lambda: A * 0.5, 0.5 * VALUE, 0.5 * TRACE),
    "number * a": (lambda: 0.5 * A, 0.5 * VALUE, 0.5 * TRACE),
    "a * -2": (lambda: A * -2, -2 * VALUE, -2 * TRACE),
    "NumPy number * a": (lambda: np.float32(0.3) * A, np.float32(0.3) * VALUE, np.float32(0.3) * TRACE),
    "number + a": (lambda: 0.25 + A, 0.25 + VALUE, 0.25 + TRACE),
    "a - number": (lambda: A - 2, VALUE - 2, TRACE - 2),
    "number - a": (lambda: 1 - A, 1 - VALUE, 1 - TRACE),
    "array - a": (lambda: jnp.asarray(ARRAY) - A, ARRAY - VALUE, ARRAY - TRACE),
    "a - b without trace": (lambda: A - Spikes(OTHER), VALUE - OTHER, TRACE - OTHER),
    "a / array": (lambda: A / ARRAY, VALUE / ARRAY, TRACE / ARRAY),
    "a[..., None]": (lambda: A[..., None], VALUE[..., None], TRACE[..., None]),
    "reshape of a tuple": (lambda: A.reshape((2, -1)), VALUE.reshape(2, 6), TRACE.reshape(2, 6)),
    "numpy * a": (lambda: ARRAY * A, ARRAY * VALUE, ARRAY * TRACE),
    "a / 2": (lambda: A / 2, VALUE / 2, TRACE / 2),
    "a without trace + b": (lambda: Spikes(VALUE) + B, VALUE + OTHER, VALUE + OTHER_TRACE),
    "a[:, 1:]": (lambda: A[:, 1:], VALUE[:, 1:], TRACE[:, 1:]),
    "reshape": (lambda: A.reshape(2, 6), VALUE.reshape(2, 6), TRACE.reshape(2, 6)),
    "concatenate": (
        lambda: bsojax.concatenate([A, B]),
        *(jnp.concatenate(p, -1) for p in ((VALUE, OTHER), (TRACE, OTHER_TRACE))),
    ),
    "concatenate with an array": (
        lambda: bsojax.concatenate([A, ARRAY], axis=0),
        jnp.concatenate([VALUE, ARRAY]),
        jnp.concatenate([TRACE, ARRAY]),
    ),
    "sum": (lambda: sum([B], start=A), VALUE + OTHER, TRACE + OTHER_TRACE),
}


@pytest.mark.parametrize(("make", "value", "trace"), linear.values(), ids=linear.keys())
def test_what_is_linear_acts_on_value_and_trace(make, value, trace):
    for found in (make(), jax.jit(make)()):
        assert isinstance(found, Spikes)
        np.testing.assert_allclose(found.value, value, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(found.trace, trace, rtol=1e-6, atol=1e-6)


def test_without_traces_there_is_none():
    for found in (Spikes(VALUE) + Spikes(OTHER), Spikes(VALUE) * 2, bsojax.concatenate([Spikes(VALUE), OTHER])):
        assert found.trace is None


def test_shape_and_dtype_are_the_value_s():
    assert (A.shape, A.ndim, A.dtype, len(A)) == ((3, 4), 2, jnp.float32, 3)
    assert [leaf.dtype for leaf in jax.tree.leaves(A.astype(jnp.bfloat16))] == [jnp.bfloat16, jnp.bfloat16]


def unpacked():
    spike, membrane = A
    return spike, membrane


no_pair = {
    "unpacked": unpacked,
    "iterated": lambda: list(A),
    "given as arguments": lambda: operator.add(*A),
    "in jnp.concatenate": lambda: jnp.concatenate(A),
    "in concatenate": lambda: bsojax.concatenate(A),
}


@pytest.mark.parametrize("use", no_pair.values(), ids=no_pair.keys())
def test_it_is_no_pair(use):
    with pytest.raises(TypeError, match=r"^Spikes: .*spikes\.value.*membrane_potential\(\)"):
        use()


@pytest.mark.parametrize("product", [operator.mul, operator.truediv])
def test_spikes_are_no_weights_of_spikes(product):
    with pytest.raises(TypeError, match=r"^Spikes: .*no trace; multiply spikes\.value"):
        product(A, B)


no_array = {
    "np.asarray": np.asarray,
    "jnp.asarray": jnp.asarray,
    "np.stack": lambda spikes: np.stack([spikes, spikes]),
    "flax's Dense": lambda spikes: nn.Dense(3).init(jax.random.key(0), spikes),
}


@pytest.mark.parametrize("use", no_array.values(), ids=no_array.keys())
@pytest.mark.parametrize("spikes", [A, Spikes(VALUE)], ids=["trace", "no trace"])
def test_no_array_is_made_of_them_and_the_cure_is_told(use, spikes):
    with pytest.raises(TypeError, match=r"^Spikes: .*take spikes\.value, or .*bsojax"):
        use(spikes)


arrays_alone = {
    "jnp.concatenate": lambda spikes: jnp.concatenate([spikes, spikes]),
    "jnp.sum": jnp.sum,
    "jnp.add": lambda spikes: jnp.add(ARRAY, spikes),
    "np.add": lambda spikes: np.add(ARRAY, spikes),
    "nn.max_pool": lambda spikes: nn.max_pool(spikes[None], (2,)),
    "nn.avg_pool": lambda spikes: nn.avg_pool(spikes[None], (2,)),
    "nn.relu": nn.relu,
    "a @ kernel": lambda spikes: spikes @ VALUE.T,
    "a > 0": lambda spikes: spikes > 0,
    "1 / a": lambda spikes: 1 / spikes,
}


@pytest.mark.parametrize("use", arrays_alone.values(), ids=arrays_alone.keys())
@pytest.mark.parametrize("spikes", [A, Spikes(VALUE)], ids=["trace", "no trace"])
def test_what_knows_arrays_alone_says_so(use, spikes):
    with pytest.raises((TypeError, ValueError), match="Spikes"):
        use(spikes)


@pytest.mark.parametrize("combine", [operator.add, operator.sub, lambda a, b: bsojax.concatenate([a, 2 * b])])
def test_weights_learn_at_the_trace_of_what_is_combined(combine):
    both = combine(A, B)
    kernel = jnp.asarray(rng.standard_normal((both.shape[-1], 5)), jnp.float32)
    g = jnp.asarray(rng.standard_normal((3, 5)), jnp.float32)

    def total(kernel, value, other):
        return jnp.sum(g * bsojax.dense(combine(Spikes(value, TRACE), Spikes(other, OTHER_TRACE)), kernel))

    of_kernel, of_value, of_other = jax.grad(total, (0, 1, 2))(kernel, VALUE, OTHER)
    np.testing.assert_allclose(of_kernel, both.trace.T @ g, rtol=1e-5, atol=1e-6)
    plain = jax.grad(lambda value, other: jnp.sum(g * (combine(Spikes(value), Spikes(other)).value @ kernel)), (0, 1))
    for found, want in zip((of_value, of_other), plain(VALUE, OTHER), strict=True):
        np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-6)


def test_layers_in_sequence_are_layers_by_hand():
    class ByHand(nn.Module):
        @nn.compact
        def __call__(self, x):
            spikes = bsojax.LIF(name="layers_1")(bsojax.BinaryDense(16, bsojax.rsqrt_fan_in, name="layers_0")(x))
            return bsojax.Dense(3, name="layers_2")(spikes)

    x, y = rng.random((8, 5), np.float32), np.arange(8) % 3
    tx = bsojax.split_optimizer(bsojax.t_bso(0.1, 2, b1=0.5), optax.sgd(0.1))
    found = []
    for model in (
        nn.Sequential([bsojax.BinaryDense(16, bsojax.rsqrt_fan_in), bsojax.LIF(), bsojax.Dense(3)]),
        ByHand(),
    ):
        state, step = bsojax.init(model, tx, jax.random.key(0), x), bsojax.make_train_step(model, tx, 2)
        before = np.asarray(state.signs["layers_0"]["kernel"])
        for _ in range(3):
            state, metrics = step(state, x, y)
        assert np.any(before != state.signs["layers_0"]["kernel"]), "nothing was trained"
        found.append((state.trainable, metrics["loss"]))
    for one, other in zip(*map(jax.tree.leaves, found), strict=True):
        np.testing.assert_array_equal(one, other)
