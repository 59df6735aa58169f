"""Deployed signs wherever a state goes: packed, split over devices, voted on, wrapped, saved, resumed, taken over."""

import dataclasses
import functools

import chex
import flax.linen as nn
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from faults import SMALL
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import bsojax
from bsojax.optim import deployed_in, with_deployed
from experiments.build import prepare
from experiments.data import load
from experiments.loop import train
from experiments.running.checkpoints import Checkpoints
from experiments.running.keeper import CheckpointKeeper
from experiments.running.stop import Stop

pytestmark = [pytest.mark.optimised, pytest.mark.slow]  # bits of two programs are compared, many are compiled

T, BATCHES = 2, 6
rng = np.random.default_rng(0)
X, Y = rng.random((16, 12), np.float32), np.arange(16) % 3
MODEL = bsojax.models.SpikingMLP(features=(64, 64), num_classes=3)  # 4,096 signs: enough for a momentum to be split
RULES = {
    "float32": bsojax.calibrated(T, 400),
    "int16": bsojax.calibrated(T, 400, momentum_dtype="int16"),
    "int8": bsojax.calibrated(T, 400, momentum_dtype="int8"),
    "counter": bsojax.calibrated_counter(400, bits=5),
    "bso": bsojax.bso(0.0, 0.9, deploy_threshold=1e-4),
}


def optimizer(flip):
    return bsojax.split_optimizer(flip, optax.sgd(0.1))


def first(flip="float32", packed=False, key=0, model=MODEL):
    tx = optimizer(RULES[flip] if isinstance(flip, str) else flip)
    return bsojax.init(model, tx, jax.random.key(key), X, packed=packed)


def make(flip="float32", norm_axis=None, **options):
    model = MODEL.clone(norm=functools.partial(bsojax.BatchNorm, axis_name=norm_axis))
    return bsojax.make_train_step(model, optimizer(RULES[flip] if isinstance(flip, str) else flip), T, **options)


def trained(flip="float32", packed=False, batches=BATCHES):
    state, step = first(flip, packed), make(flip)
    for _ in range(batches):
        state, _ = step(state, X, Y)
    return state


@functools.cache
def on_one(flip="float32", batches=BATCHES):
    return jax.device_get(trained(flip, batches=batches))


def deployed(state):
    return bsojax.unpack_signs(state.variables["signs"])


def differing(one, other):
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return sum(int(np.sum(np.asarray(a) != np.asarray(b))) for a, b in pairs)


def at_rest(state, signs):
    """A state of the same network at these signs, whose optimizer keeps none."""
    return dataclasses.replace(state, signs=signs, opt_state=())


# One network, in whatever form and place.


@pytest.mark.parametrize(
    "flip", [pytest.param(flip, marks=() if flip in ("int8", "counter") else pytest.mark.slow) for flip in RULES]
)
def test_packed_signs_deploy_the_same_bits(flip):
    plain, packed = on_one(flip), trained(flip, packed=True)
    assert all(map(bsojax.signs.is_packed, jax.tree.leaves(packed.variables["signs"], is_leaf=bsojax.signs.is_packed)))
    chex.assert_trees_all_equal(deployed(packed), deployed(plain))
    assert differing(deployed(plain), plain.signs) > 100  # or this would show nothing


def on_mesh(flip, devices, split):
    mesh = bsojax.data_mesh(jax.devices()[:devices])
    state = first(flip)
    shardings = bsojax.state_shardings(state, mesh, split_optimizer=split)
    step = make(flip, mesh=mesh if split else None)
    step = jax.jit(step, out_shardings=(shardings, None), donate_argnums=0)
    state, batch = jax.device_put(state, shardings), jax.device_put((X, Y), NamedSharding(mesh, P("batch")))
    for _ in range(BATCHES):
        state, _ = step(state, *batch)
    return state, batch


often = {("int8", 8, True), ("float32", 2, False), ("counter", 4, True)}


@pytest.mark.parametrize(("flip", "devices", "split"), [
    pytest.param(flip, devices, split, marks=() if (flip, devices, split) in often else pytest.mark.slow)
    for flip in RULES for devices in (1, 2, 4, 8) for split in (False, True)
])  # fmt: skip
def test_any_number_of_devices_deploys_the_signs_of_one(flip, devices, split):
    state, batch = on_mesh(flip, devices, split)
    want = on_one(flip)
    chex.assert_trees_all_equal(jax.device_get(deployed(state)), deployed(want))
    judge = bsojax.make_eval_step(MODEL, T)
    found, wanted = judge(state, *batch), judge(at_rest(want, deployed(want)), X, Y)
    assert found["accuracy"] == wanted["accuracy"]
    np.testing.assert_allclose(found["loss"], wanted["loss"], rtol=1e-5)


def test_deployed_signs_lie_in_full_on_each_device_that_splits_the_optimizer():
    wide = bsojax.models.SpikingMLP(features=(256, 256), num_classes=3)  # 8,192 bytes of deployed signs
    state = jax.eval_shape(lambda: first(model=wide))
    shardings = bsojax.state_shardings(state, bsojax.data_mesh(), split_optimizer=True)
    assert all(leaf.bits.is_fully_replicated for leaf in deployed_in(shardings.opt_state).values())
    assert sum(not leaf.is_fully_replicated for leaf in jax.tree.leaves(shardings)) == 1


def by_pmap(vote, flip="float32", devices=8):
    state = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (devices, *leaf.shape)), first(flip))
    step = make(flip, "batch", axis_name="batch", vote=vote)
    step = jax.pmap(step, axis_name="batch", devices=jax.devices()[:devices])
    x, y = X.reshape(devices, -1, X.shape[-1]), Y.reshape(devices, -1)
    for _ in range(BATCHES):
        state, _ = step(state, x, y)
    return jax.device_get(state)


def test_pmap_deploys_the_signs_of_one_device():
    state = by_pmap(vote=False)
    one = jax.tree.map(lambda leaf: leaf[0], state)
    chex.assert_trees_all_equal(deployed(one), deployed(on_one()))
    with pytest.raises(ValueError, match=r"'dense_1/kernel' have an axis of devices in front; take the state of one"):
        _ = state.variables


@pytest.mark.parametrize("flip", ["float32", "counter"])
def test_votes_deploy_the_same_signs_on_all_devices(flip):
    state = by_pmap(True, flip)
    for leaf in deployed_in(state.opt_state).values():
        np.testing.assert_array_equal(leaf.bits, np.broadcast_to(leaf.bits[:1], leaf.bits.shape))
    one = jax.tree.map(lambda leaf: leaf[0], state)
    assert differing(deployed(one), one.signs) > 0
    chex.assert_trees_all_equal(
        bsojax.predict(MODEL, one, X, T), bsojax.predict(MODEL, at_rest(one, deployed(one)), X, T)
    )


def test_a_deployed_sign_changes_where_most_devices_would_change_it():
    """The obvious version: each device by itself, and what most of their deployed signs became."""
    tx = bsojax.bso(0.0, 0.5, deploy_threshold=0.3)
    signs = {"a": jnp.asarray(rng.random((3, 5)) < 0.5)}
    grads = jnp.asarray(rng.normal(size=(4, 5, 3, 5)), jnp.float32)  # of four updates on five devices
    on_each = functools.partial(jax.tree.map, lambda leaf: jnp.broadcast_to(leaf, (5, *leaf.shape)))
    votes = bsojax.online.Votes("batch")

    def update(state, signs, grad):
        updates, after = tx.update({"a": grad}, state, signs)
        new = bsojax.apply_updates(signs, votes.updates(signs, updates))
        return new, votes.deployed(state, after), after

    state, held = on_each(tx.init(signs)), on_each(signs)
    for grad in grads:
        before = np.asarray(jax.vmap(lambda state, held: bsojax.deployed_signs(state, held)["a"])(state, held))
        held, state, own = jax.vmap(update, axis_name="batch")(state, held, grad)
        wanted = jax.vmap(lambda own: bsojax.unpack_signs(own.deployed)["a"])(own)
        won = 2 * np.sum(np.asarray(wanted != before), 0) > 5
        assert 0 < won.sum() < won.size
        np.testing.assert_array_equal(jax.vmap(bsojax.unpack_signs)(state.deployed)["a"], before ^ won)


# Within what wraps a rule.

KEEPS = functools.partial(bsojax.t_bso, 0.0, T, 0.9, 0.99, debias=True, deploy_threshold=0.15)
to_int8 = optax.stateless(lambda updates, _: jax.tree.map(lambda leaf: leaf.astype(jnp.int8), updates))
LABELS = {"dense_1": "keeps", "dense_2": "plain"}
DEEP = bsojax.models.SpikingMLP(features=(16, 16, 16), num_classes=3)
WRAPPED = {
    "chain": (optax.chain(optax.clip(1.0), KEEPS()), {"dense_1", "dense_2"}),
    "partition": (optax.partition({"keeps": KEEPS(), "plain": bsojax.bso(0.0, 0.9)}, LABELS), {"dense_1"}),
    "freeze": (bsojax.freeze(KEEPS(), lambda name: name.startswith("dense_1")), {"dense_2"}),
    "masked": (optax.masked(KEEPS(), {"dense_1": True, "dense_2": True}), {"dense_1", "dense_2"}),
    "MultiSteps": (optax.MultiSteps(KEEPS(), 3), {"dense_1", "dense_2"}),
    "apply_if_finite": (
        optax.chain(optax.apply_if_finite(KEEPS(update_dtype=jnp.float32), 3), to_int8),
        {"dense_1", "dense_2"},
    ),
    "inject_hyperparams": (
        optax.inject_hyperparams(bsojax.bso, hyperparam_dtype=jnp.float32)(0.0, 0.9, deploy_threshold=3e-4),
        {"dense_1", "dense_2"},
    ),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_deployed_signs_are_found_within_what_wraps_a_rule(name):
    flip, apart = WRAPPED[name]
    tx = optimizer(flip)
    state = bsojax.init(DEEP, tx, jax.random.key(0), X)
    step = bsojax.make_train_step(DEEP, tx, T)
    chex.assert_trees_all_equal(state.variables["signs"], state.signs)
    frozen = jax.tree.map(np.asarray, state.signs["dense_1"])
    for _ in range(BATCHES):
        state, _ = step(state, X, Y)
    kept, found = deployed_in(state.opt_state), state.variables["signs"]
    assert {leaf.split("/")[0] for leaf in kept} == apart
    for layer, leaves in found.items():
        if layer in apart:
            assert differing(leaves, state.signs[layer]) > 0
            chex.assert_trees_all_equal(leaves["kernel"], bsojax.unpack_signs(kept[f"{layer}/kernel"]))
        else:
            chex.assert_trees_all_equal(leaves, state.signs[layer])
    if name == "freeze":
        chex.assert_trees_all_equal(found["dense_1"], frozen)
    if name == "MultiSteps":
        return  # it gathers what is not finite too
    signs, before = jax.tree.map(jnp.copy, (state.signs, kept))
    state, metrics = step(state, jnp.full_like(X, jnp.nan), Y)
    assert metrics["skipped"] == T
    chex.assert_trees_all_equal((state.signs, deployed_in(state.opt_state)), (signs, before))


def test_an_optimizer_of_signs_and_params_in_one_tree_is_read():
    labels = {"signs": "signs", "params": "params"}
    tx = bsojax.checked(optax.partition({"signs": KEEPS(), "params": optax.sgd(0.1)}, labels))
    state = bsojax.init(MODEL, tx, jax.random.key(0), X)
    step = bsojax.make_train_step(MODEL, tx, T)
    for _ in range(BATCHES):
        state, _ = step(state, X, Y)
    (kept,) = deployed_in(state.opt_state).items()
    assert kept[0] == "signs/dense_1/kernel"
    chex.assert_trees_all_equal(deployed(state)["dense_1"]["kernel"], bsojax.unpack_signs(kept[1]))
    assert differing(deployed(state), state.signs) > 0


class Signs(nn.Module):
    @nn.compact
    def __call__(self, x):
        return bsojax.Dense(3)(bsojax.LIF()(bsojax.BinaryDense(16, name="signs")(x)))


def test_a_layer_may_be_called_signs():
    tx = optimizer(RULES["bso"])
    state = bsojax.init(Signs(), tx, jax.random.key(0), X)
    state, _ = bsojax.make_train_step(Signs(), tx, T)(state, X, Y)
    assert set(deployed_in(state.opt_state)) == {"signs/kernel"}
    assert deployed(state)["signs"]["kernel"].shape == (12, 16)


# Another beginning.


def spoiled(x):
    return jnp.full_like(x, jnp.nan)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("flip", ["int8", "counter", "bso"])
def test_a_state_joined_with_other_signs_deploys_from_those_on(flip, packed):
    """Against a state that was drawn with them; an update that is skipped is none."""
    other = first(flip, packed, key=1)
    signs = jax.tree.map(np.asarray, deployed(other))
    joined = dataclasses.replace(first(flip, packed), **{name: jax.tree.map(jnp.copy, getattr(other, name))
                                                         for name in ("signs", "params", "batch_stats")})  # fmt: skip
    chex.assert_trees_all_equal(deployed(joined), signs)
    step = make(flip)
    for x in (spoiled(X), X, spoiled(X), X, X):
        joined, _ = step(joined, x, Y)
        other, _ = step(other, x, Y)
        chex.assert_trees_all_equal(deployed(joined), deployed(other))
        chex.assert_trees_all_equal(joined.signs, other.signs)
    assert differing(deployed(joined), bsojax.unpack_signs(joined.signs)) > 0


def test_transfer_takes_the_deployed_signs_and_deploys_them():
    old, wanted = trained(), deployed(on_one())
    tx = optimizer(RULES["float32"])
    wide = MODEL.clone(num_classes=5)
    fresh = bsojax.init(wide, tx, jax.random.key(7), X)
    moved, _ = bsojax.make_train_step(wide, tx, T)(bsojax.init(wide, tx, jax.random.key(8), X), X, Y)
    for into in (fresh, moved):  # one that has been trained too keeps no deployed signs of its own
        state, left = bsojax.transfer(old, into=into)
        assert left == ["params/readout/bias", "params/readout/kernel"]
        chex.assert_trees_all_equal(state.signs, wanted)
        chex.assert_trees_all_equal(deployed(state), wanted)
        state, _ = bsojax.make_train_step(wide, tx, T, accumulate=True)(state, X, Y)
        found, now, was = (tree["dense_1"]["kernel"] for tree in (deployed(state), state.signs, wanted))
        assert 0 < differing(found, now) < differing(was, now)
        assert not differing(found[now == was], was[now == was])  # they set out from these, not from what was drawn


# Files.


def through_orbax(state, folder):
    with ocp.StandardCheckpointer() as store:
        store.save(folder / "state", state)
        store.wait_until_finished()
        return store.restore(folder / "state", jax.tree.map(np.asarray, jax.device_get(state)))


def through_flax(state, folder):
    del folder
    like = jax.tree.map(jnp.zeros_like, state)
    return flax.serialization.from_bytes(like, flax.serialization.to_bytes(state))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("way", [through_flax, through_orbax])
def test_a_restored_state_deploys_the_same_signs_and_goes_on(way, packed, tmp_path):
    state, step = trained("int8", packed), make("int8")
    back = way(state, tmp_path)
    chex.assert_trees_all_equal(deployed(back), deployed(state))
    chex.assert_trees_all_equal(bsojax.predict(MODEL, back, X, T), bsojax.predict(MODEL, state, X, T))
    (on, _), (again, _) = step(state, X, Y), step(back, X, Y)
    chex.assert_trees_all_equal(deployed(again), deployed(on))
    chex.assert_trees_all_equal(on.signs, again.signs)


def test_a_state_of_dicts_is_refused_and_one_without_deployed_signs_is_not():
    state = on_one()
    raw = flax.serialization.msgpack_restore(flax.serialization.to_bytes(state))
    with pytest.raises(ValueError, match="opt_state: it keeps deployed signs, in dicts"):
        bsojax.deployed_signs(raw["opt_state"], raw["signs"])
    plain = first(bsojax.bso(0.0))
    raw = flax.serialization.msgpack_restore(flax.serialization.to_bytes(plain))
    chex.assert_trees_all_equal(bsojax.deployed_signs(raw["opt_state"], raw["signs"]), plain.signs)


def test_deployed_signs_of_another_shape_are_refused():
    state = on_one()
    turned = jax.tree.map(lambda leaf: leaf.reshape(32, 128), state.signs)  # as many bytes, in another order
    with pytest.raises(ValueError, match=r"of 'dense_1/kernel' are \(64, 64\), the signs given with it \(32, 128\)"):
        bsojax.deployed_signs(state.opt_state, turned)


def test_exported_programs_run_at_the_deployed_signs():
    state = on_one()
    want = bsojax.predict(MODEL, at_rest(state, deployed(state)), X, T)
    assert differing(want, bsojax.predict(MODEL, at_rest(state, state.signs), X, T)) > 0
    program = jax.export.export(jax.jit(lambda x: bsojax.predict(MODEL, state, x, T)))(X)
    again = jax.export.deserialize(program.serialize())
    np.testing.assert_allclose(again.call(X), want, rtol=1e-5)

    judge = jax.jit(bsojax.make_eval_step(MODEL, T))
    shapes = jax.eval_shape(lambda state: state, state)
    exported = jax.export.export(judge)(shapes, X, Y)
    chex.assert_trees_all_close(exported.call(state, X, Y), judge(at_rest(state, deployed(state)), X, Y), rtol=1e-5)


def test_deployed_signs_are_replaced_by_name():
    state = on_one()
    kept = deployed_in(state.opt_state)
    changed = {name: dataclasses.replace(leaf, bits=~leaf.bits) for name, leaf in kept.items()}
    after = with_deployed(state.opt_state, changed)
    chex.assert_trees_all_equal(
        bsojax.deployed_signs(after, state.signs), jax.tree.map(np.logical_not, deployed(state))
    )
    chex.assert_trees_all_equal(with_deployed(after, kept), state.opt_state)


# Experiments.


def nothing(*_):
    pass


def test_a_resumed_run_saves_the_same_model_of_deployed_signs(digits_dir, tmp_path):
    run = prepare(SMALL, load("digits", digits_dir))
    store = Checkpoints(tmp_path / "checkpoints", run.config, run.batches)
    keeper = CheckpointKeeper(store, run.config.session.checkpoint_minutes, Stop())
    whole = dataclasses.replace(run, state=jax.tree.map(jnp.copy, run.state))
    state, _ = train(whole, nothing, nothing, None, keeper)
    bsojax.save_model(tmp_path / "whole", run.model, state)

    middle = next(name for name in store.names() if name.startswith("000000007"))
    (tmp_path / "alone").mkdir()
    (tmp_path / "checkpoints" / middle).rename(tmp_path / "alone" / middle)
    start, skipped = Checkpoints(tmp_path / "alone", run.config, run.batches).restore(run.state)
    assert not skipped
    assert differing(deployed(start.state), bsojax.unpack_signs(start.state.signs)) > 0
    bsojax.save_model(tmp_path / "middle", run.model, start.state)
    held = bsojax.load_model(tmp_path / "middle", run.model).variables
    chex.assert_trees_all_equal(held["signs"], jax.device_get(deployed(start.state)))
    begun = prepare(dataclasses.replace(SMALL, start=tmp_path / "middle"), load("digits", digits_dir))
    chex.assert_trees_all_equal(deployed(begun.state), held["signs"])

    again, _ = train(run, nothing, nothing, start)
    bsojax.save_model(tmp_path / "again", run.model, again)
    assert (tmp_path / "again").read_bytes() == (tmp_path / "whole").read_bytes()
