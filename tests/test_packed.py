"""Signs packed in training: the same bits as booleans, in an eighth of their bytes, and refused where they must be."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from fast_and_slow import SLOW
from hypothesis import given, settings
from hypothesis import strategies as st

import bsojax
from bsojax.signs import Kernel, count_flips, count_signs

pytestmark = pytest.mark.optimised

T = 3
flips = {
    "bso": bsojax.bso(1e-4, 0.9),
    "bso, reset": bsojax.bso(1e-4, 0.9, reset_on_flip=True),
    "t_bso": bsojax.t_bso(0.1, T, 0.9, 0.99, debias=True),
    "t_bso, int8": bsojax.t_bso(0.1, T, 0.9, 0.99, momentum_dtype="int8"),
    "chain": optax.chain(
        bsojax.scale_by_channel_rms(), optax.clip_by_global_norm(3.0), bsojax.t_bso(0.1, T, 0.9, 0.99)
    ),
}
models = {
    "vgg": (functools.partial(bsojax.models.SpikingVGG, channels=(8, "M", 16)), (8, 8, 1)),
    "mlp, binary ends, no whole bytes": (
        functools.partial(bsojax.models.SpikingMLP, features=(13, 7), binary_ends=True),
        (5,),
    ),
}


def trained(model, shape, flip, packed, batches=4, **options):
    tx = bsojax.split_optimizer(flip, optax.sgd(0.1, momentum=0.9))
    x = jnp.asarray(np.random.default_rng(0).random((8, *shape)), jnp.float32)
    state = bsojax.init(model, tx, jax.random.key(0), x, packed=packed)
    step = bsojax.make_train_step(model, tx, T, **options)
    seen = []
    for _ in range(batches):
        state, metrics = step(state, x, jnp.arange(8) % 4)
        seen.append(metrics)
    assert step._cache_size() == 1
    return state, seen, bsojax.make_eval_step(model, T)(state, x, jnp.arange(8) % 4)


@pytest.mark.parametrize(
    ("kind", "flip"),
    [
        pytest.param(kind, flip, id=f"{model}-{name}", marks=() if (model[:3], name) == ("mlp", "t_bso") else SLOW)
        for model, kind in models.items()
        for name, flip in flips.items()
    ],
)
def test_training_has_the_bits_of_training_on_booleans(kind, flip):
    model, shape = kind[0](num_classes=4), kind[1]
    booleans, packed = (trained(model, shape, flip, packed) for packed in (False, True))
    assert sum(sum(metrics["flips"].values()) for metrics in booleans[1]) > 0
    assert all(leaf.dtype == jnp.uint8 for leaf in jax.tree.leaves(packed[0].signs))
    chex.assert_trees_all_equal(bsojax.unpack_signs(packed[0].signs), booleans[0].signs)
    chex.assert_trees_all_equal(packed[0].params, booleans[0].params)
    chex.assert_trees_all_equal(packed[0].opt_state, booleans[0].opt_state)
    chex.assert_trees_all_equal(packed[1:], booleans[1:])


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"backward_steps": 1}, {"accumulate": True}, {"dtype": jnp.bfloat16}])
def test_so_do_the_other_modes_of_the_step(options):
    (make, shape), flip = models["vgg"], flips["t_bso"]
    booleans, packed = (trained(make(num_classes=4), shape, flip, packed, **options) for packed in (False, True))
    chex.assert_trees_all_equal(bsojax.unpack_signs(packed[0].signs), booleans[0].signs)
    chex.assert_trees_all_equal(packed[1:], booleans[1:])


@pytest.mark.parametrize("layer", [bsojax.BinaryDense(6), bsojax.BinaryConv(6, (3, 3), feature_group_count=2)])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_layers_gradients_are_those_of_its_weights(layer, dtype):
    rng = np.random.default_rng(1)
    value, trace = (jnp.asarray(rng.random((2, 5, 5, 4)), dtype) for _ in range(2))
    signs = layer.init(jax.random.key(0), value)["signs"]["kernel"]
    g = jnp.asarray(rng.standard_normal((2, 5, 5, 6)), dtype)
    packed = bsojax.pack_signs(signs)

    def weighed(kernel, value):
        return jnp.sum(g * layer.apply({"signs": {"kernel": kernel}}, bsojax.Spikes(value, trace)))

    def of_probe(probe, value):
        return weighed(Kernel(probe, packed), value)

    weights = jax.jit(jax.value_and_grad(weighed, (0, 1)))(bsojax.to_weights(signs, dtype), value)
    probes = jax.jit(jax.value_and_grad(of_probe, (0, 1)))(jnp.full(signs.shape, jnp.nan, dtype), value)
    chex.assert_trees_all_equal(probes, weights)


@jax.jit
def updated(signs, grads):
    """By booleans and by packed signs: the signs after an update, those that optax makes of it, the counted flips."""
    tx, results = bsojax.checked(bsojax.bso(0.1, 0.0)), []
    for held in (signs, bsojax.pack_signs(signs)):
        updates, _ = tx.update(grads, tx.init(held), held)
        after, of_optax = bsojax.apply_updates(held, updates), optax.apply_updates(held, updates)
        results.append((bsojax.unpack_signs(after), bsojax.unpack_signs(of_optax), count_flips(held, updates)))
    return results


@settings(max_examples=8)  # each shape compiles
@given(shape=st.sampled_from([(1,), (7,), (8,), (3, 5), (3, 3, 2, 4)]), seed=st.integers(0, 2**16))
def test_an_update_flips_what_it_says_and_counts_it(shape, seed):
    rng = np.random.default_rng(seed)
    signs = {"kernel": rng.random(shape) < 0.5, "other": rng.random((2, 9)) < 0.5}
    grads = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape).astype(np.float32), signs)
    booleans, packed = updated(signs, grads)
    chex.assert_trees_all_equal(booleans, packed)
    after, of_optax, counted = packed
    chex.assert_trees_all_equal(after, of_optax)
    changed = jax.tree.map(lambda one, two: int(np.sum(one != two)), signs, after)
    assert {key: int(value) for key, value in counted.items()} == changed


def test_an_update_that_would_ruin_the_bytes_is_refused():
    held = bsojax.pack_signs({"kernel": jnp.ones((3, 8), bool)})
    for dtype in (jnp.float32, jnp.int8, jnp.bool_):
        updates = {"kernel": bsojax.PackedSigns(jnp.zeros(3, dtype), (3, 8))}
        with pytest.raises(TypeError, match="sign leaf 'kernel' got a .* needs an uint8 delta of its bytes"):
            bsojax.apply_updates(held, updates)
    cut = bsojax.PackedSigns(held["kernel"].bits[:1], (3, 8))
    with pytest.raises(ValueError, match="was the array cut or converted"):
        bsojax.unpack_signs(cut)
    with pytest.raises(ValueError, match="updates: leaf 'kernel/bits' must be .* is missing"):
        bsojax.apply_updates(held, {"kernel": jnp.zeros((3, 8), jnp.int8)})


def test_weights_and_gradients_of_packed_signs_are_those_of_booleans():
    signs = {"kernel": jnp.asarray([True, False, True])}
    packed = bsojax.pack_signs(signs)
    chex.assert_trees_all_equal(bsojax.to_weights(packed), bsojax.to_weights(signs))

    def fun(weights):
        return jnp.sum(weights["kernel"] * jnp.arange(3.0))

    chex.assert_trees_all_equal(bsojax.value_and_grad(fun)(packed), bsojax.value_and_grad(fun)(signs))


@pytest.mark.slow
def test_the_bits_of_a_binary_weight_in_training():
    """One for the sign, and those of the momentum; scales and counters are apart, below a fortieth of a bit."""
    model = bsojax.models.SpikingVGG()
    x = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    for dtype, bits in (("float32", 33), ("bfloat16", 17), ("int16", 17), ("int8", 9)):
        tx = bsojax.split_optimizer(bsojax.t_bso(5e-7, 4, momentum_dtype=dtype), optax.sgd(0.1))
        make = functools.partial(bsojax.init, model, tx, packed=True)
        state = jax.eval_shape(lambda key, make=make: make(key, x), jax.random.key(0))
        report, count = bsojax.memory_report(state), count_signs(state.signs)
        assert count == 9_216_000
        assert report["signs"] == report["signs_packed"] == count // 8
        stored = 8 * (report["signs"] + report["momentum"] + report["optimizer_other"]) / count
        assert bits <= stored <= bits + 1 / 40, (dtype, stored)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_a_packed_step_takes_no_more_bytes_than_one_on_booleans(dtype):
    """Flip optimizers are shown booleans; the compiler makes them where they are used, not all at once."""
    model = bsojax.models.SpikingVGG(channels=(32, 64, "M", 128))
    tx = bsojax.split_optimizer(bsojax.t_bso(5e-7, T, momentum_dtype=dtype), optax.sgd(0.1))
    x, y = jax.ShapeDtypeStruct((4, 8, 8, 3), jnp.float32), jax.ShapeDtypeStruct((4,), jnp.int32)
    found, count = {}, 9 * (32 * 64 + 64 * 128)
    for packed in (False, True):
        make = functools.partial(bsojax.init, model, tx, packed=packed)
        state = jax.eval_shape(lambda key, make=make: make(key, x), jax.random.key(0))
        report = bsojax.memory_report(state, step=bsojax.make_train_step(model, tx, T), x=x, y=y)
        found[packed] = report["step_arguments"], report["step_temporaries"]
    assert found[False][0] - found[True][0] == count - count // 8
    assert found[True][1] <= found[False][1]
