"""Deployed signs: against a slow obvious version, what reads them, and that training does not notice them."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from fast_and_slow import rarely

import bsojax

T = 2
SHAPES = {"a": (3, 5), "b": (7,)}


def rule(name, threshold, deploy, **options):
    if name == "bso":
        return bsojax.bso(threshold, 0.9, deploy_threshold=deploy, **options)
    return bsojax.t_bso(threshold, T, 0.9, 0.99, debias=True, deploy_threshold=deploy, **options)


def drawn(seed, count):
    rng = np.random.default_rng(seed)
    signs = {name: jnp.asarray(rng.random(shape) < 0.5) for name, shape in SHAPES.items()}
    draw = lambda: {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in SHAPES.items()}  # noqa: E731
    return signs, [draw() for _ in range(count)]


def run(tx, signs, gradients):
    state, update = tx.init(signs), jax.jit(tx.update)
    for grads in gradients:
        updates, state = update(grads, state, signs)
        signs = bsojax.apply_updates(signs, updates)
        yield signs, state


@pytest.mark.parametrize("momentum", ["float32", "int8"])
@pytest.mark.parametrize(
    ("name", "threshold", "deploy"), [("bso", 0.0, 0.1), ("bso", 0.05, 0.15), ("t-bso", 0.0, 0.07)]
)
def test_a_deployed_sign_follows_where_the_momentum_is_sure(name, threshold, deploy, momentum):
    signs, gradients = drawn(0, 60)
    want = {key: np.array(leaf) for key, leaf in signs.items()}
    momenta = {key: np.zeros(shape) for key, shape in SHAPES.items()}
    moments, weights = {key: np.zeros(T) for key in SHAPES}, np.zeros(T)
    apart = 0
    for count, (grads, (now, state)) in enumerate(
        zip(gradients, run(rule(name, threshold, deploy, momentum_dtype=momentum), signs, gradients), strict=True)
    ):
        weights[count % T] = 0.99 * weights[count % T] + 0.01
        for key, gradient in grads.items():
            gradient = np.asarray(gradient, np.float64)
            momenta[key] = 0.9 * momenta[key] + 0.1 * gradient
            moments[key][count % T] = 0.99 * moments[key][count % T] + 0.01 * np.mean(gradient**2)
            scale = 1 if name == "bso" else np.sqrt(moments[key][count % T] / weights[count % T])
            sure = np.abs(momenta[key]) > deploy * scale
            want[key] = np.where(sure, now[key], want[key])
        found = bsojax.deployed_signs(state, now)
        if momentum == "float32":
            chex.assert_trees_all_equal(found, want)
        apart += sum(int(np.sum(found[key] != now[key])) for key in SHAPES)
    assert apart > 20  # the two differ, or this would show nothing
    if momentum == "int8":  # what is decided is the momentum before it is rounded: few decisions differ
        assert sum(int(np.sum(found[key] != want[key])) for key in SHAPES) <= 2


@pytest.mark.parametrize("options", [{}, {"reset_on_flip": True}, {"momentum_dtype": "int8", "seed": 3}])
@pytest.mark.parametrize("name", ["bso", "t-bso"])
def test_training_is_the_same_bits_with_and_without(name, options):
    signs, gradients = drawn(1, 20)
    plain = list(run(rule(name, 0.02, None, **options), signs, gradients))[-1]
    more = list(run(rule(name, 0.02, 0.1, **options), signs, gradients))[-1]
    chex.assert_trees_all_equal(plain[0], more[0])
    chex.assert_trees_all_equal(plain[1], more[1]._replace(deployed=None))


@pytest.mark.parametrize("name", ["bso", "t-bso"])
def test_a_gradient_that_is_not_finite_changes_nothing_of_it(name):
    signs, gradients = drawn(2, 6)
    tx = rule(name, 0.0, 0.01)
    *_, (signs, state) = run(tx, signs, gradients)
    _, after = tx.update({**gradients[0], "b": jnp.full(7, jnp.nan)}, state, signs)
    chex.assert_trees_all_equal(after.deployed, state.deployed)


def test_without_updates_the_given_signs_are_deployed_and_without_a_reading_always():
    signs, gradients = drawn(3, 1)
    others = jax.tree.map(jnp.logical_not, signs)
    fresh = rule("bso", 0.0, 0.1).init(signs)
    chex.assert_trees_all_equal(bsojax.deployed_signs(fresh, others), others)
    *_, (now, state) = run(rule("bso", 0.0, None), signs, gradients)
    assert bsojax.deployed_signs(state, now) is now


def test_they_come_in_the_form_of_the_signs_from_wherever_they_lie():
    signs, gradients = drawn(4, 9)
    tx = optax.chain(optax.clip(2.0), rule("t-bso", 0.0, 0.1))
    *_, (now, state) = run(tx, signs, gradients)
    want = bsojax.deployed_signs(state, now)
    packed = bsojax.deployed_signs(state, bsojax.pack_signs(now))
    assert isinstance(packed["a"], bsojax.PackedSigns)
    chex.assert_trees_all_equal(bsojax.signs.unpack_signs(packed), want)
    weights = bsojax.deployed_signs(state, bsojax.signs.to_weights(now))
    assert weights["a"].dtype == jnp.float32
    chex.assert_trees_all_equal(bsojax.to_signs(weights), want)
    restored = jax.tree.map(np.asarray, state)
    chex.assert_trees_all_equal(bsojax.deployed_signs(restored, now), want)


def test_deployed_signs_of_another_network_are_refused():
    signs, gradients = drawn(5, 2)
    *_, (now, state) = run(rule("bso", 0.0, 0.1), signs, gradients)
    with pytest.raises(ValueError, match=r"opt_state: it keeps deployed signs of \['b'\]"):
        bsojax.deployed_signs(state, {"a": now["a"]})


@pytest.mark.parametrize("packed", [False, *rarely(True)])
def test_everything_that_reads_a_state_reads_them(packed):
    model = bsojax.models.SpikingMLP((16,), 3, binary_ends=True)
    tx = bsojax.split_optimizer(bsojax.calibrated(T, 80), optax.sgd(0.1))
    x, y = jax.random.normal(jax.random.key(1), (12, 20)), jnp.arange(12) % 3
    state = bsojax.init(model, tx, jax.random.key(0), x, packed=packed)
    step = jax.jit(bsojax.make_train_step(model, tx, T))
    for number in range(10):
        state, _ = step(state, x + 0.1 * number, y)
    deployed = state.variables["signs"]
    assert any(
        bool(jnp.any(one != other))
        for one, other in zip(jax.tree.leaves(deployed), jax.tree.leaves(state.signs), strict=True)
    )
    # A state of the same network whose optimizer keeps no signs of its own.
    bare = bsojax.split_optimizer(bsojax.calibrated(T, 80, deploy_c=None), optax.sgd(0.1))
    plain = dataclasses.replace(state, signs=deployed, opt_state=bare.init({"signs": deployed, "params": state.params}))
    chex.assert_trees_all_equal(bsojax.predict(model, state, x, T), bsojax.predict(model, plain, x, T))
    judge = bsojax.make_eval_step(model, T)
    chex.assert_trees_all_equal(judge(state, x, y), judge(plain, x, y))
    chex.assert_trees_all_equal(bsojax.record(model, state, x, T), bsojax.record(model, plain, x, T))
    seen = [bsojax.refresh_statistics(model, each, [x], T).batch_stats for each in (state, plain)]
    chex.assert_trees_all_equal(*seen)
    hot = dataclasses.replace(plain, signs=state.signs)
    assert bool(jnp.any(bsojax.predict(model, hot, x, T) != bsojax.predict(model, plain, x, T)))


def test_at_the_end_of_a_run_that_dies_out_they_are_what_is_trained():
    signs, gradients = drawn(6, 200)
    *_, (now, state) = run(bsojax.calibrated(T, 190), signs, gradients)
    chex.assert_trees_all_equal(bsojax.deployed_signs(state, now), now)


def test_they_flip_less_often_than_what_is_trained():
    signs, gradients = drawn(7, 400)
    hot = cold = 0
    before = now, read = signs, signs
    for now, state in run(bsojax.calibrated(T), signs, gradients):
        read = bsojax.deployed_signs(state, now)
        hot += sum(int(jnp.sum(now[key] != before[0][key])) for key in SHAPES)
        cold += sum(int(jnp.sum(read[key] != before[1][key])) for key in SHAPES)
        before = now, read
    assert 0 < cold < 0.7 * hot


def test_a_running_rms_is_the_moving_average_of_the_roots():
    tx = bsojax.scale_by_channel_rms(0.9)
    rng = np.random.default_rng(0)
    grads = [{"w": rng.normal(size=(4, 3)).astype(np.float32) * scale, "v": np.float32(scale)} for scale in (1, 3, 0.2)]
    state = tx.init({"w": jnp.ones((4, 3), bool), "v": jnp.array(True)})
    rms = {"w": 0.0, "v": 0.0}
    for number, each in enumerate(grads):
        scaled, state = jax.jit(tx.update)(each, state)
        for name, leaf in each.items():
            own = np.sqrt(np.mean(leaf**2, axis=0)) if name == "w" else np.abs(leaf)
            rms[name] = own if number == 0 else 0.9 * rms[name] + 0.1 * own
            np.testing.assert_allclose(scaled[name], leaf / rms[name], rtol=1e-5)
            np.testing.assert_allclose(state.rms[name], rms[name], rtol=1e-5)


def test_a_running_rms_waits_for_a_gradient_and_passes_on_what_is_not_finite():
    tx = bsojax.scale_by_channel_rms(0.9)
    state = tx.init({"w": jnp.ones((2, 2), bool)})
    scaled, state = tx.update({"w": jnp.array([[0.0, 2.0], [0.0, 2.0]])}, state)
    np.testing.assert_allclose(scaled["w"], [[0, 1], [0, 1]])
    np.testing.assert_allclose(state.rms["w"], [0, 2])
    scaled, after = tx.update({"w": jnp.array([[jnp.nan, 1.0], [1.0, 1.0]])}, state)
    chex.assert_trees_all_equal(after, state)
    assert bool(jnp.isnan(scaled["w"]).any())
    scaled, state = tx.update({"w": jnp.array([[5.0, 0.0], [5.0, 0.0]])}, state)
    np.testing.assert_allclose(scaled["w"], [[1, 0], [1, 0]])
    np.testing.assert_allclose(state.rms["w"], [5, 2])
    for large in (1e-30, 1e30):
        scaled, _ = tx.update({"w": jnp.full((2, 2), large)}, tx.init({"w": jnp.ones((2, 2), bool)}))
        np.testing.assert_allclose(scaled["w"], 1, rtol=1e-5)
    with pytest.raises(ValueError, match="decay: must be in"):
        bsojax.scale_by_channel_rms(1.0)


def test_arguments_give_the_recipe_of_earlier_versions():
    signs, gradients = drawn(8, 50)
    anneal = optax.cosine_decay_schedule(1.0, 50)
    old = bsojax.calibrated(T, 50, growth=0.2, c=0.1, anneal=anneal, deploy_c=None)
    b1 = bsojax.optim.window_schedule(0.9, 0.2, 50)
    first = bsojax.t_bso(bsojax.noise_threshold(b1, 0.1), T, b1, 0.99, debias=True)
    want = list(run(optax.chain(bsojax.scale_by_channel_rms(), first), signs, gradients))[-1]
    chex.assert_trees_all_equal(list(run(old, signs, gradients))[-1], want)
