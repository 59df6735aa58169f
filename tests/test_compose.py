"""Composition: the flip optimizers in optax's wrappers and flax's TrainState, checkpoints, traps that must be loud."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from chex import assert_tree_all_finite, assert_trees_all_close, assert_trees_all_equal
from fast_and_slow import often
from flax import serialization
from flax.training.train_state import TrainState

import bsojax

T, STEPS = 3, 6


def bso(threshold=0.05, **options):
    return bsojax.bso(threshold, 0.5, **options)


def t_bso(threshold=0.1, **options):
    return bsojax.t_bso(threshold, T, 0.5, b2=0.5, **options)


each_optimizer = pytest.mark.parametrize("make", [bso, t_bso])

RNG = np.random.default_rng(0)
SIGNS = {"conv": jnp.asarray(RNG.random((2, 3)) < 0.5), "dense": {"kernel": jnp.asarray(RNG.random((3, 2)) < 0.5)}}
PARAMS = {"signs": SIGNS, "params": {"bias": jnp.array([0.5, -1.0])}}
# Sixteenths, so that means over a few of them are exact.
GRADIENTS = jax.tree.map(
    lambda leaf: jnp.asarray(RNG.integers(-16, 17, (STEPS, *leaf.shape)) / 16, jnp.float32), PARAMS
)


def at(history, step):
    # By way of NumPy: JAX would compile a slice for every step.
    return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)[step]), history)


def equal(one, other):
    assert_trees_all_equal(one, other, strict=True)


def run(tx, params, gradients, **extra_args):
    """Trains under jit and scan; returns the parameters after every step and the last state."""

    def step(carry, gradient):
        params, state = carry
        updates, state = tx.update(gradient, state, params, **extra_args)
        params = bsojax.apply_updates(params, updates)
        return (params, state), params

    (_, state), history = jax.jit(lambda carry: jax.lax.scan(step, carry, gradients))((params, tx.init(params)))
    return history, state


def flips(history, signs=SIGNS):
    return sum(
        int(jnp.sum(one ^ two)) for one, two in zip(*map(jax.tree.leaves, (at(history, -1), signs)), strict=True)
    )


def to_int8(updates, params):
    del params
    return jax.tree.map(lambda leaf: leaf.astype(jnp.int8), updates)


BEFORE = {
    "clip": optax.clip(0.25),
    "clip_by_global_norm": optax.clip_by_global_norm(0.5),
    "add_noise": optax.add_noise(0.1, 0.5, 0),
    "zero_nans": optax.zero_nans(),
}
NEEDS_WEIGHTS = {
    "trace": optax.trace(0.9),
    "ema": optax.ema(0.9),
    "scale_by_adam": optax.scale_by_adam(),
}
# Unwrapped, weight decay would take False for a weight of zero.
ON_WEIGHTS = {**NEEDS_WEIGHTS, "add_decayed_weights": optax.add_decayed_weights(0.5)}


def by_hand(before, flip):
    """The chain of a transform that sees signs as weights and a flip optimizer, spelled out."""

    def init(signs):
        return before.init(bsojax.to_weights(signs)), flip.init(signs)

    def update(gradient, state, signs):
        gradient, before_state = before.update(gradient, state[0], bsojax.to_weights(signs))
        deltas, flip_state = flip.update(gradient, state[1], signs)
        return deltas, (before_state, flip_state)

    return optax.GradientTransformation(init, update)


@pytest.mark.parametrize(("name", "make"), [*((name, t_bso) for name in (*BEFORE, *ON_WEIGHTS)), ("clip", bso)])
def test_chain_hands_on_the_transformed_gradient(name, make):
    gradients = dict(GRADIENTS["signs"])
    if name == "zero_nans":
        gradients["conv"] = gradients["conv"].at[2, 0, 0].set(jnp.nan)
    before = BEFORE[name] if name in BEFORE else bsojax.on_weights(ON_WEIGHTS[name])
    history, state = run(bsojax.checked(optax.chain(before, make())), SIGNS, gradients)
    expected, expected_state = run(by_hand({**BEFORE, **ON_WEIGHTS}[name], make()), SIGNS, gradients)
    equal(history, expected)
    assert_trees_all_close(state[1], expected_state[1], rtol=1e-5, atol=1e-6)
    assert flips(history) > 0
    assert state[1].skipped == 0, "zero_nans repairs the gradient before it could be skipped"


AFTER = {
    "scale": optax.scale(0.5),
    "scale_by_learning_rate": optax.scale_by_learning_rate(0.1),
    "add_decayed_weights": optax.add_decayed_weights(0.1),
    "ema": optax.ema(0.9),
    "clip": optax.clip(1.0),
}


@each_optimizer
@pytest.mark.parametrize("after", AFTER.values(), ids=AFTER)
def test_a_transform_after_the_flips_is_refused(make, after):
    tx, gradient = optax.chain(make(), after), at(GRADIENTS, 0)
    message = r"updates: sign leaf '.*conv' got a float32 update.*the last transform"
    with pytest.raises(TypeError, match=message):
        bsojax.checked(tx).update(gradient["signs"], tx.init(SIGNS), SIGNS)
    both = bsojax.split_optimizer(tx, optax.sgd(0.1))
    with pytest.raises(TypeError, match=message):
        jax.eval_shape(both.update, gradient, both.init(PARAMS), PARAMS)
    updates, _ = tx.update(gradient["signs"], tx.init(SIGNS), SIGNS)
    with pytest.raises(TypeError, match=message):
        bsojax.apply_updates(SIGNS, updates)
    state = TrainState.create(apply_fn=None, params=SIGNS, tx=bsojax.checked(tx))
    with pytest.raises(TypeError, match=message):
        jax.eval_shape(state.apply_gradients, grads=gradient["signs"])


@pytest.mark.parametrize("stock", [optax.sgd(0.1), optax.sgd(0.1, momentum=0.9), optax.adam(0.1)])
def test_a_stock_optimizer_on_signs_is_refused(stock):
    gradient = at(GRADIENTS, 0)
    both = bsojax.split_optimizer(stock, optax.sgd(0.1))
    for tx, params, grads in ((bsojax.checked(stock), SIGNS, gradient["signs"]), (both, PARAMS, gradient)):
        with pytest.raises(TypeError, match=r"sign leaf '.*conv' got a float32 update.*split_optimizer"):
            tx.update(grads, tx.init(params), params)


@each_optimizer
@pytest.mark.parametrize("before", NEEDS_WEIGHTS.values(), ids=NEEDS_WEIGHTS)
def test_accumulators_made_from_booleans_are_refused(make, before):
    tx = optax.chain(before, make())
    for outer, params, gradients in (
        (bsojax.checked(tx), SIGNS, GRADIENTS["signs"]),
        (bsojax.split_optimizer(tx, optax.sgd(0.1)), PARAMS, GRADIENTS),
    ):
        with pytest.raises(TypeError, match=r"optimizer state: '.*conv' was bool\[2, 3\].*on_weights"):
            run(outer, params, gradients)


def test_lookahead_is_refused():
    params = optax.LookaheadParams.init_synced(SIGNS)
    tx = bsojax.checked(optax.lookahead(bso(), 2, 0.5))
    with pytest.raises(TypeError, match="sign leaf 'fast/conv' got a float32 update"):
        tx.update(at(GRADIENTS["signs"], 0), tx.init(params), params)


def by_path(tree):
    return jax.tree_util.tree_map_with_path(lambda path, _: path[0].key, tree)


def masked(flip, real):
    parts = (optax.masked(flip, {"signs": True, "params": False}), optax.masked(real, {"signs": False, "params": True}))
    return optax.chain(*parts)


OWNERS = {
    "masked": masked,
    "partition by prefix": lambda f, r: optax.partition(
        {"signs": f, "params": r}, {"signs": "signs", "params": "params"}
    ),
    "partition by path": lambda f, r: optax.partition({"signs": f, "params": r}, by_path),
    "split_optimizer": bsojax.split_optimizer,
}


@pytest.mark.parametrize("compose", OWNERS.values(), ids=OWNERS)
def test_every_leaf_has_one_owner(compose):
    history, _ = run(bsojax.checked(compose(t_bso(), optax.adam(0.1))), PARAMS, GRADIENTS)
    equal(history["signs"], run(t_bso(), SIGNS, GRADIENTS["signs"])[0])
    assert_trees_all_close(
        history["params"], run(optax.adam(0.1), PARAMS["params"], GRADIENTS["params"])[0], rtol=1e-6, atol=1e-7
    )
    assert flips(history["signs"]) > 0


def test_two_flip_optimizers_share_a_tree():
    tx = optax.partition({"live": t_bso(), "frozen": t_bso(jnp.inf)}, {"conv": "live", "dense": "frozen"})
    history, _ = run(bsojax.checked(tx), SIGNS, GRADIENTS["signs"])
    equal(history["conv"], run(t_bso(), SIGNS["conv"], GRADIENTS["signs"]["conv"])[0])
    equal(at(history["dense"], -1), SIGNS["dense"])


def test_labels_by_dtype_are_refused():
    # optax asks for the labels again at update time, of the gradients, which are all floating.
    tx = optax.partition(
        {"signs": bso(), "params": optax.sgd(0.1)},
        lambda tree: jax.tree.map(lambda leaf: "signs" if leaf.dtype == jnp.bool_ else "params", tree),
    )
    with pytest.raises(ValueError, match="state: "):
        bsojax.checked(tx).update(at(GRADIENTS, 0), tx.init(PARAMS), PARAMS)


def test_split_optimizer_takes_a_network_without_real_parameters():
    params, gradients = {**PARAMS, "params": {}}, {**GRADIENTS, "params": {}}
    history, _ = run(bsojax.split_optimizer(bso(), optax.adam(0.1)), params, gradients)
    equal(history["signs"], run(bso(), SIGNS, GRADIENTS["signs"])[0])


def test_a_sign_among_the_real_parameters_is_refused():
    tx, params = bsojax.split_optimizer(bso(), optax.sgd(0.1)), {"signs": SIGNS, "params": {"gate": jnp.array([True])}}
    grads = {"signs": at(GRADIENTS["signs"], 0), "params": {"gate": jnp.ones(1)}}
    with pytest.raises(TypeError, match="sign leaf 'params/gate' got a float32 update"):
        jax.eval_shape(tx.update, grads, tx.init(params), params)


def test_signs_without_a_leaf_are_refused():
    with pytest.raises(ValueError, match="signs: the tree has no leaf to flip"):
        bsojax.split_optimizer(bso(), optax.sgd(0.1)).init({"signs": {}, "params": PARAMS["params"]})


def test_checked_needs_the_parameters():
    tx = bsojax.checked(optax.sgd(0.1))
    with pytest.raises(ValueError, match="params: update needs the current parameters"):
        tx.update(PARAMS["params"], tx.init(PARAMS["params"]))


def with_extra_args(multi_steps):
    """The spelling that keeps time_step: optax's own conversion of MultiSteps drops extra arguments."""
    return optax.GradientTransformationExtraArgs(multi_steps.init, multi_steps.update)


def multi_steps(tx):
    return optax.MultiSteps(tx, 1)


injected = optax.inject_hyperparams(bsojax.t_bso, ("num_steps", "update_dtype"), jnp.float32)
CARRIERS = {
    "chain": lambda tx: optax.chain(optax.clip(1.0), tx),
    "masked": lambda tx: optax.masked(tx, True),
    "partition": lambda tx: optax.partition({"all": tx}, lambda tree: jax.tree.map(lambda _: "all", tree)),
    "inject_hyperparams": lambda tx: injected(0.1, T, 0.5, b2=0.5),
    "apply_if_finite": lambda tx: optax.apply_if_finite(t_bso(update_dtype=jnp.float32), 3),
    "MultiSteps": multi_steps,
    "MultiSteps in a chain": lambda tx: optax.chain(with_extra_args(multi_steps(tx))),
    "checked": bsojax.checked,
    "on_weights": bsojax.on_weights,
    "checked MultiSteps": lambda tx: bsojax.checked(multi_steps(tx)),
    "checked MultiSteps, converted by optax": lambda tx: bsojax.checked(multi_steps(tx).gradient_transformation()),
}


@pytest.mark.parametrize("carry", CARRIERS.values(), ids=CARRIERS)
def test_time_step_reaches_t_bso(carry):
    tx = carry(t_bso())
    _, state = tx.update(at(GRADIENTS["signs"], 0), tx.init(SIGNS), SIGNS, time_step=jnp.int32(2))
    second_moment = optax.tree.get(state, "second_moment")
    assert np.flatnonzero(second_moment["conv"]).tolist() == [2]


@pytest.mark.parametrize("compose", [*OWNERS.values(), lambda f, r: bsojax.split_optimizer(multi_steps(f), r)])
def test_time_step_reaches_t_bso_beside_another_optimizer(compose):
    tx = compose(t_bso(), optax.sgd(0.1))
    _, state = tx.update(at(GRADIENTS, 0), tx.init(PARAMS), PARAMS, time_step=jnp.int32(2))
    second_moment = optax.tree.get(state, "second_moment")
    assert np.flatnonzero(second_moment.get("signs", second_moment)["conv"]).tolist() == [2]


@pytest.mark.parametrize(("make", "skip"), [(bso, None), (t_bso, None), (t_bso, optax.skip_not_finite)])
def test_multi_steps_flips_by_the_mean_gradient(make, skip):
    tx = bsojax.checked(with_extra_args(optax.MultiSteps(make(), 2, should_skip_update_fn=skip)))
    history, state = run(tx, SIGNS, GRADIENTS["signs"])
    means = jax.tree.map(lambda leaf: (leaf[::2] + leaf[1::2]) / 2, GRADIENTS["signs"])
    expected, expected_state = run(make(), SIGNS, means)
    equal(at(history, slice(1, None, 2)), expected)
    equal(at(history, slice(2, None, 2)), at(expected, slice(0, -1)))
    equal(at(history, 0), SIGNS)
    equal(state.inner_opt_state.momentum, expected_state.momentum)
    assert flips(expected) > 0


CONDITIONAL = {
    "apply_if_finite": lambda tx: optax.apply_if_finite(tx, 3),
    "mask": lambda tx: optax.conditionally_mask(tx, lambda step: step != 2),
}


@pytest.mark.parametrize(("make", "name"), [(bso, "apply_if_finite"), (t_bso, "mask")])
def test_conditional_wrappers_take_the_dtype_of_the_gradient(make, name):
    wrap = CONDITIONAL[name]
    gradients = jax.tree.map(lambda leaf: leaf.at[2].set(jnp.nan), GRADIENTS["signs"])
    # The deltas leave the wrapper as float32 and become int8 again after it, which every check accepts.
    tx = optax.chain(wrap(make(update_dtype=jnp.float32)), optax.stateless(to_int8))
    history, state = run(bsojax.checked(tx), SIGNS, gradients)
    others = np.array([0, 1, 3, 4, 5])
    expected, expected_state = run(make(), SIGNS, at(gradients, others))
    equal(at(history, others), expected)
    equal(at(history, 2), at(history, 1))
    equal(state[0].inner_state, expected_state)

    # Without the conversion the updates are exact, but no longer int8: stock apply_updates takes them, ours does not.
    bare = wrap(make(update_dtype=jnp.float32))
    first = at(gradients, 0)
    equal(optax.apply_updates(SIGNS, bare.update(first, bare.init(SIGNS), SIGNS)[0]), at(history, 0))
    with pytest.raises(TypeError, match="sign leaf 'conv' got a float32 update"):
        bsojax.checked(bare).update(first, bare.init(SIGNS), SIGNS)
    with pytest.raises(TypeError, match=r"int8|equal .*types"):
        wrap(make()).update(first, wrap(make()).init(SIGNS), SIGNS)


def schedule(count):
    return 0.2 * 0.5**count


INJECTED = {
    "bso": (bsojax.bso, {}, ()),
    "t_bso": (bsojax.t_bso, {"num_steps": T}, ("num_steps",)),
    "bso, update_dtype static": (bsojax.bso, {}, ("update_dtype",)),
    "t_bso, update_dtype static": (bsojax.t_bso, {"num_steps": T}, ("num_steps", "update_dtype")),
}


@pytest.mark.parametrize(("factory", "options", "static_args"), INJECTED.values(), ids=INJECTED)
def test_inject_hyperparams(factory, options, static_args):
    inject = optax.inject_hyperparams(factory, static_args, hyperparam_dtype=jnp.float32)
    tx = inject(threshold=schedule, b1=0.5, **options)
    history, state = run(bsojax.checked(tx), SIGNS, GRADIENTS["signs"])
    equal(history, run(factory(threshold=schedule, b1=0.5, **options), SIGNS, GRADIENTS["signs"])[0])
    assert flips(history) > 0
    np.testing.assert_allclose(state.hyperparams["threshold"], schedule(STEPS - 1), rtol=1e-6)
    # A constant may be changed by hand from step to step.
    tx = inject(threshold=0.0, b1=0.5, **options)
    state = tx.init(SIGNS)
    state.hyperparams["threshold"] = jnp.float32(jnp.inf)
    deltas, _ = jax.jit(tx.update)(at(GRADIENTS["signs"], 0), state, SIGNS)
    assert not any(jnp.any(delta) for delta in jax.tree.leaves(deltas))


INJECTED_WRONGLY = (
    ({}, ("num_steps", "update_dtype"), None, "hyperparam_dtype=jnp.float32"),
    ({}, ("update_dtype",), jnp.float32, "num_steps: .*static_args"),
)


@pytest.mark.parametrize(("options", "static_args", "dtype", "message"), INJECTED_WRONGLY)
def test_inject_hyperparams_wrongly_is_refused(options, static_args, dtype, message):
    with pytest.raises(TypeError, match=message):
        optax.inject_hyperparams(bsojax.t_bso, static_args, dtype)(0.1, T, **options).init(SIGNS)


@pytest.mark.parametrize(("make", "wrap"), [(bso, lambda tx: tx), (t_bso, lambda tx: tx), (t_bso, bsojax.checked)])
def test_flax_train_state(make, wrap):
    tx = wrap(optax.chain(optax.clip(0.5), make()))
    state = TrainState.create(apply_fn=None, params=SIGNS, tx=tx)
    step = jax.jit(lambda state, grads: state.apply_gradients(grads=grads))
    expected, expected_state = run(tx, SIGNS, GRADIENTS["signs"])
    for n in range(STEPS):
        state = step(state, at(GRADIENTS["signs"], n))
        equal(state.params, at(expected, n))
    equal(state.opt_state[1].momentum, expected_state[1].momentum)
    assert flips(expected) > 0


STORED = {
    "bso": bsojax.split_optimizer(bso(), optax.adam(0.1)),
    "t_bso": bsojax.split_optimizer(optax.chain(optax.clip(0.5), t_bso(debias=True)), optax.sgd(0.1, momentum=0.9)),
    "on_weights": bsojax.split_optimizer(optax.chain(bsojax.on_weights(optax.ema(0.9)), bso()), optax.sgd(0.1)),
}


def through_flax(tree, path):
    target = jax.tree.map(jnp.zeros_like, tree)
    path.write_bytes(serialization.to_bytes(tree))
    return serialization.from_bytes(target, path.read_bytes())


def through_orbax(tree, path):
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path, tree)
        checkpointer.wait_until_finished()
        return checkpointer.restore(path, jax.eval_shape(lambda: tree))


@pytest.mark.parametrize("tx", often(STORED, "bso"))
def test_a_checkpoint_is_exact(tx, tmp_path):
    history, state = run(tx, PARAMS, GRADIENTS)
    before = (at(history, -1), state)
    for store in (through_flax, through_orbax):
        after = store(before, tmp_path / store.__name__)
        equal(jax.tree.map(jnp.asarray, after), before)
        assert after[0]["signs"]["conv"].dtype == jnp.bool_
        # Flax restores NumPy arrays, with which training must go on as well.
        equal(one_more(tx, *after), one_more(tx, *before))


def one_more(tx, params, state):
    updates, state = tx.update(at(GRADIENTS, 0), state, params)
    return bsojax.apply_updates(params, updates), state


TRACED_ONCE = {
    **STORED,
    "masked": masked(t_bso(), optax.adam(0.1)),
    "MultiSteps": bsojax.split_optimizer(with_extra_args(optax.MultiSteps(t_bso(), 2)), optax.sgd(0.1)),
    "inject_hyperparams": bsojax.split_optimizer(injected(schedule, T), optax.sgd(0.1)),
}


@pytest.mark.parametrize("tx", TRACED_ONCE.values(), ids=TRACED_ONCE)
def test_the_second_call_does_not_compile_again(tx):
    traces = []

    @jax.jit
    def step(params, state, gradient, time_step):
        traces.append(1)
        updates, state = tx.update(gradient, state, params, time_step=time_step)
        return bsojax.apply_updates(params, updates), state

    params, state = PARAMS, tx.init(PARAMS)
    for n in range(3):
        params, state = step(params, state, at(GRADIENTS, n), n % T)
    assert len(traces) == 1
    assert_tree_all_finite(state)
