"""Counting bits gives the bits of float32 products, whatever the numbers, and only where it is meant to."""

import contextlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from fast_and_slow import rarely
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import PartitionSpec as P

import bsojax
from bsojax.nn._geometry import conv_geometry
from bsojax.xla_cpu import _popcount, convolve_signs, multiply_signs, plain

T = 3
MODEL = bsojax.models.SpikingVGG(channels=(4, 8, "M", 8), num_classes=5)
X = np.random.default_rng(0).random((8, 8, 8, 1), np.float32)
Y = np.arange(8) % 5


@contextlib.contextmanager
def counting(many=1, means=1, outputs=1):
    """Within, products as small as those of tests are counted."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("MANY", many), ("MANY_OF_MEANS", means), ("OUTPUTS", outputs)):
            patch.setattr(_popcount, name, value)
        yield


@pytest.fixture
def _counting():
    with counting():
        yield


def counts(function, *arguments):
    """Whether a function, traced anew, counts the bits of words."""
    return bool(counted_words(jax.jit(lambda *arguments: function(*arguments)).lower(*arguments).as_text()))


def counted_words(text):
    return [line for line in text.splitlines() if "popcnt" in line and "ui32" in line]


def values(kind, shape, seed):
    rng = np.random.default_rng(seed)
    spikes = rng.random((*shape, 4)) < rng.choice([0.0, 0.2, 0.7, 1.0])
    found = (spikes.mean(-1) if kind == "means" else spikes[..., 0]).astype(np.float32)
    if kind == "one that is none":
        found[tuple(rng.integers(0, side) for side in shape)] = rng.choice([0.3, -1.0, 2.0, 0.125, 1.25, 3e9, 1e-30])
    return found


KINDS = st.sampled_from(["spikes", "means", "one that is none"])


@given(
    kind=KINDS,
    lead=st.lists(st.integers(1, 3), max_size=2),
    channels=st.integers(1, 70),
    features=st.integers(1, 9),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=6)
def test_products_have_the_bits_of_float_ones(kind, lead, channels, features, seed):
    x = values(kind, (*lead, channels), seed)
    signs = np.random.default_rng(seed + 1).random((channels, features)) < 0.5
    with counting():
        found = jax.jit(lambda x, signs: multiply_signs(x, signs))(x, signs)
    want = x @ np.where(signs, np.float32(1), np.float32(-1))
    if kind == "one that is none":
        np.testing.assert_allclose(found, jnp.matmul(x, bsojax.to_weights(jnp.asarray(signs))), rtol=1e-6, atol=1e-6)
    else:
        np.testing.assert_array_equal(found, want)


@given(data=st.data(), kind=KINDS, dims=st.integers(1, 3), seed=st.integers(0, 2**16))
@settings(max_examples=8)
def test_convolutions_have_the_bits_of_float_ones(data, kind, dims, seed):
    each = lambda low, high: data.draw(st.tuples(*[st.integers(low, high)] * dims))  # noqa: E731
    groups = data.draw(st.sampled_from([1, 1, 1, 2]))
    channels = groups * data.draw(st.integers(1, 40 // groups))
    size, space, sides = each(1, 3), each(3, 6), data.draw(st.sampled_from(["SAME", "VALID", 1, -1]))
    window = each(1, 2), sides, each(1, 2) if sides == "SAME" else 1, groups
    x = values(kind, (data.draw(st.integers(1, 3)), *space, channels), seed)
    signs = np.random.default_rng(seed + 1).random((*size, channels // groups, 2 * groups)) < 0.5
    try:
        geometry = conv_geometry(x.shape, size, *window)
    except ValueError:
        return  # the kernel does not fit
    with counting(means=data.draw(st.sampled_from([1, 10**6]))):
        run = lambda x, signs: convolve_signs(geometry, x, signs)  # noqa: E731
        assert counts(run, x, signs) == (dims < 3 and groups == 1 and sides != -1)
        found = jax.jit(run)(x, signs)
    with plain():
        want = jax.jit(lambda x, w: bsojax.conv(x, w, *window))(x, np.where(signs, np.float32(1), np.float32(-1)))
    if kind == "one that is none":
        np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-5)
    else:
        np.testing.assert_array_equal(found, want)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.usefixtures("_counting")
def test_what_is_not_finite_is_no_spike(value):
    x = values("spikes", (4, 40), 0)
    x[2, 7] = value
    signs = np.random.default_rng(1).random((40, 5)) < 0.5
    found = np.asarray(jax.jit(lambda x: multiply_signs(x, signs))(x))
    assert not np.isfinite(found[2]).any()
    assert np.isfinite(np.delete(found, 2, 0)).all()


@given(shape=st.tuples(st.integers(1, 3), st.integers(1, 70), st.integers(1, 3)))
@settings(max_examples=6)  # each one compiles
def test_words_hold_each_boolean_once_and_those_of_signs_in_the_same_order(shape):
    bits = np.random.default_rng(shape[1]).random(shape) < 0.5
    words = np.asarray(jax.jit(_popcount.words_of_spikes)(bits.swapaxes(1, 2)))
    assert words.dtype == np.uint32
    assert words.shape[-1] == -(-shape[1] // 32)
    places = (words[..., None, :] >> np.arange(32)[:, None]) & 1
    flat = places.reshape(*places.shape[:-2], -1)
    np.testing.assert_array_equal(flat[..., : shape[1]], bits.swapaxes(1, 2))
    assert not flat[..., shape[1] :].any()
    of_signs = jax.jit(_popcount.words_of_signs)(bits)
    np.testing.assert_array_equal(of_signs, words.swapaxes(1, 2).reshape(-1, shape[2]))


@pytest.fixture(scope="module")
def state():
    tx = bsojax.split_optimizer(bsojax.t_bso(5e-3, num_steps=T), optax.sgd(0.1))
    return bsojax.refresh_statistics(MODEL, bsojax.init(MODEL, tx, jax.random.key(0), X), [X], T)


def evaluation():
    """A program of its own."""
    return bsojax.make_eval_step(MODEL, T, metrics={"spread": lambda logits, y: jnp.var(logits, -1)})


@pytest.fixture(scope="module")
def by_floats():
    return evaluation()


@pytest.mark.parametrize("case", ["packed and masked", *rarely("sequence", "not finite")])
def test_networks_answer_alike(state, by_floats, case):
    x, mask = jnp.asarray(X), None
    if case == "sequence":
        x = jnp.stack([x, 1 - x, x[::-1]])
    if case == "packed and masked":
        mask = np.arange(8) % 3 <= np.arange(T)[:, None]
        state = state.replace(signs=bsojax.pack_signs(state.signs))
    if case == "not finite":
        x = x.at[3].set(jnp.nan)
    want = by_floats(state, x, jnp.asarray(Y), mask=mask)
    by_bits = evaluation()
    with counting():
        found = by_bits(state, x, jnp.asarray(Y), mask=mask)
        assert counted_words(by_bits.lower(state, x, jnp.asarray(Y), mask=mask).as_text())
    assert not counted_words(by_floats.lower(state, x, jnp.asarray(Y), mask=mask).as_text())
    chex.assert_trees_all_equal(found, want)
    assert want["spread"] > 0


@pytest.mark.usefixtures("_counting")
def test_training_counts_nothing(state):
    tx = bsojax.split_optimizer(bsojax.t_bso(5e-3, num_steps=T), optax.sgd(0.1))
    lowered = bsojax.make_train_step(MODEL, tx, T).lower(state, jnp.asarray(X), jnp.asarray(Y))
    assert not counted_words(lowered.as_text())


@pytest.mark.usefixtures("_counting")
def test_other_numbers_and_platforms_are_left_to_xla():
    x, signs = jnp.ones((2, 40)), jnp.ones((40, 3), bool)
    assert counts(multiply_signs, x, signs)
    assert not counts(multiply_signs, x.astype(jnp.bfloat16), signs)
    with plain():
        assert not counts(lambda x: multiply_signs(x, signs), x)
    (size,) = jax.export.symbolic_shape("b")
    exported = jax.export.export(jax.jit(lambda x: bsojax.dense(x, signs)))(jax.ShapeDtypeStruct((size, 40), x.dtype))
    assert not counted_words(exported.mlir_module())
    lowered = jax.jit(lambda x: bsojax.dense(x, signs)).trace(x).lower(lowering_platforms=("cuda",))
    assert not counted_words(lowered.as_text())


def test_small_layers_and_sums_beyond_float32_are_left_to_xla():
    many, outputs = _popcount.MANY, _popcount.OUTPUTS
    for inputs, features, counted in (
        (many, outputs, True),
        (many - 1, outputs, False),
        (many, outputs - 1, False),
        (_popcount.EXACT // _popcount.PARTS, outputs, False),
    ):
        shapes = jax.ShapeDtypeStruct((1, inputs), jnp.float32), jax.ShapeDtypeStruct((inputs, features), bool)
        assert counts(lambda x, signs: multiply_signs(x, signs), *shapes) == counted


@pytest.mark.usefixtures("_counting")
def test_gradients_are_those_of_the_float_product():
    x, signs = jnp.asarray(values("spikes", (3, 40), 0)), jnp.asarray(values("spikes", (40, 5), 1) > 0)
    weights, g = bsojax.to_weights(signs), jnp.asarray(np.random.default_rng(2).random((3, 5), np.float32))
    image, kernel = x.reshape(1, 3, 8, 5), signs[:15].reshape(3, 1, 5, 5)

    @jax.jit
    def both(x, image, signs, kernel):
        _, pull_back = jax.vjp(lambda x: bsojax.dense(x, signs), x)
        _, tangent = jax.jvp(lambda x: bsojax.dense(x, signs), (x,), (2 * x,))
        return pull_back(g)[0], tangent, jax.grad(lambda image: bsojax.conv(image, kernel).var())(image)

    geometry = conv_geometry(image.shape, (3, 1))
    _, found = jax.jvp(lambda image: convolve_signs(geometry, image, kernel), (image,), (2 * image,))
    np.testing.assert_allclose(found, 2 * bsojax.conv(image, bsojax.to_weights(kernel)), rtol=1e-6)
    found = both(x, image, signs, kernel)
    want = both(x, image, weights, bsojax.to_weights(kernel))
    chex.assert_trees_all_close(found, want, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(found[0], g @ weights.T, rtol=1e-6)


@pytest.mark.usefixtures("_counting")
def test_under_vmap_each_example_is_looked_at_by_itself():
    signs = jnp.asarray(values("spikes", (40, 5), 1) > 0)
    x = jnp.stack([jnp.asarray(values(kind, (3, 40), 0)) for kind in ("spikes", "means", "one that is none")])
    found = jax.jit(jax.vmap(lambda x: multiply_signs(x, signs)))(x)
    np.testing.assert_allclose(found, x @ bsojax.to_weights(signs), rtol=1e-6, atol=1e-6)


@pytest.mark.slow
@pytest.mark.usefixtures("_counting")
def test_batches_split_over_devices(state, by_floats):
    mesh, by_bits = bsojax.data_mesh(), evaluation()
    split, same = (jax.sharding.NamedSharding(mesh, spec) for spec in (P(*mesh.axis_names), P()))
    x, y = jax.device_put((jnp.asarray(X), jnp.asarray(Y)), split)
    found = by_bits(jax.device_put(state, same), x, y)
    assert counted_words(by_bits.lower(state, x, y).as_text())
    chex.assert_trees_all_close(found, by_floats(state, X, Y), rtol=1e-5)


@pytest.mark.usefixtures("_counting")
@pytest.mark.parametrize("many", ["inputs", "signs"])
def test_in_a_program_of_each_device(many):
    mesh, signs = bsojax.data_mesh(), jnp.asarray(values("spikes", (8, 40, 5), 1) > 0)
    axis, x = mesh.axis_names[0], jnp.asarray(values("means", (8, 4, 40), 2))
    x, signs = (x, signs[0]) if many == "inputs" else (x[0], signs)
    specs = (P(axis), P()) if many == "inputs" else (P(), P(axis))
    local = lambda x, signs: multiply_signs(x, signs.reshape(40, 5))[None]  # noqa: E731
    run = jax.jit(jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=P(axis)))
    assert counted_words(run.lower(x, signs).as_text())
    np.testing.assert_array_equal(run(x, signs).reshape(8, 4, 5), x @ bsojax.to_weights(signs))
