"""The online loop: against an obvious Python loop, and what it promises about state, metrics and statistics."""

import dataclasses
import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from fast_and_slow import often, rarely

import bsojax
from bsojax.online import _statistics
from bsojax.online._schedule import chosen_steps

T = 3
X = np.random.default_rng(0).random((8, 4, 4, 1)).astype(np.float32)
Y = np.arange(8) % 4
LOSS = bsojax.cross_entropy_mse(0.05)


class OwnModel(nn.Module):
    """A user's model: nothing but a call with one argument, no norm."""

    trace: bsojax.TraceRule | None = bsojax.ottt

    @nn.compact
    def __call__(self, x):
        x = bsojax.LIF(trace=self.trace)(bsojax.Conv(4, (3, 3))(x))
        x = bsojax.avg_pool(x, 2)
        x = bsojax.LIF(trace=self.trace)(bsojax.BinaryConv(6, (3, 3), scale=bsojax.rsqrt_fan_in)(x))
        return bsojax.Dense(4)(bsojax.flatten(x))


class FlaxNormModel(nn.Module):
    """A user's model with flax's own norm."""

    momentum: float = 0.8

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.BatchNorm(use_running_average=not train, momentum=self.momentum)(bsojax.BinaryConv(4, (3, 3))(x))
        return bsojax.Dense(4)(bsojax.flatten(bsojax.LIF()(x)))


def vgg(**options):
    return bsojax.models.SpikingVGG(num_classes=4, channels=(4, "M", 8), **options)


per_step_norm = functools.partial(bsojax.BatchNorm, num_steps=T)
all_models = {
    "own, ottt": OwnModel(),
    "own, no trace": OwnModel(trace=None),
    "own, ndot": OwnModel(trace=bsojax.ndot),
    "own, ndot_released": OwnModel(trace=bsojax.ndot_released),
    "flax norm": FlaxNormModel(),
    "vgg": vgg(),
    "vgg, binary ends, IF": vgg(binary_ends=True, neuron=bsojax.IF),
    "vgg, norm a time step": vgg(norm=per_step_norm),
    "mlp": bsojax.models.SpikingMLP(features=(16, 16), num_classes=4),
}
each_model = pytest.mark.parametrize("model", often(all_models, "own, ottt", "vgg"))
all_optimizers = {
    "bso": bsojax.bso(1e-5, 0.9),
    "t_bso": bsojax.t_bso(0.2, T, 0.9, 0.99),
    "t_bso debiased": bsojax.t_bso(0.2, T, 0.9, 0.99, debias=True),
}


@functools.cache
def initial_variables(model):
    """A state that tests copy: training donates it."""
    return bsojax.init(model, bsojax.split_optimizer(bsojax.bso(1.0), optax.sgd(0.1)), jax.random.key(0), X)


def copied(tree):
    return jax.tree.map(jnp.copy, tree)


def setup(model, flip=None, **options):
    flip = bsojax.t_bso(0.1, T, 0.9, 0.99) if flip is None else flip
    tx = bsojax.split_optimizer(flip, optax.sgd(0.1, momentum=0.9))
    state = copied(initial_variables(model))
    state = dataclasses.replace(state, opt_state=tx.init(state.trainable))
    return tx, state, bsojax.make_train_step(model, tx, T, **options)


def options_of(model, **options):
    """Those of train and time_step that the model takes, told from its type."""
    if isinstance(model, OwnModel):
        return {}
    return {"train": options["train"]} if isinstance(model, FlaxNormModel) else options


def one_time_step(model, variables, neurons, frame, t, train):
    """Logits and changed collections of a time step; it compiles twice in a sequence: from rest, and from a state."""
    variables = variables | ({"neurons": neurons} if neurons else {})
    options = options_of(model, train=train, time_step=t)
    return model.apply(variables, frame, mutable=["batch_stats", "neurons"] if train else ["neurons"], **options)


def python_loop(model, tx, state, frames, y, accumulate=False, chosen=(True,) * T):
    """One training step, time step by time step, without scan, jit or guards; gradients count where chosen."""
    trainable, stats, opt_state = state.trainable, state.batch_stats, state.opt_state
    neurons, total, losses, sum_of_grads = {}, 0.0, 0.0, None

    def objective(weights, stats, neurons, frame, t):
        logits, changed = one_time_step(model, {**weights, "batch_stats": stats}, neurons, frame, t, train=True)
        return LOSS(logits, y) / T, (logits, changed)

    value_and_grad = jax.jit(jax.value_and_grad(objective, has_aux=True))
    for t, frame in enumerate(frames):
        weights = {"signs": bsojax.to_weights(trainable["signs"]), "params": trainable["params"]}
        (loss, (logits, changed)), grads = value_and_grad(weights, stats, neurons, frame, t)
        stats, neurons = changed.get("batch_stats", stats), changed["neurons"]
        total, losses = total + logits, losses + loss
        if not chosen[t]:
            continue
        sum_of_grads = grads if sum_of_grads is None else jax.tree.map(jnp.add, sum_of_grads, grads)
        if not accumulate:
            updates, opt_state = tx.update(grads, opt_state, trainable, time_step=t)
            trainable = optax.apply_updates(trainable, updates)
    if accumulate:
        updates, opt_state = tx.update(sum_of_grads, opt_state, trainable, time_step=0)
        trainable = optax.apply_updates(trainable, updates)
    return trainable, stats, opt_state, {"loss": losses, "accuracy": np.mean(np.argmax(total, -1) == y)}


@each_model
def test_scan_equals_a_python_loop(model):
    tx, state, step = setup(model)
    want = python_loop(model, tx, copied(state), [X] * T, Y)
    new, metrics = step(state, X, Y)
    trainable, stats, opt_state, numbers = want
    chex.assert_trees_all_equal(new.signs, trainable["signs"])
    chex.assert_trees_all_close(new.params, trainable["params"], rtol=1e-4, atol=1e-6)
    chex.assert_trees_all_close(new.batch_stats, stats, rtol=1e-4, atol=1e-6)
    chex.assert_trees_all_close(new.opt_state, opt_state, rtol=1e-3, atol=1e-7)
    chex.assert_trees_all_close({key: metrics[key] for key in numbers}, numbers, rtol=1e-5)


@pytest.mark.parametrize("flip", often(all_optimizers, "bso"))
@pytest.mark.parametrize("accumulate", [True, *rarely(False)])
def test_every_optimizer_in_both_modes_equals_the_python_loop(flip, accumulate):
    model = vgg()
    tx, state, step = setup(model, flip, accumulate=accumulate)
    trainable, _, opt_state, _ = python_loop(model, tx, copied(state), [X] * T, Y, accumulate)
    new, metrics = step(state, X, Y)
    chex.assert_trees_all_equal(new.signs, trainable["signs"])
    chex.assert_trees_all_close(new.opt_state, opt_state, rtol=1e-3, atol=1e-7)
    assert sum(metrics["flips"].values()) > 0


@pytest.mark.parametrize("accumulate", [True, *rarely(False)])
def test_backpropagation_at_some_time_steps_equals_the_python_loop(accumulate):
    model = vgg()
    tx, state, step = setup(model, accumulate=accumulate, backward_steps=2)
    for batch in range(3):
        chosen = chosen_steps(jnp.asarray(batch), 2, jnp.ones(T, bool))
        assert int(chosen.sum()) == 2
        want = python_loop(model, tx, copied(state), [X] * T, Y, accumulate, chosen)
        state, metrics = step(state, X, Y)
        trainable, stats, opt_state, numbers = want
        chex.assert_trees_all_equal(state.signs, trainable["signs"])
        chex.assert_trees_all_close(state.params, trainable["params"], rtol=1e-4, atol=1e-6)
        chex.assert_trees_all_close(state.batch_stats, stats, rtol=1e-4, atol=1e-6)
        chex.assert_trees_all_close(state.opt_state, opt_state, rtol=1e-3, atol=1e-7)
        chex.assert_trees_all_close({key: metrics[key] for key in numbers}, numbers, rtol=1e-5)
        assert int(metrics["skipped"]) == 0


def test_all_time_steps_have_their_turn_and_all_of_them_is_the_default():
    turns = sum(np.asarray(chosen_steps(jnp.asarray(batch), 2, jnp.ones(6, bool))) for batch in range(60))
    assert turns.sum() == 120
    assert turns.min() >= 8
    states = []
    for options in ({}, {"backward_steps": T}):
        _, state, step = setup(vgg(), **options)
        states.append(step(state, X, Y)[0])
    chex.assert_trees_all_equal(*states)


def test_numbers_of_backward_steps_that_make_no_sense_are_refused():
    for number in (0, T + 1, -1):
        with pytest.raises(ValueError, match="backward_steps: must be in 1 .. num_steps, here 3"):
            setup(vgg(), backward_steps=number)


@pytest.mark.slow
def test_jit_equals_eager():
    _, state, step = setup(bsojax.models.SpikingMLP(features=(6, 6), num_classes=4))
    with jax.disable_jit():
        eager, eager_metrics = step(copied(state), X, Y)
    jitted, metrics = step(state, X, Y)
    chex.assert_trees_all_equal(jitted.signs, eager.signs)
    chex.assert_trees_all_close(jitted.params, eager.params, rtol=1e-4, atol=1e-6)
    chex.assert_trees_all_close(metrics, eager_metrics, rtol=1e-4)


def test_a_second_call_does_not_compile_again():
    _, state, step = setup(vgg())
    for _ in range(3):
        state, _ = step(state, X, Y)
    assert step._cache_size() == 1


def test_a_sequence_of_equal_frames_is_the_static_frame():
    _, state, step = setup(vgg())
    static, static_metrics = step(copied(state), X, Y)
    moving, metrics = step(state, np.broadcast_to(X, (T, *X.shape)), Y)
    chex.assert_trees_all_close((static, static_metrics), (moving, metrics), rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_equal(static.signs, moving.signs)


def test_a_sequence_shows_each_frame_at_its_time_step():
    model = OwnModel()
    frames = np.random.default_rng(1).random((T, *X.shape)).astype(np.float32)
    tx, state, step = setup(model)
    trainable, _, _, numbers = python_loop(model, tx, copied(state), frames, Y)
    new, metrics = step(state, frames, Y)
    chex.assert_trees_all_equal(new.signs, trainable["signs"])
    np.testing.assert_allclose(metrics["loss"], numbers["loss"], rtol=1e-5)


def test_metrics_are_named_by_layer_and_count_what_changed():
    _, state, step = setup(vgg())
    before = copied(state)
    new, metrics = step(state, X, Y)
    assert set(metrics) == {"loss", "accuracy", "flips", "spikes", "skipped"}
    assert set(metrics["flips"]) == {"conv_1/kernel"}
    assert set(metrics["spikes"]) == {"neuron_0", "neuron_1"}
    assert all(0 < rate < 1 for rate in metrics["spikes"].values())
    changed = np.sum(before.signs["conv_1"]["kernel"] != new.signs["conv_1"]["kernel"])
    # A sign may flip there and back within a sequence.
    assert 0 < changed <= metrics["flips"]["conv_1/kernel"]
    assert (changed - metrics["flips"]["conv_1/kernel"]) % 2 == 0
    assert new.step == 1
    assert metrics["skipped"] == 0


def test_spike_rates_are_the_mean_over_the_time_steps():
    model = OwnModel()
    tx = bsojax.split_optimizer(bsojax.bso(np.inf), optax.set_to_zero())
    state = copied(initial_variables(model))
    state = dataclasses.replace(state, opt_state=tx.init(state.trainable))
    neurons, rates = {}, []
    for _ in range(T):
        variables = state.variables | ({"neurons": neurons} if neurons else {})
        _, changed = model.apply(variables, X, mutable=["neurons", "spike_rates"])
        neurons = changed["neurons"]
        rates.append(changed["spike_rates"]["LIF_0"]["rate"])
    _, metrics = bsojax.make_train_step(model, tx, T)(state, X, Y)
    np.testing.assert_allclose(metrics["spikes"]["LIF_0"], np.mean(rates), rtol=1e-6)


@pytest.mark.parametrize("accumulate", [False, *rarely(True)])
@pytest.mark.parametrize("broken", ["input", "label", *rarely("parameter")])
def test_what_is_not_finite_changes_nothing_and_is_counted(broken, accumulate):
    _, state, step = setup(vgg(), accumulate=accumulate)
    x, y = X.copy(), Y.copy()
    if broken == "input":
        x[0, 0, 0, 0] = np.nan
    elif broken == "label":
        y[3] = 4
    else:
        state.params["readout"]["bias"] = state.params["readout"]["bias"].at[0].set(jnp.inf)
    # Traced, or the check of values on the host would refuse the batch.
    new, metrics = jax.jit(lambda state: step(state, x, y))(state)
    assert metrics["skipped"] == (1 if accumulate else T)
    assert new.skipped == metrics["skipped"]
    assert new.step == 1
    for name in ("signs", "params", "batch_stats"):
        chex.assert_trees_all_equal(getattr(new, name), getattr(state, name))
    # The flip optimizer counts its calls, and those that changed nothing, as in a bare optax loop.
    flips = jax.tree.leaves(new.opt_state, is_leaf=lambda node: isinstance(node, bsojax.TBSOState))
    flip = next(node for node in flips if isinstance(node, bsojax.TBSOState))
    assert flip.skipped == flip.count == metrics["skipped"]
    uncounted = optax.tree.set(new.opt_state, count=jnp.int32(0), skipped=jnp.int32(0))
    chex.assert_trees_all_equal(uncounted, optax.tree.set(state.opt_state, count=jnp.int32(0), skipped=jnp.int32(0)))


def test_the_state_is_donated():
    _, state, step = setup(vgg())
    step(state, X, Y)
    assert state.signs["conv_1"]["kernel"].is_deleted()


def test_bfloat16_activations_train_with_a_float32_momentum():
    model = vgg()
    _, state, step = setup(model, dtype=jnp.bfloat16)
    new, metrics = step(state, X, Y)
    assert {leaf.dtype for leaf in jax.tree.leaves(new.params)} == {jnp.dtype("float32")}
    dtypes = {str(leaf.dtype) for leaf in jax.tree.leaves(new.opt_state)}
    assert dtypes == {"float32", "int32"}
    assert np.isfinite(metrics["loss"])
    assert sum(metrics["flips"].values()) > 0


def test_training_lowers_the_loss():
    _, state, step = setup(vgg())
    losses = []
    for _ in range(30):
        state, metrics = step(state, X, Y)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.5 * losses[0]


@each_model
def test_evaluation_is_a_plain_loop_without_traces(model):
    _, state, _ = setup(model)
    evaluate = bsojax.make_eval_step(model, T)
    result = evaluate(state, X, Y)
    neurons, total, loss = {}, 0.0, 0.0
    time_step = jax.jit(functools.partial(one_time_step, model, train=False))
    for t in range(T):
        logits, changed = time_step(state.variables, neurons, X, t)
        neurons, total, loss = changed["neurons"], total + logits, loss + LOSS(logits, Y) / T
    np.testing.assert_allclose(result["loss"], loss, rtol=1e-5)
    np.testing.assert_allclose(result["accuracy"], np.mean(np.argmax(total, -1) == Y), rtol=1e-6)


def test_packed_signs_evaluate_alike():
    model = vgg(binary_ends=True)
    _, state, _ = setup(model)
    variables = {**state.variables, "signs": bsojax.pack_signs(state.signs)}
    apply = jax.jit(lambda variables: model.apply(variables, X, mutable=["neurons"])[0])
    want, got = apply(state.variables), apply(variables)
    chex.assert_trees_all_close(got, want, rtol=1e-6)


refreshed = {
    "shared": (vgg(), vgg(norm=functools.partial(bsojax.BatchNorm, momentum=0.0))),
    "a time step": (vgg(norm=per_step_norm), vgg(norm=functools.partial(bsojax.BatchNorm, num_steps=T, momentum=0.0))),
    "flax": (FlaxNormModel(), FlaxNormModel(momentum=0.0)),
}


@pytest.mark.parametrize(("model", "momentless"), often(refreshed, "shared"))
def test_refreshed_statistics_are_those_of_all_examples_averaged_over_time_steps(model, momentless):
    _, state, step = setup(model)
    for _ in range(3):
        state, _ = step(state, X, Y)
    batches = [X[:4], X[4:] * 2]  # of equal size
    fresh = bsojax.refresh_statistics(model, state, batches, T)
    # With momentum 0 the running statistics after a time step are those of its batch.
    seen = []
    time_step = jax.jit(functools.partial(one_time_step, momentless, train=True))
    for x in batches:
        neurons, stats = {}, state.batch_stats
        for t in range(T):
            _, changed = time_step({**state.variables, "batch_stats": stats}, neurons, x, t)
            neurons, stats = changed["neurons"], changed["batch_stats"]
            seen.append(stats)
    if getattr(model, "norm", None) is per_step_norm:
        seen = seen[T - 1 :: T]  # after the last time step all entries are those of this batch

    def pooled(path, *leaves):
        values = np.stack(leaves).reshape(2, -1, *leaves[0].shape)  # batch, time step
        if path[-1].key == "var":
            means = [functools.reduce(lambda node, key: node[key.key], path[:-1], stats)["mean"] for stats in seen]
            values = values + np.var(np.stack(means).reshape(values.shape), axis=0)
        return values.mean((0, 1))

    want = jax.tree_util.tree_map_with_path(pooled, *seen)
    chex.assert_trees_all_close(fresh.batch_stats, want, rtol=1e-4, atol=1e-5)
    for name in ("signs", "params", "opt_state"):
        chex.assert_trees_all_equal(getattr(fresh, name), getattr(state, name))


def test_refreshing_without_a_norm_or_without_batches():
    _, state, _ = setup(OwnModel())
    assert bsojax.refresh_statistics(OwnModel(), state, [], T) is state
    _, state, _ = setup(vgg())
    with pytest.raises(ValueError, match="batches: there is none"):
        bsojax.refresh_statistics(vgg(), state, [], T)


def test_refreshing_again_does_not_compile_again():
    model = vgg()
    _, state, _ = setup(model)
    bsojax.refresh_statistics(model, state, [X], T)
    compiled = _statistics._measure._cache_size()
    bsojax.refresh_statistics(model, state, [X, X], T)
    assert _statistics._measure._cache_size() == compiled


def test_refreshing_closes_the_gap_that_flips_leave():
    model = vgg()
    _, state, step = setup(model, bsojax.t_bso(0.0, T, 0.9))
    for _ in range(20):
        state, metrics = step(state, X, Y)
    evaluate = bsojax.make_eval_step(model, T)
    stale = evaluate(state, X, Y)
    fresh = evaluate(bsojax.refresh_statistics(model, state, [X], T), X, Y)
    assert fresh["loss"] < stale["loss"]
    assert metrics["loss"] < stale["loss"]
