"""Targets that are not one class an example, losses around losses, and metrics that users choose."""

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
from bsojax import losses

T, B, C = 4, 6, 3
rng = np.random.default_rng(0)
X = rng.random((B, 7)).astype(np.float32)
Y = np.arange(B) % C
MODEL = bsojax.models.SpikingMLP(features=(12, 12), num_classes=C)
TX = bsojax.split_optimizer(bsojax.t_bso(0.1, T, b1=0.5), optax.sgd(0.1))


def trained(y, x=X, model=MODEL, tx=TX, mask=None, **kwargs):
    state = bsojax.init(model, tx, jax.random.key(0), x)
    return bsojax.make_train_step(model, tx, T, **kwargs)(state, x, y, mask=mask)


def logits_of(model=MODEL, x=X):
    """The logits of each time step in evaluation, before any training."""
    state = bsojax.init(model, TX, jax.random.key(0), x)
    return state, np.asarray(bsojax.predict(model, state, x, T, per_step=True))


def evaluated(y, mask=None, model=MODEL, **kwargs):
    state, logits = logits_of(model)
    return bsojax.make_eval_step(model, T, **kwargs)(state, X, y, mask=mask), logits


def mean_absolute(logits, y):
    return jnp.abs(logits - y).mean(-1)


targets = {
    "regression": (rng.random((B, C)).astype(np.float32), losses.mean_squared_error),
    "optax's, a value an element": (rng.random((B, C)).astype(np.float32), optax.squared_error),
    "several labels": (rng.random((B, C)) < 0.5, losses.binary_cross_entropy),
    "soft labels": (np.full((B, C), 1 / C, np.float32), losses.cross_entropy),
    "soft labels, default loss": (np.full((B, C), 1 / C, np.float32), None),
    "labels": (Y, losses.cross_entropy),
    "labels, one a time step": (np.tile(Y, (T, 1)), losses.cross_entropy),
    "real, one a time step": (rng.random((T, B, C)).astype(np.float32), losses.mean_squared_error),
    "a tree": ({"a": rng.random((B, C)).astype(np.float32), "b": Y}, lambda p, y: losses.mean_squared_error(p, y["a"])),
}


in_short = ("regression", "several labels", "labels, one a time step", "a tree")


@pytest.mark.parametrize(("y", "loss"), often(targets, *in_short))
def test_a_loss_is_given_whatever_the_targets_are(y, loss):
    options = {} if loss is None else {"loss": loss}
    found, logits = evaluated(y, **options)
    per_step = isinstance(y, np.ndarray) and y.shape[:1] == (T,)
    each = losses.per_example(loss or bsojax.cross_entropy_mse())
    at = lambda t: y[t] if per_step else y  # noqa: E731
    want = np.mean([np.mean(each(logits[t], jax.tree.map(jnp.asarray, at(t)))) for t in range(T)])
    np.testing.assert_allclose(found["loss"], want, rtol=1e-5)
    state, metrics = trained(y, **options)
    assert metrics["skipped"] == 0
    assert np.isfinite(metrics["loss"])
    assert ("accuracy" in metrics) == (isinstance(y, np.ndarray) and y.dtype == np.int64)
    assert any(bool(jnp.any(leaf != 0)) for leaf in jax.tree.leaves(optax.tree.get(state.opt_state, "momentum")))


def test_labels_of_each_time_step_that_are_the_same_are_labels():
    one, told = trained(Y, loss=losses.cross_entropy)
    other, told_too = trained(np.tile(Y, (T, 1)), loss=losses.cross_entropy)
    chex.assert_trees_all_equal(one.trainable, other.trainable)
    assert told["loss"] == told_too["loss"]


def test_as_many_examples_as_time_steps():
    x, y = X[:T], np.tile(Y[:T], (T, 1))
    with pytest.raises(ValueError, match=r"bsojax.PerExample\(y\) or bsojax.PerStep"):
        trained(y, x)
    one, _ = trained(Y[:T], x)
    other, _ = trained(bsojax.PerStep(y), x)
    chex.assert_trees_all_equal(one.signs, other.signs)
    soft = np.eye(T, dtype=np.float32)[:, :C]
    trained(bsojax.PerExample(np.tile(soft[:, :1], (1, T))), x, model=MODEL.clone(num_classes=T))
    with pytest.raises(ValueError, match=r"y: needs the shape \(4, 6, ...\), got \(6,\)"):
        trained(bsojax.PerStep(Y))


def test_several_inputs_and_heads():
    class Two(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            both = jnp.concatenate([x["image"], x["sound"]], -1)
            hidden = bsojax.LIF()(bsojax.BatchNorm()(bsojax.BinaryDense(12)(both), train))
            return {"class": bsojax.Dense(C, name="class")(hidden), "size": bsojax.Dense(1, name="size")(hidden)}

    def loss(out, y):
        return losses.cross_entropy(out["class"], y["class"]) + losses.mean_squared_error(out["size"], y["size"])

    x = {"image": X, "sound": rng.random((T, B, 2)).astype(np.float32)}  # one is shown, the other is heard over time
    first = {"image": X, "sound": x["sound"][0]}
    y = {"class": Y, "size": rng.random((B, 1)).astype(np.float32)}
    state = bsojax.init(Two(), TX, jax.random.key(0), first)
    right = lambda out, y: losses.accuracy(out["class"], y["class"])  # noqa: E731
    step = bsojax.make_train_step(Two(), TX, T, loss=loss, metrics={"right": right})
    state, metrics = step(state, x, y)
    assert metrics["skipped"] == 0
    assert 0 <= metrics["right"] <= 1
    state = bsojax.refresh_statistics(Two(), state, [(x, y)], T)
    told = bsojax.make_eval_step(Two(), T, loss=loss, metrics={"right": right})(state, x, y)
    assert np.isfinite(told["loss"])
    out = bsojax.predict(Two(), state, x, T)
    assert out["class"].shape == (B, C)
    assert out["size"].shape == (B, 1)
    with pytest.raises(ValueError, match="x: the model was initialised for a tree"):
        step(state, {"image": X}, y)
    with pytest.raises(ValueError, match="x/image: the model was initialised for examples of shape"):
        step(state, {**x, "image": X[:, :3]}, y)
    with pytest.raises(ValueError, match="x: its leaves have unequal numbers of examples"):
        step(state, {**x, "image": X[:3]}, y)


@pytest.mark.parametrize("per_step", [False, *rarely(True)])
@pytest.mark.parametrize("classes", [(C, C), *rarely((C, C + 1))])
def test_class_labels_with_several_heads(per_step, classes):
    """Local losses at each layer, as in DECOLLE: labels are theirs, and are looked at where all heads agree."""

    class Heads(nn.Module):
        @nn.compact
        def __call__(self, x):
            found = []
            for size in classes:
                spikes = bsojax.LIF()(bsojax.BinaryDense(12, scale=bsojax.rsqrt_fan_in)(x))
                found.append(bsojax.Dense(size)(spikes))
                x = bsojax.Spikes(jax.lax.stop_gradient(spikes.value), spikes.trace)
            return tuple(found)

    def local(outputs, y):
        return sum(losses.cross_entropy(logits, y) for logits in outputs)

    y = np.tile(Y, (T, 1)) if per_step else Y
    told = {"first": lambda outputs, y: losses.accuracy(outputs[0], y)}
    _, metrics = trained(y, model=Heads(), loss=local, metrics=told)
    assert 0 <= metrics["first"] <= 1
    assert metrics["skipped"] == 0
    _, metrics = trained(y, model=Heads(), loss=local)
    assert "accuracy" not in metrics
    if classes[0] == classes[1]:
        with pytest.raises(ValueError, match="y: .* labels are outside the classes 0 .. 2"):
            trained(y + 1, model=Heads(), loss=local)


@pytest.mark.parametrize("per_step", [False, *rarely(True)])
def test_ignored_labels_leave_an_example_out(per_step):
    y = Y.copy()
    y[[1, 4]] = -1
    y = np.tile(y, (T, 1)) if per_step else y
    found, logits = evaluated(y, loss=losses.ignoring(losses.cross_entropy))
    kept = [0, 2, 3, 5]
    want = np.mean([np.mean(losses.cross_entropy(jnp.asarray(logits[t, kept]), Y[kept])) for t in range(T)])
    np.testing.assert_allclose(found["loss"], want, rtol=1e-5)
    outputs = logits if per_step else logits.mean(0)
    np.testing.assert_allclose(found["accuracy"], np.mean(outputs[..., kept, :].argmax(-1) == Y[kept]), rtol=1e-6)
    _, metrics = trained(y, loss=losses.ignoring(bsojax.cross_entropy_mse()))
    assert metrics["skipped"] == 0
    with pytest.raises(ValueError, match=r"y: .* labels are outside the classes 0 .. 2, the first at index"):
        trained(np.where(y == 2, 3, y), loss=losses.ignoring(losses.cross_entropy))
    with pytest.raises(TypeError, match="y: losses.ignoring needs integer class labels"):
        trained(X[:, :C], loss=losses.ignoring(losses.mean_squared_error))


def test_a_loss_at_the_last_time_step():
    found, logits = evaluated(Y, loss=losses.at_last(losses.cross_entropy))
    np.testing.assert_allclose(found["loss"], np.mean(losses.cross_entropy(jnp.asarray(logits[-1]), Y)), rtol=1e-5)
    np.testing.assert_allclose(found["accuracy"], np.mean(logits[-1].argmax(-1) == Y))
    lengths = np.array([1, 4, 2, 3, 4, 1])
    found, logits = evaluated(Y, np.arange(T)[:, None] < lengths, loss=losses.at_last(losses.cross_entropy))
    last = logits[lengths - 1, np.arange(B)]
    np.testing.assert_allclose(found["loss"], np.mean(losses.cross_entropy(jnp.asarray(last), Y)), rtol=1e-5)


def test_a_loss_at_the_last_time_step_updates_there_alone():
    state, metrics = trained(Y, loss=losses.at_last(losses.cross_entropy))
    second = jax.tree.leaves(optax.tree.get(state.opt_state, "second_moment"))
    for leaf in second:
        np.testing.assert_array_equal(leaf[:-1], 0)
        assert leaf[-1] > 0
    assert optax.tree.get(state.opt_state, "skipped") == metrics["skipped"] == 0
    assert optax.tree.get(state.opt_state, "count") == 1
    summed, _ = trained(Y, loss=losses.at_last(losses.cross_entropy), accumulate=True)
    assert optax.tree.get(summed.opt_state, "count") == 1


def test_a_loss_of_the_counts_so_far():
    found, logits = evaluated(Y, loss=losses.on_total(losses.cross_entropy))
    totals = np.cumsum(logits, 0)
    want = np.mean([np.mean(losses.cross_entropy(jnp.asarray(total), Y)) for total in totals])
    np.testing.assert_allclose(found["loss"], want, rtol=1e-5)
    _, metrics = trained(Y, loss=losses.at_last(losses.on_total(losses.cross_entropy)))
    assert metrics["skipped"] == 0


def test_a_term_on_spike_rates():
    """With a weight alone it moves the rates towards the target; the rates are those that the metrics tell."""
    nothing = lambda logits, y: jnp.zeros(len(logits))  # noqa: E731
    tx = bsojax.split_optimizer(bsojax.bso(jnp.inf), optax.sgd(0.5))
    for target in (0.0, 0.6):
        loss = losses.with_spike_rate(nothing, weight=10.0, target=target)
        state, step = bsojax.init(MODEL, tx, jax.random.key(0), X), bsojax.make_train_step(MODEL, tx, T, loss=loss)
        told = []
        for _ in range(40):
            state, metrics = step(state, X, Y)
            told.append(metrics)
        away = [abs(np.mean(list(metrics["spikes"].values())) - target) for metrics in (told[0], told[-1])]
        assert away[1] < 0.5 * away[0]
    one = losses.with_spike_rate(nothing, weight=1.0, target=0.5, layers=("neuron_1",))
    found, _ = evaluated(Y, loss=one)
    assert 0 <= found["loss"] <= 0.25
    with pytest.raises(ValueError, match=r"layers: the model has no layers \['lif'\]"):
        evaluated(Y, loss=losses.with_spike_rate(nothing, layers=("lif",)))


class Sowing(nn.Module):
    @nn.compact
    def __call__(self, x):
        hidden = bsojax.LIF()(bsojax.BinaryDense(12, scale=bsojax.rsqrt_fan_in)(x))
        self.sow("losses", "activity", hidden.value)
        return bsojax.Dense(C)(hidden)


def test_a_term_that_the_model_sows():
    found, _ = evaluated(Y, model=Sowing(), loss=losses.with_sown(losses.cross_entropy, weight=2.0))
    plain, _ = evaluated(Y, model=Sowing(), loss=lambda logits, y, sown: losses.cross_entropy(logits, y))
    state, _ = logits_of(Sowing())
    rate = np.mean(bsojax.record(Sowing(), state, X, T)["LIF_0"].spikes)
    np.testing.assert_allclose(found["loss"] - plain["loss"], 2 * rate, rtol=1e-5)
    with pytest.raises(ValueError, match=r"loss: the model sows losses .*activity.*with_sown"):
        trained(Y, model=Sowing())


def test_a_loss_may_know_the_time_step():
    def later(logits, y, *, time_step):
        return losses.cross_entropy(logits, y) * time_step

    found, logits = evaluated(Y, loss=later)
    want = np.mean([t * np.mean(losses.cross_entropy(jnp.asarray(logits[t]), Y)) for t in range(T)])
    np.testing.assert_allclose(found["loss"], want, rtol=1e-5)


def test_metrics():
    chosen = {"top2": losses.top_k(2), "matrix": losses.confusion, "mean": lambda logits, y: logits.mean()}
    found, logits = evaluated(Y, metrics=chosen)
    mean = logits.mean(0)
    order = np.argsort(-mean, -1)
    np.testing.assert_allclose(found["top2"], np.mean((order[:, :2] == Y[:, None]).any(-1)))
    np.testing.assert_allclose(np.trace(found["matrix"]), np.mean(order[:, 0] == Y))
    recalls = [np.mean(order[label == Y, 0] == label) for label in range(C)]
    np.testing.assert_allclose(losses.recalls(found["matrix"]), recalls, rtol=1e-6)
    np.testing.assert_allclose(found["mean"], mean.mean(), rtol=1e-5)
    assert set(trained(Y, metrics=chosen)[1]) == {*chosen, "loss", "flips", "spikes", "skipped"}
    with pytest.raises(ValueError, match=r"metrics: \['flips'\] are names that a step itself returns"):
        bsojax.make_train_step(MODEL, TX, T, metrics={"flips": losses.accuracy})
    with pytest.raises(ValueError, match="metrics: 'bad' must return a scalar or an array of shape"):
        evaluated(Y, metrics={"bad": lambda logits, y: jnp.zeros(B + 1)})


def test_metrics_of_real_targets_are_of_the_mean_over_time():
    y = rng.random((B, C)).astype(np.float32)
    found, logits = evaluated(y, loss=optax.squared_error, metrics={"absolute": mean_absolute})
    np.testing.assert_allclose(found["absolute"], np.abs(logits.mean(0) - y).mean(), rtol=1e-5)
    ys = rng.random((T, B, C)).astype(np.float32)
    found, logits = evaluated(ys, loss=optax.squared_error, metrics={"absolute": mean_absolute})
    np.testing.assert_allclose(found["absolute"], np.abs(logits - ys).mean(), rtol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "classes"),
    [
        ("int8", 128),
        ("uint8", 300),
        *(
            pytest.param(dtype, classes, marks=pytest.mark.slow)
            for dtype, classes in (
                *(("int8", classes) for classes in (127, 300)),
                *(("uint8", classes) for classes in (128, 256)),
                *((dtype, 300) for dtype in ("int16", "uint16", "uint32", "int64")),
            )
        ),
    ],
)
def test_labels_of_any_integer_dtype(dtype, classes):
    labels = np.minimum(np.array([0, 1, 43, 44, 100, 126]), np.iinfo(dtype).max).astype(dtype)
    model = bsojax.models.SpikingMLP(features=(8, 8), num_classes=classes)
    state, step = bsojax.init(model, TX, jax.random.key(0), X), bsojax.make_train_step(model, TX, T)
    _, want = step(state, X, labels.astype(np.int32))
    _, found = step(bsojax.init(model, TX, jax.random.key(0), X), X, labels)
    chex.assert_trees_all_equal(found, want)
    assert found["skipped"] == 0


bad_targets = {
    "shape of the logits": (
        X[:, :2],
        losses.mean_squared_error,
        ValueError,
        "y: this loss needs targets of the logits'",
    ),
    "binary of labels": (Y, losses.binary_cross_entropy, ValueError, "y: this loss needs targets of the logits'"),
    "counts that are no classes": (Y + 5, None, ValueError, "if they are numbers and not classes, convert them"),
    "another number": (X[:4], optax.squared_error, ValueError, "y: x holds 6 examples"),
    "a tree with one of another number": ({"a": X[:4]}, optax.squared_error, ValueError, "y/a: x holds 6 examples"),
}


@pytest.mark.parametrize(("y", "loss", "error", "match"), bad_targets.values(), ids=bad_targets.keys())
def test_targets_that_would_be_broadcast_or_misread(y, loss, error, match):
    with pytest.raises(error, match=match):
        trained(y, **({} if loss is None else {"loss": loss}))


def test_optimizers_are_handed_the_loss():
    plateau = optax.contrib.reduce_on_plateau(factor=0.5, patience=2, cooldown=0)
    tx = bsojax.split_optimizer(bsojax.t_bso(0.1, T), optax.chain(optax.adam(1e-3), plateau))
    constant = lambda logits, y: 0 * logits.sum(-1) + 1  # noqa: E731
    state, step = bsojax.init(MODEL, tx, jax.random.key(0), X), bsojax.make_train_step(MODEL, tx, T, loss=constant)
    for _ in range(5):
        state, _ = step(state, X, Y)
    kind = optax.contrib.ReduceLROnPlateauState
    nodes = jax.tree.leaves(state.opt_state, is_leaf=lambda node: isinstance(node, kind))
    (found,) = [node for node in nodes if isinstance(node, kind)]
    np.testing.assert_allclose(found.best_value, 1 / T)
    assert found.scale < 1


@functools.cache
def flagged(flag, during_training):
    """A model whose ``__call__`` calls its flag by a given name."""

    def call(x, on):
        hidden = bsojax.LIF()(bsojax.BatchNorm()(bsojax.BinaryDense(12)(x), on == during_training))
        return bsojax.Dense(C)(hidden)

    names = {"call": call}
    exec(f"def named(self, x, {flag}={bool(not during_training)}):\n    return call(x, {flag})", names)
    return type("Flagged", (nn.Module,), {"__call__": nn.compact(names["named"])})


@pytest.mark.parametrize(
    ("flag", "during_training"),
    [
        ("train", True),
        pytest.param("training", True, marks=pytest.mark.slow),
        pytest.param("is_training", True, marks=pytest.mark.slow),
        ("deterministic", False),
        pytest.param("use_running_average", False, marks=pytest.mark.slow),
    ],
)
def test_a_model_is_told_that_it_is_trained_by_whatever_name_it_has_for_it(flag, during_training):
    model = flagged(flag, during_training)()
    state, _ = trained(Y, model=model)
    assert any(bool(jnp.any(leaf != 0)) for leaf in jax.tree.leaves(state.batch_stats["BatchNorm_0"]["mean"]))
    want, _ = trained(Y, model=flagged("train", 1)())
    chex.assert_trees_all_equal(state.trainable, want.trainable)
    chex.assert_trees_all_equal(state.batch_stats, want.batch_stats)


def test_a_model_with_statistics_that_cannot_be_told_is_refused():
    class Silent(nn.Module):
        @nn.compact
        def __call__(self, x):
            return bsojax.Dense(C)(bsojax.LIF()(bsojax.BatchNorm()(bsojax.BinaryDense(12)(x))))

    with pytest.raises(ValueError, match="model: it has running statistics, and its __call__ takes no flag"):
        trained(Y, model=Silent())


def test_a_batch_of_one_through_a_norm_of_a_dense_layer():
    with pytest.raises(ValueError, match="x: BatchNorm 'norm_0' has one value per channel.*bsojax.Affine"):
        trained(Y[:1], X[:1])
    image = bsojax.models.SpikingVGG(channels=(4, 4), num_classes=C)
    _, metrics = trained(Y[:1], rng.random((1, 6, 6, 1)).astype(np.float32), model=image)
    assert metrics["skipped"] == 0
