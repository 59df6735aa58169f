"""Data parallelism: ten steps on eight devices, three ways, give the signs of ten steps on one."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import bsojax

T, DEVICES, STEPS = 3, 8, 10
X = np.random.default_rng(0).random((16, 8, 8, 1)).astype(np.float32)
Y = np.arange(16) % 10


@functools.cache
def initial_variables():
    model = bsojax.models.SpikingVGG(channels=(8, 16, "M", 16))
    return bsojax.init(model, bsojax.split_optimizer(bsojax.bso(1.0), optax.sgd(0.1)), jax.random.key(0), X)


def initial_state(tx):
    state = jax.tree.map(jnp.copy, initial_variables())  # training donates it
    return dataclasses.replace(state, opt_state=tx.init(state.trainable))


def setup(axis_name=None, norm_axis=None, accumulate=False):
    norm = functools.partial(bsojax.BatchNorm, axis_name=norm_axis)
    model = bsojax.models.SpikingVGG(channels=(8, 16, "M", 16), norm=norm)
    tx = bsojax.split_optimizer(bsojax.t_bso(0.01, T, 0.9, 0.99), optax.sgd(0.1))
    return initial_state(tx), bsojax.make_train_step(model, tx, T, axis_name=axis_name, accumulate=accumulate)


def run(step, state, x, y):
    flips = 0
    for _ in range(STEPS):
        state, metrics = step(state, x, y)
        flips += sum(int(np.ravel(count)[0]) for count in metrics["flips"].values())
    return jax.device_get(state), jax.device_get(metrics), flips


def mesh():
    return jax.make_mesh((DEVICES,), ("batch",), axis_types=(AxisType.Auto,))


@functools.cache
def on_one_device(accumulate=False):
    state, step = setup(accumulate=accumulate)
    return run(step, state, X, Y)


def sharded_jit(accumulate):
    state, step = setup(accumulate=accumulate)
    x, y = jax.device_put((jnp.asarray(X), jnp.asarray(Y)), NamedSharding(mesh(), P("batch")))
    return run(step, jax.device_put(state, NamedSharding(mesh(), P())), x, y)


def sharded_map(accumulate, check_vma=True):
    state, step = setup("batch", "batch", accumulate)
    specs = {"in_specs": (P(), P("batch"), P("batch")), "out_specs": (P(), P())}
    mapped = jax.jit(jax.shard_map(step, mesh=mesh(), check_vma=check_vma, **specs))
    return run(mapped, state, jnp.asarray(X), jnp.asarray(Y))


def pmapped(accumulate, norm_axis="batch"):
    state, step = setup("batch", norm_axis, accumulate)
    state = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (DEVICES, *leaf.shape)), state)
    x, y = X.reshape(DEVICES, -1, *X.shape[1:]), Y.reshape(DEVICES, -1)
    state, metrics, flips = run(jax.pmap(step, axis_name="batch"), state, x, y)
    for leaf in jax.tree.leaves((state, metrics)):  # replicas must not drift apart
        np.testing.assert_array_equal(leaf, np.broadcast_to(leaf[:1], leaf.shape))
    return *jax.tree.map(lambda leaf: leaf[0], (state, metrics)), flips


all_ways = {
    "jit": (sharded_jit, False),
    "shard_map": (sharded_map, False),
    "shard_map, accumulated": (sharded_map, True),
    "shard_map, unchecked": (functools.partial(sharded_map, check_vma=False), False),
    "pmap": (pmapped, False),
}


@pytest.mark.parametrize(("way", "accumulate"), all_ways.values(), ids=all_ways.keys())
def test_eight_devices_give_the_bits_of_one(way, accumulate):
    assert len(jax.devices()) == DEVICES
    want, want_metrics, want_flips = on_one_device(accumulate)
    state, metrics, flips = way(accumulate)
    chex.assert_trees_all_equal(state.signs, want.signs)
    assert flips == want_flips > 0
    # The real parameters and the momentum differ by the order of float sums alone. A gradient summed over the devices
    # in place of averaged would be eight times as large.
    chex.assert_trees_all_close(state.params, want.params, rtol=1e-3, atol=1e-4)
    chex.assert_trees_all_close(state.opt_state, want.opt_state, rtol=2e-2, atol=1e-5)
    chex.assert_trees_all_close(state.batch_stats, want.batch_stats, rtol=1e-3, atol=1e-4)
    chex.assert_trees_all_close(metrics, want_metrics, rtol=1e-3)


def test_norms_without_an_axis_keep_equal_statistics_on_all_devices():
    state, _, _ = pmapped(False, norm_axis=None)  # asserts that replicas agree
    assert int(state.step) == STEPS
