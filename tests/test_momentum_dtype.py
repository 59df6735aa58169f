"""An optimizer whose momentum is stored in another dtype: its state is plain, its signs follow those of float32."""

import functools
import math

import chex
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from momenta import (
    INTEGERS,
    ROUNDED,
    T,
    draw_gradients,
    draw_signs,
    each_dtype,
    each_rounded,
    equal,
    follower,
    to_float,
    trainer,
)

import bsojax
from experiments import build
from experiments.config import Config


@pytest.mark.parametrize(("optimizer", "dtype"), [*(("bso", dtype) for dtype in ROUNDED), ("t_bso", "int8")])
def test_a_gradient_that_is_not_finite_leaves_the_momentum_bit_for_bit(optimizer, dtype):
    make = bsojax.bso if optimizer == "bso" else functools.partial(bsojax.t_bso, num_steps=T)
    tx, signs = make(0.01, b1=0.9, momentum_dtype=dtype), draw_signs()
    update = jax.jit(tx.update)
    _, state = update(draw_gradients(signs), tx.init(signs), signs)
    for bad in (jnp.nan, jnp.inf, -jnp.inf):
        gradients = draw_gradients(signs, seed=2)
        gradients["a"] = gradients["a"].at[1, 2, 3].set(bad)
        deltas, after = update(gradients, state, signs)
        assert not any(jnp.any(delta) for delta in jax.tree.leaves(deltas))
        equal(after.momentum, state.momentum)
    assert int(after.skipped) == int(state.skipped) + 1


@each_rounded
def test_reset_on_flip_zeroes_what_flipped_and_no_other(dtype):
    signs, gradients = draw_signs(), draw_gradients(draw_signs())
    states = []
    for reset in (False, True):
        tx = bsojax.bso(0.01, 0.9, reset_on_flip=reset, momentum_dtype=dtype)
        deltas, state = jax.jit(tx.update)(gradients, tx.init(signs), signs)
        states.append(to_float(state.momentum))
    assert sum(int(jnp.sum(delta != 0)) for delta in jax.tree.leaves(deltas)) > 10
    equal(jax.tree.map(lambda m, delta: jnp.where(delta != 0, 0, m), states[0], deltas), states[1])


DISAGREEMENT = {"bfloat16": 0.006, "int16": 0.0005, "int8": 0.03}


@each_rounded
@pytest.mark.parametrize("reset", [False, True])
def test_signs_agree_with_those_of_float32_almost_everywhere(dtype, reset):
    signs, b1 = jnp.ones((512, 4), bool), 0.99
    rng = np.random.default_rng(10)
    gradients = (rng.normal(size=(600, 512, 4)) + 0.05 * rng.normal(size=(512, 4))).astype(np.float32)
    threshold = bsojax.noise_threshold(b1, 0.5)
    got, want = (
        np.asarray(trainer(name, debias=True, reset_on_flip=reset)(threshold, b1, signs, gradients)[0])
        for name in (dtype, "float32")
    )
    assert np.sum(want[1:] != want[:-1]) > 2000
    # With reset an early or late flip is remembered, as two runs of float32 with other gradients would.
    assert np.mean(got != want) < DISAGREEMENT[dtype] * (3 if reset else 1)


def growing(count):
    return 1 - 1 / (10 + 0.2 * count)


@each_rounded
@pytest.mark.parametrize(("optimizer", "options"), [("bso", {}), ("t_bso", {"debias": True})])
def test_schedules_and_options_follow_float32(dtype, optimizer, options):
    signs, gradients = draw_signs(), draw_gradients(draw_signs(), 40)
    threshold = bsojax.noise_threshold(0.99)
    _, got = trainer(dtype, optimizer, **options)(threshold, growing, signs, gradients)
    _, want = trainer("float32", optimizer, **options)(threshold, growing, signs, gradients)
    chex.assert_trees_all_close(to_float(got.momentum), want.momentum, atol=0.04 if dtype == "int8" else 0.01)
    chex.assert_trees_all_close(got._replace(momentum=None), want._replace(momentum=None), rtol=1e-6)


@each_rounded
def test_a_seed_decides_the_bits(dtype):
    signs, gradients = draw_signs(), draw_gradients(draw_signs(), 20)
    run = trainer(dtype)
    first, again, other = (run(0.1, 0.9, signs, gradients, seed)[1].momentum for seed in (0, 0, 2**31 - 1))
    equal(first, again)
    a, b = (np.asarray(leaf["a"].values if dtype in INTEGERS else leaf["a"]) for leaf in (first, other))
    assert np.mean(a != b) > 0.2


@each_rounded
def test_leaves_and_weights_are_rounded_apart(dtype):
    gradients = {"a": jnp.full((20, 64), 0.3), "b": jnp.full((20, 64), 0.3)}
    history, _ = follower(dtype)(gradients, 0.9)
    for leaf in history.values():
        assert len(np.unique(leaf[5])) > 1
    assert np.any(np.asarray(history["a"]) != np.asarray(history["b"]))


def test_wrappers_of_optax_pass_the_momentum_on():
    dtype = "int8"
    params = {"signs": {"a": draw_signs()["a"]}, "params": {"w": jnp.ones(3)}}
    gradients = {"signs": draw_gradients(params["signs"]), "params": {"w": jnp.ones(3)}}
    inject = optax.inject_hyperparams(bsojax.t_bso, static_args="num_steps", hyperparam_dtype=jnp.float32)
    plain = bsojax.t_bso(0.1, T, 0.9, momentum_dtype=dtype)
    injected = inject(0.1, T, growing, momentum_dtype=dtype)
    for flip in (
        plain,
        optax.chain(optax.clip_by_global_norm(1.0), bsojax.scale_by_channel_rms(), plain),
        injected,
        optax.MultiSteps(plain, 1),
    ):
        tx = bsojax.split_optimizer(flip, optax.sgd(0.1))
        state = tx.init(params)
        step = jax.jit(tx.update, donate_argnums=1)
        for t in (0, 1):
            updates, state = step(gradients, state, params, time_step=t)
            bsojax.apply_updates(params, updates)
        momentum = optax.tree.get(state, "momentum", filtering=lambda path, _: "signs" in str(path))
        assert all(jnp.any(leaf) for leaf in jax.tree.leaves(to_float(momentum)))
        assert {leaf.dtype.name for leaf in jax.tree.leaves(momentum)} - {"float32"} == {dtype}


def through_flax(tree, path):
    blank = jax.tree.map(jnp.zeros_like, tree)
    return flax.serialization.from_bytes(blank, flax.serialization.to_bytes(tree))


def through_orbax(tree, path):
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path / "state", tree)
        checkpointer.wait_until_finished()
        return checkpointer.restore(path / "state", jax.tree.map(ocp.utils.to_shape_dtype_struct, tree))


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_a_stored_state_goes_on_as_if_nothing_had_happened(dtype, tmp_path):
    tx, signs = bsojax.bso(0.05, 0.9, momentum_dtype=dtype), draw_signs()
    update, gradients = jax.jit(tx.update), draw_gradients(signs, seed=2)
    _, state = update(draw_gradients(signs), tx.init(signs), signs)
    want = update(gradients, state, signs)
    for store in (through_flax, through_orbax):
        restored = store(state, tmp_path)
        equal(jax.tree.map(np.asarray, restored), jax.tree.map(np.asarray, state))
        equal(update(gradients, restored, signs), want)


def test_a_restored_state_of_numpy_arrays_is_taken_outside_of_jit(tmp_path):
    tx, signs = bsojax.bso(0.05, 0.9, momentum_dtype="int8"), {"a": draw_signs()["a"]}
    _, state = tx.update(draw_gradients(signs), through_flax(tx.init(signs), tmp_path), signs)
    assert jnp.any(state.momentum["a"].values)


@each_dtype
def test_donated_states_are_written_in_place(dtype):
    tx, signs = bsojax.bso(0.05, 0.9, momentum_dtype=dtype), draw_signs()
    state, gradients = tx.init(signs), draw_gradients(signs)
    want = jax.jit(tx.update)(gradients, state, signs)
    arguments = sum(leaf.nbytes for leaf in jax.tree.leaves(state.momentum))
    step = jax.jit(tx.update, donate_argnums=1)
    assert step.lower(gradients, state, signs).compile().memory_analysis().alias_size_in_bytes >= arguments
    equal(step(gradients, state, signs), want)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.momentum))


@each_dtype
def test_eight_devices_give_the_bits_of_one(dtype):
    mesh = jax.make_mesh((8,), ("channels",), axis_types=(AxisType.Auto,))
    signs = {"kernel": draw_signs()["a"]}
    tx = bsojax.bso(0.02, 0.9, momentum_dtype=dtype)
    update = jax.jit(tx.update)

    def spec(leaf):
        return NamedSharding(mesh, P(*(None,) * (leaf.ndim - 1), "channels") if leaf.ndim else P())

    def run(place):
        state, w, history = tx.init(signs), signs, []
        state, w = jax.device_put((state, w), place((state, w)))
        for n in range(5):
            gradient = draw_gradients(signs, seed=n)
            deltas, state = update(jax.device_put(gradient, place(gradient)), state, w)
            w = bsojax.apply_updates(w, deltas)
            history.append((w, state))
        return history

    one = run(lambda tree: jax.tree.map(lambda _: jax.devices()[0], tree))
    eight = run(lambda tree: jax.tree.map(spec, tree))
    assert all(len(leaf.sharding.device_set) == 8 for leaf in jax.tree.leaves(eight[-1][1].momentum))
    assert sum(leaf.size for leaf in jax.tree.leaves(one[-1][1].momentum)) > 90
    equal(jax.device_get(one), jax.device_get(eight))


# What is refused

BAD_DTYPES = (
    "float64",
    "float16",
    "uint8",
    "int32",
    "bool",
)


@pytest.mark.parametrize("make", [bsojax.bso, functools.partial(bsojax.t_bso, num_steps=T)])
@pytest.mark.parametrize("dtype", BAD_DTYPES, ids=repr)
def test_other_dtypes_are_refused(make, dtype):
    with pytest.raises(TypeError, match="momentum_dtype: needs one of float32, bfloat16, int16, int8, not"):
        make(0.1, momentum_dtype=dtype)


@pytest.mark.parametrize("dtype", [jnp.int8, np.int8, np.dtype("int8"), "int8"])
def test_a_dtype_may_be_written_in_any_way(dtype):
    assert bsojax.bso(0.1, momentum_dtype=dtype).init(draw_signs()).momentum["a"].values.dtype == jnp.int8


def test_the_largest_seed_is_taken():
    gradients = np.random.default_rng(11).normal(size=(3, 6, 4)).astype(np.float32)
    one, other = (follower("int8")(gradients, 0.9, np.uint32(seed))[0] for seed in (2**32 - 1, 0))
    assert np.any(np.asarray(one) != np.asarray(other))
    tx = bsojax.bso(math.inf, 0.9, momentum_dtype="int8", seed=2**32 - 1)
    _, state = jax.jit(tx.update)(gradients[0], tx.init(jnp.ones((6, 4), bool)), jnp.ones((6, 4), bool))
    np.testing.assert_allclose(state.momentum.to_float(), one[0], rtol=1e-5)


def test_a_state_of_another_dtype_or_scale_is_refused():
    signs, gradients = draw_signs(), draw_gradients(draw_signs())
    tx = bsojax.bso(0.1, momentum_dtype="int8")
    for other in ("float32", "int16"):
        with pytest.raises(ValueError, match="state: leaf 'momentum/a.*int8.*, and is .*made for .*momentum_dtype"):
            tx.update(gradients, bsojax.bso(0.1, momentum_dtype=other).init(signs), signs)
    with pytest.raises(ValueError, match="state: leaf 'momentum/a' must be float32.*, and is missing"):
        bsojax.bso(0.1).update(gradients, tx.init(signs), signs)
    state = tx.init(signs)
    state.momentum["a"] = state.momentum["a"].replace(scale=jnp.zeros(3))
    with pytest.raises(ValueError, match=r"state: leaf 'momentum/a/scale' must be float32\[16\], and is float32\[3\]"):
        tx.update(gradients, state, signs)
    state.momentum["a"] = tx.init(jnp.ones((2, 3, 15), bool)).momentum
    with pytest.raises(
        ValueError, match=r"state: leaf 'momentum/a/values' must be int8\[2, 3, 16\], and is int8\[2, 3, 15\]"
    ):
        tx.update(gradients, state, signs)


# On the command line


@pytest.mark.parametrize("preset", ["paper", "calibrated"])
@pytest.mark.parametrize("optimizer", ["bso", "bso-reset", "t-bso", "bop"])
def test_the_flag_reaches_every_rule_without_latent_weights(optimizer, preset):
    config = Config("digits", optimizer=optimizer, preset=preset, momentum_dtype="int16")
    params = {"signs": draw_signs(), "params": {"w": jnp.ones(3)}}
    state = build.make_optimizer(config, 100).init(params)
    assert sum(leaf.dtype == jnp.int16 for leaf in jax.tree.leaves(state)) == len(jax.tree.leaves(draw_signs()))


@pytest.mark.parametrize("optimizer", ["bptt-sgd", "bptt-adam", "ottt", "ndot", "sltt"])
def test_rules_with_latent_weights_refuse_the_flag(optimizer):
    with pytest.raises(ValueError, match=f"--momentum-dtype: '{optimizer}' trains latent weights"):
        build.make_optimizer(Config("digits", optimizer=optimizer, momentum_dtype="int8"), 100)
