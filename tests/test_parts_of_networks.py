"""Training parts of a network: what is frozen, what is taken over, what optimizers are shown and told."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import bsojax
from bsojax.optim import SplitState

pytestmark = [pytest.mark.optimised, pytest.mark.slow]  # bits of two programs are compared, many are compiled

T = 4
rng = np.random.default_rng(0)
X, Y = rng.random((8, 5), np.float32), np.arange(8) % 3
MODEL = bsojax.models.SpikingMLP(features=(16, 16, 16), num_classes=3)


def rule(**kwargs):
    return bsojax.t_bso(0.1, T, b1=0.5, **kwargs)


def trained(flip, real=None, packed=False, batches=4, model=MODEL, **kwargs):
    tx = bsojax.split_optimizer(flip, optax.adam(1e-2) if real is None else real)
    state = bsojax.init(model, tx, jax.random.key(0), X, packed=packed)
    step = bsojax.make_train_step(model, tx, T, **kwargs)
    for _ in range(batches):
        state, metrics = step(state, X, Y)
    return state, metrics


def first(flip=None, packed=False):
    tx = bsojax.split_optimizer(rule() if flip is None else flip, optax.adam(1e-2))
    return bsojax.init(MODEL, tx, jax.random.key(0), X, packed=packed)


ways = {
    "by name": lambda name: name.startswith("dense_1"),
    "by the signs' own tree": {"dense_1": {"kernel": True}, "dense_2": {"kernel": False}},
    "by layer": {"dense_1": True, "dense_2": False},
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("way", ways.values(), ids=ways.keys())
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_frozen_signs_stay_and_keep_no_state(way, packed, dtype):
    flip = optax.chain(optax.clip_by_global_norm(1.0), rule(momentum_dtype=dtype))
    state, metrics = trained(bsojax.freeze(flip, way), packed=packed)
    before, after = first(flip).signs, bsojax.unpack_signs(state.signs)
    chex.assert_trees_all_equal(after["dense_1"], before["dense_1"])
    assert (after["dense_2"]["kernel"] != before["dense_2"]["kernel"]).any()
    assert metrics["flips"]["dense_1/kernel"] == 0
    (momentum,) = [value for path, value in optax.tree.get_all_with_path(state.opt_state.signs, "momentum")]
    held = jax.tree.leaves(momentum)
    assert sum(np.size(leaf) for leaf in held if np.ndim(leaf) == 2) == 16 * 16
    whole, _ = trained(flip, packed=packed)
    report = [bsojax.memory_report(each)["momentum"] for each in (state, whole)]
    assert report[0] * 2 == report[1]


@pytest.mark.parametrize("packed", [False, True])
def test_nothing_but_real_parameters_learns(packed):
    state, metrics = trained(bsojax.freeze(), packed=packed)
    chex.assert_trees_all_equal(state.signs, first(bsojax.freeze(), packed).signs)
    assert not jax.tree.leaves(state.opt_state.signs)
    assert set(map(int, metrics["flips"].values())) == {0}
    same, _ = trained(bsojax.bso(jnp.inf))
    chex.assert_trees_all_equal(state.params, same.params)
    by_all, _ = trained(bsojax.freeze(rule(), lambda name: True))
    assert not jax.tree.leaves(by_all.opt_state.signs)


def test_frozen_signs_are_found():
    with pytest.raises(ValueError, match=r"frozen: no leaf of signs matches; they are \['dense_1/kernel'"):
        first(bsojax.freeze(rule(), lambda name: name == "conv_1/kernel"))
    with pytest.raises(ValueError, match=r"flip: needs an optimizer for the signs that are not frozen: \['dense_2"):
        first(bsojax.freeze(None, lambda name: "dense_1" in name))


@pytest.mark.parametrize("packed", [False, True])
def test_frozen_signs_stay_in_loops_of_ones_own(packed):
    flip = bsojax.freeze(bsojax.bso(1e-3, 0.0), lambda name: "1" in name)
    tx, signs, before = bsojax.checked(flip), first(packed=packed).signs, first().signs
    grads = jax.tree.map(lambda leaf: jnp.asarray(rng.standard_normal(leaf.shape), jnp.float32), before)
    update = jax.jit(functools.partial(bsojax.optim.guarded_update, tx))
    for finite in (False, True):
        updates, _ = update(grads, tx.init(signs), signs, jnp.bool_(finite))
        after = bsojax.unpack_signs(bsojax.apply_updates(signs, updates))
        chex.assert_trees_all_equal(after["dense_1"], before["dense_1"])
        weights, gradient = bsojax.to_weights(before)["dense_2"]["kernel"], grads["dense_2"]["kernel"]
        flipped = after["dense_2"]["kernel"] != before["dense_2"]["kernel"]
        np.testing.assert_array_equal(flipped, finite & (weights * gradient > 1e-3))


@pytest.mark.parametrize("packed", [False, True])
def test_frozen_signs_take_no_vote(packed):
    tx = bsojax.split_optimizer(bsojax.freeze(rule(), lambda name: "1" in name), optax.sgd(0.1))
    state = bsojax.init(MODEL, tx, jax.random.key(0), X, packed=packed)
    step = jax.vmap(bsojax.make_train_step(MODEL, tx, T, axis_name="batch", vote=True), axis_name="batch")
    copies = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (2, *leaf.shape)), state)
    before = jax.device_get(copies.signs)
    after, metrics = step(copies, X.reshape(2, 4, 5), Y.reshape(2, 4))
    chex.assert_trees_all_equal(jax.device_get(after.signs["dense_1"]), before["dense_1"])
    assert not metrics["flips"]["dense_1/kernel"].any()
    assert metrics["flips"]["dense_2/kernel"].all()


def halves(signs):
    return {name: "fast" if name == "dense_1" else "slow" for name in signs}


def labelled_by_path(signs):
    return jax.tree_util.tree_map_with_path(lambda path, _: "fast" if "1" in path[0].key else "slow", signs)


to_int8 = optax.stateless(lambda updates, _: jax.tree.map(lambda leaf: leaf.astype(jnp.int8), updates))
rules = {"fast": bsojax.bso(1e-4, 0.5), "slow": bsojax.bso(1e-2, 0.5)}
wrapped = {
    "MultiSteps": optax.MultiSteps(rule(), 2),
    "zero_nans": optax.chain(optax.zero_nans(), rule()),
    "labels like the signs": optax.partition(rules, {"dense_1": "fast", "dense_2": "slow"}),
    "labels by a function": optax.partition(rules, halves),
    "labels by path": optax.partition(rules, labelled_by_path),
    "masked": optax.masked(rule(), {"dense_1": {"kernel": True}, "dense_2": {"kernel": True}}),
    "inject_hyperparams": optax.inject_hyperparams(bsojax.bso, hyperparam_dtype=jnp.float32)(1e-3, 0.5),
    "clip": optax.chain(optax.clip_by_global_norm(0.1), bsojax.scale_by_channel_rms(), rule()),
    "ema on weights": optax.chain(bsojax.on_weights(optax.ema(0.9)), rule()),
    "frozen": bsojax.freeze(rule(), lambda name: "1" in name),
    "accumulated and frozen": optax.MultiSteps(bsojax.freeze(rule(), lambda name: "1" in name), 2),
    "apply_if_finite": optax.chain(optax.apply_if_finite(rule(update_dtype=jnp.float32), 3), to_int8),
    "conditionally_mask": optax.chain(
        optax.conditionally_mask(rule(update_dtype=jnp.float32), lambda step: step != 2), to_int8
    ),
}


@pytest.mark.parametrize("flip", wrapped.values(), ids=wrapped.keys())
def test_whatever_wraps_a_flip_rule_trains_packed_signs_to_the_same_bits(flip):
    plain, told = trained(flip)
    packed, told_too = trained(flip, packed=True)
    chex.assert_trees_all_equal(plain.signs, bsojax.unpack_signs(packed.signs))
    chex.assert_trees_all_equal(plain.params, packed.params)
    chex.assert_trees_all_equal(plain.opt_state, packed.opt_state)
    chex.assert_trees_all_equal(told, told_too)
    assert any(
        (one != other).any() for one, other in zip(*map(jax.tree.leaves, (plain.signs, first().signs)), strict=True)
    )


@pytest.mark.parametrize("every", [2, T, 2 * T, 3])
def test_accumulation_over_updates_and_the_second_moments(every):
    """With a multiple of T, flips fall on the last time step, whose second moment is that of the sums: all is used."""
    batches = 12
    state, _ = trained(optax.MultiSteps(rule(), every), batches=batches)
    inner = state.opt_state.signs.inner_opt_state
    assert inner.count == batches * T // every
    used = {int(t) for t in range(every - 1, batches * T, every)}
    expected = {t % T for t in used}
    for leaf in jax.tree.leaves(inner.second_moment):
        assert {int(t) for t in np.flatnonzero(leaf)} == expected


@pytest.mark.parametrize("bad", [1, T - 1])
def test_a_skipped_update_is_not_accumulated_and_the_next_takes_its_place(bad):
    tx = optax.MultiSteps(rule(), T)
    signs = first().signs
    grads = jax.tree.map(lambda leaf: rng.standard_normal((3 * T, *leaf.shape)).astype(np.float32), signs)
    update = jax.jit(functools.partial(bsojax.optim.guarded_update, tx))
    state, held, places = tx.init(signs), signs, []
    for n in range(3 * T):
        grad = jax.tree.map(lambda leaf, n=n: jnp.asarray(leaf[n]), grads)
        updates, state = update(grad, state, held, jnp.bool_(n != bad), time_step=n % T)
        held = bsojax.apply_updates(held, updates)
        places += [n % T] * any(leaf.any() for leaf in jax.tree.leaves(updates))
    assert places == [0, 0]  # one later than T - 1, from the skip on
    for leaf in jax.tree.leaves(state.inner_opt_state.second_moment):
        assert np.flatnonzero(leaf).tolist() == [0]
    # The same as without what was skipped, whose updates fall on that time step too.
    plain, alone = rule(), signs
    kept = np.delete(np.arange(3 * T), bad)[: 2 * T].reshape(2, T)
    inner = plain.init(signs)
    for group in kept:
        mean = jax.tree.map(lambda leaf, group=group: jnp.asarray(leaf[group].mean(0)), grads)
        updates, inner = plain.update(mean, inner, alone, time_step=0)
        alone = bsojax.apply_updates(alone, updates)
    chex.assert_trees_all_equal(held, alone)


def test_an_update_that_adds_zeros_as_numbers_is_refused_with_the_way_to_freeze():
    with pytest.raises(TypeError, match=r"sign leaf 'signs/dense_1/kernel' got a float32 update.*bsojax.freeze"):
        trained(optax.set_to_zero())


def test_a_schedule_in_batches():
    base = optax.linear_schedule(1.0, 0.0, 10)
    schedule = bsojax.per_batch(base, T)
    np.testing.assert_allclose([schedule(count) for count in range(48)], [base(count // T) for count in range(48)])
    counts = jnp.arange(48)
    np.testing.assert_allclose(
        jax.jit(jax.vmap(schedule))(counts), [base(count // T) for count in range(48)], atol=1e-6
    )
    with pytest.raises(ValueError, match="updates_per_batch: a sequence has at least 1"):
        bsojax.per_batch(base, 0)


@pytest.mark.parametrize("packed", [(False, False), (True, False), (False, True), (True, True)])
def test_a_network_gets_another_readout(packed):
    old, _ = trained(rule(), packed=packed[0])
    tx = bsojax.split_optimizer(bsojax.freeze(), optax.adam(1e-2))
    wider = MODEL.clone(num_classes=5)
    new = bsojax.init(wider, tx, jax.random.key(1), X, packed=packed[1])
    state, fresh = bsojax.transfer(old, into=new)
    assert fresh == ["params/readout/bias", "params/readout/kernel"]
    chex.assert_trees_all_equal(bsojax.unpack_signs(state.signs), bsojax.unpack_signs(old.signs))
    chex.assert_trees_all_equal(state.batch_stats, old.batch_stats)
    chex.assert_trees_all_equal(state.params["readout"], new.params["readout"])
    assert jax.tree.structure(state) == jax.tree.structure(new)
    held = jax.device_get(old)
    state, metrics = bsojax.make_train_step(wider, tx, T)(state, X, Y + 2)
    assert metrics["skipped"] == 0
    chex.assert_trees_all_equal(jax.device_get(old), held)  # its memory is its own
    bsojax.predict(wider, new, X, T)
    other = bsojax.models.SpikingVGG(channels=(4, 4), num_classes=4)
    image = bsojax.init(
        other, bsojax.split_optimizer(rule(), optax.sgd(0.1)), jax.random.key(0), rng.random((2, 6, 6, 1))
    )
    with pytest.raises(ValueError, match="into: no leaf of the trained network has the name"):
        bsojax.transfer(old, into=image.replace(batch_stats={}))


def test_what_optimizers_are_shown_and_told():
    seen = {}

    def spy(name, inner):
        def update(updates, state, params=None, **extra_args):
            seen[name] = jax.tree.structure(params), jax.tree.map(jnp.shape, extra_args), sorted(extra_args)
            return inner.update(updates, state, params, **extra_args)

        return optax.GradientTransformationExtraArgs(inner.init, update)

    inner = {"signs": bsojax.t_bso(0.1, T), "params": optax.with_extra_args_support(optax.sgd(0.1))}
    state, _ = trained(spy("signs", inner["signs"]), spy("params", inner["params"]), packed=True)
    assert isinstance(state.opt_state, SplitState)
    for name, tree in (("signs", first().signs), ("params", state.params)):
        structure, shapes, names = seen[name]
        assert structure == jax.tree.structure(tree)
        assert names == ["grad", "time_step", "value"]
        assert shapes["grad"] == jax.tree.map(jnp.shape, tree)
        assert shapes["value"] == ()


def test_training_in_float64():
    with jax.enable_x64(True):
        state, metrics = trained(rule(), dtype="float64")
        assert metrics["loss"].dtype == jnp.float64
        assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {jnp.dtype("float32")}
        with pytest.raises(TypeError, match=r"'signs/0/ema/\S+' was float32.* becomes float64.*under jax_enable_x64"):
            trained(optax.chain(bsojax.on_weights(optax.ema(0.9)), rule()), dtype="float64")


def test_an_optimizer_state_that_does_not_fit_is_refused_with_the_cure():
    flip, adam = rule(), optax.adam(1e-2)
    tx = bsojax.split_optimizer(flip, adam)
    step = bsojax.make_train_step(MODEL, tx, T)
    state = bsojax.init(MODEL, tx, jax.random.key(0), X)
    cast = state.replace(params=jax.tree.map(lambda leaf: leaf.astype(jnp.float16), state.params))
    rest = r"opt_state=tx.init\(state.trainable\)\) starts it anew. Or were parameters cast\? They rest in float32"
    with pytest.raises(ValueError, match=rf"leaf 'opt_state/params/0/mu/\S+' must be float16.*{rest}"):
        step(cast, X, Y)
    # As it was kept before each optimizer saw its own tree.
    old = optax.partition({"signs": flip, "params": adam}, {"signs": "signs", "params": "params"})
    older = state.replace(opt_state=old.init(state.trainable))
    with pytest.raises(ValueError, match=rf"leaf 'opt_state/signs/count' must be .*is missing; .*{rest}"):
        step(older, X, Y)
    state, metrics = step(older.replace(opt_state=tx.init(older.trainable)), X, Y)
    assert metrics["skipped"] == 0
