"""Data parallelism: ten steps on one, two, four and eight devices, three ways, give the signs of ten steps on one.

Signs and spikes are equal bit for bit: both are decisions. What they are decided from are float32 sums over the batch,
whose order depends on the number of devices: two orders of a sum of n terms may differ by n units in the last place,
6e-8 each, of the sum of absolute values. Terms of this job's sums are up to 16 images by 64 pixels, and rounding errors
of both signs cancel: after 20 updates momenta, real parameters, statistics and loss differ by less than BOUND of the
root mean square of their leaf (measured: 2e-6). A gradient summed over devices in place of averaged would differ by
their number, and a share of the batch that was lost by one over it.

Such equality holds until a membrane comes to lie within rounding of its threshold, or a momentum of its own; then a
spike or a sign differs, and the runs part. No float sum rules it out; here it does not happen.
"""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import bsojax

pytestmark = pytest.mark.optimised

T, STEPS, BOUND = 2, 10, 1e-5
COUNTS = (1, 2, 4, 8)
X = np.random.default_rng(0).random((16, 8, 8, 1)).astype(np.float32)
Y = np.arange(16) % 10
MODELS = {
    "vgg": functools.partial(bsojax.models.SpikingVGG, channels=(16, "M", 32)),
    "mlp": functools.partial(bsojax.models.SpikingMLP, features=(64, 64)),  # takes a fifth of the time to compile
}
TX = bsojax.split_optimizer(flip=bsojax.t_bso(0.01, T, 0.9, 0.99), real=optax.sgd(0.1))


@functools.cache
def first_state(job):
    return bsojax.init(MODELS[job](), TX, jax.random.key(0), inputs(job))


def inputs(job):
    return X if job == "vgg" else X.reshape(len(X), -1)


def start(job):
    return jax.tree.map(jnp.copy, first_state(job))  # training donates it


def make_step(job, axis_name=None, norm_axis=None, **options):
    model = MODELS[job](norm=functools.partial(bsojax.BatchNorm, axis_name=norm_axis))
    return bsojax.make_train_step(model, TX, T, axis_name=axis_name, **options)


def run(step, state, x, y):
    flips = 0
    for _ in range(STEPS):
        state, metrics = step(state, x, y)
        flips += sum(int(np.ravel(count)[0]) for count in metrics["flips"].values())
    return jax.device_get(state), jax.device_get(metrics), flips


@functools.cache
def on_one_device(job, accumulate=False):
    return run(make_step(job, accumulate=accumulate), start(job), inputs(job), Y)


def mesh(devices):
    return bsojax.data_mesh(jax.devices()[:devices])


def sharded_jit(job, devices, split=False):
    step = make_step(job, mesh=mesh(devices) if split else None)
    x, y = jax.device_put((jnp.asarray(inputs(job)), jnp.asarray(Y)), NamedSharding(mesh(devices), P("batch")))
    shardings = bsojax.state_shardings(first_state(job), mesh(devices), split_optimizer=split)
    step = jax.jit(step, out_shardings=(shardings, None), donate_argnums=0)
    return run(step, jax.device_put(start(job), shardings), x, y)


def sharded_map(job, devices, accumulate=False, check_vma=True):
    step = make_step(job, "batch", "batch", accumulate=accumulate)
    specs = {"in_specs": (P(), P("batch"), P("batch")), "out_specs": (P(), P())}
    mapped = jax.jit(jax.shard_map(step, mesh=mesh(devices), check_vma=check_vma, **specs))
    return run(mapped, start(job), jnp.asarray(inputs(job)), jnp.asarray(Y))


def pmapped(job, devices, norm_axis="batch"):
    step = make_step(job, "batch", norm_axis)
    state = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (devices, *leaf.shape)), start(job))
    x, y = inputs(job).reshape(devices, -1, *inputs(job).shape[1:]), Y.reshape(devices, -1)
    state, metrics, flips = run(jax.pmap(step, axis_name="batch", devices=jax.devices()[:devices]), state, x, y)
    for leaf in jax.tree.leaves((state, metrics)):  # replicas must not drift apart
        np.testing.assert_array_equal(leaf, np.broadcast_to(leaf[:1], leaf.shape))
    return *jax.tree.map(lambda leaf: leaf[0], (state, metrics)), flips


def assert_same_training(found, want):
    (state, metrics, flips), (want, want_metrics, want_flips) = found, want
    chex.assert_trees_all_equal(state.signs, want.signs)
    assert flips == want_flips > 0
    chex.assert_trees_all_equal(metrics["accuracy"], want_metrics["accuracy"])
    chex.assert_trees_all_equal(metrics["spikes"], want_metrics["spikes"])
    params, wanted_params = map(without_first_bias, (state.params, want.params))
    found = (params, state.opt_state, state.batch_stats, metrics["loss"])
    wanted = (wanted_params, want.opt_state, want.batch_stats, want_metrics["loss"])
    chex.assert_trees_all_equal_structs(found, wanted)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        other = np.asarray(other, np.float64)
        assert np.abs(one - other).max() <= BOUND * np.sqrt(np.mean(np.square(other)))


def without_first_bias(params):
    """The norm behind it cancels the first layer's bias: its gradient is zero, but for rounding."""
    (name,) = {"conv_0", "dense_0"} & set(params)
    assert np.abs(params[name]["bias"]).max() < 1e-7
    return {**params, name: {"kernel": params[name]["kernel"]}}


ways = {
    "jit": sharded_jit,
    "jit, split optimizer": functools.partial(sharded_jit, split=True),
    "pmap": pmapped,
    "shard_map": sharded_map,
}


often = [("mlp", 8, way) for way in ("jit", "jit, split optimizer", "shard_map")]
jobs = [
    pytest.param(job, devices, way, id=f"{job}-{devices}-{name}",
                 marks=() if (job, devices, name) in often else pytest.mark.slow)
    for job, devices in [("vgg", 8), *(("mlp", devices) for devices in COUNTS)]
    for name, way in ways.items()
]  # fmt: skip


@pytest.mark.parametrize(("job", "devices", "way"), jobs)
def test_any_number_of_devices_gives_the_signs_of_one(job, devices, way):
    assert len(jax.devices()) == max(COUNTS)
    assert_same_training(way(job, devices), on_one_device(job))


@pytest.mark.slow
@pytest.mark.parametrize(("accumulate", "check_vma"), [(True, True), (False, False)], ids=["accumulated", "unchecked"])
def test_options_of_shard_map_give_the_signs_of_one(accumulate, check_vma):
    assert_same_training(sharded_map("mlp", 8, accumulate, check_vma), on_one_device("mlp", accumulate))


@pytest.mark.parametrize("job", MODELS)
def test_the_optimizers_of_these_jobs_are_split(job):
    shardings = bsojax.state_shardings(first_state(job), mesh(8), split_optimizer=True)
    assert sum(not sharding.is_fully_replicated for sharding in jax.tree.leaves(shardings)) == 1


def test_norms_without_an_axis_keep_equal_statistics_on_all_devices():
    state, _, _ = pmapped("mlp", 8, norm_axis=None)  # asserts that replicas agree
    assert int(state.step) == STEPS
