"""A training state on several devices: what is split, what it saves, and what is exchanged for it."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import bsojax

pytestmark = pytest.mark.optimised

T, BATCH, INPUTS, WIDTH = 2, 16, 32, 128
MODEL = bsojax.models.SpikingMLP(features=(WIDTH, WIDTH))
WEIGHTS = WIDTH * WIDTH
PLAIN = bsojax.t_bso(0.01, T)
FLIPS = {
    "float32": PLAIN,
    "int8": bsojax.t_bso(0.01, T, momentum_dtype="int8"),
    "int16": bsojax.t_bso(0.01, T, momentum_dtype="int16"),
    "calibrated": optax.chain(bsojax.scale_by_channel_rms(), bsojax.t_bso(0.01, T, debias=True)),
}


def optimizer(flip):
    return bsojax.split_optimizer(flip=flip, real=optax.sgd(0.1))


def shapes(flip=PLAIN, packed=False):
    x = jax.ShapeDtypeStruct((BATCH, INPUTS), jnp.float32)
    return jax.eval_shape(lambda key: bsojax.init(MODEL, optimizer(flip), key, x, packed=packed), jax.random.key(0))


@functools.cache
def compiled(devices, split=True, flip="float32", packed=False, with_mesh=True):
    """The program of a device and the shapes of its state."""
    mesh = bsojax.data_mesh(jax.devices()[:devices])
    state = shapes(FLIPS[flip], packed)
    shardings = bsojax.state_shardings(state, mesh, split_optimizer=split)
    placed = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), state, shardings
    )
    by_batch = NamedSharding(mesh, P("batch"))
    x = jax.ShapeDtypeStruct((BATCH, INPUTS), jnp.float32, sharding=by_batch)
    y = jax.ShapeDtypeStruct((BATCH,), jnp.int32, sharding=by_batch)
    step = bsojax.make_train_step(MODEL, optimizer(FLIPS[flip]), T, mesh=mesh if with_mesh else None)
    return jax.jit(step, out_shardings=(shardings, None), donate_argnums=0).lower(placed, x, y).compile()


def gathered(program):
    """The dtypes and elements of arrays that all-gather makes."""
    results = re.findall(r" = (.*) all-gather(?:-start)?\(", program.as_text())
    arrays = [array for result in results for array in re.findall(r"(\w+)\[([\d,]*)\]", result)]
    return [(dtype, int(np.prod([int(size) for size in sizes.split(",") if size]))) for dtype, sizes in arrays]


def test_a_mesh_is_over_all_devices_or_those_given():
    mesh = bsojax.data_mesh()
    assert mesh.axis_names == ("batch",)
    assert mesh.axis_types == (AxisType.Auto,)
    assert list(mesh.devices) == jax.devices()
    assert list(bsojax.data_mesh(jax.devices()[2:4]).devices) == jax.devices()[2:4]


@given(st.lists(st.integers(1, 40), max_size=4).map(tuple), st.integers(1, 8))
def test_a_leaf_is_split_along_one_axis_the_channels_where_they_can_be(shape, count):
    state = dataclasses.replace(shapes(), opt_state={"momentum": jax.ShapeDtypeStruct(shape, jnp.float32)})
    mesh = bsojax.data_mesh(jax.devices()[:count])
    sharding = bsojax.state_shardings(state, mesh, split_optimizer=True).opt_state["momentum"]
    split = [axis for axis, name in enumerate(sharding.spec) if name == "batch"]
    can_be = [axis for axis, size in enumerate(shape) if size % count == 0]
    if int(np.prod(shape)) < 4096 or not can_be:
        assert split == []
    else:
        (axis,) = split
        assert axis == len(shape) - 1 or (shape[-1] % count and shape[axis] == max(shape[axis] for axis in can_be))
        assert np.prod(sharding.shard_shape(shape)) * count == np.prod(shape)


@pytest.mark.parametrize("flip", FLIPS)
@pytest.mark.parametrize("packed", [False, True])
def test_only_large_leaves_of_the_optimizers_state_are_split(flip, packed):
    state, mesh = shapes(FLIPS[flip], packed), bsojax.data_mesh()
    whole = bsojax.state_shardings(state, mesh)
    assert jax.tree.structure(whole) == jax.tree.structure(state)
    assert all(sharding.is_fully_replicated for sharding in jax.tree.leaves(whole))
    split = bsojax.state_shardings(state, mesh, split_optimizer=True)
    rest = dataclasses.replace(split, opt_state=None)
    assert all(sharding.is_fully_replicated for sharding in jax.tree.leaves(rest))
    found = [
        (leaf.size, sharding.spec)
        for leaf, sharding in zip(jax.tree.leaves(state.opt_state), jax.tree.leaves(split.opt_state), strict=True)
        if not sharding.is_fully_replicated
    ]
    assert found == [(WEIGHTS, P(None, "batch"))]


def test_latent_weights_and_real_moments_are_split_too():
    tx = bsojax.split_optimizer(flip=optax.chain(bsojax.on_weights(optax.scale_by_adam()), PLAIN), real=optax.adam(0.1))
    x = jax.ShapeDtypeStruct((BATCH, INPUTS), jnp.float32)
    state = jax.eval_shape(lambda key: bsojax.init(MODEL, tx, key, x), jax.random.key(0))
    split = bsojax.state_shardings(state, bsojax.data_mesh(), split_optimizer=True)
    count = sum(not sharding.is_fully_replicated for sharding in jax.tree.leaves(split))
    assert count == 3 + 2  # mu, nu and momentum of the signs; mu and nu of the first layer's 32 x 128 weights


@pytest.mark.slow
def test_memory_of_a_device_falls_with_their_number():
    """The momentum's part of argument and temporary bytes falls in proportion; it is not gathered in the loop."""
    sizes = []
    for devices in (1, 2, 4, 8):
        analysis = compiled(devices).memory_analysis()
        sizes.append((analysis.argument_size_in_bytes, analysis.temp_size_in_bytes))
    totals = [sum(pair) for pair in sizes]
    assert totals == sorted(totals, reverse=True)
    whole = compiled(8, split=False).memory_analysis()
    assert whole.argument_size_in_bytes - sizes[-1][0] == pytest.approx(4 * WEIGHTS * 7 / 8, rel=0.01)
    assert sizes[-1][1] <= whole.temp_size_in_bytes + 4 * WEIGHTS / 8


others = [("int8", False), ("int16", False), ("calibrated", False), ("float32", True)]


@pytest.mark.parametrize(
    ("flip", "packed"), [("float32", False), *(pytest.param(*other, marks=pytest.mark.slow) for other in others)]
)
def test_what_is_gathered_are_flips(flip, packed):
    found = gathered(compiled(8, flip=flip, packed=packed))
    large = [(dtype, size) for dtype, size in found if size > WIDTH]  # scales of integers are small
    assert large == [("pred" if packed else "s8", WEIGHTS)]
    assert not any(size > WIDTH for _, size in gathered(compiled(8, split=False)))


@pytest.mark.slow
def test_without_the_mesh_the_momentum_stays_split_all_the_same():
    program = compiled(8, with_mesh=False)
    assert program.memory_analysis().argument_size_in_bytes == compiled(8).memory_analysis().argument_size_in_bytes
    assert program.memory_analysis().temp_size_in_bytes <= compiled(8).memory_analysis().temp_size_in_bytes + WEIGHTS


def test_a_state_stays_where_it_was_put():
    x = np.random.default_rng(0).random((BATCH, INPUTS)).astype(np.float32)
    y = np.arange(BATCH, dtype=np.int32) % 10
    mesh = bsojax.data_mesh()
    start = bsojax.init(MODEL, optimizer(PLAIN), jax.random.key(0), x)
    shardings = bsojax.state_shardings(start, mesh, split_optimizer=True)
    x, y = jax.device_put((x, y), NamedSharding(mesh, P("batch")))
    state, _ = compiled(8)(jax.device_put(start, shardings), x, y)
    assert jax.tree.map(lambda leaf: leaf.sharding, state) == shardings
    momentum = next(leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.size == WEIGHTS)
    assert {shard.data.shape for shard in momentum.addressable_shards} == {(WIDTH, WIDTH // 8)}
