"""The bridge to NNX: the same training as in Linen, and the pieces of the README on NNX state."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import bsojax
import bsojax.nnx

pytestmark = pytest.mark.slow  # many programs are compiled

T, B, C = 3, 8, 4
rng = np.random.default_rng(0)
X, Y = rng.random((B, 5), np.float32), np.arange(B) % C
LINEN = bsojax.models.SpikingMLP(features=(12, 12), num_classes=C)
TX = bsojax.split_optimizer(bsojax.t_bso(0.1, T, b1=0.5), optax.sgd(0.1))


def values(model, name):
    """A collection of an NNX network, as Linen has it."""
    return nnx.to_pure_dict(nnx.state(model))[name]


def loss(model, x, y, t):
    return bsojax.cross_entropy_mse()(model(x, train=True, time_step=t), y) / T


def one_batch(model, optimizer):
    model.rest(X, T, train=True)
    value = 0.0
    for t in range(T):
        share, grads = bsojax.nnx.value_and_grad(loss)(model, X, Y, t)
        optimizer.update(model, grads, time_step=t)
        value += share
    return value


def linen_twin(model):
    """A training state with the weights of an NNX network."""
    state = bsojax.init(LINEN, TX, jax.random.key(0), X)
    held = {name: jax.tree.map(jnp.copy, values(model, name)) for name in ("signs", "params", "batch_stats")}
    return state.replace(**held)


@pytest.mark.parametrize("jit", [False, True])
def test_a_network_trains_as_in_linen(jit):
    model = bsojax.nnx.Network(LINEN, X, rngs=nnx.Rngs(3))
    optimizer = bsojax.nnx.Optimizer(model, TX)
    state, step = linen_twin(model), bsojax.make_train_step(LINEN, TX, T)
    run = nnx.jit(one_batch) if jit else one_batch
    for _ in range(4):
        value = run(model, optimizer)
        state, metrics = step(state, X, Y)
        np.testing.assert_allclose(value, metrics["loss"], rtol=1e-5)
    chex.assert_trees_all_equal(values(model, "signs"), state.signs)
    chex.assert_trees_all_close(values(model, "params"), state.params, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(values(model, "batch_stats"), state.batch_stats, rtol=1e-5, atol=1e-6)
    held = map(jax.tree.leaves, (optimizer.state.get_value(), state.opt_state))
    chex.assert_trees_all_close(*held, rtol=1e-5, atol=1e-6)
    model.rest(X, T)
    told = sum(model(X, time_step=t) for t in range(T))
    np.testing.assert_allclose(told, bsojax.predict(LINEN, state, X, T), rtol=1e-4, atol=1e-5)


class Mixed(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(5, 6, rngs=rngs)
        self.body = bsojax.nnx.Network(LINEN, jnp.ones((B, 6)), rngs=rngs)
        self.drop = nnx.Dropout(0.2, rngs=rngs)

    def __call__(self, x, train, time_step):
        return self.drop(self.body(self.first(x), train=train, time_step=time_step), deterministic=not train)


def test_a_network_within_a_larger_model_learns_with_all_of_it():
    model = Mixed(nnx.Rngs(0))
    optimizer = bsojax.nnx.Optimizer(model, TX)
    before = jax.tree.map(np.asarray, bsojax.nnx.trainable(model))
    assert set(before["params"]) == {"first", "body"}

    def of(model, t):
        return bsojax.cross_entropy_mse()(model(X, True, t), Y), t

    model.body.rest(jnp.ones((B, 6)), T, train=True)
    for t in range(T):
        (_, seen), grads = bsojax.nnx.value_and_grad(of, has_aux=True)(model, t)
        assert seen == t
        optimizer.update(model, grads, time_step=t)
    after = bsojax.nnx.trainable(model)
    for (path, old), new in zip(jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True):
        assert (old != new).any(), path
    assert model.drop.rngs.count.get_value() == T  # what a call draws stays drawn


def test_an_update_that_is_not_finite_changes_nothing():
    model = bsojax.nnx.Network(LINEN, X, rngs=nnx.Rngs(3))
    optimizer = bsojax.nnx.Optimizer(model, TX)
    before = jax.tree.map(np.asarray, bsojax.nnx.trainable(model))
    grads = jax.tree.map(lambda leaf: jnp.full(leaf.shape, jnp.nan), before)
    optimizer.update(model, grads, time_step=0)
    chex.assert_trees_all_equal(before, bsojax.nnx.trainable(model))
    assert optax.tree.get(optimizer.state.get_value(), "skipped") == 1


class Boolean(nnx.Module):
    """A binary layer by hand."""

    def __init__(self, rngs):
        self.kernel = bsojax.nnx.Signs(jax.random.bernoulli(rngs.params(), shape=(5, C)))

    def __call__(self, x):
        return x @ self.kernel.get_value()


def test_the_pieces_work_on_nnx_state():
    model = Boolean(nnx.Rngs(0))
    graph, state = nnx.split(model)
    tx = bsojax.bso(0.001, b1=0.5)
    opt_state, first = tx.init(state), np.asarray(model.kernel.get_value())

    def objective(state):
        return bsojax.cross_entropy_mse()(nnx.merge(graph, state, copy=True)(X), Y)

    values = []
    for _ in range(15):
        value, grads = bsojax.value_and_grad(objective)(state)
        updates, opt_state = tx.update(grads, opt_state, state)
        state = bsojax.apply_updates(state, updates)
        values.append(float(value))
    assert jax.tree.leaves(state)[0].dtype == jnp.bool_
    assert min(values) < values[0]
    assert (jax.tree.leaves(state)[0] != first).any()
    kept = nnx.to_pure_dict(state)
    nnx.replace_by_pure_dict(state, kept)
    np.testing.assert_array_equal(nnx.merge(graph, state).kernel.get_value(), kept["kernel"])


def test_a_network_is_read_back_from_a_pure_dict_within_a_sequence():
    model, other = (bsojax.nnx.Network(LINEN, X, rngs=nnx.Rngs(seed)) for seed in (3, 4))
    one_batch(model, bsojax.nnx.Optimizer(model, TX))  # leaves the neurons away from rest
    other.rest(X, T, train=True)
    kept = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(model)))
    state = nnx.state(other)
    nnx.replace_by_pure_dict(state, kept)
    nnx.update(other, state)
    chex.assert_trees_all_equal(nnx.to_pure_dict(nnx.state(other)), kept)
    np.testing.assert_array_equal(other(X, time_step=0), model(X, time_step=0))


class Dropping(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        return bsojax.nn.SpikingDropout(0.5)(x, deterministic=not train)


def test_what_a_model_draws_stays_the_same_over_a_sequence():
    ones = jnp.ones((B, 50))
    model = bsojax.nnx.Network(Dropping(), ones, rngs=nnx.Rngs(0))
    first, second, other = (
        np.asarray(model(ones, train=True, time_step=t, rngs=jax.random.key(seed)))
        for t, seed in ((0, 1), (1, 1), (1, 2))
    )
    np.testing.assert_array_equal(first, second)
    assert (first != other).any()
    np.testing.assert_array_equal(model(ones), ones)


def test_an_nnx_module_in_the_place_of_a_linen_one_is_told_apart():
    model = Boolean(nnx.Rngs(0))
    for call in (
        lambda: bsojax.init(model, TX, jax.random.key(0), X),
        lambda: bsojax.make_train_step(model, TX, T),
        lambda: bsojax.make_eval_step(model, T),
    ):
        with pytest.raises(TypeError, match="model: needs a flax.linen module, not Boolean.*bsojax.nnx"):
            call()


# Deployed signs.

KEEPING = bsojax.split_optimizer(bsojax.calibrated(T, 200), optax.sgd(0.1))


def told(model):
    model.rest(X, T)
    return sum(model(X, time_step=t) for t in range(T))


@pytest.mark.parametrize("jit", [False, True])
def test_a_network_is_evaluated_at_its_deployed_signs_or_not_at_all(jit):
    model = bsojax.nnx.Network(LINEN, X, rngs=nnx.Rngs(3))
    optimizer = bsojax.nnx.Optimizer(model, KEEPING)
    run = nnx.jit(one_batch) if jit else one_batch
    for _ in range(6):
        run(model, optimizer)
    evaluate = nnx.jit(told) if jit else told
    with pytest.raises(ValueError, match=r"model: .* keeps deployed signs .* evaluate and save optimizer.deployed"):
        evaluate(model)
    found = optimizer.deployed(model)
    want = bsojax.deployed_signs(optimizer.state.get_value().signs, values(model, "signs"))
    chex.assert_trees_all_equal(values(found, "signs"), want)
    apart = [
        (one != other).any() for one, other in zip(*map(jax.tree.leaves, (want, values(model, "signs"))), strict=True)
    ]
    assert any(apart)
    # In Linen, a state of the same network whose optimizer keeps none.
    state = linen_twin(model).replace(signs=want)
    np.testing.assert_allclose(evaluate(found), bsojax.predict(LINEN, state, X, T), rtol=1e-4, atol=1e-5)
    run(model, optimizer)  # training goes on, with the signs that are trained
    chex.assert_trees_all_equal(values(found, "signs"), want)


def test_what_is_deployed_is_taken_and_read_within_jit():
    model = bsojax.nnx.Network(LINEN, X, rngs=nnx.Rngs(3))
    optimizer = bsojax.nnx.Optimizer(model, KEEPING)
    for _ in range(6):
        one_batch(model, optimizer)
    within = nnx.jit(lambda model, optimizer: told(optimizer.deployed(model)))(model, optimizer)
    np.testing.assert_allclose(within, told(optimizer.deployed(model)), rtol=1e-5)


def test_a_saved_network_with_deployed_signs_reads_back():
    model, other = (bsojax.nnx.Network(LINEN, X, rngs=nnx.Rngs(seed)) for seed in (3, 4))
    optimizer = bsojax.nnx.Optimizer(model, KEEPING)
    for _ in range(6):
        one_batch(model, optimizer)
    found = optimizer.deployed(model)
    for network in (found, other):
        network.rest(X, T)
    state = nnx.state(other)
    nnx.replace_by_pure_dict(state, nnx.to_pure_dict(nnx.state(found)))
    nnx.update(other, state)
    np.testing.assert_array_equal(told(other), told(found))


def test_where_none_are_deployed_the_model_is_copied_as_it_is():
    model = Mixed(nnx.Rngs(0))
    optimizer = bsojax.nnx.Optimizer(model, TX)
    found = optimizer.deployed(model)
    chex.assert_trees_all_equal(bsojax.nnx.trainable(found), bsojax.nnx.trainable(model))
    model.body.rest(jnp.ones((B, 6)), T)
    model(X, False, 0)  # and is not refused
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(nnx.to_pure_dict(nnx.state(found, bsojax.nnx.Neurons))))


def test_networks_within_a_model_and_layers_by_hand_are_read_too():
    model = Mixed(nnx.Rngs(0))
    optimizer = bsojax.nnx.Optimizer(model, KEEPING)
    with pytest.raises(ValueError, match="keeps deployed signs"):
        model(X, False, 0)
    optimizer.deployed(model)(X, False, 0)

    model = Boolean(nnx.Rngs(0))
    tx = bsojax.bso(0.0, 0.9, deploy_threshold=0.3)
    optimizer = bsojax.nnx.Optimizer(model, bsojax.split_optimizer(tx, optax.sgd(0.1)))
    grads = {"signs": {"kernel": jnp.where(model.kernel.get_value(), 1.0, -1.0).at[0].mul(9)}, "params": {}}
    before = np.asarray(model.kernel.get_value())
    optimizer.update(model, grads)
    np.testing.assert_array_equal(model.kernel.get_value(), ~before)
    read = np.asarray(optimizer.deployed(model).kernel.get_value())
    np.testing.assert_array_equal(read[0], ~before[0])
    np.testing.assert_array_equal(read[1:], before[1:])


class Flagless(nn.Module):
    """A network that does not ask whether it is trained."""

    @nn.compact
    def __call__(self, x):
        return bsojax.Dense(C)(bsojax.LIF()(bsojax.BinaryDense(12)(x)))


def test_a_network_without_a_flag_for_training_learns_by_an_optimizer_that_keeps_deployed_signs():
    model = bsojax.nnx.Network(Flagless(), X, rngs=nnx.Rngs(3))
    optimizer = bsojax.nnx.Optimizer(model, KEEPING)
    model.rest(X, T, train=True)
    grads = bsojax.nnx.value_and_grad(lambda model: bsojax.cross_entropy_mse()(model(X), Y))(model)[1]
    optimizer.update(model, grads, time_step=0)


def test_deployed_signs_are_read_for_nnx_state():
    model = Boolean(nnx.Rngs(0))
    state = nnx.state(model)
    tx = bsojax.bso(0.0, 0.9, deploy_threshold=0.3)
    grads = jax.tree.map(lambda leaf: jnp.where(leaf, 1.0, -1.0).at[0].mul(9), state)
    updates, opt_state = tx.update(grads, tx.init(state), state)
    after = bsojax.apply_updates(state, updates)
    read = bsojax.deployed_signs(opt_state, after)
    assert jax.tree.structure(read) == jax.tree.structure(state)
    (old,), (new,), (found,) = map(jax.tree.leaves, (state, after, read))
    np.testing.assert_array_equal(new, ~old)
    np.testing.assert_array_equal(found, jnp.concatenate([new[:1], old[1:]]))
