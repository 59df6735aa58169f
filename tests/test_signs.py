"""Signs: their views as weights, packing, differentiation through them, and updates applied to them."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import bsojax

SHAPES = ((), (0,), (3, 0), (1,), (7,), (8,), (9,), (2, 3, 5))
DTYPES = (jnp.float32, jnp.bfloat16)
RNG = np.random.default_rng(0)
SIGNS = jnp.asarray(RNG.random((3, 2)) < 0.5)
PARAMS = {"layer": {"kernel": SIGNS}, "scale": jnp.array([0.5, -2.0])}
X = jnp.asarray(RNG.integers(-2, 3, (4, 3)), jnp.float32)

any_shape = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


def loss(params, x):
    return 0.5 * jnp.sum(jnp.square(x @ params["layer"]["kernel"] * params["scale"][None]))


def expected_value_and_grad(params, x):
    """The loss and its gradient by hand, in float64."""
    kernel = np.where(params["layer"]["kernel"], 1.0, -1.0)
    scale, x = np.asarray(params["scale"], np.float64), np.asarray(x, np.float64)
    y = x @ kernel
    gradient = {"layer": {"kernel": x.T @ (y * scale**2)}, "scale": np.sum(y**2 * scale, axis=0)}
    return 0.5 * np.sum((y * scale) ** 2), gradient


@given(signs=hnp.arrays(bool, any_shape))
def test_pack_signs_keeps_every_bit_at_one_bit_a_weight(signs):
    packed = bsojax.pack_signs({"kernel": jnp.asarray(signs)})["kernel"]
    assert packed.bits.dtype == jnp.uint8
    assert packed.bits.nbytes == -(-signs.size // 8)
    np.testing.assert_array_equal(packed.bits, np.packbits(signs.ravel()))
    restored = bsojax.unpack_signs({"kernel": packed})["kernel"]
    assert restored.dtype == jnp.bool_
    assert restored.shape == signs.shape
    np.testing.assert_array_equal(restored, signs)


@pytest.mark.parametrize("shape", SHAPES)
def test_pack_signs_under_jit(shape):
    signs = jnp.asarray(np.random.default_rng(1).random(shape) < 0.5)
    packed = jax.jit(bsojax.pack_signs)(signs)
    chex.assert_trees_all_equal(packed, bsojax.pack_signs(signs), strict=True)
    chex.assert_trees_all_equal(jax.jit(bsojax.unpack_signs)(packed), signs, strict=True)


def test_pack_signs_passes_real_leaves_through():
    packed = bsojax.pack_signs(PARAMS)
    assert packed["scale"] is PARAMS["scale"]
    assert isinstance(packed["layer"]["kernel"], bsojax.PackedSigns)
    chex.assert_trees_all_equal(bsojax.unpack_signs(packed), PARAMS, strict=True)


WRONG_BITS = {
    "one byte too few": jnp.zeros((1,), jnp.uint8),
    "one byte too many": jnp.zeros((3,), jnp.uint8),
    "wider than bytes": jnp.zeros((2,), jnp.int32),
    "not a vector": jnp.zeros((2, 1), jnp.uint8),
}


@pytest.mark.parametrize("bits", WRONG_BITS.values(), ids=WRONG_BITS)
def test_unpack_signs_refuses_other_bytes(bits):
    with pytest.raises(ValueError, match=r"packed: signs of shape \(3, 5\) take uint8\[2\], not"):
        bsojax.unpack_signs({"kernel": bsojax.PackedSigns(bits, (3, 5))})


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [*DTYPES, jnp.float16])
def test_to_weights_gives_plus_and_minus_one(shape, dtype):
    signs = jnp.asarray(np.random.default_rng(2).random(shape) < 0.5)
    weights = bsojax.to_weights(signs, dtype)
    assert weights.dtype == dtype
    np.testing.assert_array_equal(np.asarray(weights, np.float32), np.where(signs, 1.0, -1.0))
    chex.assert_trees_all_equal(bsojax.to_signs(weights), signs, strict=True)


def test_to_weights_leaves_other_leaves_alone():
    tree = {**PARAMS, "step": jnp.array(3), "half": jnp.ones(2, jnp.float16)}
    weights = bsojax.to_weights(tree, jnp.bfloat16)
    assert weights["layer"]["kernel"].dtype == jnp.bfloat16
    assert all(weights[name] is tree[name] for name in ("scale", "step", "half"))


def test_weights_need_a_floating_dtype():
    for function in (lambda: bsojax.to_weights(PARAMS, jnp.int8), lambda: bsojax.value_and_grad(loss, dtype=jnp.int8)):
        with pytest.raises(TypeError, match=r"dtype: .* floating dtype, not int8"):
            function()


def test_to_signs_counts_zero_as_positive():
    weights = {"kernel": jnp.array([-2.5, -0.0, 0.0, 1e-38, jnp.inf, -jnp.inf]), "bool": SIGNS}
    signs = bsojax.to_signs(weights)
    assert signs["kernel"].tolist() == [False, True, True, True, True, False]
    assert signs["bool"] is SIGNS


@pytest.mark.parametrize("dtype", DTYPES)
def test_value_and_grad_equals_the_gradient_by_hand(dtype):
    value, gradient = bsojax.value_and_grad(loss, dtype=dtype)(PARAMS, X)
    assert gradient["layer"]["kernel"].dtype == dtype
    assert gradient["scale"].dtype == jnp.float32, "real leaves keep their own dtype"
    expected = expected_value_and_grad(PARAMS, X)
    chex.assert_trees_all_equal_structs(gradient, expected[1])
    in_float32 = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), (value, gradient))
    chex.assert_trees_all_close(in_float32, expected, rtol=1e-6 if dtype == jnp.float32 else 2**-8)


ARGNUMS = (0, 1, -1, -2, (0,), (1, 0), (0, -1), (-2, 1))


@pytest.mark.parametrize("argnums", ARGNUMS)
def test_value_and_grad_argnums(argnums):
    def function(signs, weights, *, factor):
        # Signs in an argument that is not differentiated arrive as they are.
        return factor * jnp.sum(bsojax.to_weights(signs) * weights["kernel"] ** 2)

    real = jnp.asarray(RNG.normal(size=(3, 2)), jnp.float32)
    value, gradient = bsojax.value_and_grad(function, argnums)(SIGNS, {"kernel": real}, factor=3.0)
    by_hand = (3 * real**2, {"kernel": 6 * real * np.where(SIGNS, 1.0, -1.0).astype(np.float32)})
    expected = by_hand[argnums] if isinstance(argnums, int) else tuple(by_hand[number] for number in argnums)
    np.testing.assert_allclose(value, 3 * np.sum(np.where(SIGNS, 1.0, -1.0) * real**2), rtol=1e-5)
    chex.assert_trees_all_close(gradient, expected, rtol=1e-6)


def test_value_and_grad_returns_auxiliary_values():
    def function(params, x):
        return loss(params, x), {"kernel": params["layer"]["kernel"], "name": 7}

    (value, auxiliary), gradient = bsojax.value_and_grad(function, has_aux=True)(PARAMS, X)
    assert auxiliary["name"] == 7
    np.testing.assert_array_equal(auxiliary["kernel"], np.where(SIGNS, 1.0, -1.0))
    chex.assert_trees_all_close((value, gradient), expected_value_and_grad(PARAMS, X), rtol=1e-6)


def under_scan(params, x):
    return jax.lax.scan(lambda carry, _: (carry, bsojax.value_and_grad(loss)(carry, x)), params, length=2)[1]


def first(tree):
    return jax.tree.map(lambda leaf: leaf[0], tree)


def under_vmap(params, x):
    batch = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), params)
    return jax.vmap(bsojax.value_and_grad(loss), in_axes=(0, None))(batch, x)


TRANSFORMED = {
    "jit": jax.jit(bsojax.value_and_grad(loss)),
    "remat of the loss": bsojax.value_and_grad(jax.checkpoint(loss)),
    "remat of the whole": jax.checkpoint(bsojax.value_and_grad(loss)),
    "scan": lambda params, x: first(under_scan(params, x)),
    "vmap": lambda params, x: first(under_vmap(params, x)),
}


@pytest.mark.parametrize("function", TRANSFORMED.values(), ids=TRANSFORMED)
def test_value_and_grad_under_transformations(function):
    chex.assert_trees_all_close(function(PARAMS, X), expected_value_and_grad(PARAMS, X), rtol=1e-6)


def test_an_argument_that_is_not_differentiated_may_hold_anything():
    assert bsojax.value_and_grad(lambda x, tree: x * tree["count"])(2.0, {"count": jnp.array(3)})[1] == 3.0


def delta(signs, flips):
    return np.where(flips, np.where(signs, -1, 1), 0).astype(np.int8)


@given(signs=hnp.arrays(bool, (5, 3)), flips=hnp.arrays(bool, (5, 3)), real=st.floats(-4, 4, width=16))
def test_apply_updates_is_xor_and_equals_optax(signs, flips, real):
    params = {"kernel": jnp.asarray(signs), "bias": jnp.ones(())}
    updates = {"kernel": jnp.asarray(delta(signs, flips)), "bias": jnp.float32(real)}
    for apply in (bsojax.apply_updates, optax.apply_updates, jax.jit(bsojax.apply_updates)):
        new = apply(params, updates)
        assert new["kernel"].dtype == jnp.bool_
        np.testing.assert_array_equal(new["kernel"], signs ^ flips)
        assert new["bias"] == 1 + np.float32(real)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.bool_, jnp.int32, jnp.uint8])
def test_apply_updates_refuses_another_dtype_at_trace_time_by_leaf_name(dtype):
    updates = {"layer": {"kernel": jnp.zeros((3, 2), dtype)}, "scale": jnp.zeros(2)}
    with pytest.raises(TypeError, match=f"updates: sign leaf 'layer/kernel' got a {jnp.dtype(dtype)} update.*int8"):
        jax.eval_shape(bsojax.apply_updates, PARAMS, updates)


WRONG_UPDATES = {
    "a leaf is missing": (
        {"layer": {"kernel": jnp.zeros((3, 2), jnp.int8)}},
        "updates: leaf 'scale' must be .* is missing",
    ),
    "a sign leaf would broadcast": (
        {"layer": {"kernel": jnp.zeros((1, 2), jnp.int8)}, "scale": jnp.zeros(2)},
        r"updates: .*leaf 'layer/kernel' must be \(3, 2\), and is \(1, 2\)",
    ),
    "a real leaf would broadcast": (
        {"layer": {"kernel": jnp.zeros((3, 2), jnp.int8)}, "scale": jnp.zeros(1)},
        r"updates: .*leaf 'scale' must be \(2,\), and is \(1,\)",
    ),
}


@pytest.mark.parametrize(("updates", "message"), WRONG_UPDATES.values(), ids=WRONG_UPDATES)
def test_apply_updates_refuses_other_trees_and_shapes(updates, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(bsojax.apply_updates, PARAMS, updates)


def test_exported_programs_take_packed_signs():
    packed = bsojax.pack_signs({"kernel": jnp.ones((3, 5), bool), "scale": jnp.ones(())})
    program = jax.jit(lambda tree, x: x @ bsojax.to_weights(tree)["kernel"])
    (batch,) = jax.export.symbolic_shape("batch")
    exported = jax.export.export(program)(packed, jax.ShapeDtypeStruct((batch, 3), jnp.float32))
    again = jax.export.deserialize(exported.serialize())
    np.testing.assert_array_equal(again.call(packed, jnp.ones((4, 3))), np.full((4, 5), 3))
