"""Votes on flips: the packed exchange is the plain majority, and training by votes keeps replicas equal."""

import dataclasses
import functools
import re

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import PartitionSpec as P

import bsojax
from bsojax.online import Votes
from bsojax.signs import deltas

pytestmark = [pytest.mark.optimised, pytest.mark.slow]  # many programs are compiled

DEVICES, T, STEPS = 8, 2, 3
X = np.random.default_rng(0).random((2 * DEVICES, 12)).astype(np.float32)
Y = np.arange(2 * DEVICES) % 10


def by_psum(flips):
    count = jax.tree.map(lambda leaf: jax.lax.psum(leaf.astype(jnp.int32), "batch"), flips)
    return jax.tree.map(lambda leaf: 2 * leaf > jax.lax.axis_size("batch"), count)


def draw(devices, shapes, rate, seed):
    random = np.random.default_rng(seed)
    return {f"leaf {index}": jnp.asarray(random.random((devices, *shape)) < rate) for index, shape in enumerate(shapes)}


shapes = st.lists(st.lists(st.integers(0, 5), max_size=3).map(tuple), max_size=3)


@settings(max_examples=8)  # each one compiles
@given(st.integers(1, 8), shapes, st.sampled_from([0.0, 0.3, 0.5, 0.7, 1.0]), st.integers(0, 2**16))
def test_a_majority_is_that_of_a_plain_sum(devices, shapes, rate, seed):
    votes = draw(devices, shapes, rate, seed)
    both = jax.vmap(
        lambda votes: (bsojax.majority(votes, "batch"), by_psum(votes)), axis_name="batch", axis_size=devices
    )
    chex.assert_trees_all_equal(*both(votes))


def mapped_by_shard_map(function, devices, check_vma):
    mesh = bsojax.data_mesh(jax.devices()[:devices])
    specs = {"in_specs": P("batch"), "out_specs": P("batch"), "check_vma": check_vma}
    return jax.jit(jax.shard_map(function, mesh=mesh, **specs))


@pytest.mark.parametrize("devices", [1, 2, 3, 5, 8])
def test_devices_count_as_a_plain_sum_does(devices):
    votes = draw(devices, [(3, 5), (), (17,)], 0.5, devices)
    vote = functools.partial(bsojax.majority, axis_name="batch")
    want = jax.vmap(by_psum, axis_name="batch")(votes)
    chex.assert_trees_all_equal(jax.pmap(vote, axis_name="batch", devices=jax.devices()[:devices])(votes), want)
    for check_vma in (True, False):
        chex.assert_trees_all_equal(mapped_by_shard_map(vote, devices, check_vma)(votes), want)


def test_an_exchange_moves_two_bits_a_weight_as_bytes():
    weights = 8 * DEVICES * 10
    votes = jax.ShapeDtypeStruct((DEVICES, weights), bool)
    vote = mapped_by_shard_map(functools.partial(bsojax.majority, axis_name="batch"), DEVICES, True)
    text = vote.lower(votes).compile().as_text()
    found = re.findall(r" = (.*) (all-to-all|all-gather|all-reduce)\(", text)
    assert sorted(kind for _, kind in found) == ["all-gather", "all-to-all"]
    received = [(dtype, np.prod([int(size) for size in shape.split(",")])) for result, _ in found
                for dtype, shape in re.findall(r"(\w+)\[([\d,]+)\]", result)]  # fmt: skip
    assert {dtype for dtype, _ in received} == {"u8"}
    assert sum(size for _, size in received) * 8 == 2 * weights


@pytest.mark.parametrize("packed", [False, True])
def test_elected_updates_flip_what_the_majority_would(packed):
    signs = {"a": jnp.asarray(np.random.default_rng(1).random((3, 7)) < 0.5)}
    votes = draw(5, [(3, 7)], 0.5, 2)
    held = bsojax.pack_signs(signs) if packed else signs

    def flipped(vote):
        own = {"a": deltas(held["a"], vote["leaf 0"])}
        return bsojax.unpack_signs(bsojax.apply_updates(held, Votes("batch").updates(held, own)))

    found = jax.vmap(flipped, axis_name="batch")(votes)["a"]
    won = np.asarray(votes["leaf 0"]).sum(0) * 2 > 5
    np.testing.assert_array_equal(found, np.broadcast_to(signs["a"] ^ won, found.shape))


# Training.


def make(vote=True, packed=False, norm_axis="batch", num_steps=T, learning_rate=0.1, threshold=0.05, axis_name="batch"):
    norm = functools.partial(bsojax.BatchNorm, axis_name=norm_axis)
    model = bsojax.models.SpikingMLP(features=(16,), norm=norm, binary_ends=True)
    flip = bsojax.t_bso(threshold, num_steps, 0.8, 0.9, debias=True)
    tx = bsojax.split_optimizer(flip=flip, real=optax.sgd(learning_rate))
    start = bsojax.models.SpikingMLP(features=(16,), binary_ends=True)
    state = bsojax.init(start, tx, jax.random.key(0), X, packed=packed)
    return state, bsojax.make_train_step(model, tx, num_steps, axis_name=axis_name, vote=vote)


def on_each(state, devices=DEVICES):
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (devices, *leaf.shape)), state)


def shares(devices=DEVICES):
    return X.reshape(devices, -1, *X.shape[1:]), Y.reshape(devices, -1)


@functools.cache
def by_pmap(packed=False):
    state, step = make(packed=packed)
    state, mapped = on_each(state), jax.pmap(step, axis_name="batch")
    flips = 0
    for _ in range(STEPS):
        state, metrics = mapped(state, *shares())
        flips += sum(int(count[0]) for count in metrics["flips"].values())
    return jax.device_get(state), jax.device_get(metrics), flips


@pytest.mark.parametrize("packed", [False, True])
def test_replicas_stay_equal_and_each_has_its_own_momentum(packed):
    state, metrics, flips = by_pmap(packed)
    assert flips > 0
    for leaf in jax.tree.leaves((state.signs, state.params, state.batch_stats, state.step, state.skipped, metrics)):
        np.testing.assert_array_equal(leaf, np.broadcast_to(leaf[:1], leaf.shape))
    momentum = jax.tree.leaves(optax.tree.get(state.opt_state, "momentum"))
    assert all(np.abs(leaf - leaf[:1]).max() > 0 for leaf in momentum)
    if packed:
        plain, plain_metrics, _ = by_pmap()
        chex.assert_trees_all_equal(jax.vmap(bsojax.unpack_signs)(state.signs), plain.signs)
        chex.assert_trees_all_equal(metrics, plain_metrics)


def test_shard_map_and_vmap_are_pmap():
    want, _, _ = by_pmap()
    state, step = make()
    own = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (DEVICES, *leaf.shape)), state.opt_state)

    def local_step(state, x, y):
        state = dataclasses.replace(state, opt_state=jax.tree.map(lambda leaf: leaf[0], state.opt_state))
        state, metrics = step(state, x, y)
        return dataclasses.replace(state, opt_state=jax.tree.map(lambda leaf: leaf[None], state.opt_state)), metrics

    places = dataclasses.replace(jax.tree.map(lambda _: P(), state), opt_state=P("batch"))
    specs = {"in_specs": (places, P("batch"), P("batch")), "out_specs": (places, P())}
    mapped = jax.jit(jax.shard_map(local_step, mesh=bsojax.data_mesh(), check_vma=False, **specs))
    mapped_state = dataclasses.replace(state, opt_state=own)
    simulated, simulate = on_each(state), jax.jit(jax.vmap(step, axis_name="batch"))
    for _ in range(STEPS):
        mapped_state, _ = mapped(mapped_state, X, Y)
        simulated, _ = simulate(simulated, *shares())
    chex.assert_trees_all_equal(mapped_state.signs, jax.tree.map(lambda leaf: leaf[0], want.signs))
    chex.assert_trees_all_equal(simulated.signs, want.signs)
    chex.assert_trees_all_close(simulated.opt_state, want.opt_state, rtol=1e-4, atol=1e-6)

    checked = jax.shard_map(step, mesh=bsojax.data_mesh(), in_specs=(P(), P("batch"), P("batch")), out_specs=P())
    with pytest.raises(ValueError, match="give jax.shard_map check_vma=False"):
        checked(state, X, Y)


def test_one_device_votes_as_it_trains():
    states = []
    for vote in (True, False):
        state, step = make(vote=vote)
        mapped = jax.pmap(step, axis_name="batch", devices=jax.devices()[:1])
        state = on_each(state, 1)
        for _ in range(STEPS):
            state, _ = mapped(state, *shares(1))
        states.append(jax.device_get(state))
    chex.assert_trees_all_equal(*(one.signs for one in states))
    # Two programs: the compiler orders their float sums as it likes, and momenta here are about 1e-3.
    chex.assert_trees_all_close(*states, rtol=1e-4, atol=1e-7)


def test_a_vote_is_that_of_devices_that_train_alone():
    """The obvious version: each device takes a step of its own, and the flips of most are made in all."""
    options = {"norm_axis": None, "num_steps": 1, "learning_rate": 0.0, "threshold": 0.0}
    state, step = make(**options)
    voted, mapped = on_each(state), jax.pmap(step, axis_name="batch")
    _, alone = make(vote=False, axis_name=None, **options)
    signs, own = state.signs, [state.opt_state] * DEVICES
    xs, ys = shares()
    changed = 0
    for _ in range(5):
        voted, _ = mapped(voted, xs, ys)
        after = []
        for device in range(DEVICES):
            start = jax.tree.map(jnp.copy, dataclasses.replace(state, signs=signs, opt_state=own[device]))
            start = dataclasses.replace(start, opt_state=jax.tree.map(jnp.copy, own[device]))
            after.append(alone(start, xs[device], ys[device])[0])
        own = [one.opt_state for one in after]
        count = jax.tree.map(lambda *leaves: sum(leaf.astype(int) for leaf in leaves), *[one.signs for one in after])
        wanted = jax.tree.map(lambda old, ones: jnp.where(old, DEVICES - ones, ones) * 2 > DEVICES, signs, count)
        signs = jax.tree.map(jnp.logical_xor, signs, wanted)
        changed += sum(int(leaf.sum()) for leaf in jax.tree.leaves(wanted))
        chex.assert_trees_all_equal(jax.tree.map(lambda leaf: leaf[0], voted.signs), signs)
    assert changed > 0


class Signs(nn.Module):
    """Signs alone: no real gradient carries what is not finite from one device to another."""

    @nn.compact
    def __call__(self, x, train=False):
        return bsojax.BinaryDense(10, scale=bsojax.rsqrt_fan_in)(x)


def broken_at_seven(logits, y):
    # The root of zero has a value, and no gradient.
    return bsojax.cross_entropy_mse()(logits, y) + jnp.sum(jnp.sqrt(jnp.where(y[:, None] == 7, 0 * logits, 1.0)))


def test_all_devices_skip_what_one_must():
    tx = bsojax.split_optimizer(flip=bsojax.bso(0.0, 0.5), real=optax.sgd(0.1))
    state = on_each(bsojax.init(Signs(), tx, jax.random.key(0), X))
    step = bsojax.make_train_step(Signs(), tx, 1, loss=broken_at_seven, axis_name="batch", vote=True)
    mapped = jax.pmap(step, axis_name="batch")
    x, y = shares()
    assert [int((share == 7).sum()) for share in y] == [0, 0, 0, 1, 0, 0, 0, 0]
    before = jax.device_get(state)
    state, metrics = mapped(state, x, y)
    np.testing.assert_array_equal(metrics["skipped"], np.ones(DEVICES))
    assert np.isfinite(metrics["loss"]).all()
    chex.assert_trees_all_equal(state.signs, before.signs)
    chex.assert_trees_all_equal(*(optax.tree.get(one.opt_state, "momentum") for one in (state, before)))
    np.testing.assert_array_equal(optax.tree.get(state.opt_state, "skipped"), np.ones(DEVICES))
    state, metrics = mapped(state, x, np.where(y == 7, 6, y))
    np.testing.assert_array_equal(metrics["skipped"], np.zeros(DEVICES))
    assert int(jax.tree.leaves(metrics["flips"])[0][0]) > 0


def test_accumulated_gradients_are_voted_on_once():
    model = bsojax.models.SpikingMLP(features=(16,), norm=bsojax.BatchNorm, binary_ends=True)
    tx = bsojax.split_optimizer(flip=bsojax.bso(0.0, 0.5), real=optax.sgd(0.1))
    state = on_each(bsojax.init(model, tx, jax.random.key(0), X))
    step = bsojax.make_train_step(model, tx, T, accumulate=True, axis_name="batch", vote=True)
    state, metrics = jax.pmap(step, axis_name="batch")(state, *shares())
    assert sum(int(count[0]) for count in metrics["flips"].values()) > 0
    for leaf in jax.tree.leaves(state.signs):
        np.testing.assert_array_equal(leaf, np.broadcast_to(leaf[:1], leaf.shape))


def test_bad_arguments_are_refused():
    model = bsojax.models.SpikingMLP(features=(16,))
    tx = bsojax.split_optimizer(flip=bsojax.bso(0.1), real=optax.sgd(0.1))
    with pytest.raises(ValueError, match="vote: needs axis_name"):
        bsojax.make_train_step(model, tx, T, vote=True)
    with pytest.raises(ValueError, match="axis_name, mesh: .* give one of them"):
        bsojax.make_train_step(model, tx, T, axis_name="batch", mesh=bsojax.data_mesh())
