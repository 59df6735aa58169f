"""What goes from call to call: random keys, the neurons of a stream, states that were donated."""

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

T, B, C = 4, 8, 3
rng = np.random.default_rng(0)
X = rng.random((3 * T, B, 7)).astype(np.float32)
Y = np.arange(B) % C
TX = bsojax.split_optimizer(bsojax.bso(1e-4, b1=0.5), optax.sgd(0.1))
MLP = functools.partial(bsojax.models.SpikingMLP, features=(12, 12), num_classes=C)


class Dropping(nn.Module):
    drop: type[nn.Module] = nn.Dropout

    @nn.compact
    def __call__(self, x, train=False):
        x = bsojax.LIF()(bsojax.BinaryDense(12, scale=bsojax.rsqrt_fan_in)(x))
        x = self.drop(0.5)(x.value, deterministic=not train)
        return bsojax.Dense(C)(bsojax.LIF()(bsojax.BinaryDense(12, scale=bsojax.rsqrt_fan_in)(x)))


class Noisy(nn.Module):
    """What it draws is what it returns: by time step, and for the sequence."""

    stream: str = "noise"

    @nn.compact
    def __call__(self, x):
        bsojax.BinaryDense(C)(x)
        return jax.random.normal(self.make_rng(self.stream), (len(x), C)) + 0 * bsojax.Dense(C)(x)


def trained(model, x, rngs, batches=3, tx=TX, steps=T):
    state, step = bsojax.init(model, tx, jax.random.key(0), x[0]), bsojax.make_train_step(model, tx, steps)
    for _ in range(batches):
        state, metrics = step(state, x[:steps], Y, rngs=rngs)
    return state, metrics


@pytest.mark.parametrize("keys", [jax.random.key(1), {"noise": jax.random.key(1)}, jax.random.PRNGKey(1)])
def test_each_time_step_and_batch_draws_anew(keys):
    state = bsojax.init(Noisy(), TX, jax.random.key(0), X[0])
    drawn = bsojax.predict(Noisy(), state, X[:T], T, per_step=True, rngs=keys)
    assert len(np.unique(drawn)) == drawn.size
    chex.assert_trees_all_equal(drawn, bsojax.predict(Noisy(), state, X[:T], T, per_step=True, rngs=keys))
    step = bsojax.make_train_step(Noisy(), TX, T, metrics={"first": lambda logits, y: logits[0, 0]})
    told = []
    for _ in range(3):
        state, metrics = step(state, X[:T], Y, rngs=keys)
        told.append(float(metrics["first"]))
    assert len(set(told)) == 3


@pytest.mark.parametrize("keys", [jax.random.key(1), {"params": jax.random.key(1)}, {"sequence": jax.random.key(1)}])
def test_the_stream_of_a_sequence_is_the_same_at_each_time_step(keys):
    state = bsojax.init(Noisy("sequence"), TX, jax.random.key(0), X[0])
    drawn = bsojax.predict(Noisy("sequence"), state, X[:T], T, per_step=True, rngs=keys)
    for frame in drawn:
        np.testing.assert_array_equal(frame, drawn[0])


@pytest.mark.slow
def test_flax_dropout_trains_and_resumes_to_the_same_bits():
    key = jax.random.key(3)
    whole, _ = trained(Dropping(), X, key, batches=4)
    half, _ = trained(Dropping(), X, key, batches=2)
    step = bsojax.make_train_step(Dropping(), TX, T)
    half = jax.device_put(jax.device_get(half))  # as from a file
    for _ in range(2):
        half, _ = step(half, X[:T], Y, rngs=key)
    chex.assert_trees_all_equal(whole, half)
    other, _ = trained(Dropping(), X, jax.random.key(4), batches=4)
    assert any(bool(jnp.any(a != b)) for a, b in zip(*map(jax.tree.leaves, (whole.params, other.params)), strict=True))
    with pytest.raises(Exception, match="needs PRNG for"):
        trained(Dropping(), X, None)


@pytest.mark.parametrize("count", [2, *rarely(4, 8)])
def test_dropout_is_the_same_on_any_number_of_devices(count):
    key = jax.random.key(3)
    one, told = trained(Dropping(), X, key)
    mesh = bsojax.data_mesh(jax.devices()[:count])
    state = bsojax.init(Dropping(), TX, jax.random.key(0), X[0])
    state = jax.device_put(state, bsojax.state_shardings(state, mesh))
    x = jax.device_put(X[:T], jax.NamedSharding(mesh, jax.P(None, "batch")))
    y = jax.device_put(Y, jax.NamedSharding(mesh, jax.P("batch")))
    step = bsojax.make_train_step(Dropping(), TX, T)
    for _ in range(3):
        state, metrics = step(state, x, y, rngs=key)
    chex.assert_trees_all_equal(one.signs, state.signs)
    chex.assert_trees_all_close(one.params, state.params, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(told, metrics, rtol=1e-5, atol=1e-6)


def test_devices_that_see_their_own_share_draw_for_themselves():
    step = bsojax.make_train_step(Noisy(), TX, T, axis_name="batch", metrics={"first": lambda logits, y: logits[0, 0]})
    state = jax.tree.map(lambda leaf: jnp.stack([leaf] * 2), bsojax.init(Noisy(), TX, jax.random.key(0), X[0]))
    split = lambda leaf, axis: np.stack(np.split(leaf, 2, axis))  # noqa: E731
    drawn = []

    def run(state, x, y):
        drawn.append(bsojax.online.MeanOverAxis("batch").keys(jax.random.key(0)))
        return step(state, x, y, rngs=jax.random.key(0)), jax.random.key_data(drawn[-1])

    _, keys = jax.pmap(run, axis_name="batch", devices=jax.devices()[:2])(state, split(X[:T], 1), split(Y, 0))
    assert (keys[0] != keys[1]).any()


streams = {
    "default": MLP(norm=bsojax.BatchRenorm),
    "no statistics": MLP(norm=bsojax.Affine, scale=bsojax.rsqrt_fan_in),
    "ndot, hard": MLP(neuron=functools.partial(bsojax.LIF, trace=bsojax.ndot_released, v_reset=0.0)),
    "IF, no trace": MLP(neuron=functools.partial(bsojax.IF, trace=None)),
}
each_stream = pytest.mark.parametrize("model", often(streams, "default"))


@each_stream
def test_a_stream_in_chunks_learns_as_one_sequence(model):
    long = functools.partial(trained, model, X, None, batches=1, steps=3 * T)
    whole, told = long()
    thirds = bsojax.cross_entropy_mse()  # a chunk's loss is divided by its own number of time steps
    step = bsojax.make_train_step(model, TX, T, loss=lambda logits, y: thirds(logits, y) / 3)
    state, neurons = bsojax.init(model, TX, jax.random.key(0), X[0]), bsojax.rest(model, X[0], train=True)
    losses = []
    for chunk in np.split(X, 3):
        state, metrics = step(state, chunk, Y, neurons=neurons)
        neurons = metrics["neurons"]
        losses.append(metrics["loss"])
    chex.assert_trees_all_equal(whole.signs, state.signs)
    chex.assert_trees_all_close(whole.params, state.params, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(whole.batch_stats, state.batch_stats, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(sum(losses), told["loss"], rtol=1e-5)


@each_stream
@pytest.mark.parametrize("train", [True, *rarely(False)])
def test_a_stream_in_chunks_is_evaluated_as_one_sequence(model, train):
    state, _ = trained(model, X, None)
    evaluate, neurons = bsojax.make_eval_step(model, T), bsojax.rest(model, X[0], train=train)
    whole = bsojax.make_eval_step(model, 3 * T)(state, X, Y)
    outputs, losses, others = [], [], neurons
    for chunk in np.split(X, 3):
        told = evaluate(state, chunk, Y, neurons=neurons)
        out, others = bsojax.predict(model, state, chunk, T, neurons=others)
        neurons = told["neurons"]
        chex.assert_trees_all_equal(neurons, others)
        losses.append(told["loss"])
        outputs.append(out)
    np.testing.assert_allclose(np.mean(losses), whole["loss"], rtol=1e-5)
    np.testing.assert_allclose(sum(outputs), bsojax.predict(model, state, X, 3 * T), rtol=1e-4, atol=1e-5)


def test_neurons_of_something_else_are_refused():
    model = MLP()
    state, step = bsojax.init(model, TX, jax.random.key(0), X[0]), bsojax.make_train_step(model, TX, T)
    cure = r"begin with bsojax.rest\(model, x, train=True\)"
    with pytest.raises(ValueError, match=f"neurons: leaf 'neuron_0/membrane/value' must be float32.*missing; {cure}"):
        step(state, X[:T], Y, neurons=bsojax.rest(model, X[0]))
    with pytest.raises(ValueError, match=f"neurons: leaf .* must be float32.8, 12., and is float32.4, 12.; {cure}"):
        step(state, X[:T], Y, neurons=bsojax.rest(model, X[0, :4], train=True))
    with pytest.raises(ValueError, match="neurons: leaf"):
        bsojax.make_eval_step(model, T)(state, X[:T], Y, neurons={})


def test_a_state_that_was_donated_is_told_apart():
    model = MLP()
    state, step = bsojax.init(model, TX, jax.random.key(0), X[0]), bsojax.make_train_step(model, TX, T)
    best = state
    state, _ = step(state, X[:T], Y)
    for call in (
        lambda: step(best, X[:T], Y),
        lambda: bsojax.make_eval_step(model, T)(best, X[:T], Y),
        lambda: bsojax.predict(model, best, X[:T], T),
        lambda: bsojax.refresh_statistics(model, best, [X[:T]], T),
    ):
        with pytest.raises(ValueError, match="state: it was given to a training step before.*keep the state"):
            call()
    best = jax.tree.map(jnp.copy, state)
    step(state, X[:T], Y)
    step(best, X[:T], Y)


class Recurrent(nn.Module):
    """A recurrence by hand: last spikes, kept as Spikes."""

    @nn.compact
    def __call__(self, x):
        last = self.variable("neurons", "last", lambda: bsojax.Spikes(*2 * (jnp.zeros((len(x), 12)),)))
        current = bsojax.BinaryDense(12, scale=bsojax.rsqrt_fan_in)(x)
        spikes = bsojax.LIF()(current + bsojax.BinaryDense(12, scale=bsojax.rsqrt_fan_in)(last.value))
        if not self.is_initializing():
            last.value = jax.lax.stop_gradient(spikes)
        return bsojax.Dense(C)(spikes)


def test_spikes_that_a_model_keeps_itself_are_evaluated_without_traces():
    state, _ = trained(Recurrent(), X, None)
    told = bsojax.make_eval_step(Recurrent(), T)(state, X[:T], Y)
    out, neurons = bsojax.predict(Recurrent(), state, X[:T], T, neurons=bsojax.rest(Recurrent(), X[0]))
    assert neurons["last"].trace is None
    np.testing.assert_allclose(np.mean(np.argmax(out, -1) == Y), told["accuracy"])
    by_hand, carried = 0, {}
    for frame in X[:T]:
        logits, changed = Recurrent().apply({**state.variables, **carried}, frame, mutable=["neurons"])
        carried, by_hand = {"neurons": changed["neurons"]}, by_hand + logits
    np.testing.assert_allclose(out, by_hand, rtol=1e-5, atol=1e-5)
    masked = np.arange(T)[:, None] < np.array([4, 1, 2, 3, 4, 1, 2, 3])
    step = bsojax.make_train_step(Recurrent(), TX, T, loss=bsojax.losses.cross_entropy)
    _, metrics = step(state, X[:T], Y, mask=masked)
    assert metrics["skipped"] == 0
