"""Padding: examples and time steps that do not count leave no trace in what is learned, measured and told."""

import dataclasses
import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import bsojax

pytestmark = pytest.mark.slow  # many programs are compiled

T, B, C = 5, 6, 3
rng = np.random.default_rng(0)
X = rng.random((T, B, 7)).astype(np.float32)
Y = np.arange(B) % C
MLP = functools.partial(bsojax.models.SpikingMLP, features=(12, 12), num_classes=C)
FAR = 1e3  # padding that would be seen


class FlaxNorm(nn.Module):
    @nn.compact
    def __call__(self, x, training=False):
        x = bsojax.LIF()(nn.BatchNorm()(bsojax.Dense(12)(x), use_running_average=not training))
        return bsojax.Dense(C)(bsojax.LIF()(bsojax.BinaryDense(12)(x)))


models = {
    "shared": MLP(),
    "per step": MLP(norm=functools.partial(bsojax.BatchNorm, num_steps=T)),
    "renorm": MLP(norm=bsojax.BatchRenorm),
    "flax": FlaxNorm(),
    "ndot": MLP(neuron=functools.partial(bsojax.LIF, trace=bsojax.ndot_released, v_reset=0.0)),
}
each_model = pytest.mark.parametrize("model", models.values(), ids=models.keys())


def optimizer(steps=T):
    return bsojax.split_optimizer(bsojax.t_bso(0.1, steps, b1=0.5), optax.sgd(0.1))


def trained(model, x, y, mask=None, tx=None, batches=3, steps=T, **kwargs):
    tx = optimizer() if tx is None else tx
    state = bsojax.init(model, tx, jax.random.key(0), x[0])
    step = bsojax.make_train_step(model, tx, steps, **kwargs)
    for _ in range(batches):
        state, metrics = step(state, x, y, mask=mask)
    return state, metrics


def agree(one, other):
    """The same signs; the rest within rounding, as sums run over more numbers."""
    chex.assert_trees_all_equal(one.signs, other.signs)
    for name in ("params", "batch_stats", "opt_state"):
        chex.assert_trees_all_close(getattr(one, name), getattr(other, name), rtol=2e-4, atol=2e-5)
    assert one.skipped == other.skipped == 0


def padded(x, examples, axis):
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, examples)
    return np.pad(x, widths, constant_values=FAR)


@each_model
def test_padded_examples_train_as_unpadded_ones(model):
    plain, told = trained(model, X, Y)
    x, y, mask = padded(X, 3, 1), np.append(Y, [-1, 99, 0]), np.arange(B + 3) < B
    with_padding, told_too = trained(model, x, y, mask)
    agree(plain, with_padding)
    chex.assert_trees_all_close(told, told_too, rtol=1e-4, atol=1e-5)


@each_model
@pytest.mark.parametrize("where", ["end", "beginning", "between"])
def test_padded_time_steps_train_as_unpadded_ones(model, where):
    if where != "end" and model is models["per step"]:
        pytest.skip("statistics of a time step are those of another one")
    long = T + 3
    at = {"end": [0, 1, 2, 3, 4], "beginning": [3, 4, 5, 6, 7], "between": [0, 2, 3, 6, 7]}[where]
    x, mask = np.full((long, *X.shape[1:]), FAR, np.float32), np.zeros((long, B), bool)
    x[at], mask[at] = X, True
    if model is models["per step"]:
        model = MLP(norm=functools.partial(bsojax.BatchNorm, num_steps=long))
    tx = bsojax.split_optimizer(bsojax.bso(1e-3, b1=0.5), optax.sgd(0.1))
    plain, told = trained(model, X, Y, tx=tx)
    with_padding, told_too = trained(model, x, Y, mask, tx=tx, steps=long)
    if getattr(model, "norm", None) is not None and "num_steps" in getattr(model.norm, "keywords", {}):
        plain, with_padding = (
            state.replace(batch_stats=jax.tree.map(lambda leaf: leaf[:T], state.batch_stats))
            for state in (plain, with_padding)
        )
    agree(plain, with_padding)
    chex.assert_trees_all_close(told, told_too, rtol=1e-4, atol=1e-5)


def test_padding_may_hold_anything():
    x = np.concatenate([X, np.full_like(X[:, :2], np.nan)], 1)
    state, metrics = trained(MLP(), x, np.append(Y, [0, 0]), np.arange(B + 2) < B)
    agree(state, trained(MLP(), X, Y)[0])
    assert metrics["skipped"] == 0


def test_a_shorter_sequence_is_one_more_compilation_and_no_other_result():
    model, tx = MLP(), bsojax.split_optimizer(bsojax.bso(1e-3, b1=0.5), optax.sgd(0.1))
    state = bsojax.init(model, tx, jax.random.key(0), X[0])
    step = bsojax.make_train_step(model, tx, 29)
    x, mask = np.zeros((29, *X.shape[1:]), np.float32), np.zeros((29, B), bool)
    x[:T], mask[:T] = X, True
    long, _ = step(state.replace(), x, Y, mask=mask)
    for length in (T, 16, T, 16):
        state = bsojax.init(model, tx, jax.random.key(0), X[0])
        short, _ = step(state, x[:length], Y, mask=mask[:length])
        agree(long, short)
    assert step._cache_size() == 3
    with pytest.raises(ValueError, match="Sequences of fewer time steps need a mask"):
        step(short, x[:16], Y)


def test_examples_of_unequal_length_are_those_of_each_alone():
    """Without norms examples do not see each other: gradients of a batch are the mean of those of each example."""
    model = MLP(norm=bsojax.Affine, scale=bsojax.rsqrt_fan_in)
    tx = bsojax.split_optimizer(bsojax.bso(jnp.inf, b1=0.0), optax.sgd(1.0))
    lengths = rng.integers(1, T + 1, B)
    mask = np.arange(T)[:, None] < lengths
    state = bsojax.init(model, tx, jax.random.key(0), X[0])
    before = jax.device_get(state.params)
    step = bsojax.make_train_step(model, tx, T, accumulate=True)
    together, metrics = step(state, X, Y, mask=mask)
    changes, losses = [], []
    for example, length in enumerate(lengths):
        alone = bsojax.make_train_step(model, tx, int(length), accumulate=True)
        state = bsojax.init(model, tx, jax.random.key(0), X[0])
        after, told = alone(state, X[:length, example : example + 1], Y[example : example + 1])
        changes.append(jax.tree.map(lambda new, old: np.asarray(new) - old, after.params, before))
        losses.append(told["loss"])
    want = jax.tree.map(lambda *leaves: np.mean(leaves, 0), *changes)
    change = jax.tree.map(lambda new, old: np.asarray(new) - old, together.params, before)
    chex.assert_trees_all_close(change, want, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(metrics["loss"], np.mean(losses), rtol=1e-5)


@each_model
def test_evaluation_prediction_and_statistics_leave_padding_out(model):
    state, _ = trained(model, X, Y)
    x, y, mask = padded(X, 3, 1), np.append(Y, [0, 0, 0]), np.arange(B + 3) < B
    evaluate = bsojax.make_eval_step(model, T)
    chex.assert_trees_all_close(evaluate(state, X, Y), evaluate(state, x, y, mask=mask), rtol=1e-5)
    found = bsojax.predict(model, state, x, T, mask=mask)
    chex.assert_trees_all_close(found[:B], bsojax.predict(model, state, X, T), rtol=1e-5)
    assert not found[B:].any()
    if model is not models["renorm"]:
        plain = bsojax.refresh_statistics(model, state, [X, X[:, :4]], T)
        mixed = bsojax.refresh_statistics(model, state, [(x, None, mask), (X[:, :4], Y[:4])], T)
        chex.assert_trees_all_close(plain.batch_stats, mixed.batch_stats, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("per_step", [False, True])
def test_recordings_are_zero_where_padding_is(per_step):
    state, _ = trained(MLP(), X, Y)
    lengths = np.arange(B) % T + 1
    mask = np.arange(T)[:, None] < lengths if per_step else lengths > T // 2
    alone, masked = bsojax.record(MLP(), state, X, T), bsojax.record(MLP(), state, X, T, mask=mask)
    assert masked.keys() == alone.keys()
    for name, layer in masked.items():
        for field in dataclasses.fields(layer):
            found, want = getattr(layer, field.name), np.asarray(getattr(alone[name], field.name))
            assert found.dtype == want.dtype
            counts = np.broadcast_to(mask, (T, B)).reshape(T, B, *(1,) * (want.ndim - 2))
            np.testing.assert_allclose(found, np.where(counts, want, 0), rtol=1e-5, atol=1e-6)
    assert np.asarray(alone[name].spikes)[~np.broadcast_to(mask, (T, B))].any()  # or this would show nothing


def test_a_time_step_with_a_single_example_keeps_the_running_statistics():
    mask = np.ones((T, B), bool)
    mask[-1, 1:] = False
    model = MLP(norm=functools.partial(bsojax.BatchNorm, num_steps=T))
    state, metrics = trained(model, X, Y, mask)
    for norm in state.batch_stats.values():
        np.testing.assert_array_equal(norm["mean"][-1], 0)
        np.testing.assert_array_equal(norm["var"][-1], 1)
        assert (norm["var"][:-1] != 1).any()
    assert metrics["skipped"] == 0
    for model in (models["per step"], MLP()):
        state, _ = trained(model, X, Y, mask)
        fresh = bsojax.refresh_statistics(model, state, [(X, Y, mask)], T)
        full = bsojax.refresh_statistics(model, state, [X[:-1]], T - 1) if model.norm is bsojax.BatchNorm else fresh
        chex.assert_trees_all_close(fresh.batch_stats, full.batch_stats, rtol=1e-4, atol=1e-5)


def test_statistics_where_a_sequence_begins_alone_are_those_of_a_plain_loop():
    """The lone example is normalised by the running statistics, and its membranes reach steps that are measured."""
    mask = np.ones((T, B), bool)
    mask[:2, 1:] = False
    model = MLP()
    state, _ = trained(model, X, Y, batches=10)
    fresh = bsojax.refresh_statistics(model, state, [(X, Y, mask)], T)
    variables = state.variables
    old, neurons = variables["batch_stats"], bsojax.online.start(model, X[0], T, train=True).neurons
    sums = jax.tree.map(jnp.zeros_like, old)
    for t in range(T):
        counted = jnp.asarray(mask[t])
        frame = jnp.where(counted[:, None], X[t], 0)
        out = bsojax.online.forward(model, variables, neurons, frame, t, train=True, counted=counted)
        neurons = jax.tree.map(
            lambda new, kept, counted=counted: jnp.where(counted.reshape(-1, *[1] * (new.ndim - 1)), new, kept),
            out.neurons, neurons,
        )  # fmt: skip
        if mask[t].sum() > 1:  # of a moving average that decays by 0.9, a tenth is the batch's own
            sums = jax.tree.map(lambda s, new, was: s + B * (new - 0.9 * was) / 0.1, sums, out.batch_stats, old)
    want = jax.tree.map(lambda s: s / (B * (T - 2)), sums)
    chex.assert_trees_all_close(fresh.batch_stats, want, rtol=1e-3, atol=1e-4)


def test_statistics_of_sequences_one_at_a_time_are_refused():
    state, _ = trained(MLP(), X, Y)
    alone = [(X[:, [place]], None, np.ones((T, 1), bool)) for place in range(B)]
    with pytest.raises(ValueError, match="batches: no statistics could be measured"):
        bsojax.refresh_statistics(MLP(), state, alone, T)


@pytest.mark.parametrize("model", [models["flax"], models["shared"]], ids=["flax", "shared"])
def test_time_steps_without_any_example_leave_statistics_alone(model):
    state, _ = trained(model, X, Y)
    mask = np.ones((T, B), bool)
    mask[-1] = False
    short = bsojax.refresh_statistics(model, state, [X[:-1]], T - 1)
    padded = bsojax.refresh_statistics(model, state, [(X, None, mask)], T)
    chex.assert_trees_all_close(padded.batch_stats, short.batch_stats, rtol=1e-4, atol=1e-5)


def test_backward_steps_are_drawn_among_those_that_count():
    counts = []
    for x in (X[:3], X):
        tx = optimizer()
        mask = np.broadcast_to(np.arange(len(x))[:, None] < 3, (len(x), B))
        state = bsojax.init(MLP(), tx, jax.random.key(0), X[0])
        step = bsojax.make_train_step(MLP(), tx, T, backward_steps=2)
        for _ in range(6):
            state, _ = step(state, x, Y, mask=mask)
        counts.append(int(state.opt_state.signs.count))
    assert counts == [12, 12]


def test_a_mask_may_be_a_list():
    state, _ = trained(MLP(), X, Y)
    mask = np.arange(T)[:, None] < np.arange(B)
    for call in (bsojax.predict, bsojax.record):
        chex.assert_trees_all_equal(call(MLP(), state, X, T, mask=mask.tolist()), call(MLP(), state, X, T, mask=mask))
    found = [bsojax.refresh_statistics(MLP(), state, [(X, None, each)], T) for each in (mask, mask.tolist())]
    chex.assert_trees_all_equal(*found)


def test_a_mask_is_no_longer_than_the_sequence():
    state, _ = trained(MLP(), X, Y)
    assert bsojax.predict(MLP(), state, X[0], T, mask=np.ones((2, B), bool), per_step=True).shape == (2, B, C)
    with pytest.raises(ValueError, match=r"mask: needs the shape \(6,\) or \(5, 6\), got \(8, 6\)"):
        bsojax.predict(MLP(), state, X[0], T, mask=np.ones((8, B), bool))


def test_nothing_counts():
    state, _ = trained(MLP(), X, Y)
    before = jax.device_get(state)
    step = bsojax.make_train_step(MLP(), optimizer(), T)
    with pytest.raises(ValueError, match="mask: it counts no example"):
        step(state, X, Y, mask=np.zeros(B, bool))
    after, metrics = step(state, X, Y, mask=jnp.zeros(B, bool))
    for name in ("signs", "params", "batch_stats", "opt_state"):
        chex.assert_trees_all_equal(getattr(after, name), getattr(before, name))
    assert metrics["skipped"] == 0
    assert np.isnan(metrics["loss"])
    assert np.isnan(metrics["accuracy"])


@pytest.mark.parametrize(
    ("mask", "error", "match"),
    [
        (np.ones(B, np.float32), TypeError, "mask: needs booleans"),
        (np.ones(B + 1, bool), ValueError, r"mask: needs the shape \(6,\) or \(5, 6\), got \(7,\)"),
        (np.ones((B, T), bool), ValueError, "mask: needs the shape"),
    ],
)
def test_masks_that_do_not_fit(mask, error, match):
    with pytest.raises(error, match=match):
        trained(MLP(), X, Y, mask)


def test_losses_that_return_a_mean_cannot_leave_padding_out():
    with pytest.raises(ValueError, match="loss: it returns a scalar"):
        trained(MLP(), X, Y, np.arange(B) < 4, loss=lambda logits, y: optax.losses.squared_error(logits).mean())
    trained(MLP(), X, Y, np.arange(B) < 4, loss=lambda logits, y: optax.losses.squared_error(logits))


@pytest.mark.parametrize("axis_name", ["batch", None])
def test_masks_on_several_devices_are_those_of_one(axis_name):
    model = MLP(norm=functools.partial(bsojax.BatchNorm, axis_name=axis_name))
    x, y = padded(X, 2, 1), np.append(Y, [0, 0])
    mask = np.arange(T)[:, None] < np.array([5, 4, 2, 1, 5, 3, 0, 0])
    one, told = trained(MLP(), x, y, mask)
    tx = optimizer()
    if axis_name is None:
        mesh = bsojax.data_mesh(jax.devices()[:4])
        put = lambda leaf, spec: jax.device_put(leaf, jax.NamedSharding(mesh, spec))  # noqa: E731
        state = bsojax.init(model, tx, jax.random.key(0), X[0])
        state = jax.device_put(state, bsojax.state_shardings(state, mesh))
        batch = put(x, jax.P(None, "batch")), put(y, jax.P("batch"))
        step = bsojax.make_train_step(model, tx, T)
        for _ in range(3):
            state, metrics = step(state, *batch, mask=put(mask, jax.P(None, "batch")))
    else:
        step = bsojax.make_train_step(model, tx, T, axis_name="batch")
        split = lambda leaf, axis: np.stack(np.split(leaf, 4, axis))  # noqa: E731
        state = bsojax.init(model, tx, jax.random.key(0), X[0])
        state = jax.tree.map(lambda leaf: jnp.stack([leaf] * 4), state)
        called = lambda state, x, y, mask: step(state, x, y, mask=mask)  # noqa: E731
        run = jax.pmap(called, axis_name="batch", devices=jax.devices()[:4])
        for _ in range(3):
            state, metrics = run(state, split(x, 1), split(y, 0), split(mask, 1))
        state, metrics = jax.tree.map(lambda leaf: leaf[0], (state, metrics))
    agree(one, state)
    chex.assert_trees_all_close(told, jax.device_get(metrics), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sizes", [(6, 6), (6, 3, 2), (11, 1), (4, 4, 4), (2,) * 6])
def test_statistics_of_unequal_batches_are_those_of_all_examples(sizes):
    """Of the first norm, whose input no other norm has seen."""
    if 1 in sizes:
        kind, image = bsojax.models.SpikingVGG(channels=(4, 4), num_classes=C), (12, 5, 5, 1)
    else:
        kind, image = MLP(), (12, 7)
    x = 3 + rng.standard_normal(image).astype(np.float32)
    state = bsojax.init(kind, optimizer(), jax.random.key(0), x)
    batches = np.split(x, np.cumsum(sizes)[:-1])
    fresh = bsojax.refresh_statistics(kind, state, batches, T).batch_stats["norm_0"]
    layer = "conv_0" if 1 in sizes else "dense_0"
    make = bsojax.Conv(4, (3, 3)) if 1 in sizes else bsojax.Dense(12)
    current = np.asarray(make.apply({"params": state.params[layer]}, x), np.float64).reshape(-1, len(fresh["mean"]))
    np.testing.assert_allclose(fresh["mean"], current.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(fresh["var"], current.var(0), rtol=1e-4, atol=1e-5)
