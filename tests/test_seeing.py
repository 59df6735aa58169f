"""What a user sees of a network: its answers, and what its neurons do."""

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

T, B, C = 4, 6, 3
X = 2 * np.random.default_rng(0).random((B, 6, 6, 1)).astype(np.float32)
Y = np.arange(B) % C
TX = bsojax.split_optimizer(bsojax.t_bso(0.1, T, b1=0.5), optax.sgd(0.1))
VGG = bsojax.models.SpikingVGG(channels=(4, 4), num_classes=C)


@functools.cache
def trained(model, packed=False):
    state, step = bsojax.init(model, TX, jax.random.key(0), X, packed=packed), bsojax.make_train_step(model, TX, T)
    for _ in range(2):
        state, _ = step(state, X, Y)
    return state


def by_hand(model, state, x=X, steps=T, **options):
    """Logits and neurons of each time step, by calling the model."""
    variables, neurons, found = {**state.variables, "signs": bsojax.unpack_signs(state.signs)}, {}, []
    for _ in range(steps):
        logits, changed = model.apply({**variables, **neurons}, x, mutable=["neurons"], **options)
        neurons = {"neurons": changed["neurons"]}
        found.append((logits, changed["neurons"]))
    return found


@pytest.mark.parametrize("packed", [False, *rarely(True)])
def test_a_prediction_is_the_sum_over_time(packed):
    state = trained(VGG, packed)
    each = np.stack([logits for logits, _ in by_hand(VGG, state)])
    before = jax.device_get(state)
    np.testing.assert_allclose(bsojax.predict(VGG, state, X, T, per_step=True), each, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(bsojax.predict(VGG, state, X, T), each.sum(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(bsojax.predict(VGG, state, np.stack([X] * T), T), each.sum(0), rtol=1e-4, atol=1e-5)
    chex.assert_trees_all_equal(jax.device_get(state), before)
    told = bsojax.make_eval_step(VGG, T)(state, X, Y)
    np.testing.assert_allclose(told["accuracy"], np.mean(each.sum(0).argmax(-1) == Y))


def test_a_prediction_holds_no_more_for_more_time_steps():
    state = trained(VGG)
    used = [
        bsojax.online._predict._outputs.lower(
            bsojax.online._statistics.Static(VGG), steps, False, False, state, X, None, None, None
        )
        .compile()
        .memory_analysis()
        .temp_size_in_bytes
        for steps in (2, 32)
    ]
    assert used[1] - used[0] < 256


neurons = {
    "LIF": bsojax.LIF,
    "hard reset": functools.partial(bsojax.LIF, v_reset=0.0, tau=3.0),
    "IF": bsojax.IF,
    "no trace": functools.partial(bsojax.LIF, trace=None),
}


@pytest.mark.parametrize("neuron", often(neurons, "LIF"))
def test_recordings_are_what_neurons_do(neuron):
    model = VGG.clone(neuron=neuron)
    state = trained(model)
    seen = bsojax.record(model, state, X, T)
    assert list(seen) == ["neuron_0", "neuron_1"]
    maker = neuron()
    tau, v_reset = getattr(maker, "tau", None), maker.v_reset
    decay = 1 - 1 / tau if tau else 1.0
    held = by_hand(model, state)
    for name, layer in seen.items():
        chex.assert_shape((layer.spikes, layer.membranes, layer.currents), (T, B, 6, 6, 4))
        v, trace = np.zeros(layer.currents.shape[1:]), np.zeros(layer.currents.shape[1:])
        for t in range(T):
            u = decay * v + layer.currents[t]
            spike = u >= 1
            v = np.where(spike, v_reset, u) if v_reset is not None else u - spike
            trace = decay * trace + spike
            np.testing.assert_allclose(layer.membranes[t], u, rtol=1e-4, atol=1e-5)
            np.testing.assert_array_equal(layer.spikes[t], layer.membranes[t] >= 1)
            np.testing.assert_allclose(held[t][1][name]["membrane"], v, rtol=1e-4, atol=1e-5)
            if maker.trace is not None:
                np.testing.assert_allclose(layer.traces[t], trace, rtol=1e-4, atol=1e-5)
        assert (layer.traces is None) == (maker.trace is None)
        assert layer.spikes.any()


def test_recordings_go_on_with_a_stream_and_wait_where_nothing_counts():
    state = trained(VGG)
    whole = bsojax.record(VGG, state, X, T)["neuron_1"]
    mask = np.ones((T + 1, B), bool)
    mask[2] = False
    waited = bsojax.record(VGG, state, X, T + 1, mask=mask)["neuron_1"]
    np.testing.assert_allclose(np.delete(waited.membranes, 2, axis=0), whole.membranes, rtol=1e-5, atol=1e-6)


class Leaky(nn.Module):
    """A readout of the membranes that neurons offer."""

    @nn.compact
    def __call__(self, x, train=False):
        neuron = bsojax.LIF()
        neuron(bsojax.BatchNorm()(bsojax.BinaryConv(C, (3, 3))(x), train))
        v, u = neuron.membrane_potential(), neuron.membrane_potential(before_reset=True)
        return bsojax.Dense(C)(bsojax.flatten(v)) + jnp.mean(u, axis=(1, 2))


def test_neurons_offer_their_membrane_in_training_and_in_evaluation():
    state = trained(Leaky())
    np.testing.assert_allclose(
        bsojax.predict(Leaky(), state, X, T), sum(logits for logits, _ in by_hand(Leaky(), state)), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("x", "options", "error", "match"),
    [
        (X[:, :3], {}, ValueError, "x: the model was initialised for examples of shape"),
        (X.astype(np.int32), {}, TypeError, "x: needs a floating dtype"),
        (X, {"mask": np.ones(B - 1, bool)}, ValueError, "mask: needs the shape"),
        (X, {"neurons": {}}, ValueError, "neurons: leaf"),
    ],
)
def test_what_does_not_fit(x, options, error, match):
    state = trained(VGG)
    for see in (bsojax.predict, bsojax.record):
        with pytest.raises(error, match=match):
            see(VGG, state, x, T, **options)


def test_nan_is_seen_in_a_prediction():
    """Spikes hide what is not finite: a membrane of NaN does not fire, and the answer would look like any other."""
    state = trained(VGG)
    x = jnp.asarray(X).at[0].set(jnp.nan)
    assert np.isnan(bsojax.predict(VGG, state, x, T)[0]).all()
    assert np.isfinite(bsojax.predict(VGG, state, x, T)[1:]).all()
